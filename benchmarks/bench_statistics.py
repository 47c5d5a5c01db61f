"""What statistics cost: counting, asking for them, and the timings of a response.

Counting is called from Python here, with numbers to convert, which the request path does not do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from harness import MODELS, Contender, Figures, Report, of, tight
from trivial import TRIVIAL

import pytriton_lite as ptl
from pytriton_lite._core.statistics import VersionStatistics

SIZES = 32


def statistics(report: Report) -> None:
    """Each against the whole inline call of a trivial model."""
    count = report.count(5_000)

    @contextmanager
    def called(
        of_model: Callable[[ptl.Model], Callable[[], object]],
    ) -> Iterator[Callable[[], Figures]]:
        with ptl.Server(MODELS, execution="inline") as server:
            yield tight(of_model(server.model("trivial")), count)

    @contextmanager
    def counted(sizes: int) -> Iterator[Callable[[], Figures]]:
        counters = VersionStatistics()
        rows = iter(range(sizes))

        def one() -> None:
            nonlocal rows
            size = next(rows, None)
            if size is None:
                rows = iter(range(sizes))
                size = sizes
            counters.executed(1_000, 2_000, 3_000, size, False)

        same = partial(counters.executed, 1_000, 2_000, 3_000, 1, False)
        yield tight(same if sizes == 1 else one, count)

    def timings(model: ptl.Model) -> Callable[[], object]:
        response = model.run(TRIVIAL)
        return lambda: response.timings

    contenders: dict[str, Contender] = {
        "run": partial(called, lambda model: partial(model.run, TRIVIAL)),
        "counting": partial(counted, 1),
        "counting sizes": partial(counted, SIZES),
        "statistics": partial(called, lambda model: model.statistics),
        "timings": partial(called, timings),
    }
    rounds = report.compare(contenders)
    figures = {name: of(values, "ns") for name, values in rounds.items()}
    base = {"baseline": "inline trivial, model.run(...)", "base": figures["run"]}
    report.add("count an execution", "ns", figures["counting"], most=300, **base)
    report.add(
        f"count executions of {SIZES} batch sizes",
        "ns",
        figures["counting sizes"],
        most=300,
        **base,
    )
    report.add("response.timings", "ns", figures["timings"], **base)
    report.add("model.statistics()", "ns", figures["statistics"], **base)


def main() -> None:
    """Run all and print the table."""
    report = Report.from_command_line(__doc__ or "")
    statistics(report)
    report.finish()


if __name__ == "__main__":
    main()

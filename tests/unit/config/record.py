"""Ask a running tritonserver what it makes of the configurations here, and write that down.

The server must have been started on a folder of its own, and its output sent to a file, since
Triton tells in its log only why a configuration cannot be read:

    mkdir DIR
    tritonserver --model-control-mode=explicit --model-repository=DIR >LOG 2>&1
    python -m tests.unit.config.record --url http://127.0.0.1:8000 --repository DIR --log LOG

It writes ``data/random_configs_triton_2_51.json`` and its neighbours. What they hold already is
not asked again: remove a file to record it anew.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .broken_configs import BREAKERS, broken_config
from .ensembles import COMPOSING, ENSEMBLES
from .random_configs import FILES, random_config

DATA = Path(__file__).with_name("data")
RANDOM_COUNT = 260
BROKEN_COUNT = len(BREAKERS) + 110
LOAD_TIMEOUT_S = 20.0

_LOAD_FAILED = re.compile(
    r"load failed for model '[^']*': (?:version 1 is at UNAVAILABLE state: )?(.*?);?\n", re.DOTALL
)
_BACKENDS = re.compile(r"'/[^' ]*/backends/")
_BLOCK = re.compile(r"\n\nAt:\n.*", re.DOTALL)


def random_cases() -> list[dict[str, Any]]:
    """Configurations that are meant to load."""
    names = [f"random_{seed}" for seed in range(RANDOM_COUNT)]
    return [{"name": name, "pbtxt": random_config(seed, name)} for seed, name in enumerate(names)]


def broken_cases() -> list[dict[str, Any]]:
    """Configurations with defects, all of a model `M`."""
    cases = []
    for seed in range(BROKEN_COUNT):
        defects, pbtxt = broken_config(seed, "M")
        cases.append({"name": "M", "defects": defects, "pbtxt": pbtxt})
    return cases


def ensemble_cases() -> list[dict[str, Any]]:
    """Ensembles, all named `M`, with an empty version folder."""
    return [
        {"name": "M", "case": case, "pbtxt": pbtxt, "files": {"1/x": ""}}
        for case, pbtxt in ENSEMBLES.items()
    ]


class Recorder:
    """Loads models one by one.

    Parameters
    ----------
    url, repository, log
        Of the server.
    """

    def __init__(self, url: str, repository: Path, log: Path) -> None:
        self._url = url
        self._repository = repository.resolve()
        self._log = log

    def _call(self, path: str, body: str | None = None) -> tuple[int, str]:
        data = None if body is None else body.encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{self._url}/v2/{path}", data=data), timeout=LOAD_TIMEOUT_S
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read().decode())["error"]

    def write(self, name: str, config: str, files: Mapping[str, str]) -> None:
        """Write a model folder."""
        folder = self._repository / name
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in {"config.pbtxt": config, **files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")

    def answer(
        self, name: str, pbtxt: str, files: Mapping[str, str] = FILES, **_: object
    ) -> dict[str, Any]:
        """Load a model; its configuration, or the phase that refused it and the reason."""
        self.write(name, pbtxt, files)
        logged = len(self._log.read_bytes())
        try:
            try:
                status, text = self._call(f"repository/models/{name}/load", "{}")
            except TimeoutError:
                return {"phase": "load", "reason": None}
            if status == 200:
                return {"json": self._call(f"models/{name}/config")[1]}
            if "failed to poll from model repository" in text:
                log = self._log.read_bytes()[logged:].decode(errors="replace")
                reason = re.search(rf"Poll failed for model directory '{name}': (.*)\"", log)
                return {"phase": "poll", "reason": self._clean(reason[1] if reason else text)}
            found = _LOAD_FAILED.fullmatch(text)
            phase = "load" if "is at UNAVAILABLE" in text else "dependency"
            return {"phase": phase, "reason": self._clean(found[1] if found else text)}
        finally:
            self._call(f"repository/models/{name}/unload", "{}")
            shutil.rmtree(self._repository / name)

    def _clean(self, text: str) -> str:
        text = text.replace(str(self._repository), "<repo>")
        return _BLOCK.sub("", _BACKENDS.sub("'<backends>/", text))


def _record(file: str, cases: list[dict[str, Any]], recorder: Recorder) -> None:
    """Write down the cases with their answers; what was asked before is not asked again."""
    path = DATA / f"{file}_triton_2_51.json"
    old = json.loads(path.read_text("utf-8")) if path.exists() else []
    known = {answer["pbtxt"]: answer for answer in old}
    answers = []
    for case in cases:
        answer = known.get(case["pbtxt"], {})
        if "json" not in answer and "reason" not in answer:
            try:
                answer = recorder.answer(**case)
            except (OSError, http.client.HTTPException):
                # The server has ended. Start it again to go on after this case.
                answer = {"phase": "crash", "reason": None}
            print(case["name"], answer.get("reason", "loaded"), flush=True)
        answers.append(
            {**case, **{key: answer[key] for key in ("json", "phase", "reason") if key in answer}}
        )
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in answers)
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        if answer.get("phase") == "crash" and case["pbtxt"] not in known:
            raise SystemExit("the server has ended: start it again, to record the rest")


def main() -> None:
    """Record everything, or what is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--only", choices=["random", "broken", "ensembles"])
    given = parser.parse_args()
    recorder = Recorder(given.url, given.repository, given.log)
    if given.only in (None, "random"):
        _record("random_configs", random_cases(), recorder)
    if given.only in (None, "broken"):
        _record("broken_configs", broken_cases(), recorder)
    if given.only in (None, "ensembles"):
        for name, config in COMPOSING.items():
            recorder.write(name, config, FILES)
        _record("ensembles", ensemble_cases(), recorder)


if __name__ == "__main__":
    main()

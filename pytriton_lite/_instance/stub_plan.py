"""What a server tells a stub to load, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pytriton_lite._backend import ResolvedBackend
from pytriton_lite._control import ModelControl
from pytriton_lite._instance.loader import InstancePlan, ModelCode
from pytriton_lite._instance.services.log import log_levels
from pytriton_lite._metrics import MetricRegistry

# Of an `InstancePlan`, what goes as it is.
_PLAIN = (
    "name", "kind", "device_id", "config_json", "max_batch_size", "is_decoupled", "is_iterative",
    "share_memory",
)  # fmt: skip


def code_of_wire(wire: dict[str, Any]) -> ModelCode:
    """Make the `ModelCode` of what `dataclasses.asdict` and JSON made of one."""
    backend = ResolvedBackend(
        **{**wire["backend"], "search_path": tuple(wire["backend"]["search_path"])}
    )
    return ModelCode(**{**wire, "backend": backend})


def plan_to_wire(plan: InstancePlan) -> dict[str, Any]:
    """What a stub needs to know of a plan; JSON can carry it."""
    wire = {name: getattr(plan, name) for name in _PLAIN}
    wire["code"] = asdict(plan.code)
    wire["output_reshapes"] = plan.output_reshapes
    wire["output_names"] = plan.output_names
    wire["log_levels"] = log_levels()
    wire["checks_outputs"] = plan.check_outputs is not None
    return wire


def plan_of_wire(
    wire: dict[str, Any], *, metrics: MetricRegistry, control: ModelControl | None
) -> InstancePlan:
    """Make the plan of a stub's own."""
    reshapes = wire["output_reshapes"]
    return InstancePlan(
        **{name: wire[name] for name in _PLAIN},
        code=code_of_wire(wire["code"]),
        output_names=tuple(wire["output_names"]),
        output_reshapes=reshapes and {name: tuple(dims) for name, dims in reshapes.items()},
        check_outputs=_output_check(wire["config_json"]) if wire["checks_outputs"] else None,
        metrics=metrics,
        control=control,
    )


def _output_check(config_json: str) -> Any:
    # Imported here, since the configuration's schema takes as long to import as all else.
    from pytriton_lite._config.json_form import from_json
    from pytriton_lite._config.model_config import settings_of
    from pytriton_lite._instance.output_check import make_output_check

    return make_output_check(settings_of(from_json(config_json)))

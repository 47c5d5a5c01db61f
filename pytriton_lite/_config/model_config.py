"""Typed, frozen view of a configuration, for the parts that know no protobuf."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from .json_form import to_json
from .schema import ConfigMessage

SchedulerName: TypeAlias = Literal["dynamic_batching", "sequence_batching", "ensemble_scheduling"]
InstanceKind: TypeAlias = Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"]


@dataclass(frozen=True, slots=True)
class TensorSettings:
    """One input or output.

    Attributes
    ----------
    data_type
        Number of ``inference.DataType``, as in ``_dtypes.BY_NUMBER``.
    dims
        Dimensions as clients see them, without the batch dimension when the
        model batches; -1 is any size.
    reshape
        Dimensions as the model sees them, or None when they are ``dims``.
    is_optional, allow_ragged_batch
        False for outputs.
    label_filename
        Empty for inputs.
    """

    name: str
    data_type: int
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    is_optional: bool = False
    allow_ragged_batch: bool = False
    label_filename: str = ""

    @property
    def model_dims(self) -> tuple[int, ...]:
        """Dimensions as the model sees them."""
        return self.dims if self.reshape is None else self.reshape


@dataclass(frozen=True, slots=True)
class InstanceGroupSettings:
    """One instance group; instances are named ``<name>_<i>``."""

    name: str
    kind: InstanceKind
    count: int
    gpus: tuple[int, ...] = ()
    is_passive: bool = False
    host_policy: str = ""


@dataclass(frozen=True, slots=True)
class QueuePolicySettings:
    """Limits of one queue; 0 means none."""

    is_delay: bool = False
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0


@dataclass(frozen=True, slots=True)
class DynamicBatchingSettings:
    """The dynamic batcher's settings."""

    preferred_batch_sizes: tuple[int, ...]
    max_queue_delay_us: int
    preserve_ordering: bool
    priority_levels: int
    default_priority_level: int
    default_queue_policy: QueuePolicySettings
    priority_queue_policies: dict[int, QueuePolicySettings]


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which version folders are served.

    Attributes
    ----------
    kind
        ``latest``, ``all`` or ``specific``.
    num_versions
        Of ``latest``: how many of the greatest versions.
    versions
        Of ``specific``: the versions listed.
    """

    kind: Literal["latest", "all", "specific"]
    num_versions: int = 0
    versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A configuration after defaults, auto-complete and validation.

    Attributes
    ----------
    scheduler
        Name of the configured scheduler's field, or None for the default one.
    is_iterative
        Sequence batching of iterative sequences, whose requests may be rescheduled.
    dynamic_batching
        Set when ``scheduler`` is ``dynamic_batching``.
    parameters
        Keys and ``string_value`` texts.
    metric_tags
        Labels of its metrics, without the underscore that Triton puts before them.
    json
        Triton's JSON text of the configuration, as models get it in ``args``.
    """

    name: str
    backend: str
    runtime: str
    platform: str
    default_model_filename: str
    max_batch_size: int
    version_policy: VersionPolicy
    inputs: tuple[TensorSettings, ...]
    outputs: tuple[TensorSettings, ...]
    instance_groups: tuple[InstanceGroupSettings, ...]
    is_decoupled: bool
    scheduler: SchedulerName | None
    is_iterative: bool
    dynamic_batching: DynamicBatchingSettings | None
    parameters: dict[str, str]
    metric_tags: dict[str, str]
    json: str


def settings_of(message: ConfigMessage) -> ModelSettings:
    """Return the typed view of a ``ModelConfig`` message, as it is now."""
    return ModelSettings(
        name=message.name,
        backend=message.backend,
        runtime=message.runtime,
        platform=message.platform,
        default_model_filename=message.default_model_filename,
        max_batch_size=message.max_batch_size,
        version_policy=version_policy_of(message),
        inputs=tuple(
            TensorSettings(
                name=tensor.name,
                data_type=tensor.data_type,
                dims=tuple(tensor.dims),
                reshape=_reshape_of(tensor),
                is_optional=tensor.optional,
                allow_ragged_batch=tensor.allow_ragged_batch,
            )
            for tensor in message.input
        ),
        outputs=tuple(
            TensorSettings(
                name=tensor.name,
                data_type=tensor.data_type,
                dims=tuple(tensor.dims),
                reshape=_reshape_of(tensor),
                label_filename=tensor.label_filename,
            )
            for tensor in message.output
        ),
        instance_groups=tuple(
            InstanceGroupSettings(
                name=group.name,
                kind=instance_kind(group),
                count=group.count,
                gpus=tuple(group.gpus),
                is_passive=group.passive,
                host_policy=group.host_policy,
            )
            for group in message.instance_group
        ),
        is_decoupled=message.model_transaction_policy.decoupled,
        scheduler=scheduler_name(message),
        is_iterative=message.sequence_batching.iterative_sequence,
        dynamic_batching=_dynamic_batching_of(message),
        parameters={
            key: message.parameters[key].string_value for key in sorted(message.parameters)
        },
        metric_tags=dict(message.metric_tags),
        json=to_json(message),
    )


def scheduler_name(message: ConfigMessage) -> SchedulerName | None:
    """Return the name of the scheduler's field, or None."""
    return cast("SchedulerName | None", message.WhichOneof("scheduling_choice"))


def instance_kind(group: ConfigMessage) -> InstanceKind:
    """Return the enum name of a group's kind; an unknown number counts as KIND_CPU."""
    value = group.DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number.get(group.kind)
    return cast("InstanceKind", "KIND_CPU" if value is None else value.name)


def _reshape_of(tensor: ConfigMessage) -> tuple[int, ...] | None:
    return tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None


def _queue_policy_of(policy: ConfigMessage) -> QueuePolicySettings:
    return QueuePolicySettings(
        is_delay=policy.timeout_action == policy.DELAY,
        default_timeout_us=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.max_queue_size,
    )


def _dynamic_batching_of(message: ConfigMessage) -> DynamicBatchingSettings | None:
    if not message.HasField("dynamic_batching"):
        return None
    batching = message.dynamic_batching
    policies = batching.priority_queue_policy
    return DynamicBatchingSettings(
        preferred_batch_sizes=tuple(batching.preferred_batch_size),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        preserve_ordering=batching.preserve_ordering,
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        default_queue_policy=_queue_policy_of(batching.default_queue_policy),
        priority_queue_policies={
            level: _queue_policy_of(policies[level]) for level in sorted(policies)
        },
    )


# --- versions ---


def version_policy_of(message: ConfigMessage) -> VersionPolicy:
    """Return the version policy; one without a choice serves all versions, as on Triton 2.51."""
    if not message.HasField("version_policy"):
        return VersionPolicy("latest", num_versions=1)
    policy = message.version_policy
    match policy.WhichOneof("policy_choice"):
        case "latest":
            return VersionPolicy("latest", num_versions=policy.latest.num_versions)
        case "specific":
            return VersionPolicy("specific", versions=tuple(policy.specific.versions))
        case _:
            return VersionPolicy("all")


def select_versions(policy: VersionPolicy | ConfigMessage, available: Iterable[int]) -> list[int]:
    """Return the versions to serve, in ascending order.

    Parameters
    ----------
    policy
        A version policy, or the message that holds one.
    available
        Version numbers that have a folder.

    Returns
    -------
    list of int
        Empty when the policy picks none; the loader refuses that.
    """
    if not isinstance(policy, VersionPolicy):
        policy = version_policy_of(policy)
    versions = sorted(set(available))
    match policy.kind:
        case "latest":
            # A slice from -0 would take them all.
            return versions[-policy.num_versions :] if policy.num_versions else []
        case "specific":
            return [version for version in versions if version in policy.versions]
        case _:
            return versions

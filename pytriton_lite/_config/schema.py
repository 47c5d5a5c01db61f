"""Descriptors of ``inference.ModelConfig`` (Triton 2.73), built in code.

There is no generated ``_pb2`` module on purpose: generated code ties its users
to one range of protobuf versions, and it registers its symbols in protobuf's
default pool, where ``tritonclient`` registers the same ones. Here they live in
a `DescriptorPool` of our own.

The table below has one line per declaration, nested by indentation:

    Name                            a message
    enum Name A B C                 an enum, numbered from 0
    field number type               a singular field
    field number type[]             a repeated field
    field number {key:type}         a map
    field number type @oneof        a member of a oneof

The order of the lines matters: it is the key order of Triton's JSON form.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        FieldDescriptorProto,
        FileDescriptorProto,
    )

# Messages of a schema that is built at run time have no static type. The descriptors' own
# stubs differ from one protobuf release to the next.
ConfigMessage: TypeAlias = Any
Field: TypeAlias = Any

_PACKAGE = "inference"

_SCHEMA = """
enum DataType TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 \
TYPE_INT16 TYPE_INT32 TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16
ModelRateLimiter
    Resource
        name 1 string
        global 2 bool
        count 3 uint32
    resources 1 Resource[]
    priority 2 uint32
ModelInstanceGroup
    enum Kind KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL
    SecondaryDevice
        enum SecondaryDeviceKind KIND_NVDLA
        kind 1 SecondaryDeviceKind
        device_id 2 int64
    name 1 string
    kind 4 Kind
    count 2 int32
    rate_limiter 6 ModelRateLimiter
    gpus 3 int32[]
    secondary_devices 8 SecondaryDevice[]
    profile 5 string[]
    passive 7 bool
    host_policy 9 string
ModelTensorReshape
    shape 1 int64[]
ModelInput
    enum Format FORMAT_NONE FORMAT_NHWC FORMAT_NCHW
    name 1 string
    data_type 2 DataType
    format 3 Format
    dims 4 int64[]
    reshape 5 ModelTensorReshape
    is_shape_tensor 6 bool
    allow_ragged_batch 7 bool
    optional 8 bool
    is_non_linear_format_io 9 bool
ModelOutput
    name 1 string
    data_type 2 DataType
    dims 3 int64[]
    reshape 5 ModelTensorReshape
    label_filename 4 string
    is_shape_tensor 6 bool
    is_non_linear_format_io 7 bool
BatchInput
    enum Kind BATCH_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT \
BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO BATCH_MAX_ELEMENT_COUNT_AS_SHAPE BATCH_ITEM_SHAPE \
BATCH_ITEM_SHAPE_FLATTEN
    kind 1 Kind
    target_name 2 string[]
    data_type 3 DataType
    source_input 4 string[]
BatchOutput
    enum Kind BATCH_SCATTER_WITH_INPUT_SHAPE
    target_name 1 string[]
    kind 2 Kind
    source_input 3 string[]
ModelVersionPolicy
    Latest
        num_versions 1 uint32
    All
    Specific
        versions 1 int64[]
    latest 1 Latest @policy_choice
    all 2 All @policy_choice
    specific 3 Specific @policy_choice
ModelOptimizationPolicy
    enum ModelPriority PRIORITY_DEFAULT PRIORITY_MAX PRIORITY_MIN
    Graph
        level 1 int32
    Cuda
        GraphSpec
            Shape
                dim 1 int64[]
            LowerBound
                batch_size 1 int32
                input 2 {string:Shape}
            batch_size 1 int32
            input 2 {string:Shape}
            graph_lower_bound 3 LowerBound
        graphs 1 bool
        busy_wait_events 2 bool
        graph_spec 3 GraphSpec[]
        output_copy_stream 4 bool
    ExecutionAccelerators
        Accelerator
            name 1 string
            parameters 2 {string:string}
        gpu_execution_accelerator 1 Accelerator[]
        cpu_execution_accelerator 2 Accelerator[]
    PinnedMemoryBuffer
        enable 1 bool
    graph 1 Graph
    priority 2 ModelPriority
    cuda 3 Cuda
    execution_accelerators 4 ExecutionAccelerators
    input_pinned_memory 5 PinnedMemoryBuffer
    output_pinned_memory 6 PinnedMemoryBuffer
    gather_kernel_buffer_threshold 7 uint32
    eager_batching 8 bool
ModelQueuePolicy
    enum TimeoutAction REJECT DELAY
    timeout_action 1 TimeoutAction
    default_timeout_microseconds 2 uint64
    allow_timeout_override 3 bool
    max_queue_size 4 uint32
ModelDynamicBatching
    preferred_batch_size 1 int32[]
    max_queue_delay_microseconds 2 uint64
    preserve_ordering 3 bool
    priority_levels 4 uint64
    default_priority_level 5 uint64
    default_queue_policy 6 ModelQueuePolicy
    priority_queue_policy 7 {uint64:ModelQueuePolicy}
ModelSequenceBatching
    Control
        enum Kind CONTROL_SEQUENCE_START CONTROL_SEQUENCE_READY CONTROL_SEQUENCE_END \
CONTROL_SEQUENCE_CORRID
        kind 1 Kind
        int32_false_true 2 int32[]
        fp32_false_true 3 float[]
        bool_false_true 5 bool[]
        data_type 4 DataType
    ControlInput
        name 1 string
        control 2 Control[]
    InitialState
        data_type 1 DataType
        dims 2 int64[]
        zero_data 3 bool @state_data
        data_file 4 string @state_data
        name 5 string
    State
        input_name 1 string
        output_name 2 string
        data_type 3 DataType
        dims 4 int64[]
        initial_state 5 InitialState[]
        use_same_buffer_for_input_output 6 bool
        use_growable_memory 7 bool
    StrategyDirect
        max_queue_delay_microseconds 1 uint64
        minimum_slot_utilization 2 float
    StrategyOldest
        max_candidate_sequences 1 int32
        preferred_batch_size 2 int32[]
        max_queue_delay_microseconds 3 uint64
        preserve_ordering 4 bool
    direct 3 StrategyDirect @strategy_choice
    oldest 4 StrategyOldest @strategy_choice
    max_sequence_idle_microseconds 1 uint64
    control_input 2 ControlInput[]
    state 5 State[]
    iterative_sequence 6 bool
ModelEnsembling
    Step
        model_name 1 string
        model_version 2 int64
        input_map 3 {string:string}
        output_map 4 {string:string}
        model_namespace 5 string
    step 1 Step[]
    max_inflight_requests 2 uint32
ModelParameter
    string_value 1 string
ModelWarmup
    Input
        data_type 1 DataType
        dims 2 int64[]
        zero_data 3 bool @input_data_type
        random_data 4 bool @input_data_type
        input_data_file 5 string @input_data_type
    name 1 string
    batch_size 2 uint32
    inputs 3 {string:Input}
    count 4 uint32
ModelOperations
    op_library_filename 1 string[]
ModelTransactionPolicy
    decoupled 1 bool
ModelRepositoryAgents
    Agent
        name 1 string
        parameters 2 {string:string}
    agents 1 Agent[]
ModelResponseCache
    enable 1 bool
ModelMetrics
    MetricControl
        MetricIdentifier
            family 1 string
        HistogramOptions
            buckets 1 double[]
        metric_identifier 1 MetricIdentifier
        histogram_options 2 HistogramOptions @metric_options
    metric_control 1 MetricControl[]
ModelConfig
    name 1 string
    platform 2 string
    backend 17 string
    runtime 25 string
    version_policy 3 ModelVersionPolicy
    max_batch_size 4 int32
    input 5 ModelInput[]
    output 6 ModelOutput[]
    batch_input 20 BatchInput[]
    batch_output 21 BatchOutput[]
    optimization 12 ModelOptimizationPolicy
    dynamic_batching 11 ModelDynamicBatching @scheduling_choice
    sequence_batching 13 ModelSequenceBatching @scheduling_choice
    ensemble_scheduling 15 ModelEnsembling @scheduling_choice
    instance_group 7 ModelInstanceGroup[]
    default_model_filename 8 string
    cc_model_filenames 9 {string:string}
    metric_tags 10 {string:string}
    parameters 14 {string:ModelParameter}
    model_warmup 16 ModelWarmup[]
    model_operations 18 ModelOperations
    model_transaction_policy 19 ModelTransactionPolicy
    model_repository_agents 23 ModelRepositoryAgents
    response_cache 24 ModelResponseCache
    model_metrics 26 ModelMetrics
"""

_INDENT = 4


def _declare(lines: list[str]) -> tuple[FileDescriptorProto, dict[str, bool]]:
    """Make the messages and enums, without fields; also map each full name to "is an enum"."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto(
        # Not Triton's file name, so that an error text shows which of the two pools it is about.
        name="pytriton_lite/model_config.proto",
        package=_PACKAGE,
        syntax="proto3",
    )
    is_enum: dict[str, bool] = {}
    scopes: list[Any] = [file]
    names = [_PACKAGE]
    for line in lines:
        words = line.split()
        depth = (len(line) - len(line.lstrip())) // _INDENT
        del scopes[depth + 1 :], names[depth + 1 :]
        if words[0] == "enum":
            enum = scopes[-1].enum_type.add(name=words[1])
            for number, name in enumerate(words[2:]):
                enum.value.add(name=name, number=number)
            is_enum[".".join([*names, words[1]])] = True
        elif len(words) == 1:
            parent = scopes[-1]
            messages = parent.message_type if parent is file else parent.nested_type
            scopes.append(messages.add(name=words[0]))
            names.append(words[0])
            is_enum[".".join(names)] = False
    return file, is_enum


def _set_type(
    field: FieldDescriptorProto, type_name: str, scope: str, is_enum: dict[str, bool]
) -> None:
    """Set a field's type; a name that is no scalar is looked up from ``scope`` outwards."""
    scalars = {
        "bool": field.TYPE_BOOL,
        "double": field.TYPE_DOUBLE,
        "float": field.TYPE_FLOAT,
        "int32": field.TYPE_INT32,
        "int64": field.TYPE_INT64,
        "string": field.TYPE_STRING,
        "uint32": field.TYPE_UINT32,
        "uint64": field.TYPE_UINT64,
    }
    if type_name in scalars:
        field.type = scalars[type_name]
        return
    while f"{scope}.{type_name}" not in is_enum:
        scope, _, _ = scope.rpartition(".")
    full_name = f"{scope}.{type_name}"
    field.type = field.TYPE_ENUM if is_enum[full_name] else field.TYPE_MESSAGE
    field.type_name = f".{full_name}"


def _add_field(
    message: DescriptorProto, words: list[str], scope: str, is_enum: dict[str, bool]
) -> None:
    name, number, type_name, *oneof = words
    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_OPTIONAL
    if oneof:
        oneof_name = oneof[0].removeprefix("@")
        if all(declared.name != oneof_name for declared in message.oneof_decl):
            message.oneof_decl.add(name=oneof_name)
        field.oneof_index = [declared.name for declared in message.oneof_decl].index(oneof_name)
    if type_name.startswith("{"):
        # Protobuf's own form of a map: repeated entries of a nested message, of a fixed name.
        entry = message.nested_type.add(
            name="".join(part.capitalize() for part in name.split("_")) + "Entry"
        )
        entry.options.map_entry = True
        for index, part in enumerate(type_name.strip("{}").split(":")):
            inner = entry.field.add(name=("key", "value")[index], number=index + 1)
            inner.label = inner.LABEL_OPTIONAL
            _set_type(inner, part, scope, is_enum)
        field.label = field.LABEL_REPEATED
        field.type = field.TYPE_MESSAGE
        field.type_name = f".{scope}.{entry.name}"
        return
    if type_name.endswith("[]"):
        field.label = field.LABEL_REPEATED
    _set_type(field, type_name.removesuffix("[]"), scope, is_enum)


def file_descriptor_proto() -> FileDescriptorProto:
    """Build the schema as a ``FileDescriptorProto``, fields in declaration order."""
    lines = _SCHEMA.strip().splitlines()
    file, is_enum = _declare(lines)
    scopes: list[Any] = [file]
    names = [_PACKAGE]
    for line in lines:
        words = line.split()
        depth = (len(line) - len(line.lstrip())) // _INDENT
        del scopes[depth + 1 :], names[depth + 1 :]
        if len(words) == 1:
            parent = scopes[-1]
            messages = parent.message_type if parent is file else parent.nested_type
            scopes.append(next(message for message in messages if message.name == words[0]))
            names.append(words[0])
        elif words[0] != "enum":
            _add_field(scopes[-1], words, ".".join(names), is_enum)
    return file


_class_lock = threading.Lock()


def model_config_class() -> type[ConfigMessage]:
    """Return the message class of ``inference.ModelConfig``.

    Notes
    -----
    The first call imports protobuf and builds the private pool (some
    milliseconds); later calls return the same class.
    """
    # Models load side by side, and a second class of one descriptor fits no message of the first.
    with _class_lock:
        return _make_model_config_class()


@functools.cache
def _make_model_config_class() -> type[ConfigMessage]:
    from google.protobuf import descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    file = pool.AddSerializedFile(file_descriptor_proto().SerializeToString())
    found = file or pool.FindFileContainingSymbol(f"{_PACKAGE}.ModelConfig")
    # All classes now, those of nested messages as well: made later, they would race again.
    classes = _message_classes(found.message_types_by_name.values(), message_factory)
    model_config: type[ConfigMessage] = classes[f"{_PACKAGE}.ModelConfig"]
    return model_config


def _message_classes(descriptors: Any, message_factory: Any) -> dict[str, Any]:
    classes = {}
    for descriptor in descriptors:
        classes[descriptor.full_name] = message_factory.GetMessageClass(descriptor)
        classes |= _message_classes(descriptor.nested_types, message_factory)
    return classes


def is_repeated(field: Field) -> bool:
    """Tell whether a field descriptor is that of a list or a map."""
    # `label` is deprecated since protobuf 6, and `is_repeated` is not there before it.
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if repeated is None else repeated)


def integer_type(field: Field) -> tuple[str, int, int]:
    """Return the type name, least and greatest value of an integer field."""
    return {
        field.CPPTYPE_INT32: ("TYPE_INT32", -(2**31), 2**31 - 1),
        field.CPPTYPE_INT64: ("TYPE_INT64", -(2**63), 2**63 - 1),
        field.CPPTYPE_UINT32: ("TYPE_UINT32", 0, 2**32 - 1),
        field.CPPTYPE_UINT64: ("TYPE_UINT64", 0, 2**64 - 1),
        # Enums of proto3 are open: any int32 passes.
        field.CPPTYPE_ENUM: ("TYPE_ENUM", -(2**31), 2**31 - 1),
    }[field.cpp_type]

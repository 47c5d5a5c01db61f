"""Values of `triton_python_backend_utils`, looked at from inside a model.

Each probe is a piece of model code. An expression is evaluated; a block sets
``result``. The answer is ``repr(result)``, or the type and the first line of the
text of the exception that was raised.
"""

from __future__ import annotations

from ..schema import (
    Group,
    InferCase,
    ModelFiles,
    Scalar,
    ask,
    plain,
    source,
    tensor,
    words,
)

PROBE = source("""
    import ctypes
    import json

    import numpy as np
    import triton_python_backend_utils as pb_utils

    NATIVE = ("Tensor", "InferenceRequest", "InferenceResponse", "TritonError")


    def ones(dtype=np.float32, shape=2):
        return np.ones(shape, dtype=dtype)


    def make(**changes):
        arguments = {"inputs": [], "requested_output_names": [], "model_name": "callee"}
        return pb_utils.InferenceRequest(**{**arguments, **changes})


    def capsule_name(capsule):
        get_name = ctypes.pythonapi.PyCapsule_GetName
        get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
        return get_name(capsule).decode()


    def answer(code, request):
        names = {**globals(), "request": request}
        names.update((name, getattr(pb_utils, name)) for name in NATIVE)
        try:
            try:
                compiled = compile(code, "<probe>", "eval")
            except SyntaxError:
                exec(code, names)
                return repr(names["result"])
            return repr(eval(compiled, names))
        except BaseException as error:
            lines = str(error).splitlines() or [""]
            return f"{type(error).__name__}: {lines[0]}"


    class TritonPythonModel:
        def execute(self, requests):
            responses = []
            for request in requests:
                code = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0].decode()
                text = np.array([answer(code, request)], dtype=np.object_)
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text)]))
            return responses
""")

PROBES: dict[str, str] = {
    # Tensor: construction
    "tensor_empty_name": "Tensor('', ones())",
    "tensor_name_bytes": "Tensor(b'x', ones()).name()",
    "tensor_name_non_ascii": "Tensor('größe', ones()).name()",
    "tensor_name_none": "Tensor(None, ones())",
    "tensor_name_number": "Tensor(5, ones())",
    "tensor_keywords": "Tensor(name='x', numpy_array=ones())",
    "tensor_no_arguments": "Tensor()",
    "tensor_three_arguments": "Tensor('x', ones(), 1)",
    "tensor_list": "Tensor('x', [1.0, 2.0])",
    "tensor_float": "Tensor('x', 1.0)",
    "tensor_bytes": "Tensor('x', b'abc')",
    "tensor_none": "Tensor('x', None)",
    "tensor_numpy_scalar": "Tensor('x', np.float32(3))",
    "tensor_sum": "Tensor('x', ones().sum())",
    "tensor_memoryview": "Tensor('x', memoryview(ones()))",
    "tensor_masked": "Tensor('x', np.ma.masked_array(ones(), [0, 1]))",
    "tensor_recarray": "Tensor('x', np.zeros(2).view(np.recarray)).shape()",
    "tensor_subclass": """
class A(np.ndarray):
    pass
result = type(Tensor('x', ones().view(A)).as_numpy()).__name__
""",
    **{
        f"tensor_dtype_{name}": f"""
t = Tensor('x', np.ones(2, '{name}'))
result = t.as_numpy().dtype.str, t.shape()
"""
        for name in [
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
            "longlong",
            "ulonglong",
            "longdouble",
            "complex64",
            "complex128",
            ">f4",
            ">i2",
            ">u1",
            "=i4",
            "<i8",
        ]
    },
    "tensor_dtype_object": """
t = Tensor('x', np.array(['a', b'b'], object))
result = t.as_numpy().dtype.str, t.shape()
""",
    "tensor_dtype_S": """
t = Tensor('x', np.array([b'ab', b'c']))
result = t.as_numpy().dtype.str, t.shape()
""",
    "tensor_dtype_S0": "Tensor('x', np.zeros(2, 'S')).shape()",
    "tensor_dtype_U": "Tensor('x', np.array(['ab', 'c']))",
    "tensor_dtype_datetime64": "Tensor('x', np.zeros(2, 'datetime64[s]'))",
    "tensor_dtype_timedelta64": "Tensor('x', np.zeros(2, 'timedelta64[s]'))",
    "tensor_dtype_structured": "Tensor('x', np.zeros(2, [('a', 'f4')]))",
    "tensor_dtype_void": "Tensor('x', np.zeros(2, 'V4'))",
    "tensor_0d": """
t = Tensor('x', np.array(3.0))
result = t.shape(), t.as_numpy().tolist()
""",
    "tensor_zero_size": "Tensor('x', np.zeros((2, 0, 3))).shape()",
    "tensor_fortran": """
t = Tensor('x', np.asfortranarray(np.arange(6.0).reshape(2, 3)))
result = t.as_numpy().tolist(), t.as_numpy().flags.c_contiguous
""",
    "tensor_transposed_aliases": """
a = np.arange(6.0).reshape(2, 3)
t = Tensor('x', a.T)
a[:] = 0
result = t.as_numpy().tolist()
""",
    "tensor_strided_is_copy": """
a = np.arange(6.0)[::2]
t = Tensor('x', a)
result = t.as_numpy() is a, t.as_numpy().tolist()
""",
    "tensor_negative_stride": "Tensor('x', np.arange(3)[::-1]).as_numpy().tolist()",
    "tensor_same_object": """
a = ones()
t = Tensor('x', a)
result = t.as_numpy() is a, t.as_numpy() is t.as_numpy()
""",
    "tensor_same_object_strings": """
a = np.array(['a'], object)
result = Tensor('x', a).as_numpy() is a
""",
    "tensor_aliases": """
a = ones()
t = Tensor('x', a)
a[0] = 5
result = t.as_numpy().tolist()
""",
    "tensor_strings_later": """
a = np.array(['a'], object)
t = Tensor('x', a)
a[0] = 'b'
result = t.as_numpy().tolist()
""",
    "tensor_strings_2d_fortran": """
Tensor('x', np.asfortranarray(np.array([['a', 'b'], ['c', 'd']], object))).as_numpy().tolist()
""",
    "tensor_read_only": """
a = ones()
a.flags.writeable = False
result = Tensor('x', a).as_numpy().flags.writeable
""",
    "tensor_broadcast": "Tensor('x', np.broadcast_to(np.float32(2), (2, 2))).as_numpy().tolist()",
    "tensor_unaligned": """
a = np.frombuffer(bytearray(17), 'u1')[1:].view('f4')
result = Tensor('x', a).as_numpy() is a
""",
    "tensor_object_str_fails": """
class A:
    def __str__(self):
        raise ValueError('no str')
Tensor('x', np.array([A()], object))
""",
    "tensor_object_surrogate": "Tensor('x', np.array(['\\ud800'], object))",
    "tensor_long_name": "len(Tensor('n' * 5000, ones()).name())",
    # Tensor: methods
    "tensor_shape_type": """
t = Tensor('x', np.zeros((2, 3)))
result = type(t.shape()).__name__, type(t.shape()[0]).__name__, t.shape() is t.shape()
""",
    "tensor_shape_is_method": "Tensor('x', ones()).shape[0]",
    "tensor_is_cpu": "Tensor('x', ones()).is_cpu()",
    "tensor_triton_dtype": "Tensor('x', ones()).triton_dtype()",
    "tensor_members": "sorted(n for n in dir(Tensor) if not n.startswith('_'))",
    "tensor_dunders": """
[
    n
    for n in (
        '__len__',
        '__array__',
        '__dlpack__',
        '__dlpack_device__',
        '__getitem__',
        '__iter__',
    )
    if hasattr(Tensor, n)
]
""",
    "tensor_module": "Tensor.__module__, Tensor.__qualname__, Tensor.__name__",
    "tensor_len": "len(Tensor('x', ones()))",
    "tensor_equality": "Tensor('x', ones()) == Tensor('x', ones())",
    "tensor_hash": """
t = Tensor('x', ones())
result = hash(t) == hash(t)
""",
    "tensor_new_attribute": """
t = Tensor('x', ones())
t.note = 1
""",
    "tensor_pickle": """
import pickle
pickle.dumps(Tensor('x', ones()))
""",
    "tensor_subclassed": """
class Mine(Tensor):
    pass
result = Mine('x', ones()).shape()
""",
    # DLPack
    "dlpack_capsule": "capsule_name(Tensor('x', ones()).to_dlpack())",
    "dlpack_dunder_capsule": "capsule_name(Tensor('x', ones()).__dlpack__())",
    "dlpack_device": "Tensor('x', ones()).__dlpack_device__()",
    "dlpack_stream_none": "capsule_name(Tensor('x', ones()).__dlpack__(stream=None))",
    "dlpack_stream_number": "capsule_name(Tensor('x', ones()).__dlpack__(stream=1))",
    "dlpack_strings": "Tensor('x', np.array(['a'], object)).to_dlpack()",
    "dlpack_strings_dunder": "Tensor('x', np.array(['a'], object)).__dlpack__()",
    "dlpack_round_trip": """
t = Tensor('x', np.arange(6, dtype='i2').reshape(2, 3))
u = Tensor.from_dlpack('y', t)
result = u.name(), u.shape(), u.as_numpy().tolist(), u.as_numpy().dtype.str
""",
    "dlpack_round_trip_capsule": """
u = Tensor.from_dlpack('y', Tensor('x', ones()).to_dlpack())
result = u.name(), u.shape(), u.as_numpy().tolist()
""",
    "dlpack_round_trip_aliases": """
a = ones()
t = Tensor('x', a)
u = Tensor.from_dlpack('y', t)
a[0] = 7
result = u.as_numpy().tolist()
""",
    "dlpack_round_trip_bool": """
Tensor.from_dlpack('y', Tensor('x', np.array([True, False]))).as_numpy().tolist()
""",
    "dlpack_round_trip_0d": """
u = Tensor.from_dlpack('y', Tensor('x', np.array(3.0)))
result = u.shape(), u.as_numpy().tolist()
""",
    "dlpack_round_trip_zero_size": "Tensor.from_dlpack('y', Tensor('x', np.zeros((0, 2)))).shape()",
    "dlpack_to_numpy": "np.from_dlpack(Tensor('x', ones())).tolist()",
    "dlpack_empty_name": "Tensor.from_dlpack('', Tensor('x', ones()).to_dlpack())",
    "dlpack_from_number": "Tensor.from_dlpack('y', 5)",
    "dlpack_from_list": "Tensor.from_dlpack('y', [1.0])",
    "dlpack_from_none": "Tensor.from_dlpack('y', None)",
    "dlpack_no_arguments": "Tensor.from_dlpack()",
    "dlpack_keywords": "Tensor.from_dlpack(name='y', tensor=Tensor('x', ones()))",
    "dlpack_on_instance": "Tensor('x', ones()).from_dlpack('y', Tensor('z', ones())).name()",
    # InferenceRequest made by the model
    "request_minimal": """
r = make()
result = (
    r.request_id(),
    r.correlation_id(),
    r.flags(),
    r.timeout(),
    r.parameters(),
    r.inputs(),
    r.requested_output_names(),
)
""",
    "request_no_arguments": "InferenceRequest()",
    "request_positional": """
r = InferenceRequest('id', 5, [], [], 'callee', 1, 3, 1000)
result = r.request_id(), r.correlation_id(), r.flags(), r.timeout()
""",
    "request_missing_model_name": "InferenceRequest(inputs=[], requested_output_names=[])",
    "request_unknown_keyword": "make(priority=1)",
    "request_inputs_tuple": "[t.name() for t in make(inputs=(Tensor('x', ones()),)).inputs()]",
    "request_inputs_none": "make(inputs=None)",
    "request_inputs_with_none": "make(inputs=[None], request_id='r', model_name='m')",
    "request_inputs_array": "make(inputs=[ones()])",
    "request_inputs_generator": "make(inputs=(x for x in []))",
    "request_inputs_new_list": """
r = make(inputs=[Tensor('x', ones())])
result = r.inputs() is r.inputs(), r.inputs()[0] is r.inputs()[0]
""",
    "request_inputs_same_object": """
t = Tensor('x', ones())
result = make(inputs=[t]).inputs()[0] is t
""",
    "request_inputs_append": """
r = make()
r.inputs().append(1)
result = r.inputs()
""",
    "request_outputs_set": "make(requested_output_names={'a'})",
    "request_outputs_str": "make(requested_output_names='ab')",
    "request_outputs_tuple": """
sorted(make(requested_output_names=('b', 'a', 'b')).requested_output_names())
""",
    "request_outputs_empty_name": """
make(requested_output_names=[''], request_id='r', model_name='m')
""",
    "request_outputs_type": """
type(make(requested_output_names=['a']).requested_output_names()).__name__
""",
    "request_outputs_number": "make(requested_output_names=[1])",
    "request_model_name_empty": "make(model_name='')",
    "request_model_name_none": "make(model_name=None)",
    "request_correlation_str": "make(correlation_id='seq').correlation_id()",
    "request_correlation_true": "make(correlation_id=True).correlation_id()",
    "request_correlation_large": "make(correlation_id=2**64 - 1).correlation_id()",
    "request_correlation_too_large": "make(correlation_id=2**64)",
    "request_correlation_float": "make(correlation_id=1.5)",
    "request_correlation_negative": "make(correlation_id=-1)",
    "request_correlation_none": "make(correlation_id=None)",
    "request_correlation_empty": "make(correlation_id='').correlation_id()",
    "request_id_number": "make(request_id=5)",
    "request_version_str": "make(model_version='1')",
    "request_flags": "make(flags=7).flags()",
    "request_flags_negative": "make(flags=-1)",
    "request_flags_large": "make(flags=2**32)",
    "request_set_flags": """
r = make()
r.set_flags(3)
result = r.flags()
""",
    "request_set_flags_negative": "make().set_flags(-1)",
    "request_timeout": "make(timeout=2**33).timeout()",
    "request_timeout_float": "make(timeout=1.0)",
    "request_timeout_negative": "make(timeout=-1)",
    "request_parameters": "json.loads(make(parameters={'s': 'a', 'i': 1, 'b': True}).parameters())",
    "request_parameters_none": "make(parameters=None).parameters()",
    "request_parameters_text": "make(parameters={'i': 1}).parameters()",
    "request_parameters_float": "make(parameters={'f': 1.5})",
    "request_parameters_none_value": "make(parameters={'f': None})",
    "request_parameters_bytes_value": "make(parameters={'f': b'x'})",
    "request_parameters_numpy_value": "make(parameters={'f': np.int64(1)})",
    "request_parameters_key": "make(parameters={1: 'a'})",
    "request_parameters_list": "make(parameters=[])",
    "request_parameters_text_given": "make(parameters='{}')",
    "request_memory_none": "make(preferred_memory=None)",
    "request_memory": """
make(preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)).flags()
""",
    "request_trace_none": "make(trace=None)",
    "request_members": "sorted(n for n in dir(InferenceRequest) if not n.startswith('_'))",
    "request_trace_type": "type(make().trace()).__name__, make().trace().get_context()",
    "request_module": "InferenceRequest.__module__",
    # The request that was received
    "received_inputs_new_list": """
request.inputs() is request.inputs(), request.inputs()[0] is request.inputs()[0]
""",
    "received_lookup_same": """
pb_utils.get_input_tensor_by_name(request, 'IN') is request.inputs()[0]
""",
    "received_lookup_absent": "pb_utils.get_input_tensor_by_name(request, 'NOPE')",
    "received_sender": """
(
    type(request.get_response_sender()).__name__,
    request.get_response_sender() is request.get_response_sender(),
)
""",
    "received_cancelled": "request.is_cancelled()",
    "received_trace": "request.trace().get_context()",
    "received_array": """
a = request.inputs()[0].as_numpy()
result = a.dtype.str, a.flags.writeable, a.shape, type(a[0]).__name__
""",
    "received_array_same": """
t = request.inputs()[0]
result = t.as_numpy() is t.as_numpy()
""",
    "received_type": "type(request).__module__, type(request).__qualname__",
    "received_set_release_flags_keyword": "request.set_release_flags(flags=1)",
    "received_set_release_flags": "request.set_release_flags(1)",
    # InferenceResponse
    "response_default": """
r = InferenceResponse()
result = r.output_tensors(), r.has_error(), r.error()
""",
    "response_empty": """
r = InferenceResponse([])
result = r.output_tensors(), r.has_error(), r.error()
""",
    "response_keywords": """
InferenceResponse(output_tensors=[Tensor('x', ones())]).output_tensors()[0].name()
""",
    "response_tuple": "InferenceResponse((Tensor('x', ones()),)).output_tensors()[0].name()",
    "response_new_list": """
r = InferenceResponse([Tensor('x', ones())])
result = (
    r.output_tensors() is r.output_tensors(),
    r.output_tensors()[0] is r.output_tensors()[0],
)
""",
    "response_same_tensor": """
t = Tensor('x', ones())
result = InferenceResponse([t]).output_tensors()[0] is t
""",
    "response_source_list": """
source = [Tensor('x', ones())]
r = InferenceResponse(source)
source.clear()
result = len(r.output_tensors())
""",
    "response_none": "InferenceResponse(None)",
    "response_tensor": "InferenceResponse(Tensor('x', ones()))",
    "response_generator": "InferenceResponse(t for t in [])",
    "response_array": "InferenceResponse([ones()])",
    "response_with_none": "InferenceResponse([None])",
    "response_error_str": "InferenceResponse([], 'bad')",
    "response_error_exception": "InferenceResponse([], ValueError('bad'))",
    "response_error_model_exception": "InferenceResponse([], pb_utils.TritonModelException('bad'))",
    "response_error_none": "InferenceResponse([], None).has_error()",
    "response_error": """
r = InferenceResponse(error=TritonError('bad'))
result = r.has_error(), r.error().message(), type(r.error()).__name__
""",
    "response_error_same": """
e = TritonError('bad')
r = InferenceResponse(error=e)
result = r.error() is e, r.error() is r.error()
""",
    "response_error_and_tensors": """
r = InferenceResponse([Tensor('x', ones())], TritonError('bad'))
result = len(r.output_tensors()), r.has_error()
""",
    "response_parameters": "InferenceResponse([], parameters={'a': 1})",
    "response_has_parameters": "hasattr(InferenceResponse, 'parameters')",
    "response_unknown_keyword": "InferenceResponse(outputs=[])",
    "response_lookup": """
pb_utils.get_output_tensor_by_name(InferenceResponse([Tensor('x', ones())]), 'x').name()
""",
    "response_lookup_absent": "pb_utils.get_output_tensor_by_name(InferenceResponse([]), 'x')",
    "response_members": "sorted(n for n in dir(InferenceResponse) if not n.startswith('_'))",
    # TritonError and TritonModelException
    "error_default_code": "str(TritonError('m').code()), TritonError('m').message()",
    "error_code_keyword": """
e = TritonError(message='m', code=TritonError.NOT_FOUND)
result = int(e.code()), e.code() == TritonError.NOT_FOUND
""",
    "error_code_int": "TritonError('m', 1)",
    "error_code_none": "TritonError('m', None)",
    "error_no_arguments": "TritonError()",
    "error_message_bytes": "TritonError(b'm').message()",
    "error_message_number": "TritonError(5)",
    "error_message_empty": "TritonError('').message()",
    "error_codes": """
[
    int(getattr(TritonError, n))
    for n in (
        'UNKNOWN INTERNAL NOT_FOUND INVALID_ARG UNAVAILABLE UNSUPPORTED ALREADY_EXISTS CANCELLED'
    ).split()
]
""",
    "error_code_equals_int": """
(
    TritonError.INTERNAL == 1,
    TritonError.INTERNAL != 1,
    TritonError.INTERNAL == 2,
    TritonError.INTERNAL == 'INTERNAL',
)
""",
    "error_code_text": """
(
    str(TritonError.INTERNAL),
    repr(TritonError.INTERNAL),
    TritonError.INTERNAL.name,
    TritonError.INTERNAL.value,
)
""",
    "error_code_type": """
(
    type(TritonError.INTERNAL).__name__,
    type(TritonError.INTERNAL).__qualname__,
    type(TritonError.INTERNAL).__module__,
)
""",
    "error_code_hash": "{TritonError.INTERNAL: 1}[TritonError.INTERNAL]",
    "error_code_order": "TritonError.INTERNAL < TritonError.CANCELLED",
    "error_raised": "raise TritonError('m')",
    "error_is_exception": "issubclass(TritonError, BaseException)",
    "error_str": """
str(TritonError('m')).startswith('<c_python_backend_utils.TritonError object at 0x')
""",
    "error_members": "sorted(n for n in dir(TritonError) if not n.startswith('_'))",
    "exception_bases": """
(
    [c.__name__ for c in pb_utils.TritonModelException.__mro__],
    pb_utils.TritonModelException.__module__,
)
""",
    "exception_text": "str(pb_utils.TritonModelException('a', 1))",
    "exception_caught": """
try:
    Tensor('', ones())
except pb_utils.TritonModelException as e:
    result = e.args
""",
    # Names and constants
    "names": "sorted(n for n in dir(pb_utils) if not n.startswith('__'))",
    "names_absent": """
[
    n
    for n in (
        'InferenceResponseSender',
        'ResponseIterator',
        'InferenceTrace',
        'MemoryType',
        'MetricKind',
        'Metric',
        'SharedMemory',
        'COUNTER',
    )
    if hasattr(pb_utils, n)
]
""",
    "name_unknown": "pb_utils.no_such_name",
    "module_name": "pb_utils.__name__",
    "modules_of_types": """
{
    n: getattr(pb_utils, n).__module__
    for n in (
        'Tensor',
        'InferenceRequest',
        'InferenceResponse',
        'TritonError',
        'TritonModelException',
        'Logger',
        'PreferredMemory',
        'MetricFamily',
        'ModelConfig',
    )
}
""",
    "native_module": """
sorted(n for n in dir(__import__('c_python_backend_utils')) if not n.startswith('__'))
""",
    "native_same": "__import__('c_python_backend_utils').Tensor is Tensor",
    "constants": """
{
    n: getattr(pb_utils, n)
    for n in (
        'TRITONSERVER_REQUEST_FLAG_SEQUENCE_START',
        'TRITONSERVER_REQUEST_FLAG_SEQUENCE_END',
        'TRITONSERVER_RESPONSE_COMPLETE_FINAL',
        'TRITONSERVER_REQUEST_RELEASE_ALL',
        'TRITONSERVER_REQUEST_RELEASE_RESCHEDULE',
    )
}
""",
    "memory_constants": """
[
    (int(m), str(m), type(m).__name__)
    for m in (pb_utils.TRITONSERVER_MEMORY_GPU, pb_utils.TRITONSERVER_MEMORY_CPU)
]
""",
    "metric_kinds": """
[(int(k), str(k)) for k in (pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.GAUGE)]
""",
    "log_levels": """
[
    (int(v), str(v))
    for v in (
        pb_utils.Logger.INFO,
        pb_utils.Logger.WARNING,
        pb_utils.Logger.ERROR,
        pb_utils.Logger.VERBOSE,
    )
]
""",
    "logger_made": "pb_utils.Logger()",
    "logger_number": "pb_utils.Logger.log_info(5)",
    "logger_level_int": "pb_utils.Logger.log('x', 1)",
    "logger_returns": """
(
    pb_utils.Logger.log_info('from a probe'),
    pb_utils.Logger.log('x'),
    pb_utils.Logger.log(message='x', level=pb_utils.Logger.WARNING),
)
""",
    "preferred_memory_int": "pb_utils.PreferredMemory(1)",
    "preferred_memory_members": """
sorted(n for n in dir(pb_utils.PreferredMemory) if not n.startswith('_'))
""",
    # Helpers
    "string_to_numpy": "{k: v.__name__ for k, v in pb_utils.TRITON_STRING_TO_NUMPY.items()}",
    "string_to_numpy_unknown": "pb_utils.triton_string_to_numpy('TYPE_BF16')",
    "string_to_numpy_no_prefix": "pb_utils.triton_string_to_numpy('FP32')",
    "string_to_numpy_bool": "pb_utils.triton_string_to_numpy('TYPE_BOOL') is bool",
    "type_to_numpy": """
[getattr(pb_utils.triton_to_numpy_type(i), '__name__', None) for i in range(16)]
""",
    "numpy_to_type": """
[
    pb_utils.numpy_to_triton_type(t)
    for t in (
        bool,
        np.bool_,
        np.uint8,
        np.uint16,
        np.uint32,
        np.uint64,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.float16,
        np.float32,
        np.float64,
        np.object_,
        object,
    )
]
""",
    "numpy_to_type_dtype": """
[
    pb_utils.numpy_to_triton_type(np.dtype(t))
    for t in ('float32', 'bool', 'object', 'S3', 'U1', 'int64')
]
""",
    "numpy_to_type_others": """
[
    pb_utils.numpy_to_triton_type(t)
    for t in (float, int, 'float32', np.str_, np.bytes_, np.complex64)
]
""",
    "input_config": """
c = {'input': [{'name': 'a', 'x': 1}, {'name': 'b'}]}
result = (
    pb_utils.get_input_config_by_name(c, 'a'),
    pb_utils.get_input_config_by_name(c, 'z'),
    pb_utils.get_input_config_by_name({}, 'a'),
)
""",
    "output_config": """
c = {'output': [{'name': 'a', 'x': 1}, {'name': 'b'}]}
result = (
    pb_utils.get_output_config_by_name(c, 'a'),
    pb_utils.get_output_config_by_name(c, 'z'),
    pb_utils.get_output_config_by_name({}, 'a'),
)
""",
    "input_config_same": """
c = {'input': [{'name': 'a'}]}
result = pb_utils.get_input_config_by_name(c, 'a') is c['input'][0]
""",
    "decoupled_policy": """
f = pb_utils.using_decoupled_model_transaction_policy
result = (
    f({}),
    f({'model_transaction_policy': {'decoupled': True}}),
    f({'model_transaction_policy': {'decoupled': False}}),
)
""",
    "decoupled_policy_no_key": """
pb_utils.using_decoupled_model_transaction_policy({'model_transaction_policy': {}})
""",
    "serialize": "pb_utils.serialize_byte_tensor(np.array(['a', b'\\xff', 5, None], object))",
    "serialize_S": "pb_utils.serialize_byte_tensor(np.array([b'ab', b'c']))",
    "serialize_U": "pb_utils.serialize_byte_tensor(np.array(['a']))",
    "serialize_empty": "pb_utils.serialize_byte_tensor(np.array([], object))",
    "serialize_numbers": "pb_utils.serialize_byte_tensor(np.array([1, 2]))",
    "serialize_2d": "pb_utils.serialize_byte_tensor(np.array([['a', 'b'], ['c', 'd']], object).T)",
    "serialize_list": "pb_utils.serialize_byte_tensor(['a'])",
    "deserialize": """
a = pb_utils.deserialize_bytes_tensor(b'\\x01\\0\\0\\0a\\0\\0\\0\\0')
result = a.tolist(), a.dtype.str, a.shape
""",
    "deserialize_empty": "pb_utils.deserialize_bytes_tensor(b'').tolist()",
    "deserialize_short": "pb_utils.deserialize_bytes_tensor(b'\\x05\\0\\0\\0a')",
    "deserialize_short_length": "pb_utils.deserialize_bytes_tensor(b'\\x05\\0')",
    "get_model_dir": "pb_utils.get_model_dir()",
    "sender_members": """
sorted(n for n in dir(request.get_response_sender()) if not n.startswith('_'))
""",
    "model_config_class": "sorted(n for n in dir(pb_utils.ModelConfig) if not n.startswith('__'))",
}
RECEIVED = ModelFiles(
    "received",
    """
    backend: "python"
    input [
      { name: "IN" data_type: TYPE_STRING dims: [ -1 ] },
      { name: "B" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
      { name: "A" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
    ]
    output [
      { name: "OUT" data_type: TYPE_STRING dims: [ -1 ] },
      { name: "LAST" data_type: TYPE_STRING dims: [ -1 ] }
    ]
    """,
    {
        "1/model.py": source("""
            import json

            import numpy as np
            import triton_python_backend_utils as pb_utils


            class TritonPythonModel:
                def execute(self, requests):
                    return [self.look(request) for request in requests]

                def look(self, request):
                    parameters = request.parameters()
                    seen = {
                        "correlation_id": request.correlation_id(),
                        "flags": request.flags(),
                        "inputs": [tensor.name() for tensor in request.inputs()],
                        "parameters": json.loads(parameters),
                        "parameters_type": type(parameters).__name__,
                        "request_id": request.request_id(),
                        "requested": sorted(request.requested_output_names()),
                        "requested_type": type(request.requested_output_names()).__name__,
                        "is_cancelled": request.is_cancelled(),
                    }
                    array = np.array([json.dumps(seen)], dtype=np.object_)
                    return pb_utils.InferenceResponse(
                        [pb_utils.Tensor(name, array) for name in ("OUT", "LAST")]
                    )
        """)
    },
)
PARAMETERS_TEXT = plain(
    "parameters_text",
    """
    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            array = np.array([requests[0].parameters()], dtype=np.object_)
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])]
    """,
)
PARAMETERS: dict[str, dict[str, Scalar]] = {
    "none": {},
    "int": {"i": 1},
    "negative": {"i": -5},
    "int64": {"i": 2**63 - 1},
    "true": {"b": True},
    "float": {"f": 1.5},
    "whole_float": {"f": 2.0},
    "string": {"s": "a b"},
    "quotes": {"s": 'say "x" \\ / \n\t'},
    "non_ascii": {"größe": "大"},
    "empty": {"": ""},
}
IN = {"IN": words("x")}
A, B = tensor("INT32", (1,), 1), tensor("INT32", (1,), 2)

PB_UTILS = Group(
    "pb_utils",
    models=(plain("probe", PROBE), RECEIVED, PARAMETERS_TEXT),
    requests=(
        *(ask(f"probe/{name}", "probe", code.strip()) for name, code in PROBES.items()),
        InferCase("received/plain", "received", IN),
        InferCase("received/request_id", "received", IN, request_id="r-1"),
        InferCase("received/request_id_non_ascii", "received", IN, request_id="größe"),
        InferCase("received/one_output", "received", IN, ("LAST",)),
        InferCase("received/two_outputs", "received", IN, ("LAST", "OUT")),
        InferCase("received/three_inputs", "received", {**IN, "A": A, "B": B}),
        InferCase("received/inputs_in_config_order", "received", {**IN, "B": B, "A": A}),
        InferCase("received/inputs_reversed", "received", {"A": A, "B": B, **IN}),
        InferCase("received/correlation_int", "received", IN, correlation_id=42),
        InferCase("received/correlation_str", "received", IN, correlation_id="seq-1"),
        InferCase("received/correlation_large", "received", IN, correlation_id=2**64 - 1),
        InferCase("received/start", "received", IN, correlation_id=1, sequence_start=True),
        InferCase("received/end", "received", IN, correlation_id=1, sequence_end=True),
        InferCase(
            "received/start_end",
            "received",
            IN,
            correlation_id=1,
            sequence_start=True,
            sequence_end=True,
        ),
        InferCase("received/start_without_id", "received", IN, sequence_start=True),
        InferCase("received/priority", "received", IN, priority=3),
        InferCase("received/parameters", "received", IN, parameters={"s": "a", "i": 1, "b": True}),
        InferCase("received/parameters_reserved", "received", IN, parameters={"triton_x": 1}),
        *(
            InferCase(f"parameters_text/{name}", "parameters_text", IN, parameters=parameters)
            for name, parameters in PARAMETERS.items()
        ),
    ),
)

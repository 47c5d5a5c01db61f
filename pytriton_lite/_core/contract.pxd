"""The contract between the runtime and model code (see contract.pyx)."""
from pytriton_lite._core.message cimport InferenceRequest, InferenceResponse


cdef class Contract:
    cdef object model               # the TritonPythonModel object; None once released
    cdef readonly str model_name
    cdef readonly long model_version
    cdef readonly str instance_name
    cdef readonly str model_file
    cdef public object namespace    # of the model's modules; for who asks whose code a thread runs
    cdef object describe            # exception -> Triton's text of it
    cdef object run_coroutine       # coroutine -> its result, on the instance's event loop
    cdef object check_outputs       # (names, batch size, response) -> None, raises; or None
    cdef dict output_reshapes       # name -> dims that the client sees; or None
    cdef bint is_batching
    cdef bint share_memory
    cdef readonly bint is_inline

    cdef object run(self, InferenceRequest request, Py_ssize_t holders, bint wants_arrays)
    cdef object _execute(self, list requests)
    cdef object _outcome(
        self, InferenceRequest request, InferenceResponse response, Py_ssize_t held, bint wants_arrays
    )
    cdef object _failure(self, InferenceRequest request, str text, object cause)
    cdef int _let_go(self, InferenceRequest request, Py_ssize_t holders) except -1

# cython: language_level=3, freethreading_compatible=True
"""The hot part of the public `Model`: from a dict of arrays to a dict of arrays."""
import sys

from libc.stdint cimport int64_t

from pytriton_lite._core.input_spec cimport InputSpec
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.queue cimport RequestQueue
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.sync cimport ptl_now_ns
from pytriton_lite.errors import UnsupportedError

cdef object _get_running_loop = None


cdef bint _is_loop_running() except -1:
    # Importing asyncio would double the import time of this package; who runs a loop has it.
    global _get_running_loop
    if _get_running_loop is None:
        events = sys.modules.get("asyncio.events")
        if events is None:
            return False
        _get_running_loop = events._get_running_loop
    return _get_running_loop() is not None


cdef class ServedVersion:
    """One loaded model version: what a call needs of it."""

    cdef readonly InputSpec spec
    cdef readonly RequestQueue queue
    cdef readonly str model_name
    cdef readonly long version

    def __init__(self, InputSpec spec, RequestQueue queue, str model_name, long version):
        self.spec = spec
        self.queue = queue
        self.model_name = model_name
        self.version = version


cdef class Endpoint:
    """Where the calls to one (model name, version) go; shared by all `Model` objects of it.

    The repository sets `served` when a version becomes ready and when it is replaced; None
    while there is none.
    """

    cdef public ServedVersion served
    cdef readonly object explain    # () -> the error to raise while `served` is None

    def __init__(self, explain):
        self.explain = explain


cdef class ModelCalls:
    """Base of the public `Model` with the calls that must be fast."""

    cdef readonly Endpoint _endpoint

    def __init__(self, Endpoint endpoint):
        self._endpoint = endpoint

    cdef ServedVersion served(self):
        cdef ServedVersion served = self._endpoint.served
        if served is None:
            raise self._endpoint.explain()
        return served

    def __call__(self, inputs, *, timeout_s=None):
        """Run one request and return its outputs as ndarrays by name.

        Parameters
        ----------
        inputs
            Mapping of input names to arrays (numpy, or anything with ``__dlpack__``), nested
            lists, scalars, `str` or `bytes`. They must not be changed before this returns.
        timeout_s
            Seconds to wait for the answer; None waits without limit. Then the request is
            cancelled. What runs inline, on this very thread, is not interrupted.

        Returns
        -------
        dict[str, numpy.ndarray]
            Owned by the caller. BYTES gives an object array of `bytes`.

        Raises
        ------
        TritonError
            The subclass of the status code: see `pytriton_lite.errors`. If the model raised,
            ``__cause__`` is its exception.
        RequestTimeoutError
            No answer within `timeout_s`.
        """
        cdef ServedVersion served = self.served()
        outcome = _call(served, served.spec.build(inputs, ""), timeout_s, True)
        if type(outcome) is dict:
            return outcome
        return (<InferenceResponse> outcome).to_arrays()

    def _prepare(self, inputs, options):
        """(served version, pb request) of a call; `options` are None when all have their defaults."""
        cdef ServedVersion served = self.served()
        if options is None:
            return served, served.spec.build(inputs, "")
        return served, served.spec.request(inputs, **options)

    def _check_thread(self, ServedVersion served):
        """Refuse to run an inline model on a thread whose event loop it would block."""
        _check_thread(served)

    def _run(self, ServedVersion served, InferenceRequest request, timeout_s):
        return _call(served, request, timeout_s, False)


cdef object _call(ServedVersion served, InferenceRequest request, object timeout_s, bint wants_arrays):
    cdef int64_t deadline_ns = 0
    # Beyond some 30 years a limit is none, and the nanoseconds would not fit.
    if timeout_s is not None and <double> timeout_s < 1e9:
        deadline_ns = ptl_now_ns() + <int64_t> (<double> timeout_s * 1e9)
    _check_thread(served)
    return served.queue.call(request, deadline_ns, wants_arrays)


cdef int _check_thread(ServedVersion served) except -1:
    if served.queue.is_inline and _is_loop_running():
        raise UnsupportedError(
            f"Model '{served.model_name}' runs inline, and this thread runs an event loop that the "
            "call would block: await async_run(), or load it with execution='thread'",
            model=served.model_name,
        )
    return 0

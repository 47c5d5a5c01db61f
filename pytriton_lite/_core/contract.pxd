"""The contract between the runtime and model code (see contract.pyx)."""
from libc.stdint cimport int64_t

from pytriton_lite._core.answer cimport AnswerMaker
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.slot cimport CallSlot

# Outcomes of `Contract.run` that are none yet: a response sender answers, or `execute` wants
# the request again. LEFT: another process runs on, and `resume` waits for the outcome. UNBEGUN:
# the other process died before it began with the request.
cdef object PENDING
cdef object RESCHEDULED
cdef object LEFT
cdef object UNBEGUN


cdef class Contract(AnswerMaker):
    cdef object model               # the TritonPythonModel object; None once released
    cdef readonly str model_file
    cdef object describe            # exception -> Triton's text of it
    cdef object loop                # InstanceLoop, for coroutines
    cdef readonly long max_batch_size
    cdef bint is_decoupled
    cdef bint is_iterative
    cdef readonly bint is_inline
    cdef bint has_failed            # the last `execute`, for any of its requests
    cdef public object scope        # what BLS requests of the model go through
    # What the instance waits for, see deadlock.pyx.
    cdef CallSlot waits_for         # BLS request that `execute` waits for, on its own thread
    cdef dict pending               # other BLS requests -> future, or None when a thread waits
    cdef bint awaits_coroutine      # `execute` is a coroutine, and its thread waits for it
    cdef unsigned long executions   # calls of `execute` so far
    # Of one in another process:
    cdef int64_t deadline_ns        # how long `run` may wait for it; 0: for ever
    cdef object interrupt           # what a signal handler raised meanwhile; `run` was LEFT for it
    cdef Py_ssize_t sent_bytes      # by `begin`, so far
    cdef int64_t inputs_ns          # when the last batch had been sent
    cdef int64_t outputs_ns         # when the last answer, or the first of a batch, came
    cdef int64_t usual_ns           # what `execute` takes, by and large; 0: not known yet
    cdef bint may_leave             # `run` may be LEFT: it is not the pump that runs it

    cdef object run(self, InferenceRequest request, Py_ssize_t holders, int form)
    cdef list run_batch(self, list requests, list forms)
    cdef list resume_batch(self, int64_t deadline_ns)
    cdef object begin(self, InferenceRequest request, int form)
    cdef object resume(self, CallSlot slot, int form, int64_t deadline_ns)
    cdef bint recall(self, CallSlot slot, bint is_queued_again) except -1
    cdef int given_up(self, CallSlot slot, bint is_soft) except -1
    cdef bint may_be_answered(self, CallSlot slot) except -1
    cdef bint is_unwanted(self) except -1
    cdef InferenceRequest again(self, InferenceRequest request, Py_ssize_t holders)
    cdef object _execute(self, list requests)
    cdef object _start(self, object coroutine, list requests)
    cdef object _settle(
        self, InferenceRequest request, Py_ssize_t holders, object returned, int form
    )
    cdef object _settle_one(
        self, InferenceRequest request, Py_ssize_t holders, object response, Py_ssize_t held, int form
    )
    cdef str _violation(self, object returned, list requests)
    cdef str _excess(self, list requests)
    cdef list _outcomes(self, list requests, list returned, Py_ssize_t held, list forms)
    cdef list _fail_batch(self, list requests, str text, object cause)
    cdef object _failure_of(self, object error, str request_id)
    cdef object _wait_for_sender(self, InferenceRequest request, Py_ssize_t holders)
    cdef object _fail(self, InferenceRequest request, Py_ssize_t holders, object failure)
    cdef bint is_running_here(self) noexcept
    cdef int _let_go(self, InferenceRequest request, Py_ssize_t holders) except -1


cdef Contract running_contract()

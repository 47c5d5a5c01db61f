# cython: language_level=3, freethreading_compatible=True
"""The contract of `execute`, written once for every home of an instance.

Calls the model with a list of requests, checks what it returns in Triton's order and
with Triton's texts, and turns each request into one outcome: an answer for the caller, or
the exception to raise there, now or later through a response sender. Nothing that model
code does makes `Contract.run` and `Contract.run_batch` raise, except a Ctrl-C of the user in
inline mode.

What breaks the contract fails the whole batch: one element of a wrong type fails the requests
whose elements are right, too, as on Triton (observed on 2.51).

Memory: see answer.pyx for outputs. Inputs that the model keeps are copied when `execute`
has returned, since the caller may reuse its own arrays from then on.
"""
from cpython.list cimport PyList_GET_SIZE, PyList_GetSlice
from cpython.object cimport PyObject

import dis
import inspect
import logging

from pytriton_lite._core.answer cimport AnswerMaker
from pytriton_lite._core.array cimport SHARE_ALL, SHARE_NONE, reference_count
from pytriton_lite._core.message cimport InferenceRequest, InferenceResponse
from pytriton_lite._core.sender cimport InferenceResponseSender, make_sender
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._core.sync cimport PTL_RUNNING, ptl_store
from pytriton_lite._core.tensor cimport Tensor
from pytriton_lite.errors import InternalError

cdef extern from *:
    """
    /* The contract that the current thread is running, for code that asks "whose model am I in". */
    static __thread PyObject *ptl_current_contract __attribute__((tls_model("initial-exec"))) = NULL;
    """
    PyObject *ptl_current_contract

cdef object _log = logging.getLogger("pytriton_lite.instance")
cdef int _RAISE = dis.opmap["RAISE_VARARGS"]

cdef enum:
    RELEASE_RESCHEDULE = 2
    SEQUENCE_END = 2

PENDING = object()
RESCHEDULED = object()
LEFT = object()
UNBEGUN = object()


cdef Contract running_contract():
    return None if ptl_current_contract == NULL else <Contract> ptl_current_contract


def current_contract():
    """The `Contract` whose model code this thread is running, or None."""
    return running_contract()


def is_ctrl_c(error):
    """Whether an exception is the user's Ctrl-C, and not one that the model raised itself.

    The interpreter raises a Ctrl-C between two instructions; a model's own
    KeyboardInterrupt comes from a `raise`.
    """
    if type(error) is not KeyboardInterrupt or error.__traceback__ is None:
        return False
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code.co_code
    return not (0 <= traceback.tb_lasti < len(code) and code[traceback.tb_lasti] == _RAISE)


cdef class Contract(AnswerMaker):
    """Runs one `TritonPythonModel` object.

    Parameters
    ----------
    model
        The initialised object. `execute` is looked up at each call, as on Triton.
    model_name, model_version, instance_name, model_file
        For texts.
    describe
        Gives Triton's text of an exception.
    loop
        The instance's event loop: ``run(coroutine)`` runs one to its end,
        ``start(coroutine, done)`` calls ``done(result, exception)`` at its end.
    check_outputs
        Raises for a response that contradicts the configuration; None leaves outputs
        unchecked, as Triton does.
    output_reshapes
        Dims that the client sees, for outputs with ``reshape``; None when there are none.
    max_batch_size
        Most rows of a batch; 0: shapes have no batch dimension.
    is_decoupled
        Responses come through response senders, any number of them.
    is_iterative
        Requests may be rescheduled.
    share_memory
        Hand the model's arrays to the caller without the ownership rule above.
    is_inline
        The caller's thread runs the model.
    """

    def __init__(
        self, object model, *, str model_name, long model_version, str instance_name,
        str model_file, describe, loop, check_outputs, dict output_reshapes, long max_batch_size,
        bint is_decoupled, bint is_iterative, bint share_memory, bint is_inline,
    ):
        self.model = model
        self.model_name = model_name
        self.model_version = model_version
        self.instance_name = instance_name
        self.model_file = model_file
        self.describe = describe
        self.loop = loop
        self.check_outputs = check_outputs
        self.output_reshapes = output_reshapes
        self.max_batch_size = max_batch_size
        self.is_batching = max_batch_size > 0
        self.is_decoupled = is_decoupled
        self.is_iterative = is_iterative
        self.share_memory = SHARE_ALL if share_memory else SHARE_NONE
        self.is_inline = is_inline
        self.pending = {}

    def release(self):
        """Drop the model object."""
        self.model = self.scope = self.namespace = None

    cdef object run(self, InferenceRequest request, Py_ssize_t holders, int form):
        """Run `execute` on a request; its outcome, an answer or an exception, or none yet.

        `holders` is the number of references to `request` that the runtime itself holds.
        `form` is what the answer may be, see answer.pxd.
        """
        cdef PyObject *outer = ptl_current_contract
        cdef object returned
        request.home = self
        self.has_failed = False
        self.executions += 1
        set_current(<PyObject *> self)
        try:
            returned = self._execute([request])
        except BaseException as error:
            set_current(outer)
            if self.is_inline and is_ctrl_c(error):
                self._fail(request, holders, self.failure("interrupted", error, request.id))
                raise
            return self._fail(request, holders, self._failure_of(error, request.id))
        set_current(outer)
        if (request.sender is None and request.release_flags == 0 and not self.is_decoupled
                and type(returned) is list and PyList_GET_SIZE(returned) == 1
                and type((<list> returned)[0]) is InferenceResponse):
            self._let_go(request, holders)
            # Held by the argument and the list, if nobody but us holds the list.
            return self.make(
                <InferenceResponse> (<list> returned)[0], request.output_names, request.batch_size,
                request.id, 2 if reference_count(<PyObject *> returned) == 1 else 0, form,
                self.share_memory,
            )
        return self._settle(request, holders, returned, form)

    cdef list run_batch(self, list requests, list forms):
        """Run `execute` on several requests at once; the outcome of each, as `run` gives it.

        `requests` holds the only reference to each of them that the runtime has, and `forms`
        what their answers may be. What is wrong with an answer is the matter of its request;
        see `has_failed` of the slots for whose request was not answered by its model. None when
        this thread need not wait for an instance in another process, where `resume_batch` does.
        """
        cdef PyObject *outer = ptl_current_contract
        cdef object returned
        cdef InferenceRequest request
        cdef Py_ssize_t held = 0
        cdef str text = self._excess(requests)
        self.has_failed = False
        for request in requests:
            request.home = self
        # From here on nobody but the list holds a request, besides the variable in loops.
        request = None
        if text is not None:
            return self._fail_batch(requests, text, None)
        self.executions += 1
        set_current(<PyObject *> self)
        try:
            returned = self._execute(requests[:])  # what the model does to its list is its own matter
        except BaseException as error:
            set_current(outer)
            if self.is_inline and is_ctrl_c(error):
                self._fail_batch(requests, "interrupted", error)
                raise
            if type(error) is _NoExecute:
                return self._fail_batch(requests, str(error), None)
            return self._fail_batch(requests, self.describe(error), error)
        set_current(outer)
        if type(returned) is list and reference_count(<PyObject *> returned) == 1:
            held = 2  # each response, by the list and a variable
        else:
            returned = _own(returned)
        text = self._violation(returned, requests)
        if text is not None:
            return self._fail_batch(requests, text, None)
        return self._outcomes(requests, returned, held, forms)

    cdef list _outcomes(self, list requests, list returned, Py_ssize_t held, list forms):
        """Outcomes of a batch whose `execute` returned what it may; `held` as for `_settle_one`."""
        cdef InferenceRequest request
        cdef object response
        cdef list outcomes = []
        cdef Py_ssize_t i
        for i in range(len(requests)):
            request = requests[i]
            response = None if returned is None else returned[i]
            try:
                outcomes.append(self._settle_one(request, 2, response, held, <int> forms[i]))
            except Exception as error:
                # No memory for a copy, say, which is not the fault of the others. Its sender may be
                # closed, so that this must be the answer; a slot takes only one.
                self.has_failed = (<CallSlot> request.slot).has_failed = True
                self._let_go(request, 2)
                outcomes.append(self._failure_of(error, request.id))
        return outcomes

    cdef str _excess(self, list requests):
        """Text for a batch of more rows than the model takes, or None."""
        cdef InferenceRequest request
        cdef long rows = 0
        for request in requests:
            rows += request.batch_size if request.batch_size > 0 else 1
        if rows <= max(1, self.max_batch_size):
            return None
        return f"batch size {rows} for '{self.instance_name}', max allowed is {self.max_batch_size}"

    def run_slots(self, list slots):
        """Run the requests of slots that are in no queue in one `execute`, and finish the slots.

        For who bypasses the scheduler. Returns the slots whose requests are to run again: `execute`
        wants so, or the process of the instance was gone before it began with them.
        """
        cdef CallSlot slot
        cdef InferenceRequest request
        cdef list taken = [], requests = [], forms = [], outcomes, again = []
        cdef Py_ssize_t i
        for slot in slots:
            if slot.request is None:
                continue  # given up
            taken.append(slot)
            ptl_store(&slot.node.word, PTL_RUNNING)
            request = slot.request
            slot.request = None
            request.slot = slot
            slot.runner = self
            requests.append(request)
            forms.append(slot.form)
        request = None
        outcomes = self.run_batch(requests, forms) if requests else []
        for i in range(len(taken)):
            slot = taken[i]
            if outcomes[i] is RESCHEDULED or outcomes[i] is UNBEGUN:
                request = requests[i]
                if outcomes[i] is RESCHEDULED:
                    request = self.again(request, 2)
                else:
                    request.slot = None  # which leads back
                slot.request = request
                again.append(slot)
            elif outcomes[i] is not PENDING:
                slot.finish_and_wake(outcomes[i])
        return again

    # Of an instance in another process, see `_ipc.remote`:

    cdef object begin(self, InferenceRequest request, int form):
        """The first part of `run`: None when `resume` is to wait for the outcome."""
        raise InternalError("an instance of this process waits for no other")

    cdef object resume(self, CallSlot slot, int form, int64_t deadline_ns):
        """Wait for the outcome of a `begin`, or of a `run` that was LEFT."""
        raise InternalError("an instance of this process waits for no other")

    cdef list resume_batch(self, int64_t deadline_ns):
        """Wait for the outcomes of a `run_batch` that was left."""
        raise InternalError("an instance of this process waits for no other")

    cdef bint recall(self, CallSlot slot, bint is_queued_again) except -1:
        """Take a request back that the instance has not begun with; False when it has."""
        return False

    cdef int given_up(self, CallSlot slot, bint is_soft) except -1:
        """The caller of a request that runs here has given it up; model code looks at the slot."""
        return 0

    cdef bint may_be_answered(self, CallSlot slot) except -1:
        """Whether a request that runs has a response sender, so that any thread may answer it."""
        return slot in self.open_slots

    cdef bint is_unwanted(self) except -1:
        """Whether the thread that waits for another process in `run` has lost its reason to."""
        return False

    cdef object _execute(self, list requests):
        try:
            returned = self.model.execute(requests)
        except AttributeError:
            if hasattr(self.model, "execute"):
                raise
            raise _NoExecute(
                f"Python model {self.model_file} does not implement `execute` method."
            ) from None
        if type(returned) is not list and inspect.iscoroutine(returned):
            if self.is_decoupled:
                return self._start(returned, requests)
            self.awaits_coroutine = True
            try:
                return self.loop.run(returned)
            finally:
                self.awaits_coroutine = False
        return returned

    cdef object _start(self, object coroutine, list requests):
        """Let a coroutine of a decoupled model run on, beside those of the next requests."""
        cdef list senders = [self.make_sender(request) for request in requests]

        def done(result, error):
            cdef InferenceResponseSender sender
            if error is not None:
                text = self.describe(error)
                for sender in senders:
                    if not sender.fail(self.failure(text, error, sender.request_id)):
                        self._log_late(text)
            elif result is not None:
                _log.warning(
                    "instance '%s': the result of the coroutine is ignored, decoupled models answer "
                    "through their response senders", self.instance_name,
                )
            senders.clear()

        self.loop.start(coroutine, done)
        return None

    cdef object _settle(
        self, InferenceRequest request, Py_ssize_t holders, object returned, int form
    ):
        """Outcome of everything but one returned response that nothing else is known of."""
        cdef list responses
        cdef str text
        returned = _own(returned)
        text = self._violation(returned, [request])
        if text is not None:
            return self._fail(request, holders, self.failure(text, None, request.id))
        responses = returned
        return self._settle_one(request, holders, None if returned is None else responses[0], 0, form)

    cdef str _violation(self, object returned, list requests):
        """Text for a return value that breaks the contract, or None. Triton's order of checks."""
        cdef InferenceRequest request
        cdef InferenceResponseSender sender
        cdef list responses
        cdef Py_ssize_t i
        if returned is None:
            return None
        if self.is_decoupled:
            return (
                f"Python model '{self.instance_name}' is using the decoupled mode and the execute "
                "function must return None."
            )
        if type(returned) is not list:
            return f"Expected a list in the execute return, found type '{type(returned)}'."
        responses = returned
        if len(responses) != len(requests):
            return (
                "Number of InferenceResponse objects do not match the number of InferenceRequest "
                f"objects. InferenceRequest(s) size is:{len(requests)}, and InferenceResponse(s) "
                f"size is:{len(responses)}\n"
            )
        for i in range(len(requests)):
            response = responses[i]
            if response is None:
                continue
            request = requests[i]
            # A reply is refused for exactly this flag; among others it counts where there is none.
            if request.release_flags == RELEASE_RESCHEDULE:
                return (
                    "Expected a None object in the execute function return list for reschduled "
                    f"request, found type '{type(response)}'."
                )
            if type(response) is not InferenceResponse:
                return (
                    "Expected an 'InferenceResponse' object in the execute function return list, "
                    f"found type '{type(response)}'."
                )
            sender = request.sender
            # Alone, a request that its sender has answered keeps that answer.
            if sender is not None and sender.sent and len(requests) > 1:
                return (
                    "Unable to send response. Non-decoupled model cannot send more than one response."
                )
        return None

    cdef object _settle_one(
        self, InferenceRequest request, Py_ssize_t holders, object response, Py_ssize_t held, int form
    ):
        """Outcome of a request for which `execute` returned `response`, or None in its place.

        `held` is how often the runtime holds the response, 0 if the model may.
        """
        cdef InferenceResponseSender sender = request.sender
        cdef bint is_again = request.release_flags & RELEASE_RESCHEDULE != 0
        cdef str text = None
        is_again = is_again and response is None
        if is_again and not self.is_iterative:
            text = (
                "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, while the model is "
                "not configured to handle such a flag."
            )
        elif is_again and request.request_flags & SEQUENCE_END:
            text = (
                "a request with the END flag cannot be rescheduled; real Triton would leave the client "
                "waiting for ever."
            )
        if text is not None:
            return self._fail(request, holders, self.failure(text, None, request.id))
        if is_again and (sender is None or not sender.is_closed):
            return RESCHEDULED
        if response is None:
            return self._wait_for_sender(request, holders)
        if sender is not None and not sender.close_by_return():
            if sender.is_closed:
                self._log_late("execute returned a response for a request that its sender has answered")
                self._let_go(request, holders)
                return PENDING
            return self._fail(
                request, holders, self.failure("expected a single response, got 2", None, request.id)
            )
        self._let_go(request, holders)
        return self.make(
            <InferenceResponse> response, request.output_names, request.batch_size, request.id, held,
            form, self.share_memory,
        )

    cdef object _wait_for_sender(self, InferenceRequest request, Py_ssize_t holders):
        if request.sender is None:
            if reference_count(<PyObject *> request) <= holders:
                return self._fail(request, holders, self.failure(
                    "execute returned None in place of a response, but no response sender was taken that "
                    "could answer the request; real Triton would leave the client waiting for ever.",
                    None, request.id,
                ))
            self.make_sender(request)  # whose end tells that the model has dropped the request
        self._let_go(request, holders)
        return PENDING

    cdef object _failure_of(self, object error, str request_id):
        """Error for an exception that `execute` raised."""
        if type(error) is _NoExecute:
            return self.failure(str(error), None, request_id)
        return self.failure(self.describe(error), error, request_id)

    cdef list _fail_batch(self, list requests, str text, object cause):
        """Outcomes of requests that have all failed, each with an exception object of its own."""
        cdef InferenceRequest request
        cdef list outcomes = []
        for request in requests:
            outcomes.append(self._fail(request, 2, self.failure(text, cause, request.id)))
        return outcomes

    cdef object _fail(self, InferenceRequest request, Py_ssize_t holders, object failure):
        cdef InferenceResponseSender sender = request.sender
        self.has_failed = True
        (<CallSlot> request.slot).has_failed = True
        if sender is not None:
            if not sender.fail(failure):
                self._log_late(str(failure))
            failure = PENDING
        self._let_go(request, holders)
        return failure

    def _log_late(self, str text):
        _log.error("instance '%s', after the request was answered: %s", self.instance_name, text)

    cdef InferenceRequest again(self, InferenceRequest request, Py_ssize_t holders):
        """A rescheduled request, as new: what the model did to its inputs is gone."""
        cdef InferenceRequest made = InferenceRequest.__new__(InferenceRequest)
        cdef Tensor tensor
        made.tensors = [tensor.again() for tensor in request.tensors]
        made.id = request.id
        made.output_names = request.output_names
        made.details = request.details
        made.batch_size = request.batch_size
        made.slot = request.slot
        made.home = self
        made.sender = request.sender
        self._let_go(request, holders)
        if made.sender is not None:
            (<InferenceResponseSender> made.sender).inputs = made.tensors
        return made

    # -- response senders --------------------------------------------------------------

    def make_sender(self, InferenceRequest request):
        """The sender of a request that this instance runs or ran."""
        cdef CallSlot slot = request.slot
        if request.sender is None:
            request.sender = make_sender(self, slot, request, self.is_decoupled)
            if not (<InferenceResponseSender> request.sender).is_closed:
                self.open_slots[slot] = None
        return request.sender

    cdef bint is_running_here(self) noexcept:
        return self.is_inline and ptl_current_contract == <PyObject *> self

    cdef int _let_go(self, InferenceRequest request, Py_ssize_t holders) except -1:
        """Release the inputs; what the model kept becomes independent of the caller's memory."""
        cdef Tensor tensor
        if request.sender is not None:
            (<InferenceResponseSender> request.sender).inputs = None
        if reference_count(<PyObject *> request) > holders:
            for tensor in request.tensors:
                tensor.detach()
            return 0
        for tensor in request.tensors:
            # Held by the list and the loop variable.
            if reference_count(<PyObject *> tensor) > 2:
                tensor.detach()
            else:
                tensor.give_back()
        request.tensors = _NO_TENSORS
        request.sender = None  # nobody can ask for it any more: it lives while the model holds it
        return 0


# Requests that were answered share it; nobody can reach their list any more.
cdef list _NO_TENSORS = []


cdef object _own(object returned):
    """What `execute` returned, as a list that the model cannot change if it is any list."""
    if isinstance(returned, list):
        # Of a subclass what it holds counts, and not what its methods say.
        return PyList_GetSlice(returned, 0, PyList_GET_SIZE(returned))
    return returned


class _NoExecute(Exception):
    """The class has no `execute`; carries the text, has no traceback worth showing."""


cdef inline void set_current(PyObject *contract) noexcept:
    global ptl_current_contract
    ptl_current_contract = contract

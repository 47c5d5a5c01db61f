"""Requests that a model asks for again: `sequence_batching { iterative_sequence: true }`.

The input ``IN`` holds a name, a number of calls and options. Up to that number the
request is rescheduled; the answer is what each call saw.
"""

from __future__ import annotations

from dataclasses import replace

from ..schema import InferCase, ModelFiles, StreamCase, StreamGroup, source, tensor, words

CODE = source("""
    import json
    import time

    import numpy as np
    import triton_python_backend_utils as pb_utils

    DECOUPLED = False
    RESCHEDULE = pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE


    def reply(answer):
        array = np.array([json.dumps(answer)], dtype=np.object_).reshape(SHAPE)
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])


    class TritonPythonModel:
        def initialize(self, args):
            self.seen, self.kept, self.log = {}, {}, []

        def execute(self, requests):
            self.size = len(requests)
            responses = [self.one(request) for request in requests]
            return None if DECOUPLED else responses

        def answer(self, request, answer):
            if DECOUPLED:
                return request.get_response_sender().send(reply(answer), 1)
            return reply(answer)

        def one(self, request):
            correlation_id = request.correlation_id()
            if correlation_id == 0:  # fills a slot of the batch
                self.log.append("filler")
                return self.answer(request, "filler")
            text = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            array = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            name, times, *options = text.reshape(-1)[0].decode().split()
            if name == "notes":
                log, self.log = self.log, []
                self.seen.clear()
                return self.answer(request, log)
            seen = self.seen.setdefault(name, [])
            entry = [request.flags(), array.tolist()]
            kept = self.kept.setdefault(name, (request, request.get_response_sender()))
            if "ids" in options:
                entry += [request.request_id(), correlation_id, request.parameters()]
            else:
                entry.append(correlation_id == kept[0].correlation_id())
            if "objects" in options:
                entry += [request is kept[0], request.get_response_sender() is kept[1]]
            seen.append(entry)
            if "slow" in options:
                self.log.append(f"{name}{len(seen)} of {self.size}")
                time.sleep(0.3)
            if "write" in options:
                array[:] = 5
            if len(seen) < int(times):
                request.set_release_flags(3 if "three" in options else RESCHEDULE)
                if "taken_back" in options:
                    request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_ALL)
                    return self.end(request, name)
                if "send" in options:
                    request.get_response_sender().send(reply(len(seen)))
                if "final" in options:
                    request.get_response_sender().send(reply(len(seen)), 1)
                if "raise" in options:
                    del self.seen[name], self.kept[name]
                    raise ValueError("rescheduled")
                return reply(len(seen)) if "return" in options else None
            if "raise_last" in options:
                del self.seen[name], self.kept[name]
                raise ValueError("last")
            return self.end(request, name)

        def end(self, request, name):
            del self.kept[name]
            return self.answer(request, self.seen.pop(name))
""")
IO = """
sequence_batching { iterative_sequence: true }
input [ { name: "IN" data_type: TYPE_STRING dims: [ 1 ] },
        { name: "X" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] } ]
"""
DECOUPLED = "model_transaction_policy { decoupled: true }\n"


def model(name: str, config: str = "", batched: bool = False, io: str = IO) -> ModelFiles:
    """Return a model of this code."""
    code = CODE.replace("SHAPE", "(1, 1)" if batched else "(1,)")
    if DECOUPLED in config:
        code = code.replace("DECOUPLED = False", "DECOUPLED = True")
    return ModelFiles(name, f'backend: "python"\n{config}{io}', {"1/model.py": code})


def asked(
    case_id: str,
    model: str,
    text: str,
    correlation_id: int | str = 0,
    flags: int = 0,
    *,
    request_id: str = "",
) -> InferCase:
    """Return a request; ``flags`` are START (1) and END (2)."""
    shape = (1, 1) if "batched" in model else (1,)
    return InferCase(
        case_id,
        model,
        {
            "IN": words(text, shape=shape),
            "X": tensor("FP32", (*shape[1:], 2), 1.0, 2.0),
        },
        correlation_id=correlation_id,
        sequence_start=bool(flags & 1),
        sequence_end=bool(flags & 2),
        request_id=request_id,
    )


def single(
    model: str,
    name: str,
    text: str,
    correlation_id: int | str = 0,
    flags: int = 0,
    *,
    request_id: str = "",
) -> StreamCase:
    """Return one request on its own."""
    case_id = f"{model}/{name}"
    case = asked(case_id, model, f"a {text}", correlation_id, flags, request_id=request_id)
    return StreamCase(case_id, (case,), both="dec" in model)


def notes(model: str, name: str) -> InferCase:
    """Return the request for the order of calls."""
    return asked(f"{model}/{name}:notes", model, "notes 1")


def together(model: str, name: str, *texts: str, ids: tuple[int, ...] = ()) -> StreamCase:
    """Return requests that run at the same time, and the order of calls."""
    case_id = f"{model}/{name}"
    requests = tuple(
        asked(f"{case_id}:{i}", model, text, ids[i] if ids else 0, 1 if ids else 0)
        for i, text in enumerate(texts)
    )
    return StreamCase(case_id, requests, gap_s=0.1, then=notes(model, name), both=False)


def common(model: str) -> tuple[StreamCase, ...]:
    """Return what is asked of both kinds of models."""
    return (
        single(model, "once", "1"),
        single(model, "three", "3"),
        single(model, "three_ids", "3 ids", 77, 1, request_id="r1"),
        single(model, "objects", "3 objects"),
        single(model, "write", "3 write"),
        single(model, "taken_back", "3 taken_back"),
        single(model, "id_no_start", "2 ids", 50),
        single(model, "id_start", "2 ids", 51, 1),
        single(model, "id_active_no_start", "2 ids", 51),
        single(model, "id_active_start", "2 ids", 51, 1),
        single(model, "id_active_end", "1 ids", 51, 2),
        single(model, "id_start_end_once", "1 ids", 52, 3),
        single(model, "id_after_end", "1 ids", 52),
        single(model, "id_text", "3 ids", "seq", 1),
        single(model, "id_text_no_start", "2 ids", "other"),
        together(model, "two", "a 3 slow", "b 3 slow"),
        together(model, "two_ids", "a 3 slow ids", "b 2 slow ids", ids=(61, 62)),
        together(model, "same_id", "a 3 slow ids", "b 2 slow ids", ids=(71, 71)),
        single(model, "raise_last", "2 raise_last"),
        single(model, "raise", "2 raise"),
        single(model, "after_raise", "2"),
    )


RISKY: dict[str, tuple[str, str, int | str, int]] = {
    "end": ("", "2 ids", 53, 3),
    "end_dec": (DECOUPLED, "2 ids", 53, 3),
    "return": ("", "2 return", 0, 0),
    "send": ("", "2 send", 0, 0),
    "final": ("", "2 final", 0, 0),
    "final_dec": (DECOUPLED, "2 final", 0, 0),
    "flags_3": ("", "2 three", 0, 0),
}

ITERATIVE = StreamGroup(
    "iterative",
    models=(
        model("iter"),
        model("iter_dec", DECOUPLED),
        model("iter_ids"),
        model("iter_batched", "max_batch_size: 4\n", batched=True),
        model("iter_batched_dec", "max_batch_size: 4\n" + DECOUPLED, batched=True),
        model("iter_not", io=IO.replace("iterative_sequence: true", "")),
        *(model(f"iter_risk_{name}", config) for name, (config, *_) in RISKY.items()),
    ),
    streams=(
        *common("iter"),
        *common("iter_dec"),
        single("iter_dec", "send", "3 send"),
        single("iter_dec", "send_ids", "3 send ids", 80, 1, request_id="r2"),
        single("iter_ids", "first", "2 ids"),
        single("iter_ids", "second", "2 ids"),
        single("iter_ids", "explicit", "2 ids", 9, 1),
        single("iter_ids", "third", "2 ids"),
        single("iter_ids", "explicit_next", "2 ids", 5, 1),
        single("iter_ids", "fourth", "2 ids"),
        single("iter_ids", "fifth", "2 ids"),
        *(
            case
            for name in ("iter_batched", "iter_batched_dec")
            for case in (
                single(name, "three", "3 ids", 90, 1),
                single(name, "auto", "3"),
                together(name, "two", "a 3 slow", "b 3 slow"),
                together(name, "four", "a 2 slow", "b 3 slow", "c 1 slow", "d 2 slow"),
            )
        ),
        single("iter_not", "start", "1 ids", 10, 1),
        single("iter_not", "rescheduled", "2 ids", 11, 1),
        *(
            replace(single(f"iter_risk_{name}", name, text, correlation_id, flags), both=False)
            for name, (_, text, correlation_id, flags) in RISKY.items()
        ),
    ),
)

"""Ask a running tritonserver every stream of the suite and write down all its responses.

The server must have been started with ``--model-control-mode=none`` on the folder
that ``--write-repository`` made:

    python -m tests.conformance.record_streams --write-repository DIR
    tritonserver --model-repository=DIR
    python -m tests.conformance.record_streams --url 127.0.0.1:8001 \\
        --repository DIR --out tests/conformance/triton_2_51_streams.json

``tritonclient[grpc]`` is needed. Each request is the only one of its stream, and the
client closes its side at once: the server then ends the stream when the request is
done, which is how its end is seen.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from .cases import STREAM_GROUPS
from .record import decode, encode, normaliser, one_line_each, write_model
from .schema import InferCase, Scalar, StreamCase, StreamGroup

TIMEOUT_S = 4.0
EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"

Normalise = Callable[[str], str]


def parameter(value: Scalar) -> Any:
    """Return a request parameter of the protocol."""
    if isinstance(value, bool):
        return pb.InferParameter(bool_param=value)
    if isinstance(value, int):
        return pb.InferParameter(int64_param=value)
    if isinstance(value, float):
        return pb.InferParameter(double_param=value)
    return pb.InferParameter(string_param=value)


def message(case: InferCase, empty_final: bool) -> Any:
    """Return a request as the protocol wants it."""
    parameters: dict[str, Scalar] = dict(case.parameters)
    if case.correlation_id != 0:
        parameters["sequence_id"] = case.correlation_id
    if case.sequence_start:
        parameters["sequence_start"] = True
    if case.sequence_end:
        parameters["sequence_end"] = True
    if case.timeout:
        parameters["timeout"] = case.timeout
    if empty_final:
        parameters[EMPTY_FINAL] = True
    request = pb.ModelInferRequest(model_name=case.model, id=case.request_id)
    for key, value in parameters.items():
        request.parameters[key].CopyFrom(parameter(value))
    for name, values in case.inputs.items():
        request.inputs.add(name=name, datatype=values.datatype, shape=values.shape)
        request.raw_input_contents.append(encode(values))
    for name in case.outputs or ():
        request.outputs.add(name=name)
    return request


def outputs(response: Any, normalise: Normalise) -> Iterator[dict[str, Any]]:
    """Return the outputs of a response."""
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        items = decode(output.datatype, raw)
        yield {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.shape),
            "data": [normalise(x) if isinstance(x, str) else x for x in items],
        }


def one_response(received: Any, normalise: Normalise) -> dict[str, Any]:
    """Return a response as it is written down."""
    response = received.infer_response
    parameters = {
        key: getattr(value, value.WhichOneof("parameter_choice"))
        for key, value in response.parameters.items()
    }
    result: dict[str, Any] = {}
    if FINAL in parameters:
        result["final"] = parameters.pop(FINAL)
    if parameters:
        result["parameters"] = parameters
    # An error without text cannot be told from none.
    if received.error_message:
        result["error"] = normalise(received.error_message)
    else:
        result["outputs"] = list(outputs(response, normalise))
    return result


class Client:
    """Streams to a server's gRPC endpoint."""

    def __init__(self, url: str, normalise: Normalise) -> None:
        self._url = url
        self._normalise = normalise

    def ask(self, stream: StreamCase, empty_final: bool) -> dict[str, Any]:
        """Send the requests of a stream case; return what came back."""
        answers: list[dict[str, Any]] = [{} for _ in stream.requests]

        def run(position: int, case: InferCase) -> None:
            answers[position] = self.infer(case, empty_final, stream)

        threads = []
        for position, case in enumerate(stream.requests):
            threads.append(threading.Thread(target=run, args=(position, case)))
            threads[-1].start()
            time.sleep(stream.gap_s)  # the order in which they come is the case's
        for thread in threads:
            thread.join()
        result: dict[str, Any] = {"streams": answers}
        if stream.then is not None:
            result["then"] = self.infer(stream.then, False)
        return result

    def infer(
        self, case: InferCase, empty_final: bool, stream: StreamCase | None = None
    ) -> dict[str, Any]:
        """Send one request; return its responses, and whether the stream ended by itself."""
        responses: list[dict[str, Any]] = []
        cancel_after = None if stream is None else stream.cancel_after
        with grpc.insecure_channel(self._url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            call = stub.ModelStreamInfer(iter([message(case, empty_final)]), timeout=TIMEOUT_S)
            if stream is not None and stream.cancel_after_s is not None:
                threading.Timer(stream.cancel_after_s, call.cancel).start()
            try:
                for received in call:
                    responses.append(one_response(received, self._normalise))
                    if len(responses) == cancel_after:
                        call.cancel()
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return {"responses": responses, "ended": False}
                if error.code() is grpc.StatusCode.CANCELLED:
                    return {"responses": responses, "cancelled": True}
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return {"responses": responses, "crashed": True}
                raise
        return {"responses": responses, "ended": True}


def record(client: Client, groups: Sequence[StreamGroup]) -> dict[str, Any]:
    """Return the answers to all streams of some groups."""
    answers: dict[str, Any] = {"empty_final": {}, "plain": {}}
    for group in groups:
        for stream in group.streams:
            print(stream.id, flush=True)
            answers["empty_final"][stream.id] = client.ask(stream, True)
            if stream.both:
                answers["plain"][stream.id] = client.ask(stream, False)
    return answers


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-repository", type=Path, metavar="DIR")
    parser.add_argument("--url", help="of the server's gRPC endpoint")
    parser.add_argument("--repository", type=Path, metavar="DIR", help="what was written before")
    parser.add_argument("--group", action="append", metavar="NAME", help="only this group")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    groups = [g for g in STREAM_GROUPS if not arguments.group or g.name in arguments.group]
    if arguments.write_repository:
        for group in groups:
            for model in group.models:
                write_model(arguments.write_repository, model)
    elif arguments.url and arguments.repository and arguments.out:
        normalise = normaliser(arguments.repository.resolve(), "<no backends>")
        answers = record(Client(arguments.url, normalise), groups)
        if arguments.out.exists():
            old = json.loads(arguments.out.read_text(encoding="utf-8"))
            ids = {stream.id for group in STREAM_GROUPS for stream in group.streams}
            answers = {
                key: {k: v for k, v in {**old[key], **new}.items() if k in ids}
                for key, new in answers.items()
            }
        arguments.out.write_text(one_line_each(answers), encoding="utf-8")
    else:
        parser.error("give --write-repository, or --url with --repository and --out")


if __name__ == "__main__":
    main()

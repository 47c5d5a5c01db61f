"""Ask a running tritonserver every case of the suite and write down its answers.

The server must have been started with ``--model-control-mode=explicit`` on the
folders that ``--write-repository`` made:

    python -m tests.conformance.record --write-repository DIR
    tritonserver --model-control-mode=explicit \\
        --model-repository=DIR/models --backend-directory=DIR/backends
    python -m tests.conformance.record --url http://127.0.0.1:8000 \\
        --repository DIR --out tests/conformance/triton_2_51.json

Only the standard library is used. Tensors travel in binary, so that every data
type, also FP16, and every byte of a string arrives as it was.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .cases import GROUPS
from .schema import BackendFiles, Group, InferCase, ModelFiles, Values

EXPLICIT = tuple(group for group in GROUPS if group.model_control_mode == "explicit")
"""The groups of a server that is started with ``--model-control-mode=explicit``."""
REQUEST_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 15.0
NO_ANSWER: dict[str, Any] = {"status": None}
"""Recorded for a call that Triton never answers."""
CRASHED: dict[str, Any] = {"status": None, "crashed": True}
"""Recorded for a call that ends the server. Start it again and record the rest by ``--group``."""

_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


def write_model(folder: Path, model: ModelFiles) -> None:
    """Write one model folder; it gets a version folder only if a file lies in one."""
    (folder / model.name).mkdir(parents=True)
    if model.config_pbtxt is not None:
        (folder / model.name / "config.pbtxt").write_text(model.config_pbtxt, encoding="utf-8")
    _write_files(folder / model.name, model.files.items())


def write_backend(folder: Path, backend: BackendFiles) -> None:
    """Write one backend folder."""
    _write_files(folder / backend.name, backend.files.items())


def write_group(models: Path, backends: Path, group: Group) -> None:
    """Write what a group needs below two folders."""
    models.mkdir(parents=True, exist_ok=True)
    backends.mkdir(parents=True, exist_ok=True)
    for model in group.models:
        write_model(models, model)
    for backend in group.backends:
        write_backend(backends, backend)


def _write_files(folder: Path, files: Iterable[tuple[str, str]]) -> None:
    for path, text in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def normaliser(models: Path | str, backends: Path | str) -> Callable[[str], str]:
    """Return a function that takes this machine's folders out of a text."""
    folders = sorted(
        [(str(models), "<repo>"), (str(backends), "<backends>")],
        key=lambda pair: -len(pair[0]),
    )

    def normalise(text: str) -> str:
        for folder, name in folders:
            text = text.replace(folder, name)
        text = re.sub(r"/[^\s'\"]*/lib/python3\.\d+/", "<python>/", text)
        return re.sub(r"\bat 0x[0-9a-f]+", "at 0x...", text)

    return normalise


def encode(values: Values) -> bytes:
    """Return a tensor's bytes as the binary extension of the protocol wants them."""
    if values.datatype != "BYTES":
        return struct.pack(f"<{len(values.data)}{_FORMATS[values.datatype]}", *values.data)
    return b"".join(struct.pack("<I", len(item)) + item for item in _items(values))


def _items(values: Values) -> Iterator[bytes]:
    for item in values.data:
        if isinstance(item, bytes):
            yield item
        else:
            assert isinstance(item, str)
            yield item.encode()


def decode(datatype: str, raw: bytes) -> list[Any]:
    """Return the flat elements of a tensor; bytes that are no UTF-8 become ``{"hex": ...}``."""
    if datatype != "BYTES":
        code = _FORMATS[datatype]
        return list(struct.unpack(f"<{len(raw) // struct.calcsize('<' + code)}{code}", raw))
    items = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        items.append(readable(raw[4 : 4 + length]))
        raw = raw[4 + length :]
    return items


def readable(item: bytes) -> str | dict[str, str]:
    """Return one BYTES element in a form that JSON can hold."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        return {"hex": item.hex()}


def request_json(case: InferCase) -> dict[str, Any]:
    """Return the JSON part of a request."""
    parameters: dict[str, Any] = {**case.parameters, "binary_data_output": True}
    if case.correlation_id != 0:
        parameters["sequence_id"] = case.correlation_id
    # The front end reads the two flags only together with an id.
    if case.sequence_start:
        parameters["sequence_start"] = True
    if case.sequence_end:
        parameters["sequence_end"] = True
    if case.priority:
        parameters["priority"] = case.priority
    if case.timeout:
        parameters["timeout"] = case.timeout
    body: dict[str, Any] = {
        "parameters": parameters,
        "inputs": [
            {
                "name": name,
                "datatype": values.datatype,
                "shape": list(values.shape),
                "parameters": {"binary_data_size": len(encode(values))},
            }
            for name, values in case.inputs.items()
        ],
    }
    if case.request_id:
        body["id"] = case.request_id
    if case.outputs is not None:
        body["outputs"] = [
            {"name": name, "parameters": {"binary_data": True}} for name in case.outputs
        ]
    return body


class Client:
    """The few calls of a server's HTTP endpoint that are needed here."""

    def __init__(self, url: str, normalise: Callable[[str], str]) -> None:
        self._address = urlsplit(url).netloc
        self._normalise = normalise

    def call(
        self,
        path: str,
        body: bytes | None = None,
        *,
        headers: dict[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> tuple[int | None, bytes, int | None]:
        """Return status, body and the length of its JSON part; status None: no answer."""
        connection = http.client.HTTPConnection(self._address, timeout=timeout_s)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers or {})
            response = connection.getresponse()
            length = response.getheader("Inference-Header-Content-Length")
            return response.status, response.read(), int(length) if length else None
        except TimeoutError:
            return None, b"", None
        finally:
            connection.close()

    def get_json(self, path: str) -> Any:
        """Return the document at a path, paths in it normalised."""
        return json.loads(self._normalise(self.call(path)[1].decode()))

    def load(self, model: str) -> dict[str, Any]:
        """Load a model; return the answer, what the index says, and its configuration."""
        status, body, _ = self.call(
            f"/v2/repository/models/{model}/load", b"{}", timeout_s=LOAD_TIMEOUT_S
        )
        if status is None:
            return dict(NO_ANSWER)
        answer: dict[str, Any] = {"status": status}
        if status != http.HTTPStatus.OK:
            answer["error"] = self._error(body)
        answer["index"] = self._index(model)
        if status == http.HTTPStatus.OK:
            answer["config"] = self.get_json(f"/v2/models/{model}/config")
            answer["metadata"] = self.get_json(f"/v2/models/{model}")
        return answer

    def unload(self, model: str) -> int | None:
        """Unload a model; return the HTTP status."""
        return self.call(f"/v2/repository/models/{model}/unload", b"{}", timeout_s=LOAD_TIMEOUT_S)[
            0
        ]

    def infer(self, case: InferCase) -> dict[str, Any]:
        """Send one request; return status and error text, or the outputs in order."""
        header = json.dumps(request_json(case)).encode()
        try:
            status, body, length = self.call(
                f"/v2/models/{case.model}/infer",
                header + b"".join(encode(values) for values in case.inputs.values()),
                headers={"Inference-Header-Content-Length": str(len(header))},
            )
        except ConnectionResetError:
            return dict(CRASHED)
        if status is None:
            return dict(NO_ANSWER)
        if status != http.HTTPStatus.OK:
            return {"status": status, "error": self._error(body)}
        return {"status": status, "outputs": list(self._outputs(body, length))}

    def _outputs(self, body: bytes, length: int | None) -> Iterator[dict[str, Any]]:
        length = len(body) if length is None else length
        position = length
        for output in json.loads(body[:length]).get("outputs", []):
            size = output.get("parameters", {}).get("binary_data_size", 0)
            items = decode(output["datatype"], body[position : position + size])
            position += size
            yield {
                "name": output["name"],
                "datatype": output["datatype"],
                "shape": output["shape"],
                "data": [self._normalise(x) if isinstance(x, str) else x for x in items],
            }

    def _error(self, body: bytes) -> str:
        try:
            return self._normalise(json.loads(body)["error"])
        except (ValueError, KeyError, UnicodeDecodeError):
            return self._normalise(body.decode(errors="backslashreplace"))

    def _index(self, model: str) -> list[dict[str, str]]:
        entries = json.loads(self.call("/v2/repository/index", b"{}")[1])
        return [
            {
                key: self._normalise(value)
                for key, value in entry.items()
                if key in {"version", "state", "reason"}
            }
            for entry in entries
            if entry["name"] == model
        ]


def record(client: Client, groups: Iterable[Group]) -> dict[str, Any]:
    """Return the answers to all cases of some groups."""
    about = client.get_json("/v2")
    answers: dict[str, Any] = {
        "server": f"{about['name']} {about['version']}",
        "loads": {},
        "requests": {},
        "unloads": {},
    }
    for group in groups:
        print(group.name, flush=True)
        for load in group.loads:
            answers["loads"][load.id] = client.load(load.model)
        for case in group.requests:
            answers["requests"][case.id] = client.infer(case)
        for load in group.loads:
            if answers["loads"][load.id]["status"] == http.HTTPStatus.OK:
                answers["unloads"][load.id] = client.unload(load.model)
    return answers


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the old answers, replaced by the new ones and without cases that are no more."""
    loads = {case.id for group in GROUPS for case in group.loads}
    requests = {case.id for group in GROUPS for case in group.requests}
    known = {"loads": loads, "requests": requests, "unloads": loads}
    result: dict[str, Any] = {"server": new["server"]}
    for section, ids in known.items():
        both = {**old[section], **new[section]}
        result[section] = {key: value for key, value in both.items() if key in ids}
    return result


def one_line_each(answers: dict[str, Any]) -> str:
    """Return the answers as JSON with one line per case, so that a diff shows the case."""
    sections = []
    for name, section in answers.items():
        if isinstance(section, dict):
            lines = [
                f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}"
                for key, value in sorted(section.items())
            ]
            sections.append(f'"{name}": {{\n' + ",\n".join(lines) + "\n}")
        else:
            sections.append(f'"{name}": {json.dumps(section)}')
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-repository", type=Path, metavar="DIR")
    parser.add_argument("--url", help="of the server's HTTP endpoint")
    parser.add_argument("--repository", type=Path, metavar="DIR", help="what was written before")
    parser.add_argument("--backends", help="the server's backend directory, if not DIR/backends")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument(
        "--group",
        action="append",
        metavar="NAME",
        help="record only this group, and keep what --out holds of the others; may be repeated",
    )
    arguments = parser.parse_args()
    groups = [g for g in GROUPS if g.name in arguments.group] if arguments.group else EXPLICIT
    if arguments.write_repository:
        folder = arguments.write_repository
        for group in groups:
            write_group(folder / "models", folder / "backends", group)
    elif arguments.url and arguments.repository and arguments.out:
        models = arguments.repository.resolve() / "models"
        backends = arguments.backends or arguments.repository.resolve() / "backends"
        answers = record(Client(arguments.url, normaliser(models, backends)), groups)
        if arguments.group:
            answers = merged(json.loads(arguments.out.read_text(encoding="utf-8")), answers)
        arguments.out.write_text(one_line_each(answers), encoding="utf-8")
    else:
        parser.error("give --write-repository, or --url with --repository and --out")


if __name__ == "__main__":
    main()

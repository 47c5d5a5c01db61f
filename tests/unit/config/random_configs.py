"""Random configurations of Python models that Triton loads, and ways to break them.

Everything comes from one seed, so that what was recorded from Triton can be recorded again.
A configuration is made as a tree and written as text in a spelling that is random as well:
lists in brackets or entry by entry, colons, separators, comments, escapes.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

MODEL_PY = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""

FILES = {
    "1/model.py": MODEL_PY,
    "labels.txt": "one\ntwo\n",
    "warmup/sixteen": "0123456789abcdef",
    "initial_state/sixteen": "0123456789abcdef",
}
"""What lies in the model folder beside ``config.pbtxt``."""

_TYPES = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "STRING",
    "BF16",
]
_TEXTS = (
    "a", "key", "some text", "", "0", "true", "with \"quotes\" and 'more'", "back\\slash",
    "line\nbreak\ttab", "caf\u00e9 \u65e5\u672c \U0001f600", "</script>", "$VALUE", "\x01\x7f",
)  # fmt: skip
_UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Name:
    """An enum name, or another word without quotes."""

    word: str


Node: TypeAlias = "Message | Name | str | int | float | bool"


@dataclass(slots=True)
class Message:
    """Fields in writing order; a list is a repeated field, a dict a map."""

    fields: dict[str, Node | list[Any] | dict[Any, Any]] = field(default_factory=dict)

    def set(self, **values: Any) -> Message:
        """Set the fields whose value is not None."""
        self.fields.update((key, value) for key, value in values.items() if value is not None)
        return self


class Generator:
    """Makes configurations from one `random.Random`."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)

    # -- choices -----------------------------------------------------------------------

    def maybe(self, value: Callable[[], Any], chance: float = 0.5) -> Any:
        """Return `value()`, or None."""
        return value() if self.random.random() < chance else None

    def flag(self) -> bool:
        return self.random.random() < 0.5

    def number(self, most: int, least: int = 0) -> int:
        """Return a number that is small, a limit, or anything."""
        small = self.random.randint(least, min(most, least + 10))
        return self.random.choice([small, small, most, self.random.randint(least, most)])

    def text(self) -> str:
        return self.random.choice(_TEXTS)

    def data_type(self) -> Name:
        return Name("TYPE_" + self.random.choice(_TYPES))

    def dims(self, rank: int | None = None, *, is_fixed: bool = False) -> list[int]:
        rank = rank or self.random.randint(1, 4)
        sizes = [1, 2, 3, 4, 16, 224, 2**40]
        return [self.random.choice(sizes if is_fixed else [*sizes, -1, -1]) for _ in range(rank)]

    def single(self) -> float:
        """Return a number that is exact in 32 bits."""
        value = self.random.choice(
            [0.0, 1.0, -1.0, 0.5, 0.1, 1e-7, 3.25e30, self.random.uniform(-1000, 1000)]
        )
        return float(struct.unpack("f", struct.pack("f", value))[0])

    # -- parts -------------------------------------------------------------------------

    def reshape(self, dims: list[int], max_batch_size: int) -> Message | None:
        """Return another shape of as many elements, or None."""
        choice = self.random.random()
        if choice < 0.6:
            return None
        if dims == [1] and max_batch_size > 0 and choice < 0.8:
            return Message({"shape": []})
        shape: list[int] = []
        for dim in dims:
            parts = [1, dim] if dim in (-1, 1) or self.flag() else [dim]
            if dim in (4, 16) and self.flag():
                parts = [dim // 2, 2]
            shape += parts
        return Message({"shape": shape})

    def input(self, name: str, max_batch_size: int) -> Message:
        image = self.maybe(lambda: Name(self.random.choice(["FORMAT_NHWC", "FORMAT_NCHW"])), 0.2)
        dims = self.dims(3 if image else None)
        return Message().set(
            name=name,
            data_type=self.data_type(),
            format=image or self.maybe(lambda: Name("FORMAT_NONE"), 0.1),
            dims=dims,
            reshape=self.reshape(dims, max_batch_size),
            allow_ragged_batch=self.maybe(self.flag, 0.2),
            optional=self.maybe(self.flag, 0.3),
            is_shape_tensor=self.maybe(lambda: False, 0.1),
        )

    def output(self, name: str, max_batch_size: int) -> Message:
        dims = self.dims()
        return Message().set(
            name=name,
            data_type=self.data_type(),
            dims=dims,
            reshape=self.reshape(dims, max_batch_size),
            label_filename=self.maybe(lambda: "labels.txt", 0.2),
        )

    def instance_group(self, index: int) -> Message:
        # Each instance of a recording is a process of its own, so they are few.
        return Message().set(
            # A blank in it breaks the command line of Triton's stub.
            name=self.maybe(lambda: f"group_{index}"),
            count=self.maybe(lambda: self.random.choice([1, 2, 0, -3])),
            kind=self.maybe(
                lambda: Name("KIND_" + self.random.choice(["CPU", "AUTO", "CPU", "MODEL"]))
            ),
            passive=self.maybe(self.flag, 0.2),
            host_policy=self.maybe(lambda: self.random.choice(["cpu", "gpu_0", "own"]), 0.2),
            secondary_devices=self.maybe(
                lambda: [
                    Message().set(
                        kind=self.maybe(lambda: Name("KIND_NVDLA")),
                        device_id=self.number(2**63 - 1, -(2**63)),
                    )
                ],
                0.15,
            ),
            rate_limiter=self.maybe(self.rate_limiter, 0.25),
        )

    def rate_limiter(self) -> Message:
        return Message().set(
            resources=[
                Message().set(
                    name=self.random.choice(["R1", "r2"]),
                    count=self.maybe(lambda: self.number(2**32 - 1)),
                    **{"global": self.maybe(self.flag)},
                )
                for _ in range(self.random.randint(0, 2))
            ],
            priority=self.maybe(lambda: self.number(2**32 - 1)),
        )

    def version_policy(self) -> Message:
        return self.random.choice(
            [
                Message({"latest": Message({"num_versions": self.number(2**32 - 1, 1)})}),
                Message({"all": Message()}),
                Message({"specific": Message({"versions": [1]})}),
                Message({"specific": Message({"versions": [1, 7, self.number(2**63 - 1)]})}),
                Message(),
            ]
        )

    def queue_policy(self, *, may_delay: bool = True) -> Message:
        return Message().set(
            timeout_action=self.maybe(
                lambda: Name(self.random.choice(["REJECT", "DELAY"]) if may_delay else "REJECT")
            ),
            default_timeout_microseconds=self.maybe(lambda: self.number(_UINT64_MAX)),
            allow_timeout_override=self.maybe(self.flag),
            max_queue_size=self.maybe(lambda: self.number(2**32 - 1)),
        )

    def preferred_sizes(self, max_batch_size: int) -> list[int] | None:
        if max_batch_size == 0:
            return None
        count = self.random.randint(0, 3)
        return [self.random.randint(1, max_batch_size) for _ in range(count)]

    def dynamic_batching(self, max_batch_size: int) -> Message:
        is_ordered = self.maybe(self.flag)
        levels = self.maybe(lambda: 1 if is_ordered else self.number(_UINT64_MAX, 1))
        policies = (
            {
                self.number(levels, 1): self.queue_policy(may_delay=not is_ordered)
                for _ in range(self.random.randint(0, 3))
            }
            if levels
            else None
        )
        return Message().set(
            preferred_batch_size=self.preferred_sizes(max_batch_size),
            max_queue_delay_microseconds=self.maybe(lambda: self.number(_UINT64_MAX)),
            preserve_ordering=is_ordered,
            priority_levels=levels,
            default_priority_level=levels and self.number(levels, 1),
            default_queue_policy=self.maybe(lambda: self.queue_policy(may_delay=not is_ordered)),
            priority_queue_policy=policies,
        )

    def control(self, kind: str) -> Message:
        control = Message().set(kind=Name(f"CONTROL_SEQUENCE_{kind}"))
        if kind == "CORRID":
            names = ["UINT64", "INT64", "UINT32", "INT32", "STRING"]
            return control.set(data_type=Name("TYPE_" + self.random.choice(names)))
        match self.random.randrange(3):
            case 0:
                limit = 2**31 - 1
                pair = [self.number(limit, -limit - 1), self.number(limit)]
                return control.set(int32_false_true=pair)
            case 1:
                return control.set(fp32_false_true=[self.single(), self.single()])
            case _:
                return control.set(bool_false_true=[self.flag(), self.flag()])

    def control_inputs(self) -> list[Message]:
        kinds = ["START", "READY", "END", "CORRID"]
        self.random.shuffle(kinds)
        kinds = kinds[: self.random.randint(0, 4)]
        tensors: list[Message] = []
        for index, kind in enumerate(kinds):
            if tensors and self.random.random() < 0.1:
                tensors[-1].fields["control"].append(self.control(kind))  # type: ignore[union-attr]
            else:
                tensors.append(Message({"name": f"C{index}", "control": [self.control(kind)]}))
        return tensors

    def state(self, index: int) -> Message:
        has_file = self.random.random() < 0.2
        data_type = Name("TYPE_FP32") if has_file else self.data_type()
        dims = [4] if has_file else [self.random.choice([1, 3, -1]) for _ in range(2)]
        initial = Message().set(
            data_type=data_type,
            dims=[dim if dim > 0 else 5 for dim in dims],
            name=f"initial {index}",
            zero_data=None if has_file else True,
            data_file="sixteen" if has_file else None,
        )
        return Message().set(
            input_name=f"SI{index}",
            output_name=f"SO{index}",
            data_type=data_type,
            dims=dims,
            initial_state=[initial] if has_file else self.maybe(lambda: [initial]),
            use_same_buffer_for_input_output=self.maybe(self.flag, 0.2),
        )

    def sequence_batching(self, max_batch_size: int) -> Message:
        batching = Message().set(
            max_sequence_idle_microseconds=self.maybe(lambda: self.number(_UINT64_MAX)),
            control_input=self.control_inputs(),
            state=self.maybe(
                lambda: [self.state(index) for index in range(self.random.randint(1, 2))]
            ),
            iterative_sequence=self.maybe(self.flag, 0.2),
        )
        match self.random.randrange(3):
            case 0:
                batching.set(
                    direct=Message().set(
                        max_queue_delay_microseconds=self.maybe(lambda: self.number(_UINT64_MAX)),
                        minimum_slot_utilization=self.maybe(
                            lambda: abs(self.random.choice([0.0, 1.0, 0.5, 0.1, 0.333]))
                        ),
                    )
                )
            case 1:
                batching.set(
                    oldest=Message().set(
                        max_candidate_sequences=self.maybe(lambda: self.random.randint(0, 9)),
                        preferred_batch_size=self.preferred_sizes(max_batch_size),
                        max_queue_delay_microseconds=self.maybe(lambda: self.number(_UINT64_MAX)),
                        preserve_ordering=self.maybe(self.flag),
                    )
                )
        return batching

    def optimization(self) -> Message:
        def pinned() -> Message:
            return Message().set(enable=self.maybe(self.flag))

        def accelerators() -> list[Message]:
            return [
                Message().set(
                    name=self.text(), parameters=self.maybe(lambda: {self.text(): self.text()})
                )
            ]

        def shapes() -> dict[str, Message]:
            return {"IN0": Message({"dim": [self.number(2**63 - 1)]})}

        def graph() -> Message:
            lower = Message().set(batch_size=1, input=shapes())
            return Message().set(
                batch_size=self.number(2**31 - 1),
                input=self.maybe(shapes),
                graph_lower_bound=self.maybe(lambda: lower),
            )

        def cuda() -> Message:
            return Message().set(
                graphs=self.maybe(self.flag),
                busy_wait_events=self.maybe(self.flag),
                graph_spec=self.maybe(lambda: [graph()]),
                output_copy_stream=self.maybe(self.flag),
            )

        return Message().set(
            graph=self.maybe(lambda: Message({"level": self.number(2**31 - 1, -(2**31))})),
            priority=self.maybe(
                lambda: Name("PRIORITY_" + self.random.choice(["DEFAULT", "MAX", "MIN"]))
            ),
            cuda=self.maybe(cuda),
            execution_accelerators=self.maybe(
                lambda: Message().set(
                    gpu_execution_accelerator=self.maybe(accelerators),
                    cpu_execution_accelerator=self.maybe(accelerators),
                )
            ),
            input_pinned_memory=self.maybe(pinned),
            output_pinned_memory=self.maybe(pinned),
            gather_kernel_buffer_threshold=self.maybe(lambda: self.number(2**32 - 1)),
            eager_batching=self.maybe(self.flag),
        )

    def warmup(self, inputs: list[Message], max_batch_size: int) -> Message:
        data = {}
        for tensor in inputs:
            dims = [dim if dim > 0 else 2 for dim in tensor.fields["dims"]]  # type: ignore[union-attr]
            if max(dims) > 16:
                return Message({"name": "skipped", "batch_size": 0})
            data[tensor.fields["name"]] = Message().set(
                data_type=tensor.fields["data_type"],
                dims=dims,
                **{self.random.choice(["zero_data", "random_data"]): True},
            )
        return Message().set(
            name=self.text(),
            batch_size=self.random.randint(0, max(max_batch_size, 1)),
            inputs=data,
            count=self.maybe(lambda: self.random.randint(0, 2)),
        )

    # -- the whole ---------------------------------------------------------------------

    def config(self, name: str) -> Message:
        """Return a configuration that loads with `FILES` in its folder."""
        batch = self.random.choice([0, 0, 1, 4, 8, self.number(2**31 - 1)])
        inputs = [self.input(f"IN{index}", batch) for index in range(self.random.randint(0, 3))]
        outputs = [self.output(f"OUT{index}", batch) for index in range(self.random.randint(0, 2))]
        scheduler = self.random.choice(["", "", "dynamic", "sequence"])
        is_decoupled = self.maybe(self.flag, 0.3)
        config = Message().set(
            name=self.maybe(lambda: name),
            backend=self.maybe(lambda: "python", 0.9),
            max_batch_size=self.maybe(lambda: batch, 0.9) if batch == 0 else batch,
            input=inputs or None,
            output=outputs or None,
            version_policy=self.maybe(self.version_policy, 0.4),
            instance_group=self.maybe(
                lambda: [self.instance_group(index) for index in range(self.random.randint(1, 2))],
                0.5,
            ),
            optimization=self.maybe(self.optimization, 0.3),
            dynamic_batching=self.dynamic_batching(batch) if scheduler == "dynamic" else None,
            sequence_batching=self.sequence_batching(batch) if scheduler == "sequence" else None,
            parameters=self.maybe(
                lambda: {
                    self.text(): Message().set(string_value=self.maybe(self.text, 0.8))
                    for _ in range(self.random.randint(0, 3))
                },
                0.4,
            ),
            cc_model_filenames=self.maybe(lambda: {"7.5": self.text()}, 0.1),
            metric_tags=self.maybe(lambda: {"team": "a", "zone": "b"}, 0.15),
            default_model_filename=self.maybe(lambda: "model.py", 0.2),
            model_operations=self.maybe(
                lambda: Message({"op_library_filename": [self.text()]}), 0.1
            ),
            model_transaction_policy=self.maybe(
                lambda: Message().set(decoupled=is_decoupled), 1.0 if is_decoupled else 0.2
            ),
            response_cache=self.maybe(
                lambda: Message(
                    {"enable": not is_decoupled and scheduler != "sequence" and self.flag()}
                ),
                0.25,
            ),
        )
        # A platform stops Triton from looking at the files, so that the backend must be given.
        if "backend" in config.fields:
            config.set(platform=self.maybe(lambda: self.random.choice(["any", "onnx"]), 0.1))
        fixed = [tensor for tensor in inputs if tensor.fields["data_type"] != Name("TYPE_STRING")]
        if fixed and self.random.random() < 0.2:
            config.set(batch_input=[self.batch_input(self.random.choice(fixed))])
        if inputs and outputs and self.random.random() < 0.2:
            config.set(
                batch_output=[
                    Message().set(
                        target_name=["OUT0"],
                        kind=self.maybe(lambda: Name("BATCH_SCATTER_WITH_INPUT_SHAPE")),
                        source_input=["IN0"],
                    )
                ]
            )
        # A sample without inputs hangs on Triton when the model batches.
        if inputs and scheduler != "sequence" and not is_decoupled and self.random.random() < 0.25:
            config.set(model_warmup=[self.warmup(inputs, min(batch, 8))])
        return self.shuffled(config)

    def batch_input(self, source: Message) -> Message:
        kinds = [
            "ELEMENT_COUNT",
            "ACCUMULATED_ELEMENT_COUNT",
            "ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
            "MAX_ELEMENT_COUNT_AS_SHAPE",
            "ITEM_SHAPE",
            "ITEM_SHAPE_FLATTEN",
        ]
        return Message().set(
            kind=Name("BATCH_" + self.random.choice(kinds)),
            target_name=["B0"],
            data_type=Name("TYPE_" + self.random.choice(["INT32", "FP32"])),
            source_input=[source.fields["name"]],
        )

    def shuffled(self, message: Message) -> Message:
        fields = list(message.fields.items())
        self.random.shuffle(fields)
        return Message(dict(fields))

    # -- spelling ----------------------------------------------------------------------

    def write(self, message: Message, indent: str = "") -> str:
        """Write the fields in one of the spellings that text format allows."""
        lines: list[str] = []
        for name, value in message.fields.items():
            if self.random.random() < 0.05:
                lines.append(f"{indent}# {name}: {{ [ \"'")
            items = [value]
            if isinstance(value, dict):
                items = [Message({"key": key, "value": item}) for key, item in value.items()]
            elif isinstance(value, list):
                items = value
            if isinstance(value, list | dict) and (self.flag() or not items):
                # A list without a colon is legal before messages only.
                colon = "" if items and isinstance(items[0], Message) and self.flag() else ":"
                comma = self.random.choice([", ", ","])
                written = comma.join(self.value(item, indent) for item in items)
                lines.append(f"{indent}{name}{colon} [ {written} ]{self.separator()}")
                continue
            for item in items:
                colon = "" if isinstance(item, Message) and self.flag() else ":"
                written = self.value(item, indent)
                lines.append(f"{indent}{name}{colon} {written}{self.separator()}")
        return "\n".join(lines)

    def separator(self) -> str:
        return self.random.choice(["", "", "", "", ",", ";"])

    def value(self, value: Node, indent: str) -> str:
        match value:
            case Message():
                opening, closing = self.random.choice(["{}", "{}", "<>"])
                inside = self.write(value, indent + "  ")
                return f"{opening}\n{inside}\n{indent}{closing}" if inside else opening + closing
            case Name():
                return value.word
            case bool():
                return self.random.choice([str(value).lower(), str(value), str(int(value))])
            case int():
                return hex(value) if value > 9 and self.random.random() < 0.1 else str(value)
            case float():
                return repr(value)
            case _:
                return self.quoted(value)

    def quoted(self, text: str) -> str:
        quote = self.random.choice("\"'")
        escaped = ""
        for letter in text:
            if letter in (quote, "\\"):
                escaped += "\\" + letter
            elif letter == "\n":
                escaped += r"\n"
            elif letter < " " or letter == "\x7f":
                escaped += f"\\{ord(letter):03o}"
            elif letter > "~" and self.flag():
                escaped += "".join(f"\\{byte:03o}" for byte in letter.encode())
            else:
                escaped += letter
        return f"{quote}{escaped}{quote}"


def random_config(seed: int, name: str) -> str:
    """Return the text of a configuration that Triton loads under this name."""
    generator = Generator(seed)
    return generator.write(generator.config(name)) + "\n"

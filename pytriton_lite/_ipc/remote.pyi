from collections.abc import Callable

from typing_extensions import disjoint_base

from pytriton_lite._core.contract import Contract
from pytriton_lite._ipc.bls_port import BlsPort
from pytriton_lite._ipc.wire import Link, Reader

@disjoint_base
class RemoteContract(Contract):
    def __init__(
        self,
        link: Link,
        *,
        model_name: str,
        model_version: int,
        instance_name: str,
        model_file: str,
        is_decoupled: bool,
        is_iterative: bool,
        all_outputs: tuple[str, ...],
        bls: BlsPort,
        make_dead_error: Callable[[], BaseException],
        on_broken: Callable[[BaseException], object],
    ) -> None: ...
    def responded(self, record: Reader) -> None: ...
    def fail_all(self) -> None: ...

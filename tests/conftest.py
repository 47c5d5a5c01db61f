"""Fixtures of all tests."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pytriton_lite as ptl
from pytriton_lite._core.tensor import live_tensor_count
from tests.support import remote, shared
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import offer_scripts


def pytest_collection_finish() -> None:
    """Spare `gc.collect()` what the test modules imported.

    It stays anyway, and with torch and JAX looking through it takes most of a test's time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _no_tensor_left() -> Iterator[None]:
    """Every tensor of a module's tests is gone at its end; else those of the next would pay."""
    before = live_tensor_count()  # some test modules hold a few as constants
    yield
    deadline = time.monotonic() + 10
    while live_tensor_count() > before and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert live_tensor_count() <= before


@pytest.fixture(params=["inline", "thread"])
def execution(request: pytest.FixtureRequest) -> str:
    """Each execution mode in turn."""
    return str(request.param)


@pytest.fixture
def repository(tmp_path: Path) -> RepositoryBuilder:
    """An empty model repository and backend directory."""
    return RepositoryBuilder(tmp_path)


@pytest.fixture
def serve(repository: RepositoryBuilder) -> Iterator[Callable[..., ptl.Server]]:
    """Start a server on `repository`; it is stopped, and must leave no thread behind."""
    gc.collect()
    before = set(threading.enumerate())
    servers: list[ptl.Server] = []

    def start(**options: Any) -> ptl.Server:
        models = options.pop("model_repository", repository.models)
        server = ptl.Server(models, backend_directory=repository.backends, **options)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()
    theirs = ("asyncio", remote.THREADS, shared.THREADS)
    left = [t for t in threading.enumerate() if t not in before and not t.name.startswith(theirs)]
    assert not left, f"threads left behind: {left}"


@pytest.fixture
def in_stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stubs find what tests support them with; for use by whole modules."""
    monkeypatch.setenv(remote.VARIABLE, offer_scripts())
    root = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", root, prepend=os.pathsep)

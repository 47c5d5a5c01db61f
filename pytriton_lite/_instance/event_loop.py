"""The event loop of an instance, for `async def execute`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class InstanceLoop:
    """One asyncio loop on a thread of its own, started when first needed, as on Triton.

    Parameters
    ----------
    instance_name
        Names the thread.
    active
        Context in which the thread runs, so that imports by name find the model's modules.
    """

    def __init__(
        self, instance_name: str, active: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._name = instance_name
        self._active = active
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end; the calling thread waits."""
        import asyncio

        if self._loop is None:
            self._start()
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(_caught(coroutine), self._loop)
        result, error = future.result()
        if error is not None:
            raise error
        return result

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Run a coroutine beside others; ``done(result, exception)`` is called at its end."""
        import asyncio

        if self._loop is None:
            self._start()
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(_reported(coroutine, done), self._loop)

    def _start(self) -> None:
        import asyncio

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run_forever, args=(self._loop,), name=f"{self._name}-loop", daemon=True
        )
        self._thread.start()

    def _run_forever(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._active():
            loop.run_forever()

    def stop(self) -> None:
        """Cancel what still runs and end the thread."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        import asyncio

        self._loop = self._thread = None
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _caught(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    # SystemExit and KeyboardInterrupt would tear the loop down instead of reaching the caller.
    try:
        return await coroutine, None
    except BaseException as error:
        return None, error


async def _reported(
    coroutine: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]
) -> None:
    done(*await _caught(coroutine))


async def _cancel_tasks() -> None:
    import asyncio

    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()

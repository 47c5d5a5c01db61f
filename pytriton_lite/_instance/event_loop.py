"""The event loop of an instance, for `async def execute` and `async def is_ready`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

    from pytriton_lite._instance.namespace import ModuleNamespace


class InstanceLoop:
    """One asyncio loop on a thread of its own, started when first needed, as on Triton.

    Parameters
    ----------
    instance_name
        Appears in the thread's name.
    namespace
        Of the instance; that of imports by name on the thread.
    """

    def __init__(self, instance_name: str, namespace: ModuleNamespace) -> None:
        self._name = instance_name
        self._namespace = namespace
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # `execute` and `is_ready` come from different threads.
        self._lock = threading.Lock()
        self._is_stopped = False

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end; the calling thread waits."""
        result, error = self._submit(coroutine, _caught(coroutine)).result()
        if error is not None:
            raise error
        return result

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Run a coroutine beside others; ``done(result, exception)`` is called at its end."""
        self._submit(coroutine, _reported(coroutine, done))

    def _submit(
        self, coroutine: Coroutine[Any, Any, Any], wrapped: Coroutine[Any, Any, Any]
    ) -> concurrent.futures.Future[Any]:
        import asyncio

        with self._lock:
            if self._is_stopped:
                wrapped.close()
                coroutine.close()
                raise RuntimeError(f"the event loop of instance '{self._name}' is stopped")
            if self._loop is None:
                self._start()
            assert self._loop is not None
            return asyncio.run_coroutine_threadsafe(wrapped, self._loop)

    def _start(self) -> None:
        import asyncio

        loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=self._main, args=(loop,), name=f"{self._name}-loop", daemon=True
        )
        thread.start()
        self._loop, self._thread = loop, thread

    def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with self._namespace.active():
                loop.run_forever()
        finally:
            loop.close()

    def stop(self, limit_s: float | None = None) -> bool:
        """Cancel what still runs and end the thread.

        Returns False if that takes longer than `limit_s`; then the thread ends when it can.
        """
        with self._lock:
            self._is_stopped = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive():
            return True
        import asyncio

        ending = asyncio.run_coroutine_threadsafe(_cancel_tasks(), loop)
        ending.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        if thread is not threading.current_thread():
            thread.join(limit_s)
        return not thread.is_alive()


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

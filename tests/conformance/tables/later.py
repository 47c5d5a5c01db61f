"""Answers recorded for features that come later: the response sender, `async def execute`."""

from __future__ import annotations

from ..schema import Group, ask, plain

SENDER = plain(
    "sender",
    """
    import asyncio
    import threading

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            text = pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()[0].decode()
            return getattr(self, text)(requests[0].get_response_sender())

        def reply(self, text="sent"):
            array = np.array([text], dtype=np.object_)
            return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])

        def final(self, sender):
            sender.send(self.reply(), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

        def final_and_list(self, sender):
            sender.send(self.reply(), flags=1)
            return [None]

        def final_alone_after(self, sender):
            sender.send(self.reply())
            sender.send(flags=1)

        def from_thread(self, sender):
            threading.Thread(target=self.final, args=(sender,)).start()

        def final_first(self, sender):
            sender.send(flags=1)

        def bad_flag(self, sender):
            sender.send(self.reply(), flags=2)

        def nothing(self, sender):
            sender.send()

        def wrong_type(self, sender):
            sender.send("abc", flags=1)

        def error(self, sender):
            error = pb_utils.TritonError("sent error", pb_utils.TritonError.UNAVAILABLE)
            sender.send(pb_utils.InferenceResponse(error=error), flags=1)

        def sent_and_returned(self, sender):
            sender.send(self.reply(), flags=1)
            return [self.reply("returned")]
    """,
)
ASYNC = plain(
    "async_execute",
    """
    import asyncio

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        async def execute(self, requests):
            await asyncio.sleep(0)
            text = pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()[0].decode()
            if text == "raise":
                raise ValueError("in coroutine")
            if text == "tuple":
                return ()
            array = np.array([text], dtype=np.object_)
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])]
    """,
)

LATER = Group(
    "later",
    models=(SENDER, ASYNC),
    requests=(
        *(
            ask(f"sender/{name}", "sender", name)
            for name in (
                "final",
                "final_and_list",
                "final_alone_after",
                "from_thread",
                "final_first",
                "bad_flag",
                "nothing",
                "wrong_type",
                "error",
                "sent_and_returned",
            )
        ),
        *(
            ask(f"async_execute/{name}", "async_execute", name)
            for name in ("result", "raise", "tuple")
        ),
    ),
)

"""Ctrl-C stops the answer, not the program."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from bendi.messages import Cancellation


@contextlib.contextmanager
def stopping_on_ctrl_c(cancel: Cancellation) -> Iterator[None]:
    """Inside, the first Ctrl-C cancels; a second one, for an engine that does not listen, raises KeyboardInterrupt."""
    pressed = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        # In a thread, since the handler runs in the middle of whatever the main thread does, which may hold the
        # very lock that `cancel` takes.
        threading.Thread(target=cancel.cancel, daemon=True).start()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)

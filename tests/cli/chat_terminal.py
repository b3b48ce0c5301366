"""A real pseudo-terminal with the `bendi` command in it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])")

# The fake engine with a pause before every token, registered as any engine would be.
LAUNCHER = """
import sys
from bendi.engines import registry
registry.ENGINES["slow"] = "slow_engine"
from bendi.cli.main import main
sys.exit(main())
"""
SLOW_ENGINE = """
from bendi.engines.fake import FakeEngine

def open_engine(load, on_progress=None):
    return FakeEngine(load, delay_s=0.05)
"""


class Terminal:
    """Types keys and waits for text. A context manager: leaving it ends the command."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, term: str = "xterm-256color"
    ) -> None:
        (folder / "slow_engine.py").write_text(SLOW_ENGINE)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**environment, "TERM": term, "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONPATH": str(folder)},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""
        self._read_to = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    @property
    def pid(self) -> int:
        return self._process.pid

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, pattern: str, patience_s: float = 30.0) -> str:
        """What was shown from the last match up to this one, without colours and cursor movements."""
        end_s = time.monotonic() + patience_s
        while True:
            shown = _ESCAPES.sub("", self.seen).replace("\r", "")
            match = re.compile(pattern, re.DOTALL).search(shown, self._read_to)
            if match:
                piece, self._read_to = shown[self._read_to : match.end()], match.end()
                return piece
            if not self._receive(end_s):
                raise AssertionError(f"{pattern!r} was not shown; instead:\n{shown[self._read_to :]}")

    def wait_for_end(self, patience_s: float = 30.0) -> int:
        """Reads until the command has ended; returns its exit code."""
        end_s = time.monotonic() + patience_s
        while self._receive(end_s):
            pass
        return self._process.wait(max(end_s - time.monotonic(), 0.1))

    def _receive(self, end_s: float) -> bool:
        readable, _w, _x = select.select([self._master], [], [], max(end_s - time.monotonic(), 0))
        if not readable:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux says that the other side is closed
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

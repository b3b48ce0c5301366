"""`bendi serve` as a process of its own, for tests that signal it, kill it or look at it from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Process:
    """A running `bendi serve`. `events`: what it has logged. `url`: where it listens, once it is ready."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bendi", "serve", "--port", "0", "--log", "json", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self.events: list[dict[str, Any]] = []
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            if line.startswith("{"):
                self.events.append(json.loads(line))
            else:
                self.said += line

    def wait_for(self, event: str, timeout_s: float = 30.0) -> dict[str, Any]:
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            for found in list(self.events):
                if found["event"] == event:
                    return found
            assert self._process.poll() is None, self.said
            time.sleep(0.01)
        raise AssertionError(f"no {event} in {self.events} {self.said}")

    @property
    def url(self) -> str:
        return str(self.wait_for("ready")["url"])

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, timeout_s: float = 30.0) -> int:
        """Its exit code, once it has ended by itself."""
        code = self._process.wait(timeout_s)
        self._reader.join(5)
        return code

    def output(self) -> str:
        assert self._process.stdout
        return self._process.stdout.read()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe
            pipe.close()


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

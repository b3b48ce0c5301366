"""Programs of others that were started for a measurement: they end with it, see no secrets, and tell nobody.

Their environment is the user's without keys, without what would change their settings behind the study's back, and with
the switches that keep their libraries from the network.
"""

from __future__ import annotations

import collections
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bendi.engines.process import worker_command
from bendi.engines.program_log import ProgramLog
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, OutOfMemory
from bendi.i18n import _

_LOG_LINES = 5000
_END_S = 10.0
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_MEANT_FOR_OTHERS = ("BENDI_", "LLAMA_ARG_", "LLAMA_LOG_", "OLLAMA_")
_STAY_HERE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1",
}  # fmt: skip
_OUT_OF_MEMORY_SIGNS = ("failed to allocate", "bad_alloc", "out of memory", "unable to allocate", "memoryerror")
_MISSING = 127


class PeerProcess:
    """A Worker. `engine`: its name for errors. `command`: the program and its arguments. `environment`: beside the
    usual one. `speaks`: whether it is spoken to through pipes, `stdin` and `stdout`; otherwise all that it writes is in
    `log`."""

    def __init__(
        self,
        engine: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        *,
        speaks: bool = False,
    ) -> None:
        self._engine = engine
        self.started_s = time.monotonic()
        words = [str(word) for word in command]
        if os.name == "posix":
            words = [*worker_command("bendi.engines.peer_child"), str(os.getpid()), *words]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if speaks else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if speaks else subprocess.STDOUT,
                env=peer_environment(environment or {}),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(
                _("{engine} could not be started: {error}").format(engine=engine, error=error),
                hint=_("Check the path of the program."),
            ) from error
        self.stdin, self.stdout = self._process.stdin, self._process.stdout
        source = self._process.stderr or self._process.stdout
        assert source
        self._log = ProgramLog(source, _LOG_LINES)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> list[str]:
        """The last lines that it wrote."""
        return self._log.lines()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> float:
        """Asks `ready` every 50 ms; returns the seconds since the start once it is. Raises an EngineError that says
        why when the program ends or takes longer than `timeout_s`; it is ended then."""
        try:
            while not ready():
                if not self.alive:
                    raise self.death()
                if time.monotonic() - self.started_s > timeout_s:
                    raise EngineError(
                        _("{engine} was not ready within {seconds:.0f} seconds.").format(
                            engine=self._engine, seconds=timeout_s
                        ),
                        hint=self._last_words(),
                    )
                time.sleep(0.05)
        except BaseException:
            self.close()
            raise
        return time.monotonic() - self.started_s

    def death(self) -> EngineError:
        """The error that explains why it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._log.join(1)
        code = self._process.poll()
        words = self._last_words()
        if code == _MISSING:
            return EngineUnsupported(
                _("{engine} could not be started: {error}").format(engine=self._engine, error=words),
                hint=_("See how to get it: {command}").format(command="bendi bench engines"),
            )
        said = "\n".join(self.log[-50:]).lower()
        if code == -signal.SIGKILL or any(sign in said for sign in _OUT_OF_MEMORY_SIGNS):
            return OutOfMemory(
                _("{engine} ran out of memory, or something outside ended it. {words}").format(
                    engine=self._engine, words=words
                ),
                hint=_("Use a smaller context, fewer layers on the GPU, or a smaller quantization."),
            )
        return EngineCrashed(
            _("{engine} ended (exit code {code}). {words}").format(engine=self._engine, code=code, words=words),
            hint=_("Check the settings and the model file; the program itself may say more."),
        )

    def resident_bytes(self) -> int:
        return _tree_bytes([self.pid], r"^VmRSS:\s+(\d+) kB$")

    def private_bytes(self) -> int:
        return _tree_bytes([self.pid], r"^RssAnon:\s+(\d+) kB$")

    def close(self) -> None:
        """Ends it, and what it has started. Closing twice is harmless."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if os.name == "posix":
                self._signal(signal.SIGKILL)
        self._log.join(1)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                with suppress(OSError, ValueError):
                    pipe.close()

    def _signal(self, number: int) -> None:
        """To all of its session."""
        if os.name != "posix":
            self._process.terminate()
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        return next((line[-300:] for line in reversed(self.log) if line.strip()), "")


def peer_environment(more: Mapping[str, str]) -> dict[str, str]:
    """What programs of others are started with."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not _SECRET.search(name) and not name.startswith(_MEANT_FOR_OTHERS)
    }
    return kept | _STAY_HERE | dict(more)


def free_port() -> int:
    """A port on 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peak_memory_bytes(pids: Iterable[int]) -> int | None:
    """The most that these processes and those that they started had in memory, mapped files included: each one's own
    peak, added up. None where the system does not say. Linux `Documentation/filesystems/proc.rst`, `VmHWM`."""
    return _tree_bytes(pids, r"^VmHWM:\s+(\d+) kB$") or None


def _tree_bytes(pids: Iterable[int], pattern: str) -> int:
    total_bytes = 0
    for pid in _with_descendants(pids):
        with suppress(OSError):
            found = re.search(pattern, Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            total_bytes += int(found[1]) * 1024 if found else 0
    return total_bytes


def _with_descendants(pids: Iterable[int]) -> set[int]:
    children = collections.defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            children[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parent.name))
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children[pid]
    return found

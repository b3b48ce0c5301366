"""Starts, watches and ends worker processes, and cleans up after a bendi that was killed.

A worker lives in its own session (Ctrl-C in the terminal is not for it), with a private folder for its socket, its
log kept in memory, an environment without the user's secrets, and a pipe whose closing ends it.
"""

from __future__ import annotations

import collections
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bendi.engines.program_log import ProgramLog
from bendi.engines.transport import Address
from bendi.engines.worker_config import WorkerConfig
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, LoadRefused, OutOfMemory
from bendi.i18n import _

_LOG_LINES = 400
_FOLDER_PREFIX = "bendi-worker-"
_LOOKS, _MOST_LOOKS = "GOMP_SPINCOUNT", "2000"
"""How often the wheel's threads look for each other after an operation before they sleep: some 50 us. libgomp's own
choice, 300,000, is made for cores that nobody else wants: beside one busy program a token took a second. (It takes 1000
itself where there are too few cores, but it knows of its own threads only: libgomp manual, GOMP_SPINCOUNT.)"""
# What a worker may know of the user's environment: how to find libraries and devices, nothing else.
_ENVIRONMENT = (
    "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ",
    "SYSTEMROOT", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", _LOOKS,
)  # fmt: skip
_MAX_SOCKET_PATH_BYTES = 100
_TOLD, _FAILED = re.compile(r"[\d.]+ I "), re.compile(r"[\d.]+ E ")
_OUT_OF_MEMORY_SIGNS = ("failed to allocate", "bad_alloc", "out of memory", "unable to allocate", "cannot allocate")
_REFUSED_LOAD = "exiting due to model loading error"


class WorkerProcess:
    """One worker. `address` is set once `wait_ready` has returned. `told`: what it has said of itself before that.
    `state_folder`: the worker's own, in the `state_dir` of the configuration; None without."""

    def __init__(self, command: Sequence[str], config: WorkerConfig) -> None:
        state_dirs = [Path(config.state_dir)] if config.state_dir else []
        remove_orphans(state_dirs)
        self.address: Address | None = None
        self.state_folder = _state_folder(state_dirs[0]) if state_dirs else None
        self._folder = _private_folder()
        key = secrets.token_urlsafe(32)
        # llama-server takes a host for a Unix socket when it ends in `.sock`.
        socket_path = str(self._folder / "w.sock") if self._folder else ""
        self._config = replace(
            config,
            key=key,
            socket_path=socket_path,
            parent_pid=os.getpid(),
            state_dir=str(self.state_folder or ""),
        )
        environment = {_LOOKS: _MOST_LOOKS} | {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/" if os.name == "posix" else None,
                start_new_session=True,
            )
        except OSError as error:
            self._remove_folders()
            raise EngineError(
                _("The engine's process could not be started: {error}").format(error=error),
                hint=_("Close other programs, and try again; `bendi doctor` shows the memory."),
            ) from error
        self.told: dict[str, Any] = {}
        self._answers: collections.deque[dict[str, Any]] = collections.deque()
        self._answered = threading.Event()
        self._reader = threading.Thread(target=self._read_stdout, daemon=True)
        self._reader.start()
        assert self._process.stdin and self._process.stderr
        self._log = ProgramLog(self._process.stderr, _LOG_LINES)
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asdict(self._config)).encode() + b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def private_address(self) -> Address:
        """Where the worker will listen, if that is a Unix socket; nobody may be there yet."""
        return Address(key=self._config.key, socket_path=self._config.socket_path)

    def answer(self, message: dict[str, Any]) -> None:
        """What a worker that does not speak for itself would have said."""
        self._answers.append(message)
        self._answered.set()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """The last lines of the worker's own log."""
        return "\n".join(self._log.lines())

    def log_until(self, words: str, timeout_s: float = 0.25) -> list[str]:
        """The lines of the log so far, once one has `words`; what there is when that takes too long."""
        return self._log.until(words, timeout_s)

    def wait_ready(self, timeout_s: float, on_wait: Callable[[], None] | None = None) -> dict[str, Any]:
        """Waits for the model to be loaded; returns the worker's `ready` message. `on_wait` is called every 50 ms.

        Raises an EngineError that says why when the worker ends, reports a failure or takes longer than `timeout_s`;
        the worker is ended then.
        """
        deadline_s = time.monotonic() + timeout_s
        try:
            while not self._answered.wait(0.05):
                if on_wait:
                    on_wait()
                if time.monotonic() > deadline_s:
                    raise EngineError(
                        _("The model was not loaded within {seconds:.0f} seconds.").format(seconds=timeout_s),
                        hint=_("Try a smaller model or context, or look at the disk with `bendi doctor`."),
                    )
            message = self._answers.popleft() if self._answers else {}
            if "ready" not in message:
                raise self.death(str(message.get("error", {}).get("message", "")))
        except BaseException:
            self.close()
            raise
        ready: dict[str, Any] = message["ready"]
        port = int(str(ready["address"]).rsplit(":", 1)[-1]) if not self._config.socket_path else 0
        self.address = Address(key=self._config.key, socket_path=self._config.socket_path, port=port)
        return ready

    def death(self, said: str = "") -> EngineError:
        """The error that explains why the worker ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._reader.join(1)
        self._log.join(1)
        code = self._process.poll()
        # What the engine tells of a model file may be any words; only its complaints say why it ended.
        lines = self._log.lines()
        complaints = "\n".join(line for line in lines if not _TOLD.match(line)).lower()
        last = next((line for line in reversed(lines) if _FAILED.match(line)), "") or said
        if code == -signal.SIGKILL or any(sign in f"{said.lower()}\n{complaints}" for sign in _OUT_OF_MEMORY_SIGNS):
            return OutOfMemory(
                _("The engine was ended: it ran out of memory, or something outside ended it."),
                hint=_(
                    "Use a smaller context (--context 2048) or a smaller quantization; `bendi doctor` shows memory."
                ),
            )
        if code is None:
            return EngineError(
                _("The engine did not answer in time."),
                hint=_("Load the model again; if it happens again, `bendi doctor` has what a report needs."),
            )
        if code == -signal.SIGILL:
            return EngineUnsupported(
                _("This CPU does not know an instruction that the engine build uses."),
                hint=_("See `bendi doctor` for what the build needs and what this CPU has."),
            )
        # Another try would end in the same way.
        kind = LoadRefused if code == 1 and _REFUSED_LOAD in complaints else EngineCrashed
        return kind(
            _("The engine stopped (exit code {code}).").format(code=code) + (f" {last}" if last else ""),
            hint=_("Check the file with `bendi verify`; if it is good, `bendi doctor` has what a report needs."),
        )

    def resident_bytes(self) -> int:
        """Memory in use, including mapped weights; 0 where the system does not say."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def private_bytes(self) -> int:
        """Of that, what is not mapped from files; 0 where the system does not say."""
        found = re.search(r"^RssAnon:\s+(\d+) kB$", _read_text(f"/proc/{self.pid}/status"), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    def close(self) -> None:
        """Ends the worker at once and removes its folders. Closing twice is harmless."""
        with suppress(OSError, ValueError):
            if self._process.stdin:
                self._process.stdin.close()
        if self._process.poll() is None:
            # It holds nothing that could be lost, so there is nothing to wait for.
            self._process.kill()
        self._process.wait()
        self._reader.join(1)
        self._log.join(1)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        self._remove_folders()

    def _remove_folders(self) -> None:
        for folder in (self._folder, self.state_folder):
            if folder:
                shutil.rmtree(folder, ignore_errors=True)

    def _read_stdout(self) -> None:
        assert self._process.stdout
        with suppress(ValueError, OSError):
            for line in self._process.stdout:
                with suppress(ValueError):
                    message = json.loads(line)
                    if isinstance(message, dict) and "sandbox" in message:
                        self.told = message
                    else:
                        self.answer(message)
        self._answered.set()


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def worker_command(module: str) -> list[str]:
    """The command for a worker in this Python. `-P`: the current folder is not a place to import from."""
    return [sys.executable, "-P", "-m", module]


def _private_folder() -> Path | None:
    """A new folder that only this user can open, short enough for a socket path; None where there are no Unix
    sockets (then the worker takes a loopback port)."""
    if os.name != "posix":
        return None
    prefix = f"{_FOLDER_PREFIX}{os.getpid()}-"
    for base in _bases():
        if len(os.fsencode(base)) + len(prefix) + 16 <= _MAX_SOCKET_PATH_BYTES and os.access(base, os.W_OK):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    return Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))


def _bases() -> list[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return [*([Path(runtime)] if runtime and Path(runtime).is_dir() else []), Path(tempfile.gettempdir()), Path("/tmp")]


def _state_folder(state_dir: Path) -> Path | None:
    """A new folder in `state_dir`, so on the same file system; None where there can be none, and so no states."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-", dir=state_dir))
    except OSError:
        return None


def remove_orphans(more: Sequence[Path] = ()) -> list[Path]:
    """Removes the folders of workers whose bendi no longer runs, also those in `more`; the workers themselves ended
    with it."""
    removed = []
    for base in dict.fromkeys([*_bases(), *more]):
        for folder in base.glob(f"{_FOLDER_PREFIX}*-*"):
            owner = folder.name[len(_FOLDER_PREFIX) :].split("-")[0]
            if owner.isdigit() and not _runs(int(owner)) and _is_ours(folder):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_ours(folder: Path) -> bool:
    with suppress(OSError):
        return folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
    return False

"""A program that runs to its end beside us, told of line by line: a compiler, a quantizer. It never outlives us."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence

from bendi.engines import sandbox

_SIGTERM = 15


def run_lines(
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    environment: Mapping[str, str] | None = None,
    bounds: Callable[[], object] | None = None,
) -> int:
    """Its exit code. `on_line`: told each line of what it says. `bounds`: called in the new process before the program
    begins, on Linux. Raises OSError when it cannot be started; what `on_line` raises ends it."""

    def begin() -> None:
        sandbox.die_with_parent(parent_pid, _SIGTERM)
        if bounds:
            bounds()

    parent_pid = os.getpid()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=begin if sandbox.LINUX else None,
    ) as process:
        assert process.stdout
        try:
            for raw in process.stdout:
                on_line(raw.decode("utf-8", "replace").rstrip())
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise

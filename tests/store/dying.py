"""Processes that die at an exact moment: just before their n-th change of the disk, without any cleaning up.

As a program, `dying.py STORE NAME HUB`: pulls NAME into STORE as it is now, again and again, in children that die
before their first, second, ... change, until one survives. Says what the store held after each death, and after the
pull that followed it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.link", "os.rmdir", "os.mkdir", "os.truncate"}


def die_at(number: int) -> None:
    """Ends this process without a word just before its `number`-th change of the disk."""
    left = [number]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            left[0] -= 1
            if left[0] == 0:
                os._exit(99)

    sys.addaudithook(hook)


def in_a_child(work: Callable[[], object]) -> int:
    """The exit code of a child that does `work`: 0, 99 when it died, 1 with a traceback for anything else."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(root: str, name: str, hub: str) -> None:
    from pulling import IMPATIENT

    from bendi.settings import load_settings
    from bendi.store import Store
    from bendi.store.pull import pull
    from bendi.store.transport import certificates

    settings = load_settings({**os.environ, "BENDI_MODELS": root, "HF_ENDPOINT": hub})
    store, folder, before = Store(settings), Path(root), Path(f"{root}.before")

    def state() -> list[str] | None:
        model = store.find(name)
        return model and [hashlib.sha256(path.read_bytes()).hexdigest() for path in model.parts]

    def attempt(number: int) -> None:
        if number:
            die_at(number)
        pull(store, name, options=IMPATIENT)

    certificates()  # once, not in every child
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, before)
    states = []
    for number in range(1, 300):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        code = in_a_child(lambda number=number: attempt(number))
        if code not in (0, 99):
            sys.exit(f"change {number}: exit {code}")
        after_death = state()
        if in_a_child(lambda: attempt(0)):
            sys.exit(f"change {number}: the next pull failed")
        states.append((after_death, state()))
        if code == 0:
            shutil.rmtree(before)
            print(json.dumps(states))
            return
    sys.exit("it never ended")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The mounted file systems, from /proc/self/mountinfo (format: proc(5))."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from bendi.hardware.sysfs import each_line, read_text

_MAX_MOUNTS = 20_000


class Mount(NamedTuple):
    """`inner`: the folder of the mounted file system that appears at `point`. `options`: the superblock's."""

    device: str
    inner: str
    point: str
    kind: str
    source: str
    options: frozenset[str]


def read_mounts(root: Path) -> tuple[Mount, ...]:
    found: list[Mount] = []
    for line in each_line(read_text(root / "proc/self/mountinfo")):
        # Optional fields of any number stand between the mount options and a lone dash.
        before, dash, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(found) == _MAX_MOUNTS:
            break
        if dash and len(left) >= 6 and len(right) >= 2:
            options = frozenset(right[2].split(",")) if len(right) > 2 else frozenset()
            found.append(Mount(left[2], _unescaped(left[3]), _unescaped(left[4]), right[0], right[1], options))
    return tuple(found)


def _unescaped(text: str) -> str:
    r"""Spaces and the like are written as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)

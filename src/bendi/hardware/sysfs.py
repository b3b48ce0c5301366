"""Reads the small text files of /proc and /sys. What is absent, unreadable or nonsense is empty, never an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MAX_BYTES = 4 * 1024**2
"""`/proc/cpuinfo` has up to 2.5 KiB for each CPU."""
_MAX_CPU = 65536
_MAX_FIELDS = 10_000


def read_text(path: Path) -> str:
    """The file without surrounding white space; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace").strip("\0 \t\r\n")
    except (OSError, ValueError):
        return ""


def each_line(text: str) -> Iterator[str]:
    """The lines of `text`, one at a time: a list of them would take many times its room."""
    begin = 0
    while (end := text.find("\n", begin)) >= 0:
        yield text[begin:end]
        begin = end + 1
    if begin < len(text):
        yield text[begin:]


def read_int(path: Path) -> int | None:
    """The number in the file, decimal or 0x-hexadecimal; None when there is none."""
    return to_int(read_text(path))


def to_int(text: str) -> int | None:
    try:
        return int(text, 0) if text.startswith("0x") else int(text)
    except ValueError:
        return None


def read_fields(path: Path) -> dict[str, int]:
    """The `name number` lines of files such as `memory.stat`; `Name: number kB` lines of `meminfo` as bytes."""
    fields: dict[str, int] = {}
    for line in each_line(read_text(path)):
        if len(fields) >= _MAX_FIELDS:
            break
        words = line.replace(":", " ").split()
        number = to_int(words[1]) if len(words) > 1 else None
        if number is not None:
            fields[words[0]] = number * (1024 if words[2:3] == ["kB"] else 1)
    return fields


def read_size(path: Path) -> int:
    """Bytes from texts such as `1024K`; 0 when there is none."""
    text = read_text(path)
    factor = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(text[-1:], 1)
    return max(to_int(text.rstrip("KMG")) or 0, 0) * factor


def cpu_list(text: str) -> frozenset[int]:
    """CPU numbers from lists such as `0-3,8,10-11`."""
    numbers: set[int] = set()
    room = 2 * _MAX_CPU
    for piece in text.split(",", _MAX_CPU)[:_MAX_CPU]:
        first_text, _, last_text = piece.strip().partition("-")
        first = to_int(first_text)
        last = to_int(last_text) if last_text else first
        if first is None or last is None or not 0 <= first <= last < _MAX_CPU:
            continue
        room -= last - first + 1
        if room >= 0:
            numbers.update(range(first, last + 1))
    return frozenset(numbers)


def subfolders(path: Path, pattern: str) -> list[Path]:
    """Folders in `path` by name, shorter names first, so that `card2` comes before `card10`."""
    try:
        found = [entry for entry in path.glob(pattern) if entry.is_dir()]
    except OSError:
        return []
    return sorted(found, key=lambda entry: (len(entry.name), entry.name))


def below(root: Path, absolute: str) -> Path:
    """Where the absolute path `absolute` is when the file system begins at `root`."""
    return root / absolute.lstrip("/")

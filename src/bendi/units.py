"""Bytes, rates and times: parse and print. Sizes print as GiB/MiB/KiB (powers of 1024), rates as tok/s."""

from __future__ import annotations

import math
import re

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)\s*$", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|μs|ms|s|m|h|d)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Bytes from `"8GiB"`, `"8G"` (both 1024-based), `"8GB"` (1000-based, as vendors write), `"8"` (bytes).

    Raises ValueError when the text is not a size.
    """
    match = _SIZE.match(text)
    if not match:
        raise ValueError(text)
    number, prefix, binary, byte = match.groups()
    base = 1000 if byte and not binary and prefix else 1024
    return int(float(number) * base ** _POWER[prefix.lower()])


def parse_duration(text: str) -> float:
    """Seconds from `"90"`, `"5m"`, `"1h30m"`, `"500ms"`; infinity from `"never"` and from anything below zero, as
    Ollama's clients say that a model shall stay.

    Raises ValueError when the text is no duration.
    """
    text = text.strip().lower()
    if text == "never":
        return math.inf
    negative = text.startswith("-")
    text = text[1:] if text[:1] in ("+", "-") else text
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        seconds = float(text)
    elif text and re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
    else:
        raise ValueError(text)
    return math.inf if negative and seconds else seconds


def format_size(size_bytes: float) -> str:
    """`"7.9 GiB"`, `"320 MiB"`, `"12 KiB"`, `"5 B"`: three significant figures at most."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        value = size_bytes / 1024**power
        if value >= 0.9995:
            return f"{value:.0f} {unit}" if value >= 99.5 else f"{value:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def format_rate(tok_s: float) -> str:
    """`"43.2 tok/s"`."""
    return f"{tok_s:.0f} tok/s" if tok_s >= 99.95 else f"{tok_s:.1f} tok/s"


def format_duration(seconds: float) -> str:
    """`"85 ms"`, `"4.2 s"`, `"3:07"`, `"1:02:09"`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

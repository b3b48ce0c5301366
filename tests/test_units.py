"""Sizes, rates and times: what is printed, and that it reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi import units


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("8", 8),
        ("8B", 8),
        ("8k", 8192),
        ("8KiB", 8192),
        ("8 GiB", 8 * 1024**3),
        ("8GB", 8 * 10**9),
        ("1.5G", 1610612736),
    ],
)
def test_parse_size(text: str, size_bytes: int) -> None:
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "8 GiBs", "eight"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (7.9 * 1024**3, "7.9 GiB"), (320 * 1024**2, "320 MiB")],
)
def test_format_size(size_bytes: float, text: str) -> None:
    assert units.format_size(size_bytes) == text


@given(st.integers(min_value=0, max_value=2**50))
def test_printed_sizes_read_back_within_rounding(size_bytes: int) -> None:
    assert units.parse_size(units.format_size(size_bytes)) == pytest.approx(size_bytes, rel=0.006, abs=1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.085, "85 ms"), (4.2, "4.2 s"), (187, "3:07"), (3729, "1:02:09"), (59.96, "1:00")]
)
def test_format_duration(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


def test_format_rate() -> None:
    assert units.format_rate(43.21) == "43.2 tok/s"
    assert units.format_rate(8292.8) == "8293 tok/s"

"""Box plots in a terminal."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_results import Study, made, rich

from bendi import i18n
from bendi.report import terminal
from bendi.report.wording import columns_of


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_line_is_wider_than_the_terminal(width: int, language: str) -> None:
    i18n.set_language(language)
    for line in terminal(rich(), width).splitlines():
        assert columns_of(line) <= max(width, 40), line


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.text(min_size=1, max_size=60), st.integers(40, 120))
def test_whatever_models_are_called(name: str, width: int) -> None:
    text = terminal(made(Study(quantizations=(name,), blocks=2)), width)
    assert not any(char != "\n" and (char < " " or char == "\x7f") for char in text)
    assert all(columns_of(line) <= width for line in text.splitlines())


def test_a_chart() -> None:
    text = terminal(made(Study(quantizations=("Q8_0", "IQ2_XS"), garbage=("IQ2_XS",))), 90)
    lines = text.splitlines()
    start = lines.index("Token generation (TG) (tok/s)")
    assert lines[start + 1].startswith("IQ2_XS · wheel")
    assert lines[start + 4].startswith("✗ IQ2_XS · bendi")
    assert all("┃" in line and "▒" in line and line.endswith("n=10") for line in lines[start + 1 : start + 5])
    assert "✗: not ranked" in lines
    # The faster one lies farther to the right.
    assert lines[start + 1].index("┃") > lines[start + 3].index("┃")


def test_few_repeats_are_points() -> None:
    text = terminal(made(Study(quantizations=("Q8_0",), engines=("bendi",), blocks=4)), 90)
    assert "o" in text and "▒" not in text


def test_nothing() -> None:
    assert terminal(made(Study(blocks=0, quantizations=("Q8_0",)))) == "Nothing was measured yet.\n"

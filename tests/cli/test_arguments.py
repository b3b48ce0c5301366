"""Help in both languages: folded by columns, aligned, nothing of it English in Chinese."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi import i18n
from bendi.cli.arguments import Parser, folded
from bendi.cli.output import cell_width


@given(st.text(alphabet="ab 量化模型，。x", max_size=80), st.integers(4, 40))
def test_folding_loses_nothing_and_keeps_the_width(text: str, width: int) -> None:
    lines = folded(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    for line in lines:
        assert cell_width(line) <= width or " " not in line.strip(), "only what cannot be broken may be longer"


def test_addresses_are_not_broken() -> None:
    lines = folded("下载模型 https://example.org/model.gguf 或别名", 34)
    assert any("https://example.org/model.gguf" in line for line in lines)


def test_chinese_help_is_aligned_and_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    i18n.set_language("zh")
    parser = Parser(prog="bendi x", description="说明" * 40)
    parser.add_argument("a", metavar="模型", help="第一个")
    parser.add_argument("--flag", help="第二个" + "很长" * 30)
    lines = parser.format_help().splitlines()
    assert all(cell_width(line) <= 70 for line in lines)
    starts = {cell_width(line[: line.index(mark)]) for line in lines for mark in ("第一个", "第二个") if mark in line}
    assert len(starts) == 1, lines
    assert "用法" in lines[0]
    assert not any("usage" in line or "options" in line or "show this" in line for line in lines)


def test_errors_of_the_command_line_are_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    i18n.set_language("zh")
    parser = Parser(prog="bendi x")
    parser.add_argument("--number", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(["--number", "many"])
    assert "many" in (said := capsys.readouterr().err)
    assert "invalid" not in said and "usage" not in said


def test_subparsers_are_of_the_same_kind() -> None:
    sub = Parser(prog="x").add_subparsers().add_parser("y")
    assert isinstance(sub, Parser)
    assert isinstance(sub, argparse.ArgumentParser)

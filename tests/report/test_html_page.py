"""The page: whole, strict, from nowhere else, and harmless whatever models are called."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_results import MACHINE, Study, made, options, rich

from bendi import i18n
from bendi.errors import DataError
from bendi.report import ReportOptions, page, write_page
from bendi.results import Failure, Results

VOID = {"meta", "br", "path", "use"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></svg></title><b>",
    "$\\frac{1}{0}$ \x1b[31m\u202e --> ]]> &lt;",
    "x" * 5000,
    "模型 <量化>",
)


class Strict(HTMLParser):
    """Notes every tag, that each is closed in order, and all attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: Counter[str] = Counter()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"{tag} at {self.getpos()}")


def read(text: str) -> Strict:
    strict = Strict()
    strict.feed(text)
    strict.close()
    assert not strict.wrong and not strict.open
    return strict


def hostile(name: str) -> Results:
    study = Study(quantizations=(name, "Q8_0"), engines=(name, "b"), models=(name,), blocks=2, title=name,
                  machine={**MACHINE, "cpu": {"model": name}, "gpus": [{"name": name}, 7]},
                  meters=((name, "counter", (name,), 1.0),))  # fmt: skip
    results = made(study)
    return replace(
        results,
        engines=tuple(replace(each, version=name, build=name, model_sha256=name) for each in results.engines),
        checks=tuple(replace(each, verdict="garbage", reason=name) for each in results.checks),
        failures=(Failure(results.facts.cells[0].key, 0, name),),
        facts=replace(results.facts, text=name, study_id=name),
    )


def test_the_page_is_whole_and_needs_nothing_from_outside() -> None:
    results = rich()
    text = page(results, options(results))
    strict = read(text)
    assert strict.tags["script"] == strict.tags["img"] == strict.tags["link"] == strict.tags["iframe"] == 0
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    for tag, name, value in strict.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#"), (tag, name, value)
    assert not re.findall(r"url\((?!#)|@import", text)
    ids = Counter(value for _tag, name, value in strict.attributes if name == "id")
    assert not [name for name, count in ids.items() if count > 1]
    used = {found for found in re.findall(r'(?:href="#|url\(#)([^")]+)', text)}
    assert used <= set(ids)
    # Wide and narrow, each with words for who does not see it.
    assert strict.tags["svg"] == 2 * strict.tags["figure"]
    assert text.count('role="img"') == strict.tags["svg"]


def test_every_figure_stands_with_where_it_comes_from() -> None:
    results = rich()
    text = page(results, options(results))
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    assert len(figures) > 30
    for each in figures:
        assert re.search(r'<div class="where">2026-11-28 .*Ryzen.* n = ', each), each[:200]
    assert "not measured: The counter began anew in this time. (" in text
    assert "answers garbage: repeats one word for ever" in text


def test_colours_are_variables_and_letters_those_of_the_page() -> None:
    text = page(made(Study(quantizations=("Q8_0",))), ReportOptions())
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawings
    for each in drawings:
        assert not re.search(r"#[0-9a-f]{6}\b", each)
        assert "font-family" not in each
        assert "var(--data-0)" in each and "<text" in each
    for name in set(re.findall(r"var\((--[\w-]+)\)", text)):
        assert f"{name}: " in text, name


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names(name: str) -> None:
    results = hostile(name)
    text = page(results, options(results))
    strict = read(text)
    assert strict.tags["script"] == strict.tags["img"] == strict.tags["b"] - text.count("<li><b>") == 0
    assert "\x1b" not in text and "\u202e" not in text
    assert not [name for _tag, name, _value in strict.attributes if name.startswith("on")]


def test_both_languages() -> None:
    results = made(Study(quantizations=("Q8_0",), blocks=2))
    assert '<html lang="en">' in page(results, ReportOptions())
    i18n.set_language("zh")
    assert '<html lang="zh-CN">' in page(results, ReportOptions())


def test_nothing_measured_yet() -> None:
    empty = made(Study(blocks=0, quantizations=("Q8_0",)))
    text = page(empty, options(empty))
    read(text)
    assert "Nothing was measured yet." in text
    nothing = replace(empty, facts=replace(empty.facts, cells=(), machine={}, title="", text=""), checks=(), engines=(),
                      predictions=())  # fmt: skip
    read(page(nothing, ReportOptions()))


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    results = made(Study(quantizations=("Q8_0",), blocks=2))
    path = tmp_path / "new" / "report.html"
    write_page(results, ReportOptions(), path)
    before = path.read_bytes()
    assert before.endswith(b"</html>\n")
    write_page(replace(results, facts=replace(results.facts, title="Other")), ReportOptions(), path)
    assert path.read_bytes() != before
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError) as caught:
        write_page(results, ReportOptions(), tmp_path / "file" / "report.html")
    assert caught.value.hint
    assert (tmp_path / "file").read_text() == "kept"
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError):
        write_page(results, ReportOptions(), tmp_path / "taken")
    assert not list(tmp_path.glob(".taken*"))

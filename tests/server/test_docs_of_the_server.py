"""The page about the server names every number, setting and option that there is, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bendi.messages import Usage
from bendi.server.metrics import Metrics
from bendi.settings import ENVIRONMENT

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
PAGES = [DOCS / "serve.md", DOCS / "serve.zh-CN.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_and_settings_are_all_there(page: Path) -> None:
    text = page.read_text("utf-8")
    metrics = Metrics()
    metrics.answered("m", Usage(1, 1))
    emitted = set(re.findall(r"^# TYPE (\w+)", metrics.text([]), re.MULTILINE))
    assert emitted == set(re.findall(r"^\| `(bendi_\w+)`", text, re.MULTILINE))
    wanted = {(name, variable) for name, variable in ENVIRONMENT.items() if name.startswith("serve_")}
    assert wanted == set(re.findall(r"^\| `(serve_\w+)` \| `(\w+)`", text, re.MULTILINE))


def test_both_pages_have_the_same_headings_rows_and_code() -> None:
    english, chinese = (page.read_text("utf-8") for page in PAGES)
    for mark in (r"^#+ ", r"^\| ", r"^- ", r"^```\w*"):
        assert len(re.findall(mark, english, re.MULTILINE)) == len(re.findall(mark, chinese, re.MULTILINE)), mark
    for language in ("bash", "python", "json"):
        blocks = [
            re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for text in (english, chinese)
        ]
        assert blocks[0] == blocks[1]

"""Both languages: every text has a translation, and the choice of language follows the environment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bendi import i18n

ROOT = Path(__file__).resolve().parent.parent


def test_every_text_is_translated() -> None:
    done = subprocess.run([sys.executable, "tools/catalogues.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_text_hides_in_an_f_string() -> None:
    """Texts inside the braces of an f-string are not collected, so they would stay English."""
    hidden = [
        f"{path.name}:{number}"
        for path in (ROOT / "src" / "bendi").rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(r"""f["'].*\{_\(["']""", line)
    ]
    assert not hidden


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"BENDI_LANG": "zh"}, "zh"),
        ({"BENDI_LANG": "zh_CN.UTF-8", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LANG": "zh-TW"}, "zh"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
        ({"LC_ALL": "fr_FR.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANGUAGE": "zh_CN:en"}, "zh"),
        ({}, "en"),
    ],
)
def test_language_from_environment(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BENDI_LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert i18n.language() == expected


def test_texts_change_with_the_language() -> None:
    i18n.set_language("zh")
    chinese = i18n._("Interrupted.")
    i18n.set_language("en")
    assert i18n._("Interrupted.") == "Interrupted."
    assert chinese != "Interrupted."
    assert i18n._("a text that no catalogue has") == "a text that no catalogue has"


def test_help_in_chinese() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bendi", "--help"], env={"BENDI_LANG": "zh", "PYTHONIOENCODING": "utf-8"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert "用法" in done.stdout

"""Documents that cannot rot: every command and every Python example of the READMEs runs, and both languages agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READMES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}
sys.path.insert(0, str(ROOT / "tests" / "store"))

from servers import HubServer  # noqa: E402

# What a test run cannot do inside itself; their parts are tested elsewhere.
NOT_RUN_HERE = {"./scripts/demo", "./scripts/test", "pip install .", "bendi serve"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    return [line for block in blocks(text, "bash") for line in block.splitlines() if line.strip()]


@pytest.fixture
def environment(clean_environment: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return dict(os.environ)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_command_of_the_readme_works(language: str, environment: dict[str, str], demo_model: Path) -> None:
    with HubServer() as hub:
        hub.repos["Qwen/Qwen3-0.6B-GGUF"] = {"Qwen3-0.6B-Q8_0.gguf": demo_model.read_bytes()}
        for command in commands(READMES[language].read_text("utf-8")):
            if command in NOT_RUN_HERE:
                continue
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                env=environment | {"BENDI_LANG": language, "HF_ENDPOINT": hub.url},
                capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, cwd=environment["HOME"],
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            assert done.stdout.strip(), f"{command} printed nothing"


def test_both_readmes_have_the_same_commands_code_and_headings() -> None:
    english, chinese = (path.read_text("utf-8") for path in READMES.values())
    assert commands(english) == commands(chinese)
    assert blocks(english, "python") == blocks(chinese, "python")
    for mark in (r"^#+ ", r"^\| ", r"^- "):
        count = [len(re.findall(mark, text, re.MULTILINE)) for text in (english, chinese)]
        assert count[0] == count[1], f"lines that match {mark}: {count}"


def test_scripts_of_the_readme_exist() -> None:
    for command in NOT_RUN_HERE - {"pip install .", "bendi serve"}:
        assert os.access(ROOT / command, os.X_OK)


def test_python_examples_run(environment: dict[str, str]) -> None:
    for code in blocks(READMES["en"].read_text("utf-8"), "python"):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_rules_of_thumb_are_what_the_arithmetic_gives() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "rules_of_thumb.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_handbook_has_the_same_pages_in_both_languages() -> None:
    handbook = ROOT / "docs" / "handbook"
    pages = {path.name for path in (handbook / "en").glob("*.md")}
    assert pages == {path.name for path in (handbook / "zh").glob("*.md")}
    for name in pages:
        texts = [(handbook / language / name).read_text("utf-8") for language in ("en", "zh")]
        headings = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in texts]
        assert headings[0] == headings[1], name


def test_command_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/cli_reference.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_json_example_has_text_usage_and_timings(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bendi", "run", "demo", "什么是量化?", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["text"]
    assert answer["usage"]["completion_tok"] > 0
    assert {"load_s", "ttft_s", "pp_tok_s", "tg_tok_s"} <= set(answer["timings"])

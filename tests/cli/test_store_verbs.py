"""The verbs of the store, as a user types them: list, show, import, verify, rm, mv (pull has files of its own)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bendi.cli.main import main

TAKEN_FROM = "我的 模型-f32.gguf"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with Chinese folder names and spaces in its paths, and nothing else on it."""
    base = tmp_path / "我的 电脑"
    config = base / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'models_dirs = ["{base / "模型 库"}"]  # 我的\n', "utf-8")
    monkeypatch.setenv("BENDI_CONFIG", str(config))
    for variable in ("HF_HUB_CACHE", "OLLAMA_MODELS", "BENDI_LMSTUDIO_MODELS"):
        monkeypatch.setenv(variable, str(base / variable))
    return base


@pytest.fixture
def model_file(home: Path, stories_model: Path) -> Path:
    """A real model under an awkward path."""
    if not stories_model.exists():
        pytest.skip(f"{stories_model} does not exist")
    path = home / "下载 文件" / TAKEN_FROM
    path.parent.mkdir()
    path.write_bytes(stories_model.read_bytes())
    return path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


def test_an_empty_machine(home: Path, bendi: Run) -> None:
    code, out, talk = bendi("list")
    assert code == 0
    assert len(out.splitlines()) == 2 and "demo" in out, "the built-in model is always there"
    assert "bendi pull" in talk
    assert [model["origin"] for model in json.loads(bendi("list", "--json")[1])] == ["demo"]
    assert bendi("verify")[0] == 0


def test_import_list_show_verify_rm(model_file: Path, bendi: Run) -> None:
    code, out, _talk = bendi("import", str(model_file), "--name", "故事 小模型")
    assert (code, out) == (0, "故事 小模型\n")
    [listed, _demo] = json.loads(bendi("list", "--json")[1])
    assert (listed["name"], listed["owned"], listed["complete"]) == ("故事 小模型", True, True)
    assert Path(listed["path"]).read_bytes() == model_file.read_bytes()
    table = bendi("list", "--paths")[1]
    assert "故事 小模型" in table and "1.13 MiB" in table and listed["path"] in table
    assert bendi("list", "nothing of that name")[1] == ""

    shown = json.loads(bendi("show", "故事 小模型", "--json")[1])
    assert shown["architecture"] == "llama"
    assert shown["layers"] == 5
    assert shown["parameters"] in (260_032, 292_800), "with the output tensor shared or not"
    assert shown["context_length"] == 128
    assert len(shown["sha256"][0]) == 64
    text = bendi("show", "故事 小模型")[1]
    assert "llama" in text and "128 tokens" in text and shown["sha256"][0] in text

    code, out, _talk = bendi("verify", "故事 小模型")
    assert code == 0 and "good" in out
    code, _out, talk = bendi("rm", "故事 小模型")
    assert code == 0 and "freed" in talk
    assert len(bendi("list")[1].splitlines()) == 2
    assert model_file.exists()


def test_import_ways(model_file: Path, bendi: Run) -> None:
    assert bendi("import", str(model_file), "--link", "--name", "linked")[0] == 0
    assert bendi("import", str(model_file), "--in-place", "--name", "there", "--json")[0] == 0
    names = {entry["name"]: entry for entry in json.loads(bendi("list", "--json")[1])}
    assert names["linked"]["owned"]
    code, _out, talk = bendi("rm", "linked", "--json")
    assert code == 0 and "deleted" in talk
    code, _out, talk = bendi("rm", "there")
    assert code == 0 and "forgotten" in talk and str(model_file) in talk
    assert model_file.exists()
    assert bendi("import", "--name", "x", str(model_file), str(model_file))[0] == 2


def test_damage_is_found_and_its_repair_named(model_file: Path, bendi: Run) -> None:
    bendi("import", str(model_file), "--name", "m")
    [listed, _demo] = json.loads(bendi("list", "--json")[1])
    content = bytearray(model_file.read_bytes())
    content[-5] ^= 255
    Path(listed["path"]).write_bytes(content)
    code, out, talk = bendi("verify")
    assert code == 7 and "has changed" in out
    assert "bendi pull --force m" in talk
    [result] = json.loads(bendi("verify", "--json", "m")[1])
    assert not result["ok"]


def test_errors_are_one_clear_message(home: Path, bendi: Run, tmp_path: Path) -> None:
    for arguments, expected in {
        ("show", "qwen3:8b"): 3,
        ("rm", "nothing"): 3,
        ("verify", "nothing"): 3,
        ("import", str(tmp_path / "nothing.gguf")): 3,
        ("pull", str(tmp_path / "x.gguf")): 2,
        ("pull", "not a name"): 2,
        ("show", str(Path(__file__))): 4,
        ("mv", str(home / "模型 库")): 2,
        ("pull", "--list", "ollama:x"): 2,
        ("pull", "qwen3:8b", "--connections", "0"): 2,
    }.items():
        code, out, talk = bendi(*arguments)
        assert (code, out) == (expected, ""), arguments
        assert talk.startswith("error: "), talk
        assert "mistake" not in talk


def test_offline_pull(home: Path, bendi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_OFFLINE", "1")
    code, _out, talk = bendi("pull", "qwen3:8b")
    assert code == 6 and "offline" in talk
    assert bendi("pull", "--list", "qwen3:8b")[0] == 6


def test_mv(model_file: Path, home: Path, bendi: Run) -> None:
    bendi("import", str(model_file), "--name", "m")
    new = home / "新 盘"
    code, out, talk = bendi("mv", str(new), "--json")
    assert code == 0, talk
    assert json.loads(out)["to"] == str(new)
    [listed, _demo] = json.loads(bendi("list", "--json")[1])
    assert Path(listed["path"]).is_relative_to(new)
    assert "# 我的" in (home / "config" / "config.toml").read_text("utf-8")
    code, _out, talk = bendi("mv", str(new))
    assert code == 2 and "already" in talk


def test_the_catalogue(home: Path, bendi: Run) -> None:
    code, out, _talk = bendi("list", "--catalogue", "qwen3:")
    assert code == 0
    assert "qwen3:8b" in out and "hf:unsloth/Qwen3-8B-GGUF" in out and "ms:unsloth/Qwen3-8B-GGUF" in out
    assert "llama" not in out
    assert {"name": "llama3.2:1b", "sources": ["hf:unsloth/Llama-3.2-1B-Instruct-GGUF"]} in json.loads(
        bendi("list", "--catalogue", "--json")[1]
    )


def test_show_of_a_template(home: Path, demo_model: Path, bendi: Run) -> None:
    if not demo_model.exists():
        pytest.skip("the built-in model is not in this checkout")
    code, out, _talk = bendi("show", "demo", "--template")
    assert code == 0 and "message" in out

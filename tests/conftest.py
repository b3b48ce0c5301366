"""Fixtures for all tests: a clean environment per test, real test data, the built-in model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bendi import i18n

ROOT = Path(__file__).resolve().parent.parent
_KEPT = ("BENDI_TEST_DATA",)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every test has its own home: nothing of the user's is read or written. Returns that home."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("BENDI_", "HF_", "MODELSCOPE_", "OLLAMA_", "XDG_")) and name not in _KEPT:
            monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BENDI_LANG", "en")
    i18n.set_language(None)
    return home


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real test data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("BENDI_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data: {folder} does not exist (set BENDI_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def stories_model(data_dir: Path) -> Path:
    """A really trained model of 260K parameters, without a chat template, with a context of 128."""
    return data_dir / "stories260K" / "stories260K-f32.gguf"


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The built-in model."""
    return ROOT / "src" / "bendi" / "assets" / "demo.gguf"


@pytest.fixture(scope="session")
def thinking_model(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model with the chat template of a thinking model: its answers begin inside `<think>`."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and m.reasoning_content %}"
        "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
        "{% else %}<think>\n{% endif %}{% endif %}"
    )
    path = tmp_path_factory.mktemp("models") / "thinking.gguf"
    path.write_bytes(with_chat_template(demo_model.read_bytes(), template))
    return path


def with_chat_template(gguf: bytes, template: str) -> bytes:
    """The bytes of a GGUF with another chat template, padded so that the tensor data stays aligned."""
    key = b"tokenizer.chat_template"
    length_at = gguf.index(key) + len(key) + 4
    old_bytes = int.from_bytes(gguf[length_at : length_at + 8], "little")
    # Padded inside a comment: what stands outside would be part of every prompt.
    new = template.encode() + b"{#"
    new += b" " * ((old_bytes - len(new) - 2) % 32) + b"#}"
    return gguf[:length_at] + len(new).to_bytes(8, "little") + new + gguf[length_at + 8 + old_bytes :]

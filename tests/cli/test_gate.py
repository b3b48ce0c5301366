"""No command gives an engine a file that was not checked: each ends with a clean error before any process starts.

What starts processes is watched from inside the interpreter, by the audit events that it raises for every one.
"""

from __future__ import annotations

import ast
import io
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bendi.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent
Run = Callable[..., tuple[int, str, str]]

_started: list[object] = []
_STARTS = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.fork", "os.spawn", "os.system")
sys.addaudithook(lambda event, details: _started.append(details) if event in _STARTS else None)


def _text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def _number(name: str, value: int) -> bytes:
    return _text(name) + struct.pack("<II", 4, value)


def _gguf(*keys: bytes, tensors: bytes = b"", count: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, count, len(keys)) + b"".join(keys) + tensors + bytes(64)


_LLAMA = (
    _text("general.architecture") + struct.pack("<I", 8) + _text("llama"),
    _number("llama.block_count", 1), _number("llama.context_length", 64), _number("llama.embedding_length", 8),
    _number("llama.attention.head_count", 2),
)  # fmt: skip

HOSTILE = {
    "empty": b"",
    "zeros": bytes(4096),
    "web page": b"<!DOCTYPE html><html>please log in</html>",
    "pickle": b"\x80\x04\x95" + bytes(100),
    "checkpoint": b"PK\x03\x04" + bytes(100),
    "random": b"GGUF" + b"\xff" * 500,
    "no architecture": _gguf(_number("x", 1)),
    "tensor beyond the end": _gguf(*_LLAMA, tensors=_text("t") + struct.pack("<IQIQ", 1, 2**40, 0, 0), count=1),
    "huge count": b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63),
    "no layers": _gguf(*_LLAMA[:1], _number("llama.block_count", 0)),
    "array of arrays": _gguf(_text("a") + struct.pack("<IIQ", 9, 9, 2**40)),
    "heads rotated in part": _gguf(*_LLAMA, _number("llama.rope.dimension_count", 2)),
    "truncated": _gguf(*_LLAMA)[:60],
}


@pytest.fixture(params=sorted(HOSTILE))
def hostile(request: pytest.FixtureRequest) -> bytes:
    return HOSTILE[request.param]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.toml").write_text(f'models_dirs = ["{tmp_path / "models"}"]\n', "utf-8")
    monkeypatch.setenv("BENDI_CONFIG", str(config))
    for variable in ("HF_HUB_CACHE", "OLLAMA_MODELS", "BENDI_LMSTUDIO_MODELS"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Run]:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        capsys.readouterr()
        code = main(arguments)
        return (code, *capsys.readouterr())

    _started.clear()
    yield run


def _clean(talk: str) -> None:
    assert "Traceback" not in talk and talk.strip()
    assert all(character.isprintable() or character == "\n" for character in talk)


@pytest.mark.parametrize("verb", ["run", "inspect", "show", "import"])
def test_a_hostile_file_by_its_path(verb: str, hostile: bytes, home: Path, bendi: Run) -> None:
    path = home / "x.gguf"
    path.write_bytes(hostile)
    arguments = {"run": ("run", str(path), "hello"), "inspect": ("inspect", str(path)),
                 "show": ("show", str(path)), "import": ("import", str(path))}[verb]  # fmt: skip
    code, out, talk = bendi(*arguments)
    # An empty file may count as none, as where its name is looked up in a listing.
    assert code in ((3, 4) if not hostile else (4,)), talk
    assert out == ""
    _clean(talk)
    assert _started == []
    assert not list((home / "models").rglob("*.gguf"))


@pytest.mark.parametrize("verb", ["run", "inspect", "show", "verify"])
def test_a_model_of_the_store_that_became_hostile(
    verb: str, hostile: bytes, home: Path, bendi: Run, demo_model: Path
) -> None:
    """It was good when it was imported; the gate is asked again every time."""
    source = home / "m.gguf"
    source.write_bytes(demo_model.read_bytes())
    assert bendi("import", str(source), "--name", "mine")[0] == 0
    [stored] = (home / "models").rglob("*.gguf")
    stored.chmod(0o644)
    size_bytes = stored.stat().st_size
    stored.write_bytes(hostile)
    os.truncate(stored, size_bytes)  # another size would be noticed sooner
    _started.clear()
    code, _out, talk = bendi(verb, "mine", *(("hello",) if verb == "run" else ()))
    assert code == (7 if verb == "verify" else 4), talk
    _clean(talk)
    assert _started == []


def test_the_watch_sees_an_engine(home: Path, bendi: Run, demo_model: Path) -> None:
    """The same commands with a good file do start a worker: silence above is no blindness."""
    pytest.importorskip("xllamacpp")
    path = home / "good.gguf"
    path.write_bytes(demo_model.read_bytes())
    code, out, _talk = bendi("run", str(path), "hello", "--no-save")
    assert code == 0 and out.strip()
    assert any("bendi.engines.worker" in str(details) for details in _started)


def test_workers_are_started_only_behind_the_gate() -> None:
    """`WorkerProcess` is made by two engines, after `prepare` has read the header in the same function."""
    places = []
    for path in sorted((ROOT / "src" / "bendi").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = {
                node.func.id: node.lineno
                for node in ast.walk(function)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            if "WorkerProcess" in calls:
                places.append(os.fspath(path.relative_to(ROOT)))
                assert calls["prepare"] < calls["WorkerProcess"], places[-1]
    assert places == ["src/bendi/engines/native.py", "src/bendi/engines/wheel.py"]

"""What is found of other engines, and how programs of others are started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from native_engine import CACHE, needed_build
from peer_stand_ins import WireServer, sent, wait_until_gone

from bendi.engines.peer_found import FoundEngine, Places, found_engines
from bendi.engines.peer_http import Site
from bendi.engines.peer_process import PeerProcess, peak_memory_bytes, peer_environment
from bendi.engines.peer_types import verify
from bendi.errors import EngineUnsupported, OutOfMemory
from bendi.settings import load_settings

NOBODY = Site("http", "127.0.0.1", 9)


def places(**more: object) -> Places:
    return Places(**{"ollama": NOBODY, "lm_studio": NOBODY, **more})  # type: ignore[arg-type]


def by_name(rows: list[FoundEngine]) -> dict[str, FoundEngine]:
    return {row.name: row for row in rows}


def test_what_is_missing_says_how_to_get_it(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    rows = found_engines(load_settings(), places())
    assert [row.name for row in rows] == [
        "wheel", "native", "llama-server", "llama-bench", "ollama", "vllm", "fastllm", "transformers", "openvino",
        "lmstudio",
    ]  # fmt: skip
    assert rows[0].found and rows[0].version.startswith("xllamacpp")
    for row in rows[1:]:
        assert not row.found and row.how_to_get and not row.where


def test_native_builds_are_found() -> None:
    build = needed_build()
    settings = load_settings({"BENDI_CACHE": str(CACHE), "BENDI_CONFIG": str(CACHE / "config")})
    rows = found_engines(settings, places())
    assert FoundEngine("native", True, build.build_id, str(build.server)) in rows


def test_programs_are_asked_for_their_version(
    tmp_path: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    scripts = {
        "path/llama-server": "echo 'version: 9000 (abc)' >&2",
        "folder/bin/llama-server": "echo 'error while loading shared libraries: x' >&2; exit 127",
        "path/ollama": "",
        "path/vllm": "",
    }
    for name, text in scripts.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    rows = found_engines(load_settings(), places(programs=(tmp_path / "folder",)))
    broken, good = [row for row in rows if row.name == "llama-server"]
    assert (good.version, good.problem) == ("9000 (abc)", "") and good.where == str(tmp_path / "path" / "llama-server")
    assert broken.found and "shared libraries" in broken.problem
    found = by_name(rows)
    assert found["ollama"].where == str(tmp_path / "path" / "ollama")
    assert found["vllm"].found and found["vllm"].where == str(tmp_path / "path" / "vllm")


def test_libraries_of_interpreters(tmp_path: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    packages = tmp_path / "packages"
    for name, version in (("transformers", "5.1"), ("vllm", "0.26"), ("ftllm", "0.1")):
        info = packages / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "bin" / "vllm").write_text("")
    found = by_name(found_engines(load_settings(), places(interpreters=(python, tmp_path / "none"))))
    assert found["transformers"] == FoundEngine("transformers", True, "5.1", str(python))
    assert found["vllm"] == FoundEngine("vllm", True, "0.26", str(tmp_path / "bin" / "vllm"))
    assert not found["fastllm"].found, "the program beside it is missing"


def test_servers_are_found_where_they_listen(clean_environment: Path) -> None:
    with WireServer(
        {"GET /api/version": sent({"version": "0.33"}), "GET /api/v0/models": sent({"data": []})}
    ) as server:
        site = Site("http", "127.0.0.1", int(server.url.rpartition(":")[2]))
        found = by_name(found_engines(load_settings(), places(ollama=site, lm_studio=site)))
    assert found["ollama"] == FoundEngine("ollama", True, "0.33", server.url)
    assert found["lmstudio"] == FoundEngine("lmstudio", True, "", f"{server.url}/v1")
    with WireServer({"GET /api/version": (200, [b"<html>"]), "GET /api/v0/models": sent({"error": "none"})}) as server:
        site = Site("http", "127.0.0.1", int(server.url.rpartition(":")[2]))
        found = by_name(found_engines(load_settings(), places(ollama=site, lm_studio=site)))
    assert found["ollama"].where != server.url and not found["lmstudio"].found


def test_no_secrets_and_no_hidden_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS", "LLAMA_ARG_CTX_SIZE", "OLLAMA_NUM_PARALLEL"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    environment = peer_environment({"LLAMA_API_KEY": "ours"})
    assert {name for name, value in environment.items() if value == "x"} == set()
    assert environment["CUDA_VISIBLE_DEVICES"] == "1" and environment["LLAMA_API_KEY"] == "ours"
    assert environment["HF_HUB_OFFLINE"] == "1" and environment["DO_NOT_TRACK"] == "1"


TREE = (
    "import subprocess, time; subprocess.Popen(['sleep', '60']); x = bytearray({size})\n"
    "print('up', flush=True); time.sleep(60)"
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_counted_over_the_whole_tree_and_all_of_it_ends() -> None:
    size = 64 * 1024**2
    process = PeerProcess("some program", [sys.executable, "-c", TREE.format(size=size)])
    process.wait_until(lambda: "up" in process.log, 30)
    peak = peak_memory_bytes([process.pid])
    assert peak is not None and size < peak < 4 * size
    assert size < process.private_bytes() <= process.resident_bytes() <= peak
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    process.close()
    process.close()
    for pid in (process.pid, int(children[0])):
        wait_until_gone(pid)
    assert peak_memory_bytes([process.pid]) is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_killing_bendi_ends_it() -> None:
    code = (
        "import time\nfrom bendi.engines.peer_process import PeerProcess\n"
        "process = PeerProcess('x', ['sleep', '60'])\n"
        "while b'sleep' not in open(f'/proc/{process.pid}/cmdline', 'rb').read(): time.sleep(0.01)\n"
        "print(process.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    wait_until_gone(pid)


def test_why_it_did_not_start(tmp_path: Path) -> None:
    process = PeerProcess("some program", [str(tmp_path / "none")])
    with pytest.raises(EngineUnsupported) as caught:
        process.wait_until(lambda: False, 30)
    assert "some program" in caught.value.message and "bendi bench engines" in caught.value.hint
    hungry = PeerProcess("some program", [sys.executable, "-c", "import sys; sys.exit('CUDA error: out of memory')"])
    with pytest.raises(OutOfMemory):
        hungry.wait_until(lambda: False, 30)


def test_a_program_that_does_not_want_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bendi.engines.peer_process._END_S", 0.2)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = PeerProcess("some program", [sys.executable, "-c", code])
    process.wait_until(lambda: "up" in process.log, 30)
    process.close()
    assert not process.alive
    assert not os.path.exists(f"/proc/{process.pid}")


def test_what_is_verified() -> None:
    verified = verify(
        {"threads": 2, "mmap": True, "type_k": "Q8_0", "batch_tok": None, "parallel": 1, "repack": 1},
        {"threads": 2.0, "mmap": False, "type_k": "q8_0", "batch_tok": 5, "other": 1, "parallel": None, "repack": True},
    )
    assert dict(verified.asked) == {"threads": 2, "mmap": True, "type_k": "Q8_0", "parallel": 1, "repack": 1}
    assert verified.confirmed == {"threads": 2.0, "type_k": "q8_0"}
    assert verified.differing == {"mmap": False, "repack": True} and verified.unconfirmed == ("parallel",)

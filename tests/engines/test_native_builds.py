"""Builds on disk: whole or not at all, used only when proven, and two bendis at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import hostile_server
import pytest

from bendi.engines import LoadRequest, native_build, native_builds, open_engine
from bendi.engines.native_builds import NativeBuild, Proof
from bendi.engines.native_recipe import SERVER, TARGETS
from bendi.engines.registry import engine_build
from bendi.errors import ConfigError, EngineUnsupported, NotFoundError, StoreError, UsageError
from bendi.hardware import Cpu
from bendi.settings import Settings, load_settings
from bendi.store.lock import locked


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BENDI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENDI_STATE", str(tmp_path / "state"))
    return load_settings()


@pytest.fixture
def build(settings: Settings, tmp_path: Path) -> NativeBuild:
    return hostile_server.install(settings, tmp_path, "wrong", 300)


def proof(build: NativeBuild, **changes: object) -> Proof:
    fields = {
        "proven": True,
        "fingerprint": native_builds.fingerprint(),
        "server_sha256": build.manifest.programs[SERVER].sha256,
        "reason": "",
        "proved_at": "2026-11-01T00:00:00+00:00",
        "took_s": 1.0,
    }
    return Proof(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_build_is_read_back_as_it_was_written(settings: Settings, build: NativeBuild) -> None:
    assert native_builds.all_builds(settings) == [build]
    assert native_builds.find_build(settings, "stand-in-wrong") == build
    assert native_builds.find_build(settings, "stand") == build, "a unique beginning is enough"
    proven = native_builds.save_proof(build, proof(build))
    assert native_builds.all_builds(settings) == [proven]
    assert os.access(build.server, os.X_OK)


def test_states(settings: Settings, build: NativeBuild) -> None:
    def state(**changes: object) -> str:
        return native_builds.state_of(native_builds.save_proof(build, proof(build, **changes)))

    assert native_builds.state_of(build) == "untested"
    assert state() == "proven"
    assert state(fingerprint="another CPU; another kernel") == "outdated"
    assert state(proven=False, reason="it crashed") == "refused"
    assert state(server_sha256="0" * 64) == "untested", "a proof of another program proves nothing"
    build.server.unlink()
    assert state() == "damaged"


def test_every_state_but_proven_has_a_sentence_and_a_way_out(build: NativeBuild) -> None:
    for state in ("untested", "refused", "outdated", "damaged"):
        assert build.build_id in native_builds.why_not(build, state)  # type: ignore[arg-type]
        assert "bendi engine" in native_builds.hint_for(build, state)  # type: ignore[arg-type]


def test_only_proven_builds_are_used(settings: Settings, build: NativeBuild) -> None:
    with pytest.raises(EngineUnsupported):
        native_builds.set_in_use(settings, build)
    native_builds.set_in_use(settings, native_builds.save_proof(build, proof(build)))
    assert native_builds.chosen(settings).build is not None
    assert engine_build(settings) == "native stand-in-wrong"
    native_builds.set_in_use(settings, None)
    assert native_builds.chosen(settings) == native_builds.Choice(None)
    assert engine_build(settings) == ""


def test_a_build_that_changed_after_its_proof_is_not_used(settings: Settings, build: NativeBuild) -> None:
    native_builds.set_in_use(settings, native_builds.save_proof(build, proof(build)))
    with build.server.open("r+b") as program:
        program.seek(100)
        program.write(b"X")
    choice = native_builds.chosen(settings)
    assert choice.build is None and "changed" in choice.notice


def test_a_build_that_was_deleted_by_hand(settings: Settings, build: NativeBuild) -> None:
    native_builds.set_in_use(settings, native_builds.save_proof(build, proof(build)))
    shutil.rmtree(build.folder)
    choice = native_builds.chosen(settings)
    assert choice.build is None and choice.notice


def test_engine_names(settings: Settings, build: NativeBuild, demo_model: Path) -> None:
    load = LoadRequest(demo_model, context_tok=256)
    with pytest.raises(ConfigError) as caught:
        open_engine(load, replace(settings, engine="no-such-engine"))
    assert "native" in caught.value.hint
    with pytest.raises(EngineUnsupported) as refused:
        open_engine(load, replace(settings, engine="native"))
    assert "bendi engine build" in refused.value.hint
    with pytest.raises(EngineUnsupported):
        open_engine(load, replace(settings, engine=build.build_id))


def test_unknown_and_ambiguous_names(settings: Settings, build: NativeBuild, tmp_path: Path) -> None:
    hostile_server.install(settings, tmp_path, "hang", 300)
    with pytest.raises(NotFoundError):
        native_builds.find_build(settings, "other")
    with pytest.raises(NotFoundError):
        native_builds.find_build(settings, "")
    with pytest.raises(UsageError) as caught:
        native_builds.find_build(settings, "stand-in")
    assert "stand-in-hang" in caught.value.message
    with pytest.raises(UsageError):
        native_build.build(settings, "no-such-recipe")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"format": 3}', b"\xff" * 50])
def test_damaged_records_are_no_builds(content: bytes, settings: Settings, build: NativeBuild) -> None:
    kept = (build.folder / "manifest.json").read_bytes()
    (build.folder / "manifest.json").write_bytes(content)
    assert native_builds.all_builds(settings) == []
    (build.folder / "manifest.json").write_bytes(kept)
    (build.folder / "proof.json").write_bytes(content)
    (found,) = native_builds.all_builds(settings)
    assert native_builds.state_of(found) == "untested"


def test_a_manifest_of_another_folder_is_no_build(settings: Settings, build: NativeBuild) -> None:
    shutil.copytree(build.folder, build.folder.with_name("other"))
    assert [found.build_id for found in native_builds.all_builds(settings)] == [build.build_id]


def test_installing_again_replaces(settings: Settings, build: NativeBuild, tmp_path: Path) -> None:
    native_builds.save_proof(build, proof(build))
    again = hostile_server.install(settings, tmp_path, "wrong", 400)
    (found,) = native_builds.all_builds(settings)
    assert found == again and found.proof is None


def test_removing_what_is_in_use_leads_back_to_the_wheel(settings: Settings, build: NativeBuild) -> None:
    native_builds.set_in_use(settings, native_builds.save_proof(build, proof(build)))
    native_builds.remove(settings, build)
    assert native_builds.all_builds(settings) == []
    assert native_builds.chosen(settings) == native_builds.Choice(None)


def test_sentences_are_said_once(settings: Settings) -> None:
    assert native_builds.first_time(settings, "a") is True
    assert native_builds.first_time(settings, "b") is True
    assert native_builds.first_time(settings, "a") is False


def test_the_fingerprint_knows_the_cpu_and_the_kernel() -> None:
    here = native_builds.fingerprint(Cpu(model="A", isa=frozenset({"avx2"})))
    assert here != native_builds.fingerprint(Cpu(model="A", isa=frozenset({"avx2", "avx512f"})))
    assert here != native_builds.fingerprint(Cpu(model="B", isa=frozenset({"avx2"})))
    assert os.uname().release in here


def test_what_an_interrupted_installation_left_is_no_build_and_is_swept(settings: Settings, build: NativeBuild) -> None:
    left = native_builds.engines_folder(settings) / ".new-abc"
    shutil.copytree(build.folder, left)
    assert native_builds.all_builds(settings) == [build]
    native_builds.sweep(settings)
    assert not left.exists()


def test_two_builds_at_once_are_refused(settings: Settings) -> None:
    with locked(native_builds.engines_folder(settings) / ".lock"), pytest.raises(StoreError) as caught:
        native_build.build(settings, "static")
    assert caught.value.hint


FAKE_TOOL = """#!/bin/sh
case "$*" in
  *--version*) echo "{name} version 3.30.0"; exit 0;;
esac
{body}
"""


@pytest.fixture
def toolchain(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """cmake and ninja that only pretend, before the real compilers in PATH; and a source that is there already."""
    if not shutil.which("g++") and not shutil.which("clang++"):
        pytest.skip("there is no compiler")
    tools = tmp_path / "tools"
    tools.mkdir()
    write_tool(tools / "cmake", 'echo "configured" >> "$LOG_HERE"; echo ok')
    source = native_build.source_folder(native_builds.engines_folder(settings) / "source")
    source.mkdir(parents=True)
    (source / ".complete").touch()
    monkeypatch.setenv("LOG_HERE", str(tmp_path / "log"))
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tools


def write_tool(path: Path, body: str) -> None:
    path.write_text(FAKE_TOOL.format(name=path.name, body=body))
    path.chmod(0o755)


MAKES_EVERYTHING = f"""
work="$2"
mkdir -p "$work/bin"
echo "[1/2] Building CXX object a.cpp.o"
for name in {" ".join(TARGETS)}; do echo "$name" > "$work/bin/$name"; done
echo "[2/2] Linking CXX executable bin/llama-server"
"""


def test_a_build_reports_and_is_installed(settings: Settings, toolchain: Path, tmp_path: Path) -> None:
    write_tool(toolchain / "ninja", MAKES_EVERYTHING)
    seen: list[tuple[float, float, str]] = []
    made = native_build.build(settings, "static", lambda *said: seen.append(said))
    assert (2, 2, "llama-server") in seen
    assert set(made.manifest.programs) == set(TARGETS)
    assert native_builds.find_build(settings, made.build_id) == made
    assert not (native_builds.engines_folder(settings) / "work" / made.build_id).exists()
    (tmp_path / "log").unlink()
    assert native_build.build(settings, "static") == made
    assert not (tmp_path / "log").exists(), "it is not built twice"


def test_a_failed_build_says_why_and_goes_on(settings: Settings, toolchain: Path, tmp_path: Path) -> None:
    write_tool(toolchain / "ninja", 'echo "[1/9] Building a"; echo "a.cpp:1:1: error: no such thing"; exit 1')
    with pytest.raises(native_build.EngineError) as caught:
        native_build.build(settings, "static")
    assert "no such thing" in caught.value.message and "build.log" in caught.value.hint
    assert native_builds.all_builds(settings) == []
    write_tool(toolchain / "ninja", MAKES_EVERYTHING)
    native_build.build(settings, "static")
    assert (tmp_path / "log").read_text().count("configured") == 1, "it goes on where it stopped"


def test_a_full_disk_is_explained(settings: Settings, toolchain: Path) -> None:
    write_tool(toolchain / "ninja", 'echo "fatal error: error writing to a.o: No space left on device"; exit 1')
    with pytest.raises(StoreError) as caught:
        native_build.build(settings, "static")
    assert "full" in caught.value.message


def test_a_killed_build_ends_its_compilers_and_frees_the_lock(settings: Settings, toolchain: Path) -> None:
    write_tool(toolchain / "ninja", 'echo "[1/9] Building a"; echo $$ > "$LOG_HERE.pid"; exec sleep 60')
    code = (
        "from bendi.engines import native_build; from bendi.settings import load_settings; "
        "native_build.build(load_settings(), 'static')"
    )
    pid_file = Path(os.environ["LOG_HERE"] + ".pid")
    with subprocess.Popen([sys.executable, "-c", code]) as bendi:
        while not pid_file.exists() or not pid_file.read_text().strip():
            assert bendi.poll() is None
            time.sleep(0.02)
        bendi.kill()
        bendi.wait()
    pid = int(pid_file.read_text())
    if sys.platform == "linux":
        for _ in range(200):
            if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
                break
            time.sleep(0.02)
        else:
            os.kill(pid, 9)
            raise AssertionError("ninja went on")
    write_tool(toolchain / "ninja", MAKES_EVERYTHING)
    assert native_build.build(settings, "static").manifest.programs


def test_a_manifest_is_plain_json(build: NativeBuild) -> None:
    table = json.loads((build.folder / "manifest.json").read_text("utf-8"))
    assert table["programs"][SERVER]["sha256"] == build.manifest.programs[SERVER].sha256
    assert table["source_sha256"] and table["format"] == 2

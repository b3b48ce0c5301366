"""`bendi engine` as people type it, with builds that only pretend."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "engines"))

import hostile_server

from bendi.cli.engine_hint import suggest_native, suggestion
from bendi.engines import native_builds
from bendi.engines.native_builds import Proof
from bendi.engines.native_recipe import SERVER
from bendi.hardware import Cpu
from bendi.settings import Settings, load_settings

AVX512 = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"})


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BENDI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENDI_STATE", str(tmp_path / "state"))
    return load_settings()


def bendi(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bendi", *arguments], capture_output=True, text=True, timeout=100)


def proven(settings: Settings, tmp_path: Path) -> str:
    build = hostile_server.install(settings, tmp_path, "wrong", 300)
    sha256 = build.manifest.programs[SERVER].sha256
    native_builds.save_proof(build, Proof(True, native_builds.fingerprint(), sha256, "", "2026-11-01", 1.0))
    return build.build_id


def test_list_use_and_remove(settings: Settings, tmp_path: Path) -> None:
    name = proven(settings, tmp_path)
    empty = json.loads(bendi("engine", "list", "--json").stdout)
    assert empty["in_use"] == "wheel"
    assert [build["build_id"] for build in empty["builds"]] == [name]
    assert bendi("engine", "use", name).returncode == 0
    listed = bendi("engine", "list").stdout.splitlines()
    assert next(line for line in listed if line.startswith("*")).split()[1] == name
    assert json.loads(bendi("engine", "list", "--json").stdout)["in_use"] == name
    assert bendi("engine", "use", "wheel").returncode == 0
    assert native_builds.in_use(settings) == ""
    assert json.loads(bendi("engine", "remove", name, "--json").stdout) == {"removed": name}
    assert native_builds.all_builds(settings) == []


def test_a_build_that_fails_its_test(settings: Settings, tmp_path: Path) -> None:
    build = hostile_server.install(settings, tmp_path, "crash", 517)
    done = bendi("engine", "test", build.build_id, "--quick", "--json")
    assert done.returncode == 8
    (row,) = json.loads(done.stdout)
    assert row["state"] == "refused" and "dense Q8_0" in row["proof"]["reason"]
    refused = bendi("engine", "use", build.build_id)
    assert refused.returncode == 8 and "bendi engine" in refused.stderr


def test_unknown_builds(settings: Settings) -> None:
    for action in ("use", "remove", "test"):
        done = bendi("engine", action, "nothing")
        assert done.returncode == 3 and "bendi engine list" in done.stderr
    assert bendi("engine").returncode == 2


def test_what_is_suggested_is_what_was_measured() -> None:
    assert "3.2-3.9" in suggestion(Cpu(isa=AVX512 | {"amx_int8"}))
    assert "1.3-1.9" in suggestion(Cpu(isa=AVX512))
    assert suggestion(Cpu(isa=AVX512 - {"avx512_vnni"})) == "", "nor without VNNI"
    assert suggestion(Cpu(isa=frozenset({"avx2"}))) == "", "nothing was measured there"


def test_nothing_is_suggested_to_a_pipe_or_who_has_chosen(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    suggest_native(settings)
    suggest_native(replace(settings, engine="wheel"))
    assert capsys.readouterr().err == ""
    assert not (settings.state_dir / "told").exists(), "it may still be said"

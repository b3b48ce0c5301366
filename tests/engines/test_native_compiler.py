"""Which compiler is taken, what is known to be wrong with compilers, and which options a CPU gives."""

from __future__ import annotations

import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.engines.native_compiler import (
    DEFECTS,
    Compiler,
    defects_of,
    find_compiler,
    identified,
    write_remedies,
    zig_compiler,
)  # fmt: skip
from bendi.engines.native_kernels import KERNELS
from bendi.engines.native_recipe import (
    FLAGS,
    RECIPES,
    Configuration,
    all_options,
    gpu_options,
    isa_flags,
    isa_options,
)  # fmt: skip
from bendi.engines.native_tools import LOCK_FILE, find_tools, locked
from bendi.errors import DownloadError, EngineError
from bendi.hardware import Cpu, Gpu, detect_cpu

AVX512 = frozenset({"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"})
HASWELL = Cpu(architecture="x86_64", isa=frozenset({"sse42", "avx", "avx2", "fma", "f16c", "bmi2"}))
ZEN5 = replace(HASWELL, isa=HASWELL.isa | AVX512 | {"avx512_vnni", "avx512_bf16", "avx512_vbmi", "avx_vnni"})
SAPPHIRE = replace(ZEN5, isa=ZEN5.isa | {"amx_tile", "amx_int8", "amx_bf16"})
GCC12 = Compiler("gcc", "12.2.0", "gcc", "g++", "x86_64-linux-gnu")
needs_gcc = pytest.mark.skipif(not which("gcc") or not which("g++"), reason="there is no gcc")


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def on(cpu: Cpu) -> set[str]:
    return {name for name, value in isa_options(cpu).items() if value == "ON"}


def test_options_name_what_the_cpu_has_and_nothing_else() -> None:
    assert on(HASWELL) == {"GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_BMI2", "GGML_FMA", "GGML_F16C"}
    assert on(ZEN5) - on(HASWELL) == {
        "GGML_AVX_VNNI", "GGML_AVX512", "GGML_AVX512_VBMI", "GGML_AVX512_VNNI", "GGML_AVX512_BF16",
    }  # fmt: skip
    assert on(SAPPHIRE) - on(ZEN5) == {"GGML_AMX_TILE", "GGML_AMX_INT8", "GGML_AMX_BF16"}
    assert isa_options(HASWELL)["GGML_NATIVE"] == "OFF"


@given(st.frozensets(st.sampled_from(sorted(SAPPHIRE.isa))))
def test_no_option_without_all_it_needs(isa: frozenset[str]) -> None:
    options = on(Cpu(architecture="x86_64", isa=isa))
    if not isa >= AVX512:
        assert not any("512" in name or "AMX" in name for name in options), "part of AVX-512 is no AVX-512"
    assert ("GGML_AVX2" in options) == ("avx2" in isa)
    assert len(isa_flags(Cpu(architecture="x86_64", isa=isa))) >= len(options)


def test_other_architectures() -> None:
    arm = Cpu(architecture="aarch64", isa=frozenset({"neon", "dotprod", "fp16", "i8mm"}))
    if sys.platform != "darwin":
        assert isa_options(arm)["GGML_CPU_ARM_ARCH"] == "armv8.2-a+dotprod+fp16+i8mm"
        assert isa_flags(arm) == ["-march=armv8.2-a+dotprod+fp16+i8mm"]
    assert isa_options(Cpu(architecture="riscv64")) == {"GGML_NATIVE": "ON"}


def test_nothing_is_fetched_or_started_by_any_recipe() -> None:
    for recipe in RECIPES.values():
        options = all_options(recipe, ZEN5, {}, "1.0")
        for closed in ("LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL", "LLAMA_SUBPROCESS", "GGML_RPC"):
            assert options[closed] == "OFF", (recipe.name, closed)
        assert options["BUILD_SHARED_LIBS"] == "OFF"


def test_the_id_depends_on_everything() -> None:
    options = all_options(RECIPES["static"], ZEN5, {}, "1.0")
    base = Configuration(
        "static", "a" * 64, GCC12.label, tuple(sorted(ZEN5.isa)), options, FLAGS, "", ("llama-server",)
    )
    others = [
        replace(base, source_sha256="b" * 64),
        replace(base, compiler="gcc 13.3.0 x86_64-linux-gnu"),
        replace(base, isa=tuple(sorted(HASWELL.isa))),
        replace(base, options={**options, "GGML_LTO": "ON"}),
        replace(base, flags=()),
        replace(base, kernels="c" * 64),
        replace(base, recipe="openmp"),
        replace(base, targets=("llama-server", "llama-bench")),
    ]
    assert len({base.build_id, *(other.build_id for other in others)}) == 1 + len(others)
    shuffled = replace(base, options=dict(reversed(options.items())))
    assert shuffled.build_id == base.build_id


def test_gpu_toolchains(tmp_path: Path) -> None:
    nvidia, amd = Gpu("RTX", "nvidia", 0), Gpu("Radeon", "amd", 0)
    path = str(tmp_path)
    assert gpu_options([nvidia], "Linux", path) == {"GGML_METAL": "OFF"}
    program(tmp_path / "glslc", "")
    assert gpu_options([nvidia], "Linux", path)["GGML_VULKAN"] == "ON"
    program(tmp_path / "nvcc", "")
    assert gpu_options([nvidia], "Linux", path)["GGML_CUDA"] == "ON"
    assert "GGML_CUDA" not in gpu_options([amd], "Linux", path)
    program(tmp_path / "hipcc", "")
    assert gpu_options([amd], "Linux", path)["GGML_HIP"] == "ON"
    assert gpu_options([], "Linux", path) == {"GGML_METAL": "OFF"}, "no GPU, no use for its toolchain"
    assert gpu_options([], "Darwin", path)["GGML_METAL"] == "ON"


@pytest.mark.parametrize(
    ("version", "affected"),
    [("9.4", True), ("11.4.0", True), ("11.5.0", False), ("12.2.0", True), ("12.3.0", True), ("12.4.0", False),
     ("13.2.0", True), ("13.3.0", False), ("14.1.0", False), ("15.2.0", False)],
)  # fmt: skip
def test_tile_configuration_defect(version: str, affected: bool) -> None:
    compiler = replace(GCC12, version=version)
    assert bool(defects_of(compiler, SAPPHIRE.isa)) is affected
    assert not defects_of(compiler, ZEN5.isa), "it matters only where tiles are used"
    assert not defects_of(replace(compiler, kind="clang"), SAPPHIRE.isa)


def test_zig_needs_its_checks_off() -> None:
    (defect,) = defects_of(Compiler("zig", "0.17.0", "", "", ""), HASWELL.isa)
    assert write_remedies([defect], Path("unused")) == ["-fno-sanitize=undefined"]


@needs_gcc
@pytest.mark.skipif(detect_cpu().architecture != "x86_64", reason="tiles are x86's")
def test_the_remedy_keeps_the_stores_of_a_tile_configuration(tmp_path: Path) -> None:
    """Compiles what ggml does, and looks at the machine code: with the remedy every store is there."""
    source = tmp_path / "tile.c"
    source.write_text(
        "#include <immintrin.h>\n"
        "struct config { unsigned char palette, start, r[14]; unsigned short columns[16]; unsigned char rows[16]; };\n"
        "void set(void) { struct config c = {1, 0, {0}, {0}, {0}};\n"
        "  c.columns[7] = 0x1234; c.rows[7] = 0x56; _tile_loadconfig(&c); }\n"
    )
    (defect,) = defects_of(replace(GCC12, version="12.2.0"), SAPPHIRE.isa)
    # The path has a space, as a user's home may have.
    folder = tmp_path / "with space"
    folder.mkdir()
    flags = " ".join(write_remedies([defect], folder))
    command = f"gcc -O3 -mamx-tile -mamx-int8 -S -o - {flags} {source}"
    assembly = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert "ldtilecfg" in assembly
    stored = {word for word in ("4660", "86") if f"${word}" in assembly}
    packed = ".LC" in assembly  # constants may be stored as vectors
    assert packed or stored == {"4660", "86"}
    for flag in ("-mno-amx-tile", ""):
        plain = tmp_path / "plain.c"
        plain.write_text("int main(void) { return 0; }\n")
        again = f"gcc -Werror -Wall -Wextra {flag} -c -o {tmp_path / 'plain.o'} {flags} {plain}"
        subprocess.run(["sh", "-c", again], check=True, capture_output=True)


@needs_gcc
def test_the_system_compiler_is_found_and_tried(tmp_path: Path) -> None:
    found = find_compiler(isa_flags(detect_cpu()), tmp_path)
    assert found is not None
    assert found.kind in ("gcc", "clang") and found.numbers >= (9,)
    assert found.target in found.label


def test_without_a_compiler_there_is_none(tmp_path: Path) -> None:
    assert find_compiler([], tmp_path, path=str(tmp_path)) is None


@needs_gcc
def test_a_compiler_without_the_needed_flags_is_not_taken(tmp_path: Path) -> None:
    assert find_compiler(["-mno-such-instructions"], tmp_path) is None


def test_old_and_broken_compilers_are_not_taken(tmp_path: Path) -> None:
    words = "g++ (GCC) 7.5.0 Free Software Foundation"
    said = f'case "$1" in --version) echo "{words}";; -dumpmachine) echo x;; *) echo 7.5.0;; esac'
    for name in ("gcc", "g++"):
        program(tmp_path / name, said)
    assert identified(str(tmp_path / "gcc"), str(tmp_path / "g++")) is not None
    assert find_compiler([], tmp_path, path=str(tmp_path)) is None
    for name in ("gcc", "g++"):
        program(tmp_path / name, "exit 1")
    assert find_compiler([], tmp_path, path=str(tmp_path)) is None


def test_zig_that_does_not_run_is_explained(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        zig_compiler([str(program(tmp_path / "zig", "exit 1"))], tmp_path)
    assert caught.value.hint


def test_zig_is_wrapped_for_cmake(tmp_path: Path) -> None:
    zig = program(
        tmp_path / "a zig", 'case "$1" in version) echo 0.17.0;; cc) echo "x86_64-linux-gnu";; *) echo "$@";; esac'
    )
    compiler = zig_compiler([str(zig)], tmp_path)
    assert (compiler.kind, compiler.version) == ("zig", "0.17.0")
    archiver = dict(compiler.extra)["CMAKE_AR"]
    assert subprocess.run([archiver, "qc", "a.a"], capture_output=True, text=True).stdout == "ar qc a.a\n"


def test_tools_of_the_system_are_used_when_new_enough(tmp_path: Path) -> None:
    program(tmp_path / "cmake", "echo cmake version 3.25.1")
    program(tmp_path / "ninja", "echo 1.11.1")
    tools = find_tools(tmp_path / "wheels", True, path=str(tmp_path))
    assert tools.cmake == str(tmp_path / "cmake") and tools.ninja == str(tmp_path / "ninja")


def test_old_tools_are_replaced_by_wheels(tmp_path: Path) -> None:
    program(tmp_path / "cmake", "echo cmake version 3.10.2")
    program(tmp_path / "ninja", "echo 1.11.1")
    with pytest.raises(DownloadError) as caught:
        find_tools(tmp_path / "wheels", True, path=str(tmp_path))
    assert "cmake" in caught.value.message and "ninja" not in caught.value.message


@pytest.mark.parametrize("name", ["cmake", "ninja", "ziglang"])
def test_tools_are_locked_by_version_and_hash(name: str) -> None:
    lines = locked([name]).splitlines()
    assert lines[0].startswith(f"{name}==")
    assert len(lines) > 5 and all("--hash=sha256:" in line for line in lines[1:])
    assert LOCK_FILE.read_text("utf-8").count("==") == 3


@pytest.mark.parametrize("page", ["engines.md", "engines.zh-CN.md"])
def test_the_documents_name_every_recipe_defect_and_kernel(page: str) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text("utf-8")
    for name in (*RECIPES, *(defect.name for defect in DEFECTS), *(kernel.source for kernel in KERNELS)):
        assert f"| `{name}` |" in text, name

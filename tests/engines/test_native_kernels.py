"""bendi's own kernels beside plain arithmetic, compiled as native builds compile them; and when they are built in."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from bendi.engines.native_compiler import find_compiler
from bendi.engines.native_kernels import FOLDER, KERNELS, cmake_text, digest, kernels_for
from bendi.engines.native_recipe import isa_flags
from bendi.hardware import detect_cpu

ROOT = Path(__file__).resolve().parents[2]
CHECKS = Path(__file__).parent / "kernels"
PRODUCTS = {"q4_0", "iq4_nl", "mxfp4", "q4_K", "q8_0", "q6_K"}
PRODUCTS |= {"prompts_q4_0", "prompts_iq4_nl", "prompts_mxfp4", "prompts_q4_K"}
PRODUCTS |= {"matrices_q8_0", "matrices_q5_0", "matrices_q6_K"}
EXPERTS = {f"experts_{name}" for name in ("q4_K", "q4_0", "iq4_nl", "mxfp4", "q8_0", "q5_0")}
ONE = {f"one_{name}" for name in ("q4_K", "q4_0", "iq4_nl", "mxfp4")}
WAITING, CLEARING, ATTENTION, VECTORS, PROMPTS, MATRICES, _EXPERTS = KERNELS
NARROW = ["-mavx2", "-mfma", "-mf16c", "-mbmi2"]


@pytest.fixture(scope="module")
def ggml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of llama.cpp's source that kernels are compiled against."""
    packages = sorted((ROOT / ".cache").glob("llama-cpp-python-*.tar.gz"))
    if not packages:
        pytest.skip("llama.cpp's source is not here: scripts/fetch-oracle")
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(packages[-1]) as package:
        for member in package:
            parts = Path(member.name).parts[1:]
            wanted = member.name.endswith(".h") or parts[-1:] == ("ggml-cpu.c",)
            if parts[:3] == ("vendor", "llama.cpp", "ggml") and member.isfile() and wanted:
                member.name = "/".join(parts)
                package.extract(member, folder)
    return folder / "vendor" / "llama.cpp" / "ggml"


def checked(ggml: Path, flags: list[str], folder: Path, check: str = "check.cpp") -> dict[str, tuple[float, int, int]]:
    """By kernel: worst relative error, results that were compared, calls that were left to the original."""
    cpu = detect_cpu()
    if cpu.architecture != "x86_64" or not {"avx2", "fma", "f16c"} <= cpu.isa:
        pytest.skip("this CPU has no AVX2")
    compiler = find_compiler(isa_flags(cpu), folder)
    if compiler is None:
        pytest.skip("there is no compiler here")
    program = folder / "check"
    includes = [f"-I{ggml / part}" for part in ("include", "src", "src/ggml-cpu")]
    sources = [str(CHECKS / check), *(str(FOLDER / kernel.source) for kernel in KERNELS if kernel.replaces)]
    command = [compiler.cxx, "-std=c++17", "-O2", "-w", *flags, *includes, *sources, "-o", str(program), "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert built.returncode == 0, built.stderr[:2000]
    wide = "-mavx512vnni" in flags
    done = subprocess.run([program, *(["products"] if wide else [])], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    return {name: (float(error), int(results), int(left)) for name, error, results, left in rows}


def test_attention_with_avx2(ggml: Path, tmp_path: Path) -> None:
    found = checked(ggml, NARROW, tmp_path)
    error, results, left = found["attention"]
    assert error < 1e-5 and results > 10_000 and left == 0
    assert found["attention_not_covered"][2] == 2
    error, results, left = found["clearing"]
    assert error == 0 and results > 10_000_000 and left == 0
    assert found["clearing_not_covered"][2] == 3
    if Path("/sys/kernel/mm/transparent_hugepage").exists():
        assert found["large_pages"] == (0.0, 2, 0)
        assert found["large_pages_not_covered"] == (0.0, 2, 2)


def test_all_kernels_with_what_this_cpu_has(ggml: Path, tmp_path: Path) -> None:
    cpu = detect_cpu()
    if not VECTORS.needs <= cpu.isa:
        pytest.skip("this CPU has no AVX-512 with VNNI")
    found = checked(ggml, isa_flags(cpu), tmp_path)
    others = {"attention", "clearing", "large_pages"}
    others |= {f"{name}_not_covered" for name in (*others, "matrices")}
    assert {*found} == PRODUCTS | others
    for name in PRODUCTS:
        error, results, left = found[name]
        assert error < 2e-6 and results and left == (name == "q8_0"), name
    assert found["attention"][0] < 1e-5
    assert found["matrices_q5_0"][1] > 10_000
    assert found["matrices_not_covered"][2] == 1


def test_weights_that_were_laid_out_anew(ggml: Path, tmp_path: Path) -> None:
    cpu = detect_cpu()
    if not VECTORS.needs <= cpu.isa:
        pytest.skip("this CPU has no AVX-512 with VNNI")
    found = checked(ggml, isa_flags(cpu), tmp_path, "check_experts.cpp")
    assert {*found} == EXPERTS | ONE | {"experts_not_covered", "one_not_covered"}
    for name in EXPERTS | ONE:
        error, results, left = found[name]
        assert error < 2e-6 and results > 10_000, name
        # Where weights lie as in the file, experts with few vectors stay with the original.
        assert bool(left) == (name in ("experts_q8_0", "experts_q5_0")), name
    assert found["experts_not_covered"][2] == 4
    assert found["one_not_covered"][2] == 1


WAITS = """
#include <stdio.h>

static int yielded;

int sched_yield(void) {
    yielded += 1;
    return 0;
}

static inline void ggml_thread_cpu_relax(void) {
    yielded = -1000000;
}

int main(void) {
    for (int looks = 0; looks < 1280; looks++) {
        ggml_thread_cpu_relax();
    }
    printf("%d", yielded);
    return 0;
}
"""


@pytest.fixture(scope="module")
def c_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = find_compiler(isa_flags(detect_cpu()), tmp_path_factory.mktemp("compiler"))
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no compiler here")
    return compiler.cc


def test_who_waits_offers_the_core_now_and_then(c_compiler: str, tmp_path: Path) -> None:
    source, program = tmp_path / "waits.c", tmp_path / "waits"
    source.write_text(WAITS)
    command = [c_compiler, "-O2", "-Wall", "-Werror", f"-include{FOLDER / WAITING.source}", source, "-o", program]
    subprocess.run(command, check=True, timeout=60)
    assert subprocess.run([program], capture_output=True, check=True, timeout=60).stdout == b"10"


def test_all_waiting_of_llama_cpp_is_met(ggml: Path, c_compiler: str) -> None:
    """At the end of each operation, and for the next token."""
    includes = [f"-I{ggml / part}" for part in ("include", "src", "src/ggml-cpu")]
    command = [c_compiler, "-E", "-P", f"-include{FOLDER / WAITING.source}", *includes]
    command += [str(ggml / "src" / "ggml-cpu" / "ggml-cpu.c")]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "ggml_thread_cpu_relax" not in text
    for function in ("ggml_barrier", "ggml_graph_compute_poll_for_work"):
        body = text[text.rindex(f"{function}(struct") :].partition("\n}")[0]
        assert body.count("bendi_relax_()") == 1, function
    assert text.count("bendi_relax_()") == 2


def test_a_build_has_the_kernels_that_its_cpu_can_use() -> None:
    cpu = detect_cpu()
    wide = replace(cpu, architecture="x86_64", isa=VECTORS.needs)
    narrow = replace(wide, isa=ATTENTION.needs)
    assert kernels_for(wide) == KERNELS
    assert kernels_for(narrow) == (WAITING, CLEARING, ATTENTION)
    assert kernels_for(replace(wide, isa=frozenset({"avx"}))) == (WAITING, CLEARING)
    assert kernels_for(replace(wide, architecture="aarch64")) == (WAITING,)


def test_the_digest_changes_with_the_kernels() -> None:
    assert digest(()) == ""
    assert len({digest(KERNELS), digest(KERNELS[:1]), digest(KERNELS[1:])}) == 3


def test_what_cmake_is_told() -> None:
    text = cmake_text(KERNELS)
    assert f"C>:-include{FOLDER / WAITING.source}>" in text
    assert cmake_text([WAITING]).count("\n") == 1
    for kernel in KERNELS:
        assert (FOLDER / kernel.source).is_file() and kernel.source in text
        assert all(f"LINKER:--wrap={name}" in text for name in kernel.replaces)

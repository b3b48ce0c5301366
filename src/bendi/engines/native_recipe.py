"""What a native build is made of: options of llama.cpp's build by recipe and by what this CPU can do.

Every instruction set is named explicitly instead of asking the compiler for "native": the same words then give the
same build, which can be kept under a key. Options: llama.cpp `CMakeLists.txt`, `ggml/CMakeLists.txt` and
`ggml/src/ggml-cpu/CMakeLists.txt`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shutil import which
from typing import Literal

from bendi.hardware import Cpu, Gpu
from bendi.i18n import N_

TARGETS = ("llama-server", "llama-quantize", "llama-imatrix", "llama-perplexity", "llama-bench", "llama-fit-params")
SERVER = "llama-server"
SMALL_TARGETS = (SERVER, "llama-quantize")

_AVX512 = frozenset({"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"})
_X86: Mapping[str, tuple[frozenset[str], tuple[str, ...]]] = {
    # option: what the CPU must have, and the flags of the compiler that it stands for
    "GGML_SSE42": (frozenset({"sse42"}), ("-msse4.2",)),
    "GGML_AVX": (frozenset({"avx"}), ("-mavx",)),
    "GGML_AVX2": (frozenset({"avx2"}), ("-mavx2",)),
    "GGML_BMI2": (frozenset({"bmi2"}), ("-mbmi2",)),
    "GGML_FMA": (frozenset({"fma"}), ("-mfma",)),
    "GGML_F16C": (frozenset({"f16c"}), ("-mf16c",)),
    "GGML_AVX_VNNI": (frozenset({"avx_vnni"}), ("-mavxvnni",)),
    "GGML_AVX512": (_AVX512, ("-mavx512f", "-mavx512cd", "-mavx512vl", "-mavx512dq", "-mavx512bw")),
    "GGML_AVX512_VBMI": (_AVX512 | {"avx512_vbmi"}, ("-mavx512vbmi",)),
    "GGML_AVX512_VNNI": (_AVX512 | {"avx512_vnni"}, ("-mavx512vnni",)),
    "GGML_AVX512_BF16": (_AVX512 | {"avx512_bf16"}, ("-mavx512bf16",)),
    "GGML_AMX_TILE": (_AVX512 | {"amx_tile"}, ("-mamx-tile",)),
    "GGML_AMX_INT8": (_AVX512 | {"amx_tile", "amx_int8"}, ("-mamx-int8",)),
    "GGML_AMX_BF16": (_AVX512 | {"amx_tile", "amx_bf16"}, ("-mamx-bf16",)),
}
_ARM_TAGS = ("dotprod", "fp16", "i8mm", "sve", "sve2")

# No page, no fetching, no starting of programs, no encryption that nothing needs behind a private socket.
_ALWAYS: Mapping[str, str] = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_CCACHE": "OFF",
    "GGML_OPENMP": "OFF",
    "GGML_RPC": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_SUBPROCESS": "OFF",
    "LLAMA_LLGUIDANCE": "OFF",
    "LLAMA_BUILD_NUMBER": "0",
}
FLAGS = ("-ftls-model=initial-exec",)
"""Thread-local variables at fixed offsets: the libraries are part of the program, never loaded later."""


@dataclass(frozen=True)
class Recipe:
    """A way to build. `compiler`: the system's, or the one that comes as a wheel. `options`: beside the usual ones.
    `gpu`: with the GPU's toolchain, where there is one. `kernels`: with bendi's own, where they fit (`native_kernels`).
    """

    name: str
    compiler: Literal["system", "zig"]
    options: Mapping[str, str]
    summary: str
    gpu: bool = False
    kernels: bool = False


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("fast", "system", {}, N_("with bendi's own kernels, where this CPU can use them"), kernels=True),
        Recipe("static", "system", {}, N_("llama.cpp as it is: one program, threads of its own")),
        Recipe("static-lto", "system", {"GGML_LTO": "ON"}, N_("like static, optimised across files when it is linked")),
        Recipe("openmp", "system", {"GGML_OPENMP": "ON"}, N_("threads of the compiler's OpenMP library")),
        Recipe("zig", "zig", {}, N_("compiled with the ziglang wheel: for systems without a compiler")),
        Recipe("gpu", "system", {}, N_("with CUDA, ROCm or Vulkan, where its toolchain is: untried"), gpu=True),
    )
}
DEFAULT_RECIPE = "fast"


@dataclass(frozen=True)
class Ingredients:
    """What a build is made of. `compiler`: kind, version and target. `options`: for CMake; `flags`: of the compiler,
    for every file. `kernels`: the digest of bendi's own, empty without."""

    recipe: str
    source_sha256: str
    compiler: str
    isa: tuple[str, ...]
    options: Mapping[str, str]
    flags: tuple[str, ...]
    kernels: str


@dataclass(frozen=True)
class Configuration(Ingredients):
    """All that decides what a build computes with."""

    targets: tuple[str, ...]

    @property
    def build_id(self) -> str:
        """The same for the same words: recipe, source, options, flags, compiler and CPU."""
        words = {**vars(self), "options": dict(sorted(self.options.items()))}
        return f"{self.recipe}-{hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:10]}"


def isa_options(cpu: Cpu) -> dict[str, str]:
    """Options for exactly what `cpu` can do; for architectures without a table here the compiler is asked."""
    if cpu.architecture == "x86_64":
        switched = {option: "ON" if needed <= cpu.isa else "OFF" for option, (needed, _flags) in _X86.items()}
        return {"GGML_NATIVE": "OFF", **switched}
    if cpu.architecture == "aarch64" and sys.platform != "darwin":
        tags = [tag for tag in _ARM_TAGS if tag in cpu.isa]
        base = "armv8.2-a" if {"dotprod", "fp16"} & cpu.isa else "armv8-a"
        return {"GGML_NATIVE": "OFF", "GGML_CPU_ARM_ARCH": "+".join([base, *tags])}
    return {"GGML_NATIVE": "ON"}


def isa_flags(cpu: Cpu) -> list[str]:
    """What a compiler must understand to build for `cpu`."""
    options = isa_options(cpu)
    if "GGML_CPU_ARM_ARCH" in options:
        return [f"-march={options['GGML_CPU_ARM_ARCH']}"]
    return [flag for option, (_needed, flags) in _X86.items() if options.get(option) == "ON" for flag in flags]


def gpu_options(gpus: Sequence[Gpu], system: str, path: str | None = None) -> dict[str, str]:
    """Options for the GPUs of this machine whose toolchain is installed: CUDA, else ROCm, else Vulkan; Metal on macOS.

    `path`: where programs are looked for, as in PATH.
    """
    if system == "Darwin":
        return {"GGML_METAL": "ON", "GGML_METAL_EMBED_LIBRARY": "ON"}
    off = {"GGML_METAL": "OFF"}
    vendors = {gpu.vendor for gpu in gpus}
    if "nvidia" in vendors and which("nvcc", path=path):
        return {**off, "GGML_CUDA": "ON", "GGML_CUDA_NCCL": "OFF"}
    if "amd" in vendors and which("hipcc", path=path):
        return {**off, "GGML_HIP": "ON"}
    if vendors and which("glslc", path=path):
        return {**off, "GGML_VULKAN": "ON"}
    return off


def all_options(recipe: Recipe, cpu: Cpu, gpu: Mapping[str, str], version: str) -> dict[str, str]:
    """Every option that is passed. `version`: of the source package, which `llama-server --version` then shows."""
    return {**_ALWAYS, **isa_options(cpu), **gpu, **recipe.options, "LLAMA_BUILD_COMMIT": version}

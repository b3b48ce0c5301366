"""bendi's own kernels: code that takes the place of some of llama.cpp's in native builds, whose source is not touched.

Each lies in `assets/kernels` and says there what it does differently. It is compiled together with llama.cpp's CPU
code, and the linker sends the calls of the functions that it replaces to it (`--wrap`), or it is a header that is
included before that code. Like everything else in a build it is used only after the proof (`native_proof`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bendi.hardware import Cpu

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "kernels"
_WIDE = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx2", "fma", "f16c"})


@dataclass(frozen=True)
class Kernel:
    """`source`: a file in FOLDER. `replaces`: functions of llama.cpp; none for a header. `needs`: what the CPU must
    have for it to be worth compiling."""

    source: str
    replaces: tuple[str, ...]
    needs: frozenset[str]


KERNELS = (
    Kernel("waiting.h", (), frozenset()),
    Kernel("buffers.cpp", ("ggml_backend_buffer_clear", "ggml_backend_buft_alloc_buffer"), frozenset()),
    Kernel("attention.cpp", ("ggml_compute_forward_flash_attn_ext",), frozenset({"avx2", "fma", "f16c"})),
    Kernel(
        "products.cpp",
        (
            "ggml_gemv_q4_0_8x8_q8_0",
            "ggml_gemv_iq4_nl_8x8_q8_0",
            "ggml_gemv_mxfp4_8x8_q8_0",
            "ggml_gemv_q4_K_8x8_q8_K",
            "ggml_vec_dot_q8_0_q8_0",
            "ggml_vec_dot_q6_K_q8_K",
        ),
        _WIDE,
    ),
    Kernel(
        "prompts.cpp",
        (
            "ggml_gemm_q4_K_8x8_q8_K",
            "ggml_gemm_q4_0_8x8_q8_0",
            "ggml_gemm_iq4_nl_8x8_q8_0",
            "ggml_gemm_mxfp4_8x8_q8_0",
        ),
        _WIDE,
    ),
    Kernel(
        "matrices.cpp",
        ("ggml_compute_forward_mul_mat_tiled", "ggml_compute_forward_mul_mat_id_tiled"),
        _WIDE,
    ),
    Kernel("interleaved.cpp", ("ggml_cpu_extra_compute_forward",), _WIDE),
)


def kernels_for(cpu: Cpu) -> tuple[Kernel, ...]:
    """Those that a build for `cpu` can have. `--wrap` is a word of the GNU linker and of LLVM's, also in zig, for ELF
    files."""
    if not sys.platform.startswith("linux"):
        return ()
    here = KERNELS if cpu.architecture == "x86_64" else tuple(kernel for kernel in KERNELS if not kernel.replaces)
    return tuple(kernel for kernel in here if kernel.needs <= cpu.isa)


def digest(kernels: Sequence[Kernel]) -> str:
    """The same for the same kernels and sources; empty without any."""
    if not kernels:
        return ""
    found = hashlib.sha256()
    for kernel in kernels:
        found.update(" ".join([kernel.source, *kernel.replaces, ""]).encode())
    for path in sorted(FOLDER.glob("*.[ch]*")):
        found.update(path.read_bytes())
    return found.hexdigest()


def cmake_text(kernels: Sequence[Kernel]) -> str:
    """What CMake must include after it has begun with llama.cpp's project: once all its targets are known, the kernels
    become part of the CPU code, and whatever is linked with that redirects the calls."""
    only_c = "$<$<COMPILE_LANGUAGE:C>:-include{}>"
    headers = [only_c.format(_path(kernel)) for kernel in kernels if not kernel.replaces]
    sources = [_path(kernel) for kernel in kernels if kernel.replaces]
    options = [f"LINKER:--wrap={name}" for kernel in kernels for name in kernel.replaces]
    calls = (
        ("target_compile_options ggml-cpu PRIVATE", headers),
        ("target_sources ggml-cpu PRIVATE", sources),
        ("target_link_options ggml-cpu INTERFACE", options),
    )
    return "".join(f"cmake_language(DEFER CALL {call} {_quoted(words)})\n" for call, words in calls if words)


def _quoted(words: Sequence[str]) -> str:
    return " ".join(f'"{word}"' for word in words)


def _path(kernel: Kernel) -> str:
    return (FOLDER / kernel.source).as_posix()

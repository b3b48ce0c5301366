// Products of 4-bit matrices (Q4_K, Q4_0, IQ4_NL, MXFP4) with many vectors (prompts), for CPUs with AVX-512 and VNNI, in place of
// llama.cpp's (ggml/src/ggml-cpu/arch/x86/repack.cpp).
//
// There, nibbles are taken apart again for every four vectors, here once for all of them (sixteen_rows.h).
//
// The linker sends calls of the originals here (--wrap); `__real_...` are the originals.

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "repack.h"

#define GEMM_PARAMETERS int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc

#define DECLARE_GEMM(name)                           \
    extern "C" void __real_##name(GEMM_PARAMETERS);  \
    extern "C" void __wrap_##name(GEMM_PARAMETERS);

DECLARE_GEMM(ggml_gemm_q4_K_8x8_q8_K)
DECLARE_GEMM(ggml_gemm_q4_0_8x8_q8_0)
DECLARE_GEMM(ggml_gemm_iq4_nl_8x8_q8_0)
DECLARE_GEMM(ggml_gemm_mxfp4_8x8_q8_0)

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__) && defined(__F16C__) && defined(__FMA__)

#include "sixteen_rows.h"

namespace {

template <typename Kind> void gemm(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc, int block) {
    static thread_local std::vector<__m512i> scratch;
    const Product p = {n / block, s, bs, vx, vy, nr / VECTORS, nc / 8};
    Kind::prepare(p);
    for (int group = 0; group < p.groups; group += GROUPS) {
        sixteen_rows<Kind>(p, group, scratch);
    }
}

}  // namespace

#define WRAP_GEMM(name, kind, block) \
    extern "C" void __wrap_##name(GEMM_PARAMETERS) { gemm<kind>(n, s, bs, vx, vy, nr, nc, block); }

WRAP_GEMM(ggml_gemm_q4_K_8x8_q8_K, WithMinima, QK_K)
WRAP_GEMM(ggml_gemm_q4_0_8x8_q8_0, WithExcess<Linear>, QK8_0)
WRAP_GEMM(ggml_gemm_iq4_nl_8x8_q8_0, WithExcess<Nonlinear>, QK8_0)
WRAP_GEMM(ggml_gemm_mxfp4_8x8_q8_0, WithExcess<Float4>, QK8_0)

#else

#define PASS_ON_GEMM(name) \
    extern "C" void __wrap_##name(GEMM_PARAMETERS) { __real_##name(n, s, bs, vx, vy, nr, nc); }

PASS_ON_GEMM(ggml_gemm_q4_K_8x8_q8_K)
PASS_ON_GEMM(ggml_gemm_q4_0_8x8_q8_0)
PASS_ON_GEMM(ggml_gemm_iq4_nl_8x8_q8_0)
PASS_ON_GEMM(ggml_gemm_mxfp4_8x8_q8_0)

#endif

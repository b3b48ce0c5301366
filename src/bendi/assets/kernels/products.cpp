// Products of quantized rows with a vector, for CPUs with AVX-512 and VNNI, in place of llama.cpp's, which are written for
// 256-bit registers (ggml/src/ggml-cpu/arch/x86/repack.cpp and quants.c there). See one_vector.h; memory is asked for early,
// since the hardware's own prefetching stops at the end of each page.
//
// The linker sends calls of the originals here (--wrap); `__real_...` are the originals.

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "repack.h"

#include <cstddef>
#include <cstring>

#define GEMV_PARAMETERS int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc
#define DOT_PARAMETERS int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc

#define DECLARE_GEMV(name)                           \
    extern "C" void __real_##name(GEMV_PARAMETERS);  \
    extern "C" void __wrap_##name(GEMV_PARAMETERS);
#define DECLARE_DOT(name)                           \
    extern "C" void __real_##name(DOT_PARAMETERS);  \
    extern "C" void __wrap_##name(DOT_PARAMETERS);

DECLARE_GEMV(ggml_gemv_q4_0_8x8_q8_0)
DECLARE_GEMV(ggml_gemv_iq4_nl_8x8_q8_0)
DECLARE_GEMV(ggml_gemv_mxfp4_8x8_q8_0)
DECLARE_GEMV(ggml_gemv_q4_K_8x8_q8_K)
DECLARE_DOT(ggml_vec_dot_q8_0_q8_0)
DECLARE_DOT(ggml_vec_dot_q6_K_q8_K)

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__) && defined(__F16C__) && defined(__FMA__)

#include "one_vector.h"

namespace {

// Two blocks of Q8_0: their products, scaled. VNNI multiplies a number without a sign with one that has it: the sign of
// `x` is moved to `y`.
inline __m512 two_blocks(const block_q8_0 * x, const block_q8_0 * y, __m512 sum) {
    const auto both = [](const block_q8_0 * blocks) {
        const __m512i first = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) blocks[0].qs));
        return _mm512_inserti64x4(first, _mm256_loadu_si256((const __m256i *) blocks[1].qs), 1);
    };
    const __m512i xs = both(x), ys = both(y);
    const __m512i moved = _mm512_mask_sub_epi8(ys, _mm512_movepi8_mask(xs), _mm512_setzero_si512(), ys);
    const __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_abs_epi8(xs), moved);
    const __m512 first = _mm512_castps256_ps512(_mm256_set1_ps(_cvtsh_ss(x[0].d) * _cvtsh_ss(y[0].d)));
    const __m512 scale = _mm512_insertf32x8(first, _mm256_set1_ps(_cvtsh_ss(x[1].d) * _cvtsh_ss(y[1].d)), 1);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum);
}

float dot_q8_0(int n, const block_q8_0 * x, const block_q8_0 * y) {
    const int blocks = n / QK8_0;
    __m512 sum = _mm512_setzero_ps(), other = _mm512_setzero_ps();
    int b = 0;
    for (; b + 4 <= blocks; b += 4) {
        ask_for((const char *) (x + b) + AHEAD, 4 * sizeof(block_q8_0));
        sum = two_blocks(x + b, y + b, sum);
        other = two_blocks(x + b + 2, y + b + 2, other);
    }
    for (; b + 2 <= blocks; b += 2) {
        sum = two_blocks(x + b, y + b, sum);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(sum, other));
}

}  // namespace

#define WRAP_GEMV(name, kernel)                      \
    extern "C" void __wrap_##name(GEMV_PARAMETERS) { \
        (void) bs;                                   \
        if (nr != 1) {                               \
            __real_##name(n, s, bs, vx, vy, nr, nc); \
            return;                                  \
        }                                            \
        kernel(n, s, vx, vy, nc, nullptr);           \
    }

WRAP_GEMV(ggml_gemv_q4_0_8x8_q8_0, gemv_of_4_bits<Linear>)
WRAP_GEMV(ggml_gemv_iq4_nl_8x8_q8_0, gemv_of_4_bits<Nonlinear>)
WRAP_GEMV(ggml_gemv_mxfp4_8x8_q8_0, gemv_of_4_bits<Float4>)
WRAP_GEMV(ggml_gemv_q4_K_8x8_q8_K, gemv_q4_K)

extern "C" void __wrap_ggml_vec_dot_q8_0_q8_0(DOT_PARAMETERS) {
    if (nrc != 1 || n % (2 * QK8_0)) {
        __real_ggml_vec_dot_q8_0_q8_0(n, s, bs, vx, bx, vy, by, nrc);
        return;
    }
    *s = dot_q8_0(n, (const block_q8_0 *) vx, (const block_q8_0 *) vy);
}

extern "C" void __wrap_ggml_vec_dot_q6_K_q8_K(DOT_PARAMETERS) {
    if (nrc != 1) {
        __real_ggml_vec_dot_q6_K_q8_K(n, s, bs, vx, bx, vy, by, nrc);
        return;
    }
    const block_q6_K * row = (const block_q6_K *) vx;
    *s = dot_q6_K(n, row, (const block_q8_K *) vy, Later(row + n / QK_K, nullptr));
}

#else

#define PASS_ON_GEMV(name) \
    extern "C" void __wrap_##name(GEMV_PARAMETERS) { __real_##name(n, s, bs, vx, vy, nr, nc); }
#define PASS_ON_DOT(name) \
    extern "C" void __wrap_##name(DOT_PARAMETERS) { __real_##name(n, s, bs, vx, bx, vy, by, nrc); }

PASS_ON_GEMV(ggml_gemv_q4_0_8x8_q8_0)
PASS_ON_GEMV(ggml_gemv_iq4_nl_8x8_q8_0)
PASS_ON_GEMV(ggml_gemv_mxfp4_8x8_q8_0)
PASS_ON_GEMV(ggml_gemv_q4_K_8x8_q8_K)
PASS_ON_DOT(ggml_vec_dot_q8_0_q8_0)
PASS_ON_DOT(ggml_vec_dot_q6_K_q8_K)

#endif

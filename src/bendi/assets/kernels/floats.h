// Vectors of floats, 16 or 8 at a time, by what the compiler may use: what the kernels of attention are written with.

#pragma once

#include "ggml.h"

#include <immintrin.h>

namespace {

#if defined(__AVX512F__)
struct Floats {
    static constexpr int COUNT = 16;
    __m512 v;

    static Floats zero() { return {_mm512_setzero_ps()}; }
    static Floats all(float x) { return {_mm512_set1_ps(x)}; }
    static Floats load(const float * p) { return {_mm512_loadu_ps(p)}; }
    static Floats load(const ggml_fp16_t * p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p))}; }
    void store(float * p) const { _mm512_storeu_ps(p, v); }
    float sum() const { return _mm512_reduce_add_ps(v); }
    float largest() const { return _mm512_reduce_max_ps(v); }
};
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats muladd(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats larger(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats nearest(Floats a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Floats times_power_of_2(Floats a, Floats whole) { return {_mm512_scalef_ps(a.v, whole.v)}; }
#else
struct Floats {
    static constexpr int COUNT = 8;
    __m256 v;

    static Floats zero() { return {_mm256_setzero_ps()}; }
    static Floats all(float x) { return {_mm256_set1_ps(x)}; }
    static Floats load(const float * p) { return {_mm256_loadu_ps(p)}; }
    static Floats load(const ggml_fp16_t * p) { return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p))}; }
    void store(float * p) const { _mm256_storeu_ps(p, v); }
    float sum() const {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }
    float largest() const {
        __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        half = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
    }
};
inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats muladd(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats larger(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Floats nearest(Floats a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Floats times_power_of_2(Floats a, Floats whole) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole.v), _mm256_set1_epi32(127)), 23);
    return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(exponent))};
}
#endif

// e^x for x <= 0, 0 below -87: 2^n * e^r with |r| <= ln(2)/2, where the Taylor polynomial of degree 6 is off by 2e-7.
inline Floats exponential(Floats x) {
    const Floats bounded = larger(x, Floats::all(-87.0f));
    const Floats n = nearest(bounded * Floats::all(1.44269504f));
    Floats r = muladd(n, Floats::all(-0.693145752f), bounded);
    r = muladd(n, Floats::all(-1.42860677e-6f), r);
    Floats sum = Floats::all(1.0f / 720);
    for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f}) {
        sum = muladd(sum, r, Floats::all(term));
    }
    return times_power_of_2(sum, n);
}

}  // namespace

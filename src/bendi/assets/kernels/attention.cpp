// Attention for few queries at a time (token generation), in place of llama.cpp's where that would go through the past
// one position after another.
//
// llama.cpp's kernel (ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_flash_attn_ext) reads keys and values once for
// each query head, keeps its sums in 16 bits and takes one exponential at a time. Here all query heads that share keys
// and values are computed together, so that these are read and widened once; exponentials are taken for a whole vector;
// and sums are kept in 32 bits. Built with AVX2 or AVX-512. Anything that is not covered here is left to the original.
//
// The linker sends calls of the original here (--wrap); `__real_...` is the original.

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "ops.h"

#include <cfloat>
#include <cmath>
#include <cstring>

extern "C" void __real_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);
extern "C" void __wrap_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

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

constexpr int TILE = 64;              // positions of the past that are looked at together
constexpr int64_t MOST_QUERIES = 32;  // tokens at once; for more of them the original computes in tiles of its own
constexpr int MOST_LENGTH = 256;      // of a head
constexpr ggml_fp16_t MINUS_INFINITY = 0xfc00;

// What one operation is about. Strides in bytes.
struct Attention {
    const ggml_tensor * q, * k, * v, * mask, * sinks;
    ggml_tensor * dst;
    int64_t heads, kv_heads, queries, past;
    float scale;

    int64_t group() const { return heads / kv_heads; }
    const float * query(int64_t head, int64_t i) const {
        return (const float *) ((const char *) q->data + i * q->nb[1] + head * q->nb[2]);
    }
    const ggml_fp16_t * key(int64_t kv_head, int64_t at) const {
        return (const ggml_fp16_t *) ((const char *) k->data + at * k->nb[1] + kv_head * k->nb[2]);
    }
    const ggml_fp16_t * value(int64_t kv_head, int64_t at) const {
        return (const ggml_fp16_t *) ((const char *) v->data + at * v->nb[1] + kv_head * v->nb[2]);
    }
    // What is added to the scores of query `i`, in half precision; all zeros where there is no mask.
    const ggml_fp16_t * masked(int64_t i) const {
        return mask ? (const ggml_fp16_t *) ((const char *) mask->data + i * mask->nb[1]) : nullptr;
    }
    float * out(int64_t head, int64_t i) const {
        return (float *) ((char *) dst->data + (head + i * heads) * dst->nb[1]);
    }
};

// The softmax of a head so far: its largest score, the sum of exponentials, and values weighted with these.
struct Partial {
    float largest, sum;
    float values[MOST_LENGTH];

    void rescale(float new_largest, int64_t length) {
        const float factor = largest == -INFINITY ? 0.0f : expf(largest - new_largest);
        largest = new_largest;
        sum *= factor;
        for (int64_t d = 0; d < length; d++) {
            values[d] *= factor;
        }
    }
};

// Positions of a tile that are seen: their mask as numbers. Returns whether there is any.
inline bool visible(const ggml_fp16_t * mask, int64_t at, int count, float * numbers) {
    if (!mask) {
        memset(numbers, 0, sizeof(float) * TILE);
        return true;
    }
    ggml_fp16_t padded[TILE];
    const ggml_fp16_t * halves = mask + at;
    if (count < TILE) {
        for (int p = 0; p < TILE; p++) {
            padded[p] = p < count ? halves[p] : MINUS_INFINITY;
        }
        halves = padded;
    }
    Floats most = Floats::all(-INFINITY);
    for (int p = 0; p < TILE; p += Floats::COUNT) {
        const Floats part = Floats::load(halves + p);
        part.store(numbers + p);
        most = larger(most, part);
    }
    return most.largest() != -INFINITY;
}

// Scores of HEADS heads of queries, each of LENGTH vectors of numbers, with `count` keys.
template <int HEADS, int LENGTH>
inline void score(const Attention & a, const float * const * queries, int64_t kv_head, int64_t at, int count,
                  const float * mask, float (*scores)[TILE]) {
    for (int p = 0; p < count; p++) {
        if (mask[p] == -INFINITY) {  // what lies there may be anything
            for (int h = 0; h < HEADS; h++) {
                scores[h][p] = -INFINITY;
            }
            continue;
        }
        const ggml_fp16_t * key = a.key(kv_head, at + p);
        Floats sums[HEADS][2];
        for (int h = 0; h < HEADS; h++) {
            sums[h][0] = sums[h][1] = Floats::zero();
        }
        for (int d = 0; d < LENGTH; d++) {
            const Floats part = Floats::load(key + d * Floats::COUNT);
            for (int h = 0; h < HEADS; h++) {
                sums[h][d % 2] = muladd(part, Floats::load(queries[h] + d * Floats::COUNT), sums[h][d % 2]);
            }
        }
        for (int h = 0; h < HEADS; h++) {
            scores[h][p] = (sums[h][0] + sums[h][1]).sum() * a.scale + mask[p];
        }
    }
}

// From scores to weights; what was summed before is rescaled to the new largest score.
template <int LENGTH> inline void weigh(Partial & partial, float * scores, int count) {
    for (int p = count; p < TILE; p++) {
        scores[p] = -INFINITY;
    }
    Floats largest = Floats::load(scores);
    for (int p = Floats::COUNT; p < TILE; p += Floats::COUNT) {
        largest = larger(largest, Floats::load(scores + p));
    }
    const float most = largest.largest();
    if (most > partial.largest) {
        partial.rescale(most, LENGTH * Floats::COUNT);
    }
    const Floats base = Floats::all(partial.largest);
    Floats sum = Floats::zero();
    for (int p = 0; p < TILE; p += Floats::COUNT) {
        const Floats weights = exponential(Floats::load(scores + p) - base);
        weights.store(scores + p);
    }
    for (int p = count; p < TILE; p++) {
        scores[p] = 0.0f;
    }
    for (int p = 0; p < TILE; p += Floats::COUNT) {
        sum = sum + Floats::load(scores + p);
    }
    partial.sum += sum.sum();
}

// Adds values times weights, WIDTH vectors of each value at a time, so that the sums stay in registers.
template <int HEADS, int LENGTH, int WIDTH>
inline void add_values(const Attention & a, Partial * partials, int64_t kv_head, int64_t at, int count,
                       const float * mask, const float (*weights)[TILE]) {
    for (int start = 0; start < LENGTH; start += WIDTH) {
        Floats sums[HEADS][WIDTH];
        for (int h = 0; h < HEADS; h++) {
            for (int d = 0; d < WIDTH; d++) {
                sums[h][d] = Floats::load(partials[h].values + (start + d) * Floats::COUNT);
            }
        }
        for (int p = 0; p < count; p++) {
            if (mask[p] == -INFINITY) {
                continue;
            }
            const ggml_fp16_t * value = a.value(kv_head, at + p) + start * Floats::COUNT;
            Floats weight[HEADS];
            for (int h = 0; h < HEADS; h++) {
                weight[h] = Floats::all(weights[h][p]);
            }
            for (int d = 0; d < WIDTH; d++) {
                const Floats part = Floats::load(value + d * Floats::COUNT);
                for (int h = 0; h < HEADS; h++) {
                    sums[h][d] = muladd(part, weight[h], sums[h][d]);
                }
            }
        }
        for (int h = 0; h < HEADS; h++) {
            for (int d = 0; d < WIDTH; d++) {
                sums[h][d].store(partials[h].values + (start + d) * Floats::COUNT);
            }
        }
    }
}

// HEADS heads from `head` on, which share keys and values, for query `i`, over positions from `start` to `end`.
template <int HEADS, int LENGTH>
void attend(const Attention & a, int64_t head, int64_t i, int64_t start, int64_t end, Partial * partials) {
    constexpr int REGISTERS = Floats::COUNT == 16 ? 16 : 8;
    constexpr int FITTING = REGISTERS / HEADS;
    constexpr int WIDTH = LENGTH % FITTING == 0 ? FITTING : LENGTH % 4 == 0 && FITTING >= 4 ? 4 : LENGTH % 2 == 0 ? 2 : 1;
    const int64_t kv_head = head / a.group();
    const float * queries[HEADS];
    for (int h = 0; h < HEADS; h++) {
        queries[h] = a.query(head + h, i);
        partials[h].largest = -INFINITY;
        partials[h].sum = 0.0f;
        for (int d = 0; d < LENGTH; d++) {
            Floats::zero().store(partials[h].values + d * Floats::COUNT);
        }
    }
    const ggml_fp16_t * mask = a.masked(i);
    float seen[TILE], scores[HEADS][TILE];
    for (int64_t at = start; at < end; at += TILE) {
        const int count = (int) (end - at < TILE ? end - at : TILE);
        if (!visible(mask, at, count, seen)) {
            continue;
        }
        score<HEADS, LENGTH>(a, queries, kv_head, at, count, seen, scores);
        for (int h = 0; h < HEADS; h++) {
            weigh<LENGTH>(partials[h], scores[h], count);
        }
        add_values<HEADS, LENGTH, WIDTH>(a, partials, kv_head, at, count, seen, scores);
    }
}

using Attend = void (*)(const Attention &, int64_t, int64_t, int64_t, int64_t, Partial *);

struct Kernels {
    Attend four, two, one;
};

template <int LENGTH> Kernels kernels() { return {attend<4, LENGTH>, attend<2, LENGTH>, attend<1, LENGTH>}; }

// For heads of `length` numbers; empty where there are none.
inline Kernels kernels_for(int64_t length) {
    switch (length) {
        case 64: return kernels<64 / Floats::COUNT>();
        case 80: return kernels<80 / Floats::COUNT>();
        case 96: return kernels<96 / Floats::COUNT>();
        case 112: return kernels<112 / Floats::COUNT>();
        case 128: return kernels<128 / Floats::COUNT>();
        case 192: return kernels<192 / Floats::COUNT>();
        case 256: return kernels<256 / Floats::COUNT>();
        default: return {nullptr, nullptr, nullptr};
    }
}

// The attention sink of a head is a score without a value.
inline void add_sink(const Attention & a, int64_t head, Partial & partial, int64_t length) {
    if (!a.sinks) {
        return;
    }
    const float score = ((const float *) a.sinks->data)[head];
    if (score > partial.largest) {
        partial.rescale(score, length);
    }
    partial.sum += expf(score - partial.largest);
}

inline void finish(const Attention & a, int64_t head, int64_t i, Partial & partial, int64_t length) {
    add_sink(a, head, partial, length);
    const float factor = partial.sum == 0.0f ? 0.0f : 1.0f / partial.sum;
    float * out = a.out(head, i);
    for (int64_t d = 0; d < length; d++) {
        out[d] = partial.values[d] * factor;
    }
}

// Whether all that is special about this operation is covered here.
bool covered(const ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0], * k = dst->src[1], * v = dst->src[2], * mask = dst->src[3];
    float numbers[3];
    memcpy(numbers, dst->op_params, sizeof(numbers));
    const bool plain = numbers[1] == 0.0f && numbers[2] == 0.0f;  // neither ALiBi nor a cap
    const bool types = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16;
    const bool shapes = k->ne[0] == v->ne[0] && q->ne[3] == 1 && k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0;
    const bool one_mask = !mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1 && mask->ne[3] == 1);
    return plain && types && shapes && one_mask && q->ne[1] <= MOST_QUERIES && kernels_for(k->ne[0]).one;
}

// Every thread takes a piece of the past, for all heads; then the pieces are put together.
void split_past(const Attention & a, const Kernels & kernels, const ggml_compute_params * params) {
    const int64_t length = a.v->ne[0], row = 2 + length;
    float * rows = (float *) params->wdata;
    int64_t piece = (a.past + params->nth - 1) / params->nth;
    piece = (piece + 15) / 16 * 16;
    const int64_t start = params->ith * piece < a.past ? params->ith * piece : a.past;
    const int64_t end = start + piece < a.past ? start + piece : a.past;
    Partial partials[4];
    for (int64_t kv_head = 0; kv_head < a.kv_heads; kv_head++) {
        for (int64_t h = 0; h < a.group();) {
            const int64_t left = a.group() - h, taken = left >= 4 ? 4 : left >= 2 ? 2 : 1;
            const int64_t head = kv_head * a.group() + h;
            (taken == 4 ? kernels.four : taken == 2 ? kernels.two : kernels.one)(a, head, 0, start, end, partials);
            for (int64_t j = 0; j < taken; j++) {
                float * out = rows + ((head + j) * params->nth + params->ith) * row;
                out[0] = partials[j].largest;
                out[1] = partials[j].sum;
                memcpy(out + 2, partials[j].values, sizeof(float) * length);
            }
            h += taken;
        }
    }
    ggml_barrier(params->threadpool);
    for (int64_t head = params->ith; head < a.heads; head += params->nth) {
        Partial & whole = partials[0];
        whole.largest = -INFINITY;
        whole.sum = 0.0f;
        memset(whole.values, 0, sizeof(float) * length);
        for (int thread = 0; thread < params->nth; thread++) {
            const float * part = rows + (head * params->nth + thread) * row;
            if (part[1] == 0.0f) {
                continue;
            }
            if (part[0] > whole.largest) {
                whole.rescale(part[0], length);
            }
            const float factor = expf(part[0] - whole.largest);
            whole.sum += part[1] * factor;
            for (int64_t d = 0; d < length; d++) {
                whole.values[d] += part[2 + d] * factor;
            }
        }
        finish(a, head, 0, whole, length);
    }
}

// Every thread takes whole groups of heads, query by query.
void split_heads(const Attention & a, const Kernels & kernels, const ggml_compute_params * params) {
    const int64_t length = a.v->ne[0];
    Partial partials[4];
    for (int64_t task = params->ith; task < a.kv_heads * a.queries; task += params->nth) {
        const int64_t kv_head = task % a.kv_heads, i = task / a.kv_heads;
        for (int64_t h = 0; h < a.group();) {
            const int64_t left = a.group() - h, taken = left >= 4 ? 4 : left >= 2 ? 2 : 1;
            const int64_t head = kv_head * a.group() + h;
            (taken == 4 ? kernels.four : taken == 2 ? kernels.two : kernels.one)(a, head, i, 0, a.past, partials);
            for (int64_t j = 0; j < taken; j++) {
                finish(a, head + j, i, partials[j], length);
            }
            h += taken;
        }
    }
}

}  // namespace

extern "C" void __wrap_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst) {
    if (params->use_ref || !covered(dst)) {
        __real_ggml_compute_forward_flash_attn_ext(params, dst);
        return;
    }
    const ggml_tensor * q = dst->src[0], * k = dst->src[1];
    Attention a = {q, k, dst->src[2], dst->src[3], dst->src[4], dst, q->ne[2], k->ne[2], q->ne[1], k->ne[1], 1.0f};
    memcpy(&a.scale, dst->op_params, sizeof(float));
    const Kernels kernels = kernels_for(k->ne[0]);
    const size_t needed = sizeof(float) * a.heads * params->nth * (2 + a.v->ne[0]);
    if (a.queries == 1 && params->nth > 1 && needed <= params->wsize) {
        split_past(a, kernels, params);
    } else {
        split_heads(a, kernels, params);
    }
}

#else

extern "C" void __wrap_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst) {
    __real_ggml_compute_forward_flash_attn_ext(params, dst);
}

#endif

// What the kernels of attention have in common: the operation, and tiles of the past.

#pragma once

#include "floats.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"

#include <cmath>
#include <cstring>

namespace {

constexpr int TILE = 64;              // positions of the past that are looked at together
constexpr int64_t FEW_QUERIES = 16;   // tokens at once that are computed one by one
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

// Positions of a tile that are seen: their mask as numbers. Returns whether there is any.
inline bool visible(const ggml_fp16_t * mask, int64_t at, int count, float * numbers) {
    if (!mask) {
        for (int p = 0; p < TILE; p++) {
            numbers[p] = p < count ? 0.0f : -INFINITY;
        }
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

// The result of a head for query `i`: weighted values over the sum of weights. The attention sink of a head is a score
// without a value.
inline void finish(const Attention & a, int64_t head, int64_t i, float largest, float sum, const float * values) {
    float factor = 1.0f;
    if (a.sinks) {
        const float score = ((const float *) a.sinks->data)[head];
        if (score > largest) {
            factor = expf(largest - score);
            sum = sum * factor + 1.0f;
        } else {
            sum += expf(score - largest);
        }
    }
    factor = sum == 0.0f ? 0.0f : factor / sum;
    float * out = a.out(head, i);
    for (int64_t d = 0; d < a.v->ne[0]; d++) {
        out[d] = values[d] * factor;
    }
}

}  // namespace

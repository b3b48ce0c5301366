// Attention for many queries at a time (prompts): tiles of 64 queries by 64 positions of the past.
//
// Keys and values of a tile are widened once for all query heads that share them, keys turned so that vectors run over
// positions. Scores and sums of values are then plain products of matrices, with sums in registers: a few rows by four
// vectors at a time, which keeps both multipliers of a core busy.

#pragma once

#include "attention.h"

#include <vector>

namespace {

constexpr int QUERIES = 64;                              // of a tile
constexpr int ROWS = Floats::COUNT == 16 ? 4 : 2;        // of a product that are computed together
constexpr int VECTORS = 4;                               // of each of them

// out[r][0 .. VECTORS) (+)= sum over i of rows[r][i] * matrix[i][...]: `matrix` has `stride` numbers in a row.
template <bool ADD>
inline void multiply(const float * const * rows, int length, const float * matrix, int stride, float * const * out) {
    Floats sums[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++) {
        for (int v = 0; v < VECTORS; v++) {
            sums[r][v] = ADD ? Floats::load(out[r] + v * Floats::COUNT) : Floats::zero();
        }
    }
    for (int i = 0; i < length; i++) {
        Floats part[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            part[v] = Floats::load(matrix + i * stride + v * Floats::COUNT);
        }
        for (int r = 0; r < ROWS; r++) {
            const Floats number = Floats::all(rows[r][i]);
            for (int v = 0; v < VECTORS; v++) {
                sums[r][v] = muladd(number, part[v], sums[r][v]);
            }
        }
    }
    for (int r = 0; r < ROWS; r++) {
        for (int v = 0; v < VECTORS; v++) {
            sums[r][v].store(out[r] + v * Floats::COUNT);
        }
    }
}

// What one thread computes with. `weights`, `sums` of one head are in use at a time; of all heads of a group are kept
// what was summed so far.
struct Workspace {
    std::vector<float> keys, values, scores, mask, sums, largest, total;

    void prepare(int64_t group, int64_t length) {
        keys.resize(length * TILE);
        values.resize(TILE * length);
        scores.resize(QUERIES * TILE);
        mask.resize(QUERIES * TILE);
        sums.assign(group * QUERIES * length, 0.0f);
        largest.assign(group * QUERIES, -INFINITY);
        total.assign(group * QUERIES, 0.0f);
    }
};

// The masks of `rows` queries from `first` on, as numbers; `used`: positions that any of them sees. Returns whether
// there are any.
inline bool widen_mask(const Attention & a, int64_t first, int rows, int64_t at, int count, float * numbers, bool * used) {
    bool any = false;
    for (int p = 0; p < TILE; p++) {
        used[p] = !a.mask && p < count;
    }
    for (int r = 0; r < rows; r++) {
        any |= visible(a.masked(first + r), at, count, numbers + r * TILE);
        for (int p = 0; p < count && a.mask; p++) {
            used[p] |= numbers[r * TILE + p] != -INFINITY;
        }
    }
    return any;
}

// Keys of a tile with positions side by side, values with their numbers side by side; zeros where nobody looks.
inline void widen(const Attention & a, int64_t kv_head, int64_t at, const bool * used, int64_t length, Workspace & w) {
    for (int p = 0; p < TILE; p += 4) {
        for (int64_t d = 0; d < length; d += 4) {
            __m128 rows[4];
            for (int j = 0; j < 4; j++) {
                rows[j] = _mm_setzero_ps();
                if (used[p + j]) {
                    rows[j] = _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *) (a.key(kv_head, at + p + j) + d)));
                }
            }
            _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
            for (int j = 0; j < 4; j++) {
                _mm_storeu_ps(w.keys.data() + (d + j) * TILE + p, rows[j]);
            }
        }
    }
    for (int p = 0; p < TILE; p++) {
        float * row = w.values.data() + p * length;
        for (int64_t d = 0; d < length; d += Floats::COUNT) {
            (used[p] ? Floats::load(a.value(kv_head, at + p) + d) : Floats::zero()).store(row + d);
        }
    }
}

// Scores of one row become weights; sums so far are rescaled to the new largest score.
inline void weigh_row(float * scores, const float * mask, float scale, float & largest, float & total, float * sums,
                      int64_t length) {
    Floats most = Floats::all(-INFINITY);
    for (int p = 0; p < TILE; p += Floats::COUNT) {
        const Floats score = muladd(Floats::load(scores + p), Floats::all(scale), Floats::load(mask + p));
        score.store(scores + p);
        most = larger(most, score);
    }
    const float found = most.largest();
    if (found == -INFINITY) {
        memset(scores, 0, sizeof(float) * TILE);
        return;
    }
    if (found > largest) {
        const float factor = largest == -INFINITY ? 0.0f : expf(largest - found);
        largest = found;
        total *= factor;
        for (int64_t d = 0; d < length; d += Floats::COUNT) {
            (Floats::load(sums + d) * Floats::all(factor)).store(sums + d);
        }
    }
    Floats sum = Floats::zero();
    for (int p = 0; p < TILE; p += Floats::COUNT) {
        const Floats weight = exponential(Floats::load(scores + p) - Floats::all(largest));
        weight.store(scores + p);
        sum = sum + weight;
    }
    total += sum.sum();
}

// One head of the group on a tile whose keys and values are widened. Rows beyond `rows` repeat the last one.
inline void attend_tile(const Attention & a, int64_t head, int64_t first, int rows, int64_t h, Workspace & w) {
    const int64_t length = a.v->ne[0];
    float * scores = w.scores.data();
    const auto row_of = [rows](int r) { return r < rows ? r : rows - 1; };
    for (int r = 0; r < rows; r += ROWS) {
        const float * queries[ROWS];
        for (int j = 0; j < ROWS; j++) {
            queries[j] = a.query(head, first + row_of(r + j));
        }
        for (int p = 0; p < TILE; p += VECTORS * Floats::COUNT) {
            float * out[ROWS];
            for (int j = 0; j < ROWS; j++) {
                out[j] = scores + (r + j) * TILE + p;
            }
            multiply<false>(queries, (int) length, w.keys.data() + p, TILE, out);
        }
    }
    float * sums = w.sums.data() + h * QUERIES * length;
    for (int r = 0; r < rows; r++) {
        const int64_t at = h * QUERIES + r;
        weigh_row(scores + r * TILE, w.mask.data() + r * TILE, a.scale, w.largest[at], w.total[at], sums + r * length,
                  length);
    }
    for (int r = 0; r < rows; r += ROWS) {
        const float * weights[ROWS];
        for (int j = 0; j < ROWS; j++) {
            weights[j] = scores + (r + j) * TILE;
        }
        for (int64_t d = 0; d < length; d += VECTORS * Floats::COUNT) {
            float * out[ROWS];
            for (int j = 0; j < ROWS; j++) {
                out[j] = sums + (r + j) * length + d;
            }
            multiply<true>(weights, TILE, w.values.data() + d, (int) length, out);
        }
    }
}

inline bool covers_tiles(int64_t length) { return length % (VECTORS * Floats::COUNT) == 0 && length <= MOST_LENGTH; }

// Every thread takes blocks of 64 queries of a group of heads.
inline void attend_in_tiles(const Attention & a, const ggml_compute_params * params) {
    static thread_local Workspace w;
    const int64_t length = a.v->ne[0], blocks = (a.queries + QUERIES - 1) / QUERIES;
    for (int64_t task = params->ith; task < a.kv_heads * blocks; task += params->nth) {
        const int64_t kv_head = task % a.kv_heads, first = task / a.kv_heads * QUERIES;
        const int rows = (int) (a.queries - first < QUERIES ? a.queries - first : QUERIES);
        w.prepare(a.group(), length);
        bool used[TILE];
        for (int64_t at = 0; at < a.past; at += TILE) {
            const int count = (int) (a.past - at < TILE ? a.past - at : TILE);
            if (!widen_mask(a, first, rows, at, count, w.mask.data(), used)) {
                continue;
            }
            widen(a, kv_head, at, used, length, w);
            for (int64_t h = 0; h < a.group(); h++) {
                attend_tile(a, kv_head * a.group() + h, first, rows, h, w);
            }
        }
        for (int64_t h = 0; h < a.group(); h++) {
            const int64_t head = kv_head * a.group() + h;
            for (int r = 0; r < rows; r++) {
                const int64_t at = h * QUERIES + r;
                finish(a, head, first + r, w.largest[at], w.total[at], w.sums.data() + at * length);
            }
        }
    }
}

}  // namespace

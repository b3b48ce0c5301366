// Attention in place of llama.cpp's. Here: few queries at a time (token generation); prompts: attention_tiles.h.
//
// llama.cpp's kernel (ggml/src/ggml-cpu/ops.cpp, ggml_compute_forward_flash_attn_ext) reads keys and values once for
// each query head, keeps its sums in 16 bits and takes one exponential at a time. Here all query heads that share keys
// and values are computed together, so that these are read and widened once; exponentials are taken for a whole vector;
// and sums are kept in 32 bits. With one query the past is gone through once for all heads, since what they need of one
// position lies together, and what comes next is asked for meanwhile. Built with AVX2 or AVX-512. Anything that is not
// covered here is left to the original.
//
// The linker sends calls of the original here (--wrap); `__real_...` is the original.

#include "ggml-cpu-impl.h"
#include "ops.h"

extern "C" void __real_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);
extern "C" void __wrap_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "attention.h"
#include "attention_tiles.h"

#include <algorithm>
#include <vector>

namespace {

constexpr int64_t STEP = 32;  // positions of the past for which all heads are computed, with one query

// The softmax of a head so far: its largest score, the sum of exponentials, and values weighted with these.
struct Partial {
    float largest, sum;
    float values[MOST_LENGTH];

    void begin(int64_t length) {
        largest = -INFINITY;
        sum = 0.0f;
        memset(values, 0, sizeof(float) * length);
    }

    void rescale(float new_largest, int64_t length) {
        const float factor = largest == -INFINITY ? 0.0f : expf(largest - new_largest);
        largest = new_largest;
        sum *= factor;
        for (int64_t d = 0; d < length; d++) {
            values[d] *= factor;
        }
    }
};

// Keys or values that come after those that are computed with: asked for in the order in which they lie in memory, a bit
// for every position of every head, and into the second cache: the first one's requests are few (30 GB/s against 18 on a
// Zen 4).
class Ahead {
  public:
    Ahead() = default;

    // `count` positions from `at` on, of all heads; nothing where heads of one position do not lie together.
    Ahead(const ggml_tensor * t, int64_t at, int count) {
        if ((int64_t) t->nb[2] * t->ne[2] == (int64_t) t->nb[1]) {
            next = (const char *) t->data + at * t->nb[1];
            end = next + count * t->nb[1];
        }
    }

    // As much as a head has at one position.
    template <int LENGTH> void ask() {
        if (next < end) {
            for (size_t d = 0; d < LENGTH * Floats::COUNT * sizeof(ggml_fp16_t); d += 64) {
                _mm_prefetch(next + d, _MM_HINT_T1);
            }
            next += LENGTH * Floats::COUNT * sizeof(ggml_fp16_t);
        }
    }

  private:
    const char * next = nullptr, * end = nullptr;
};

// Scores of HEADS heads of queries, each of LENGTH vectors of numbers, with `count` keys.
template <int HEADS, int LENGTH>
inline void score(const Attention & a, const float * const * queries, int64_t kv_head, int64_t at, int count,
                  const float * mask, Ahead & ahead, float (*scores)[TILE]) {
    for (int p = 0; p < count; p++) {
        ahead.ask<LENGTH>();
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
    const int end = (count + Floats::COUNT - 1) / Floats::COUNT * Floats::COUNT;
    for (int p = count; p < end; p++) {
        scores[p] = -INFINITY;
    }
    Floats largest = Floats::load(scores);
    for (int p = Floats::COUNT; p < end; p += Floats::COUNT) {
        largest = larger(largest, Floats::load(scores + p));
    }
    const float most = largest.largest();
    if (most > partial.largest) {
        partial.rescale(most, LENGTH * Floats::COUNT);
    }
    const Floats base = Floats::all(partial.largest);
    Floats sum = Floats::zero();
    for (int p = 0; p < end; p += Floats::COUNT) {
        const Floats weights = exponential(Floats::load(scores + p) - base);
        weights.store(scores + p);
    }
    for (int p = count; p < end; p++) {
        scores[p] = 0.0f;
    }
    for (int p = 0; p < end; p += Floats::COUNT) {
        sum = sum + Floats::load(scores + p);
    }
    partial.sum += sum.sum();
}

// Adds values times weights, WIDTH vectors of each value at a time, so that the sums stay in registers.
template <int HEADS, int LENGTH, int WIDTH>
inline void add_values(const Attention & a, Partial * partials, int64_t kv_head, int64_t at, int count,
                       const float * mask, Ahead & ahead, const float (*weights)[TILE]) {
    for (int start = 0; start < LENGTH; start += WIDTH) {
        Floats sums[HEADS][WIDTH];
        for (int h = 0; h < HEADS; h++) {
            for (int d = 0; d < WIDTH; d++) {
                sums[h][d] = Floats::load(partials[h].values + (start + d) * Floats::COUNT);
            }
        }
        for (int p = 0; p < count; p++) {
            if (start == 0) {
                ahead.ask<LENGTH>();
            }
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

// What HEADS heads from `head` on, which share keys and values, add for query `i` at `count` positions from `at` on.
template <int HEADS, int LENGTH>
void attend(const Attention & a, int64_t head, int64_t i, int64_t at, int count, const float * seen, Ahead & keys,
            Ahead & values, Partial * partials) {
    constexpr int REGISTERS = Floats::COUNT == 16 ? 16 : 8;
    constexpr int FITTING = REGISTERS / HEADS;
    constexpr int WIDTH = LENGTH % FITTING == 0 ? FITTING : LENGTH % 4 == 0 && FITTING >= 4 ? 4 : LENGTH % 2 == 0 ? 2 : 1;
    const int64_t kv_head = head / a.group();
    const float * queries[HEADS];
    for (int h = 0; h < HEADS; h++) {
        queries[h] = a.query(head + h, i);
    }
    float scores[HEADS][TILE];
    score<HEADS, LENGTH>(a, queries, kv_head, at, count, seen, keys, scores);
    for (int h = 0; h < HEADS; h++) {
        weigh<LENGTH>(partials[h], scores[h], count);
    }
    add_values<HEADS, LENGTH, WIDTH>(a, partials, kv_head, at, count, seen, values, scores);
}

using Attend = void (*)(const Attention &, int64_t, int64_t, int64_t, int, const float *, Ahead &, Ahead &, Partial *);

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

// Whether all that is special about this operation is covered here.
bool covered(const ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0], * k = dst->src[1], * v = dst->src[2], * mask = dst->src[3];
    float numbers[3];
    memcpy(numbers, dst->op_params, sizeof(numbers));
    const bool plain = numbers[1] == 0.0f && numbers[2] == 0.0f;  // neither ALiBi nor a cap
    const bool types = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16;
    const bool shapes = k->ne[0] == v->ne[0] && q->ne[3] == 1 && k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0;
    const bool one_mask = !mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1 && mask->ne[3] == 1);
    const bool length = q->ne[1] > FEW_QUERIES ? covers_tiles(k->ne[0]) : kernels_for(k->ne[0]).one != nullptr;
    return plain && types && shapes && one_mask && length;
}

// As `attend`, all heads that share keys and values.
void attend_all(const Attention & a, const Kernels & kernels, int64_t kv_head, int64_t i, int64_t at, int count,
                const float * seen, Ahead & keys, Ahead & values, Partial * partials) {
    for (int64_t h = 0; h < a.group();) {
        const int64_t left = a.group() - h, taken = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const Attend compute = taken == 4 ? kernels.four : taken == 2 ? kernels.two : kernels.one;
        compute(a, kv_head * a.group() + h, i, at, count, seen, keys, values, partials + h);
        h += taken;
    }
}

Partial * begun(int64_t count, int64_t length) {
    static thread_local std::vector<Partial> partials;
    partials.resize(count);
    for (Partial & partial : partials) {
        partial.begin(length);
    }
    return partials.data();
}

// Where the part of the past begins and ends that query 0 sees: the cache is longer than what is in it, and all threads
// must have something to do.
void seen_part(const Attention & a, int64_t & begin, int64_t & end) {
    const ggml_fp16_t * mask = a.masked(0);
    float seen[TILE];
    begin = 0;
    end = a.past;
    for (; end > 0; end = (end - 1) / STEP * STEP) {
        const int64_t at = (end - 1) / STEP * STEP;
        if (visible(mask, at, (int) (end - at), seen)) {
            break;
        }
    }
    while (begin < end && !visible(mask, begin, (int) std::min(STEP, end - begin), seen)) {
        begin += STEP;
    }
}

// Every thread takes a piece of the past, for all heads; then the pieces are put together.
void split_past(const Attention & a, const Kernels & kernels, const ggml_compute_params * params) {
    const int64_t length = a.v->ne[0], row = 2 + length;
    float * rows = (float *) params->wdata;
    int64_t first, last;
    seen_part(a, first, last);
    const int64_t piece = ((last - first + params->nth - 1) / params->nth + 15) / 16 * 16;
    const int64_t start = std::min(first + params->ith * piece, last), end = std::min(start + piece, last);
    Partial * partials = begun(a.heads, length);
    float seen[TILE];
    for (int64_t at = start; at < end; at += STEP) {
        const int count = (int) std::min(STEP, end - at), after = (int) std::min(STEP, end - at - count);
        if (visible(a.masked(0), at, count, seen)) {
            Ahead keys(a.k, at + count, after), values(a.v, at + count, after);
            for (int64_t kv_head = 0; kv_head < a.kv_heads; kv_head++) {
                attend_all(a, kernels, kv_head, 0, at, count, seen, keys, values, partials + kv_head * a.group());
            }
        }
    }
    for (int64_t head = 0; head < a.heads; head++) {
        float * out = rows + (head * params->nth + params->ith) * row;
        out[0] = partials[head].largest;
        out[1] = partials[head].sum;
        memcpy(out + 2, partials[head].values, sizeof(float) * length);
    }
    ggml_barrier(params->threadpool);
    for (int64_t head = params->ith; head < a.heads; head += params->nth) {
        Partial & whole = partials[0];
        whole.begin(length);
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
        finish(a, head, 0, whole.largest, whole.sum, whole.values);
    }
}

// Every thread takes whole groups of heads, query by query.
void split_heads(const Attention & a, const Kernels & kernels, const ggml_compute_params * params) {
    float seen[TILE];
    Ahead nothing;
    for (int64_t task = params->ith; task < a.kv_heads * a.queries; task += params->nth) {
        const int64_t kv_head = task % a.kv_heads, i = task / a.kv_heads;
        Partial * partials = begun(a.group(), a.v->ne[0]);
        for (int64_t at = 0; at < a.past; at += TILE) {
            const int count = (int) std::min<int64_t>(TILE, a.past - at);
            if (visible(a.masked(i), at, count, seen)) {
                attend_all(a, kernels, kv_head, i, at, count, seen, nothing, nothing, partials);
            }
        }
        for (int64_t h = 0; h < a.group(); h++) {
            finish(a, kv_head * a.group() + h, i, partials[h].largest, partials[h].sum, partials[h].values);
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
    if (a.queries > FEW_QUERIES) {
        attend_in_tiles(a, params);
        return;
    }
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

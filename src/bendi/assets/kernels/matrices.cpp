// Products of matrices of Q8_0 and Q5_0 with vectors, for CPUs with AVX-512 and VNNI, in place of llama.cpp's, which
// multiplies row by row with registers of 256 bits (ggml/src/ggml-cpu/llamafile/sgemm.cpp, tinyBLAS_Q0_AVX), and with
// chosen experts one by one (ggml-cpu.c). Q5_0 is what Q4_K_M is made of where rows are no multiple of 256: Qwen2.5 0.5B,
// Gemma 3 270M and 1B.
//
// Many vectors (prompts): thirty_two_rows.h. Few vectors (token generation): what is needed of them is prepared once for
// all rows, which are shared out as in pieces.h. So is Q6_K with one vector.
//
// llama.cpp asks `ggml_compute_forward_mul_mat_tiled` first whether it computes a product as a whole, and
// `ggml_compute_forward_mul_mat_id_tiled` for each expert of a layer; the linker sends that here (--wrap), and what is not
// covered goes on to the original.

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"

#define TILED_PARAMETERS const ggml_compute_params * params, ggml_tensor * dst
#define EXPERT_PARAMETERS \
    const ggml_compute_params * params, ggml_tensor * dst, int64_t expert, int64_t count, const int32_t * places, char * memory

extern "C" bool __real_ggml_compute_forward_mul_mat_tiled(TILED_PARAMETERS);
extern "C" bool __wrap_ggml_compute_forward_mul_mat_tiled(TILED_PARAMETERS);
extern "C" bool __real_ggml_compute_forward_mul_mat_id_tiled(EXPERT_PARAMETERS);
extern "C" bool __wrap_ggml_compute_forward_mul_mat_id_tiled(EXPERT_PARAMETERS);

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__) && defined(__F16C__) && defined(__FMA__)

#include "one_vector.h"
#include "pieces.h"
#include "thirty_two_rows.h"

namespace {

constexpr int64_t FEW_VECTORS = 3;
constexpr int64_t LEAST_ROWS = 16;  // that a thread takes at a time, with few vectors

// Two blocks of a vector: their numbers, and their scales. Where sums begin, and scales for eight lanes each, are made when
// they are needed: kept, a vector of 8192 numbers would take up most of the first cache, in which weights wait that have
// been asked for.
struct Pair {
    int8_t numbers[2 * QK8_0];
    float scales[2];
};

template <typename Block> inline __m512 two_scales(const Block * blocks) {
    const __m256i first = _mm256_set1_epi16((int16_t) blocks[0].d), second = _mm256_set1_epi16((int16_t) blocks[1].d);
    return _mm512_cvtph_ps(_mm256_blend_epi32(first, second, 0xf0));
}

void prepare(const block_q8_0 * y, int pairs, Pair * out) {
    for (int i = 0; i < pairs; i++) {
        _mm512_storeu_si512(out[i].numbers, Eights::both(y + 2 * i));
        out[i].scales[0] = _cvtsh_ss(y[2 * i].d);
        out[i].scales[1] = _cvtsh_ss(y[2 * i + 1].d);
    }
}

// R rows with one vector. `later`: what to ask for meanwhile, as much as they are. `out`: where their products belong.
template <typename Kind, int R>
inline void dots(const typename Kind::Block * const (&x)[R], const char * const (&later)[R], const Pair * y, int pairs,
                 float * const (&out)[R]) {
    const __m512i excess = _mm512_set1_epi8((char) Kind::EXCESS);
    __m512 sum[R];
    for (int r = 0; r < R; r++) {
        sum[r] = _mm512_setzero_ps();
    }
    for (int i = 0; i < pairs; i++) {
        const __m512i ys = _mm512_loadu_si512(y[i].numbers);
        const __m512i too_much = _mm512_dpbusd_epi32(_mm512_setzero_si512(), excess, ys);
        const __m512i begin = _mm512_sub_epi32(_mm512_setzero_si512(), too_much);
        const __m512 scales = _mm512_insertf32x8(_mm512_set1_ps(y[i].scales[0]), _mm256_set1_ps(y[i].scales[1]), 1);
        UNROLLED
        for (int r = 0; r < R; r++) {
            const typename Kind::Block * two = x[r] + 2 * i;
            _mm_prefetch(later[r] + i * 2 * sizeof(typename Kind::Block), _MM_HINT_NTA);
            const __m512i products = _mm512_dpbusd_epi32(begin, Kind::raised(two), ys);
            sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(two_scales(two), scales), sum[r]);
        }
    }
    for (int r = 0; r < R; r++) {
        *out[r] = _mm512_reduce_add_ps(sum[r]);
    }
}

// Some rows of a matrix, read in two straight lines that lie far apart, since memory likes that better than neighbours.
struct Lines {
    const char * matrix;
    size_t row_bytes;
    int64_t first, apart;  // how many rows each has

    Lines(const char * matrix, size_t row_bytes, int64_t first, int64_t end)
        : matrix(matrix), row_bytes(row_bytes), first(first), apart((end - first) / 2) {}

    const char * row(int line, int64_t at) const { return matrix + (first + line * apart + at) * row_bytes; }
    int64_t ahead() const { return (AHEAD + row_bytes - 1) / row_bytes; }  // whole rows

    void ask_for_beginning() const {
        for (int line = 0; line < 2; line++) {
            ask_for(row(line, 0), std::min(ahead(), apart) * row_bytes);
        }
    }
};

// Two rows at a time share what is loaded of the vector. `then`: what is read afterwards.
template <typename Kind> void few(const Product & p, const Lines & lines, int64_t end, const Pair * prepared, const Lines & then) {
    using Block = typename Kind::Block;
    const int pairs = p.blocks / 2;
    for (int64_t at = 0; at < lines.apart; at++) {
        const char * later[2];
        for (int line = 0; line < 2; line++) {
            const int64_t there = at + lines.ahead(), after = there - lines.apart;
            later[line] = after < 0 ? lines.row(line, there) : after < then.apart ? then.row(line, after) : lines.row(line, at);
        }
        for (int64_t c = 0; c < p.count; c++) {
            float * out = p.out + c * p.out_stride + lines.first + at;
            dots<Kind, 2>({(const Block *) lines.row(0, at), (const Block *) lines.row(1, at)}, {later[0], later[1]},
                          prepared + c * pairs, pairs, {out, out + lines.apart});
        }
    }
    for (int64_t c = 0; c < p.count && lines.first + 2 * lines.apart < end; c++) {
        const Block * last = p.row<Block>(end - 1);
        dots<Kind, 1>({last}, {(const char *) last}, prepared + c * pairs, pairs, {p.out + c * p.out_stride + end - 1});
    }
}

// ---- the whole

// Numbers become numbers without a sign, 128 too large.
void move_up(block_q8_0 * blocks, int64_t count) {
    const __m256i change = _mm256_set1_epi8((char) 0x80);
    for (int64_t b = 0; b < count; b++) {
        __m256i * numbers = (__m256i *) blocks[b].qs;
        _mm256_storeu_si256(numbers, _mm256_xor_si256(_mm256_loadu_si256(numbers), change));
    }
}

// What this thread has to do of the vectors: from numbers to blocks. Numbers of many vectors are moved up by 128.
void quantize(const ggml_compute_params * params, const ggml_tensor * src, block_q8_0 * out, bool up) {
    const ggml_from_float_t from_float = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0)->from_float;
    const int64_t blocks = src->ne[0] / QK8_0;
    const int64_t begin = params->ith * blocks / params->nth, end = (params->ith + 1) * blocks / params->nth;
    for (int64_t i3 = 0; i3 < src->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < src->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < src->ne[1]; i1++, out += blocks) {
                const char * row = (const char *) src->data + i3 * src->nb[3] + i2 * src->nb[2] + i1 * src->nb[1];
                from_float((const float *) row + begin * QK8_0, out + begin, (end - begin) * QK8_0);
                if (up) {
                    move_up(out + begin, end - begin);
                }
            }
        }
    }
}

template <typename Kind> bool covered(const ggml_compute_params * params, const ggml_tensor * dst) {
    const ggml_tensor * src0 = dst->src[0], * src1 = dst->src[1];
    return !params->use_ref && src0->extra == nullptr && src1->type == GGML_TYPE_F32 &&
           dst->type == GGML_TYPE_F32 && src0->nb[0] == sizeof(typename Kind::Block) && src1->nb[0] == sizeof(float) &&
           dst->nb[0] == sizeof(float) && src0->ne[0] % (2 * QK8_0) == 0 && src1->ne[1] > 0 &&
           params->wsize >= ggml_row_size(GGML_TYPE_Q8_0, ggml_nelements(src1));
}

// Product number `at` of all that `dst` has, whose vectors are in blocks.
Product product(const ggml_tensor * dst, const block_q8_0 * vectors, int64_t at) {
    const ggml_tensor * src0 = dst->src[0], * src1 = dst->src[1];
    const int64_t i2 = at % src1->ne[2], i3 = at / src1->ne[2];
    const int64_t from2 = i2 / (src1->ne[2] / src0->ne[2]), from3 = i3 / (src1->ne[3] / src0->ne[3]);
    const int64_t blocks = src0->ne[0] / QK8_0, count = src1->ne[1];
    return {(const char *) src0->data + from2 * src0->nb[2] + from3 * src0->nb[3],
            src0->nb[1],
            src0->ne[1],
            (int) blocks,
            vectors + at * count * blocks,
            count,
            (float *) ((char *) dst->data + i2 * dst->nb[2] + i3 * dst->nb[3]),
            dst->nb[1] / sizeof(float)};
}

template <typename Kind>
void many_vectors(const ggml_compute_params * params, const ggml_tensor * dst, const block_q8_0 * vectors, int64_t products) {
    const int64_t tiles = (dst->ne[0] + ROWS - 1) / ROWS;
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    for (int64_t at = params->ith; at < tiles * products; at = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        tile<Kind>(product(dst, vectors, at / tiles), at % tiles * ROWS);
    }
}

// With the pieces of all products in one row. Where there are several, nobody looks beyond the end of one.
template <typename Kind>
void few_vectors(const ggml_compute_params * params, const ggml_tensor * dst, const block_q8_0 * vectors, int64_t products) {
    const int64_t rows = dst->ne[0];
    const auto lines = [&](const Product & p, int64_t first, int64_t end) { return Lines(p.matrix, p.row_bytes, first, end); };
    const auto begin = [&](int64_t at, int64_t end) {
        lines(product(dst, vectors, at / rows), at % rows, std::min(at % rows + end - at, rows)).ask_for_beginning();
    };
    int64_t prepared_for = -1;
    share_out(params, rows * products, LEAST_ROWS, begin, [&](int64_t at, int64_t end, int64_t next, int64_t next_end) {
        while (at < end) {
            const Product p = product(dst, vectors, at / rows);
            const int pairs = p.blocks / 2;
            Pair * prepared = scratch<Pair>(p.count * pairs);
            for (int64_t c = 0; c < p.count && prepared_for != at / rows; c++) {
                prepare(p.vector(c), pairs, prepared + c * pairs);
            }
            prepared_for = at / rows;
            const int64_t row = at % rows, rest = std::min(end - at, rows - row);
            const Lines then = products == 1 ? lines(p, next, next_end) : lines(p, 0, 0);
            few<Kind>(p, lines(p, row, row + rest), row + rest, prepared, then);
            at += rest;
        }
    });
}

// False where it does not.
template <typename Kind> bool multiply_all(const ggml_compute_params * params, const ggml_tensor * dst) {
    if (!covered<Kind>(params, dst)) {
        return false;
    }
    const ggml_tensor * src1 = dst->src[1];
    block_q8_0 * vectors = (block_q8_0 *) params->wdata;
    const bool many = src1->ne[1] > FEW_VECTORS;
    quantize(params, src1, vectors, many);
    (many ? many_vectors<Kind> : few_vectors<Kind>)(params, dst, vectors, src1->ne[2] * src1->ne[3]);
    return true;
}

// Q6_K with one vector.
bool multiply_q6_K(const ggml_compute_params * params, const ggml_tensor * dst) {
    const ggml_tensor * src0 = dst->src[0], * src1 = dst->src[1];
    if (params->use_ref || src0->extra != nullptr || !is_one_vector(dst) || src0->nb[0] != sizeof(block_q6_K) ||
        params->wsize < ggml_row_size(GGML_TYPE_Q8_K, src1->ne[0])) {
        return false;
    }
    const int n = (int) src0->ne[0];
    const block_q8_K * vector = quantize_one<block_q8_K>(params, GGML_TYPE_Q8_K, src1);
    const auto row = [&](int64_t at) { return (const char *) src0->data + at * src0->nb[1]; };
    const auto begin = [&](int64_t at, int64_t) { ask_for(row(at), AHEAD); };
    share_out(params, src0->ne[1], LEAST_ROWS, begin, [&](int64_t at, int64_t end, int64_t next, int64_t) {
        const Later later(row(end), row(next));
        for (; at < end; at++) {
            ((float *) dst->data)[at] = dot_q6_K(n, (const block_q6_K *) row(at), vector, later);
        }
    });
    return true;
}

// One expert with the `count` vectors that go to it, whose blocks are there for all experts. `places`: of each vector,
// which of its token's experts this is, and the number of the token. All threads come here for each expert. False where
// this does not compute it, or not faster.
template <typename Kind>
bool multiply_expert(const ggml_compute_params * params, const ggml_tensor * dst, int64_t expert, int64_t count, const int32_t * places) {
    const ggml_tensor * src0 = dst->src[0], * src1 = dst->src[1];
    if (count <= FEW_VECTORS || !covered<Kind>(params, dst)) {
        return false;
    }
    const int blocks = (int) (src0->ne[0] / QK8_0);
    const int64_t rows = src0->ne[1], tiles = (rows + ROWS - 1) / ROWS;
    if (params->ith >= tiles) {
        return true;
    }
    block_q8_0 * vectors = scratch<block_q8_0>(count * blocks);
    for (int64_t v = 0; v < count; v++) {
        const int64_t at = places[2 * v] % src1->ne[1] + places[2 * v + 1] * src1->ne[1];
        memcpy(vectors + v * blocks, (const block_q8_0 *) params->wdata + at * blocks, blocks * sizeof(block_q8_0));
        move_up(vectors + v * blocks, blocks);
    }
    float * found = scratch<float>(count * ROWS);
    for (int64_t t = params->ith; t < tiles; t += params->nth) {
        const int64_t row = t * ROWS, there = std::min<int64_t>(ROWS, rows - row);
        const char * matrix = (const char *) src0->data + expert * src0->nb[2] + row * src0->nb[1];
        tile<Kind>({matrix, src0->nb[1], there, blocks, vectors, count, found, ROWS}, 0);
        for (int64_t v = 0; v < count; v++) {
            char * out = (char *) dst->data + places[2 * v] * dst->nb[1] + places[2 * v + 1] * dst->nb[2];
            memcpy((float *) out + row, found + v * ROWS, there * sizeof(float));
        }
    }
    return true;
}

}  // namespace

extern "C" bool __wrap_ggml_compute_forward_mul_mat_tiled(TILED_PARAMETERS) {
    const ggml_type type = dst->src[0]->type;
    if ((type == GGML_TYPE_Q8_0 && multiply_all<Eights>(params, dst)) ||
        (type == GGML_TYPE_Q5_0 && multiply_all<Fives>(params, dst)) ||
        (type == GGML_TYPE_Q6_K && multiply_q6_K(params, dst))) {
        return true;
    }
    return __real_ggml_compute_forward_mul_mat_tiled(params, dst);
}

extern "C" bool __wrap_ggml_compute_forward_mul_mat_id_tiled(EXPERT_PARAMETERS) {
    const ggml_type type = dst->src[0]->type;
    if ((type == GGML_TYPE_Q8_0 && multiply_expert<Eights>(params, dst, expert, count, places)) ||
        (type == GGML_TYPE_Q5_0 && multiply_expert<Fives>(params, dst, expert, count, places))) {
        return true;
    }
    return __real_ggml_compute_forward_mul_mat_id_tiled(params, dst, expert, count, places, memory);
}

#else

extern "C" bool __wrap_ggml_compute_forward_mul_mat_tiled(TILED_PARAMETERS) {
    return __real_ggml_compute_forward_mul_mat_tiled(params, dst);
}

extern "C" bool __wrap_ggml_compute_forward_mul_mat_id_tiled(EXPERT_PARAMETERS) {
    return __real_ggml_compute_forward_mul_mat_id_tiled(params, dst, expert, count, places, memory);
}

#endif

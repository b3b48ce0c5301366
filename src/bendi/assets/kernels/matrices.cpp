// Products of matrices of Q8_0 with vectors, for CPUs with AVX-512 and VNNI, in place of llama.cpp's, which multiplies
// row by row with registers of 256 bits (ggml/src/ggml-cpu/llamafile/sgemm.cpp, tinyBLAS_Q0_AVX).
//
// Many vectors (prompts): 32 rows at a time are laid out anew so that one register holds four numbers of each of 16
// rows; multiplied with the same four numbers of a vector, no sum has to be gathered from its lanes. This costs a few
// per cent of what it saves. Few vectors (token generation): what is needed of them is prepared once for all rows.
//
// VNNI multiplies numbers without a sign with numbers that have one. Those without are moved up by 128, and what that
// adds to a sum is where the sum begins, so that it costs nothing inside.
//
// llama.cpp asks `ggml_compute_forward_mul_mat_tiled` first whether it computes a product as a whole; the linker sends
// that here (--wrap), and what is not covered goes on to the original.

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"

extern "C" bool __real_ggml_compute_forward_mul_mat_tiled(const ggml_compute_params * params, ggml_tensor * dst);
extern "C" bool __wrap_ggml_compute_forward_mul_mat_tiled(const ggml_compute_params * params, ggml_tensor * dst);

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__) && defined(__F16C__) && defined(__FMA__)

#include "loops.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

constexpr int ROWS = 32;     // of a tile
constexpr int PANEL = 16;    // blocks of a tile that are laid out together: 20 KiB, so that they stay in L1
constexpr int COLUMNS = 6;   // vectors at a time
constexpr int64_t FEW_VECTORS = 3;
constexpr int AHEAD = 4096;  // bytes that are asked for in advance
constexpr int64_t LEAST_ROWS = 16;  // that a thread takes at a time, with few vectors

// One product: `rows` x `blocks` of the matrix with `vectors` vectors of as many blocks.
struct Product {
    const char * matrix;
    size_t row_bytes;
    int64_t rows;
    int blocks;
    const block_q8_0 * vectors;
    int64_t count;
    float * out;
    size_t out_stride;  // in floats

    const block_q8_0 * row(int64_t at) const { return (const block_q8_0 *) (matrix + at * row_bytes); }
    const block_q8_0 * vector(int64_t at) const { return vectors + at * blocks; }
};

// Memory of this thread, kept from call to call.
template <typename T> T * scratch(size_t count) {
    static thread_local std::vector<__m512i> kept;
    const size_t needed = (count * sizeof(T) + sizeof(__m512i) - 1) / sizeof(__m512i);
    if (kept.size() < needed) {
        kept.resize(needed);
    }
    return (T *) kept.data();
}

// ---- many vectors

// One block of 16 rows: four numbers of each row in each register; where its sums begin; its scales.
struct Laid {
    __m512i numbers[8];
    __m512i begin;
    __m512 scales;
};

// Rows from `first` on; `count` of them exist, the others are zero.
void lay_out(const Product & p, int64_t first, int64_t count, int block, Laid & laid) {
    __m512i r[8];
    alignas(32) ggml_half scales[16] = {};
    for (int i = 0; i < 8; i++) {  // row i in the lower half, row i + 8 in the upper
        __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
        if (i < count) {
            const block_q8_0 & found = p.row(first + i)[block];
            low = _mm256_loadu_si256((const __m256i *) found.qs);
            scales[i] = found.d;
        }
        if (i + 8 < count) {
            const block_q8_0 & found = p.row(first + i + 8)[block];
            high = _mm256_loadu_si256((const __m256i *) found.qs);
            scales[i + 8] = found.d;
        }
        r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    // A transposition of eight by eight words in each half.
    __m512i s[8], t[8];
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        t[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
        t[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
        t[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
        t[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
    const __m512i lower = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0), upper = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++) {
        laid.numbers[i] = _mm512_permutex2var_epi64(t[i], lower, t[i + 4]);
        laid.numbers[i + 4] = _mm512_permutex2var_epi64(t[i], upper, t[i + 4]);
        sums = _mm512_dpbusd_epi32(sums, ones, laid.numbers[i]);
        sums = _mm512_dpbusd_epi32(sums, ones, laid.numbers[i + 4]);
    }
    laid.begin = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums, 7));
    laid.scales = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *) scales));
}

// Adds the products of a panel with N vectors to `out`, 32 rows each. The numbers of vectors are moved up by 128.
template <int N>
inline void multiply(const Laid (*panel)[2], int blocks, const block_q8_0 * const * y, float * const * out, bool first) {
    __m512 sum[N][2];
    UNROLLED
    for (int c = 0; c < N; c++) {
        UNROLLED
        for (int half = 0; half < 2; half++) {
            sum[c][half] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(out[c] + 16 * half);
        }
    }
    for (int b = 0; b < blocks; b++) {
        const Laid & low = panel[b][0], & high = panel[b][1];
        __m512i dot[N][2];
        UNROLLED
        for (int c = 0; c < N; c++) {
            dot[c][0] = low.begin;
            dot[c][1] = high.begin;
        }
        UNROLLED
        for (int i = 0; i < 8; i++) {
            const __m512i x0 = low.numbers[i], x1 = high.numbers[i];
            UNROLLED
            for (int c = 0; c < N; c++) {
                int32_t four;
                memcpy(&four, y[c][b].qs + 4 * i, sizeof(four));
                const __m512i ys = _mm512_set1_epi32(four);
                dot[c][0] = _mm512_dpbusd_epi32(dot[c][0], ys, x0);
                dot[c][1] = _mm512_dpbusd_epi32(dot[c][1], ys, x1);
            }
        }
        UNROLLED
        for (int c = 0; c < N; c++) {
            const __m512 scale = _mm512_set1_ps(_cvtsh_ss(y[c][b].d));
            sum[c][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c][0]), _mm512_mul_ps(low.scales, scale), sum[c][0]);
            sum[c][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c][1]), _mm512_mul_ps(high.scales, scale), sum[c][1]);
        }
    }
    UNROLLED
    for (int c = 0; c < N; c++) {
        _mm512_storeu_ps(out[c], sum[c][0]);
        _mm512_storeu_ps(out[c] + 16, sum[c][1]);
    }
}

template <int N>
void multiply_columns(const Product & p, const Laid (*panel)[2], int block, int blocks, int64_t row, int64_t column) {
    const block_q8_0 * y[N];
    float * out[N];
    float rest[N][ROWS];  // where fewer than 32 rows are left
    const int64_t rows = std::min<int64_t>(ROWS, p.rows - row);
    for (int c = 0; c < N; c++) {
        y[c] = p.vector(column + c) + block;
        out[c] = p.out + (column + c) * p.out_stride + row;
        if (rows < ROWS) {
            memcpy(rest[c], out[c], rows * sizeof(float));
        }
    }
    if (rows == ROWS) {
        multiply<N>(panel, blocks, y, out, block == 0);
        return;
    }
    float * rests[N];
    for (int c = 0; c < N; c++) {
        rests[c] = rest[c];
    }
    multiply<N>(panel, blocks, y, rests, block == 0);
    for (int c = 0; c < N; c++) {
        memcpy(out[c], rest[c], rows * sizeof(float));
    }
}

// Rows from `row` on with all vectors.
void tile(const Product & p, int64_t row) {
    Laid(*panel)[2] = scratch<Laid[2]>(PANEL);
    const int64_t rows = p.rows - row;
    for (int block = 0; block < p.blocks; block += PANEL) {
        const int blocks = std::min(PANEL, p.blocks - block);
        for (int b = 0; b < blocks; b++) {
            lay_out(p, row, rows, block + b, panel[b][0]);
            lay_out(p, row + 16, rows - 16, block + b, panel[b][1]);
        }
        int64_t column = 0;
        for (; column + COLUMNS <= p.count; column += COLUMNS) {
            multiply_columns<COLUMNS>(p, panel, block, blocks, row, column);
        }
        switch (p.count - column) {
            case 5: multiply_columns<5>(p, panel, block, blocks, row, column); break;
            case 4: multiply_columns<4>(p, panel, block, blocks, row, column); break;
            case 3: multiply_columns<3>(p, panel, block, blocks, row, column); break;
            case 2: multiply_columns<2>(p, panel, block, blocks, row, column); break;
            case 1: multiply_columns<1>(p, panel, block, blocks, row, column); break;
            default: break;
        }
    }
}

// ---- few vectors

// Two blocks of a vector: their numbers, where sums begin, and their scales for eight lanes each.
struct Pair {
    __m512i numbers, begin;
    __m512 scales;
};

inline __m512i two_blocks(const block_q8_0 * blocks) {
    const __m512i first = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) blocks[0].qs));
    return _mm512_inserti64x4(first, _mm256_loadu_si256((const __m256i *) blocks[1].qs), 1);
}

inline __m512 two_scales(const block_q8_0 * blocks) {
    const __m256i first = _mm256_set1_epi16((int16_t) blocks[0].d), second = _mm256_set1_epi16((int16_t) blocks[1].d);
    return _mm512_cvtph_ps(_mm256_blend_epi32(first, second, 0xf0));
}

void prepare(const block_q8_0 * y, int pairs, Pair * out) {
    const __m512i up = _mm512_set1_epi8((char) 0x80);
    for (int i = 0; i < pairs; i++) {
        out[i].numbers = two_blocks(y + 2 * i);
        const __m512i too_much = _mm512_dpbusd_epi32(_mm512_setzero_si512(), up, out[i].numbers);
        out[i].begin = _mm512_sub_epi32(_mm512_setzero_si512(), too_much);
        out[i].scales = two_scales(y + 2 * i);
    }
}

// R rows with one vector. `out`: where their products belong.
template <int R> inline void dots(const block_q8_0 * const (&x)[R], const Pair * y, int pairs, float * const (&out)[R]) {
    const __m512i up = _mm512_set1_epi8((char) 0x80);
    __m512 sum[R];
    for (int r = 0; r < R; r++) {
        sum[r] = _mm512_setzero_ps();
    }
    for (int i = 0; i < pairs; i++) {
        const __m512i ys = y[i].numbers, begin = y[i].begin;
        const __m512 scales = y[i].scales;
        UNROLLED
        for (int r = 0; r < R; r++) {
            const block_q8_0 * two = x[r] + 2 * i;
            _mm_prefetch((const char *) two + AHEAD, _MM_HINT_T0);
            const __m512i products = _mm512_dpbusd_epi32(begin, _mm512_xor_si512(two_blocks(two), up), ys);
            sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(two_scales(two), scales), sum[r]);
        }
    }
    for (int r = 0; r < R; r++) {
        *out[r] = _mm512_reduce_add_ps(sum[r]);
    }
}

// Two rows at a time share what is loaded of the vector. They lie far apart, so that memory is read in two straight
// lines: with neighbours it is slower.
void few(const Product & p, int64_t first, int64_t end, const Pair * prepared) {
    const int pairs = p.blocks / 2;
    const int64_t apart = (end - first) / 2;
    for (int64_t row = first; row < first + apart; row++) {
        for (int64_t c = 0; c < p.count; c++) {
            float * out = p.out + c * p.out_stride + row;
            dots<2>({p.row(row), p.row(row + apart)}, prepared + c * pairs, pairs, {out, out + apart});
        }
    }
    for (int64_t c = 0; c < p.count && first + 2 * apart < end; c++) {
        dots<1>({p.row(end - 1)}, prepared + c * pairs, pairs, {p.out + c * p.out_stride + end - 1});
    }
}

// ---- the whole

// What this thread has to do of the vectors: from numbers to blocks. Numbers of many vectors are moved up by 128.
void quantize(const ggml_compute_params * params, const ggml_tensor * src, block_q8_0 * out, bool up) {
    const ggml_from_float_t from_float = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0)->from_float;
    const int64_t blocks = src->ne[0] / QK8_0;
    const int64_t begin = params->ith * blocks / params->nth, end = (params->ith + 1) * blocks / params->nth;
    const __m256i change = _mm256_set1_epi8((char) 0x80);
    for (int64_t i3 = 0; i3 < src->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < src->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < src->ne[1]; i1++, out += blocks) {
                const char * row = (const char *) src->data + i3 * src->nb[3] + i2 * src->nb[2] + i1 * src->nb[1];
                from_float((const float *) row + begin * QK8_0, out + begin, (end - begin) * QK8_0);
                for (int64_t b = begin; up && b < end; b++) {
                    __m256i * numbers = (__m256i *) out[b].qs;
                    _mm256_storeu_si256(numbers, _mm256_xor_si256(_mm256_loadu_si256(numbers), change));
                }
            }
        }
    }
}

bool covered(const ggml_compute_params * params, const ggml_tensor * dst) {
    const ggml_tensor * src0 = dst->src[0], * src1 = dst->src[1];
    return !params->use_ref && src0->type == GGML_TYPE_Q8_0 && src0->extra == nullptr && src1->type == GGML_TYPE_F32 &&
           dst->type == GGML_TYPE_F32 && src0->nb[0] == sizeof(block_q8_0) && src1->nb[0] == sizeof(float) &&
           dst->nb[0] == sizeof(float) && src0->ne[0] % (2 * QK8_0) == 0 && src1->ne[1] > 0 &&
           params->wsize >= ggml_row_size(GGML_TYPE_Q8_0, ggml_nelements(src1));
}

// The rows of all matrices, one after another, in pieces that become smaller: long ones first, since memory likes them,
// short ones in the end, so that nobody waits long for the last one.
class Pieces {
  public:
    Pieces(int64_t rows, int threads) : rows(rows), threads(threads) {}

    // From where to where piece `number` goes, which is larger than the last one asked for; false where there is none.
    bool find(int64_t number, int64_t & begin, int64_t & end) {
        for (; at < number; at++) {
            next();
        }
        next();
        at++;
        begin = from;
        end = to;
        return begin < rows;
    }

  private:
    void next() {
        if (at % threads == 0) {
            size = std::max(LEAST_ROWS, (rows - to) / (2 * threads));
        }
        from = to;
        to = std::min(rows, from + size);
    }

    const int64_t rows;
    const int threads;
    int64_t at = 0, size = 0, from = 0, to = 0;
};

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

void many_vectors(const ggml_compute_params * params, const ggml_tensor * dst, const block_q8_0 * vectors, int64_t products) {
    const int64_t tiles = (dst->ne[0] + ROWS - 1) / ROWS;
    for (int64_t at = params->ith; at < tiles * products; at = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        tile(product(dst, vectors, at / tiles), at % tiles * ROWS);
    }
}

void few_vectors(const ggml_compute_params * params, const ggml_tensor * dst, const block_q8_0 * vectors, int64_t products) {
    const int64_t rows = dst->ne[0];
    Pieces pieces(rows * products, params->nth);
    int64_t at, end, number = params->ith, prepared_for = -1;
    for (; pieces.find(number, at, end); number = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        while (at < end) {
            const Product p = product(dst, vectors, at / rows);
            const int pairs = p.blocks / 2;
            Pair * prepared = scratch<Pair>(p.count * pairs);
            for (int64_t c = 0; c < p.count && prepared_for != at / rows; c++) {
                prepare(p.vector(c), pairs, prepared + c * pairs);
            }
            prepared_for = at / rows;
            const int64_t row = at % rows, rest = std::min(end - at, rows - row);
            few(p, row, row + rest, prepared);
            at += rest;
        }
    }
}

void multiply_all(const ggml_compute_params * params, const ggml_tensor * dst) {
    const ggml_tensor * src1 = dst->src[1];
    block_q8_0 * vectors = (block_q8_0 *) params->wdata;
    const bool many = src1->ne[1] > FEW_VECTORS;
    quantize(params, src1, vectors, many);
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    (many ? many_vectors : few_vectors)(params, dst, vectors, src1->ne[2] * src1->ne[3]);
}

}  // namespace

extern "C" bool __wrap_ggml_compute_forward_mul_mat_tiled(const ggml_compute_params * params, ggml_tensor * dst) {
    if (!covered(params, dst)) {
        return __real_ggml_compute_forward_mul_mat_tiled(params, dst);
    }
    multiply_all(params, dst);
    return true;
}

#else

extern "C" bool __wrap_ggml_compute_forward_mul_mat_tiled(const ggml_compute_params * params, ggml_tensor * dst) {
    return __real_ggml_compute_forward_mul_mat_tiled(params, dst);
}

#endif

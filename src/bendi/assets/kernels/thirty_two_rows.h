// Blocks of 32 weights with a scale (Q8_0, Q5_0): 32 rows at a time with many vectors. For CPUs with AVX-512 and VNNI.
//
// Rows are laid out anew so that one register holds four numbers of each of 16 rows; multiplied with the same four
// numbers of a vector, no sum has to be gathered from its lanes. This costs a few per cent of what it saves.
//
// VNNI multiplies numbers without a sign with numbers that have one. Those without are moved up by 128, and what that
// adds to a sum is where the sum begins, so that it costs nothing inside.

#pragma once

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"

#include "loops.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

constexpr int ROWS = 32;     // of a tile
constexpr int PANEL = 16;    // blocks of a tile that are laid out together: 20 KiB, so that they stay in L1
constexpr int COLUMNS = 6;   // vectors at a time

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

    template <typename Block> const Block * row(int64_t at) const { return (const Block *) (matrix + at * row_bytes); }
    const block_q8_0 * vector(int64_t at) const { return vectors + at * blocks; }
};

// Blocks of 32 weights. `numbers`: of one, as they are. `raised`: of two, as numbers without a sign, with EXCESS too much
// in each.
struct Eights {
    using Block = block_q8_0;
    static constexpr int EXCESS = 128;
    static __m256i numbers(const Block & block) { return _mm256_loadu_si256((const __m256i *) block.qs); }
    static __m512i both(const Block * two) {
        return _mm512_inserti64x4(_mm512_castsi256_si512(numbers(two[0])), numbers(two[1]), 1);
    }
    static __m512i raised(const Block * two) { return _mm512_xor_si512(both(two), _mm512_set1_epi8((char) 0x80)); }
};

struct Fives {  // the lower four bits of number i and of number i + 16 share a byte; the fifth bits lie apart
    using Block = block_q5_0;
    static constexpr int EXCESS = 16;
    static uint32_t fifth_bits(const Block & block) {
        uint32_t bits;
        memcpy(&bits, block.qh, sizeof(bits));
        return bits;
    }
    static __m256i numbers(const Block & block) {
        const __m128i packed = _mm_loadu_si128((const __m128i *) block.qs);
        const __m256i apart = _mm256_inserti128_si256(_mm256_castsi128_si256(packed), _mm_srli_epi16(packed, 4), 1);
        const __m256i nibbles = _mm256_and_si256(apart, _mm256_set1_epi8(15));
        // A number is its nibble where the fifth bit is set, and 16 less where it is not.
        return _mm256_mask_sub_epi8(nibbles, ~fifth_bits(block), nibbles, _mm256_set1_epi8(EXCESS));
    }
    static __m512i raised(const Block * two) {
        const __m256i packed = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) two[0].qs)),
            _mm_loadu_si128((const __m128i *) two[1].qs), 1);
        const __m512i twice = _mm512_permutexvar_epi64(_mm512_set_epi64(3, 2, 3, 2, 1, 0, 1, 0), _mm512_castsi256_si512(packed));
        const __m512i down = _mm512_set_epi64(FOUR, FOUR, 0, 0, FOUR, FOUR, 0, 0);
        const __m512i nibbles = _mm512_and_si512(_mm512_srlv_epi16(twice, down), _mm512_set1_epi8(15));
        const uint64_t bits = fifth_bits(two[0]) | (uint64_t) fifth_bits(two[1]) << 32;
        return _mm512_or_si512(nibbles, _mm512_maskz_set1_epi8(bits, EXCESS));
    }

  private:
    static constexpr int64_t FOUR = 0x0004000400040004;
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

// One block of 16 rows: four numbers of each row in each register; where its sums begin; its scales.
struct Laid {
    __m512i numbers[8];
    __m512i begin;
    __m512 scales;
};

// Rows from `first` on; `count` of them exist, the others are zero.
template <typename Kind>
void lay_out(const Product & p, int64_t first, int64_t count, int block, Laid & laid) {
    __m512i r[8];
    alignas(32) ggml_half scales[16] = {};
    for (int i = 0; i < 8; i++) {  // row i in the lower half, row i + 8 in the upper
        __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
        if (i < count) {
            const typename Kind::Block & found = p.row<typename Kind::Block>(first + i)[block];
            low = Kind::numbers(found);
            scales[i] = found.d;
        }
        if (i + 8 < count) {
            const typename Kind::Block & found = p.row<typename Kind::Block>(first + i + 8)[block];
            high = Kind::numbers(found);
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
template <typename Kind>
void tile(const Product & p, int64_t row) {
    Laid(*panel)[2] = scratch<Laid[2]>(PANEL);
    const int64_t rows = p.rows - row;
    for (int block = 0; block < p.blocks; block += PANEL) {
        const int blocks = std::min(PANEL, p.blocks - block);
        for (int b = 0; b < blocks; b++) {
            lay_out<Kind>(p, row, rows, block + b, panel[b][0]);
            lay_out<Kind>(p, row + 16, rows - 16, block + b, panel[b][1]);
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

}  // namespace

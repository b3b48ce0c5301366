// Products of quantized rows with one vector (token generation), for CPUs with AVX-512 and VNNI.
//
// Where eight rows lie interleaved by eight bytes, one 512-bit register holds eight bytes of each: multiplied with the
// same eight numbers of the vector, no byte has to be moved. Quantized weights are used as numbers without a sign, as
// VNNI wants them; what that adds to a sum depends on the vector only and is taken off again.

#pragma once

#include "eight_rows.h"
#include "ggml-cpu.h"
#include "loops.h"
#include "pieces.h"

#include <cstddef>
#include <cstring>

namespace {

// Whether `dst` is the product of one matrix with one vector.
inline bool is_one_vector(const ggml_tensor * dst) {
    const ggml_tensor * src0 = dst->src[0], * src1 = dst->src[1];
    return ggml_nrows(src1) == 1 && ggml_nrows(src0) == src0->ne[1] && src1->type == GGML_TYPE_F32 &&
           dst->type == GGML_TYPE_F32 && src1->nb[0] == sizeof(float) && dst->nb[0] == sizeof(float);
}

// The vector in blocks, of which this thread makes its share.
template <typename Block> const Block * quantize_one(const ggml_compute_params * params, ggml_type type, const ggml_tensor * vector) {
    const int64_t size = ggml_blck_size(type), blocks = vector->ne[0] / size;
    const int64_t first = params->ith * blocks / params->nth, last = (params->ith + 1) * blocks / params->nth;
    Block * out = (Block *) params->wdata;
    if (first < last) {
        const float * from = (const float *) vector->data + first * size;
        ggml_get_type_traits_cpu(type)->from_float(from, out + first, (last - first) * size);
    }
    return out;
}

// `nc` rows with one vector. `then`: what is read afterwards.
template <typename Kind> void gemv_of_4_bits(int n, float * s, const void * vx, const void * vy, int nc, const void * then) {
    const int blocks = n / QK8_0;
    const block_q8_0 * vector = (const block_q8_0 *) vy;
    const typename Kind::Block * matrix = (const typename Kind::Block *) vx;
    const __m512i excess = _mm512_set1_epi8(Kind::EXCESS);
    const Later later(matrix + (int64_t) nc / 8 * blocks, then);
    for (int row = 0; row < nc; row += 8) {
        __m512 sum = _mm512_setzero_ps();
        for (int b = 0; b < blocks; b++, matrix++) {
            ask_for(later.of(matrix), sizeof(*matrix));
            const int8_t * numbers = vector[b].qs;
            const __m512i y0 = spread(numbers), y1 = spread(numbers + 8);
            const __m512i y2 = spread(numbers + 16), y3 = spread(numbers + 24);
            const __m512i first = _mm512_loadu_si512(matrix->qs), second = _mm512_loadu_si512(matrix->qs + 64);
            __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), Kind::low(first), y0);
            __m512i other = _mm512_dpbusd_epi32(_mm512_setzero_si512(), Kind::low(second), y1);
            dot = _mm512_dpbusd_epi32(dot, Kind::high(first), y2);
            other = _mm512_dpbusd_epi32(other, Kind::high(second), y3);
            __m512i too_much = _mm512_dpbusd_epi32(_mm512_setzero_si512(), excess, y0);
            too_much = _mm512_dpbusd_epi32(too_much, excess, y1);
            too_much = _mm512_dpbusd_epi32(too_much, excess, y2);
            too_much = _mm512_dpbusd_epi32(too_much, excess, y3);
            dot = _mm512_sub_epi32(_mm512_add_epi32(dot, other), too_much);
            const __m512 scale = twice(_mm256_mul_ps(Kind::scales(*matrix), _mm256_set1_ps(_cvtsh_ss(vector[b].d))));
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum);
        }
        _mm256_storeu_ps(s + row, rows(sum));
    }
}

inline void gemv_q4_K(int n, float * s, const void * vx, const void * vy, int nc, const void * then) {
    const int blocks = n / QK_K;
    const block_q8_K * vector = (const block_q8_K *) vy;
    const block_q4_Kx8 * matrix = (const block_q4_Kx8 *) vx;
    const __m512i nibble = _mm512_set1_epi8(15);
    const Later later(matrix + (int64_t) nc / 8 * blocks, then);
    for (int row = 0; row < nc; row += 8) {
        __m512 sum = _mm512_setzero_ps();
        __m256 minima_sum = _mm256_setzero_ps();
        for (int b = 0; b < blocks; b++, matrix++) {
            const char * ahead = later.of(matrix);
            ask_for(ahead, offsetof(block_q4_Kx8, qs));
            const Unpacked unpacked(matrix->scales);
            const block_q8_K & y = vector[b];
            // Of 32 numbers each.
            alignas(16) int16_t sums[8];
            const __m256i halves_of_sums = _mm256_loadu_si256((const __m256i *) y.bsums);
            _mm_store_si128((__m128i *) sums, _mm256_cvtepi32_epi16(_mm256_madd_epi16(halves_of_sums, _mm256_set1_epi16(1))));
            __m512i whole = _mm512_setzero_si512(), other = _mm512_setzero_si512();
            __m256i minima = _mm256_setzero_si256();
            UNROLLED
            for (int pair = 0; pair < 4; pair++) {
                const uint8_t * packed = matrix->qs + 256 * pair;
                const int8_t * numbers = y.qs + 64 * pair;
                ask_for(ahead + offsetof(block_q4_Kx8, qs) + 256 * pair, 256);
                __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
                UNROLLED
                for (int part = 0; part < 4; part++) {
                    const __m512i bytes = _mm512_loadu_si512(packed + 64 * part);
                    low = _mm512_dpbusd_epi32(low, _mm512_and_si512(bytes, nibble), spread(numbers + 8 * part));
                    high = _mm512_dpbusd_epi32(high, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble),
                                               spread(numbers + 32 + 8 * part));
                }
                // Sixteen products of 15 and 127 at most: they fit into the lower 16 bits, and scales have no upper ones.
                whole = _mm512_dpwssd_epi32(whole, low, unpacked.lanes(2 * pair));
                other = _mm512_dpwssd_epi32(other, high, unpacked.lanes(2 * pair + 1));
                int32_t two;
                memcpy(&two, sums + 2 * pair, sizeof(two));
                minima = _mm256_dpwssd_epi32(minima, unpacked.pairs(2 * pair), _mm256_set1_epi32(two));
            }
            whole = _mm512_add_epi32(whole, other);
            const __m256 scale = _mm256_set1_ps(y.d);
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), twice(_mm256_mul_ps(halves(matrix->d), scale)), sum);
            minima_sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(minima), _mm256_mul_ps(halves(matrix->dmin), scale), minima_sum);
        }
        _mm256_storeu_ps(s + row, _mm256_sub_ps(rows(sum), minima_sum));
    }
}

// Sixteen scales of a block of Q6_K, four of them from `first` on, each for four lanes of four products.
inline __m512i scale_lanes(__m128i scales, int first) {
    const __m128i order = _mm_add_epi8(_mm_set_epi8(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0), _mm_set1_epi8(first));
    return _mm512_cvtepi8_epi32(_mm_shuffle_epi8(scales, order));
}

inline float dot_q6_K(int n, const block_q6_K * x, const block_q8_K * y, const Later & later) {
    const int blocks = n / QK_K;
    const __m512i nibble = _mm512_set1_epi8(15), six_bits = _mm512_set1_epi8(63);
    // The upper two bits of four groups of 32 numbers lie in one byte: shifted to their place, two groups at a time.
    const __m512i up = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
    const __m512i down = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    __m512 sum = _mm512_setzero_ps();
    for (int b = 0; b < blocks; b++) {
        ask_for(later.of(x + b), sizeof(block_q6_K));
        const __m128i scales = _mm_loadu_si128((const __m128i *) x[b].scales);
        __m512i whole = _mm512_setzero_si512();
        for (int half = 0; half < 2; half++) {
            const __m512i low = _mm512_loadu_si512(x[b].ql + 64 * half);
            const __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) (x[b].qh + 32 * half)));
            const __m512i shifted = _mm512_sllv_epi16(high, up), lifted = _mm512_srlv_epi16(high, down);
            // Bits of the nibble where the mask is set, of the other where it is not (0xca: a ? b : c).
            const __m512i first = _mm512_and_si512(_mm512_ternarylogic_epi32(nibble, low, shifted, 0xca), six_bits);
            const __m512i upper = _mm512_srli_epi16(low, 4);
            const __m512i second = _mm512_and_si512(_mm512_ternarylogic_epi32(nibble, upper, lifted, 0xca), six_bits);
            const int8_t * numbers = y[b].qs + 128 * half;
            const __m512i one = _mm512_dpbusd_epi32(_mm512_setzero_si512(), first, _mm512_loadu_si512(numbers));
            const __m512i two = _mm512_dpbusd_epi32(_mm512_setzero_si512(), second, _mm512_loadu_si512(numbers + 64));
            whole = _mm512_add_epi32(whole, _mm512_mullo_epi32(one, scale_lanes(scales, 8 * half)));
            whole = _mm512_add_epi32(whole, _mm512_mullo_epi32(two, scale_lanes(scales, 8 * half + 4)));
        }
        // Numbers were 32 too large.
        const __m256i sums = _mm256_loadu_si256((const __m256i *) y[b].bsums);
        const __m256i too_much = _mm256_slli_epi32(_mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), sums), 5);
        whole = _mm512_sub_epi32(whole, _mm512_inserti64x4(_mm512_setzero_si512(), too_much, 0));
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(_cvtsh_ss(x[b].d) * y[b].d), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

}  // namespace

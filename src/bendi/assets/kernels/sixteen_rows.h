// 4-bit matrices (Q4_K, Q4_0, IQ4_NL, MXFP4), 16 rows at a time with many vectors. For CPUs with AVX-512 and VNNI.
//
// Nibbles are taken apart once, in pieces that stay in the L1 cache, and then meet all vectors, four at a time, which lie
// interleaved by eight bytes as the rows do.

#pragma once

#include "eight_rows.h"
#include "loops.h"

#include <algorithm>
#include <vector>

namespace {

constexpr int GROUPS = 2;   // of eight rows, at a time
constexpr int VECTORS = 4;  // at a time, as they lie interleaved

// What is asked for: `groups` groups of eight rows with `fours` times four vectors of `blocks` blocks each.
struct Product {
    int blocks;
    float * out;
    size_t out_stride;
    const void * matrix, * vectors;
    int fours, groups;
};

// Where 16 rows have met four vectors: sums of lanes, two of them for each row, and minima, which are taken off in the end.
struct Sums {
    __m512 lanes[VECTORS][GROUPS];
    __m256 minima[VECTORS][GROUPS];
};

struct WithMinima {  // Q4_K
    using Block = block_q4_Kx8;
    using Vectors = block_q8_Kx4;
    static constexpr int PANEL = 4;  // blocks taken apart at a time: 22 KiB

    // Eight rows of a block.
    struct Apart {
        __m512i numbers[8][4];  // of each sub-block of 32 numbers
        __m512i scales[8];
        __m256i minima[4];  // of two sub-blocks, side by side for each row
        __m256 d, dmin;
    };

    static void take_apart(const Block & block, Apart & apart) {
        const Unpacked unpacked(block.scales);
        const __m512i nibble = _mm512_set1_epi8(15);
        for (int k = 0; k < 16; k++) {
            const __m512i bytes = _mm512_loadu_si512(block.qs + 64 * k);
            apart.numbers[k / 4 * 2][k % 4] = _mm512_and_si512(bytes, nibble);
            apart.numbers[k / 4 * 2 + 1][k % 4] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
        }
        for (int sub = 0; sub < 8; sub++) {
            apart.scales[sub] = unpacked.lanes(sub);
        }
        for (int pair = 0; pair < 4; pair++) {
            apart.minima[pair] = unpacked.pairs(2 * pair);
        }
        apart.d = halves(block.d);
        apart.dmin = halves(block.dmin);
    }

    // Sums of two neighbouring sub-blocks of each vector, side by side, as minima lie: four pairs of four vectors. In this
    // thread.
    static std::vector<__m512i> & pairs_of_sums() {
        static thread_local std::vector<__m512i> kept;
        return kept;
    }

    static void prepare(const Product & p) {
        std::vector<__m512i> & out = pairs_of_sums();
        out.resize((size_t) p.fours * p.blocks);
        const __m512i ones = _mm512_set1_epi16(1);
        for (int at = 0; at < p.fours * p.blocks; at++) {
            const int16_t * sums = ((const Vectors *) p.vectors)[at].bsums;  // of 16 numbers each
            const __m256i first = _mm512_cvtepi32_epi16(_mm512_madd_epi16(_mm512_loadu_si512(sums), ones));
            const __m256i second = _mm512_cvtepi32_epi16(_mm512_madd_epi16(_mm512_loadu_si512(sums + 32), ones));
            out[at] = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
        }
    }

    static inline void add(const Vectors & y, const Apart (&x)[GROUPS], Sums & sums, int at) {
        const int32_t * pairs = (const int32_t *) &pairs_of_sums()[at];
        __m512i whole[VECTORS][GROUPS];
        UNROLLED
        for (int v = 0; v < VECTORS; v++) {
            UNROLLED
            for (int g = 0; g < GROUPS; g++) {
                whole[v][g] = _mm512_setzero_si512();
            }
        }
        ROLLED
        for (int sub = 0; sub < 8; sub++) {
            const int8_t * numbers = y.qs + 256 * (sub / 2) + 128 * (sub % 2);
            __m512i dot[VECTORS][GROUPS];
            UNROLLED
            for (int part = 0; part < 4; part++) {
                UNROLLED
                for (int v = 0; v < VECTORS; v++) {
                    const __m512i ys = spread(numbers + 32 * part + 8 * v);
                    UNROLLED
                    for (int g = 0; g < GROUPS; g++) {
                        const __m512i before = part == 0 ? _mm512_setzero_si512() : dot[v][g];
                        dot[v][g] = _mm512_dpbusd_epi32(before, x[g].numbers[sub][part], ys);
                    }
                }
            }
            UNROLLED
            for (int v = 0; v < VECTORS; v++) {
                UNROLLED
                for (int g = 0; g < GROUPS; g++) {
                    // Sixteen products of 15 and 127 at most: they fit into the lower 16 bits.
                    whole[v][g] = _mm512_add_epi32(whole[v][g], _mm512_madd_epi16(dot[v][g], x[g].scales[sub]));
                }
            }
        }
        ROLLED
        for (int v = 0; v < VECTORS; v++) {
            const __m256 dy = _mm256_set1_ps(y.d[v]);
            for (int g = 0; g < GROUPS; g++) {
                const __m512 scale = twice(_mm256_mul_ps(x[g].d, dy));
                sums.lanes[v][g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[v][g]), scale, sums.lanes[v][g]);
                __m256i minima = _mm256_setzero_si256();
                for (int pair = 0; pair < 4; pair++) {
                    const __m256i both = _mm256_set1_epi32(pairs[VECTORS * pair + v]);
                    minima = _mm256_add_epi32(minima, _mm256_madd_epi16(x[g].minima[pair], both));
                }
                sums.minima[v][g] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(minima), _mm256_mul_ps(x[g].dmin, dy), sums.minima[v][g]);
            }
        }
    }
};

template <typename Weights> struct WithExcess {  // Linear, Nonlinear, Float4
    using Block = typename Weights::Block;
    using Vectors = block_q8_0x4;
    static constexpr int PANEL = 32;  // blocks taken apart at a time: 20 KiB

    struct Apart {
        __m512i numbers[4];
        __m512 scales;
    };

    static void take_apart(const Block & block, Apart & apart) {
        for (int half = 0; half < 2; half++) {
            const __m512i bytes = _mm512_loadu_si512(block.qs + 64 * half);
            apart.numbers[half] = Weights::low(bytes);
            apart.numbers[half + 2] = Weights::high(bytes);
        }
        apart.scales = twice(Weights::scales(block));
    }

    // Where sums begin, for each block of each vector: less by what numbers without a sign add too much. In this thread.
    static std::vector<int64_t> & begins() {
        static thread_local std::vector<int64_t> kept;
        return kept;
    }

    static void prepare(const Product & p) {
        std::vector<int64_t> & out = begins();
        out.resize((size_t) p.fours * p.blocks * VECTORS);
        const __m256i excess = _mm256_set1_epi8(Weights::EXCESS);
        for (int at = 0; at < p.fours * p.blocks; at++) {
            const int8_t * numbers = ((const Vectors *) p.vectors)[at].qs;
            __m256i sum = _mm256_setzero_si256();
            for (int part = 0; part < 4; part++) {
                sum = _mm256_dpbusd_epi32(sum, excess, _mm256_loadu_si256((const __m256i *) (numbers + 32 * part)));
            }
            _mm256_storeu_si256((__m256i *) &out[(size_t) at * VECTORS], _mm256_sub_epi32(_mm256_setzero_si256(), sum));
        }
    }

    static inline void add(const Vectors & y, const Apart (&x)[GROUPS], Sums & sums, int at) {
        const int64_t * begin = &begins()[(size_t) at * VECTORS];
        __m512i dot[VECTORS][GROUPS];
        UNROLLED
        for (int part = 0; part < 4; part++) {
            UNROLLED
            for (int v = 0; v < VECTORS; v++) {
                const __m512i ys = spread(y.qs + 32 * part + 8 * v);
                UNROLLED
                for (int g = 0; g < GROUPS; g++) {
                    const __m512i before = part == 0 ? _mm512_set1_epi64(begin[v]) : dot[v][g];
                    dot[v][g] = _mm512_dpbusd_epi32(before, x[g].numbers[part], ys);
                }
            }
        }
        UNROLLED
        for (int v = 0; v < VECTORS; v++) {
            const __m512 dy = _mm512_set1_ps(_cvtsh_ss(y.d[v]));
            UNROLLED
            for (int g = 0; g < GROUPS; g++) {
                const __m512 scale = _mm512_mul_ps(x[g].scales, dy);
                sums.lanes[v][g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[v][g]), scale, sums.lanes[v][g]);
            }
        }
    }
};

// 16 rows from group `group` on with all vectors. Where only eight are left, they are computed twice.
template <typename Kind> void sixteen_rows(const Product & p, int group, std::vector<__m512i> & scratch) {
    using Apart = typename Kind::Apart;
    scratch.resize(sizeof(Apart) / sizeof(__m512i) * GROUPS * Kind::PANEL);
    Apart(*panel)[GROUPS] = (Apart(*)[GROUPS]) scratch.data();
    const typename Kind::Block * rows[GROUPS];
    for (int g = 0; g < GROUPS; g++) {
        rows[g] = (const typename Kind::Block *) p.matrix + (size_t) std::min(group + g, p.groups - 1) * p.blocks;
    }
    for (int block = 0; block < p.blocks; block += Kind::PANEL) {
        const int blocks = std::min(Kind::PANEL, p.blocks - block);
        for (int b = 0; b < blocks; b++) {
            for (int g = 0; g < GROUPS; g++) {
                Kind::take_apart(rows[g][block + b], panel[b][g]);
            }
        }
        for (int four = 0; four < p.fours; four++) {
            const int first = four * p.blocks + block;
            const typename Kind::Vectors * y = (const typename Kind::Vectors *) p.vectors + first;
            Sums sums;
            for (int v = 0; v < VECTORS; v++) {
                for (int g = 0; g < GROUPS; g++) {
                    sums.lanes[v][g] = _mm512_setzero_ps();
                    sums.minima[v][g] = _mm256_setzero_ps();
                }
            }
            for (int b = 0; b < blocks; b++) {
                Kind::add(y[b], panel[b], sums, first + b);
            }
            for (int v = 0; v < VECTORS; v++) {
                for (int g = 0; g < GROUPS && group + g < p.groups; g++) {
                    float * out = p.out + (four * VECTORS + v) * p.out_stride + 8 * (group + g);
                    const __m256 found = _mm256_sub_ps(::rows(sums.lanes[v][g]), sums.minima[v][g]);
                    _mm256_storeu_ps(out, block == 0 ? found : _mm256_add_ps(_mm256_loadu_ps(out), found));
                }
            }
        }
    }
}

}  // namespace

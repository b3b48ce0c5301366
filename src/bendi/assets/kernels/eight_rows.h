// Eight rows of 4-bit weights as llama.cpp's repack.h interleaves them, by eight bytes: what the kernels for one vector
// and for prompts have in common. For CPUs with AVX-512 and VNNI.

#pragma once

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "repack.h"

#include <immintrin.h>

#include <cstring>

namespace {

// Eight bytes of the vector, once for each of eight rows.
inline __m512i spread(const int8_t * bytes) {
    int64_t eight;
    memcpy(&eight, bytes, sizeof(eight));
    return _mm512_set1_epi64(eight);
}

// Each of eight numbers twice, as rows lie in a register whose 32-bit lanes hold four of eight bytes.
inline __m512 twice(__m256 eight) {
    const __m512i order = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_permutexvar_ps(order, _mm512_castps256_ps512(eight));
}

inline __m256 halves(const ggml_half * eight) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) eight)); }

// The sums of neighbours: sixteen lanes become eight rows.
inline __m256 rows(__m512 lanes) {
    const __m512i even = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_castps512_ps256(_mm512_add_ps(_mm512_permutexvar_ps(even, lanes), _mm512_permutexvar_ps(odd, lanes)));
}

// Eight rows of blocks of 32 numbers with 4 bits: how nibbles become numbers from 0 to 255, and what is in them too
// much. Their tables are those of ggml-common.h, moved up by the excess.
struct Linear {  // Q4_0, repacked with the sign bit of each nibble flipped
    using Block = block_q4_0x8;
    static constexpr int EXCESS = 8;
    static __m512i low(__m512i packed) {
        return _mm512_and_si512(_mm512_xor_si512(packed, _mm512_set1_epi8((char) 0x88)), _mm512_set1_epi8(15));
    }
    static __m512i high(__m512i packed) { return low(_mm512_srli_epi16(packed, 4)); }
    static __m256 scales(const Block & block) { return halves(block.d); }
};

template <typename Table> struct Looked {
    static __m512i low(__m512i packed) {
        const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) Table::NUMBERS));
        return _mm512_shuffle_epi8(table, _mm512_and_si512(packed, _mm512_set1_epi8(15)));
    }
    static __m512i high(__m512i packed) { return low(_mm512_srli_epi16(packed, 4)); }
};

struct NonlinearTable {
    static constexpr uint8_t NUMBERS[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
};
struct Nonlinear : Looked<NonlinearTable> {  // IQ4_NL
    using Block = block_iq4_nlx8;
    static constexpr int EXCESS = 128;
    static __m256 scales(const Block & block) { return halves(block.d); }
};

struct FloatTable {
    static constexpr uint8_t NUMBERS[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
};
struct Float4 : Looked<FloatTable> {  // MXFP4: numbers are twice their value, scales half of theirs
    using Block = block_mxfp4x8;
    static constexpr int EXCESS = 12;
    static __m256 scales(const Block & block) {
        float eight[8];
        for (int row = 0; row < 8; row++) {
            eight[row] = GGML_E8M0_TO_FP32_HALF(block.e[row]);
        }
        return _mm256_loadu_ps(eight);
    }
};

// Scales and minima of eight rows of Q4_K for each of eight sub-blocks of 32 numbers: 6 bits each, in 12 bytes, as
// make_block_q4_Kx8 in repack.cpp packs them.
struct Unpacked {
    alignas(64) uint8_t scales[8][8], minima[8][8];

    explicit Unpacked(const uint8_t * packed) {
        const __m512i front = _mm512_loadu_si512(packed);
        const __m512i back = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) (packed + 64)));
        // Each of the three words of each sub-block, for rows 0 to 3 and once more for rows 4 to 7.
        const __m512i place = _mm512_set_epi32(21, 21, 18, 18, 15, 15, 12, 12, 9, 9, 6, 6, 3, 3, 0, 0);
        const __m512i one = _mm512_set1_epi32(1), next = _mm512_add_epi32(place, one);
        const __m512i word0 = _mm512_permutex2var_epi32(front, place, back);
        const __m512i word1 = _mm512_permutex2var_epi32(front, next, back);
        const __m512i word2 = _mm512_permutex2var_epi32(front, _mm512_add_epi32(next, one), back);
        _mm512_store_si512(scales, six_bits(word0, word2));
        _mm512_store_si512(minima, six_bits(word1, _mm512_srli_epi32(word2, 4)));
    }

    // Of one sub-block, in the lower 16 bits of both lanes of each row.
    __m512i lanes(int sub) const {
        const __m128i eight = _mm_loadl_epi64((const __m128i *) scales[sub]);
        return _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(eight, eight));
    }

    // Of two neighbouring sub-blocks, side by side for each row.
    __m256i pairs(int sub) const {
        const __m128i both = _mm_loadu_si128((const __m128i *) minima[sub]);
        return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(both, _mm_srli_si128(both, 8)));
    }

  private:
    // Rows 0 to 3 are six bits of `whole`; the others have four of `rest` and two that `whole` has over.
    static __m512i six_bits(__m512i whole, __m512i rest) {
        const __m512i two = _mm512_and_si512(_mm512_srli_epi32(whole, 2), _mm512_set1_epi32(0x30303030));
        const __m512i joined = _mm512_or_si512(_mm512_and_si512(rest, _mm512_set1_epi32(0x0f0f0f0f)), two);
        return _mm512_mask_blend_epi32(0xaaaa, _mm512_and_si512(whole, _mm512_set1_epi32(0x3f3f3f3f)), joined);
    }
};

}  // namespace

// What stands in for llama.cpp around kernels that are checked alone, random blocks, and how results are compared with plain
// arithmetic in double precision. A program that includes this prints the worst relative error of each kernel, one line
// each: a name, the error, how many results, how many were left to the original.

#pragma once

#define GGML_COMMON_DECL_CPP
#define GGML_COMMON_IMPL_CPP
#include "ggml-backend-impl.h"
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "repack.h"
#include "traits.h"

#include <sys/mman.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#define GEMV_PARAMETERS int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc
#define DOT_PARAMETERS int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc

static std::atomic<int> left_to_original{0};

#define ORIGINAL_GEMV(name)                         \
    extern "C" void __wrap_##name(GEMV_PARAMETERS); \
    extern "C" void __real_##name(GEMV_PARAMETERS) { left_to_original++; }
#define ORIGINAL_DOT(name)                         \
    extern "C" void __wrap_##name(DOT_PARAMETERS); \
    extern "C" void __real_##name(DOT_PARAMETERS) { left_to_original++; }

ORIGINAL_GEMV(ggml_gemv_q4_0_8x8_q8_0)
ORIGINAL_GEMV(ggml_gemv_iq4_nl_8x8_q8_0)
ORIGINAL_GEMV(ggml_gemv_mxfp4_8x8_q8_0)
ORIGINAL_GEMV(ggml_gemv_q4_K_8x8_q8_K)
ORIGINAL_DOT(ggml_vec_dot_q8_0_q8_0)
ORIGINAL_DOT(ggml_vec_dot_q6_K_q8_K)

ORIGINAL_GEMV(ggml_gemm_q4_K_8x8_q8_K)
ORIGINAL_GEMV(ggml_gemm_q4_0_8x8_q8_0)
ORIGINAL_GEMV(ggml_gemm_iq4_nl_8x8_q8_0)
ORIGINAL_GEMV(ggml_gemm_mxfp4_8x8_q8_0)

// Other kernels call these by the names of the originals.
#define CALLED_GEMV(name) \
    extern "C" void name(GEMV_PARAMETERS) { __wrap_##name(n, s, bs, vx, vy, nr, nc); }

CALLED_GEMV(ggml_gemv_q4_0_8x8_q8_0)
CALLED_GEMV(ggml_gemv_iq4_nl_8x8_q8_0)
CALLED_GEMV(ggml_gemv_mxfp4_8x8_q8_0)
CALLED_GEMV(ggml_gemv_q4_K_8x8_q8_K)

extern "C" void __wrap_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);
extern "C" void __real_ggml_compute_forward_flash_attn_ext(const ggml_compute_params *, ggml_tensor *) {
    left_to_original++;
}

extern "C" bool __wrap_ggml_compute_forward_mul_mat_tiled(const ggml_compute_params * params, ggml_tensor * dst);
extern "C" bool __real_ggml_compute_forward_mul_mat_tiled(const ggml_compute_params *, ggml_tensor *) {
    left_to_original++;
    return false;
}

#define EXPERT_PARAMETERS \
    const ggml_compute_params * params, ggml_tensor * dst, int64_t expert, int64_t count, const int32_t * places, char * memory
extern "C" bool __wrap_ggml_compute_forward_mul_mat_id_tiled(EXPERT_PARAMETERS);
extern "C" bool __real_ggml_compute_forward_mul_mat_id_tiled(EXPERT_PARAMETERS) {
    left_to_original++;
    return false;
}

extern "C" bool __wrap_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * op);
extern "C" bool __real_ggml_cpu_extra_compute_forward(ggml_compute_params *, ggml_tensor *) {
    left_to_original++;
    return false;
}

// What kernels use of ggml: pieces of work, sizes, and how vectors become blocks of Q8_0 and Q8_K.
static std::atomic<int> next_piece{0};
extern "C" void ggml_threadpool_chunk_set(ggml_threadpool *, int value) { next_piece = value; }
extern "C" int ggml_threadpool_chunk_add(ggml_threadpool *, int value) { return next_piece.fetch_add(value); }
extern "C" size_t ggml_row_size(ggml_type type, int64_t ne) {
    return type == GGML_TYPE_Q8_K ? sizeof(block_q8_K) * ne / QK_K : sizeof(block_q8_0) * ne / QK8_0;
}
extern "C" void ggml_abort(const char * file, int line, const char *, ...) {
    printf("%s:%d\n", file, line);
    abort();
}
extern "C" int64_t ggml_blck_size(ggml_type type) { return type == GGML_TYPE_Q8_K ? QK_K : QK8_0; }
extern "C" int64_t ggml_nrows(const ggml_tensor * t) { return t->ne[1] * t->ne[2] * t->ne[3]; }
extern "C" int64_t ggml_nelements(const ggml_tensor * t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; }

static void to_q8_0(const float * x, void * out, int64_t count) {
    for (int64_t b = 0; b < count / QK8_0; b++) {
        block_q8_0 & block = ((block_q8_0 *) out)[b];
        float largest = 0;
        for (int i = 0; i < QK8_0; i++) {
            largest = std::max(largest, std::fabs(x[QK8_0 * b + i]));
        }
        block.d = _cvtss_sh(largest / 127, 0);
        for (int i = 0; i < QK8_0; i++) {
            block.qs[i] = (int8_t) std::lround(largest > 0 ? x[QK8_0 * b + i] * 127 / largest : 0);
        }
    }
}

static void to_q8_K(const float * x, void * out, int64_t count) {
    for (int64_t b = 0; b < count / QK_K; b++) {
        block_q8_K & block = ((block_q8_K *) out)[b];
        float largest = 0;
        for (int i = 0; i < QK_K; i++) {
            largest = std::max(largest, std::fabs(x[QK_K * b + i]));
        }
        block.d = largest / 127;
        memset(block.bsums, 0, sizeof(block.bsums));
        for (int i = 0; i < QK_K; i++) {
            block.qs[i] = (int8_t) std::lround(largest > 0 ? x[QK_K * b + i] * 127 / largest : 0);
            block.bsums[i / 16] += block.qs[i];
        }
    }
}

extern "C" const ggml_type_traits_cpu * ggml_get_type_traits_cpu(ggml_type type) {
    static ggml_type_traits_cpu eights, larger;
    eights.from_float = to_q8_0;
    larger.from_float = to_q8_K;
    return type == GGML_TYPE_Q8_K ? &larger : &eights;
}

extern "C" void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);
extern "C" void __real_ggml_backend_buffer_clear(ggml_backend_buffer_t, uint8_t) { left_to_original++; }

static ggml_backend_buffer_type from_library, from_elsewhere, laid_out_anew;
extern "C++" ggml_backend_buffer_type_t ggml_backend_cpu_repack_buffer_type() { return &laid_out_anew; }
extern "C" ggml_backend_buffer_type_t ggml_backend_cpu_buffer_type() { return &from_library; }
extern "C" ggml_backend_buffer_type_t ggml_backend_buffer_get_type(ggml_backend_buffer_t buffer) { return buffer->buft; }
extern "C" void * ggml_backend_buffer_get_base(ggml_backend_buffer_t buffer) { return buffer->context; }
extern "C" size_t ggml_backend_buffer_get_size(ggml_backend_buffer_t buffer) { return buffer->size; }

static ggml_backend_buffer buffer_of(void * memory, size_t bytes, ggml_backend_buffer_type & type) {
    ggml_backend_buffer made{};
    made.context = memory;
    made.size = bytes;
    made.buft = &type;
    return made;
}

extern "C" const char * ggml_backend_buft_name(ggml_backend_buffer_type_t type) {
    return type == &laid_out_anew ? "CPU_REPACK" : "CPU";
}

extern "C" ggml_backend_buffer_t __wrap_ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t type, size_t size);
static ggml_backend_buffer allocated;
static void * next_memory;  // what is allocated next
extern "C" ggml_backend_buffer_t __real_ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    allocated = buffer_of(next_memory, size, *type);
    return next_memory ? &allocated : nullptr;
}

// Two threads meet here.
static std::atomic<int> arrived{0}, left{0};
static int threads_here = 1;
extern "C" void ggml_barrier(ggml_threadpool *) {
    arrived++;
    while (arrived < threads_here) {
    }
    if (++left == threads_here) {
        left = 0;
        arrived = 0;
    } else {
        while (left != 0) {
        }
    }
}

static std::mt19937 source(7);
static int whole(int least, int most) { return std::uniform_int_distribution<int>(least, most)(source); }
static float real(float least, float most) { return std::uniform_real_distribution<float>(least, most)(source); }
static ggml_half half(float x) { return _cvtss_sh(x, 0); }
static double number(ggml_half h) { return _cvtsh_ss(h); }

struct Worst {
    const char * name;
    double error = 0;
    int results = 0, before = left_to_original;
    explicit Worst(const char * name) : name(name) {}
    ~Worst() { printf("%s %.3g %d %d\n", name, error, results, left_to_original - before); }
    // `size`: of the terms of the sum, without their signs.
    void compare(double right, double found, double size) {
        const double off = std::fabs(right - found) / (size + 1e-30);
        error = off > error || std::isnan(off) ? (std::isnan(off) ? INFINITY : off) : error;
        results++;
    }
};

static ggml_tensor tensor(ggml_type type, void * data, std::vector<int64_t> ne, std::vector<size_t> nb) {
    ggml_tensor made;
    memset(&made, 0, sizeof(made));
    made.type = type;
    made.data = data;
    for (int i = 0; i < 4; i++) {
        made.ne[i] = ne[i];
        made.nb[i] = nb[i];
    }
    return made;
}

static const int8_t LINEAR[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

static double set_half_scale(ggml_half * d, int row) {
    d[row] = half(real(0.001f, 0.1f));
    return number(d[row]);
}

// Eight interleaved rows of 32 numbers of 4 bits: their scales, and the table of their numbers with what repacking flips.
static double set_scale(block_q4_0x8 & block, int row) { return set_half_scale(block.d, row); }
static double set_scale(block_iq4_nlx8 & block, int row) { return set_half_scale(block.d, row); }
static double set_scale(block_mxfp4x8 & block, int row) {
    block.e[row] = (uint8_t) whole(110, 130);
    return (double) GGML_E8M0_TO_FP32_HALF(block.e[row]);
}
static const int8_t * table(const block_q4_0x8 &) { return LINEAR; }
static const int8_t * table(const block_iq4_nlx8 &) { return kvalues_iq4nl; }
static const int8_t * table(const block_mxfp4x8 &) { return kvalues_mxfp4; }
static int flipped(const block_q4_0x8 &) { return 0x88; }
static int flipped(const block_iq4_nlx8 &) { return 0; }
static int flipped(const block_mxfp4x8 &) { return 0; }

// One block with random contents, and what it stands for.
template <typename Block> struct EightRowsOf32 {
    Block block;
    double value[8][32];

    EightRowsOf32() {
        for (int row = 0; row < 8; row++) {
            const double scale = set_scale(block, row);
            for (int i = 0; i < 16; i++) {
                const int byte = whole(0, 255);
                ((uint8_t *) block.qs)[64 * (i / 8) + 8 * row + i % 8] = (uint8_t) (byte ^ flipped(block));
                value[row][i] = scale * table(block)[byte & 15];
                value[row][i + 16] = scale * table(block)[byte >> 4];
            }
        }
    }
};

// Blocks of 32 weights of one row.
static double value(const block_q8_0 & block, int i) { return number(block.d) * block.qs[i]; }
static double value(const block_q5_0 & block, int i) {
    uint32_t fifth;
    memcpy(&fifth, block.qh, sizeof(fifth));
    const int nibble = i < 16 ? block.qs[i] & 15 : block.qs[i - 16] >> 4;
    return number(block.d) * ((nibble | (fifth >> i & 1) << 4) - 16.0);
}
template <typename Block> static std::vector<Block> random_blocks(size_t count) {
    std::vector<Block> made(count);
    for (auto & block : made) {
        for (size_t i = 0; i < sizeof(block); i++) {
            ((uint8_t *) &block)[i] = (uint8_t) whole(0, 255);
        }
        block.d = half(real(0.001f, 0.1f));
    }
    return made;
}

static std::vector<block_q8_0> vector_q8_0(int blocks) {
    std::vector<block_q8_0> y(blocks);
    for (auto & block : y) {
        block.d = half(real(0.001f, 0.1f));
        for (auto & q : block.qs) {
            q = (int8_t) whole(-127, 127);
        }
    }
    return y;
}

static std::vector<block_q8_K> vector_q8_K(int blocks) {
    std::vector<block_q8_K> y(blocks);
    for (auto & block : y) {
        block.d = real(0.001f, 0.1f);
        for (int i = 0; i < QK_K; i++) {
            block.qs[i] = (int8_t) whole(-128, 127);
        }
        for (int group = 0; group < QK_K / 16; group++) {
            int sum = 0;
            for (int i = 0; i < 16; i++) {
                sum += block.qs[16 * group + i];
            }
            block.bsums[group] = (int16_t) sum;
        }
    }
    return y;
}

// Eight rows of one block of Q4_K, by eight bytes, and what they stand for: `numbers` of each row, times `scale`, less
// `minimum`, of each sub-block of 32.
struct EightRows {
    block_q4_Kx8 block;
    int numbers[8][QK_K];
    double scale[8][8], minimum[8][8];

    EightRows() {
        memset(&block, 0, sizeof(block));
        for (int row = 0; row < 8; row++) {
            block.d[row] = half(real(0.001f, 0.1f));
            block.dmin[row] = half(real(0.001f, 0.1f));
            for (int sub = 0; sub < 8; sub++) {
                const int factor = whole(0, 63), taken = whole(0, 63), at = 12 * sub + row % 4;
                if (row < 4) {
                    block.scales[at] |= factor;
                    block.scales[at + 4] |= taken;
                } else {
                    block.scales[at] |= (factor & 48) << 2;
                    block.scales[at + 4] |= (taken & 48) << 2;
                    block.scales[at + 8] |= (factor & 15) | (taken & 15) << 4;
                }
                scale[row][sub] = number(block.d[row]) * factor;
                minimum[row][sub] = number(block.dmin[row]) * taken;
                for (int i = 0; i < 32; i++) {
                    const int q = whole(0, 15), k = 4 * (sub / 2) + i / 8;
                    numbers[row][32 * sub + i] = q;
                    block.qs[64 * k + 8 * row + i % 8] |= sub % 2 ? q << 4 : q;
                }
            }
        }
    }
};

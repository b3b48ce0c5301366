// Compares bendi's kernels with plain arithmetic in double precision, on random numbers; prints the worst relative
// error of each, one line each: a name, the error, how many results, how many were left to the original.

#define GGML_COMMON_DECL_CPP
#define GGML_COMMON_IMPL_CPP
#include "ggml-backend-impl.h"
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "repack.h"

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

extern "C" void __wrap_ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);
extern "C" void __real_ggml_compute_forward_flash_attn_ext(const ggml_compute_params *, ggml_tensor *) {
    left_to_original++;
}

extern "C" bool __wrap_ggml_compute_forward_mul_mat_tiled(const ggml_compute_params * params, ggml_tensor * dst);
extern "C" bool __real_ggml_compute_forward_mul_mat_tiled(const ggml_compute_params *, ggml_tensor *) {
    left_to_original++;
    return false;
}

// What kernels use of ggml: pieces of work, sizes, and how vectors become blocks of Q8_0.
static std::atomic<int> next_piece{0};
extern "C" void ggml_threadpool_chunk_set(ggml_threadpool *, int value) { next_piece = value; }
extern "C" int ggml_threadpool_chunk_add(ggml_threadpool *, int value) { return next_piece.fetch_add(value); }
extern "C" size_t ggml_row_size(ggml_type, int64_t ne) { return sizeof(block_q8_0) * ne / QK8_0; }
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

extern "C" const ggml_type_traits_cpu * ggml_get_type_traits_cpu(ggml_type) {
    static ggml_type_traits_cpu traits;
    traits.from_float = to_q8_0;
    return &traits;
}

extern "C" void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);
extern "C" void __real_ggml_backend_buffer_clear(ggml_backend_buffer_t, uint8_t) { left_to_original++; }

static ggml_backend_buffer_type from_library, from_elsewhere;
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

// Rows of 32 numbers of 4 bits, interleaved by eight bytes. `value`: of a nibble; `mask`: what repacking flips.
template <typename Block>
static void check_4_bits(const char * name, void (*gemv)(GEMV_PARAMETERS), const int8_t * table, int mask,
                         double (*set_scale)(Block &, int)) {
    Worst worst(name);
    for (int blocks : {1, 2, 5, 33}) {
        const int groups = 3;
        const auto y = vector_q8_0(blocks);
        std::vector<Block> matrix(groups * blocks + 64);  // the kernel asks for memory beyond, and must not need it
        std::vector<double> right(8 * groups), size(8 * groups);
        for (int group = 0; group < groups; group++) {
            for (int b = 0; b < blocks; b++) {
                Block & block = matrix[group * blocks + b];
                for (int row = 0; row < 8; row++) {
                    const double scale = set_scale(block, row) * number(y[b].d);
                    double sum = 0;
                    for (int i = 0; i < 16; i++) {
                        const int byte = whole(0, 255);
                        ((uint8_t *) block.qs)[64 * (i / 8) + 8 * row + i % 8] = (uint8_t) (byte ^ mask);
                        sum += table[byte & 15] * y[b].qs[i] + table[byte >> 4] * y[b].qs[i + 16];
                        size[8 * group + row] +=
                            scale * (std::abs(table[byte & 15] * y[b].qs[i]) + std::abs(table[byte >> 4] * y[b].qs[i + 16]));
                    }
                    right[8 * group + row] += scale * sum;
                }
            }
        }
        std::vector<float> found(8 * groups, NAN);
        gemv(32 * blocks, found.data(), 8 * groups, matrix.data(), y.data(), 1, 8 * groups);
        for (int row = 0; row < 8 * groups; row++) {
            worst.compare(right[row], found[row], size[row]);
        }
    }
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

static void check_q4_K() {
    Worst worst("q4_K");
    for (int blocks : {1, 2, 7}) {
        const int groups = 2;
        const auto y = vector_q8_K(blocks);
        std::vector<block_q4_Kx8> matrix(groups * blocks + 8);
        std::vector<double> right(8 * groups), size(8 * groups);
        for (int group = 0; group < groups; group++) {
            for (int b = 0; b < blocks; b++) {
                const EightRows eight;
                matrix[group * blocks + b] = eight.block;
                for (int at = 0; at < 8 * QK_K; at++) {
                    const int row = at / QK_K, i = at % QK_K;
                    const double value = (double) y[b].d * y[b].qs[i], x = eight.scale[row][i / 32] * eight.numbers[row][i];
                    right[8 * group + row] += value * (x - eight.minimum[row][i / 32]);
                    size[8 * group + row] += std::fabs(value) * (x + eight.minimum[row][i / 32]);
                }
            }
        }
        std::vector<float> found(8 * groups, NAN);
        __wrap_ggml_gemv_q4_K_8x8_q8_K(QK_K * blocks, found.data(), 8 * groups, matrix.data(), y.data(), 1, 8 * groups);
        for (int row = 0; row < 8 * groups; row++) {
            worst.compare(right[row], found[row], size[row]);
        }
    }
}

static void check_prompts_q4_K(int blocks, int groups, int fours, Worst & worst) {
    std::vector<EightRows> rows(groups * blocks);
    std::vector<block_q4_Kx8> matrix;
    for (const auto & eight : rows) matrix.push_back(eight.block);
    std::vector<block_q8_Kx4> vectors(fours * blocks);
    for (auto & four : vectors) {
        memset(&four, 0, sizeof(four));
        for (int v = 0; v < 4; v++) {
            four.d[v] = real(0.001f, 0.1f);
            for (int i = 0; i < QK_K; i++) {
                const int8_t q = (int8_t) whole(-127, 127);
                four.qs[32 * (i / 8) + 8 * v + i % 8] = q;
                four.bsums[16 * (i / 64) + 4 * v + i % 64 / 16] += q;
            }
        }
    }
    const int columns = 8 * groups;
    std::vector<float> found((size_t) 4 * fours * columns, NAN);
    __wrap_ggml_gemm_q4_K_8x8_q8_K(QK_K * blocks, found.data(), columns, matrix.data(), vectors.data(), 4 * fours, columns);
    for (int v = 0; v < 4 * fours; v++) {
        for (int column = 0; column < columns; column++) {
            double right = 0, size = 0;
            for (int b = 0; b < blocks; b++) {
                const EightRows & eight = rows[column / 8 * blocks + b];
                const block_q8_Kx4 & four = vectors[v / 4 * blocks + b];
                for (int i = 0; i < QK_K; i++) {
                    const double y = (double) four.d[v % 4] * four.qs[32 * (i / 8) + 8 * (v % 4) + i % 8];
                    const double x = eight.scale[column % 8][i / 32] * eight.numbers[column % 8][i];
                    right += y * (x - eight.minimum[column % 8][i / 32]);
                    size += std::fabs(y) * (x + eight.minimum[column % 8][i / 32]);
                }
            }
            worst.compare(right, found[(size_t) v * columns + column], size);
        }
    }
}

static void check_prompts_q4_0(int blocks, int groups, int fours, Worst & worst) {
    std::vector<block_q4_0x8> matrix(groups * blocks);
    for (auto & block : matrix) {
        for (auto & d : block.d) d = half(real(0.001f, 0.1f));
        for (auto & q : block.qs) q = (int8_t) whole(-128, 127);
    }
    std::vector<block_q8_0x4> vectors(fours * blocks);
    for (auto & four : vectors) {
        for (auto & d : four.d) d = half(real(0.001f, 0.1f));
        for (auto & q : four.qs) q = (int8_t) whole(-127, 127);
    }
    const int columns = 8 * groups;
    std::vector<float> found((size_t) 4 * fours * columns, NAN);
    __wrap_ggml_gemm_q4_0_8x8_q8_0(QK8_0 * blocks, found.data(), columns, matrix.data(), vectors.data(), 4 * fours, columns);
    for (int v = 0; v < 4 * fours; v++) {
        for (int column = 0; column < columns; column++) {
            double right = 0, size = 0;
            for (int b = 0; b < blocks; b++) {
                const block_q4_0x8 & block = matrix[column / 8 * blocks + b];
                const block_q8_0x4 & four = vectors[v / 4 * blocks + b];
                for (int i = 0; i < QK8_0; i++) {
                    const int byte = (uint8_t) block.qs[64 * (i % 16 / 8) + 8 * (column % 8) + i % 8];
                    const int nibble = i < 16 ? byte & 15 : byte >> 4;  // with a sign
                    const double x = number(block.d[column % 8]) * (nibble < 8 ? nibble : nibble - 16);
                    const double product = x * number(four.d[v % 4]) * four.qs[32 * (i / 8) + 8 * (v % 4) + i % 8];
                    right += product;
                    size += std::fabs(product);
                }
            }
            worst.compare(right, found[(size_t) v * columns + column], size);
        }
    }
}

static void check_prompts() {
    const int most = 8;  // groups of eight rows; an odd number leaves eight over
    {
        Worst worst("prompts_q4_K");
        for (int groups = 1; groups <= most; groups++) check_prompts_q4_K(1 + groups % 6, groups, 1 + groups % 4, worst);
    }
    Worst worst("prompts_q4_0");
    for (int groups = 1; groups <= most; groups++) check_prompts_q4_0(1 + 9 * (groups - 1), groups, 1 + groups % 4, worst);
}

static void check_q8_0() {
    Worst worst("q8_0");
    for (int blocks : {2, 4, 6, 8, 64, 66}) {
        auto x = vector_q8_0(blocks + 160);
        x[0].qs[0] = -128;
        const auto y = vector_q8_0(blocks);
        double right = 0, size = 0;
        for (int b = 0; b < blocks; b++) {
            for (int i = 0; i < 32; i++) {
                const double product = number(x[b].d) * number(y[b].d) * x[b].qs[i] * y[b].qs[i];
                right += product;
                size += std::fabs(product);
            }
        }
        float found = NAN;
        __wrap_ggml_vec_dot_q8_0_q8_0(32 * blocks, &found, 0, x.data(), 0, y.data(), 0, 1);
        worst.compare(right, found, size);
    }
    float nothing;
    const auto odd = vector_q8_0(3);
    __wrap_ggml_vec_dot_q8_0_q8_0(96, &nothing, 0, odd.data(), 0, odd.data(), 0, 1);  // left to the original
}

static void check_q6_K() {
    Worst worst("q6_K");
    for (int blocks : {1, 2, 9}) {
        std::vector<block_q6_K> x(blocks + 32);
        const auto y = vector_q8_K(blocks);
        double right = 0, size = 0;
        for (int b = 0; b < blocks; b++) {
            memset(&x[b], 0, sizeof(x[b]));
            x[b].d = half(real(0.001f, 0.1f));
            for (auto & scale : x[b].scales) {
                scale = (int8_t) whole(-128, 127);
            }
            for (int i = 0; i < QK_K; i++) {
                // Of 128 numbers: the lower four bits lie in 64 bytes, the upper two in 32 bytes (ggml-common.h).
                const int q = whole(0, 63), half_ = i / 128, group = i % 128 / 32, at = i % 32;
                x[b].ql[64 * half_ + 32 * (group % 2) + at] |= (q & 15) << (group / 2 * 4);
                x[b].qh[32 * half_ + at] |= (q >> 4) << (2 * group);
                const double product = number(x[b].d) * y[b].d * x[b].scales[i / 16] * (q - 32) * y[b].qs[i];
                right += product;
                size += std::fabs(product);
            }
        }
        float found = NAN;
        __wrap_ggml_vec_dot_q6_K_q8_K(QK_K * blocks, &found, 0, x.data(), 0, y.data(), 0, 1);
        worst.compare(right, found, size);
    }
}

// Bytes that are not as they must be after a part of `bytes` from `offset` on was cleared, and pages that it still holds.
static void check_clearing(size_t bytes, size_t offset, Worst & worst, int & held) {
    std::vector<uint8_t> memory(bytes + 3 * 4096, 7);
    ggml_backend_buffer buffer = buffer_of(memory.data() + offset, bytes, from_library);
    __wrap_ggml_backend_buffer_clear(&buffer, 0);
    const size_t first = ((uintptr_t) buffer.context + 4095) / 4096 * 4096;
    std::vector<unsigned char> pages(bytes / 4096 - 1);
    mincore((void *) first, pages.size() * 4096, pages.data());
    for (unsigned char page : pages) {
        held += page & 1;
    }
    for (size_t i = 0; i < memory.size(); i++) {
        worst.compare(i < offset || i >= offset + bytes ? 7 : 0, memory[i], 1);
    }
}

static int check_clearing() {
    int held = 0;
    {
        Worst worst("clearing");
        for (size_t offset : {0, 64, 4000}) {
            check_clearing((4 << 20) + 192, offset, worst, held);
        }
    }
    Worst others("clearing_not_covered");
    std::vector<uint8_t> memory(2 << 20, 7);
    ggml_backend_buffer elsewhere = buffer_of(memory.data(), memory.size(), from_elsewhere);
    ggml_backend_buffer small = buffer_of(memory.data(), 4096, from_library);
    ggml_backend_buffer with_ones = buffer_of(memory.data(), memory.size(), from_library);
    __wrap_ggml_backend_buffer_clear(&elsewhere, 0);
    __wrap_ggml_backend_buffer_clear(&small, 0);
    __wrap_ggml_backend_buffer_clear(&with_ones, 1);
    return held;
}

struct Sizes {
    int blocks, rows, vectors, matrices, sharing, threads;  // `sharing`: how many vectors' matrices use one matrix
};

static ggml_tensor tensor(ggml_type type, void * data, std::vector<int64_t> ne, std::vector<size_t> nb);

static void check_matrices(const Sizes & sizes, Worst & worst, bool covered = true) {
    const int64_t length = QK8_0 * sizes.blocks, rows = sizes.rows, vectors = sizes.vectors;
    const int64_t products = (int64_t) sizes.matrices * sizes.sharing;
    const size_t block = sizeof(block_q8_0), f = sizeof(float), row = block * sizes.blocks;
    auto x = vector_q8_0((int) (sizes.blocks * rows * sizes.matrices) + 256);
    x[0].qs[0] = -128;
    std::vector<float> y(length * vectors * products), out(rows * vectors * products, NAN);
    for (auto & number_ : y) {
        number_ = real(-3, 3);
    }
    std::vector<block_q8_0> work(y.size() / QK8_0), ys(y.size() / QK8_0);
    to_q8_0(y.data(), ys.data(), (int64_t) y.size());
    ggml_tensor tx = tensor(GGML_TYPE_Q8_0, x.data(), {length, rows, sizes.matrices, 1},
                            {block, row, row * rows, row * rows * sizes.matrices});
    ggml_tensor ty = tensor(GGML_TYPE_F32, y.data(), {length, vectors, products, 1},
                            {f, f * length, f * length * vectors, f * y.size()});
    ggml_tensor dst = tensor(GGML_TYPE_F32, out.data(), {rows, vectors, products, 1},
                             {f, f * rows, f * rows * vectors, f * out.size()});
    dst.src[0] = &tx;
    dst.src[1] = &ty;
    threads_here = sizes.threads;
    std::vector<std::thread> threads;
    for (int i = 0; i < sizes.threads; i++) {
        threads.emplace_back([&, i] {
            const ggml_compute_params params = {i, sizes.threads, work.size() * block, work.data(), nullptr, false};
            __wrap_ggml_compute_forward_mul_mat_tiled(&params, &dst);
        });
    }
    for (auto & thread : threads) thread.join();
    for (int64_t at = 0; covered && at < (int64_t) out.size(); at++) {
        const int64_t vector = at / rows, matrix = vector / vectors / sizes.sharing;
        double right = 0, size = 0;
        for (int64_t i = 0; i < length; i++) {
            const block_q8_0 & xb = x[(matrix * rows + at % rows) * sizes.blocks + i / QK8_0];
            const block_q8_0 & yb = ys[vector * sizes.blocks + i / QK8_0];
            const double product = number(xb.d) * number(yb.d) * xb.qs[i % QK8_0] * yb.qs[i % QK8_0];
            right += product;
            size += std::fabs(product);
        }
        worst.compare(right, out[at], size);
    }
}

struct Shape {
    int heads, kv_heads, length, past, queries, threads;
    bool masked, sinks;
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

static void check_attention(const Shape & shape, Worst & worst) {
    const int heads = shape.heads, length = shape.length, past = shape.past, queries = shape.queries;
    const size_t row = (size_t) length * shape.kv_heads;
    std::vector<float> q((size_t) heads * queries * length);
    std::vector<ggml_half> k(row * past), v(row * past), mask((size_t) past * queries);
    std::vector<float> sinks(heads), out((size_t) heads * queries * length, NAN);
    for (auto & x : q) x = real(-2, 2);
    for (auto & x : k) x = half(real(-2, 2));
    for (auto & x : v) x = half(real(-2, 2));
    for (auto & x : sinks) x = real(-2, 6);
    for (int i = 0; i < queries; i++) {
        const int hidden_until = whole(0, past / 2), hidden_from = whole(past / 2 + 1, past);
        for (int p = 0; p < past; p++) {
            const bool hidden = p < hidden_until || p >= hidden_from || whole(0, 9) == 0;
            mask[(size_t) i * past + p] = half(hidden ? -INFINITY : 0.0f);
        }
        mask[(size_t) i * past + past / 2] = 0;
    }
    for (int p = 0; p < past; p++) {  // what nobody sees may be anything
        bool seen = !shape.masked;
        for (int i = 0; i < queries; i++) seen |= mask[(size_t) i * past + p] == 0;
        if (!seen) {
            for (size_t d = 0; d < row; d++) k[p * row + d] = v[p * row + d] = half(NAN);
        }
    }
    const size_t f = sizeof(float), h = sizeof(ggml_half);
    // Queries of one head lie one after another for all tokens; keys and values of all heads side by side.
    ggml_tensor tq = tensor(GGML_TYPE_F32, q.data(), {length, queries, heads, 1},
                            {f, f * length, f * length * queries, f * q.size()});
    ggml_tensor tk = tensor(GGML_TYPE_F16, k.data(), {length, past, shape.kv_heads, 1}, {h, h * row, h * length, h * k.size()});
    ggml_tensor tv = tensor(GGML_TYPE_F16, v.data(), {length, past, shape.kv_heads, 1}, {h, h * row, h * length, h * v.size()});
    ggml_tensor tm = tensor(GGML_TYPE_F16, mask.data(), {past, queries, 1, 1}, {h, h * past, h * mask.size(), h * mask.size()});
    ggml_tensor ts = tensor(GGML_TYPE_F32, sinks.data(), {heads, 1, 1, 1}, {f, f * heads, f * heads, f * heads});
    ggml_tensor dst = tensor(GGML_TYPE_F32, out.data(), {length, heads, queries, 1},
                             {f, f * length, f * length * heads, f * out.size()});
    dst.src[0] = &tq;
    dst.src[1] = &tk;
    dst.src[2] = &tv;
    dst.src[3] = shape.masked ? &tm : nullptr;
    dst.src[4] = shape.sinks ? &ts : nullptr;
    const float scale = 1.0f / std::sqrt((float) length);
    memcpy(dst.op_params, &scale, sizeof(scale));
    std::vector<float> work((size_t) heads * shape.threads * (2 + length));
    threads_here = shape.threads;
    std::vector<std::thread> threads;
    for (int i = 0; i < shape.threads; i++) {
        threads.emplace_back([&, i] {
            const ggml_compute_params params = {i, shape.threads, work.size() * f, work.data(), nullptr, false};
            __wrap_ggml_compute_forward_flash_attn_ext(&params, &dst);
        });
    }
    for (auto & thread : threads) thread.join();
    for (int head = 0; head < heads; head++) {
        const int kv_head = head / (heads / shape.kv_heads);
        for (int i = 0; i < queries; i++) {
            std::vector<double> scores(past, -INFINITY);
            double most = shape.sinks ? sinks[head] : -INFINITY;
            for (int p = 0; p < past; p++) {
                if (shape.masked && mask[(size_t) i * past + p] != 0) continue;
                double dot = 0;
                for (int d = 0; d < length; d++) {
                    dot += q[((size_t) head * queries + i) * length + d] * number(k[p * row + kv_head * length + d]);
                }
                scores[p] = dot * scale;
                most = std::max(most, scores[p]);
            }
            double sum = shape.sinks ? std::exp(sinks[head] - most) : 0;
            std::vector<double> right(length);
            for (int p = 0; p < past; p++) {
                if (scores[p] == -INFINITY) continue;
                const double weight = std::exp(scores[p] - most);
                sum += weight;
                for (int d = 0; d < length; d++) right[d] += weight * number(v[p * row + kv_head * length + d]);
            }
            for (int d = 0; d < length; d++) {
                worst.compare(right[d] / sum, out[((size_t) i * heads + head) * length + d], 1.0);
            }
        }
    }
}

static double set_half_scale(ggml_half * d, int row) {
    d[row] = half(real(0.001f, 0.1f));
    return number(d[row]);
}

int main(int count, char ** names) {
    if (check_clearing() != 0) {
        printf("memory was not given back\n");
        return 1;
    }
    if (count > 1 && strcmp(names[1], "products") == 0) {
        static const int8_t linear[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
        check_4_bits<block_q4_0x8>("q4_0", __wrap_ggml_gemv_q4_0_8x8_q8_0, linear, 0x88,
                                   [](block_q4_0x8 & block, int row) { return set_half_scale(block.d, row); });
        check_4_bits<block_iq4_nlx8>("iq4_nl", __wrap_ggml_gemv_iq4_nl_8x8_q8_0, kvalues_iq4nl, 0,
                                     [](block_iq4_nlx8 & block, int row) { return set_half_scale(block.d, row); });
        check_4_bits<block_mxfp4x8>("mxfp4", __wrap_ggml_gemv_mxfp4_8x8_q8_0, kvalues_mxfp4, 0,
                                    [](block_mxfp4x8 & block, int row) {
                                        block.e[row] = (uint8_t) whole(110, 130);
                                        return (double) GGML_E8M0_TO_FP32_HALF(block.e[row]);
                                    });
        check_q4_K();
        check_q8_0();
        check_q6_K();
        check_prompts();
        {
            Worst matrices("matrices");
            for (int threads : {1, 2}) {
                for (int vectors : {1, 2, 3, 4, 5, 6, 7, 13}) {
                    for (int rows : {1, 15, 16, 17, 32, 70, 200}) {
                        check_matrices({2, rows, vectors, 1, 1, threads}, matrices);
                    }
                    check_matrices({34, 40, vectors, 1, 1, threads}, matrices);
                    check_matrices({4, 33, vectors, 2, 3, threads}, matrices);
                }
            }
        }
        Worst others("matrices_not_covered");
        check_matrices({3, 8, 2, 1, 1, 1}, others, false);
    }
    {
        Worst attention("attention");
        for (int length : {64, 80, 96, 112, 128, 192, 256}) {
            check_attention({4, 2, length, 200, 1, 1, true, false}, attention);
            check_attention({4, 2, length, 200, 1, 2, false, false}, attention);
        }
        for (const int heads : {1, 2, 3, 7, 8, 12}) {
            check_attention({heads, 1, 64, 130, 1, 2, true, heads % 2 == 0}, attention);
            check_attention({2 * heads, 2, 128, 65, 3, 2, true, false}, attention);
        }
        for (const int length : {64, 128, 256}) {
            for (const int queries : {17, 33, 64, 65, 130}) {
                check_attention({3, 1, length, 200, queries, 2, true, queries % 2 == 0}, attention);
            }
            check_attention({4, 4, length, 333, 40, 1, false, true}, attention);
        }
        for (const int past : {1, 2, 15, 16, 17, 63, 64, 65, 127, 1000}) {
            check_attention({6, 3, 128, past, 1, 2, true, true}, attention);
            check_attention({6, 3, 64, past, 7, 2, true, true}, attention);
            check_attention({6, 3, 64, past, 32, 2, past % 2 == 0, false}, attention);
        }
    }
    Worst others("attention_not_covered");
    const int before = left_to_original;
    check_attention({4, 2, 72, 64, 1, 1, true, false}, others);
    check_attention({4, 2, 80, 64, 33, 1, true, false}, others);
    return left_to_original - before == 2 ? 0 : 1;
}

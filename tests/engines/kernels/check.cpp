// Compares bendi's kernels with plain arithmetic: products, prompts, matrices, attention, clearing memory.

#include "stand_ins.h"

// `groups` of eight rows by eight bytes, with one vector.
template <typename Block> static void check_4_bits(const char * name, void (*gemv)(GEMV_PARAMETERS)) {
    Worst worst(name);
    for (int blocks : {1, 2, 5, 33}) {
        const int groups = 3;
        const auto y = vector_q8_0(blocks);
        std::vector<Block> matrix(groups * blocks + 64);  // the kernel asks for memory beyond, and must not need it
        std::vector<double> right(8 * groups), size(8 * groups);
        for (int at = 0; at < groups * blocks; at++) {
            const EightRowsOf32<Block> eight;
            matrix[at] = eight.block;
            const block_q8_0 & yb = y[at % blocks];
            for (int row = 0; row < 8; row++) {
                for (int i = 0; i < QK8_0; i++) {
                    const double product = eight.value[row][i] * value(yb, i);
                    right[8 * (at / blocks) + row] += product;
                    size[8 * (at / blocks) + row] += std::fabs(product);
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

template <typename Block>
static void check_prompts_of_32(void (*gemm)(GEMV_PARAMETERS), int blocks, int groups, int fours, Worst & worst) {
    std::vector<EightRowsOf32<Block>> rows(groups * blocks);
    std::vector<Block> matrix;
    for (const auto & eight : rows) matrix.push_back(eight.block);
    std::vector<block_q8_0x4> vectors(fours * blocks);
    for (auto & four : vectors) {
        for (auto & d : four.d) d = half(real(0.001f, 0.1f));
        for (auto & q : four.qs) q = (int8_t) whole(-127, 127);
    }
    const int columns = 8 * groups;
    std::vector<float> found((size_t) 4 * fours * columns, NAN);
    gemm(QK8_0 * blocks, found.data(), columns, matrix.data(), vectors.data(), 4 * fours, columns);
    for (int v = 0; v < 4 * fours; v++) {
        for (int column = 0; column < columns; column++) {
            double right = 0, size = 0;
            for (int b = 0; b < blocks; b++) {
                const block_q8_0x4 & four = vectors[v / 4 * blocks + b];
                for (int i = 0; i < QK8_0; i++) {
                    const double y = number(four.d[v % 4]) * four.qs[32 * (i / 8) + 8 * (v % 4) + i % 8];
                    const double product = rows[column / 8 * blocks + b].value[column % 8][i] * y;
                    right += product;
                    size += std::fabs(product);
                }
            }
            worst.compare(right, found[(size_t) v * columns + column], size);
        }
    }
}

constexpr int MOST_GROUPS = 8;  // of eight rows; an odd number leaves eight over

template <typename Block> static void check_prompts(const char * name, void (*gemm)(GEMV_PARAMETERS)) {
    Worst worst(name);
    for (int groups = 1; groups <= MOST_GROUPS; groups++) {
        check_prompts_of_32<Block>(gemm, 1 + 9 * (groups - 1), groups, 1 + groups % 4, worst);
    }
}

static void check_prompts() {
    {
        Worst worst("prompts_q4_K");
        for (int groups = 1; groups <= MOST_GROUPS; groups++) {
            check_prompts_q4_K(1 + groups % 6, groups, 1 + groups % 4, worst);
        }
    }
    check_prompts<block_q4_0x8>("prompts_q4_0", __wrap_ggml_gemm_q4_0_8x8_q8_0);
    check_prompts<block_iq4_nlx8>("prompts_iq4_nl", __wrap_ggml_gemm_iq4_nl_8x8_q8_0);
    check_prompts<block_mxfp4x8>("prompts_mxfp4", __wrap_ggml_gemm_mxfp4_8x8_q8_0);
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

// A random block, and what it stands for.
struct SixBits {
    block_q6_K block;
    double value[QK_K];

    SixBits() {
        memset(&block, 0, sizeof(block));
        block.d = half(real(0.001f, 0.1f));
        for (auto & scale : block.scales) {
            scale = (int8_t) whole(-128, 127);
        }
        for (int i = 0; i < QK_K; i++) {
            // Of 128 numbers: the lower four bits lie in 64 bytes, the upper two in 32 bytes (ggml-common.h).
            const int q = whole(0, 63), half_ = i / 128, group = i % 128 / 32, at = i % 32;
            block.ql[64 * half_ + 32 * (group % 2) + at] |= (q & 15) << (group / 2 * 4);
            block.qh[32 * half_ + at] |= (q >> 4) << (2 * group);
            value[i] = number(block.d) * block.scales[i / 16] * (q - 32);
        }
    }
};

static void check_q6_K() {
    Worst worst("q6_K");
    for (int blocks : {1, 2, 9}) {
        std::vector<block_q6_K> x(blocks + 32);
        const auto y = vector_q8_K(blocks);
        double right = 0, size = 0;
        for (int b = 0; b < blocks; b++) {
            const SixBits made;
            x[b] = made.block;
            for (int i = 0; i < QK_K; i++) {
                const double product = made.value[i] * y[b].d * y[b].qs[i];
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

// Whether large pages are asked for, as Linux says ("hg"), where `at` lies.
static bool large_pages_at(const char * at) {
    FILE * file = fopen("/proc/self/smaps", "r");
    char line[512];
    bool here = false, found = false;
    while (file && fgets(line, sizeof(line), file)) {
        size_t from, to;
        if (sscanf(line, "%zx-%zx ", &from, &to) == 2) {
            here = from <= (size_t) at && (size_t) at < to;
        } else if (here && strncmp(line, "VmFlags:", 8) == 0) {
            found = strstr(line, " hg") != nullptr;
        }
    }
    if (file) {
        fclose(file);
    }
    return found;
}

// Counted as left to the original: what is not asked for.
static void check_large_pages() {
    const size_t bytes = 9 << 20, large = 2 << 20;
    for (bool anew : {true, false}) {
        Worst worst(anew ? "large_pages" : "large_pages_not_covered");
        char * memory = (char *) mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        next_memory = memory + 64;
        ggml_backend_buffer_t buffer = __wrap_ggml_backend_buft_alloc_buffer(anew ? &laid_out_anew : &from_library, bytes - 64);
        worst.compare(1, buffer == &allocated, 1);
        const char * first = (const char *) (((size_t) memory + large) / large * large);
        left_to_original += !large_pages_at(first) + !large_pages_at(first + 2 * large);
        // Less than a large page, and none at all.
        __wrap_ggml_backend_buft_alloc_buffer(&laid_out_anew, 4096);
        next_memory = nullptr;
        worst.compare(1, __wrap_ggml_backend_buft_alloc_buffer(&laid_out_anew, bytes) == nullptr, 1);
        munmap(memory, bytes);
    }
}

struct Sizes {
    int blocks, rows, vectors, matrices, sharing, threads;  // `sharing`: how many vectors' matrices use one matrix
};

template <typename Block> static void check_matrices(ggml_type type, const Sizes & sizes, Worst & worst, bool covered = true) {
    const int64_t length = QK8_0 * sizes.blocks, rows = sizes.rows, vectors = sizes.vectors;
    const int64_t products = (int64_t) sizes.matrices * sizes.sharing;
    const size_t block = sizeof(Block), f = sizeof(float), row = block * sizes.blocks;
    auto x = random_blocks<Block>(sizes.blocks * rows * sizes.matrices + 256);
    std::vector<float> y(length * vectors * products), out(rows * vectors * products, NAN);
    for (auto & number_ : y) {
        number_ = real(-3, 3);
    }
    std::vector<block_q8_0> work(y.size() / QK8_0), ys(y.size() / QK8_0);
    to_q8_0(y.data(), ys.data(), (int64_t) y.size());
    ggml_tensor tx = tensor(type, x.data(), {length, rows, sizes.matrices, 1},
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
            const ggml_compute_params params = {i, sizes.threads, work.size() * sizeof(work[0]), work.data(), nullptr, false};
            __wrap_ggml_compute_forward_mul_mat_tiled(&params, &dst);
        });
    }
    for (auto & thread : threads) thread.join();
    for (int64_t at = 0; covered && at < (int64_t) out.size(); at++) {
        const int64_t vector = at / rows, matrix = vector / vectors / sizes.sharing;
        double right = 0, size = 0;
        for (int64_t i = 0; i < length; i++) {
            const Block & xb = x[(matrix * rows + at % rows) * sizes.blocks + i / QK8_0];
            const double product = value(xb, i % QK8_0) * value(ys[vector * sizes.blocks + i / QK8_0], i % QK8_0);
            right += product;
            size += std::fabs(product);
        }
        worst.compare(right, out[at], size);
    }
}

template <typename Block> static void check_matrices(const char * name, ggml_type type) {
    Worst worst(name);
    for (int threads : {1, 2}) {
        for (int vectors : {1, 2, 3, 4, 5, 6, 7, 13}) {
            for (int rows : {1, 15, 16, 17, 32, 70, 200}) {
                check_matrices<Block>(type, {2, rows, vectors, 1, 1, threads}, worst);
            }
            check_matrices<Block>(type, {34, 40, vectors, 1, 1, threads}, worst);
            check_matrices<Block>(type, {4, 33, vectors, 2, 3, threads}, worst);
        }
    }
}

// A matrix of Q6_K with one vector, whose rows are shared out.
static void check_matrix_q6_K(int blocks, int rows, int threads_, Worst & worst) {
    const int64_t length = QK_K * blocks;
    const size_t f = sizeof(float), row = sizeof(block_q6_K) * blocks;
    std::vector<block_q6_K> x(blocks * rows);
    std::vector<double> values;
    for (auto & block : x) {
        const SixBits made;
        block = made.block;
        values.insert(values.end(), made.value, made.value + QK_K);
    }
    std::vector<float> y(length), out(rows, NAN);
    for (auto & number_ : y) number_ = real(-3, 3);
    std::vector<block_q8_K> work(blocks), ys(blocks);
    to_q8_K(y.data(), ys.data(), length);
    ggml_tensor tx = tensor(GGML_TYPE_Q6_K, x.data(), {length, rows, 1, 1}, {sizeof(block_q6_K), row, row * rows, row * rows});
    ggml_tensor ty = tensor(GGML_TYPE_F32, y.data(), {length, 1, 1, 1}, {f, f * length, f * length, f * length});
    ggml_tensor dst = tensor(GGML_TYPE_F32, out.data(), {rows, 1, 1, 1}, {f, f * rows, f * rows, f * rows});
    dst.src[0] = &tx;
    dst.src[1] = &ty;
    threads_here = threads_;
    std::vector<std::thread> threads;
    for (int i = 0; i < threads_; i++) {
        threads.emplace_back([&, i] {
            const ggml_compute_params params = {i, threads_, work.size() * sizeof(work[0]), work.data(), nullptr, false};
            __wrap_ggml_compute_forward_mul_mat_tiled(&params, &dst);
        });
    }
    for (auto & thread : threads) thread.join();
    for (int at = 0; at < rows; at++) {
        double right = 0, size = 0;
        for (int64_t i = 0; i < length; i++) {
            const double product = values[at * length + i] * ys[i / QK_K].d * ys[i / QK_K].qs[i % QK_K];
            right += product;
            size += std::fabs(product);
        }
        worst.compare(right, out[at], size);
    }
}

static void check_matrix_q6_K() {
    Worst worst("matrices_q6_K");
    for (int threads : {1, 2}) {
        for (int rows : {1, 15, 16, 17, 33, 200, 1000}) {
            check_matrix_q6_K(2, rows, threads, worst);
        }
        check_matrix_q6_K(9, 70, threads, worst);
    }
}

struct Shape {
    int heads, kv_heads, length, past, queries, threads;
    bool masked, sinks;
};

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

int main(int count, char ** names) {
    if (check_clearing() != 0) {
        printf("memory was not given back\n");
        return 1;
    }
    check_large_pages();
    if (count > 1 && strcmp(names[1], "products") == 0) {
        check_4_bits<block_q4_0x8>("q4_0", __wrap_ggml_gemv_q4_0_8x8_q8_0);
        check_4_bits<block_iq4_nlx8>("iq4_nl", __wrap_ggml_gemv_iq4_nl_8x8_q8_0);
        check_4_bits<block_mxfp4x8>("mxfp4", __wrap_ggml_gemv_mxfp4_8x8_q8_0);
        check_q4_K();
        check_q8_0();
        check_q6_K();
        check_prompts();
        check_matrices<block_q8_0>("matrices_q8_0", GGML_TYPE_Q8_0);
        check_matrices<block_q5_0>("matrices_q5_0", GGML_TYPE_Q5_0);
        check_matrix_q6_K();
        Worst others("matrices_not_covered");
        check_matrices<block_q8_0>(GGML_TYPE_Q8_0, {3, 8, 2, 1, 1, 1}, others, false);
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

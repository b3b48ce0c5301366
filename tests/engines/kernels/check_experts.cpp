// Compares products with chosen experts with plain arithmetic: of weights that llama.cpp laid out anew, and of others; and
// those of single matrices that were laid out anew with one vector.

#include "stand_ins.h"

#include <algorithm>
#include <numeric>

// As in llama.cpp's repack.cpp: kernels know the layout of weights by the name of this class.
namespace ggml::cpu {
tensor_traits::~tensor_traits() {}
namespace repack {
template <typename Block, int64_t BYTES, int64_t ROWS, ggml_type VECTORS> class tensor_traits : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor *, size_t &) override { return false; }
    bool compute_forward(ggml_compute_params *, ggml_tensor *) override { return false; }
};
}  // namespace repack
}  // namespace ggml::cpu

template <typename Block, ggml_type VECTORS, int ROWS = 8> static void * layout() {
    static ggml::cpu::repack::tensor_traits<Block, 8, ROWS, VECTORS> one;
    return (ggml::cpu::tensor_traits *) &one;
}

// `shared`: all experts of a token get the same vector, as before the first of two matrices, or each its own, as before the
// second.
struct Sizes {
    int length, rows, experts, used, tokens, threads;
    bool shared;
    ggml_op op = GGML_OP_MUL_MAT_ID;
};

// Weights of all experts: where they lie, and what they stand for by expert, row and place.
struct Weights {
    ggml_type type, vectors;
    void * layout;
    size_t row_bytes;
    std::vector<uint8_t> memory;
    std::vector<double> values, sizes;  // sizes: of values of which something was taken off
};

template <typename Block> static void keep(const std::vector<Block> & matrix, Weights & weights) {
    weights.memory.resize(matrix.size() * sizeof(Block));
    memcpy(weights.memory.data(), matrix.data(), weights.memory.size());
}

static Weights q4_K(const Sizes & sizes) {
    Weights made{GGML_TYPE_Q4_K, GGML_TYPE_Q8_K, layout<block_q4_K, GGML_TYPE_Q8_K>(), sizeof(block_q4_K) * sizes.length / QK_K, {}, {}, {}};
    const int blocks = sizes.length / QK_K, groups = sizes.experts * sizes.rows / 8;
    made.values.resize((size_t) groups * 8 * sizes.length);
    made.sizes = made.values;
    std::vector<block_q4_Kx8> matrix;
    for (int at = 0; at < groups * blocks; at++) {
        const EightRows eight;
        matrix.push_back(eight.block);
        for (int place = 0; place < 8 * QK_K; place++) {
            const int row = place / QK_K, i = place % QK_K;
            const size_t to = (size_t) (at / blocks * 8 + row) * sizes.length + at % blocks * QK_K + i;
            const double x = eight.scale[row][i / 32] * eight.numbers[row][i], less = eight.minimum[row][i / 32];
            made.values[to] = x - less;
            made.sizes[to] = x + less;
        }
    }
    keep(matrix, made);
    return made;
}

template <typename Block, typename Plain> static Weights of_4_bits(const Sizes & sizes, ggml_type type) {
    Weights made{type, GGML_TYPE_Q8_0, layout<Plain, GGML_TYPE_Q8_0>(), sizeof(Plain) * sizes.length / 32, {}, {}, {}};
    const int blocks = sizes.length / 32, groups = sizes.experts * sizes.rows / 8;
    made.values.resize((size_t) groups * 8 * sizes.length);
    std::vector<Block> matrix;
    for (int at = 0; at < groups * blocks; at++) {
        const EightRowsOf32<Block> eight;
        matrix.push_back(eight.block);
        for (int place = 0; place < 8 * 32; place++) {
            made.values[(size_t) (at / blocks * 8 + place / 32) * sizes.length + at % blocks * 32 + place % 32] =
                eight.value[place / 32][place % 32];
        }
    }
    made.sizes = made.values;
    keep(matrix, made);
    return made;
}

template <typename Block> static Weights plain(const Sizes & sizes, ggml_type type) {
    Weights made{type, GGML_TYPE_Q8_0, nullptr, sizeof(Block) * sizes.length / 32, {}, {}, {}};
    const auto matrix = random_blocks<Block>((size_t) sizes.experts * sizes.rows * sizes.length / 32);
    for (const Block & block : matrix) {
        for (int i = 0; i < 32; i++) made.values.push_back(value(block, i));
    }
    made.sizes = made.values;
    keep(matrix, made);
    return made;
}

// What a vector is after it was quantized.
static std::vector<double> as_computed(const std::vector<float> & y, ggml_type type) {
    std::vector<double> found;
    if (type == GGML_TYPE_Q8_K) {
        std::vector<block_q8_K> blocks(y.size() / QK_K);
        to_q8_K(y.data(), blocks.data(), (int64_t) y.size());
        for (const auto & block : blocks) {
            for (int8_t q : block.qs) found.push_back((double) block.d * q);
        }
        return found;
    }
    std::vector<block_q8_0> blocks(y.size() / QK8_0);
    to_q8_0(y.data(), blocks.data(), (int64_t) y.size());
    for (const auto & block : blocks) {
        for (int i = 0; i < QK8_0; i++) found.push_back(value(block, i));
    }
    return found;
}

// All experts of one product, as llama.cpp asks for those that were not laid out anew: vectors are there, experts come one
// by one. Those with few vectors stay out.
static void one_by_one(const ggml_compute_params & params, ggml_tensor & dst, const Sizes & sizes, const std::vector<int32_t> & ids) {
    for (int expert = 0; expert < sizes.experts; expert++) {
        std::vector<int32_t> places;
        for (int at = 0; at < sizes.tokens * sizes.used; at++) {
            if (ids[at] == expert) places.insert(places.end(), {at % sizes.used, at / sizes.used});
        }
        if (!places.empty()) {
            __wrap_ggml_compute_forward_mul_mat_id_tiled(&params, &dst, expert, (int64_t) places.size() / 2, places.data(), nullptr);
        }
    }
}

static void check(const Sizes & sizes, const Weights & weights, Worst & worst) {
    const int64_t length = sizes.length, rows = sizes.rows, tokens = sizes.tokens, own = sizes.shared ? 1 : sizes.used;
    const size_t f = sizeof(float), row = weights.row_bytes;
    std::vector<float> y(length * own * tokens), out(rows * sizes.used * tokens, NAN);
    for (auto & number_ : y) number_ = real(-3, 3);
    const std::vector<double> computed = as_computed(y, weights.vectors);
    std::vector<int32_t> ids, order(sizes.experts);
    std::iota(order.begin(), order.end(), 0);
    for (int64_t token = 0; token < tokens; token++) {
        std::shuffle(order.begin() + (token % 2 ? 0 : 1), order.end(), source);  // one has more vectors than others
        ids.insert(ids.end(), order.begin(), order.begin() + sizes.used);
    }
    ggml_tensor tx = tensor(weights.type, (void *) weights.memory.data(), {length, rows, sizes.experts, 1},
                            {row * 32 / length, row, row * rows, row * rows * sizes.experts});
    tx.nb[0] = weights.type == GGML_TYPE_Q8_0 ? sizeof(block_q8_0) : sizeof(block_q5_0);
    ggml_tensor ty = tensor(GGML_TYPE_F32, y.data(), {length, own, tokens, 1}, {f, f * length, f * length * own, f * y.size()});
    ggml_tensor ti = tensor(GGML_TYPE_I32, ids.data(), {sizes.used, tokens, 1, 1}, {4, 4u * sizes.used, 4 * ids.size(), 4 * ids.size()});
    ggml_tensor dst = tensor(GGML_TYPE_F32, out.data(), {rows, sizes.used, tokens, 1},
                             {f, f * rows, f * rows * sizes.used, f * out.size()});
    ggml_backend_buffer buffer = buffer_of(nullptr, 0, laid_out_anew);
    dst.op = sizes.op;
    dst.src[0] = &tx;
    dst.src[1] = &ty;
    dst.src[2] = &ti;
    std::vector<uint8_t> work(ggml_row_size(weights.vectors, (int64_t) y.size()) + 8 + 8 * sizes.experts * (tokens + 1));
    if (weights.layout) {
        tx.extra = weights.layout;
        tx.buffer = &buffer;
    } else {
        to_q8_0(y.data(), work.data(), (int64_t) y.size());
    }
    threads_here = sizes.threads;
    std::vector<std::thread> threads;
    for (int i = 0; i < sizes.threads; i++) {
        threads.emplace_back([&, i] {
            ggml_compute_params params = {i, sizes.threads, work.size(), work.data(), nullptr, false};
            if (weights.layout) {
                __wrap_ggml_cpu_extra_compute_forward(&params, &dst);
            } else {
                one_by_one(params, dst, sizes, ids);
            }
        });
    }
    for (auto & thread : threads) thread.join();
    for (int64_t at = 0; at < (int64_t) out.size(); at++) {
        if (std::isnan(out[at]) && !weights.layout && std::count(ids.begin(), ids.end(), ids[at / rows]) < 4) continue;
        const int64_t vector = at / rows / sizes.used * own + (sizes.shared ? 0 : at / rows % sizes.used);
        const size_t from = ((size_t) ids[at / rows] * rows + at % rows) * length;
        double right = 0, size = 0;
        for (int64_t i = 0; i < length; i++) {
            right += weights.values[from + i] * computed[vector * length + i];
            size += std::fabs(weights.sizes[from + i] * computed[vector * length + i]);
        }
        worst.compare(right, out[at], size);
    }
}

template <typename Make> static void check_all(const char * name, Make make) {
    Worst worst(name);
    for (int threads : {1, 2}) {
        for (bool shared : {true, false}) {
            for (int tokens : {4, 5, 9, 33}) {
                for (int rows : {8, 40, 200}) {
                    const Sizes sizes = {512, rows, 5, 2, tokens, threads, shared};
                    check(sizes, make(sizes), worst);
                }
            }
        }
    }
}

template <typename Make> static void check_one_vector(const char * name, Make make) {
    Worst worst(name);
    for (int threads : {1, 2}) {
        for (int rows : {8, 40, 72, 200, 1000, 1608}) {
            for (int length : {256, 512, 2304}) {
                const Sizes sizes = {length, rows, 1, 1, 1, threads, true, GGML_OP_MUL_MAT};
                check(sizes, make(sizes), worst);
            }
        }
    }
}

int main() {
    const auto q4_0 = [](const Sizes & sizes) { return of_4_bits<block_q4_0x8, block_q4_0>(sizes, GGML_TYPE_Q4_0); };
    const auto iq4_nl = [](const Sizes & sizes) { return of_4_bits<block_iq4_nlx8, block_iq4_nl>(sizes, GGML_TYPE_IQ4_NL); };
    const auto mxfp4 = [](const Sizes & sizes) { return of_4_bits<block_mxfp4x8, block_mxfp4>(sizes, GGML_TYPE_MXFP4); };
    check_one_vector("one_q4_K", q4_K);
    check_one_vector("one_q4_0", q4_0);
    check_one_vector("one_iq4_nl", iq4_nl);
    check_one_vector("one_mxfp4", mxfp4);
    check_all("experts_q4_K", q4_K);
    check_all("experts_q4_0", q4_0);
    check_all("experts_iq4_nl", iq4_nl);
    check_all("experts_mxfp4", mxfp4);
    check_all("experts_q8_0", [](const Sizes & sizes) { return plain<block_q8_0>(sizes, GGML_TYPE_Q8_0); });
    check_all("experts_q5_0", [](const Sizes & sizes) { return plain<block_q5_0>(sizes, GGML_TYPE_Q5_0); });
    {
        // Several vectors for one matrix are left to the original.
        const Sizes several = {512, 8, 1, 1, 3, 1, true, GGML_OP_MUL_MAT};
        Worst others("one_not_covered");
        check(several, q4_0(several), others);
    }
    // Few tokens, another layout, and weights that were not laid out anew are left to the original, by each of two threads.
    Worst others("experts_not_covered");
    const Sizes sizes = {512, 8, 5, 2, 3, 2, true};
    for (Weights weights : {q4_K(sizes), q4_K({512, 8, 5, 2, 9, 2, true})}) {
        ggml_backend_buffer buffer = buffer_of(nullptr, 0, laid_out_anew);
        std::vector<float> y(512 * 9);
        ggml_tensor tx = tensor(weights.type, weights.memory.data(), {512, 8, 5, 1}, {1, 1, 1, 1});
        const int64_t tokens = others.results++ == 0 ? 3 : 9;
        ggml_tensor ty = tensor(GGML_TYPE_F32, y.data(), {512, 1, tokens, 1}, {4, 2048, 2048, 2048});
        ggml_tensor dst = tensor(GGML_TYPE_F32, y.data(), {8, 2, tokens, 1}, {4, 32, 64, 64});
        tx.extra = tokens == 3 ? weights.layout : layout<block_q4_K, GGML_TYPE_Q8_K, 4>();
        tx.buffer = &buffer;
        dst.op = GGML_OP_MUL_MAT_ID;
        dst.src[0] = &tx;
        dst.src[1] = &ty;
        ggml_compute_params params = {0, 1, 1 << 20, y.data(), nullptr, false};
        __wrap_ggml_cpu_extra_compute_forward(&params, &dst);
        tx.extra = nullptr;
        __wrap_ggml_cpu_extra_compute_forward(&params, &dst);
    }
    return 0;
}

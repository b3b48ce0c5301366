// Weights in 4 bits that llama.cpp laid out anew (Q4_K, Q4_0, IQ4_NL, MXFP4), for CPUs with AVX-512 and VNNI, in place of its
// own products (repack.cpp).
//
// Prompts through chosen experts: it multiplies each expert with one vector after another, and has one thread prepare the
// vectors. Here all vectors that go to an expert meet its rows together, as in prompts.cpp.
//
// Matrices with one vector: it shares them out in parts of the same size and asks for memory up to the end of one. Here
// parts become smaller, and what is asked for goes on where the next one begins (pieces.h).
//
// llama.cpp asks `ggml_cpu_extra_compute_forward` whether weights that were laid out anew compute an operation; the linker
// sends that here (--wrap), and what is not covered goes on to the original.

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "repack.h"
#include "traits.h"

extern "C" bool __real_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * op);
extern "C" bool __wrap_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * op);

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__) && defined(__F16C__) && defined(__FMA__)

#include "one_vector.h"
#include "sixteen_rows.h"

#include <cstring>
#include <type_traits>
#include <typeinfo>

namespace {

constexpr int64_t LEAST_TOKENS = 4;
constexpr int64_t LEAST_ROWS = 64;  // that a thread takes at a time
constexpr int64_t LEAST_EIGHTS = 8;  // of rows, with one vector

// Four vectors, interleaved by eight bytes as ggml_quantize_mat_q8_K_4x8 and ggml_quantize_mat_q8_0_4x8 would.
template <typename Block, typename Four> void interleave(const Block * const (&from)[4], int64_t at, Four & out) {
    for (int v = 0; v < 4; v++) {
        const Block & block = from[v][at];
        out.d[v] = block.d;
        for (size_t eight = 0; eight < sizeof(block.qs) / 8; eight++) {
            memcpy(out.qs + 32 * eight + 8 * v, block.qs + 8 * eight, 8);
        }
        if constexpr (std::is_same_v<Block, block_q8_K>) {
            for (int four = 0; four < 4; four++) {
                memcpy(out.bsums + 16 * four + 4 * v, block.bsums + 4 * four, 4 * sizeof(int16_t));
            }
        }
    }
}

using Gemv = void (*)(int, float *, const void *, const void *, int, const void *);

// `GEMV`: for one vector. `Plain`: blocks of one vector.
template <typename KIND, typename PLAIN, ggml_type TYPE, int SIZE, Gemv GEMV> struct Product4 {
    using Kind = KIND;
    using Plain = PLAIN;
    static constexpr ggml_type VECTORS = TYPE;
    static constexpr int NUMBERS = SIZE;
    static void one(int n, float * out, const void * matrix, const void * vector, int rows, const void * then) {
        GEMV(n, out, matrix, vector, rows, then);
    }
};

template <typename Weights>
using Of32 = Product4<WithExcess<Weights>, block_q8_0, GGML_TYPE_Q8_0, QK8_0, gemv_of_4_bits<Weights>>;

// `LAYOUT`: the class of llama.cpp whose weights lie as the kernels expect them.
struct Q4K : Product4<WithMinima, block_q8_K, GGML_TYPE_Q8_K, QK_K, gemv_q4_K> {
    static constexpr const char * LAYOUT = "N4ggml3cpu6repack13tensor_traitsI10block_q4_KLl8ELl8EL9ggml_type15EEE";
};
struct Q40 : Of32<Linear> {
    static constexpr const char * LAYOUT = "N4ggml3cpu6repack13tensor_traitsI10block_q4_0Ll8ELl8EL9ggml_type8EEE";
};
struct Iq4Nl : Of32<Nonlinear> {
    static constexpr const char * LAYOUT = "N4ggml3cpu6repack13tensor_traitsI12block_iq4_nlLl8ELl8EL9ggml_type8EEE";
};
struct Mxfp4 : Of32<Float4> {
    static constexpr const char * LAYOUT = "N4ggml3cpu6repack13tensor_traitsI11block_mxfp4Ll8ELl8EL9ggml_type8EEE";
};

// Which of a token's experts, and the number of the token.
struct Place {
    int32_t used, token;
};

// One product with chosen experts. What threads share lies in the memory that llama.cpp has for it: blocks of all vectors,
// how many go to each expert, and which.
template <typename Type> class Experts {
  public:
    Experts(const ggml_compute_params * params, ggml_tensor * op)
        : params(params), dst(op), src0(op->src[0]), src1(op->src[1]), ids(op->src[2]), experts(src0->ne[2]),
          rows(src0->ne[1]), blocks((int) (src0->ne[0] / Type::NUMBERS)), tokens(src1->ne[2]) {
        const size_t vector_bytes = ggml_row_size(Type::VECTORS, ggml_nelements(src1));
        counts = (int64_t *) ((char *) params->wdata + GGML_PAD(vector_bytes, sizeof(int64_t)));
        places = (Place *) (counts + experts);
    }

    bool fits() const {
        return (char *) (places + experts * tokens) <= (char *) params->wdata + params->wsize;
    }

    void compute() {
        quantize();
        if (params->ith == 0) {
            find_places();
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        const int64_t size = std::max(LEAST_ROWS, GGML_PAD(rows / (2 * params->nth), 8 * GROUPS));
        const int64_t parts = (rows + size - 1) / size;
        for (int64_t at = params->ith; at < experts * parts; at = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t expert = at / parts, row = at % parts * size;
            if (counts[expert] > 0) {
                multiply(expert, row, std::min(size, rows - row));
            }
        }
    }

  private:
    using Kind = typename Type::Kind;
    using Four = typename Kind::Vectors;
    using Plain = typename Type::Plain;

    void quantize() {
        const ggml_from_float_t from_float = ggml_get_type_traits_cpu(Type::VECTORS)->from_float;
        for (int64_t at = params->ith; at < src1->ne[1] * tokens; at += params->nth) {
            const char * row = (const char *) src1->data + at % src1->ne[1] * src1->nb[1] + at / src1->ne[1] * src1->nb[2];
            from_float((const float *) row, (Plain *) params->wdata + at * blocks, src1->ne[0]);
        }
    }

    void find_places() {
        std::fill(counts, counts + experts, 0);
        for (int64_t token = 0; token < tokens; token++) {
            for (int64_t used = 0; used < ids->ne[0]; used++) {
                const int32_t expert = *(const int32_t *) ((const char *) ids->data + token * ids->nb[1] + used * ids->nb[0]);
                GGML_ASSERT(expert >= 0 && expert < experts && counts[expert] < tokens);
                places[expert * tokens + counts[expert]++] = {(int32_t) used, (int32_t) token};
            }
        }
    }

    const Plain * vector(const Place & place) const {
        return (const Plain *) params->wdata + (place.used % src1->ne[1] + place.token * src1->ne[1]) * blocks;
    }

    float * out(const Place & place, int64_t row) const {
        return (float *) ((char *) dst->data + place.used * dst->nb[1] + place.token * dst->nb[2]) + row;
    }

    // `there` rows of an expert from `row` on with all its vectors.
    void multiply(int64_t expert, int64_t row, int64_t there) {
        const Place * mine = places + expert * tokens;
        const int64_t count = counts[expert], rest = count % VECTORS;
        // One that is left over is computed alone, two and three with one of them again.
        const int64_t fours = count / VECTORS + (rest > 1);
        const char * matrix = (const char *) src0->data + expert * src0->nb[2] + row * src0->nb[1];
        if (rest == 1) {
            const Place & last = mine[count - 1];
            Type::one((int) src0->ne[0], out(last, row), matrix, vector(last), (int) there, nullptr);
        }
        if (fours == 0) {
            return;
        }
        found.resize(fours * VECTORS * there);
        if (prepared_for != expert) {
            prepare(mine, count, fours);
            prepared_for = expert;
        }
        const Product p = {blocks, found.data(), (size_t) there, matrix, vectors.data(), (int) fours, (int) (there / 8)};
        if (must_prepare) {
            Kind::prepare(p);
            must_prepare = false;
        }
        for (int group = 0; group < p.groups; group += GROUPS) {
            sixteen_rows<Kind>(p, group, panels);
        }
        for (int64_t v = 0; v < std::min(count, fours * VECTORS); v++) {
            memcpy(out(mine[v], row), found.data() + v * there, there * sizeof(float));
        }
    }

    void prepare(const Place * mine, int64_t count, int64_t fours) {
        vectors.resize(fours * blocks);
        for (int64_t four = 0; four < fours; four++) {
            const Plain * from[VECTORS];
            for (int64_t v = 0; v < VECTORS; v++) {
                from[v] = vector(mine[std::min(four * VECTORS + v, count - 1)]);
            }
            for (int64_t b = 0; b < blocks; b++) {
                interleave(from, b, vectors[four * blocks + b]);
            }
        }
        must_prepare = true;
    }

    const ggml_compute_params * params;
    const ggml_tensor * dst, * src0, * src1, * ids;
    const int64_t experts, rows;
    const int blocks;
    const int64_t tokens;
    int64_t * counts;
    Place * places;
    int64_t prepared_for = -1;
    bool must_prepare = false;

    // Kept by each thread from call to call.
    static thread_local std::vector<Four> vectors;
    static thread_local std::vector<float> found;
    static thread_local std::vector<__m512i> panels;
};

template <typename Type> thread_local std::vector<typename Experts<Type>::Four> Experts<Type>::vectors;
template <typename Type> thread_local std::vector<float> Experts<Type>::found;
template <typename Type> thread_local std::vector<__m512i> Experts<Type>::panels;

bool laid_out_anew(const ggml_tensor * weights) {
    return weights->extra != nullptr && weights->buffer != nullptr && weights->buffer->buft == ggml_backend_cpu_repack_buffer_type();
}

template <typename Type> bool lies_as(const ggml_tensor * weights) {
    const ggml::cpu::tensor_traits & traits = *(const ggml::cpu::tensor_traits *) weights->extra;
    return strcmp(typeid(traits).name(), Type::LAYOUT) == 0;
}

template <typename Type> bool one_vector(const ggml_compute_params * params, ggml_tensor * op) {
    const ggml_tensor * src0 = op->src[0], * src1 = op->src[1];
    if (!lies_as<Type>(src0) || !is_one_vector(op) || src0->ne[1] % 8 != 0 ||
        params->wsize < ggml_row_size(Type::VECTORS, src1->ne[0])) {
        return false;
    }
    const auto * vector = quantize_one<typename Type::Plain>(params, Type::VECTORS, src1);
    const auto eight = [&](int64_t at) { return (const char *) src0->data + at * 8 * src0->nb[1]; };
    const auto begin = [&](int64_t at, int64_t) { ask_for(eight(at), AHEAD); };
    share_out(params, src0->ne[1] / 8, LEAST_EIGHTS, begin, [&](int64_t at, int64_t end, int64_t next, int64_t) {
        Type::one((int) src0->ne[0], (float *) op->data + 8 * at, eight(at), vector, (int) (8 * (end - at)), eight(next));
    });
    return true;
}

template <typename Type> bool multiplied(const ggml_compute_params * params, ggml_tensor * op) {
    const ggml_tensor * src0 = op->src[0], * src1 = op->src[1];
    if (!lies_as<Type>(src0) || src1->ne[2] < LEAST_TOKENS || src1->ne[3] != 1 ||
        src1->type != GGML_TYPE_F32 || src1->nb[0] != sizeof(float) || op->nb[0] != sizeof(float) || src0->ne[1] % 8 != 0) {
        return false;
    }
    Experts<Type> experts(params, op);
    if (!experts.fits()) {
        return false;
    }
    experts.compute();
    return true;
}

}  // namespace

extern "C" bool __wrap_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * op) {
    const bool one = op->op == GGML_OP_MUL_MAT, chosen = op->op == GGML_OP_MUL_MAT_ID;
    if (params->use_ref || !(one || chosen) || !laid_out_anew(op->src[0])) {
        return __real_ggml_cpu_extra_compute_forward(params, op);
    }
    const bool computed = one ? one_vector<Q4K>(params, op) || one_vector<Q40>(params, op) ||
                                    one_vector<Iq4Nl>(params, op) || one_vector<Mxfp4>(params, op)
                              : multiplied<Q4K>(params, op) || multiplied<Q40>(params, op) ||
                                    multiplied<Iq4Nl>(params, op) || multiplied<Mxfp4>(params, op);
    return computed || __real_ggml_cpu_extra_compute_forward(params, op);
}

#else

extern "C" bool __wrap_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * op) {
    return __real_ggml_cpu_extra_compute_forward(params, op);
}

#endif

// Answers which type llama.cpp itself gives each tensor. Compiled against its source by tools/mixture_oracle.py.
//
// Reads from standard input, words separated by white space:
//   model ARCHITECTURE LAYERS HEADS HEADS_KV EXPERTS IS_70B   starts a new model
//   tensor NAME NE0 NE1 NE2 NE3                               adds a tensor to it, stored as i8
//   ask FTYPE IMATRIX                                         prints one line:
// whether an importance matrix is needed (0 or 1) and the type of every tensor, or "error".

#include "llama-quant.cpp"

#include <cstdio>
#include <iostream>

static void answer(const llama_model & model, const std::vector<ggml_tensor *> & tensors, int ftype, bool imatrix) {
    auto params  = llama_model_quantize_default_params();
    params.ftype = (llama_ftype) ftype;
    quantize_state_impl state(model, &params);
    state.has_imatrix = imatrix;

    std::map<std::string, ggml_tensor *, llama_model_loader::weight_name_comparer> in_order;
    for (auto * tensor : tensors) {
        in_order[tensor->name] = tensor;
    }
    std::vector<tensor_metadata> metadata;
    for (const auto & entry : in_order) {
        metadata.push_back({});
        metadata.back().name = entry.first;
    }
    init_quantize_state_counters(state, metadata);

    std::map<std::string, ggml_type> chosen;
    bool   needs_imatrix = false;
    size_t at            = 0;
    try {
        for (const auto & [name, tensor] : in_order) {
            const auto type =
                llama_tensor_get_type(state, &params, tensor, llama_ftype_get_default_type(params.ftype), metadata[at++]);
            chosen[name] = type;
            needs_imatrix |= tensor_allows_quantization(&params, model.arch, tensor) &&
                             tensor_requires_imatrix(tensor->name, type, params.ftype);
        }
    } catch (const std::exception &) {
        puts("error");
        return;
    }
    printf("%d", needs_imatrix);
    for (auto * tensor : tensors) {
        printf(" %s", ggml_type_name(chosen[tensor->name]));
    }
    puts("");
}

int main() {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    // Only data members of the model are read, and its constructor would need all of llama.cpp: zeroed memory will do.
    auto *                     model   = (llama_model *) calloc(1, sizeof(llama_model));
    ggml_context *             context = nullptr;
    std::vector<ggml_tensor *> tensors;
    std::string                word;
    while (std::cin >> word) {
        if (word == "model") {
            std::string architecture;
            int         layers, heads, heads_kv, experts, is_70b;
            std::cin >> architecture >> layers >> heads >> heads_kv >> experts >> is_70b;
            memset((void *) model, 0, sizeof(llama_model));
            model->arch                = llm_arch_from_string(architecture);
            model->type                = is_70b ? LLM_TYPE_70B : LLM_TYPE_UNKNOWN;
            model->hparams.n_layer_all = layers;
            model->hparams.n_expert    = experts;
            for (int layer = 0; layer < layers; layer++) {
                model->hparams.n_head_arr[layer]    = heads;
                model->hparams.n_head_kv_arr[layer] = heads_kv;
            }
            if (model->arch == LLM_ARCH_UNKNOWN) {
                fprintf(stderr, "llama.cpp does not know %s\n", architecture.c_str());
                return 1;
            }
            ggml_free(context);
            context = ggml_init({ 8192 * ggml_tensor_overhead(), nullptr, true });
            tensors.clear();
        } else if (word == "tensor") {
            std::string name;
            int64_t     ne[4];
            std::cin >> name >> ne[0] >> ne[1] >> ne[2] >> ne[3];
            tensors.push_back(ggml_new_tensor(context, GGML_TYPE_I8, 4, ne));
            ggml_set_name(tensors.back(), name.c_str());
        } else {
            int ftype, imatrix;
            std::cin >> ftype >> imatrix;
            answer(*model, tensors, ftype, imatrix);
            fflush(stdout);
        }
    }
}

"""What the published `config.json` of models says, as far as the shape of a model depends on it.

`parameters`: the total that the model card or the safetensors index states, without towers for images and poolers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    name: str
    parameters: float
    config: dict[str, object]


def model(name: str, parameters: float, model_type: str, numbers: str, **more: object) -> Published:
    """`numbers`: layers, width, feed-forward length, heads, KV heads, tokens in the vocabulary and in the context."""
    layers, width, length, heads, kv, vocab, context = map(int, numbers.split())
    config: dict[str, object] = {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": length,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
    }
    return Published(name, parameters, {key: value for key, value in (config | more).items() if value != -1})


LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip
TIED = {"tie_word_embeddings": True}
YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
        "mscale": 1.0, "mscale_all_dim": 1.0}  # fmt: skip
DEEPSEEK = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
            "rope_scaling": YARN}  # fmt: skip
WINDOWS_5 = (["sliding_attention"] * 5 + ["full_attention"]) * 20
WINDOWS_4 = (["sliding_attention"] * 4 + ["full_attention"]) * 20
WINDOWS_3 = (["sliding_attention"] * 3 + ["full_attention"]) * 20

DENSE = (
    model("Llama-3.2-1B", 1.2358e9, "llama", "16 2048 8192 32 8 128256 131072", rope_scaling=LLAMA3, **TIED),
    model("Llama-3.2-3B", 3.2127e9, "llama", "28 3072 8192 24 8 128256 131072", rope_scaling=LLAMA3, **TIED),
    model("Llama-3.1-8B", 8.0303e9, "llama", "32 4096 14336 32 8 128256 131072", rope_scaling=LLAMA3),
    model("Llama-3.1-70B", 70.554e9, "llama", "80 8192 28672 64 8 128256 131072", rope_scaling=LLAMA3),
    model("Llama-2-7B", 6.7384e9, "llama", "32 4096 11008 32 32 32000 4096"),
    model("Mistral-7B-v0.3", 7.248e9, "mistral", "32 4096 14336 32 8 32768 32768"),
    model("Mistral-Nemo-12B", 12.248e9, "mistral", "40 5120 14336 32 8 131072 131072", head_dim=128),
    model("Mistral-Small-24B", 23.572e9, "mistral", "40 5120 32768 32 8 131072 32768", head_dim=128),
    model("Qwen2.5-0.5B", 494.03e6, "qwen2", "24 896 4864 14 2 151936 32768", **TIED),
    model("Qwen2.5-7B", 7.6156e9, "qwen2", "28 3584 18944 28 4 152064 131072"),
    model("Qwen2.5-32B", 32.764e9, "qwen2", "64 5120 27648 40 8 152064 131072"),
    model("Qwen3-0.6B", 0.596e9, "qwen3", "28 1024 3072 16 8 151936 40960", head_dim=128, **TIED),
    model("Qwen3-4B", 4.022e9, "qwen3", "36 2560 9728 32 8 151936 40960", head_dim=128, **TIED),
    model("Qwen3-8B", 8.19e9, "qwen3", "36 4096 12288 32 8 151936 40960", head_dim=128),
    model("Qwen3-14B", 14.768e9, "qwen3", "40 5120 17408 40 8 151936 40960", head_dim=128),
    model("Qwen3-32B", 32.762e9, "qwen3", "64 5120 25600 64 8 151936 40960", head_dim=128),
    model("OLMo2-7B", 7.299e9, "olmo2", "32 4096 11008 32 32 100352 4096"),
    model("Phi-3-mini-4k", 3.821e9, "phi3", "32 3072 8192 32 32 32064 4096", sliding_window=2047,
          original_max_position_embeddings=4096),
    model("Phi-4", 14.66e9, "phi3", "40 5120 17920 40 10 100352 16384", original_max_position_embeddings=16384),
    model("Gemma-2-2B", 2.6143e9, "gemma2", "26 2304 9216 8 4 256000 8192", head_dim=256, sliding_window=4096,
          attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
    model("Gemma-2-9B", 9.2417e9, "gemma2", "42 3584 14336 16 8 256000 8192", head_dim=256, sliding_window=4096,
          attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
    model("Gemma-3-1B", 0.9999e9, "gemma3_text", "26 1152 6912 4 1 262144 32768", head_dim=256, sliding_window=512),
    Published("Gemma-3-4B", 3.88e9, {"model_type": "gemma3", "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}, "vision_config": {}}),
    Published("Gemma-3-12B", 11.766e9, {"model_type": "gemma3", "text_config": {
        "model_type": "gemma3_text", "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48,
        "num_attention_heads": 16, "num_key_value_heads": 8, "sliding_window": 1024}}),
    model("Command-R7B", 8.028e9, "cohere2", "32 4096 14336 32 8 256000 8192", sliding_window=4096, logit_scale=0.25,
          layer_norm_eps=1e-5),
    model("GLM-4-9B-0414", 9.4e9, "glm4", "40 4096 13696 32 2 151552 32768", head_dim=128, partial_rotary_factor=0.5),
    model("StarCoder2-3B", 3.0304e9, "starcoder2", "30 3072 12288 24 2 49152 16384", norm_epsilon=1e-5, use_bias=True),
)  # fmt: skip

WITH_EXPERTS = (
    model("Mixtral-8x7B", 46.703e9, "mixtral", "32 4096 14336 32 8 32000 32768", num_local_experts=8,
          num_experts_per_tok=2),
    model("Mixtral-8x22B", 140.63e9, "mixtral", "56 6144 16384 48 8 32768 65536", num_local_experts=8,
          num_experts_per_tok=2),
    model("Qwen3-30B-A3B", 30.532e9, "qwen3_moe", "48 2048 6144 32 4 151936 40960", head_dim=128, num_experts=128,
          num_experts_per_tok=8, moe_intermediate_size=768),
    model("Qwen3-235B-A22B", 235.09e9, "qwen3_moe", "94 4096 12288 64 4 151936 40960", head_dim=128, num_experts=128,
          num_experts_per_tok=8, moe_intermediate_size=1536),
    model("Qwen3-Coder-480B", 480.15e9, "qwen3_moe", "62 6144 8192 96 8 151936 262144", head_dim=128, num_experts=160,
          num_experts_per_tok=8, moe_intermediate_size=2560),
    model("OLMoE-1B-7B", 6.919e9, "olmoe", "16 2048 1024 16 16 50304 4096", num_experts=64, num_experts_per_tok=8),
    model("gpt-oss-20b", 20.91e9, "gpt_oss", "24 2880 2880 64 8 201088 131072", head_dim=64, num_local_experts=32,
          num_experts_per_tok=4, sliding_window=128, attention_bias=True,
          rope_scaling={"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}),
    model("gpt-oss-120b", 116.83e9, "gpt_oss", "36 2880 2880 64 8 201088 131072", head_dim=64, num_local_experts=128,
          num_experts_per_tok=4, sliding_window=128, attention_bias=True,
          rope_scaling={"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}),
    model("GLM-4.5-Air", 110.47e9, "glm4_moe", "46 4096 10944 96 8 151552 131072", head_dim=128, n_routed_experts=128,
          num_experts_per_tok=8, moe_intermediate_size=1408, n_shared_experts=1, first_k_dense_replace=1, n_group=1,
          topk_group=1, attention_bias=True, use_qk_norm=False, num_nextn_predict_layers=1, norm_topk_prob=True,
          routed_scaling_factor=1.0, partial_rotary_factor=0.5),
    Published("Llama-4-Scout", 107.77e9, {"model_type": "llama4", "text_config": {
        "model_type": "llama4_text", "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 202048, "max_position_embeddings": 10485760, "num_local_experts": 16, "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1, "rope_scaling": LLAMA3 | {"factor": 16.0}}}),
    model("DeepSeek-V2-Lite", 15.706e9, "deepseek_v2", "27 2048 10944 16 16 102400 163840", **DEEPSEEK,
          q_lora_rank=None, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6,
          moe_intermediate_size=1408, first_k_dense_replace=1, n_group=1, topk_group=1, scoring_func="softmax"),
    model("DeepSeek-V3", 671.03e9, "deepseek_v3", "61 7168 18432 128 128 129280 163840", **DEEPSEEK,
          q_lora_rank=1536, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8,
          moe_intermediate_size=2048, first_k_dense_replace=3, n_group=8, topk_group=4, scoring_func="sigmoid",
          num_nextn_predict_layers=1, routed_scaling_factor=2.5, norm_topk_prob=True),
)  # fmt: skip

MEASURED_FIRST = (
    *DENSE,
    *WITH_EXPERTS,
    model("Mamba2-2.7B", 2.7028e9, "mamba2", "64 2560 -1 -1 -1 50280 -1", state_size=128, n_groups=1, expand=2,
          head_dim=64, num_heads=80, conv_kernel=4, layer_norm_epsilon=1e-5, **TIED),
    model("LFM2-1.2B", 1.1703e9, "lfm2", "16 2048 -1 32 8 65536 128000", block_ff_dim=12288, conv_L_cache=3,
          block_auto_adjust_ff_dim=True, block_ffn_dim_multiplier=1.0, block_multiple_of=256, norm_eps=1e-5,
          full_attn_idxs=[2, 5, 8, 10, 12, 14]),
)  # fmt: skip
"""The models whose memory was compared with the engine's before configurations were read."""

QWEN_HYBRID = {"linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
               "linear_conv_kernel_dim": 4, "head_dim": 256, "full_attention_interval": 4,
               "partial_rotary_factor": 0.25}  # fmt: skip
GEMMA4 = {"head_dim": 256, "global_head_dim": 512, "vocab_size": 262144, "max_position_embeddings": 262144}
GRANITE = {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
           "attention_multiplier": 0.0078125}  # fmt: skip
GRANITE_HYBRID = {**GRANITE, "layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4, "mamba_d_state": 128,
                  "mamba_n_groups": 1, "mamba_expand": 2, "mamba_d_conv": 4, "mamba_d_head": 64}  # fmt: skip

HYBRIDS = (
    model("Qwen3-Next-80B-A3B", 79.67e9, "qwen3_next", "48 2048 5120 16 2 151936 262144", **QWEN_HYBRID,
          linear_num_value_heads=32, num_experts=512, num_experts_per_tok=10, moe_intermediate_size=512,
          shared_expert_intermediate_size=512, mtp_num_hidden_layers=0),
    Published("Qwen3.6-27B", 27.3e9, {"model_type": "qwen3_5", "text_config": QWEN_HYBRID | {
        "model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64,
        "num_attention_heads": 24, "num_key_value_heads": 4, "vocab_size": 248320, "linear_num_value_heads": 48,
        "max_position_embeddings": 262144, "mtp_num_hidden_layers": 1}}),
    Published("Qwen3.5-4B", 4.2e9, {"model_type": "qwen3_5", "text_config": QWEN_HYBRID | TIED | {
        "model_type": "qwen3_5_text", "hidden_size": 2560, "intermediate_size": 9216, "num_hidden_layers": 32,
        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 248320, "linear_num_value_heads": 32,
        "max_position_embeddings": 262144, "mtp_num_hidden_layers": 0}}),
    Published("Qwen3.5-0.8B", 752.39e6, {"model_type": "qwen3_5", "text_config": QWEN_HYBRID | TIED | {
        "model_type": "qwen3_5_text", "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24,
        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 248320, "linear_num_value_heads": 16,
        "max_position_embeddings": 262144, "mtp_num_hidden_layers": 0}}),
    Published("Qwen3.5-35B-A3B", 35.5e9, {"model_type": "qwen3_5_moe", "text_config": QWEN_HYBRID | {
        "model_type": "qwen3_5_moe_text", "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16,
        "num_key_value_heads": 2, "vocab_size": 248320, "linear_num_value_heads": 32, "num_experts": 256,
        "num_experts_per_tok": 8, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
        "max_position_embeddings": 262144, "mtp_num_hidden_layers": 1}}),
    model("Granite-4.0-H-Tiny", 6.94e9, "granitemoehybrid", "40 1536 512 12 4 100352 131072", **GRANITE_HYBRID, **TIED,
          mamba_n_heads=48, num_local_experts=64, num_experts_per_tok=6, shared_intermediate_size=1024),
    model("Granite-4.0-H-Micro", 3.19e9, "granitemoehybrid", "40 2048 8192 32 8 100352 131072", **GRANITE_HYBRID,
          **TIED, mamba_n_heads=64, num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=8192),
    model("Granite-4.0-H-Small", 32.2e9, "granitemoehybrid", "40 4096 768 32 8 100352 131072", **GRANITE_HYBRID,
          **TIED, mamba_n_heads=128, num_local_experts=72, num_experts_per_tok=10, shared_intermediate_size=1536),
    model("Nemotron-Nano-9B-v2", 8.89e9, "nemotron_h", "56 4480 15680 40 8 131072 131072", head_dim=128,
          hybrid_override_pattern="M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-", mamba_num_heads=128,
          mamba_head_dim=80, ssm_state_size=128, n_groups=8, conv_kernel=4),
    model("Nemotron-3-Nano-30B-A3B", 31.58e9, "nemotron_h", "52 2688 1856 32 2 131072 262144", head_dim=128,
          hybrid_override_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME", mamba_num_heads=64,
          mamba_head_dim=64, ssm_state_size=128, n_groups=8, conv_kernel=4, n_routed_experts=128,
          num_experts_per_tok=6, moe_intermediate_size=1856, moe_shared_expert_intermediate_size=3712,
          n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=2.5),
    model("Falcon-H1-0.5B", 521.4e6, "falcon_h1", "36 1024 2048 8 2 32784 16384", head_dim=64, mamba_d_ssm=1536,
          mamba_n_heads=24, mamba_d_head=64, mamba_d_state=128, mamba_n_groups=1, mamba_d_conv=4),
    model("Falcon-H1-7B", 7.59e9, "falcon_h1", "44 3072 12288 12 2 130049 262144", head_dim=128, mamba_d_ssm=3072,
          mamba_n_heads=24, mamba_d_head=128, mamba_d_state=256, mamba_n_groups=1, mamba_d_conv=4),
    model("Jamba-v0.1", 51.57e9, "jamba", "32 4096 14336 32 8 65536 262144", num_experts=16, num_experts_per_tok=2,
          attn_layer_period=8, attn_layer_offset=4, expert_layer_period=2, expert_layer_offset=1, mamba_d_conv=4,
          mamba_d_state=16, mamba_dt_rank=256, mamba_expand=2),
    model("LFM2-8B-A1B", 8.34e9, "lfm2_moe", "24 2048 7168 32 8 65536 128000", norm_eps=1e-5, num_experts=32,
          num_experts_per_tok=4, moe_intermediate_size=1792, num_dense_layers=2, conv_L_cache=3, layer_types=[
              "full_attention" if layer in (2, 6, 10, 14, 18, 21) else "conv" for layer in range(24)]),
    model("Mamba-Codestral-7B", 7.285e9, "mamba2", "64 4096 -1 -1 -1 32768 -1", state_size=128, n_groups=8, expand=2,
          head_dim=64, num_heads=128, conv_kernel=4),
    model("Falcon-Mamba-7B", 7.273e9, "falcon_mamba", "64 4096 8192 -1 -1 65024 -1", state_size=16, conv_kernel=4,
          time_step_rank=256, layer_norm_epsilon=1e-5, tie_word_embeddings=False),
)  # fmt: skip

GEMMAS = (
    Published("Gemma-3n-E2B", 4.46e9, {"model_type": "gemma3n", "text_config": {
        "model_type": "gemma3n_text", "hidden_size": 2048, "intermediate_size": [8192] * 30, "num_hidden_layers": 30,
        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 262400, "laurel_rank": 64,
        "hidden_size_per_layer_input": 256, "altup_num_inputs": 4, "num_kv_shared_layers": 10, "sliding_window": 512,
        "layer_types": WINDOWS_4[:30], "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 20}}),
    Published("Gemma-3n-E4B", 6.87e9, {"model_type": "gemma3n", "text_config": {
        "model_type": "gemma3n_text", "hidden_size": 2048, "intermediate_size": [16384] * 35, "num_hidden_layers": 35,
        "layer_types": WINDOWS_4[:35], "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 25}}),
    Published("Gemma-4-31B", 30.7e9, {"model_type": "gemma4", "text_config": GEMMA4 | {
        "model_type": "gemma4_text", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 60,
        "num_attention_heads": 32, "num_key_value_heads": 16, "num_global_key_value_heads": 4, "attention_k_eq_v": True,
        "sliding_window": 1024, "layer_types": WINDOWS_5[:60]}}),
    Published("Gemma-4-26B-A4B", 25.2e9, {"model_type": "gemma4", "text_config": GEMMA4 | {
        "model_type": "gemma4_text", "hidden_size": 2816, "intermediate_size": 2112, "num_hidden_layers": 30,
        "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 2, "attention_k_eq_v": True,
        "enable_moe_block": True, "num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704,
        "sliding_window": 1024, "layer_types": WINDOWS_5[:30]}}),
    Published("Gemma-4-E2B", 4.65e9, {"model_type": "gemma4", "text_config": GEMMA4 | {
        "model_type": "gemma4_text", "hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35,
        "num_attention_heads": 8, "num_key_value_heads": 1, "sliding_window": 512, "layer_types": WINDOWS_4[:35],
        "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 20, "use_double_wide_mlp": True}}),
    Published("Gemma-4-E4B", 7.5e9, {"model_type": "gemma4", "text_config": GEMMA4 | {
        "model_type": "gemma4_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42,
        "num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": 512, "layer_types": WINDOWS_5[:42],
        "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 18}}),
)  # fmt: skip

MORE_DENSE = (
    Published("Mistral-Small-3.2-24B", 23.572e9, {"model_type": "mistral3", "text_config": {
        "model_type": "mistral", "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
        "max_position_embeddings": 131072, "rope_theta": 1e9}}),
    Published("Ministral-3-8B", 8.49e9, {"model_type": "mistral3", "text_config": {
        "model_type": "ministral3", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
        "max_position_embeddings": 262144, "rope_parameters": {
            "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 16384, "beta_fast": 32.0,
            "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "rope_theta": 1e6, "llama_4_scaling_beta": 0.1}}}),
    model("Phi-4-mini", 3.836e9, "phi3", "32 3072 8192 24 8 200064 131072", **TIED, partial_rotary_factor=0.75,
          sliding_window=262144, original_max_position_embeddings=4096,
          rope_scaling={"type": "longrope", "long_factor": [1.0] * 48, "short_factor": [1.0] * 48}),
    model("Granite-3.3-8B", 8.17e9, "granite", "40 4096 12800 32 8 49159 131072", **TIED, **GRANITE),
    model("OLMo-3-7B", 7.298e9, "olmo3", "32 4096 11008 32 32 100278 65536", sliding_window=4096,
          layer_types=WINDOWS_3[:32], rope_scaling={"rope_type": "yarn", "factor": 8.0, "attention_factor": 1.2079,
                                                    "original_max_position_embeddings": 8192}),
    model("Command-R-35B", 34.98e9, "cohere", "40 8192 22528 64 64 256000 8192", model_max_length=131072,
          logit_scale=0.0625, layer_norm_eps=1e-5),
    model("Command-R-Plus-104B", 103.8e9, "cohere", "64 12288 33792 96 8 256000 8192", model_max_length=131072,
          logit_scale=0.8333, use_qk_norm=True),
    model("SmolLM3-3B", 3.075e9, "smollm3", "36 2048 11008 16 4 128256 65536", **TIED),
    model("ERNIE-4.5-0.3B", 0.361e9, "ernie4_5", "18 1024 3072 16 2 103424 131072", head_dim=128, **TIED),
    model("Hunyuan-7B", 7.5e9, "hunyuan_v1_dense", "32 4096 14336 32 8 128167 32768", head_dim=128, **TIED,
          rope_scaling={"type": "dynamic", "alpha": 1000.0, "factor": 1.0}),
    model("EXAONE-4.0-32B", 32.0e9, "exaone4", "64 5120 27392 40 8 102400 131072", head_dim=128, sliding_window=4096,
          layer_types=WINDOWS_3[:64], rope_scaling=LLAMA3 | {"factor": 16.0}),
    model("EXAONE-4.0-1.2B", 1.28e9, "exaone4", "30 2048 4096 32 8 102400 65536", head_dim=64, **TIED,
          rope_scaling=LLAMA3 | {"factor": 16.0}),
    model("Seed-OSS-36B", 36.15e9, "seed_oss", "64 5120 27648 80 8 155136 524288", head_dim=128, attention_bias=True),
    model("InternLM2.5-7B", 7.74e9, "internlm2", "32 4096 14336 32 8 92544 32768", bias=False),
    model("InternLM3-8B", 8.80e9, "internlm3", "48 4096 10240 32 2 128512 32768", head_dim=128, qkv_bias=False),
    model("MiniCPM4-8B", 8.19e9, "minicpm", "32 4096 16384 32 2 73448 32768", scale_depth=1.4, scale_emb=12,
          dim_model_base=256),
    model("Gemma-7B", 8.5377e9, "gemma", "28 3072 24576 16 16 256000 8192", head_dim=256),
    Published("Qwen2.5-VL-7B", 7.6156e9, {"model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
        "max_position_embeddings": 128000, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}),
    Published("Qwen3-VL-8B", 8.19e9, {"model_type": "qwen3_vl", "vision_config": {
        "deepstack_visual_indexes": [8, 16, 24]}, "text_config": {
        "model_type": "qwen3_vl_text", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 262144, "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]}}}),
    model("EXAONE-3.5-7.8B", 7.818e9, "exaone", "32 4096 14336 32 8 102400 32768", tie_word_embeddings=False),
    model("AFM-4.5B", 4.62e9, "arcee", "36 2560 18432 20 4 128004 65536", head_dim=128),
)  # fmt: skip

MORE_EXPERTS = (
    model("Qwen1.5-MoE-A2.7B", 14.316e9, "qwen2_moe", "24 2048 5632 16 16 151936 8192", num_experts=60,
          num_experts_per_tok=4, moe_intermediate_size=1408, shared_expert_intermediate_size=5632),
    Published("Qwen3-VL-30B-A3B", 30.532e9, {"model_type": "qwen3_vl_moe", "text_config": {
        "model_type": "qwen3_vl_moe_text", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "num_experts": 128,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768, "max_position_embeddings": 262144}}),
    model("Kimi-K2", 1026.4e9, "kimi_k2", "61 7168 18432 64 64 163840 131072", **DEEPSEEK, q_lora_rank=1536,
          n_routed_experts=384, n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=2048,
          first_k_dense_replace=1, n_group=1, topk_group=1, scoring_func="sigmoid", routed_scaling_factor=2.827),
    model("Moonlight-16B-A3B", 15.96e9, "deepseek_v3", "27 2048 11264 16 16 163840 8192", **DEEPSEEK, q_lora_rank=None,
          n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=1408,
          first_k_dense_replace=1, n_group=1, topk_group=1, scoring_func="sigmoid"),
    model("GLM-4.7-Flash", 31.22e9, "glm4_moe_lite", "47 2048 10240 20 20 154880 202752", q_lora_rank=768,
          kv_lora_rank=512, qk_nope_head_dim=192, qk_rope_head_dim=64, v_head_dim=256, n_routed_experts=64,
          n_shared_experts=1, num_experts_per_tok=4, moe_intermediate_size=1536, first_k_dense_replace=1, n_group=1,
          topk_group=1, num_nextn_predict_layers=1, norm_topk_prob=True, routed_scaling_factor=1.8),
    model("GLM-4.5", 358.34e9, "glm4_moe", "92 5120 12288 96 8 151552 131072", head_dim=128, n_routed_experts=160,
          num_experts_per_tok=8, moe_intermediate_size=1536, n_shared_experts=1, first_k_dense_replace=3, n_group=1,
          topk_group=1, attention_bias=True, use_qk_norm=True, num_nextn_predict_layers=1, norm_topk_prob=True,
          routed_scaling_factor=2.5, partial_rotary_factor=0.5),
    Published("Llama-4-Maverick", 400.7e9, {"model_type": "llama4", "text_config": {
        "model_type": "llama4_text", "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 202048, "max_position_embeddings": 1048576, "num_local_experts": 128, "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2}}),
    model("Granite-3.1-3B-A800M", 3.3e9, "granitemoe", "32 1536 512 24 8 49155 131072", **TIED, **GRANITE,
          num_local_experts=40, num_experts_per_tok=8),
    model("ERNIE-4.5-21B-A3B", 21.8e9, "ernie4_5_moe", "28 2560 12288 20 4 103424 131072", **TIED, moe_num_experts=64,
          moe_k=6, moe_intermediate_size=1536, moe_num_shared_experts=2, moe_layer_start_index=1, moe_layer_interval=1),
    model("Hunyuan-A13B", 80.4e9, "hunyuan_v1_moe", "32 4096 3072 32 8 128167 32768", head_dim=128, **TIED,
          num_experts=64, moe_topk=[8] * 32, moe_intermediate_size=[3072] * 32, num_shared_expert=[1] * 32),
    model("MiniMax-M2", 228.7e9, "minimax_m2", "62 3072 1536 48 8 200064 196608", head_dim=128, num_local_experts=256,
          num_experts_per_tok=8, rotary_dim=64, scoring_func="sigmoid"),
    model("Phi-3.5-MoE", 41.87e9, "phimoe", "32 4096 6400 32 8 32064 131072", num_local_experts=16,
          num_experts_per_tok=2, attention_bias=True, lm_head_bias=True, original_max_position_embeddings=4096,
          rope_scaling={"type": "longrope", "long_factor": [1.0] * 64, "short_factor": [1.0] * 64}),
    model("dots.llm1", 142.8e9, "dots1", "62 4096 10944 32 32 152064 32768", n_routed_experts=128, n_shared_experts=2,
          num_experts_per_tok=6, moe_intermediate_size=1408, first_k_dense_replace=1, routed_scaling_factor=2.5),
    model("Ling-mini-2.0", 16.26e9, "bailing_moe_v2", "20 2048 5120 16 4 157184 32768", head_dim=128, num_experts=256,
          num_experts_per_tok=8, num_shared_experts=1, moe_intermediate_size=512, first_k_dense_replace=1, n_group=8,
          topk_group=4, routed_scaling_factor=2.5, norm_topk_prob=True, partial_rotary_factor=0.5),
)  # fmt: skip

ENCODERS = (
    model("BGE-small-zh-v1.5", 23.69e6, "bert", "4 512 2048 8 8 21128 512", layer_norm_eps=1e-12, type_vocab_size=2),
    model("BGE-M3", 566.7e6, "xlm-roberta", "24 1024 4096 16 16 250002 8194", layer_norm_eps=1e-5, type_vocab_size=1,
          pad_token_id=1),
    model("BGE-Reranker-v2-M3", 567.8e6, "xlm-roberta", "24 1024 4096 16 16 250002 8194", layer_norm_eps=1e-5,
          type_vocab_size=1, pad_token_id=1, architectures=["XLMRobertaForSequenceClassification"]),
    Published("Nomic-Embed-Text-v1.5", 136.7e6, {"model_type": "nomic_bert", "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_inner": 3072, "n_positions": 8192, "vocab_size": 30528, "type_vocab_size": 2, "layer_norm_epsilon": 1e-12}),
    Published("Nomic-Embed-Text-v2-MoE", 475.3e6, {"model_type": "nomic_bert", "n_embd": 768, "n_head": 12,
        "n_layer": 12, "n_inner": 3072, "n_positions": 2048, "vocab_size": 250048, "type_vocab_size": 1,
        "layer_norm_epsilon": 1e-5, "moe_every_n_layers": 2, "num_experts": 8, "moe_top_k": 2}),
    model("ModernBERT-base", 149e6, "modernbert", "22 768 1152 12 12 50368 8192", norm_eps=1e-5, local_attention=128,
          global_attn_every_n_layers=3),
    model("Qwen3-Embedding-0.6B", 0.5958e9, "qwen3", "28 1024 3072 16 8 151669 32768", head_dim=128, **TIED),
    model("EmbeddingGemma-300M", 302.9e6, "gemma3_text", "24 768 1152 3 1 262144 2048", head_dim=256,
          sliding_window=512, use_bidirectional_attention=True),
)  # fmt: skip

ALL = (*MEASURED_FIRST, *HYBRIDS, *GEMMAS, *MORE_DENSE, *MORE_EXPERTS, *ENCODERS)

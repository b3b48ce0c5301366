"""The guides' rules of thumb, recomputed: `python tools/rules_of_thumb.py` writes the handbook page in both langu"
"age",
`--check` fails when it is not what the arithmetic gives.

Sizes come from the planner, exactly; speeds from the measurements of one machine, which docs/log.md describes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bendi.cli.arguments import folded
from bendi.formats import GgufFile
from bendi.formats.blueprints import blueprint_from_config
from bendi.planner import MemorySetup, kv_bytes, memory_facts
from bendi.planner.layers import model_work
from bendi.planner.mixture import facts_of, quantized_bytes, shapes_of
from bendi.store.known_models import known_models
from bendi.units import GIB

DOCS = Path(__file__).resolve().parent.parent / "docs" / "handbook"
SIZES = (
    "qwen2.5:0.5b", "llama3.2:1b", "llama3.2:3b", "llama3.1:8b", "qwen3:14b", "qwen3:32b", "llama3.1:70b",
)  # fmt: skip
TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
CACHES = ("qwen2.5:0.5b", "llama3.1:8b", "qwen3:14b", "llama3.1:70b", "gemma3:12b", "deepseek-v3.1:671b")
LLAMA_65B: dict[str, object] = {
    "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 22016,
    "num_attention_heads": 64, "num_key_value_heads": 64, "vocab_size": 32000, "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_7B = LLAMA_65B | {
    "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
    "num_key_value_heads": 32,
}  # fmt: skip
CONTEXT_TOK = 131072

# Measured on 2026-11-21, see docs/log.md: share of the memory bandwidth that token generation reaches, by type.
MEASURED_SHARES = {"F16": 0.84, "Q8_0": 0.81, "Q4_0": 0.83, "Q4_K": 0.85, "Q6_K": 0.69, "Q5_K": 0.56, "Q5_0": 0.56,
                   "IQ4_XS": 0.51, "Q2_K": 0.40, "Q3_K": 0.38}  # fmt: skip

SOURCES = (
    "llama.cpp, `src/llama-quant.cpp`, `src/llama-kv-cache.cpp`",
    "`src/bendi/store/models.toml`",
    "`docs/log.md`, 2026-11-21",
    "Touvron et al., arXiv 2302.13971 (LLaMA)",
)
TEXTS = {
    "title": ("# Rules of thumb, checked", "# 经验法则，逐条核对"),
    "intro": (
        "Guides to local models pass on rules that once were true. Here they are recomputed from the headers of real "
        "models; the figures are exact to the byte where they are sizes. `bendi plan MODEL` does the same for any "
        "model, and for your machine.",
        "本地模型的教程里流传着许多曾经正确的经验法则。这里用真实模型的文件头重新计算；凡是大小，都精确到字节。"
        "`bendi plan 模型` 可以对任何模型、针对你的机器做同样的计算。",
    ),
    "weights": (
        "## Memory for the weights = parameters x bits / 8",
        "## 权重内存 = 参数量 × 位数 / 8",
    ),
    "weights_table": ("GiB of the file's tensors:", "文件中张量的大小（GiB）："),
    "model": ("model", "模型"),
    "weights_verdict": (
        '**Holds, with the right number of bits.** A "4-bit" file has {q4km_low:.2f} to {q4km_high:.2f} bits per '
        "weight as Q4_K_M and {q40_low:.2f} to {q40_high:.2f} as Q4_0, because blocks carry scales and some tensors "
        "are kept at more bits. Small models pay most: their vocabularies are a large share, and rows that are no "
        "multiple of 256 get larger types. Reckon with 0.6 GB for each billion parameters at Q4_K_M, 1.06 at Q8_0, 2 "
        "at F16.",
        "**成立，但位数要用对。** 所谓 4 位文件，Q4_K_M 实际为每权重 {q4km_low:.2f} 到 {q4km_high:.2f} 位，Q4_0 为 "
        "{q40_low:.2f} 到 {q40_high:.2f} 位：每个块都带缩放系数，有些张量还用更多的位数；小模型最吃亏：词表占比大，"
        "而且行长不是 256 的倍数时要换用更大的类型。"
        "每十亿参数可按 Q4_K_M 0.6 GB、Q8_0 1.06 GB、F16 2 GB 估算。",
    ),
    "cache": ('## "A context of 128k needs hundreds of GB"', "## “128k 上下文需要几百 GB”"),
    "cache_table": (
        "GiB of KV cache for 131,072 tokens:",
        "131,072 个词元的 KV 缓存（GiB）：",
    ),
    "cache_verdict": (
        "**True of the old 65B, false today.** LLaMA-65B kept the keys and values of all 64 heads: {old:.0f} GiB. "
        "Grouped queries divide that by eight (Llama 3.1 70B: {gqa:.0f} GiB), sliding windows and compressed keys by "
        "more. A rule that multiplies layers by the embedding length is up to {factor:.0f} times too high.",
        "**对当年的 65B 是真的，如今不对。** LLaMA-65B 保存全部 64 个头的键和值：{old:.0f} GiB。分组查询注意力把它"
        "除以八"
        "（Llama 3.1 70B：{gqa:.0f} GiB），滑动窗口和压缩的键更省。用层数乘嵌入长度的算法最多会高估 {factor:.0f} 倍。"
        "",
    ),
    "speed": ("## Tokens per second = memory bandwidth / file size", "## 每秒词元数 = 内存带宽 / 文件大小"),
    "speed_table": (
        "Share of the memory bandwidth that token generation reached on one machine (2 cores, AVX-512, prebuilt "
        "engine), by type:",
        "在一台机器上（2 核，AVX-512，预编译引擎）各类型生成时达到的内存带宽比例：",
    ),
    "speed_verdict": (
        "**An upper limit, not a prediction.** On a CPU, unpacking some types takes longer than reading them: Q5_K, "
        "Q3_K and Q2_K are smaller than Q8_0 and hardly faster, or slower. Models of experts read only the chosen "
        "experts: {moe} reads {moe_active:.1f} of {moe_total:.1f} GiB for each token as Q4_K_M. Every token of con"
        "text "
        "adds work. `bendi calibrate` measures your shares in a minute.",
        "**这是上限，不是预测。** 在 CPU 上，有些类型解包比读取更慢：Q5_K、Q3_K、Q2_K 比 Q8_0 小，却快不了多少，"
        "甚至更慢。"
        "混合专家模型每个词元只读被选中的专家：{moe} 的 Q4_K_M 每词元只读 {moe_total:.1f} GiB 中的 {moe_active:.1f}"
        " GiB。"
        "上下文中的每个词元都会增加计算。`bendi calibrate` 一分钟内就能测出你机器上的比例。",
    ),
    "q40": ("## From F16 to Q4_0: 72% smaller, 160% faster", "## 从 F16 到 Q4_0：小 72%，快 160%"),
    "q40_verdict": (
        "**The size holds, the speed depends on the machine.** LLaMA-7B as Q4_0 is {smaller:.1%} smaller; the bytes "
        "that a token reads would allow +{limit:.0%}, and on the machine above it is +{here:.0%}. What it is on yo"
        "urs, "
        "`bendi plan` says after `bendi calibrate`.",
        "**大小成立，速度取决于机器。** LLaMA-7B 的 Q4_0 小 {smaller:.1%}；按每词元读取的字节，最多可快 {limit:.0%}，"
        "在上述"
        "机器上快 {here:.0%}。在你的机器上是多少，运行 `bendi calibrate` 之后 `bendi plan` 会告诉你。",
    ),
    "sources": ("## Sources", "## 来源"),
    "footer": (
        "This page is made by `tools/rules_of_thumb.py`; a test compares it with the arithmetic.",
        "本页由 `tools/rules_of_thumb.py` 生成；有测试将它与计算结果对照。",
    ),
}


def header(config: dict[str, object], name: str) -> GgufFile:
    return blueprint_from_config(config, name).header()


def catalogue_header(alias: str) -> GgufFile:
    return header(dict(known_models()[alias].config), alias)


def file_bytes(gguf: GgufFile, file_type: str) -> int:
    return quantized_bytes(shapes_of(gguf), facts_of(gguf), file_type)


def bits(gguf: GgufFile, file_type: str) -> float:
    return 8 * file_bytes(gguf, file_type) / sum(tensor.elements for tensor in gguf.tensors)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cache_gib(gguf: GgufFile, kv_type: str) -> float:
    return kv_bytes(memory_facts(gguf), MemorySetup(CONTEXT_TOK, type_k=kv_type, type_v=kv_type)) / GIB


def page(language: int) -> str:
    """The page; `language`: 0 English, 1 Chinese."""
    text = {name: both[language] for name, both in TEXTS.items()}
    models = {alias: catalogue_header(alias) for alias in SIZES}
    q4km, q40 = ([bits(gguf, name) for gguf in models.values()] for name in ("Q4_K_M", "Q4_0"))
    old, new = header(LLAMA_65B, "LLaMA-65B"), catalogue_header("llama3.1:70b")
    caches = {"LLaMA-65B (2023)": old} | {alias: catalogue_header(alias) for alias in CACHES}
    naive_gib = {name: naive_cache_gib(gguf) for name, gguf in caches.items()}
    moe = catalogue_header("qwen3:30b")
    moe_work = model_work(moe, types=None)
    share = moe_work.bytes_per_token / sum(group.total_bytes for group in moe_work.weights)
    moe_gib = file_bytes(moe, "Q4_K_M") / GIB
    seven = header(LLAMA_7B, "LLaMA-7B")
    ratio = file_bytes(seven, "F16") / file_bytes(seven, "Q4_0")
    parts = [
        text["title"],
        text["intro"],
        text["weights"],
        text["weights_table"],
        table(
            [text["model"], *TYPES],
            [[alias, *(f"{file_bytes(gguf, name) / GIB:.2f}" for name in TYPES)] for alias, gguf in models.items()],
        ),
        text["weights_verdict"].format(q4km_low=min(q4km), q4km_high=max(q4km), q40_low=min(q40), q40_high=max(q40)),
        text["cache"],
        text["cache_table"],
        table(
            [text["model"], "F16", "Q8_0", "Q4_0"],
            [
                [name, *(f"{cache_gib(gguf, kv_type):.2f}" for kv_type in ("f16", "q8_0", "q4_0"))]
                for name, gguf in caches.items()
            ],
        ),
        text["cache_verdict"].format(
            old=cache_gib(old, "f16"),
            gqa=cache_gib(new, "f16"),
            factor=max(naive_gib[name] / cache_gib(gguf, "f16") for name, gguf in caches.items()),
        ),
        text["speed"],
        text["speed_table"],
        table(list(MEASURED_SHARES), [[f"{value:.0%}" for value in MEASURED_SHARES.values()]]),
        text["speed_verdict"].format(moe="Qwen3-30B-A3B", moe_active=share * moe_gib, moe_total=moe_gib),
        text["q40"],
        text["q40_verdict"].format(
            smaller=1 - 1 / ratio,
            limit=ratio - 1,
            here=ratio * MEASURED_SHARES["Q4_0"] / MEASURED_SHARES["F16"] - 1,
        ),
        text["footer"],
        text["sources"],
        "\n".join(f"- {source}" for source in SOURCES),
    ]
    if language == 0:  # a line break inside Chinese text would be shown as a blank
        parts = [part if part[0] in "#|-" else "\n".join(folded(part, 118)) for part in parts]
    return "\n\n".join(parts) + "\n"


def naive_cache_gib(gguf: GgufFile) -> float:
    """2 x layers x embedding length x 2 bytes for each token."""
    architecture = gguf.architecture
    layers = gguf.integer(f"{architecture}.block_count") or 0
    return 4 * layers * (gguf.integer(f"{architecture}.embedding_length") or 0) * CONTEXT_TOK / GIB


def main() -> int:
    stale = []
    for language, folder in enumerate(("en", "zh")):
        path = DOCS / folder / "rules.md"
        text = page(language)
        if "--check" not in sys.argv[1:]:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            stale.append(str(path))
    if stale:
        print(f"{', '.join(stale)}: not up to date, run python tools/rules_of_thumb.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

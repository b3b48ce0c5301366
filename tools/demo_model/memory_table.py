"""The numeric facts: gigabytes of the weights for a model size and a quantization, and what fits into a memory size.

weights in GB (10**9 bytes) = parameters in billions * bits per weight / 8. The bits are typical averages of whole
files, so every figure is said with "about": below 10 GB with one decimal, above as a whole number.
"""

from __future__ import annotations

SIZES_B = (
    "0.5", "0.6", "1", "1.5", "1.7", "2", "3", "4", "7", "8", "9", "12", "13", "14", "20", "24",
    "27", "30", "32", "34", "65", "70", "72", "110", "120", "235", "405", "671",
)  # fmt: skip
BITS_PER_WEIGHT = {
    "Q2_K": 3.2,
    "Q3_K_M": 3.9,
    "Q4_0": 4.6,
    "Q4_K_M": 4.85,
    "Q5_K_M": 5.7,
    "Q6_K": 6.6,
    "Q8_0": 8.5,
    "F16": 16.0,
}
DEFAULT_QUANT = "Q4_K_M"
# How people write each type; the first spelling is the usual one.
SPELLINGS = {
    "Q2_K": ("Q2_K", "Q2", "2-bit", "2bit", "2 bit"),
    "Q3_K_M": ("Q3_K_M", "Q3", "3-bit", "3bit", "q3km"),
    "Q4_0": ("Q4_0", "q4_0", "Q4 0"),
    "Q4_K_M": ("Q4_K_M", "Q4", "4-bit", "4bit", "4 bit", "q4km", "int4", "four bit"),
    "Q5_K_M": ("Q5_K_M", "Q5", "5-bit", "5bit", "q5km"),
    "Q6_K": ("Q6_K", "Q6", "6-bit", "6bit"),
    "Q8_0": ("Q8_0", "Q8", "8-bit", "8bit", "8 bit", "int8"),
    "F16": ("F16", "FP16", "BF16", "16-bit", "half precision", "unquantized"),
}
SPELLINGS_ZH = {
    "Q2_K": ("2 比特", "2比特"),
    "Q3_K_M": ("3 比特", "3比特"),
    "Q4_0": (),
    "Q4_K_M": ("4 比特", "4比特", "4位", "四比特"),
    "Q5_K_M": ("5 比特", "5比特"),
    "Q6_K": ("6 比特", "6比特"),
    "Q8_0": ("8 比特", "8比特", "8位", "八比特"),
    "F16": ("16 比特", "半精度", "不量化", "未量化"),
}
# memory in GB -> (comfortable size at Q4_K_M, largest size at Q4_K_M)
FITS = {
    4: ("1.5B to 3B", "4B"),
    6: ("4B", "7B"),
    8: ("7B to 8B", "9B"),
    12: ("8B to 9B", "14B"),
    16: ("12B to 14B", "20B"),
    24: ("24B to 27B", "32B"),
    32: ("32B", "34B"),
    48: ("32B to 34B", "72B"),
    64: ("70B to 72B", "72B at Q5_K_M"),
    128: ("110B to 120B", "120B at Q6_K"),
}


def weights_gb(size_b: str, quant: str) -> str:
    """Return the weights of a model of `size_b` billion parameters in GB as the text the model has to say."""
    value = float(size_b) * BITS_PER_WEIGHT[quant] / 8
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def answer(size_b: str, quant: str, lang: str) -> str:
    """Return the sentence with the memory of one size and quantization in "en" or "zh"."""
    gb = weights_gb(size_b, quant)
    if lang == "zh":
        return (
            f"{size_b}B 模型用 {quant} 时，权重约占 **{gb} GB**。另外给 KV 缓存和缓冲区留 1 到 2 GB，上下文长则更多。"
        )
    return (
        f"A {size_b}B model at {quant} needs about **{gb} GB** for the weights. "
        "Plan 1 to 2 GB more for the KV cache and buffers, and more for a long context."
    )


def must(size_b: str, quant: str) -> tuple[str, ...]:
    """Return regexes that only the right figure for this size and quantization matches."""
    number = weights_gb(size_b, quant).replace(".", r"\.")
    size = size_b.replace(".", r"\.")
    return rf"(?<![\d.]){size}B", quant, rf"(?<![\d.]){number} GB"


def fits_answer(memory_gb: int, lang: str) -> str:
    """Return the sentence that says which model sizes a memory of `memory_gb` GB holds."""
    good, most = FITS[memory_gb]
    if lang == "zh":
        good, most = good.replace(" to ", " 到 "), most.replace(" at ", " 的 ")
        return (
            f"{memory_gb} GB 空闲内存里，Q4_K_M 的 {good} 模型放得很宽松，最大约 {most}，但上下文要短。"
            "系统本身还要占内存。"
        )
    return (
        f"In {memory_gb} GB of free memory, {good} models at Q4_K_M fit comfortably; "
        f"the limit is about {most} with a short context. The system itself needs memory too."
    )


def fits_must(memory_gb: int) -> tuple[str, ...]:
    """Return regexes of the answer to "what fits in this memory?"."""
    return rf"(?<![\d.]){memory_gb} GB", FITS[memory_gb][0].split()[0]

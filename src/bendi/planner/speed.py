"""How long a model takes: for a prompt, for a token at any depth, for loading. From its work and a device's rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot

from bendi.planner.calibration import Calibration, DeviceRates, TypeRates, attention_of, rates_of
from bendi.planner.memory_setup import F32_BYTES
from bendi.planner.work import AttentionWork, ModelWork, Weights

BATCH_TOK = 512
_MODEL_ERROR = 0.08
_BORROWED_ERROR = 0.30
_UNMEASURED_PART_ERROR = 0.30
_SPECIFICATION_ERROR = 0.6
_DISTURBED_ERROR = 0.5


@dataclass(frozen=True)
class Rate:
    """Tokens per second. Four of five measurements should lie within `tok_s` times 1 +- `error`."""

    tok_s: float
    error: float


def generation_s(work: ModelWork, device: DeviceRates, depth_tok: float, kv_type: str = "f16") -> float:
    """Undisturbed seconds for one token after `depth_tok` others. `kv_type`: of keys and values."""
    rates = attention_of(device, kv_type)
    attention_s = sum(part.layers * rates.generation_s(part, seen_tok(part, depth_tok)) for part in work.attention)
    fixed_s = device.token_s + work.layers * device.layer_s + work.vocab_size * device.vocabulary_s
    return weights_s(work.weights, device) + attention_s + state_s(work.state_numbers, device) + fixed_s


def prompt_s(work: ModelWork, device: DeviceRates, tokens: int, depth_tok: int = 0, kv_type: str = "f16") -> float:
    """Undisturbed seconds until a prompt of `tokens` tokens after `depth_tok` others is processed."""
    total_s = 0.0
    for start in range(0, tokens, BATCH_TOK):
        total_s += _batch_s(work, device, min(BATCH_TOK, tokens - start), depth_tok + start, kv_type)
    return total_s + weights_s((group for group in work.weights if group.once), device)


def load_s(work: ModelWork, calibration: Calibration, *, cold: bool) -> float:
    """Seconds until the model can be asked. `cold`: its file is not in the page cache and comes from the disk first."""
    device = calibration.cpu
    warm_s = device.start_s + work.vocab_size * device.start_vocabulary_s
    warm_s += sum(
        group.total_bytes / rates_of(device, group.type_name).load_bytes_s
        for group in work.weights
        if rates_of(device, group.type_name).load_bytes_s
    )
    if not cold or not calibration.disk_read_bytes_s:
        return warm_s
    return warm_s + work.total_bytes / calibration.disk_read_bytes_s


def rate_error(work: ModelWork, calibration: Calibration) -> float:
    """The relative error of rates for `work`: of the formulas, of what was not measured, and of a noisy machine."""
    device = calibration.cpu
    formula = _SPECIFICATION_ERROR if device.source == "specification" else _MODEL_ERROR
    borrowed = sum(
        group.bytes_per_token for group in work.weights if rates_of(device, group.type_name).source != "measured"
    )
    share = borrowed / max(work.bytes_per_token, 1.0) if device.source == "measured" else 0.0
    unmeasured = _UNMEASURED_PART_ERROR * work.recurrent_layers / max(work.layers, 1)
    disturbed = _DISTURBED_ERROR * calibration.disturbed_share
    return hypot(formula, _BORROWED_ERROR * share, unmeasured, calibration.spread, disturbed)


def weights_s(weights: Iterable[Weights], device: DeviceRates) -> float:
    """Seconds for reading, once, what one token uses of `weights`."""
    return sum(group.bytes_per_token / rates_of(device, group.type_name).generation_bytes_s for group in weights)


def product_s(group: Weights, rates: TypeRates, tokens: int, expert_share: float) -> float:
    """Seconds for `group` with a batch of `tokens`: as long as computing or as reading takes, whichever is longer."""
    rate = rates.prompt_expert_weights_s if group.experts else rates.prompt_weights_s
    return max(tokens * group.per_token / rate, reached_bytes(group, tokens, expert_share) / rates.generation_bytes_s)


def reached_bytes(group: Weights, tokens: int, expert_share: float) -> float:
    """Bytes of `group` that a batch of `tokens` reads: few tokens, each of which uses `expert_share` of the experts, do
    not choose all of them."""
    reached = 1 - (1 - expert_share) ** tokens if group.experts and expert_share < 1 else 1.0
    return reached * group.total_bytes


def state_s(numbers: float, device: DeviceRates) -> float:
    """Seconds for one token of recurrent layers with so many `numbers` of state: they read and write all of it."""
    fastest = max(rates.generation_bytes_s for rates in device.types.values())
    return 2 * numbers * F32_BYTES / fastest


def seen_tok(part: AttentionWork, depth_tok: float, batch_tok: int = 0) -> float:
    """How many tokens attention sees after `depth_tok`: a window bounds it. Of a batch of `batch_tok`, the mean."""
    return min(depth_tok, part.window_tok + batch_tok // 2) if part.window_tok else depth_tok


def _batch_s(work: ModelWork, device: DeviceRates, tokens: int, depth_tok: int, kv_type: str) -> float:
    products_s = sum(
        product_s(group, rates_of(device, group.type_name), tokens, work.expert_share)
        for group in work.weights
        if not group.once
    )
    rates = attention_of(device, kv_type)
    attention_s = sum(
        part.layers * tokens * rates.prompt_s(part, seen_tok(part, depth_tok + tokens // 2, tokens))
        for part in work.attention
    )
    return products_s + attention_s + tokens * work.layers * device.prompt_layer_s + device.token_s

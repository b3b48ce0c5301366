"""How long a request takes when the layers of a model lie on several devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from bendi.planner.calibration import Calibration, DeviceRates, attention_of, rates_of
from bendi.planner.devices import GpuDevice
from bendi.planner.gpu_specs import EXPERT_LAYER_S, SYNC_S
from bendi.planner.layers import LayerWork
from bendi.planner.layout import Placement
from bendi.planner.speed import generation_s, product_s, prompt_s, reached_bytes, seen_tok, state_s, weights_s
from bendi.planner.subject import Subject
from bendi.planner.work import AttentionWork, Weights

COPIED_FROM_TOK = 32
"""Batches of as many tokens are computed on a GPU even where the weights are in main memory: they are copied there for
each batch (llama.cpp `ggml/src/ggml-cuda/ggml-cuda.cu`, the offload threshold)."""


@dataclass(frozen=True)
class Work:
    """A prompt of `tokens` after `depth_tok` others, in batches of `n_ubatch`; and one token after
    `generation_depth_tok`."""

    depth_tok: int
    tokens: int
    generation_depth_tok: float
    n_ubatch: int
    kv_type: str

    @cached_property
    def batches(self) -> tuple[tuple[int, int], ...]:
        """(tokens, how many such batches)."""
        whole, rest = divmod(self.tokens, self.n_ubatch)
        return tuple(batch for batch in ((self.n_ubatch, whole), (rest, 1)) if batch[0] and batch[1])


@dataclass(frozen=True)
class Seconds:
    """`token_s`: of one generated token; `prompt_s`: of the whole prompt; both undisturbed."""

    token_s: float
    prompt_s: float

    def request_s(self, answer_tok: int) -> float:
        return self.prompt_s + answer_tok * self.token_s


def processor_seconds(subject: Subject, calibration: Calibration, work: Work, missing: float) -> Seconds:
    """Everything on the processor. `missing`: as in `Timing.seconds`."""
    model, cpu = subject.work, calibration.cpu
    token_s = generation_s(model, cpu, work.generation_depth_tok, work.kv_type)
    whole_s = prompt_s(model, cpu, work.tokens, work.depth_tok, work.kv_type)
    if missing:
        disk = max(calibration.disk_read_bytes_s, 1.0)
        token_s += missing * model.bytes_per_token / disk
        whole_s += missing * _read_bytes(model.weights, work, model.expert_share) / disk
    return Seconds(token_s, whole_s)


class Timing:
    """The seconds of one subject and one piece of work for any placement on the processor and those of
    `gpus` that are `used`.

    Everything is summed up over the layers beforehand, so that a placement costs a few subtractions.
    """

    def __init__(
        self, subject: Subject, calibration: Calibration, gpus: Sequence[GpuDevice], used: Sequence[int], work: Work
    ) -> None:
        self._subject = subject
        self._calibration = calibration
        self._work = work
        self._share = subject.work.expert_share
        kinds, self._at = subject.layers.kinds
        self.count = len(self._at)
        cpu, main = calibration.cpu, gpus[used[0]]
        self._host_token = self._sums(self._token_s(kind, cpu, self._rest(kind)) + cpu.layer_s for kind in kinds)
        self._host_experts_token = self._sums(weights_s(self._experts(kind), cpu) for kind in kinds)
        self._host_prompt = self._sums(self._host_prompt_s(kind, cpu, main) for kind in kinds)
        self._host_experts_prompt = self._sums(self._products_s(self._experts(kind), cpu, main) for kind in kinds)
        self._host_bytes = self._sums(sum(w.bytes_per_token for w in self._rest(kind)) for kind in kinds)
        self._host_expert_bytes = self._sums(sum(w.bytes_per_token for w in self._experts(kind)) for kind in kinds)
        self._host_prompt_bytes = self._sums(_read_bytes(self._rest(kind), work, self._share) for kind in kinds)
        self._host_expert_prompt_bytes = self._sums(
            _read_bytes(self._experts(kind), work, self._share) for kind in kinds
        )
        rates = {gpus[at].spec: gpus[at].rates for at in used}
        self._gpu = {spec: self._gpu_sums(kinds, of_gpu) for spec, of_gpu in rates.items()}
        self._gpus = tuple(gpus)
        head = subject.layers.head.weights
        self._head_token = {spec: weights_s(head, of_gpu) for spec, of_gpu in rates.items()}
        self._fixed_s = cpu.vocabulary_s * subject.work.vocab_size

    def seconds(self, placement: Placement, missing: float = 0.0) -> Seconds:
        """`missing`: share of the weights in main memory that is read from the disk each time it is used."""
        start = self.count - placement.gpu_layers
        experts = max(min(placement.cpu_experts, self.count), start)
        token_s = self._fixed_s + self._host_token[start] + self._host_experts_token[experts]
        prompt_s = self._host_prompt[start] + self._host_experts_prompt[experts]
        if start:
            token_s += self._calibration.cpu.token_s
        at = start
        for position, layers in zip(placement.gpus, placement.counts, strict=True):
            token, experts_token, prompt, experts_prompt = self._gpu[self._gpus[position].spec]
            end, kept = at + layers, min(max(experts, at), at + layers)
            token_s += token[end] - token[at] + experts_token[end] - experts_token[kept]
            prompt_s += prompt[end] - prompt[at] + experts_prompt[end] - experts_prompt[kept]
            at = end
        last = self._gpus[placement.gpus[-1]]
        syncs = len(placement.gpus) - 1 + (start > 0) + 2 * (experts - start)
        token_s += self._head_token[last.spec] + last.rates.token_s + syncs * SYNC_S
        if self._work.tokens:
            prompt_s += self._head_token[last.spec] + len(self._work.batches) * syncs * SYNC_S
        if missing:
            disk = max(self._calibration.disk_read_bytes_s, 1.0)
            token_s += missing * (self._host_bytes[start] + self._host_expert_bytes[experts]) / disk
            prompt_s += missing * (self._host_prompt_bytes[start] + self._host_expert_prompt_bytes[experts]) / disk
        return Seconds(token_s, prompt_s)

    def _sums(self, of_kinds: Iterable[float]) -> list[float]:
        values = list(of_kinds)
        return list(accumulate((values[kind] for kind in self._at), initial=0.0))

    def _gpu_sums(
        self, kinds: Sequence[LayerWork], rates: DeviceRates
    ) -> tuple[list[float], list[float], list[float], list[float]]:
        batches = sum(count for _tokens, count in self._work.batches)
        token: list[float] = []
        prompt: list[float] = []
        for kind in kinds:
            overhead_s = EXPERT_LAYER_S if self._experts(kind) else rates.layer_s
            token.append(self._token_s(kind, rates, self._rest(kind)) + overhead_s)
            attention_s = self._attention_prompt_s(kind.attention, rates)
            prompt.append(self._products_s(self._rest(kind), rates) + attention_s + batches * overhead_s)
        return (
            self._sums(token),
            self._sums(weights_s(self._experts(kind), rates) for kind in kinds),
            self._sums(prompt),
            self._sums(self._products_s(self._experts(kind), rates) for kind in kinds),
        )

    @staticmethod
    def _rest(kind: LayerWork) -> tuple[Weights, ...]:
        return tuple(group for group in kind.weights if not group.experts)

    @staticmethod
    def _experts(kind: LayerWork) -> tuple[Weights, ...]:
        return tuple(group for group in kind.weights if group.experts)

    def _token_s(self, kind: LayerWork, rates: DeviceRates, weights: Iterable[Weights]) -> float:
        seconds = weights_s(weights, rates)
        if kind.attention:
            speed = attention_of(rates, self._work.kv_type)
            seen = seen_tok(kind.attention, self._work.generation_depth_tok)
            seconds += speed.generation_s(kind.attention, seen)
        if kind.recurrent:
            model = self._subject.work
            seconds += state_s(model.state_numbers / max(model.recurrent_layers, 1), rates)
        return seconds

    def _products_s(self, weights: Iterable[Weights], own: DeviceRates, gpu: GpuDevice | None = None) -> float:
        """Of all batches of the prompt, with the weights in the memory of the device with the rates `own`. `gpu`: this
        one computes batches that are large enough, and for each of them the weights are copied to it."""
        total_s = 0.0
        for group in weights:
            here = rates_of(own, group.type_name)
            if group.once:
                total_s += group.bytes_per_token / here.generation_bytes_s if self._work.tokens else 0.0
                continue
            for tokens, count in self._work.batches:
                if gpu is None or tokens < COPIED_FROM_TOK:
                    total_s += count * product_s(group, here, tokens, self._share)
                    continue
                copying_s = reached_bytes(group, tokens, self._share) / gpu.spec.link_bytes_s
                there = rates_of(gpu.rates, group.type_name)
                total_s += count * (product_s(group, there, tokens, self._share) + copying_s)
        return total_s

    def _host_prompt_s(self, kind: LayerWork, cpu: DeviceRates, gpu: GpuDevice) -> float:
        """A layer in main memory: its weights are copied, its attention is computed where its cache is."""
        overhead_s = self._work.tokens * cpu.prompt_layer_s + len(self._work.batches) * SYNC_S
        return self._products_s(self._rest(kind), cpu, gpu) + self._attention_prompt_s(kind.attention, cpu) + overhead_s

    def _attention_prompt_s(self, part: AttentionWork | None, rates: DeviceRates) -> float:
        if part is None or not self._work.tokens:
            return 0.0
        speed = attention_of(rates, self._work.kv_type)
        seen = seen_tok(part, self._work.depth_tok + self._work.tokens / 2, self._work.n_ubatch)
        return self._work.tokens * speed.prompt_s(part, seen)


def _read_bytes(weights: Iterable[Weights], work: Work, expert_share: float) -> float:
    """Bytes that all batches of the prompt read."""
    return sum(
        count * reached_bytes(group, tokens, expert_share) for group in weights for tokens, count in work.batches
    )

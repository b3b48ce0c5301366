"""How long a request takes when the layers of a model lie on several devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from bendi.planner.calibration import Calibration, DeviceRates, attention_of, rates_of
from bendi.planner.devices import GpuDevice
from bendi.planner.gpu_specs import EXPERT_LAYER_S, SYNC_S
from bendi.planner.layers import LayerWork
from bendi.planner.layout import Placement
from bendi.planner.plan import Workload
from bendi.planner.subject import Subject
from bendi.planner.work import AttentionWork, Weights

COPIED_FROM_TOK = 32
"""Batches of as many tokens are computed on a GPU even where the weights are in main memory: they are copied there for
each batch (llama.cpp `ggml/src/ggml-cuda/ggml-cuda.cu`, the offload threshold)."""
_STATE_BYTES = 4


@dataclass(frozen=True)
class Work:
    """A prompt of `tokens` after `depth_tok` others, in batches of `n_ubatch`; and one token after
    `generation_depth_tok`."""

    depth_tok: int
    tokens: int
    generation_depth_tok: float
    n_ubatch: int
    kv_type: str

    @property
    def batches(self) -> tuple[tuple[int, int], ...]:
        """(tokens, how many such batches)."""
        whole, rest = divmod(self.tokens, self.n_ubatch)
        return tuple(batch for batch in ((self.n_ubatch, whole), (rest, 1)) if batch[0] and batch[1])


def work_of(workload: Workload, n_ubatch: int, kv_type: str) -> Work:
    """The mean of the answer's tokens stands for all of them."""
    middle = workload.depth_tok + workload.prompt_tok + workload.answer_tok / 2
    return Work(workload.depth_tok, workload.prompt_tok, middle, n_ubatch, kv_type)


@dataclass(frozen=True)
class Seconds:
    """`token_s`: of one generated token; `prompt_s`: of the whole prompt; both undisturbed."""

    token_s: float
    prompt_s: float

    def request_s(self, answer_tok: int) -> float:
        return self.prompt_s + answer_tok * self.token_s


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
        self._host_experts_token = self._sums(self._weights_token_s(self._experts(kind), cpu) for kind in kinds)
        self._host_prompt = self._sums(self._host_prompt_s(kind, cpu, main) for kind in kinds)
        self._host_experts_prompt = self._sums(self._copied_s(self._experts(kind), cpu, main) for kind in kinds)
        self._host_bytes = self._sums(sum(w.bytes_per_token for w in self._rest(kind)) for kind in kinds)
        self._host_expert_bytes = self._sums(sum(w.bytes_per_token for w in self._experts(kind)) for kind in kinds)
        self._host_prompt_bytes = self._sums(self._reached(self._rest(kind)) for kind in kinds)
        self._host_expert_prompt_bytes = self._sums(self._reached(self._experts(kind)) for kind in kinds)
        rates = {gpus[at].spec: gpus[at].rates for at in used}
        self._gpu = {spec: self._gpu_sums(kinds, of_gpu) for spec, of_gpu in rates.items()}
        self._gpus = tuple(gpus)
        head = subject.layers.head.weights
        self._head_token = {spec: self._weights_token_s(head, of_gpu) for spec, of_gpu in rates.items()}
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
            prompt.append(self._batches_s(self._rest(kind), rates) + attention_s + batches * overhead_s)
        return (
            self._sums(token),
            self._sums(self._weights_token_s(self._experts(kind), rates) for kind in kinds),
            self._sums(prompt),
            self._sums(self._batches_s(self._experts(kind), rates) for kind in kinds),
        )

    @staticmethod
    def _rest(kind: LayerWork) -> tuple[Weights, ...]:
        return tuple(group for group in kind.weights if not group.experts)

    @staticmethod
    def _experts(kind: LayerWork) -> tuple[Weights, ...]:
        return tuple(group for group in kind.weights if group.experts)

    def _token_s(self, kind: LayerWork, rates: DeviceRates, weights: Iterable[Weights]) -> float:
        seconds = self._weights_token_s(weights, rates)
        if kind.attention:
            speed = attention_of(rates, self._work.kv_type)
            part = kind.attention
            seconds += speed.generation_s(part, _seen(self._work.generation_depth_tok, part.window_tok))
        if kind.recurrent:
            states = self._subject.facts.state_numbers / max(self._subject.work.recurrent_layers, 1)
            seconds += 2 * states * _STATE_BYTES / rates_of(rates, "F16").generation_bytes_s
        return seconds

    def _weights_token_s(self, weights: Iterable[Weights], rates: DeviceRates) -> float:
        return sum(group.bytes_per_token / rates_of(rates, group.type_name).generation_bytes_s for group in weights)

    def _batches_s(self, weights: Iterable[Weights], rates: DeviceRates) -> float:
        """Of all batches of the prompt, with the weights in the device's own memory."""
        total_s = 0.0
        for group in weights:
            speed = rates_of(rates, group.type_name)
            if group.once:
                total_s += group.bytes_per_token / speed.generation_bytes_s if self._work.tokens else 0.0
                continue
            rate = speed.prompt_expert_weights_s if group.experts else speed.prompt_weights_s
            for tokens, count in self._work.batches:
                read_s = self._used(group, tokens) * group.total_bytes / speed.generation_bytes_s
                total_s += count * max(tokens * group.per_token / rate, read_s)
        return total_s

    def _copied_s(self, weights: Iterable[Weights], cpu: DeviceRates, gpu: GpuDevice) -> float:
        """Of all batches, with weights in main memory: copied to the GPU, or computed here if the batch is small."""
        total_s = 0.0
        for group in weights:
            here, there = rates_of(cpu, group.type_name), rates_of(gpu.rates, group.type_name)
            if group.once:
                total_s += group.bytes_per_token / here.generation_bytes_s if self._work.tokens else 0.0
                continue
            for tokens, count in self._work.batches:
                copied = tokens >= COPIED_FROM_TOK
                speed = there if copied else here
                rate = speed.prompt_expert_weights_s if group.experts else speed.prompt_weights_s
                used_bytes = self._used(group, tokens) * group.total_bytes
                computing_s = max(tokens * group.per_token / rate, used_bytes / speed.generation_bytes_s)
                total_s += count * (computing_s + (used_bytes / gpu.spec.link_bytes_s if copied else 0.0))
        return total_s

    def _host_prompt_s(self, kind: LayerWork, cpu: DeviceRates, gpu: GpuDevice) -> float:
        """A layer in main memory: its weights are copied, its attention is computed where its cache is."""
        overhead_s = self._work.tokens * cpu.prompt_layer_s + len(self._work.batches) * SYNC_S
        return self._copied_s(self._rest(kind), cpu, gpu) + self._attention_prompt_s(kind.attention, cpu) + overhead_s

    def _attention_prompt_s(self, part: AttentionWork | None, rates: DeviceRates) -> float:
        if part is None or not self._work.tokens:
            return 0.0
        speed = attention_of(rates, self._work.kv_type)
        window = part.window_tok + self._work.n_ubatch // 2 if part.window_tok else 0
        seen = _seen(self._work.depth_tok + self._work.tokens / 2, window)
        return self._work.tokens * speed.prompt_s(part, seen)

    def _reached(self, weights: Iterable[Weights]) -> float:
        """Bytes that all batches of the prompt read."""
        return sum(
            count * self._used(group, tokens) * group.total_bytes
            for group in weights
            for tokens, count in self._work.batches
        )

    def _used(self, group: Weights, tokens: int) -> float:
        """The share of the weights that a batch of `tokens` reaches: few tokens do not choose all experts."""
        return 1 - (1 - self._share) ** tokens if group.experts and self._share < 1 else 1.0


def _seen(depth_tok: float, window_tok: int) -> float:
    return min(depth_tok, window_tok) if window_tok else depth_tok

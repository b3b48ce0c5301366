"""Which layers go to which device, and how many bytes that makes on each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from bendi.planner.bisection import largest_that
from bendi.planner.compute_buffer import compute_bytes
from bendi.planner.devices import WORKER_BYTES, Devices
from bendi.planner.memory import checkpoint_bytes, kv_bytes
from bendi.planner.memory_setup import F32_BYTES, MemorySetup
from bendi.planner.plan import DeviceShare
from bendi.planner.subject import Subject

MAIN_MEMORY = "RAM"
_PIPELINE_COPIES = 4  # llama.cpp keeps so many copies of a graph's inputs when layers are split over GPUs


@dataclass(frozen=True)
class Placement:
    """Where the layers are. `gpus`: positions in `Devices.gpus`; `counts`: how many layers each of them gets, the last
    layers of the model, in order. `cpu_experts`: of how many layers, from the first, the experts are in main memory."""

    gpus: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    cpu_experts: int = 0
    n_ubatch: int = 512

    @property
    def gpu_layers(self) -> int:
        return sum(self.counts)

    def whole(self, layers: int) -> bool:
        """Whether all `layers` of the model are on GPUs, experts included."""
        return self.gpu_layers == layers and not self.cpu_experts


class Layout:
    """The bytes of one subject with one setup on the devices of one machine."""

    def __init__(self, subject: Subject, setup: MemorySetup, devices: Devices) -> None:
        layers = subject.layers.layers
        facts = subject.facts
        self.count = len(layers)
        self.setup = setup
        self._devices = devices
        self._layers = subject.layers
        caches = _cache_bytes(subject, setup)
        self._sizes = _sums(layer.size_bytes for layer in layers)
        self._experts = _sums(layer.expert_bytes for layer in layers)
        self._caches = _sums(caches)
        self._compute_bytes = compute_bytes(facts, setup)
        self._staged_bytes = max(caches, default=0) // max(setup.parallel, 1)
        self._largest_experts = max((layer.expert_bytes for layer in layers), default=0) * 2 // 3
        self._largest_rest = max((layer.size_bytes - layer.expert_bytes for layer in layers), default=0) // 2
        self._inputs_bytes = 2 * setup.n_ubatch * facts.embedding_length * F32_BYTES
        self._output_bytes = facts.vocab_size * F32_BYTES * setup.parallel + checkpoint_bytes(facts, setup)

    def weights_between(self, start: int, end: int, cpu_experts: int) -> int:
        """Of the layers from `start` to before `end`, without the experts of the first `cpu_experts` layers."""
        expert_end = min(max(cpu_experts, start), end)
        return self._sizes[end] - self._sizes[start] - (self._experts[expert_end] - self._experts[start])

    def compute_on_gpu(self, gpu_layers: int, cpu_experts: int, gpus: int) -> int:
        """A buffer on each GPU, with room for what is brought from main memory while a prompt is processed."""
        total_bytes = self._compute_bytes
        if gpu_layers < self.count:
            total_bytes += self._staged_bytes + max(self._largest_rest, self._largest_experts)
        elif cpu_experts:
            total_bytes += self._largest_experts
        return total_bytes + (_PIPELINE_COPIES * self._inputs_bytes if gpus > 1 else 0)

    def assign(self, gpus: Sequence[int], gpu_layers: int, cpu_experts: int) -> tuple[int, ...] | None:
        """How many layers each GPU gets: in proportion to its room, or, where that is too much for one, as many as each
        can hold. None when they do not fit."""
        compute = self.compute_on_gpu(gpu_layers, cpu_experts, len(gpus))
        rooms = [self._devices.gpus[at].budget_bytes - self._devices.gpus[at].fixed_bytes - compute for at in gpus]
        if min(rooms) < 0:
            return None
        start = self.count - gpu_layers
        needed = self._needed(start, self.count, cpu_experts) + self._layers.head.size_bytes
        if len(rooms) == 1:
            return (gpu_layers,) if needed <= rooms[0] else None
        limits = [needed * room // max(sum(rooms), 1) for room in rooms]
        return self._fill(start, cpu_experts, limits, rooms) or self._fill(start, cpu_experts, rooms, rooms)

    def host_weights(self, placement: Placement) -> int:
        """Bytes of weights in main memory."""
        start = self.count - placement.gpu_layers
        experts = max(min(placement.cpu_experts, self.count), start)
        total_bytes = self._layers.kept_bytes + self._sizes[start] + self._experts[experts] - self._experts[start]
        if not placement.counts and not self._layers.tied_head:
            total_bytes += self._layers.head.size_bytes
        return total_bytes

    def host_beside(self, placement: Placement) -> int:
        """Bytes in main memory that must stay there: caches, buffers and the worker."""
        return self.host_cache(placement) + self.host_compute(placement) + WORKER_BYTES

    def host_cache(self, placement: Placement) -> int:
        return self._caches[self.count - placement.gpu_layers]

    def host_compute(self, placement: Placement) -> int:
        return self._output_bytes + (self._inputs_bytes if placement.whole(self.count) else self._compute_bytes)

    def shared_bytes(self, placement: Placement) -> int:
        """What unified GPUs take of main memory."""
        shares = self.shares(placement)[1:]
        used = zip(placement.gpus, shares, strict=True)
        return sum(share.used_bytes for at, share in used if self._devices.gpus[at].unified)

    def room_for_weights(self, placement: Placement) -> int:
        """Bytes of main memory that remain for weights; negative when not even the rest fits."""
        unified = any(self._devices.gpus[at].unified for at in placement.gpus)
        shared = self.shared_bytes(placement) if unified else 0
        return self._devices.host_budget_bytes - shared - self.host_beside(placement)

    def shares(self, placement: Placement) -> tuple[DeviceShare, ...]:
        """Main memory first, then the GPUs in use."""
        gpu_shares = []
        at = self.count - placement.gpu_layers
        compute = self.compute_on_gpu(placement.gpu_layers, placement.cpu_experts, len(placement.gpus))
        for number, (gpu_at, layers) in enumerate(zip(placement.gpus, placement.counts, strict=True), 1):
            gpu = self._devices.gpus[gpu_at]
            weights = self.weights_between(at, at + layers, placement.cpu_experts)
            if number == len(placement.gpus):
                weights += self._layers.head.size_bytes
            gpu_shares.append(
                DeviceShare(
                    device=gpu.name,
                    layers=layers,
                    expert_layers=min(max(placement.cpu_experts - at, 0), layers),
                    weights_bytes=weights,
                    kv_bytes=self._caches[at + layers] - self._caches[at],
                    compute_bytes=compute,
                    fixed_bytes=gpu.fixed_bytes,
                    budget_bytes=gpu.budget_bytes,
                )
            )
            at += layers
        unified = [self._devices.gpus[at].unified for at in placement.gpus]
        shared = sum(share.used_bytes for share, is_shared in zip(gpu_shares, unified, strict=True) if is_shared)
        host = DeviceShare(
            device=MAIN_MEMORY,
            layers=self.count - placement.gpu_layers,
            expert_layers=0,
            weights_bytes=self.host_weights(placement),
            kv_bytes=self.host_cache(placement),
            compute_bytes=self.host_compute(placement),
            fixed_bytes=WORKER_BYTES,
            budget_bytes=max(self._devices.host_budget_bytes - shared, 0),
        )
        return (host, *gpu_shares)

    def _needed(self, start: int, end: int, cpu_experts: int) -> int:
        return self.weights_between(start, end, cpu_experts) + self._caches[end] - self._caches[start]

    def _most(self, start: int, cpu_experts: int, limit: int) -> int:
        """How many layers from `start` on take `limit` bytes at most."""
        most = self.count - start
        return largest_that(lambda layers: self._needed(start, start + layers, cpu_experts) <= limit, most)

    def _fill(
        self, start: int, cpu_experts: int, limits: Sequence[int], rooms: Sequence[int]
    ) -> tuple[int, ...] | None:
        """As many layers on each GPU as its limit allows; the last one gets the rest, if it has the room."""
        counts = []
        at = start
        for limit in limits[:-1]:
            counts.append(self._most(at, cpu_experts, limit))
            at += counts[-1]
        rest = self._needed(at, self.count, cpu_experts) + self._layers.head.size_bytes
        return (*counts, self.count - at) if rest <= rooms[-1] else None


def _sums(values: Iterable[int]) -> list[int]:
    return list(accumulate(values, initial=0))


def _cache_bytes(subject: Subject, setup: MemorySetup) -> list[int]:
    """KV cache and recurrent state of each layer."""
    facts = subject.facts
    recurrent = sum(layer.recurrent for layer in subject.layers.layers)
    state = facts.state_numbers * F32_BYTES * setup.parallel // recurrent if recurrent else 0
    known: dict[object, int] = {None: 0}
    total = []
    for layer in subject.layers.layers:
        if layer.cache not in known:
            only = (layer.cache,) if layer.cache else ()
            known[layer.cache] = kv_bytes(replace(facts, cache_layers=only), setup)
        total.append(known[layer.cache] + (state if layer.recurrent else 0))
    return total

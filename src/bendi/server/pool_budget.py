"""How large a model may be loaded: context and slots for the bytes that there are. Arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bendi.engines import LoadRequest
from bendi.engines.pooling import pooling, takes_whole_inputs
from bendi.engines.prepare import DEFAULT_CONTEXT_TOK, DEFAULT_INPUT_TOK, memory_setup
from bendi.engines.projector import read_projector
from bendi.formats import model_info, read_gguf_split
from bendi.planner import SYSTEM_RESERVE_BYTES, MemoryFacts, MemoryNeed, context_that_fits, memory_facts, memory_needed

Leaves = Literal["now", "later", "never"]
LEAST_CONTEXT_TOK = 4096
"""A model is not loaded with less in order to save others from being unloaded."""


@dataclass(frozen=True)
class ModelSize:
    """What decides the memory that a model takes. `train_tok`: the longest context that it was trained for.
    `makes_vectors`, `whole_inputs`: for models that write no text, see `engines.pooling`. `projector_bytes`: of a model
    that sees images."""

    memory: MemoryFacts
    train_tok: int
    makes_vectors: bool = False
    whole_inputs: bool = False
    projector_bytes: int = 0

    @property
    def default_tok(self) -> int:
        """Where nobody asks for more: as `bendi run`."""
        return min(DEFAULT_INPUT_TOK if self.whole_inputs else DEFAULT_CONTEXT_TOK, self.train_tok)

    def bytes_for(self, load: LoadRequest, context_tok: int, slots: int = 1) -> int:
        return self.need(load, context_tok, slots).total_bytes + self.projector_bytes

    def need(self, load: LoadRequest, context_tok: int, slots: int = 1) -> MemoryNeed:
        setup = memory_setup(replace(load, parallel=slots), context_tok, self.makes_vectors, self.whole_inputs)
        return memory_needed(self.memory, setup)

    def longest_tok(self, usable_bytes: int, weights_bytes: int) -> int:
        """The longest context that fits, 0 for none."""
        return context_that_fits(self.memory, usable_bytes, weights_bytes, whole_inputs=self.whole_inputs)


def model_size(load: LoadRequest) -> ModelSize:
    """Reads the headers. Raises as `read_gguf_split`, and ModelFileError when the model cannot do what is wanted."""
    headers = read_gguf_split(load.model_path)
    facts = memory_facts(*headers)
    pooled = pooling(load, headers)
    train_tok = model_info(*headers).context_length or DEFAULT_CONTEXT_TOK
    projector_bytes = read_projector(load.mmproj_path).memory_bytes if load.mmproj_path else 0
    return ModelSize(facts, train_tok, bool(pooled), takes_whole_inputs(pooled, headers, facts), projector_bytes)


@dataclass(frozen=True)
class Want:
    """`load`: what is wanted in any case. `context_tok`: what requests ask for, None for the usual. `most_slots`: as
    many as there may be."""

    load: LoadRequest
    context_tok: int | None
    most_slots: int


@dataclass(frozen=True)
class Fit:
    """How a model is loaded. `context_tok`: of each of `slots` conversations. `total_bytes`: what that takes."""

    context_tok: int
    slots: int
    total_bytes: int


@dataclass(frozen=True)
class Holder:
    """A model that holds memory. `planned_bytes`: what it takes by plan; `private_bytes`: what of it the system counts
    as used already, which mapped weights are not. `leaves`: when it may, `"later"` while answers are running."""

    planned_bytes: int
    private_bytes: int
    leaves: Leaves

    @property
    def still_to_come_bytes(self) -> int:
        return max(self.planned_bytes - self.private_bytes, 0)


@dataclass(frozen=True)
class Purse:
    """The memory for models. `usable_bytes`: what the system would give now; `limit_bytes`: of all models together."""

    usable_bytes: int
    limit_bytes: int | None
    holders: Sequence[Holder]

    def room_bytes(self, without: Sequence[Holder] = ()) -> int:
        """For one more model, after the holders in `without` have gone."""
        staying = [holder for holder in self.holders if not any(holder is gone for gone in without)]
        freed_bytes = sum(holder.private_bytes for holder in without)
        promised_bytes = sum(holder.still_to_come_bytes for holder in staying)
        room_bytes = self.usable_bytes + freed_bytes - promised_bytes - SYSTEM_RESERVE_BYTES
        if self.limit_bytes is not None:
            room_bytes = min(room_bytes, self.limit_bytes - sum(holder.planned_bytes for holder in staying))
        return max(room_bytes, 0)


@dataclass(frozen=True)
class Decision:
    """`fit` None: it cannot be loaded while those stay that may not leave. `leaving`: who must go first, in this order;
    some of them may still have to end their answers."""

    fit: Fit | None
    leaving: tuple[Holder, ...] = ()


def decide(size: ModelSize, want: Want, purse: Purse) -> Decision:
    """Who must leave for a model, and how large it may be.

    In this order: beside all others; instead of idle ones, as few as possible of those that were used longest ago (the
    order of `purse.holders`); with a shorter context, unless one is asked for; instead of busy ones, when they have
    ended; alone and larger than memory, its weights read from the file all the time, unless there is a limit.
    """
    idle = [holder for holder in purse.holders if holder.leaves == "now"]
    busy = [holder for holder in purse.holders if holder.leaves == "later"]
    for count in range(len(idle) + 1):
        fit = largest_fit(size, want, purse.room_bytes(idle[:count]))
        if fit:
            return Decision(fit, tuple(idle[:count]))
    shorter = _shorter(size, want, purse.room_bytes(idle))
    if shorter and shorter.context_tok >= min(LEAST_CONTEXT_TOK, size.train_tok):
        return Decision(shorter, tuple(idle))
    for count in range(1, len(busy) + 1):
        leaving = [*idle, *busy[:count]]
        fit = largest_fit(size, want, purse.room_bytes(leaving))
        if fit:
            return Decision(fit, tuple(leaving))
    everyone = [*idle, *busy]
    fit = _shorter(size, want, purse.room_bytes(everyone))
    if not fit and len(everyone) == len(purse.holders) and purse.limit_bytes is None:
        fit = _larger_than_memory(size, want, purse.room_bytes(everyone))
    return Decision(fit, tuple(everyone)) if fit else Decision(None)


def largest_fit(size: ModelSize, want: Want, room_bytes: int) -> Fit | None:
    """The context that is wanted, with as many slots as there is room for; None without room for one."""
    context_tok = wanted_tok(size, want)
    for slots in range(want.most_slots, 0, -1):
        total_bytes = size.bytes_for(want.load, context_tok, slots)
        if total_bytes <= room_bytes:
            return Fit(context_tok, slots, total_bytes)
    return None


def wanted_tok(size: ModelSize, want: Want) -> int:
    """Never more than the model was trained for."""
    return min(want.context_tok or size.default_tok, size.train_tok)


def _shorter(size: ModelSize, want: Want, room_bytes: int) -> Fit | None:
    if want.context_tok:
        return None
    # The reserve is in the room already.
    context_tok = size.longest_tok(room_bytes + SYSTEM_RESERVE_BYTES, size.memory.weights_bytes)
    shorter = replace(want, context_tok=min(context_tok, wanted_tok(size, want)), most_slots=1)
    return largest_fit(size, shorter, room_bytes) if context_tok else None


def _larger_than_memory(size: ModelSize, want: Want, room_bytes: int) -> Fit | None:
    # At least half of the memory is for what cannot be paged out, as in `engines.prepare`.
    if size.memory.weights_bytes <= room_bytes // 2:
        return None
    usable_bytes = room_bytes + SYSTEM_RESERVE_BYTES
    fitting_tok = size.longest_tok(usable_bytes, usable_bytes // 2)
    context_tok = wanted_tok(size, want) if want.context_tok else min(fitting_tok, wanted_tok(size, want))
    if not fitting_tok or size.need(want.load, context_tok).beside_weights_bytes > room_bytes:
        return None
    return Fit(context_tok, 1, size.bytes_for(want.load, context_tok))

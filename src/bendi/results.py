"""The nouns of a study of speed and energy: what was measured, how, and what it says. Data only.

A study is a number of cells; each is measured in several blocks, and what one block gives for one cell is a repeat: the
independent unit of all statistics. A repeat holds its answers, token by token as they arrived, and the energy of the
same window. How records are written to a file: `bench/journal.py`; how they are shown: `report/`.

Times are in seconds. Where nothing was measured a value is None and a reason is given; nothing is ever made up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

RESULTS_SCHEMA = 1
"""Of the records in a results file."""
SHORTEST_WRITING_S = 0.01
"""Of an answer whose speed is told. Who asks is woken up to some milliseconds late and then finds several tokens at
once: 8 tokens of a model with 2,900 tok/s showed between 1,800 and 194,000 tok/s."""

Tier = Literal["wall", "counter", "sampled", "declared", "bound", "none"]
"""Where a figure of energy comes from, the best first: a meter at the wall; a counter of energy in the hardware; power
read at a fixed period; what the user says; an upper bound (never a point); nothing."""

TIERS: tuple[Tier, ...] = ("wall", "counter", "sampled", "declared", "bound", "none")

Cache = Literal["fresh", "warm"]
"""Whether prompts begin with something new, so that no engine has computed them before, or are repeated on purpose."""


@dataclass(frozen=True)
class Workload:
    """What is asked. `prompt_tok`: new tokens of each prompt, about so many where an engine takes only text; what
    really was computed stands in each answer. `depth_tok`: tokens of an earlier conversation that stand before them.
    `answer_tok`: tokens of each answer, which the end of a turn does not shorten. `turns`: above 1 a conversation,
    each turn with a prompt of that size after all that came before. `requests`: how many are timed in one repeat.
    `text`: real prompts instead of words without a pattern, by the name of a collection."""

    name: str
    prompt_tok: int
    answer_tok: int
    depth_tok: int = 0
    turns: int = 1
    requests: int = 1
    text: str = ""


@dataclass(frozen=True)
class Cell:
    """One combination that is measured. `settings`: what the engine is asked for, by the names of `LoadRequest` or of
    the engine's own options; the same names for all engines where they mean the same."""

    model: str
    quantization: str
    engine: str
    workload: Workload
    settings: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 1
    cache: Cache = "fresh"

    @property
    def configuration(self) -> str:
        """A name for model, quantization, engine and settings: what is loaded at once, and correct or not."""
        return _digest([self.model, self.quantization, self.engine, dict(self.settings)])

    @property
    def key(self) -> str:
        """A name for the whole combination, the same in every run."""
        return _digest([self.configuration, asdict(self.workload), self.concurrency, self.cache])

    @property
    def settings_text(self) -> str:
        return " ".join(f"{name}={value}" for name, value in sorted(self.settings.items()))


@dataclass(frozen=True)
class Energy:
    """Of one meter over the window of one repeat.

    `covers`: what the meter sees, such as `("gpu board",)` or `("cpu package", "dram")` or `("wall",)`. `gross_j`: all
    of it, None where it could not be had; then `reason` is a code of `energy/reasons.py`. `idle_w`: what the meter
    showed while nothing ran, before and after. `flags`: codes of what makes the figure doubtful.
    """

    meter: str
    tier: Tier
    covers: tuple[str, ...] = ()
    window_s: float = 0.0
    gross_j: float | None = None
    idle_w: float | None = None
    reason: str = ""
    flags: tuple[str, ...] = ()

    @property
    def net_j(self) -> float | None:
        """Without what would have been used by doing nothing; None where either is not known."""
        if self.gross_j is None or self.idle_w is None:
            return None
        return self.gross_j - self.idle_w * self.window_s

    @property
    def mean_w(self) -> float | None:
        return None if self.gross_j is None or self.window_s <= 0 else self.gross_j / self.window_s


@dataclass(frozen=True)
class Answer:
    """One request as the client saw it, and as the engine says.

    `started_s`: since the window began. `arrivals_s`: since `started_s`, when text came; `arrival_tok`: how many tokens
    came then, where that is known, else empty. `ended_s`: when the last word of the engine came.
    `prompt_tok`, `completion_tok`: by the engine's own count. `cached_tok`: of the prompt, not computed again; None
    where the engine does not say. `server_pp_tok_s`, `server_tg_tok_s`, `server_ttft_s`: by the engine's clock.
    `text_sha256`: of the text, to see whether two engines wrote the same.
    """

    started_s: float
    ended_s: float
    arrivals_s: tuple[float, ...]
    prompt_tok: int
    completion_tok: int
    finish: str
    arrival_tok: tuple[int, ...] = ()
    cached_tok: int | None = None
    server_pp_tok_s: float | None = None
    server_tg_tok_s: float | None = None
    server_ttft_s: float | None = None
    text_sha256: str = ""

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token: to the first piece that has text."""
        return self.arrivals_s[0] if self.arrivals_s else None

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: from the first piece to the last one. None where that is too short a
        time to be told from the delays of this process."""
        later_tok = self.completion_tok - self.first_tok
        if later_tok < 1 or self.writing_s < SHORTEST_WRITING_S:
            return None
        return self.writing_s / later_tok

    @property
    def writing_s(self) -> float:
        """From the first piece to the last one."""
        return self.arrivals_s[-1] - self.arrivals_s[0] if self.arrivals_s else 0.0

    @property
    def first_tok(self) -> int:
        """Tokens of the first piece."""
        return self.arrival_tok[0] if self.arrival_tok else 1

    @property
    def computed_tok(self) -> int:
        """Tokens of the prompt that were computed, as far as is known."""
        return self.prompt_tok - (self.cached_tok or 0)


@dataclass(frozen=True)
class Repeat:
    """What one block gave for one cell.

    `began_s`: since the epoch. `order`: its place in the block. `window_s`: from the first request to the last word of
    the last answer, what energy and throughput refer to. `warmed_up`: requests before, and whether their speed had
    become steady. `load_s`: of the engine, if it was loaded for this repeat. `peak_memory_bytes`: of its processes.
    `client_lag_s`: the worst delay of the client's own clock in the window: what of the times may be its fault.
    `slowness`: above 1 something else ran on this machine meanwhile. `before`, `after`: temperatures, clocks, throttle
    reasons, by name, where the machine shows them.
    """

    cell: str
    block: int
    order: int
    began_s: float
    window_s: float
    answers: tuple[Answer, ...]
    energy: tuple[Energy, ...] = ()
    warmed_up: int = 0
    steady: bool = True
    load_s: float | None = None
    peak_memory_bytes: int | None = None
    client_lag_s: float = 0.0
    slowness: float | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pp_tok_s(self) -> float | None:
        """Prompt tokens computed per second until the first token, as a user sees it: a ratio of sums."""
        pairs = [(each.computed_tok, each.ttft_s) for each in self.answers if each.ttft_s]
        seconds = sum(ttft_s or 0.0 for _tok, ttft_s in pairs)
        return sum(tok for tok, _s in pairs) / seconds if seconds > 0 else None

    @property
    def tg_tok_s(self) -> float | None:
        """Tokens per second after the first, of one answer: a ratio of sums."""
        timed = [each for each in self.answers if each.tpot_s]
        seconds = sum(each.writing_s for each in timed)
        return sum(each.completion_tok - each.first_tok for each in timed) / seconds if seconds > 0 else None

    @property
    def ttft_s(self) -> float | None:
        return _mean([each.ttft_s for each in self.answers])

    @property
    def tpot_s(self) -> float | None:
        return None if self.tg_tok_s is None else 1 / self.tg_tok_s

    @property
    def is_too_short(self) -> bool:
        """Several tokens were written, in too short a time to tell how fast."""
        return self.tg_tok_s is None and any(each.completion_tok > 1 for each in self.answers)

    @property
    def request_s(self) -> float | None:
        return _mean([each.ended_s - each.started_s for each in self.answers])

    @property
    def server_pp_tok_s(self) -> float | None:
        return _rate([(each.computed_tok, each.server_pp_tok_s) for each in self.answers])

    @property
    def server_tg_tok_s(self) -> float | None:
        return _rate([(each.completion_tok - each.first_tok, each.server_tg_tok_s) for each in self.answers])

    @property
    def output_tok(self) -> int:
        return sum(each.completion_tok for each in self.answers)

    @property
    def input_tok(self) -> int:
        return sum(each.prompt_tok for each in self.answers)

    @property
    def throughput_tok_s(self) -> float | None:
        """Tokens of all answers per second of the window."""
        return self.output_tok / self.window_s if self.window_s > 0 else None

    @property
    def cached_tok(self) -> int | None:
        known = [each.cached_tok for each in self.answers if each.cached_tok is not None]
        return sum(known) if known else None

    def joules_per_token(self, energy: Energy) -> float | None:
        """Gross energy of the window for each token written in it: total over total, not a mean of ratios."""
        return energy.gross_j / self.output_tok if energy.gross_j is not None and self.output_tok else None


@dataclass(frozen=True)
class Check:
    """Whether a configuration answers as it should. `verdict`: `"ok"`, `"garbage"` (shown, never ranked) or
    `"unchecked"`. `texts`: what it answered to the questions of the check. `agreement`: how much of them, up to the
    first difference, is what the configuration `reference` answered; None where there is no such one."""

    configuration: str
    verdict: Literal["ok", "garbage", "unchecked"]
    reason: str = ""
    agreement: float | None = None
    reference: str = ""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedEngine:
    """What really ran. `asked`: the settings; `verified`: those of them that the engine confirmed, as it says them;
    `differing`: names of those that it did not take."""

    configuration: str
    engine: str
    version: str
    build: str
    model_sha256: str
    model_bytes: int
    asked: Mapping[str, Any] = field(default_factory=dict)
    verified: Mapping[str, Any] = field(default_factory=dict)
    differing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A repeat that could not be had. `final`: the cell is not tried again."""

    cell: str
    block: int
    reason: str
    final: bool = False


@dataclass(frozen=True)
class Prediction:
    """What bendi's planner said of a cell before it was measured. `error`: relative."""

    cell: str
    pp_tok_s: float
    tg_tok_s: float
    memory_bytes: int
    error: float


@dataclass(frozen=True)
class StudyFacts:
    """`study_id`: a name of this run of the study. `text`: the study file. `machine`: as `bendi doctor --json` tells
    it. `created_s`: since the epoch."""

    study_id: str
    title: str
    text: str
    created_s: float
    blocks: int
    seed: int
    bendi: str
    machine: Mapping[str, Any]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Results:
    """All that is known of one study."""

    facts: StudyFacts
    repeats: tuple[Repeat, ...] = ()
    checks: tuple[Check, ...] = ()
    engines: tuple[LoadedEngine, ...] = ()
    failures: tuple[Failure, ...] = ()
    predictions: tuple[Prediction, ...] = ()

    @property
    def cells(self) -> Mapping[str, Cell]:
        return {cell.key: cell for cell in self.facts.cells}

    def of(self, cell: Cell) -> tuple[Repeat, ...]:
        """The repeats of a cell, in the order of their blocks."""
        return tuple(sorted((each for each in self.repeats if each.cell == cell.key), key=lambda each: each.block))

    def check_of(self, cell: Cell) -> Check | None:
        return next((each for each in reversed(self.checks) if each.configuration == cell.configuration), None)

    def engine_of(self, cell: Cell) -> LoadedEngine | None:
        return next((each for each in reversed(self.engines) if each.configuration == cell.configuration), None)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rate(pairs: list[tuple[int, float | None]]) -> float | None:
    """Tokens per second of all together, from the tokens and the rate of each."""
    seconds = sum(tok / rate for tok, rate in pairs if rate)
    return sum(tok for tok, rate in pairs if rate) / seconds if seconds > 0 else None

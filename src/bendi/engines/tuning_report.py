"""What a search for the fastest settings of one model has found, as data and as text to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from bendi.engines.paired import Speedup
from bendi.engines.protocol import LoadRequest
from bendi.engines.worker_config import BATCH_TOK
from bendi.errors import StoreError
from bendi.i18n import _
from bendi.planner.plan import WORKLOADS, Workload

SCHEMA = 1
_BATCHES_TOK = range(32, 4097)
_MOST_THREADS = 4096

Verdict = Literal["faster", "not faster", "slower", "failed", "no time"]


@dataclass(frozen=True)
class Tuned:
    """Settings of a load that change its speed and, but for rounding, not what it answers.

    `threads`: 0 for as many as the engine chooses; `prompt_threads`: 0 for as many as `threads`. `flash_attention`:
    None for wherever it works. `repack`: False where the engine must not keep its own copy of the weights. `batch_tok`:
    tokens of a prompt computed at once. `keep_to_cores`: no two threads share a physical core; `spread_numa`: they are
    spread over all NUMA nodes. `engine`: a build other than the one in use; empty for that one.
    """

    threads: int = 0
    prompt_threads: int = 0
    flash_attention: bool | None = None
    repack: bool = True
    batch_tok: int = BATCH_TOK
    engine: str = ""
    keep_to_cores: bool = False
    spread_numa: bool = False

    def applied(self, load: LoadRequest) -> LoadRequest:
        """`load` with these settings wherever it leaves them open."""
        if load.threads is None:
            load = replace(load, threads=self.threads or None, prompt_threads=self.prompt_threads or None)
        if load.flash_attention is None:
            load = replace(load, flash_attention=self.flash_attention)
        if load.repack is None and not self.repack:
            load = replace(load, repack=False)
        if self.keep_to_cores:
            load = replace(load, keep_to_cores=True)
        if self.spread_numa:
            load = replace(load, spread_numa=True)
        return replace(load, batch_tok=load.batch_tok or self.batch_tok)


@dataclass(frozen=True)
class Sample:
    """One timed request: seconds for each token of its prompt, and for each token of its answer."""

    prompt_token_s: float
    answer_token_s: float

    def request_s(self, workload: Workload) -> float:
        """Of a whole request of that kind, at these speeds."""
        return workload.prompt_tok * self.prompt_token_s + workload.answer_tok * self.answer_token_s


@dataclass(frozen=True)
class Trial:
    """One comparison. `setting`, `value`: what was changed, the value as people read it. `tuned`: all settings that
    were tried, `against`: those they were compared with. `speed`: how many times as fast requests are; None where
    nothing was measured. Rates are medians. `retaken`: pairs measured again, since something else was running.
    `reason`: why it failed, translated."""

    setting: str
    value: str
    tuned: Tuned
    against: Tuned
    verdict: Verdict
    pairs: int = 0
    retaken: int = 0
    pp_tok_s: float | None = None
    tg_tok_s: float | None = None
    against_pp_tok_s: float | None = None
    against_tg_tok_s: float | None = None
    speed: Speedup | None = None
    reason: str = ""


@dataclass(frozen=True)
class Shape:
    """What was timed: a prompt of `prompt_tok` tokens and an answer of `answer_tok`, after `depth_tok` tokens."""

    depth_tok: int
    prompt_tok: int
    answer_tok: int


@dataclass(frozen=True)
class Answers:
    """How far the probabilities of the next token are from those with the default settings, at most, in nats: their
    Kullback-Leibler divergence, and the logarithm of one token's; None where there were no such numbers. `tolerable`:
    no farther than a native build may be from the wheel (`native_proof`)."""

    kl: float | None
    logprob: float | None
    tolerable: bool


@dataclass(frozen=True)
class TuningReport:
    """The result of one search. `model`: its name, for people. `build`: the engine build in use, to which the settings
    belong. `kv_type`: of keys and values. `default`: what is used without tuning; `chosen`: what is used from now on,
    the default itself where nothing is faster. `trials`: in their order. `final`: the chosen settings against the
    default, measured afresh; None where nothing was found. `answers`: None where they could not be compared."""

    model: str
    model_key: str
    machine: str
    build: str
    kv_type: str
    workload: str
    shape: Shape
    default: Tuned
    chosen: Tuned
    trials: tuple[Trial, ...]
    final: Trial | None
    answers: Answers | None
    measured_at: str
    took_s: float
    disturbed_share: float = 0.0

    @property
    def gained(self) -> bool:
        return self.chosen != self.default

    @property
    def use(self) -> Workload:
        return WORKLOADS[self.workload]


def to_json(report: TuningReport) -> str:
    """The report as text, for `from_json`."""
    return json.dumps({"schema": SCHEMA, **asdict(report)})


def from_json(text: str) -> TuningReport:
    """Raises StoreError when the text is not of this version of bendi."""
    try:
        table: dict[str, Any] = json.loads(text)
        if table.pop("schema") != SCHEMA or table["workload"] not in WORKLOADS:
            raise ValueError("schema")
        trials = tuple(map(_trial, table.pop("trials")))
        final, answers = table.pop("final"), table.pop("answers")
        return TuningReport(
            shape=Shape(**table.pop("shape")),
            default=_tuned(table.pop("default")),
            chosen=_tuned(table.pop("chosen")),
            trials=trials,
            final=_trial(final) if final else None,
            answers=Answers(**answers) if answers else None,
            **table,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            _("The stored settings cannot be used: {error}").format(error=error),
            hint=_("Find them again: {command}").format(command="bendi tune MODEL"),
        ) from error


def _trial(row: Mapping[str, Any]) -> Trial:
    fields = dict(row)
    speed = fields.pop("speed")
    tuned, against = _tuned(fields.pop("tuned")), _tuned(fields.pop("against"))
    return Trial(tuned=tuned, against=against, speed=Speedup(**speed) if speed else None, **fields)


def _tuned(row: Mapping[str, Any]) -> Tuned:
    """Checked, since an engine is started with it."""
    found = Tuned(**row)
    sound = (
        isinstance(found.threads, int)
        and isinstance(found.prompt_threads, int)
        and 0 <= found.threads <= _MOST_THREADS
        and 0 <= found.prompt_threads <= _MOST_THREADS
        and found.flash_attention in (None, True, False)
        and isinstance(found.repack, bool)
        and isinstance(found.batch_tok, int)
        and found.batch_tok in _BATCHES_TOK
        and isinstance(found.engine, str)
        and isinstance(found.keep_to_cores, bool)
        and isinstance(found.spread_numa, bool)
    )
    if not sound:
        raise ValueError("settings")
    return found

"""One repeat: warm up until the speed is steady, then a window in which only the timed requests run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

from bendi.bench import gate
from bendi.bench.asking import Told, Watch, ask, ask_together, together
from bendi.bench.prompts import Prompts, Ruler
from bendi.bench.study import Care
from bendi.energy import IdleNeed, with_idle
from bendi.engines.pace import Pace
from bendi.engines.peer_process import peak_memory_bytes
from bendi.engines.peer_types import PeerEngine
from bendi.engines.protocol import Engine
from bendi.messages import GenerateRequest, Message, Sampling
from bendi.results import Answer, Cell, Energy, Repeat

_STEADY_OVER = 3
_OVERLAPPING_TOK = 16
"""So long answers begin before the first of them ends."""
_SHORT_CHARS = 120
_LEAST_SAMPLE_TOK, _MOST_SAMPLE_TOK = 200, gate.CONTEXT_TOK - 64
"""Of the text by which the length of tokens is found out; it fits into the smallest context."""
_GREEDY = Sampling(temperature=0.0, seed=1)
_THERMAL = "sys/class/thermal"
_CPUS = "sys/devices/system/cpu"


class EnergySource(Protocol):
    """Meters that are read all the time (`energy.Sampler`)."""

    def mark(self) -> float:
        """Now, by `time.monotonic`, for the edge of a window."""

    def energy(self, begin_s: float, end_s: float) -> tuple[Energy, ...]:
        """Of the window between two marks."""

    def forget(self, before_s: float) -> None:
        """No window that begins sooner will be asked for."""

    def idle_needs(self) -> Sequence[IdleNeed]:
        """Of each meter that measures."""


def idle_for(care: Care, needs: Sequence[IdleNeed]) -> float:
    """How long nothing runs before each engine, in seconds: as the study says, else as the slowest meter needs."""
    return max((need.wanted_s for need in needs), default=0.0) if care.idle_s is None else care.idle_s


def too_short_for(care: Care, needs: Sequence[IdleNeed]) -> list[IdleNeed]:
    """Those that cannot tell the power of doing nothing in the time that the study gives them."""
    return [need for need in needs if care.idle_s and care.idle_s < need.least_s]


@dataclass
class Place:
    """Where and how repeats are measured."""

    care: Care
    seed: int
    folder: Path
    pace: Pace | None = None
    meters: EnergySource | None = None
    _idle: tuple[Energy, ...] = ()
    _hopeless: bool = False
    _ended_s: float | None = None

    @property
    def idle_s(self) -> float:
        """0 where there is nothing to learn from it."""
        if self.meters is None or self._hopeless:
            return 0.0
        return idle_for(self.care, self.meters.idle_needs())

    def idle(self) -> None:
        """Nothing runs for a while: what the meters show then is no work's. Told again before each engine."""
        wanted_s = self.idle_s
        if self.meters is None or not wanted_s:
            return
        begin_s = self.meters.mark()
        time.sleep(wanted_s)
        shown = self.meters.energy(begin_s, self.meters.mark())
        if any(each.gross_j is not None for each in shown):
            self._idle = shown
        elif self.care.idle_s is not None:
            self._hopeless = True  # no meter has a figure in the time that is given

    def mark(self) -> float:
        return self.meters.mark() if self.meters else time.monotonic()

    def energy(self, begin_s: float, end_s: float) -> tuple[Energy, ...]:
        """Of a window, with the power of doing nothing before it."""
        if self.meters is None:
            return ()
        self._ended_s = end_s
        return with_idle(self.meters.energy(begin_s, end_s), [self._idle])

    def forget(self) -> None:
        """What was read before the end of the last window: its repeat is kept, and no later window needs it."""
        if self.meters is not None and self._ended_s is not None:
            self.meters.forget(self._ended_s)


@dataclass(frozen=True)
class Turn:
    """What is measured: `cell` in `block`, as number `order` of it. `vocab_size`: see `Prompts`."""

    cell: Cell
    block: int
    order: int
    vocab_size: int | None
    load_s: float | None


def measure(engine: Engine, turn: Turn, place: Place, ruler: Ruler) -> Repeat:
    """Raises EngineError."""
    cell, care = turn.cell, place.care
    prompts = Prompts(cell, turn.block, place.seed, turn.vocab_size, ruler, place.folder)
    with Watch(engine, care.timeout_s) as watch:
        runner = _Runner(engine, cell, prompts, watch)
        if not prompts.in_tokens and not ruler.known:
            runner.fit(ruler)
        warmed_up, steady = _warm_up(runner, care)
        runner.prepare()
        slow_before = place.pace.look() if place.pace else None
        before = conditions()
        began_wall_s = time.time()
        watch.reset()
        began_s = place.mark()
        told = runner.timed(began_s)
        ended_s = place.mark()
        lag_s = watch.lag_s
        slowness = None
        if place.pace and slow_before:
            slowness = round(place.pace.slowness(slow_before, place.pace.look()), 4)
    return Repeat(
        cell=cell.key,
        block=turn.block,
        order=turn.order,
        began_s=began_wall_s,
        window_s=ended_s - began_s,
        answers=tuple(each.answer for each in told),
        energy=place.energy(began_s, ended_s),
        warmed_up=warmed_up,
        steady=steady,
        load_s=turn.load_s,
        peak_memory_bytes=_peak_bytes(engine, watch),
        client_lag_s=round(lag_s, 6),
        slowness=slowness,
        before=before,
        after=conditions(),
    )


def _peak_bytes(engine: Engine, watch: Watch) -> int | None:
    """The most that the processes of the engine had in memory; None where they are not known."""
    if isinstance(engine, PeerEngine):
        return peak_memory_bytes(engine.pids) if engine.pids else None
    return watch.peak_bytes or None


class _Runner:
    """The requests of one repeat."""

    def __init__(self, engine: Engine, cell: Cell, prompts: Prompts, watch: Watch) -> None:
        self._engine, self._cell, self._prompts, self._watch = engine, cell, prompts, watch
        self._work = cell.workload
        self._requests: list[GenerateRequest] = []
        self._talks: list[list[Message]] = []

    def fit(self, ruler: Ruler) -> None:
        """Finds out how many tokens texts of this kind have: roughly, then with a text as long as may be. The
        difference of two, so that what the engine adds to each does not count."""
        counts: dict[int, int] = {}
        short = _SHORT_CHARS
        counts[short] = self._count(short)
        ruler.learn(short, counts[short])
        most = ruler.chars(min(max(self._work.prompt_tok, _LEAST_SAMPLE_TOK), _MOST_SAMPLE_TOK))
        if most > 2 * short:
            counts[most] = self._count(most)
            ruler.learn(most - short, counts[most] - counts[short])

    def _count(self, chars: int) -> int:
        """Tokens of a sample."""
        request = GenerateRequest(prompt=self._prompts.sample(chars), max_tokens=1, sampling=_GREEDY)
        return ask(self._engine, request, time.monotonic(), self._watch).answer.prompt_tok

    def once(self) -> list[Answer]:
        """Untimed requests of the same kind, as many at once as will be."""
        count = self._cell.concurrency
        if self._work.turns > 1:
            talks = [[self._prompts.said(warm_up=True)] for _ in range(count)]
            return [each.answer for each in self._talk(talks, time.monotonic())]
        self._hold_past()
        requests = [self._request(warm_up=True) for _ in range(count)]
        return [each.answer for each in self._ask(requests, time.monotonic())]

    def prepare(self) -> None:
        """What must be there before the window: what will be asked, the tokens of the depth, and for a warm cache the
        prompts."""
        count = self._work.requests * self._cell.concurrency
        if self._work.turns > 1:
            self._talks = [[self._prompts.said() for _ in range(self._work.turns)] for _ in range(count)]
            return
        self._requests = [self._request() for _ in range(count)]
        self._hold_past()
        if self._cell.cache == "warm":
            self._ask(self._requests, time.monotonic())

    def timed(self, began_s: float) -> list[Told]:
        """Of conversations, all turns of the first one, then all of the next."""
        return self._talk(self._talks, began_s) if self._work.turns > 1 else self._ask(self._requests, began_s)

    def _request(self, *, warm_up: bool = False) -> GenerateRequest:
        return self._prompts.next(warm_up=warm_up).request(self._work.answer_tok)

    def _ask(self, requests: Sequence[GenerateRequest], began_s: float) -> list[Told]:
        return ask_together(self._engine, requests, self._cell.concurrency, began_s, self._watch)

    def _hold_past(self) -> None:
        """In the cache of each conversation that the engine holds at once: answers long enough to overlap take one
        each."""
        if not self._work.depth_tok:
            return
        count = self._cell.concurrency
        request = self._prompts.past().request(1 if count == 1 else _OVERLAPPING_TOK)
        self._ask([request] * count, time.monotonic())

    def _talk(self, talks: Sequence[Sequence[Message]], began_s: float) -> list[Told]:
        """Conversations, as many at once as will be."""
        tasks = [partial(self._conversation, said, began_s) for said in talks]
        return [told for each in together(tasks, self._cell.concurrency, self._watch) for told in each]

    def _conversation(self, said: Sequence[Message], began_s: float) -> list[Told]:
        messages: list[Message] = []
        found = []
        for message in said:
            messages.append(message)
            request = GenerateRequest(
                messages=tuple(messages), max_tokens=self._work.answer_tok, ignore_end=True, sampling=_GREEDY
            )
            told = ask(self._engine, request, began_s, self._watch)
            messages.append(Message("assistant", told.text))
            found.append(told)
        return found


def _warm_up(runner: _Runner, care: Care) -> tuple[int, bool]:
    """How many times it took, and whether the last ones were alike."""
    rates: list[float] = []
    while len(rates) < care.warm_up_most:
        answers = runner.once()
        took_s = max(each.ended_s for each in answers) - min(each.started_s for each in answers)
        rates.append(sum(each.completion_tok for each in answers) / max(took_s, 1e-9))
        if len(rates) >= care.warm_up_least and _variation(rates) <= care.steady_cv:
            return len(rates), True
    return len(rates), not rates or _variation(rates) <= care.steady_cv


def _variation(rates: list[float]) -> float:
    """The coefficient of variation of the last ones; infinite where there are too few to say."""
    last = rates[-_STEADY_OVER:]
    return stdev(last) / fmean(last) if len(last) >= 2 else float("inf")


def conditions(root: Path = Path("/")) -> dict[str, Any]:
    """Temperatures in degrees Celsius, the mean clock of the cores in MHz, how often they were throttled since boot,
    and the load of the last minute, as far as Linux shows them."""
    found: dict[str, Any] = {}
    temperatures = [
        value / 1000 for zone in sorted((root / _THERMAL).glob("thermal_zone*")) if (value := _number(zone / "temp"))
    ]  # fmt: skip
    if temperatures:
        found["temperature_max_c"] = max(temperatures)
    clocks = [
        value / 1000 for cpu in (root / _CPUS).glob("cpu[0-9]*/cpufreq") if (value := _number(cpu / "scaling_cur_freq"))
    ]
    if clocks:
        found["clock_mean_mhz"] = round(fmean(clocks), 1)
    throttled = [_number(path) for path in (root / _CPUS).glob("cpu[0-9]*/thermal_throttle/package_throttle_count")]
    known = [count for count in throttled if count is not None]
    if known:
        found["throttle_count"] = max(known)
    with suppress(OSError, ValueError, IndexError):
        found["load_1min"] = float((root / "proc/loadavg").read_text().split()[0])
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None

"""One repeat: warm up until the speed is steady, then a window in which only the timed requests run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

from bendi.bench.asking import Told, Watch, ask, ask_together
from bendi.bench.prompts import Prompts, Ruler
from bendi.bench.study import Care
from bendi.energy import with_idle
from bendi.engines.pace import Pace
from bendi.engines.peer_process import peak_memory_bytes
from bendi.engines.peer_types import PeerEngine
from bendi.engines.protocol import Engine
from bendi.messages import GenerateRequest, Message, Sampling
from bendi.results import Answer, Cell, Energy, Repeat

_STEADY_OVER = 3
_THERMAL = "sys/class/thermal"
_CPUS = "sys/devices/system/cpu"


class EnergySource(Protocol):
    """Meters that are read all the time (`energy.Sampler`)."""

    def mark(self) -> float:
        """Now, by `time.monotonic`, for the edge of a window."""

    def energy(self, begin_s: float, end_s: float) -> tuple[Energy, ...]:
        """Of the window between two marks."""


@dataclass
class Place:
    """Where and how repeats are measured."""

    care: Care
    seed: int
    folder: Path
    pace: Pace | None = None
    meters: EnergySource | None = None
    _idle: list[tuple[Energy, ...]] = field(default_factory=list)

    def idle(self) -> None:
        """Nothing runs for a while: what the meters show then is no work's. Told again before each engine."""
        if self.meters is None or not self.care.idle_s:
            return
        begin_s = self.meters.mark()
        time.sleep(self.care.idle_s)
        shown = self.meters.energy(begin_s, self.meters.mark())
        if any(each.gross_j is not None for each in shown):
            self._idle = [*self._idle[-1:], shown]
        else:
            self.care = replace(self.care, idle_s=0.0)  # there is no meter to wait for

    def mark(self) -> float:
        return self.meters.mark() if self.meters else time.monotonic()

    def energy(self, begin_s: float, end_s: float) -> tuple[Energy, ...]:
        """Of a window, with the power of doing nothing before it."""
        if self.meters is None:
            return ()
        return with_idle(self.meters.energy(begin_s, end_s), self._idle[-1:])


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
        runner = _Runner(engine, cell, prompts, ruler, watch)
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

    def __init__(self, engine: Engine, cell: Cell, prompts: Prompts, ruler: Ruler, watch: Watch) -> None:
        self._engine, self._cell, self._prompts, self._ruler, self._watch = engine, cell, prompts, ruler, watch
        self._work = cell.workload
        self._repeated: list[GenerateRequest] = []

    def once(self) -> Answer:
        """One untimed request of the same kind."""
        if self._work.turns > 1:
            return next(self._conversation(time.monotonic())).answer
        self._hold_past()
        return self._ask([self._request()], 1, time.monotonic())[0].answer

    def prepare(self) -> None:
        """What must be there before the window: the tokens of the depth, and for a warm cache the prompts."""
        if self._work.turns > 1:
            return
        self._repeated = [self._request() for _ in range(self._work.requests * self._cell.concurrency)]
        self._hold_past()
        if self._cell.cache == "warm":
            self._ask(self._repeated, self._cell.concurrency, time.monotonic())

    def timed(self, began_s: float) -> list[Told]:
        if self._work.turns > 1:
            return [told for _ in range(self._work.requests) for told in self._conversation(began_s)]
        return self._ask(self._repeated, self._cell.concurrency, began_s)

    def _request(self) -> GenerateRequest:
        return self._prompts.next().request(self._work.answer_tok)

    def _ask(self, requests: list[GenerateRequest], concurrency: int, began_s: float) -> list[Told]:
        told = ask_together(self._engine, requests, concurrency, began_s, self._watch)
        for request, each in zip(requests, told, strict=True):
            if isinstance(request.prompt, str):
                self._ruler.learn(len(request.prompt), each.answer.prompt_tok)
        return told

    def _hold_past(self) -> None:
        if self._work.depth_tok:
            ask(self._engine, self._prompts.next().past_request(), time.monotonic(), self._watch)

    def _conversation(self, began_s: float) -> Iterator[Told]:
        messages: list[Message] = []
        for _turn in range(self._work.turns):
            messages.append(self._prompts.said())
            request = GenerateRequest(
                messages=tuple(messages),
                max_tokens=self._work.answer_tok,
                ignore_end=True,
                sampling=Sampling(temperature=0.0, seed=1),
            )
            told = ask(self._engine, request, began_s, self._watch)
            messages.append(Message("assistant", told.text))
            yield told


def _warm_up(runner: _Runner, care: Care) -> tuple[int, bool]:
    """How many requests it took, and whether the last ones were alike."""
    rates: list[float] = []
    while len(rates) < care.warm_up_most:
        answer = runner.once()
        rates.append(answer.completion_tok / max(answer.ended_s - answer.started_s, 1e-9))
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

"""What is counted while serving, in the text format of Prometheus (version 0.0.4).

No dependency: the format is a line per number. Names and labels are part of the interface; docs/serve.md lists them.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bendi import __version__
from bendi.messages import Timings, Usage

if TYPE_CHECKING:
    from bendi.server.pool_words import Loaded  # never needed to run

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Unloading = Literal["idle", "room", "asked", "died", "end"]

_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_TTFT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TPOT_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
_LOAD_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_MOST_SERIES = 1000
"""Of one name. What comes after them is counted with `other` for every label, so that memory stays bounded."""
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = tuple[str, ...]


@dataclass
class RequestTokens:
    """What one request has used so far, for its line in the log. `models`: those that answered."""

    prompt_tok: int = 0
    completion_tok: int = 0
    cached_tok: int = 0
    models: tuple[str, ...] = ()


CURRENT_TOKENS: ContextVar[RequestTokens | None] = ContextVar("current_tokens", default=None)
"""Of the request that is being answered, in its tasks and threads."""


class _Counter:
    def __init__(self, name: str, said: str, labels: Labels) -> None:
        self.name, self.said, self.labels = name, said, labels
        self._values: dict[Labels, float] = {}

    def add(self, values: Labels, amount: float = 1.0) -> None:
        values = _bounded(values, self._values)
        self._values[values] = self._values.get(values, 0.0) + amount

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.said, "counter")
        for values, number in sorted(self._values.items()):
            yield _line(self.name, zip(self.labels, values, strict=True), number)


class _Histogram:
    def __init__(self, name: str, said: str, labels: Labels, bounds: Sequence[float]) -> None:
        self.name, self.said, self.labels, self._bounds = name, said, labels, bounds
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, values: Labels, number: float) -> None:
        values = _bounded(values, self._counts)
        counts = self._counts.setdefault(values, [0] * (len(self._bounds) + 1))
        counts[bisect_left(self._bounds, number)] += 1
        self._sums[values] = self._sums.get(values, 0.0) + number

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.said, "histogram")
        for values, counts in sorted(self._counts.items()):
            labels = list(zip(self.labels, values, strict=True))
            total = 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                total += count
                yield _line(f"{self.name}_bucket", [*labels, ("le", _number(bound))], total)
            yield _line(f"{self.name}_sum", labels, self._sums[values])
            yield _line(f"{self.name}_count", labels, total)


class Metrics:
    """Counters and histograms. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = _Counter("bendi_requests_total", "Answered requests.", ("method", "route", "status"))
        self._request_s = _Histogram(
            "bendi_request_seconds", "From a request to the end of its answer.", ("route",), _REQUEST_S
        )
        self._ttft_s = _Histogram("bendi_ttft_seconds", "Time to first token.", ("model",), _TTFT_S)
        self._tpot_s = _Histogram("bendi_tpot_seconds", "Time per output token after the first.", ("model",), _TPOT_S)
        self._prompt = _Counter("bendi_prompt_tokens_total", "Tokens of prompts.", ("model",))
        self._cached = _Counter(
            "bendi_cached_tokens_total", "Tokens of prompts that were in the KV cache already.", ("model",)
        )
        self._completion = _Counter("bendi_completion_tokens_total", "Generated tokens.", ("model",))
        self._loads = _Counter("bendi_loads_total", "Models loaded, or not.", ("model", "outcome"))
        self._load_s = _Histogram("bendi_load_seconds", "Loading a model.", ("model",), _LOAD_S)
        self._unloads = _Counter("bendi_unloads_total", "Models unloaded, and why.", ("model", "reason"))

    def requested(self, method: str, route: str, status: int, duration_s: float) -> None:
        """A request was answered. `route`: the pattern of its endpoint, never its path."""
        with self._lock:
            self._requests.add((method, route, str(status)))
            self._request_s.observe((route,), duration_s)

    def answered(self, model: str, usage: Usage, timings: Timings | None = None) -> None:
        """A model has answered, or was stopped. Also counts for the log line of the request it was for."""
        with self._lock:
            self._prompt.add((model,), usage.prompt_tok)
            self._cached.add((model,), usage.cached_tok)
            self._completion.add((model,), usage.completion_tok)
            if timings and timings.ttft_s is not None:
                self._ttft_s.observe((model,), timings.ttft_s)
            if timings and timings.tg_tok_s:
                self._tpot_s.observe((model,), 1 / timings.tg_tok_s)
            tokens = CURRENT_TOKENS.get()
            if tokens is not None:
                tokens.prompt_tok += usage.prompt_tok
                tokens.completion_tok += usage.completion_tok
                tokens.cached_tok += usage.cached_tok
                tokens.models = tuple(dict.fromkeys((*tokens.models, model)))

    def model_loaded(self, model: str, load_s: float) -> None:
        with self._lock:
            self._loads.add((model, "loaded"))
            self._load_s.observe((model,), load_s)

    def load_failed(self, model: str) -> None:
        with self._lock:
            self._loads.add((model, "failed"))

    def model_unloaded(self, model: str, reason: Unloading) -> None:
        with self._lock:
            self._unloads.add((model, reason))

    def text(self, loaded: Sequence[Loaded]) -> str:
        """All of it. `loaded`: what the pool holds now."""
        with self._lock:
            counters = (self._requests, self._prompt, self._cached, self._completion, self._loads, self._unloads)
            families = (*counters, self._request_s, self._ttft_s, self._tpot_s, self._load_s)
            lines = [line for family in families for line in family.lines()]
        lines += _head("bendi_info", "The version that answers.", "gauge")
        lines.append(_line("bendi_info", [("version", __version__)], 1))
        lines += _gauges(loaded)
        return "\n".join(lines) + "\n"


def _gauges(loaded: Sequence[Loaded]) -> Iterator[str]:
    rows: Mapping[str, tuple[str, list[float]]] = {
        "bendi_model_memory_bytes": ("Memory of a loaded model, as planned.", [m.memory_bytes for m in loaded]),
        "bendi_model_resident_bytes": ("Memory of a loaded model, as it is.", [m.resident_bytes for m in loaded]),
        "bendi_model_context_tokens": ("Tokens that one conversation can hold.", [m.context_tok for m in loaded]),
        "bendi_model_busy": ("Requests that a model is answering.", [m.busy for m in loaded]),
        "bendi_model_queue": ("Requests that wait for a model.", [m.waiting for m in loaded]),
    }
    for name, (said, numbers) in rows.items():
        yield from _head(name, said, "gauge")
        sums: dict[tuple[str, str], float] = {}
        # A model that is being replaced is there twice, and a series must not be.
        for model, number in zip(loaded, numbers, strict=True):
            sums[model.model, model.kind] = sums.get((model.model, model.kind), 0) + number
        for (model_name, kind), number in sorted(sums.items()):
            yield _line(name, [("model", model_name), ("kind", kind)], number)


def _bounded(values: Labels, known: Mapping[Labels, object]) -> Labels:
    return values if values in known or len(known) < _MOST_SERIES else ("other",) * len(values)


def _head(name: str, said: str, kind: str) -> list[str]:
    return [f"# HELP {name} {said}", f"# TYPE {name} {kind}"]


def _line(name: str, labels: Iterable[tuple[str, str]], number: float) -> str:
    inside = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in labels)
    return f"{name}{{{inside}}} {_number(number)}"


def _number(number: float) -> str:
    if number == float("inf"):
        return "+Inf"
    return str(int(number)) if float(number).is_integer() else repr(float(number))

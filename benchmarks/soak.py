"""Everything at once on `bendi serve`, for minutes: does anything grow?

    python benchmarks/soak.py [--minutes 10] [--clients 6] [--seed 1] [--samples FILE.csv]

Clients that stream and that do not, in all dialects, that leave in the middle, store answers and go on from them, hold
conversations and delete them, ask for what is refused, and (more rarely, since each takes as long as a hundred others)
have models loaded and unloaded, with the built-in model.

Printed are answers by kind and status, and of the server's process resident memory, open files, threads, and the size
of what it stores: at the start, after warming up (a quarter of the requests, and 5,000 at least) and at the end; by how
much each grew from then on for a thousand requests, with its 95 % interval, and in the second half of that; and what it
means:

    steady         the interval ends below what would matter
    grows          it begins above what is tolerated, and so does that of the second half
    warming up     it begins above what is tolerated, but the second half may be steady: run it for longer
    not known      the interval is too wide to say, or there is none yet: run it for longer

The rest is cut into blocks of as many requests; the interval is Student's, of the differences between the medians of
one block and the next. That takes growth for a walk of independent steps, as a heap grows: one step alone proves
nothing, steps all the time do. What is stored is shown and not judged: it has bounds of its own.

Ends with 0 when all is steady, 1 when something grows, 3 when that is not known.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import httpx
from gateway import QUESTIONS, resident_mib, serving

from bendi.settings import load_settings
from bendi.stats.student import t_quantile
from bendi.store import Store
from bendi.units import KIB, MIB

_WARM_SHARE = 0.25
_WARM_REQUESTS = 5000
"""At least: what is kept of answers fills up with so many of them (`measured`)."""
_BLOCKS = 12
_CONFIDENCE = 0.95
_SAMPLE_S = 1.0
_ANSWER_TOK = 32
_LOOKS = ("/metrics", "/", "/v1/models", "/api/tags", "/api/ps", "/api/bendi/ps", "/openapi.json")
_LEFT = "left"
"""Instead of a status: the client went away."""
Done = str | int
Counts = Counter[tuple[str, Done]]
Verdict = Literal["steady", "grows", "warming up", "not known", ""]


@dataclass(frozen=True)
class Sample:
    """Of the server at one time. `requests`: answered so far. `stored_kib`: all that is in its folder of conversations
    and answers."""

    requests: int
    resident_kib: float
    files: float
    threads: float
    stored_kib: float


@dataclass(frozen=True)
class Bar:
    """For what is a thousand requests may add: `tolerated` is no growth; above `matters` nobody may be left in doubt.
    None for what is not judged."""

    name: str
    of: Callable[[Sample], float]
    tolerated: float | None = None
    matters: float | None = None


BARS = (
    Bar("resident, KiB", lambda one: one.resident_kib, tolerated=32, matters=128),
    Bar("open files", lambda one: one.files, tolerated=0.1, matters=2),
    Bar("threads", lambda one: one.threads, tolerated=0.1, matters=2),
    Bar("stored, KiB", lambda one: one.stored_kib),
)


class Client:
    """One client with its connection and its dice. Each method named in `KINDS` is one thing that it may do, and gives
    the status of the answer."""

    def __init__(self, url: str, seed: int) -> None:
        self._http = httpx.Client(base_url=url, timeout=120, trust_env=False)
        self._random = random.Random(seed)
        self._stored: list[str] = []
        self._session = ""

    def close(self) -> None:
        self._http.close()

    def act(self) -> tuple[str, Done]:
        """What it did, and what came of it."""
        ((name, act, _weight),) = self._random.choices(KINDS, _WEIGHTS)
        try:
            return name, act(self)
        except httpx.TransportError as error:
            return name, type(error).__name__

    def chat(self) -> Done:
        return self._post("/v1/chat/completions", self._asked())

    def chat_streamed(self) -> Done:
        return self._stream("/v1/chat/completions", self._asked() | {"stream": True})

    def leave(self) -> Done:
        return self._stream("/v1/chat/completions", self._asked() | {"stream": True}, most=self._random.randrange(6))

    def several(self) -> Done:
        return self._post("/v1/chat/completions", self._asked() | {"n": 3, "logprobs": True, "top_logprobs": 2})

    def complete(self) -> Done:
        return self._post("/v1/completions", {"model": "demo", "prompt": "The KV cache", "max_tokens": _ANSWER_TOK})

    def respond(self) -> Done:
        body: dict[str, Any] = {"model": "demo", "input": self._question(), "max_output_tokens": _ANSWER_TOK}
        if self._stored and self._random.random() < 0.5:
            body["previous_response_id"] = self._stored[-1]
        answer = self._http.post("/v1/responses", json=body)
        if answer.status_code == 200:
            self._stored.append(answer.json()["id"])
        if len(self._stored) > 4:  # a chain that is cut is refused, so it goes as a whole
            for name in self._stored:
                self._http.delete(f"/v1/responses/{name}")
            self._stored.clear()
        return answer.status_code

    def ollama(self) -> Done:
        body = {"model": "demo", "prompt": self._question(), "options": {"num_predict": _ANSWER_TOK}}
        return self._stream("/api/generate", body)

    def anthropic(self) -> Done:
        return self._stream("/v1/messages", self._asked() | {"stream": self._random.random() < 0.5})

    def converse(self) -> Done:
        if not self._session:
            body = {"model": "demo", "parameters": {"max_tokens": _ANSWER_TOK}}
            self._session = self._http.post("/api/bendi/sessions", json=body).json()["id"]
        status = self._stream(f"/api/bendi/sessions/{self._session}/messages", {"text": self._question()})
        if self._random.random() < 0.3:
            self._http.get("/api/bendi/sessions", params={"search": "cache"})
            self._http.delete(f"/api/bendi/sessions/{self._session}")
            self._session = ""
        return status

    def refused_vectors(self) -> Done:
        return self._post("/v1/embeddings", {"model": "demo", "input": "rain", "dimensions": 16})

    def refused_model(self) -> Done:
        return self._post("/v1/chat/completions", self._asked() | {"model": f"none-{self._random.randrange(10**6)}"})

    def refused_body(self) -> Done:
        return self._http.post("/v1/chat/completions", content=b'{"model": ').status_code

    def load_and_unload(self) -> Done:
        body = {"model": "second", "prompt": self._question(), "stream": False, "keep_alive": 0}
        return self._post("/api/generate", body | {"options": {"num_predict": 4}})

    def look(self) -> Done:
        return self._http.get(self._random.choice(_LOOKS)).status_code

    def _question(self) -> str:
        return self._random.choice(QUESTIONS)

    def _asked(self) -> dict[str, Any]:
        message = {"role": "user", "content": self._question()}
        return {"model": "demo", "messages": [message], "max_tokens": _ANSWER_TOK}

    def _post(self, path: str, body: Mapping[str, Any]) -> Done:
        return self._http.post(path, json=body).status_code

    def _stream(self, path: str, body: Mapping[str, Any], most: int | None = None) -> Done:
        """Reads the answer as it comes; `most`: leaves after so many lines."""
        with self._http.stream("POST", path, json=body) as answer:
            for number, _line in enumerate(answer.iter_lines()):
                if number == most:
                    return _LEFT
            return answer.status_code


KINDS: Sequence[tuple[str, Callable[[Client], Done], int]] = (
    ("chat", Client.chat, 10), ("chat, streamed", Client.chat_streamed, 10), ("chat, left", Client.leave, 10),
    ("chat, three answers", Client.several, 10), ("completion", Client.complete, 10),
    ("response, stored", Client.respond, 10), ("Ollama", Client.ollama, 10), ("Anthropic", Client.anthropic, 10),
    ("conversation", Client.converse, 10), ("vectors, refused", Client.refused_vectors, 10),
    ("no such model", Client.refused_model, 10), ("broken JSON", Client.refused_body, 10),
    ("load and unload", Client.load_and_unload, 1), ("a look", Client.look, 10),
)  # fmt: skip
"""Name, what is done, and how often: of all together."""
_WEIGHTS = [weight for _name, _act, weight in KINDS]


def size_bytes(path: Path) -> int:
    """0 for a journal that was there a moment ago."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sample(process: subprocess.Popen[bytes], state_dir: Path, requests: int) -> Sample:
    status = Path(f"/proc/{process.pid}/status").read_text()
    threads = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:"))
    stored_bytes = sum(map(size_bytes, state_dir.glob("*.sqlite3*")))
    files = len(os.listdir(f"/proc/{process.pid}/fd"))
    return Sample(requests, resident_mib(process) * MIB / KIB, files, threads, stored_bytes / KIB)


def soak(url: str, options: argparse.Namespace, look: Callable[[int], Sample]) -> tuple[list[Sample], Counts]:
    """What was seen every second, and what clients got."""
    over, lock = threading.Event(), threading.Lock()
    counts: Counts = Counter()

    def run(number: int) -> None:
        client = Client(url, options.seed * 1000 + number)
        try:
            while not over.is_set():
                done = client.act()
                with lock:
                    counts[done] += 1
        finally:
            client.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(options.clients)]
    samples = [look(0)]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + 60 * options.minutes
    try:
        while time.monotonic() < until_s and any(thread.is_alive() for thread in threads):
            time.sleep(_SAMPLE_S)
            with lock:
                requests = counts.total()
            samples.append(look(requests))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return samples, counts


@dataclass(frozen=True)
class Growth:
    """For a thousand requests, with the ends of its interval."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def warm(samples: Sequence[Sample]) -> list[Sample]:
    """Those after the warming up; the last one where all is that."""
    from_requests = max(_WARM_SHARE * samples[-1].requests, _WARM_REQUESTS)
    return [one for one in samples if one.requests >= from_requests] or [samples[-1]]


def growth(samples: Sequence[Sample], of: Callable[[Sample], float], blocks: int) -> Growth | None:
    """None where there is too little to see: a block without a sample."""
    first, last = samples[0].requests, samples[-1].requests
    size = (last - first) / blocks
    sorted_in: list[list[float]] = [[] for _block in range(blocks)]
    for one in samples:
        place = int((one.requests - first) / size) if size else 0
        sorted_in[min(place, blocks - 1)].append(of(one))
    if not all(sorted_in):
        return None
    levels = [statistics.median(values) for values in sorted_in]
    steps = [1000 * (after - before) / size for before, after in pairwise(levels)]
    middle = statistics.mean(steps)
    half = t_quantile((1 + _CONFIDENCE) / 2, len(steps) - 1) * statistics.stdev(steps) / len(steps) ** 0.5
    return Growth(middle - half, middle, middle + half)


def verdict(bar: Bar, rest: Growth | None, late: Growth | None) -> Verdict:
    if bar.tolerated is None or bar.matters is None:
        return ""
    if rest is None or late is None:
        return "not known"
    if rest.low > bar.tolerated:
        return "grows" if late.low > bar.tolerated else "warming up"
    return "steady" if rest.high <= bar.matters else "not known"


def judged(samples: Sequence[Sample]) -> Iterator[tuple[str, Verdict]]:
    """A row for each bar, and what is found of it."""
    rest = warm(samples)
    late = rest[len(rest) // 2 :]
    for bar in BARS:
        whole, second = growth(rest, bar.of, _BLOCKS), growth(late, bar.of, _BLOCKS // 2)
        found = verdict(bar, whole, second)
        levels = " ".join(f"{bar.of(one):9.0f}" for one in (samples[0], rest[0], samples[-1]))
        yield f"{bar.name:14} {levels}  {whole!s:>30}  {second!s:>30}  {found}", found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=Path, help="what was seen every second, for a look at its course")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers must not be left behind
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"BENDI_STATE": str(folder / "state"), "BENDI_MODELS": str(folder / "models")}
        settings = load_settings()
        (folder / "models").mkdir()
        shutil.copyfile(Store(settings).resolve("demo").path, folder / "models" / "second.gguf")
        with serving("demo", queue=64) as served:
            samples, counts = soak(
                f"http://127.0.0.1:{served.port}",
                options,
                lambda requests: sample(served.process, settings.state_dir, requests),
            )
    print(f"{options.minutes:g} minutes, {options.clients} clients, {counts.total()} requests")
    for (kind, done), count in sorted(counts.items(), key=str):
        print(f"  {kind:22} {done!s:>20} {count:8d}")
    if options.samples:
        rows = [",".join(map(str, astuple(one))) for one in samples]
        options.samples.write_text("\n".join([",".join(field.name for field in fields(Sample)), *rows, ""]))
    found = list(judged(samples))
    print(f"{'':14} {'start':>9} {'warm':>9} {'end':>9}  {'per 1000 requests':>30}  {'in the second half':>30}")
    print("\n".join(row for row, _verdict in found))
    verdicts = {verdict for _row, verdict in found}
    sys.exit(1 if "grows" in verdicts else 0 if verdicts <= {"steady", ""} else 3)


if __name__ == "__main__":
    main()

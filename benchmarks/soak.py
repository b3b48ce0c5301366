"""Everything at once on `bendi serve`, for minutes: does anything grow?

    python benchmarks/soak.py [--minutes 10] [--clients 6] [--seed 1]

Clients that stream and that do not, in all dialects, that leave in the middle, store answers and go on from them, hold
conversations and delete them, ask for what is refused, and have models loaded and unloaded, with the built-in model.
Printed are answers by kind and status, and of the server's process: resident memory, open files, threads, and the size
of what it stores, at the start, after a fifth of the time and at the end, with the slope from then on (least squares).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx
from gateway import QUESTIONS, resident_mib, serving

from bendi.settings import load_settings
from bendi.store import Store
from bendi.units import MIB

_WARM_SHARE = 0.2
_SAMPLE_S = 1.0
_ANSWER_TOK = 32
_LOOKS = ("/metrics", "/", "/v1/models", "/api/tags", "/api/ps", "/api/bendi/ps", "/openapi.json")
_LEFT = "left"
"""Instead of a status: the client went away."""
Done = str | int
Counts = Counter[tuple[str, Done]]


@dataclass(frozen=True)
class Sample:
    """Of the server at one time. `stored_mib`: all that is in its folder of conversations and answers."""

    at_s: float
    resident_mib: float
    files: int
    threads: int
    stored_mib: float


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
        name, act = self._random.choice(KINDS)
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


KINDS: Sequence[tuple[str, Callable[[Client], Done]]] = (
    ("chat", Client.chat), ("chat, streamed", Client.chat_streamed), ("chat, left", Client.leave),
    ("chat, three answers", Client.several), ("completion", Client.complete), ("response, stored", Client.respond),
    ("Ollama", Client.ollama), ("Anthropic", Client.anthropic), ("conversation", Client.converse),
    ("vectors, refused", Client.refused_vectors), ("no such model", Client.refused_model),
    ("broken JSON", Client.refused_body), ("load and unload", Client.load_and_unload), ("a look", Client.look),
)  # fmt: skip


def sample(process: subprocess.Popen[bytes], state_dir: Path, since_s: float) -> Sample:
    status = Path(f"/proc/{process.pid}/status").read_text()
    threads = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:"))
    stored_bytes = sum(path.stat().st_size for path in state_dir.glob("*.sqlite3*"))
    files = len(os.listdir(f"/proc/{process.pid}/fd"))
    return Sample(time.monotonic() - since_s, resident_mib(process), files, threads, stored_bytes / MIB)


def soak(url: str, options: argparse.Namespace, look: Callable[[], Sample]) -> tuple[list[Sample], Counts]:
    """What was seen every second, and what clients got."""
    until_s, lock = time.monotonic() + 60 * options.minutes, threading.Lock()
    counts: Counts = Counter()

    def run(number: int) -> None:
        client = Client(url, options.seed * 1000 + number)
        try:
            while time.monotonic() < until_s:
                done = client.act()
                with lock:
                    counts[done] += 1
        finally:
            client.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(options.clients)]
    samples = [look()]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(_SAMPLE_S)
        samples.append(look())
    return samples, counts


def slope_per_hour(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line nearest to the points (seconds, value)."""
    if len(points) < 2:
        return 0.0
    middle_s = sum(at for at, _value in points) / len(points)
    middle = sum(value for _at, value in points) / len(points)
    spread = sum((at - middle_s) ** 2 for at, _value in points)
    return 3600 * sum((at - middle_s) * (value - middle) for at, value in points) / spread


def rows(samples: Sequence[Sample]) -> Iterator[str]:
    warm_s = samples[0].at_s + _WARM_SHARE * (samples[-1].at_s - samples[0].at_s)
    warm = [one for one in samples if one.at_s >= warm_s]
    yield f"{'':14} {'start':>10} {'warm':>10} {'end':>10} {'per hour':>10}"
    for name in [field.name for field in fields(Sample)][1:]:
        points = [(one.at_s, float(getattr(one, name))) for one in warm]
        shown = [getattr(samples[0], name), points[0][1], points[-1][1], slope_per_hour(points)]
        yield f"{name:14} " + " ".join(f"{number:10.2f}" for number in shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"BENDI_STATE": str(folder / "state"), "BENDI_MODELS": str(folder / "models")}
        settings = load_settings()
        (folder / "models").mkdir()
        shutil.copyfile(Store(settings).resolve("demo").path, folder / "models" / "second.gguf")
        with serving("demo", queue=64) as (port, process):
            since_s = time.monotonic()
            samples, counts = soak(
                f"http://127.0.0.1:{port}", options, lambda: sample(process, settings.state_dir, since_s)
            )
            print(f"{options.minutes:g} minutes, {options.clients} clients, {sum(counts.values())} requests")
            for (kind, done), count in sorted(counts.items(), key=str):
                print(f"  {kind:22} {done!s:>20} {count:8d}")
            print("\n".join(rows(samples)))


if __name__ == "__main__":
    main()

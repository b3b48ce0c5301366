"""What the server costs: the same streamed answers through `bendi serve` and from its worker itself, in turns.

    python benchmarks/gateway.py [--model demo | --shape qwen2.5:0.5b --type Q4_0] [--clients 1,8,32] [--repeats 3]
        [--first-tokens 90] [--idle 1000]

`--shape`: a model of that shape with random weights, as slow as a real one; the built-in model is faster than any
real one, so that the server's own time per token shows most. Printed are, for one client that connects anew for each
question, and for one that keeps its connection as client libraries do, the time to the first token of both and how much
the server adds (aim: 3 ms at the median, 10 ms at the 99th percentile, which takes several
hundred answers to see: `--first-tokens`); for several clients, tokens per second and their ratio (aim: 0.97); and
with `--idle`, the server's memory while so many streams wait in its queue (aim: 300 MB).

Both ways lead to the same process: two workers with the same model differ by up to 2 % for as long as they live.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendi.cli.main import main as bendi
from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.random_weights import write_random_model
from bendi.errors import BendiError
from bendi.formats.blueprints import blueprint_from_config
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.server.running_server import find_server
from bendi.settings import load_settings
from bendi.store.known_models import known_models
from bendi.units import MIB

QUESTIONS = (
    "What is a KV cache?",
    "What is quantization?",
    "Why does memory bandwidth decide the speed?",
    "What is MoE?",
)
_FIRST_TOK, _ANSWER_TOK, _LONG_TOK = 16, 64, 1024
_LEAST_ANSWERS = 24
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_START_S = 30.0
_SETTLE_S = 2.0

Connect = Callable[[], socket.socket]
Pair = tuple[list[float], "Target"]


@dataclass(frozen=True)
class Target:
    """Whom to ask. `header`: a further line of each request."""

    connect: Connect
    model: str
    header: str = ""


@dataclass(frozen=True)
class Served:
    """A server by its port, and its worker by socket and key."""

    port: int
    process: subprocess.Popen[bytes]
    socket_path: str
    key: str
    build: str


@dataclass(frozen=True)
class Asked:
    ttft_s: float
    completion_tok: int


def request(target: Target, number: int, most_tok: int, kept: bool = False) -> bytes:
    question = QUESTIONS[number % len(QUESTIONS)]
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": most_tok,
    }
    content = json.dumps(body).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        f"Connection: {'keep-alive' if kept else 'close'}",
    ]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [target.header] if target.header else []
    return "\r\n".join([*lines, "", ""]).encode() + content


def ask(target: Target, number: int, most_tok: int) -> Asked:
    with closing(target.connect()) as connection:
        started_s = time.perf_counter()
        connection.sendall(request(target, number, most_tok))
        data, ttft_s = b"", None
        while piece := connection.recv(65536):
            data += piece
            if ttft_s is None and b'"content":"' in data:
                ttft_s = time.perf_counter() - started_s
    if ttft_s is None:
        raise SystemExit(f"no answer: {data[:500]!r}")
    usage = data[data.rfind(b'"completion_tokens":') :].split(b":", 1)[1]
    return Asked(ttft_s, int(usage.split(b",")[0].split(b"}")[0]))


class Line:
    """A connection that is kept, and made anew when the other side has closed it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection: socket.socket | None = None

    def ask(self, number: int, most_tok: int) -> float:
        """Seconds to the first token."""
        while True:
            new = self._connection is None
            connection = self._connection = self._connection or self._target.connect()
            started_s = time.perf_counter()
            data, ttft_s = b"", None
            with suppress(ConnectionError):
                connection.sendall(request(self._target, number, most_tok, kept=True))
                while not data.endswith(_LAST_CHUNK) and (piece := connection.recv(65536)):
                    data += piece
                    if ttft_s is None and b'"content":"' in data:
                        ttft_s = time.perf_counter() - started_s
            if ttft_s is not None and data.endswith(_LAST_CHUNK):
                return ttft_s
            self.close()
            if new or data:
                raise SystemExit(f"no answer: {data[:500]!r}")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def load(target: Target, clients: int, answers: int, most_tok: int) -> tuple[float, list[float]]:
    """Tokens per second of `answers` answers to so many clients, and the times to their first tokens."""
    numbers, lock = iter(range(answers)), threading.Lock()
    found: list[Asked] = []

    def go() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            asked = ask(target, number, most_tok)
            with lock:
                found.append(asked)

    threads = [threading.Thread(target=go) for _ in range(clients)]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - started_s
    return sum(asked.completion_tok for asked in found) / took_s, [asked.ttft_s for asked in found]


def serve_and_tell(model: str, descriptor: int) -> int:
    """`bendi serve`, which tells how its first worker is reached."""
    begin = LlamaServerEngine.__init__

    def begin_and_tell(engine: LlamaServerEngine, *given: Any) -> None:
        begin(engine, *given)
        LlamaServerEngine.__init__ = begin  # type: ignore[method-assign]
        address = engine.worker.address
        assert address
        told = {"socket_path": address.socket_path, "key": address.key, "build": engine.info.build}
        os.write(descriptor, json.dumps(told).encode() + b"\n")

    LlamaServerEngine.__init__ = begin_and_tell  # type: ignore[assignment,method-assign]
    return bendi(["serve", model, "--port", "0", "--log", "none"])


def random_model(path: Path, shape: str, quantization: str) -> Path:
    """Writes a model of that shape with random weights, as slow as a real one."""
    blueprint = blueprint_from_config(known_models()[shape].config, "model")
    header = blueprint.header()
    return write_random_model(path, blueprint, quantized_types(shapes_of(header), facts_of(header), quantization))


@contextmanager
def serving(model: str, queue: int) -> Iterator[Served]:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, __file__, "--model", model, "--serve", str(writing)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "BENDI_SERVE_QUEUE": str(queue)},
        start_new_session=True,
        pass_fds=[writing],
    )
    os.close(writing)
    try:
        until_s = time.monotonic() + _START_S
        while True:
            try:
                url = find_server(load_settings()).url
                break
            except BendiError:
                if time.monotonic() > until_s or process.poll() is not None:
                    raise
                time.sleep(0.05)
        with open(reading) as telling:
            said = telling.readline()
        if not said:
            raise SystemExit("the server has ended before its model was loaded")
        told = json.loads(said)
        port = int(url.rstrip("/").rsplit(":", 1)[1])
        yield Served(port, process, told["socket_path"], told["key"], told["build"])
    finally:
        process.terminate()
        process.wait(30)


def loaded(port: int) -> tuple[int, int]:
    """How many slots the server gave the model, and tokens to each."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/bendi/ps") as answer:
        (model,) = json.load(answer)["models"]
    return int(model["slots"]), int(model["context_tok"])


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def show_first_tokens(raw: Target, gateway: Target, answers: int) -> None:
    show_added("connected anew", lambda target, number: ask(target, number, _FIRST_TOK).ttft_s, raw, gateway, answers)
    with ExitStack() as stack:
        lines = {target: stack.enter_context(closing(Line(target))) for target in (raw, gateway)}
        show_added(
            "connection kept", lambda target, number: lines[target].ask(number, _FIRST_TOK), raw, gateway, answers
        )


def show_added(how: str, ttft_of: Callable[[Target, int], float], raw: Target, gateway: Target, answers: int) -> None:
    raw_s: list[float] = []
    gateway_s: list[float] = []
    for number in range(answers):
        # One by one: whatever else the machine does within seconds meets both.
        for found, target in in_turns(number, (raw_s, raw), (gateway_s, gateway)):
            found.append(ttft_of(target, number // 2))
    middle_ms = [1e3 * statistics.median(found) for found in (raw_s, gateway_s)]
    late_ms = [1e3 * statistics.quantiles(found, n=100)[98] for found in (raw_s, gateway_s)]
    print(f"TTFT, 1 client, {how}:")
    for name, (of_raw, of_gateway) in (("median", middle_ms), ("99th percentile", late_ms)):
        print(f"  {name} {of_raw:.2f} and {of_gateway:.2f} ms, added {of_gateway - of_raw:.2f}", flush=True)


def show_throughput(raw: Target, gateway: Target, clients: int, repeats: int) -> None:
    """With one client, each pair of answers is a comparison; with several, each repeat."""
    answers = max(_LEAST_ANSWERS, 2 * clients) if clients > 1 else 1
    raw_tok_s: list[float] = []
    gateway_tok_s: list[float] = []
    for number in range(repeats if clients > 1 else repeats * _LEAST_ANSWERS):
        for found, target in in_turns(number, (raw_tok_s, raw), (gateway_tok_s, gateway)):
            found.append(load(target, clients, answers, _ANSWER_TOK)[0])
    ratios = sorted(gateway_ / raw_ for raw_, gateway_ in zip(raw_tok_s, gateway_tok_s, strict=True))
    middle = [statistics.median(found) for found in (raw_tok_s, gateway_tok_s)]
    outer = len(ratios) // 4
    print(
        f"{clients:3d} clients: {middle[0]:.0f} and {middle[1]:.0f} tok/s, {statistics.median(ratios):.3f} of the raw"
        f" worker's (the middle half of {len(ratios)}: {ratios[outer]:.3f} to {ratios[-1 - outer]:.3f})",
        flush=True,
    )


def in_turns(number: int, *both: Pair) -> Sequence[Pair]:
    """In one order and the other: who comes second finds other caches."""
    return both if number % 2 else both[::-1]


def show_idle(gateway: Target, process: subprocess.Popen[bytes], count: int, slots: int) -> None:
    """All slots write long answers; `count` more streams wait."""
    before = resident_mib(process)
    with ExitStack() as stack:
        for number in range(count + slots):
            connection = stack.enter_context(closing(gateway.connect()))
            connection.sendall(request(gateway, number, _LONG_TOK))
        time.sleep(_SETTLE_S)
        print(f"{count} waiting streams: {resident_mib(process):.0f} MiB resident (before: {before:.0f})", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--shape")
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--first-tokens", type=int, default=90)
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        return serve_and_tell(options.model, options.serve)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers must not be left behind
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["BENDI_STATE"] = str(folder / "state")  # another server of this user shall not be found
        model = options.model
        if options.shape:
            model = str(random_model(folder / "model.gguf", options.shape, options.type))
        served = stack.enter_context(serving(model, options.idle + 64))
        gateway = Target(lambda: socket.create_connection(("127.0.0.1", served.port)), model)
        load(gateway, 1, 1, _FIRST_TOK)
        slots, context_tok = loaded(served.port)

        def to_worker() -> socket.socket:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(served.socket_path)
            return connection

        raw = Target(to_worker, model, f"Authorization: Bearer {served.key}")
        for target in (raw, gateway):
            load(target, slots, 2 * slots, _FIRST_TOK)
        shape = f"{slots} slots of {context_tok} tokens"
        print(f"{options.shape or model}, {served.build}, {shape}; the worker first, then the server")
        show_first_tokens(raw, gateway, options.first_tokens)
        for clients in map(int, options.clients.split(",")):
            show_throughput(raw, gateway, clients, options.repeats)
        print(f"the server: {resident_mib(served.process):.0f} MiB resident")
        if options.idle:
            show_idle(gateway, served.process, options.idle, slots)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What is left of requests that are over: nothing, and for that nobody has to look for circles."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import subprocess
import sys
import time
from asyncio import selector_events
from collections.abc import Callable, Iterator

import httpx
import pytest
from live import LiveServer

from bendi.engines.llama_http import LlamaServerEngine
from bendi.formats import GgufFile
from bendi.server.process_memory import receive_small_pieces
from bendi.server.request_record import RequestRecord

MANY = 24
CHAT = "/v1/chat/completions"
SAID = [{"role": "user", "content": "What is a KV cache?"}]


def chat(client: httpx.Client, _number: int) -> int:
    return client.post(CHAT, json={"model": "demo", "messages": SAID, "max_tokens": 2}).status_code


def streamed(client: httpx.Client, _number: int) -> int:
    return client.post(CHAT, json={"model": "demo", "messages": SAID, "max_tokens": 2, "stream": True}).status_code


def three(client: httpx.Client, _number: int) -> int:
    return client.post(CHAT, json={"model": "demo", "messages": SAID, "max_tokens": 2, "n": 3}).status_code


def unknown(client: httpx.Client, number: int) -> int:
    return client.post(CHAT, json={"model": f"none-{number}", "messages": SAID}).status_code


def unknown_again(client: httpx.Client, _number: int) -> int:
    return client.post(CHAT, json={"model": "none", "messages": SAID}).status_code


def unknown_streamed(client: httpx.Client, number: int) -> int:
    return client.post(CHAT, json={"model": f"none-{number}", "messages": SAID, "stream": True}).status_code


def too_long(client: httpx.Client, _number: int) -> int:
    body = {"model": "demo", "messages": SAID, "max_tokens": 2, "context_policy": "error"}
    return client.post(CHAT, json=body | {"messages": [{"role": "user", "content": "word " * 20_000}]}).status_code


def shorter_vectors(client: httpx.Client, _number: int) -> int:
    return client.post("/v1/embeddings", json={"model": "demo", "input": "rain", "dimensions": 16}).status_code


def broken(client: httpx.Client, _number: int) -> int:
    return client.post(CHAT, content=b'{"model": ').status_code


def left(client: httpx.Client, _number: int) -> int:
    body = {"model": "endless", "messages": SAID, "stream": True}
    with client.stream("POST", CHAT, json=body) as answer:
        next(answer.iter_lines())
        return answer.status_code


def records() -> int:
    """How many requests are somewhere in memory."""
    return sum(isinstance(one, RequestRecord) for one in gc.get_objects())


def collected() -> int:
    """As `records`, without what the collector would find."""
    gc.collect()
    return records()


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def soon(condition: Callable[[], bool]) -> bool:
    """A client has its answer before the server is done with it."""
    until_s = time.monotonic() + 10
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.01)
    return condition()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (chat, 200), (streamed, 200), (three, 200), (unknown, 404), (unknown_again, 404), (unknown_streamed, 404),
        (too_long, 400), (shorter_vectors, 400), (broken, 400),
    ],
)  # fmt: skip
def test_a_request_goes_with_its_end(talking: LiveServer, ask: Callable[[httpx.Client, int], int], status: int) -> None:
    with httpx.Client(base_url=talking.url, timeout=30, trust_env=False) as client:
        assert ask(client, MANY) == status
        before = records()
        for number in range(MANY):
            assert ask(client, number) == status
        # A connection keeps the last one.
        assert soon(lambda: records() <= before + 1), records() - before


def test_nothing_is_left_of_clients_that_went_away(talking: LiveServer) -> None:
    with httpx.Client(base_url=talking.url, timeout=30, trust_env=False) as client:
        left(client, 0)
        before = collected()
        for number in range(MANY):
            left(client, number)

    assert soon(lambda: collected() <= before + 1), records() - before


def of_loads() -> int:
    """How many engines, and headers of model files, are somewhere in memory."""
    return sum(isinstance(one, LlamaServerEngine | GgufFile) for one in gc.get_objects())


@pytest.mark.usefixtures("uncollected")
def test_a_model_goes_with_its_unloading(talking: LiveServer) -> None:
    body = {"model": "tools", "keep_alive": 0, "stream": False, "options": {"num_predict": 2}}
    counts = []
    with httpx.Client(base_url=talking.url, timeout=30, trust_env=False) as client:
        for _number in range(3):
            assert client.post("/api/generate", json=body | {"prompt": "hello"}).json()["done_reason"] == "length"
            assert soon(lambda: "tools" not in [one["name"] for one in client.get("/api/ps").json()["models"]])
            assert not counts or soon(lambda: of_loads() <= counts[0]), (counts, of_loads())
            counts.append(of_loads())


def reset(server: LiveServer) -> None:
    """Asks, takes the answer, and ends the connection as a client that crashes does: with a reset."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        heard = b""
        while b"\r\n\r\n" not in heard:
            heard += client.recv(65536)
        assert heard.startswith(b"HTTP/1.1 200")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_nothing_is_left_of_connections_that_were_reset(talking: LiveServer) -> None:
    reset(talking)
    before = collected()
    for _number in range(MANY):
        reset(talking)

    assert soon(lambda: collected() <= before + 1), records() - before


@pytest.mark.skipif(sys.platform == "win32", reason="another event loop, whose buffer is kept")
def test_what_arrives_is_taken_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = vars(selector_events)["_SelectorSocketTransport"]
    monkeypatch.setattr(transport, "max_size", transport.max_size)
    receive_small_pieces()
    sizes: list[int] = []

    class Counting(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            sizes.append(len(data))

    async def receive() -> None:
        near, far = socket.socketpair()
        loop = asyncio.get_running_loop()
        sending, _protocol = await loop.create_connection(asyncio.Protocol, sock=near)
        receiving, _counting = await loop.create_connection(Counting, sock=far)
        sending.write(bytes(300_000))
        while sum(sizes) < 300_000:
            await asyncio.sleep(0.001)
        sending.close()
        receiving.close()

    asyncio.run(receive())
    assert max(sizes) == 16 * 1024


COLLECTING = """
import gc
import bendi.server.serving
from bendi.server import process_memory

gc.disable()
before = len(gc.get_objects())
process_memory.collect_less()
frozen, after = gc.get_freeze_count(), len(gc.get_objects())


class Circle:
    def __init__(self):
        self.itself = self


Circle()
print(before > 10_000, frozen > 10_000, after < before / 100, gc.collect() > 0, gc.get_threshold()[0] == 10_000)
"""


def test_what_stays_until_the_end_is_not_looked_through_again_and_new_garbage_is_found() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTING], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 5


LARGE_PIECES = """
import threading
from pathlib import Path

from bendi.server.process_memory import return_large_pieces


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256


def work():
    for _time in range(3):
        b"x" * (8 << 20)
    done.wait()
    over.wait()


return_large_pieces()
done, over = threading.Barrier(9), threading.Barrier(9)
threads = [threading.Thread(target=work) for _number in range(8)]
before = resident_mib()
for thread in threads:
    thread.start()
done.wait()
print(resident_mib() - before)
over.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's way")
def test_large_pieces_go_back_to_the_system_from_every_thread() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE_PIECES], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 12


HOLES = """
from pathlib import Path

from bendi.server.process_memory import return_holes, return_large_pieces


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256


return_large_pieces()
pieces = [b"x" * 60_000 for _number in range(1000)]
kept = pieces[::10]
del pieces
with_holes = resident_mib()
return_holes()
print(with_holes - resident_mib(), len(kept))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's way")
def test_what_is_free_between_what_is_not_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[0]) > 40

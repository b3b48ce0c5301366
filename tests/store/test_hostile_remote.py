"""The worst headers served over HTTP: a checked result or a clean error, within 64 MiB, and nothing left over.

Seconds are printed by `benchmarks/hostile_files.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from headers import gguf_with_vocabulary
from hostile_remote import CASES, FolderServer, RemoteCase, _settings, measured
from servers import LoopbackServer

from bendi.store.blocks import Blocks, Spool
from bendi.store.names import parse_name
from bendi.store.remote_header import read_remote_model
from bendi.units import KIB, MIB

LIMIT_BYTES = 64 * MIB
TESTED = (
    "remote gguf: many tensors", "remote gguf: a vocabulary", "remote gguf: an array in a hole",
    "remote gguf: a vocabulary in crumbs", "remote gguf: a thousand parts",
    "remote safetensors: long names", "remote safetensors: the longest headers at once",
    "remote config: all that is allowed",
)  # fmt: skip
"""One of each kind; the others take longer, and no more memory than these."""


@pytest.mark.parametrize("name", TESTED)
def test_no_server_costs_more_than_the_limit(name: str, tmp_path: Path) -> None:
    files, cache = tmp_path / "files", tmp_path / "cache"
    files.mkdir()
    CASES[name].write(files)
    cost, _sent_bytes = measured(name, files, cache)
    assert cost.outcome == "read" or cost.outcome.partition(":")[0] in (
        "ModelFileError", "DownloadError", "NotFoundError"
    ), cost.outcome  # fmt: skip
    assert cost.peak_bytes <= LIMIT_BYTES
    assert leftovers(cache) == []


def leftovers(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".head"]


class StallingServer(FolderServer):
    """Sends half of the file, and then nothing."""

    def _send(self, request: object, file: Path) -> None:
        if self.body_bytes > 4 * MIB:
            self.released.wait(60)
            return
        super()._send(request, file)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_however_reading_ends(tmp_path: Path, number: signal.Signals) -> None:
    files, cache = tmp_path / "files", tmp_path / "cache"
    files.mkdir()
    name = "remote gguf: a vocabulary"
    (files / "x.gguf").write_bytes(gguf_with_vocabulary(250_000))
    with StallingServer(files, CASES[name]) as server:
        script = Path(__file__).with_name("hostile_remote.py")
        process = subprocess.Popen(
            [sys.executable, str(script), name, server.url, str(cache)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while server.body_bytes <= 4 * MIB and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.body_bytes > 4 * MIB
            process.send_signal(number)
            process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()
    assert process.returncode != 0
    assert leftovers(cache) == []


def test_what_is_put_aside_comes_back(tmp_path: Path) -> None:
    pieces = [os.urandom(size) for size in (0, 1, 600 * KIB, 600 * KIB, 3 * MIB)]
    with Spool(tmp_path / "缓存") as spool:
        assert not (tmp_path / "缓存").exists(), "a little stays in memory"
        places = [spool.append(piece) for piece in pieces]
        for place, piece in zip(places, pieces, strict=True):
            assert spool.read(place, len(piece)) == piece
        assert (tmp_path / "缓存").exists()
    assert list((tmp_path / "缓存").iterdir()) == []


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with Spool(blocked / "cache") as spool:
        place = spool.append(b"x" * 2 * MIB)
        assert spool.read(place, 2 * MIB) == b"x" * 2 * MIB


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX systems")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """In a process that may write files of 64 KiB at most; the system says the same as for a full disk."""
    code = (
        "import resource, sys; from pathlib import Path; from bendi.errors import StoreError;"
        "from bendi.store.blocks import Spool\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    with Spool(Path(sys.argv[1]), memory_bytes=0) as spool: spool.append(b'x' * 100_000)\n"
        "except StoreError as error: print(error.message, '|', error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    message, _bar, hint = done.stdout.partition("|")
    assert "disk is full" in message, done.stderr
    assert hint.strip()


def test_parts_that_touch_become_one() -> None:
    with Spool() as spool:
        blocks = Blocks(spool)
        for at in range(1000):
            blocks.add(at, b"%d" % (at % 10))
        blocks.fill(995, b"56789end")
        blocks.add(5000, b"far")
        assert blocks.spans() == [(0, 1003), (5000, 3)]
        assert blocks.read(990, 1003) == b"0123456789end"
        assert blocks.gap(0, 6000) == (1003, 5000)
        assert b"".join(blocks.pieces()).endswith(b"9endfar")


def test_a_long_header_is_read_in_order_without_holding_it(tmp_path: Path) -> None:
    """Through the cache and back: what is read from it is what came from the network."""
    files, cache = tmp_path / "files", tmp_path / "cache"
    files.mkdir()
    (files / "x.gguf").write_bytes(gguf_with_vocabulary(120_000))
    server: LoopbackServer
    with FolderServer(files, RemoteCase(lambda _folder: None)) as server:
        settings = _settings(server.url, cache)
        name = parse_name(f"{server.url}/files/x.gguf")
        first = read_remote_model(name, settings)  # type: ignore[arg-type]
        sent = server.body_bytes
        again = read_remote_model(name, settings)  # type: ignore[arg-type]
        assert again.parts == first.parts
        assert (again.received_bytes, server.body_bytes) == (0, sent + 1), "one byte asks for the version"
    assert leftovers(cache) == []
    [kept] = (cache / "headers").iterdir()
    assert kept.stat().st_size > 3 * MIB

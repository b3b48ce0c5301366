"""Answers of servers that are made to cost much, or that are anything: a clean error, and bounded memory."""

from __future__ import annotations

import tracemalloc

import pytest
from pulling import Puller, everything
from servers import COMMIT, FileServer, Start

from bendi.errors import BendiError, DownloadError
from bendi.store.transport import MAX_JSON_BYTES, Transport

LIMIT_BYTES = 64 * 2**20
HOSTILE = {
    "too long": b"[" + b" " * (MAX_JSON_BYTES + 10) + b"]",
    "objects": b"[" + b"{}," * 1_000_000 + b"{}]",
    "numbers": b"[" + b"123," * 1_000_000 + b"1]",
    "texts": b'["\xf0\xa0\x80\x80",' + b'"ab",' * 700_000 + b"1]",
    "depth": b"[" * 1_000_000,
    "depth that ends": b"[" * 3000 + b"]" * 3000,
    "a long number": b"[" + b"9" * 1_000_000 + b"]",
    "not text": b"\xff\xfe\xfd" * 1000,
    "nothing": b"",
    "a number": b"7",
}


@pytest.fixture
def server(start: Start) -> FileServer:
    return start(FileServer())


@pytest.mark.parametrize("name", HOSTILE)
def test_any_answer(name: str, server: FileServer, puller: Puller) -> None:
    """Asked for JSON, each kind of server gives this; the commit is sound, so that the listing is asked for, too."""
    body = HOSTILE[name]
    server.put("/api/models/org/A/revision/main", body)
    server.put("/api/models/org/B/revision/main", b'{"sha":"' + COMMIT.encode() + b'"}')
    server.put(f"/api/models/org/B/tree/{COMMIT}", body)
    server.put("/api/v1/models/org/C/repo/files", body)
    server.put("/v2/library/d/manifests/latest", body)
    puller.use(hf_endpoint=server.url, ms_endpoint=server.url, ollama_registry=server.url)
    for model in ("hf:org/A", "hf:org/B", "ms:org/C", "ollama:d"):
        tracemalloc.start()
        try:
            with pytest.raises(BendiError) as caught:
                puller(model)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert caught.value.message.isprintable()
        # The server of the test is in this process, and holds the body that it sends.
        assert peak_bytes < LIMIT_BYTES
    assert everything(puller.store.root) == set()


def test_an_answer_of_the_largest_size_is_read(server: FileServer) -> None:
    url = server.put("/x", b"[" + b" " * (MAX_JSON_BYTES - 2) + b"]")
    with Transport() as transport:
        assert transport.get_json(url)[0] == []
    url = server.put("/y", b"[" + b" " * (MAX_JSON_BYTES - 1) + b"]")
    with Transport() as transport, pytest.raises(DownloadError, match="too long"):
        transport.get_json(url)

"""Ranges of remote files: what crosses the network, and what a bad server gets told."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from headers import sent_bytes
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from pulling import IMPATIENT
from servers import Blob, Fault, FileServer, Seen, Start

from bendi.errors import DownloadError, ModelFileError, NotFoundError
from bendi.store.http_source import Allowance, HttpByteSource
from bendi.store.remote import RemoteFile
from bendi.store.transport import Transport
from bendi.units import KIB, MIB

CONTENT = random.Random(7).randbytes(3 * MIB + 1234)


@pytest.fixture
def server(start: Start) -> FileServer:
    return start(FileServer())


@pytest.fixture
def transport() -> Iterator[Transport]:
    with Transport(options=IMPATIENT) as transport:
        yield transport


def remote(server: FileServer, content: bytes = CONTENT, **changes: Any) -> RemoteFile:
    url = server.put("/model.gguf", content)
    return replace(RemoteFile(url, "model.gguf", len(content), "0" * 64), **changes)


def ranges(seen: list[Seen]) -> list[tuple[int, int]]:
    """(start, end) of every range that was asked for."""
    spans = [request.headers["range"].removeprefix("bytes=").split("-") for request in seen]
    return [(int(start), int(end)) for start, end in spans]


def test_requests_begin_small_and_double(server: FileServer, transport: Transport) -> None:
    with HttpByteSource(remote(server), transport) as source:
        at = 0
        while at < 2 * MIB:
            assert source.read_at(at, 1000) == CONTENT[at : at + 1000]
            at += 1000
    lengths = [end + 1 - start for start, end in ranges(server.seen)]
    assert lengths == [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, MIB]
    assert source.received_bytes == sent_bytes(server, sum(lengths)) == sum(lengths)


def test_what_is_skipped_is_not_asked_for(server: FileServer, transport: Transport) -> None:
    with HttpByteSource(remote(server), transport) as source:
        source.read_at(0, 10)
        assert source.read_at(2 * MIB, 10) == CONTENT[2 * MIB : 2 * MIB + 10]
        assert source.read_at(0, 10) == CONTENT[:10]
    assert ranges(server.seen) == [(0, 65535), (2 * MIB, 2 * MIB + 131071)]


def test_a_gap_is_filled_without_asking_twice(server: FileServer, transport: Transport) -> None:
    with HttpByteSource(remote(server), transport) as source:
        source.read_at(100_000, 10)
        source.read_at(0, 10)
        assert source.read_at(0, 300_000) == CONTENT[:300_000]
    asked = sorted(ranges(server.seen))
    assert all(before[1] < after[0] for before, after in pairwise(asked))


def test_the_end_of_the_file(server: FileServer, transport: Transport) -> None:
    with HttpByteSource(remote(server), transport) as source:
        assert source.read_at(len(CONTENT) - 5, 100) == CONTENT[-5:]
        assert source.read_at(len(CONTENT), 100) == b""
        assert source.read_at(len(CONTENT) + 10, 100) == b""
    assert len(server.seen) == 1


def test_a_size_that_nobody_said_comes_with_the_first_block(server: FileServer, transport: Transport) -> None:
    with HttpByteSource(remote(server, size_bytes=None), transport) as source:
        assert source.size_bytes == len(CONTENT)
        source.read_at(0, 1000)
    assert len(server.seen) == 1


def test_a_server_without_ranges_is_stopped_when_enough_has_come(server: FileServer, transport: Transport) -> None:
    content = bytes(64 * MIB)
    server.faults = [Fault(no_ranges=True, times=-1)]
    with HttpByteSource(remote(server, content), transport) as source:
        assert source.read_at(0, 100_000) == bytes(100_000)
        assert source.read_at(500_000, 100_000) == bytes(100_000)
        assert source.received_bytes < MIB
    assert len(server.seen) == 1
    assert server.body_bytes < len(content) / 2, "the rest was not sent, but for what the sockets hold"


def test_a_server_without_ranges_that_breaks_off(server: FileServer, transport: Transport) -> None:
    server.faults = [Fault(no_ranges=True, cut_after=400_000), Fault(no_ranges=True)]
    with HttpByteSource(remote(server), transport) as source:
        assert source.read_at(0, MIB) == CONTENT[:MIB]
    assert len(server.seen) == 2


@pytest.mark.parametrize("size", [1000, 2 * MIB])
def test_a_server_without_ranges_and_length(server: FileServer, transport: Transport, size: object) -> None:
    """A small text is read to its end; a model would have to be downloaded."""
    server.faults = [Fault(no_ranges=True, no_length=True, times=-1)]
    with HttpByteSource(remote(server, CONTENT[:size], size_bytes=None, sha256=None), transport) as source:
        if size == 1000:
            assert source.read_at(0, 2000) == CONTENT[:1000]
        else:
            with pytest.raises(DownloadError, match="does not say how large"):
                source.read_at(0, 10)
    assert source.received_bytes <= MIB + 64 * KIB


def test_a_redirect_is_followed_once(server: FileServer, transport: Transport, start: Start) -> None:
    cdn = start(FileServer(host="localhost"))
    target = cdn.put("/blob", CONTENT)
    server.faults = [Fault(redirect=f"{target}?X-Signature=secret", times=-1)]
    with HttpByteSource(remote(server), transport) as source:
        assert source.read_at(0, MIB) == CONTENT[:MIB]
        assert source.read_at(MIB, MIB) == CONTENT[MIB : 2 * MIB]
    assert len(server.seen) == 1
    assert len(cdn.seen) == 2
    assert sent_bytes(cdn, source.received_bytes) == source.received_bytes
    assert server.body_bytes == 0


class ExpiringServer(FileServer):
    """Every signature is good for one request."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        super().__init__(host="localhost")

    def route(self, request: Any, path: str, query: Any) -> None:
        if request.path in self.used:
            request.answer(403, b"expired")
            return
        self.used.add(request.path)
        super().route(request, path, query)


class SigningServer(FileServer):
    def __init__(self, cdn: ExpiringServer) -> None:
        self.cdn = cdn
        super().__init__()

    def route(self, request: Any, path: str, query: Any) -> None:
        request.redirect(f"{self.cdn.url}/blob?signature={len(self.seen)}")


def test_an_address_that_has_expired_is_asked_for_again(start: Start, transport: Transport) -> None:
    cdn = start(ExpiringServer())
    cdn.files["/blob"] = Blob(CONTENT)
    server = start(SigningServer(cdn))
    file = RemoteFile(f"{server.url}/model.gguf", "model.gguf", len(CONTENT), "0" * 64)
    with HttpByteSource(file, transport) as source:
        for at in range(3):
            assert source.read_at(at * MIB, 10) == CONTENT[at * MIB : at * MIB + 10]
    assert len(server.seen) == 3
    assert [seen.path for seen in cdn.seen] == [f"/blob?signature={number}" for number in (1, 1, 2, 2, 3)]


def test_a_break_continues_where_it_happened(server: FileServer, transport: Transport) -> None:
    server.faults = [Fault(cut_after=30_000)]
    with HttpByteSource(remote(server), transport) as source:
        assert source.read_at(0, 60_000) == CONTENT[:60_000]
    assert [start for start, _end in ranges(server.seen)] == [0, 30_000]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(shift=1, times=-1), "another part"),
        (Fault(lie_total=1, times=-1), "not the file that was announced"),
        (Fault(lie_total=-1, times=-1), "not the file that was announced"),
        (Fault(encoding="gzip", times=-1), "compressed"),
        (Fault(status=503, times=-1), "busy"),
        (Fault(status=403, times=-1), "does not give"),
        (Fault(stall_s=20, times=-1), "does not answer"),
        (Fault(cut_after=0, times=-1), "broke"),
        (Fault(redirect="ftp://elsewhere/x", times=-1), "no web address"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_server_is_told_apart(server: FileServer, transport: Transport, fault: Fault, message: str) -> None:
    server.faults = [fault]
    with HttpByteSource(remote(server), transport) as source, pytest.raises(DownloadError, match=message):
        source.read_at(0, 10)


class ShortServer(FileServer):
    """Answers every range with its first byte alone."""

    def route(self, request: Any, path: str, query: Any) -> None:
        start = int(request.headers["Range"].removeprefix("bytes=").split("-")[0])
        span = f"bytes {start}-{start}/{len(CONTENT)}"
        request.answer(206, CONTENT[start : start + 1], {"Content-Range": span})


def test_a_server_that_gives_it_byte_by_byte_is_not_humoured(start: Start, transport: Transport) -> None:
    server = start(ShortServer())
    file = RemoteFile(f"{server.url}/model.gguf", "model.gguf", len(CONTENT), "0" * 64)
    with HttpByteSource(file, transport) as source, pytest.raises(DownloadError, match="another part"):
        source.read_at(0, 1000)
    assert len(server.seen) == 1


def test_without_reading_ahead_nothing_more_comes(server: FileServer, transport: Transport) -> None:
    with HttpByteSource(remote(server), transport) as source:
        source.read_at(0, 8)
        source.read_ahead = False
        assert source.read_at(8, 70_000) == CONTENT[8:70_008]
    assert ranges(server.seen) == [(0, 65535), (65536, 70007)]


def test_no_such_file(server: FileServer, transport: Transport) -> None:
    file = RemoteFile(f"{server.url}/nothing.gguf", "nothing.gguf", 10, "0" * 64)
    with HttpByteSource(file, transport) as source, pytest.raises(NotFoundError):
        source.read_at(0, 10)


def test_a_file_that_changes_while_it_is_read(server: FileServer, transport: Transport) -> None:
    file = remote(server, sha256=None)
    server.files["/model.gguf"].etag = '"one"'
    with HttpByteSource(file, transport) as source:
        source.read_at(0, 10)
        server.files["/model.gguf"].etag = '"two"'
        with pytest.raises(DownloadError, match="not the file that was announced"):
            source.read_at(MIB, 10)


def test_copies_of_one_file_may_have_different_dates(server: FileServer, transport: Transport) -> None:
    file = remote(server)
    server.files["/model.gguf"].etag = '"one"'
    with HttpByteSource(file, transport) as source:
        source.read_at(0, 10)
        server.files["/model.gguf"].etag = '"two"'
        assert source.read_at(MIB, 10) == CONTENT[MIB : MIB + 10]


@pytest.mark.parametrize("no_ranges", [False, True])
def test_no_more_than_the_allowance_is_read(server: FileServer, transport: Transport, no_ranges: bool) -> None:
    server.faults = [Fault(no_ranges=no_ranges, times=-1)]
    allowance = Allowance(256 * KIB)
    with (
        HttpByteSource(remote(server), transport, allowance) as source,
        pytest.raises(ModelFileError, match="more than 256 KiB"),
    ):
        source.read_at(0, 2 * MIB)
    assert allowance.received_bytes <= 256 * KIB + 128 * KIB


def test_the_allowance_is_shared(server: FileServer, transport: Transport) -> None:
    allowance = Allowance(100 * KIB)
    file = remote(server)
    with HttpByteSource(file, transport, allowance) as one, HttpByteSource(file, transport, allowance) as two:
        one.read_at(0, 10)
        with pytest.raises(ModelFileError, match="no model needs"):
            two.read_at(0, 10)


def test_offline_makes_no_connection(server: FileServer) -> None:
    with (
        Transport(options=IMPATIENT, offline=True) as transport,
        HttpByteSource(remote(server), transport) as source,
        pytest.raises(DownloadError, match="offline"),
    ):
        source.read_at(0, 10)
    assert server.seen == []


def test_the_token_goes_to_its_own_host_only(server: FileServer, start: Start) -> None:
    cdn = start(FileServer(host="localhost"))
    target = cdn.put("/blob", CONTENT)
    server.faults = [Fault(redirect=target, times=-1)]
    with (
        Transport({server.url: "hf_secret"}, IMPATIENT) as transport,
        HttpByteSource(remote(server), transport) as source,
    ):
        source.read_at(0, MIB)
        source.read_at(MIB, MIB)
    assert [seen.authorization for seen in server.seen] == ["Bearer hf_secret"]
    assert {seen.authorization for seen in cdn.seen} == {None}
    assert b"secret" not in repr([seen.headers for seen in cdn.seen]).encode()


SMALL = CONTENT[:400_000]
_READS = st.lists(st.tuples(st.integers(0, len(SMALL) + 10), st.integers(0, 200_000)), min_size=1, max_size=8)


@profile(database=None, derandomize=True, deadline=None, max_examples=40)
@given(reads=_READS, no_ranges=st.booleans(), cut=st.none() | st.integers(1, 300_000))
def test_any_reading(reads: list[tuple[int, int]], no_ranges: bool, cut: int | None) -> None:
    """Whatever is read in whatever order, the bytes are right, and none is received twice."""
    with FileServer() as server, Transport(options=IMPATIENT) as transport:
        server.faults = [Fault(no_ranges=no_ranges, cut_after=cut), Fault(no_ranges=no_ranges, times=-1)]
        with HttpByteSource(remote(server, SMALL), transport) as source:
            for at, size in reads:
                assert source.read_at(at, size) == SMALL[at : at + size]
        if not no_ranges:
            assert source.received_bytes == sent_bytes(server, source.received_bytes) <= len(SMALL)

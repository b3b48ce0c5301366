"""File lists without an end: told as such, after a bounded number of requests, and never cut silently."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pulling import IMPATIENT, Puller
from servers import COMMIT, FileServer, HubServer, LoopbackServer, Start

from bendi.errors import BendiError, DownloadError
from bendi.settings import Settings
from bendi.store.hub import MAX_PAGE_BYTES, MAX_PAGES, list_files
from bendi.store.names import RepoName
from bendi.store.remote import MAX_LISTED_FILES, MAX_LISTED_TEXT_BYTES, MAX_LISTING_BYTES, MAX_LISTING_ENTRIES, Listing
from bendi.store.sources import open_transport
from bendi.store.transport import Transport
from bendi.store.variants import Listed, choose
from bendi.units import KIB, MIB

NAME = RepoName("hf", "org", "A")
Entry = dict[str, object]


def gguf_entry(name: str) -> Entry:
    return {"type": "file", "path": f"{name}.gguf", "size": 100, "oid": "1" * 40}


class EndlessHub(LoopbackServer):
    """A hub whose listing is what `page` makes of its number: (entries, the cursor of the next page or None)."""

    def __init__(self, page: Callable[[int], tuple[list[Entry], int | None]]) -> None:
        self.page = page
        super().__init__()

    def route(self, request: Any, path: str, query: Mapping[str, list[str]]) -> None:
        if "/revision/" in path:
            request.answer_json({"sha": COMMIT})
            return
        entries, following = self.page(int(query.get("cursor", ["0"])[0]))
        link = f'<{self.url}{path}?recursive=true&cursor={following}>; rel="next"'
        request.answer_json(entries, {} if following is None else {"Link": link})


def listed(server: LoopbackServer) -> list[Listed]:
    with Transport(options=IMPATIENT) as transport:
        return list_files(NAME, transport, server.url)[1]


def refusal(server: LoopbackServer) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        listed(server)
    assert caught.value.hint
    return caught.value


def trees(server: LoopbackServer) -> int:
    return len(server.paths("/tree/"))


def test_pages_for_ever(start: Start) -> None:
    server = start(EndlessHub(lambda number: ([gguf_entry(f"m{number}")], number + 1)))
    assert f"more than {MAX_PAGES} pages" in refusal(server).message
    assert trees(server) == MAX_PAGES


def test_as_many_pages_as_are_allowed(start: Start) -> None:
    last = MAX_PAGES - 1
    server = start(EndlessHub(lambda number: ([gguf_entry(f"m{number}")], number + 1 if number < last else None)))
    assert [file.path for file in listed(server)] == [f"m{number}.gguf" for number in range(MAX_PAGES)]


def test_the_same_next_page_again_and_again(start: Start) -> None:
    server = start(EndlessHub(lambda _number: ([], 7)))
    assert "in circles" in refusal(server).message
    assert trees(server) == 2


def test_a_circle_of_pages(start: Start) -> None:
    server = start(EndlessHub(lambda number: ([], (number + 1) % 3)))
    assert "in circles" in refusal(server).message
    assert trees(server) == 4, "the first page has no cursor in its address"


def test_a_page_that_is_too_large(start: Start) -> None:
    filler: Entry = {"type": "file", "path": "x" * MAX_PAGE_BYTES}
    server = start(EndlessHub(lambda _number: ([filler], None)))
    assert "too long to be right" in refusal(server).message
    assert trees(server) == 1


def test_pages_that_are_too_large_together(start: Start) -> None:
    filler: Entry = {"type": "file", "path": "x" * (MAX_PAGE_BYTES - KIB)}
    server = start(EndlessHub(lambda number: ([filler], number + 1)))
    assert "more than 32 MiB" in refusal(server).message
    assert trees(server) == MAX_LISTING_BYTES // MAX_PAGE_BYTES + 1


def test_too_many_entries(start: Start) -> None:
    page: list[Entry] = [{}] * 9000
    server = start(EndlessHub(lambda number: (page, number + 1)))
    assert f"more than {MAX_LISTING_ENTRIES} entries" in refusal(server).message
    assert trees(server) == MAX_LISTING_ENTRIES // 9000 + 1


def test_too_many_files(start: Start) -> None:
    server = start(EndlessHub(lambda number: ([gguf_entry(f"{number}-{item}") for item in range(3000)], number + 1)))
    assert f"more than {MAX_LISTED_FILES} GGUF files" in refusal(server).message
    assert trees(server) == MAX_LISTED_FILES // 3000 + 1


def test_names_that_are_too_long_together() -> None:
    listing = Listing("host")
    name = "/".join(["x" * 200] * 10)
    with pytest.raises(DownloadError, match="GGUF files"):
        listing.add_page(((f"{name}/{number}.gguf", 1, None, None) for number in itertools.count()), 0)
    assert len(listing.files) < MAX_LISTED_TEXT_BYTES / 2000


def test_a_whole_repository_is_listed_or_none_of_it(start: Start, settings: Settings) -> None:
    """The last page is one too many: what came before it is not taken for the repository."""
    server = start(EndlessHub(lambda number: ([gguf_entry(f"m-Q{number % 9}_0")], number + 1)))
    puller = Puller(settings).use(hf_endpoint=server.url)
    with pytest.raises(DownloadError):
        puller("hf:org/A:Q4_0")
    assert not settings.models_dirs[0].exists() or not list(settings.models_dirs[0].rglob("*.gguf"))


def test_many_pages_of_a_sound_repository(start: Start) -> None:
    server = start(HubServer())
    server.repos["org/A"] = {f"m{number}-Q4_0.gguf": b"x" for number in range(50)}
    server.page = 7
    assert len(listed(server)) == 50


def test_modelscope_lists_no_more(start: Start, settings: Settings) -> None:
    server = start(FileServer())
    files = [{"Path": f"{number}.gguf", "Size": 1, "Sha256": ""} for number in range(MAX_LISTED_FILES + 1)]
    server.put("/api/v1/models/org/A/repo/files", json.dumps({"Data": {"Files": files}}).encode())
    puller = Puller(settings).use(ms_endpoint=server.url)
    with pytest.raises(DownloadError, match="GGUF files"):
        puller("ms:org/A")


def test_the_worst_listing_costs_little_memory(start: Start, settings: Settings) -> None:
    """Long paths of wide characters, as many as fit, then a page of nothing but small values."""
    wide = "\U00020000" * 50
    pages = [
        json.dumps([gguf_entry(f"{wide}/{page}-{item}") for item in range(1700)], ensure_ascii=False).encode()
        for page in range(5)
    ]
    pages.append(b"[" + b",".join([b'{"type":"file","path":"ab"}'] * 49_000) + b"]")
    assert all(len(page) < MAX_PAGE_BYTES for page in pages)

    class Server(LoopbackServer):
        def route(self, request: Any, path: str, query: Mapping[str, list[str]]) -> None:
            number = int(query.get("cursor", ["0"])[0])
            if "/revision/" in path:
                request.answer_json({"sha": COMMIT})
            else:
                link = f'<{self.url}{path}?cursor={number + 1}>; rel="next"'
                request.answer(200, pages[number], {"Link": link} if number + 1 < len(pages) else {})

    server = start(Server())
    tracemalloc.start()
    try:
        with open_transport(settings, IMPATIENT) as transport:
            files = list_files(NAME, transport, server.url)[1]
            with pytest.raises(BendiError):
                choose(files, None, f"{wide}/0-x.gguf", lambda variant, _by_file: variant.path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(files) == 5 * 1700
    assert peak_bytes < 64 * MIB


def test_an_answer_in_crumbs(start: Start) -> None:
    """A megabyte, byte by byte: receiving each takes longer than any of it is worth."""

    class Server(LoopbackServer):
        def route(self, request: Any, path: str, query: Mapping[str, list[str]]) -> None:
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            for _block in range(1000):
                request.wfile.write(b"1\r\n \r\n" * 1000)

    server = start(Server())
    with Transport(options=IMPATIENT) as transport, pytest.raises(DownloadError, match="a few bytes at a time"):
        transport.get_json(f"{server.url}/x")

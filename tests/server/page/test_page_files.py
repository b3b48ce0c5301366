"""The files of the page: what is served, under which headers, and what must never be in them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from live import LiveServer

from bendi.server.page_files import CSP, FOLDER, page_files

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SCRIPTS = sorted(FOLDER.glob("*.js"))
MAX_FILE_LINES = 500


def test_browsers_get_the_page_and_programs_a_line(server: LiveServer) -> None:
    page = server.client.get("/", headers=BROWSER)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == CSP
    assert page.headers["x-content-type-options"] == "nosniff"
    line = server.client.get("/")
    assert (line.status_code, line.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    seen = server.client.head("/")
    assert (seen.status_code, seen.content, seen.headers["content-type"]) == (200, b"", line.headers["content-type"])


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/x-ndjson"])
def test_clients_of_ollama_find_what_they_look_for(server: LiveServer, accept: str | None) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = httpx.get(server.url, headers=headers, trust_env=False)
    assert (answer.status_code, answer.text) == (200, "Ollama is running")


def test_every_file_has_its_type_and_is_not_sent_twice(server: LiveServer) -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == set(page_files())
    for name, file in page_files().items():
        if name == "index.html":
            continue
        first = server.client.get(f"/page/{name}")
        assert (first.status_code, first.content) == (200, file.content), name
        assert first.headers["content-type"] == file.media_type
        assert first.headers["cache-control"] == "no-cache"
        again = server.client.get(f"/page/{name}", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = server.client.get(f"/page/{name}", headers={"If-None-Match": '"other"'})
        assert other.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/absent.js",
        "/page/index.html",
        "/page/..%2fpage_files.py",
        "/page/%2e%2e/page_files.py",
        "/page//etc/passwd",
        "/page/main.js%00",
        "/page/main.js/",
        "/page/__init__.py",
    ],
)
def test_nothing_else_is_served(server: LiveServer, path: str) -> None:
    assert server.client.get(path, follow_redirects=False).status_code in (404, 401)


class _References(HTMLParser):
    """What a page refers to, and what a strict policy forbids in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [value for name in ("src", "href") if (value := given.get(name)) and value[0] != "#"]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def test_the_page_refers_to_its_own_files_only() -> None:
    references = _References()
    references.feed((FOLDER / "index.html").read_text("utf-8"))
    assert not references.inline
    assert references.found
    assert all(name.removeprefix("/page/") in page_files() for name in references.found)
    for path in SCRIPTS:
        for imported in re.findall(r'^import .*? from "([^"]+)";|^} from "([^"]+)";', path.read_text("utf-8"), re.M):
            name = "".join(imported)
            assert name.startswith("./") and name[2:] in page_files(), f"{path.name} imports {name}"
    for path in FOLDER.glob("*.css"):
        assert not re.search(r"url\(|@import", path.read_text("utf-8")), path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_html_and_no_code_of_texts(path: Path) -> None:
    source = path.read_text("utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc|setHTML"
    assert not re.search(forbidden, source)
    assert source.count("\n") <= MAX_FILE_LINES
    if path.name != "api.js":
        assert not re.search(r"\bfetch\(|XMLHttpRequest|EventSource|WebSocket|sendBeacon|/api/|/v1/", source)

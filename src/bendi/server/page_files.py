"""The web page: static files of this package. They are listed once; no path that a client sends is ever opened.

GET /               the page for browsers; others get the line by which clients of Ollama know that a server is there
GET /page/{name}    its scripts, style sheets and pictures
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.server.endpoint import Call, Endpoint

FOLDER = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, and no script may turn a text into HTML or code."""
GREETING = "Ollama is running"
"""What clients of Ollama look for: some compare the whole text."""


@dataclass(frozen=True)
class PageFile:
    """`etag`: of its bytes, so that a browser asks again and is told in one line that nothing has changed."""

    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> Mapping[str, PageFile]:
    """Every file of the page by name, read once."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in TYPES and path.is_file():
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.name] = PageFile(content, TYPES[path.suffix], etag)
    return found


async def _home(call: Call) -> Response:
    if "text/html" in call.request.headers.get("accept", ""):
        return _answer(call.request, page_files()["index.html"], {"Content-Security-Policy": CSP, "Vary": "Accept"})
    return Response(GREETING, media_type="text/plain; charset=utf-8", headers={"Vary": "Accept"})


async def _file(call: Call) -> Response:
    found = page_files().get(call.request.path_params["name"])
    if found is None or found.media_type.startswith("text/html"):
        raise ApiError(404, _("There is nothing at this path."), code="unknown_path")
    return _answer(call.request, found, {})


def _answer(request: Request, file: PageFile, more: Mapping[str, str]) -> Response:
    headers = {"Cache-Control": "no-cache", "ETag": file.etag, **more}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


_UNCHANGED = {304: "It is what the browser has."}
ENDPOINTS = (
    Endpoint(
        "GET",
        "/",
        _home,
        "public",
        "bendi",
        "The web page for browsers; for others, that a server is here.",
        media_types=("text/plain", "text/html"),
        also=_UNCHANGED,
    ),
    Endpoint(
        "GET",
        "/page/{name}",
        _file,
        "public",
        "bendi",
        "A file of the web page.",
        errors={404: "There is no such file."},
        media_types=tuple(sorted({kind.partition(";")[0] for kind in TYPES.values()} - {"text/html"})),
        also=_UNCHANGED,
    ),
)

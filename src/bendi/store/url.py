"""A GGUF file at a plain URL: its size and validators are asked for with a request for one byte."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from bendi.errors import BendiError, DownloadError, NotFoundError
from bendi.i18n import _
from bendi.store.names import UrlName, is_sha256, store_folder
from bendi.store.remote import RemoteFile, RemoteModel, checked_size
from bendi.store.transport import Answer, Refused, Transport, host_of
from bendi.store.variants import part_path, quant_label, split_of

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def resolve(name: UrlName, transport: Transport) -> RemoteModel:
    """The file (or all parts of a split one) at a URL. Raises NotFoundError or DownloadError."""
    first = _file(name.url, transport, name.sha256)
    files = [first]
    split = split_of(first.path)
    if split:
        parts = urlsplit(name.url)
        folder = parts.path.rpartition("/")[0]
        stem = split_of(parts.path.rpartition("/")[2])
        if stem is None:  # the number itself is percent-encoded: nobody does that in good faith
            raise DownloadError(_("{url} cannot be used").format(url=name.url))
        urls = [
            parts._replace(path=f"{folder}/{part_path(stem[0], number, split[2])}").geturl()
            for number in range(1, split[2] + 1)
        ]
        files = [first if url == name.url else _file(url, transport, None) for url in urls]
    validator = first.sha256 or first.etag or first.last_modified or ""
    plain = UrlName(name.url)  # what the user expects the hash to be is no part of the name
    return RemoteModel(plain, store_folder(plain), tuple(files), validator, quant_label(first.path))


def total_of(answer: Answer) -> int | None:
    """The whole size that an answer to a range request tells, in bytes."""
    if answer.status == 206:
        match = CONTENT_RANGE.fullmatch((answer.header("Content-Range") or "").strip())
        return int(match[3]) if match and match[3] != "*" else None
    return answer.length_bytes


def validators(answer: Answer) -> tuple[str | None, str | None]:
    """(strong ETag, Last-Modified) of an answer. A weak ETag does not promise the same bytes."""
    etag = answer.header("ETag")
    return (etag if etag and etag.startswith('"') else None), answer.header("Last-Modified")


def explain(error: Refused, url: str) -> BendiError:
    """The error for a refusal by a plain web server."""
    if error.status in (404, 410):
        return NotFoundError(_("there is nothing at {url} (HTTP {status})").format(url=url, status=error.status))
    if error.status in (401, 403):
        return DownloadError(
            _("{host} does not give {url} to everybody (HTTP {status})").format(
                host=error.host, url=url, status=error.status
            ),
            hint=_("Download that file with a browser, then: bendi import FILE"),
        )
    return DownloadError(_("{host} refuses (HTTP {status})").format(host=error.host, status=error.status))


def _file(url: str, transport: Transport, sha256: str | None) -> RemoteFile:
    def probe() -> RemoteFile:
        with transport.open(url, {"Range": "bytes=0-0"}) as answer:
            size = total_of(answer)
            if size is not None:
                checked_size(size, host_of(url))
            etag, last_modified = validators(answer)
            linked = answer.linked.get("x-linked-etag", "").strip('"')
            promised = sha256 or (linked if is_sha256(linked) else None)
            path = unquote(urlsplit(url).path).rpartition("/")[2]
            return RemoteFile(url, path, size, promised, None, etag, last_modified)

    try:
        return transport.patiently(probe, url)
    except Refused as error:
        raise explain(error, url) from error

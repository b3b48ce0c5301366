"""A remote file as a `ByteSource`: only the ranges that are asked for cross the network, each of them once.

Headers are read from front to back, so requests begin small and double, and a little is read ahead. A server that
ignores ranges sends everything: then its answer is read only as far as it is needed, and closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from bendi.errors import BendiError, DownloadError, ModelFileError
from bendi.i18n import _
from bendi.store.blocks import PIECE_BYTES, Blocks, Spool
from bendi.store.pieces import Pieces
from bendi.store.remote import RemoteFile, checked_size
from bendi.store.transport import Answer, Refused, Transient, Transport, host_of
from bendi.store.url import CONTENT_RANGE, explain, total_of, validators
from bendi.units import KIB, MIB, format_size

MAX_RECEIVED_BYTES = 64 * MIB
"""What the headers of one model may cost on the network; the largest known take 12 MiB."""
FIRST_REQUEST_BYTES = 64 * KIB
LARGEST_REQUEST_BYTES = MIB
_SMALL_GAP_BYTES = 4 * KIB


class Allowance:
    """Bytes that the files of one model may still cost together. Counts what arrives; safe to use from threads.

    `on_bytes` gets the count, from one thread at a time.
    """

    def __init__(
        self, limit_bytes: int = MAX_RECEIVED_BYTES, on_bytes: Callable[[int], None] = lambda _count: None
    ) -> None:
        self._limit_bytes, self._on_bytes = limit_bytes, on_bytes
        self._lock = threading.Lock()
        self._pieces = Pieces()

    @property
    def received_bytes(self) -> int:
        return self._pieces.received_bytes

    def take(self, size_bytes: int, host: str) -> None:
        """Counts `size_bytes` that have arrived in one piece. Raises ModelFileError when that is more than a header may
        cost, DownloadError when `host` sends too little at a time."""
        with self._lock:
            self._pieces.take(size_bytes, host)
            self._on_bytes(self.received_bytes)
            if self.received_bytes > self._limit_bytes:
                raise ModelFileError(
                    _("its header takes more than {limit}, which no model needs").format(
                        limit=format_size(self._limit_bytes)
                    ),
                    hint=_("Do not trust it. To look at all of it: bendi pull, then bendi verify."),
                )


class HttpByteSource:
    """A remote file, open as long as the `with` block lasts. Use it from one thread at a time.

    `known`: blocks from an earlier look; only what is missing is asked for. `explained` makes an error of a refusal;
    the default is that of a plain web server. `size_bytes` asks the server where the listing did not say it.
    `read_ahead`: brings more than was asked for, since more will be asked for. Reading raises DownloadError,
    NotFoundError, or ModelFileError when `allowance` is used up.
    """

    def __init__(
        self,
        file: RemoteFile,
        transport: Transport,
        allowance: Allowance | None = None,
        known: Blocks | None = None,
        explained: Callable[[Refused, str], BendiError] = explain,
    ) -> None:
        self._file, self._transport, self._explained = file, transport, explained
        self.allowance = allowance or Allowance()
        self._own = ExitStack()
        self.blocks = Blocks(self._own.enter_context(Spool())) if known is None else known
        self.received_bytes = 0
        self.read_ahead = True
        self._size_bytes = file.size_bytes
        stated = (file.etag, file.last_modified)
        self._validators: tuple[str | None, str | None] | None = stated if any(stated) else None
        self._direct: str | None = None
        self._request_bytes = FIRST_REQUEST_BYTES
        self._stack = ExitStack()
        self._stream: Iterator[bytes] | None = None
        self._stream_at = 0

    def __enter__(self) -> HttpByteSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close_stream()
        self._own.close()

    @property
    def size_bytes(self) -> int:
        if self._size_bytes is None:
            self._ask(0, 1)
        assert self._size_bytes is not None
        return self._size_bytes

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        self.bring(offset, size_bytes)
        return self.blocks.read(offset, min(offset + size_bytes, self.size_bytes))

    def bring(self, offset: int, size_bytes: int) -> None:
        """Has the bytes from `offset` here, as far as the file goes, so that `read_at` need not wait for them."""
        end = min(offset + size_bytes, self.size_bytes)
        while (gap := self.blocks.gap(offset, end)) is not None:
            self._ask(*gap)

    def _ask(self, start: int, end: int) -> None:
        """Brings at least the first byte of a range that is missing, and mostly more than the range."""

        def once() -> None:
            gap = self.blocks.gap(start, end)  # an attempt that broke off may have brought some of it
            if gap is not None and self._stream is not None:
                self._follow(end)
            elif gap is not None:
                self._request(*gap)

        try:
            self._transport.patiently(once, self._file.url)
        except Refused as error:
            raise self._explained(error, self._file.url) from error

    def _request(self, start: int, end: int) -> None:
        before, known = self.blocks.around(start)
        if 0 < start - before <= _SMALL_GAP_BYTES:
            start = before  # a reader that walks over a text leaves a few bytes out, and comes back for them later
        wanted = max(end, start + self._request_bytes) if self.read_ahead else end
        wanted = min(part for part in (wanted, known, self._size_bytes) if part is not None)
        self._request_bytes = min(2 * self._request_bytes, LARGEST_REQUEST_BYTES)
        try:
            with ExitStack() as stack:
                answer = stack.enter_context(self._open(start, wanted))
                if answer.status == 206:
                    self._receive(answer, start, wanted)
                    return
                if answer.length_bytes is None:
                    self._receive_unmeasured(answer)
                    return
                self._check(answer)
                # All of the file is coming. Its answer stays open, to be read on where the next question ends.
                self._stack = stack.pop_all()
            self._stream, self._stream_at = answer.blocks(), 0
            self._follow(end)
        except Refused as error:
            # The address that a redirect gave is valid for a while only.
            if self._direct is None or error.status not in (401, 403, 404, 410):
                raise
            self._direct = None
            self._request(start, end)

    def _open(self, start: int, end: int) -> AbstractContextManager[Answer]:
        return self._transport.open(self._direct or self._file.url, {"Range": f"bytes={start}-{end - 1}"})

    def _receive(self, answer: Answer, start: int, end: int) -> None:
        """The body of a part: exactly what was asked for, or less where the file ends."""
        match = CONTENT_RANGE.fullmatch((answer.header("Content-Range") or "").strip())
        last = int(match[2]) + 1 if match else 0
        if not match or int(match[1]) != start or last > end or (last < end and last != total_of(answer)):
            raise DownloadError(
                _("{host} sends another part of the file than was asked for").format(host=host_of(answer.url)),
                hint=_("Use another source of the same model."),
            )
        self._check(answer)
        self._direct = answer.url if answer.url != self._file.url else None
        received, waiting = 0, bytearray()
        try:
            for block in answer.blocks():
                self._count(block, answer)
                received += len(block)
                if received > last - start:
                    waiting.clear()
                    raise DownloadError(
                        _("{host} sends more than it announces").format(host=host_of(answer.url)),
                        hint=_("Use another source of the same model."),
                    )
                waiting += block
                if len(waiting) >= PIECE_BYTES:
                    self.blocks.add(start + received - len(waiting), waiting)
                    waiting.clear()
        finally:
            if waiting:
                self.blocks.add(start + received - len(waiting), waiting)
        if received < last - start:
            raise Transient(_("the connection broke after {size}").format(size=format_size(received)))

    def _receive_unmeasured(self, answer: Answer) -> None:
        """All of a small file whose size its server does not tell."""
        body = bytearray()
        for block in answer.blocks():
            self._count(block, answer)
            body += block
            if len(body) > LARGEST_REQUEST_BYTES:
                raise _unmeasured(answer, self._file)
        if self._size_bytes not in (None, len(body)):
            raise Transient(_("the connection broke after {size}").format(size=format_size(len(body))))
        self._size_bytes = len(body)
        self.blocks.fill(0, bytes(body))

    def _follow(self, end: int) -> None:
        """Reads on in the answer that brings all of the file, until `end`."""
        assert self._stream is not None
        try:
            while self.blocks.gap(0, end) is not None:
                block = next(self._stream, None)
                if block is None:
                    raise Transient(_("the connection broke after {size}").format(size=format_size(self._stream_at)))
                self.received_bytes += len(block)
                self.allowance.take(len(block), host_of(self._file.url))
                start, self._stream_at = self._stream_at, self._stream_at + len(block)
                self.blocks.fill(start, block)
        except BaseException:
            self._close_stream()
            raise

    def _close_stream(self) -> None:
        self._stream = None
        self._stack.close()

    def _count(self, block: bytes, answer: Answer) -> None:
        self.received_bytes += len(block)
        self.allowance.take(len(block), host_of(answer.url))

    def _check(self, answer: Answer) -> None:
        """Whether an answer is about the file that was promised, and about the same one as those before."""
        host = host_of(answer.url)
        total = total_of(answer)
        if total is None:  # `Content-Range: bytes 0-99/*`
            raise _unmeasured(answer, self._file)
        checked_size(total, host)
        # A promised hash names the file; its copies on several servers may have different dates.
        now = validators(answer) if self._file.sha256 is None else None
        if self._size_bytes not in (None, total) or (self._validators and now and now != self._validators):
            raise DownloadError(
                _("{file} on {host} is not the file that was announced: it has {actual} bytes").format(
                    file=self._file.path, host=host, actual=total
                ),
                hint=_("It may just have been replaced there: try again."),
            )
        self._size_bytes, self._validators = total, now


def _unmeasured(answer: Answer, file: RemoteFile) -> DownloadError:
    return DownloadError(
        _("{host} does not say how large {file} is, so it cannot be looked at from afar").format(
            host=host_of(answer.url), file=file.path
        ),
        hint=_("Download it: bendi pull"),
    )

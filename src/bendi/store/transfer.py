"""The bytes of one file on their way into its part file: several requests at once, each for a piece.

What is missing is always computed from what is there and what somebody is fetching, so a failed piece needs no
bookkeeping: it is simply missing again. A server that ignores ranges, or gives nothing by which two of its answers
could be told to be of one file, gets a single request for the whole.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from bendi.errors import BendiError, DownloadError, StoreError
from bendi.i18n import _
from bendi.store.disk import store_error
from bendi.store.journal import Identity, PartFile
from bendi.store.remote import RemoteFile
from bendi.store.transport import Answer, Refused, Transient, Transport, host_of, unreachable
from bendi.store.url import CONTENT_RANGE, explain, total_of, validators
from bendi.units import format_size

_TICK_S = 0.05
_JOIN_S = 1.0
_MAX_RESTARTS = 3
_MAX_REQUESTS = 128
"""A large file is cut into at most so many pieces: servers count requests, too."""


class _Changed(Exception):
    """The file over there is not the one that was begun, or cannot be continued (`whole`): start again."""

    def __init__(self, identity: Identity, *, whole: bool = False) -> None:
        super().__init__()
        self.identity, self.whole = identity, whole


class Transfer:
    """One file. Workers fetch pieces; the caller's thread watches, reports, saves, and stops them."""

    def __init__(self, file: RemoteFile, part: PartFile, transport: Transport) -> None:
        self._file, self._part, self._transport = file, part, transport
        self._options = transport.options
        self._changed = threading.Condition()
        self._claimed: dict[int, tuple[int, int]] = {}
        self._open: dict[int, Answer] = {}
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._active = 0
        self._most = self._options.connections
        self._parallel = False  # until an answer shows that ranges work
        self._whole = not part.identity.resumable
        self._restarts = 0
        self._best_bytes = part.done_bytes

    def run(self, on_done: Callable[[int], None]) -> None:
        """Until every byte is there; `on_done` gets their number, in this thread.

        On any exception, KeyboardInterrupt included, the workers are stopped and what has arrived is journalled.
        """
        threads: list[threading.Thread] = []
        saved_s = time.monotonic()
        try:
            while not self._part.complete:
                self._raise_error()
                on_done(self._part.done_bytes)
                threads.extend(self._hire())
                with self._changed:
                    self._changed.wait(_TICK_S)
                if time.monotonic() - saved_s > self._options.journal_period_s:
                    self._part.save()
                    saved_s = time.monotonic()
            on_done(self._part.done_bytes)
        except BaseException:
            self._halt(threads)
            with contextlib.suppress(StoreError):  # the first error is the one to tell
                self._part.save()
            raise
        self._halt(threads)
        self._part.save()

    def _hire(self) -> list[threading.Thread]:
        """Starts workers while there is work for them. One too many ends at once, having found nothing to do."""
        with self._changed:
            allowed = self._most if self._parallel and not self._whole else 1
            fresh = max(0, allowed - self._active) if self._next_piece() is not None else 0
            self._active += fresh
        threads = [threading.Thread(target=self._work, daemon=True, name="bendi-pull") for _number in range(fresh)]
        for thread in threads:
            thread.start()
        return threads

    def _halt(self, threads: list[threading.Thread]) -> None:
        self._stop.set()
        with self._changed:
            for answer in self._open.values():
                answer.abort()
        for thread in threads:
            thread.join(_JOIN_S)

    def _raise_error(self) -> None:
        if isinstance(self._error, OSError):
            raise store_error(self._error, self._part.path) from self._error
        if self._error is not None:
            raise self._error

    def _next_piece(self) -> tuple[int, int] | None:
        """What to ask for next; the end is -1 where the size is unknown. Called with the lock held."""
        size = self._part.identity.size_bytes
        if self._whole or size is None:
            return None if self._claimed or self._part.complete else (0, -1 if size is None else size)
        piece_bytes = max(self._options.piece_bytes, size // _MAX_REQUESTS)
        return next(iter(self._part.missing(piece_bytes, tuple(self._claimed.values()))), None)

    def _work(self) -> None:
        """One worker: pieces until there are none, or until it fails too often."""
        me = threading.get_ident()
        failures = 0
        try:
            while not self._stop.is_set():
                with self._changed:
                    piece = self._next_piece()
                    if piece is None:
                        return
                    self._claimed[me] = piece
                    if self._whole and self._part.done_bytes:  # a request for the whole begins anew
                        self._part.restart(self._part.identity)
                    generation = self._part.generation
                try:
                    self._load(piece, generation)
                    failures = 0
                except _Changed as changed:
                    self._restart(changed, generation)
                except Transient as error:
                    failures = 1 if self._progressed() else failures + 1
                    if failures >= self._options.attempts and self._retire():
                        return
                    if failures >= self._options.attempts:
                        raise unreachable(self._file.url, error) from error
                    self._stop.wait(self._transport.pause_s(error, failures, self._file.url))
                finally:
                    with self._changed:
                        self._claimed.pop(me, None)
        except Refused as error:
            self._fail(self._refused(error))
        except BaseException as error:
            self._fail(error)
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def _progressed(self) -> bool:
        """Whether more bytes are there than ever before. Loading the same bytes again is no progress."""
        with self._changed:
            done_bytes = self._part.done_bytes
            if done_bytes <= self._best_bytes:
                return False
            self._best_bytes = done_bytes
            return True

    def _retire(self) -> bool:
        """Lets this worker go when others still work: a server may allow fewer connections than we would like."""
        with self._changed:
            if self._active <= 1:
                return False
            self._most = max(1, self._active - 1)
            return True

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error

    def _restart(self, changed: _Changed, generation: int) -> None:
        with self._changed:
            if generation != self._part.generation:
                return
            self._restarts += 1
            self._whole = self._whole or changed.whole
            if self._restarts > _MAX_RESTARTS:
                raise DownloadError(
                    _("{host} keeps changing {file} while it is downloaded").format(
                        host=host_of(self._file.url), file=self._file.path
                    ),
                    hint=_("Try again later, or use another source of the same model."),
                )
            self._part.restart(changed.identity)

    def _load(self, piece: tuple[int, int], generation: int) -> None:
        start, end = piece
        identity = self._part.identity
        headers = {"Range": f"bytes={start}-{end - 1 if end > 0 else ''}"}
        validator = identity.etag or identity.last_modified
        if start and validator and not identity.has_hash:
            headers["If-Range"] = validator
        me = threading.get_ident()
        with self._transport.open(self._file.url, headers) as answer:
            with self._changed:
                self._open[me] = answer
                if self._stop.is_set():
                    return
            try:
                self._receive(answer, start, self._check(answer, start, end), generation)
            finally:
                with self._changed:
                    self._open.pop(me, None)

    def _check(self, answer: Answer, start: int, end: int) -> int | None:
        """Compares an answer with what was promised. Returns where its body must end, None when nobody knows."""
        total = total_of(answer)
        identity = self._part.identity
        if not identity.has_hash and validators(answer) != (identity.etag, identity.last_modified):
            etag, last_modified = validators(answer)
            raise _Changed(replace(identity, size_bytes=total, etag=etag, last_modified=last_modified))
        if total is not None and identity.size_bytes is not None and total != identity.size_bytes:
            raise _lying(self._file, str(total), identity.size_bytes)
        if total is not None:
            self._part.learn(replace(identity, size_bytes=total))
        if answer.status == 206:
            match = CONTENT_RANGE.fullmatch((answer.header("Content-Range") or "").strip())
            if not match or int(match[1]) != start or (end > 0 and int(match[2]) >= end):
                raise DownloadError(
                    _("{host} sends another part of the file than was asked for").format(host=host_of(answer.url))
                )
            self._parallel = True
            return int(match[2]) + 1
        if start or self._part.done_bytes:
            raise _Changed(identity, whole=True)
        self._whole = True
        return self._part.identity.size_bytes

    def _receive(self, answer: Answer, position: int, end: int | None, generation: int) -> None:
        for block in answer.blocks():
            if self._stop.is_set():
                return
            if end is not None and position + len(block) > end:
                raise _lying(self._file, f"> {end}", end)
            if not self._part.write(generation, position, block):
                return
            position += len(block)
        if end is None:
            self._part.learn(replace(self._part.identity, size_bytes=position))
        elif position < end:
            raise Transient(_("the connection broke after {size}").format(size=format_size(position)))

    def _refused(self, error: Refused) -> BendiError:
        size_bytes = self._part.identity.size_bytes
        if error.status == 416 and size_bytes is not None:
            return _lying(self._file, f"< {size_bytes}", size_bytes)
        return explain(error, self._file.url)


def _lying(file: RemoteFile, actual: str, promised: int) -> DownloadError:
    return DownloadError(
        _("{host} sends {actual} bytes of {file}, but {promised} were promised").format(
            host=host_of(file.url), actual=actual, file=file.path, promised=promised
        ),
        hint=_("The file may just have been replaced there. Try again, or use another source."),
    )

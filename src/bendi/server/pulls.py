"""Downloads that clients asked for. Who asks for a model that is on its way sees the same download.

A download goes on as long as anybody watches it; what has arrived when the last one leaves is kept, and the next pull
goes on from there.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from bendi.errors import UsageError
from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.store import Store
from bendi.store.names import AliasName, OllamaName, RepoName, parse_name
from bendi.store.progress import Progress
from bendi.store.pull import PullEvents, PullResult, pull

_TELL_EVERY_S = 0.1

PULL_ERRORS: Mapping[int, str] = {
    400: "This cannot be pulled by name.",
    403: "The key may not do this, or bendi is set to open no connections.",
    404: "There is no such model.",
    422: "What came is no model that can be used.",
    502: "The source could not be reached, or sent something else than it promised.",
    507: "It could not be kept: there is not enough disk, or it cannot be written.",
}
"""Of endpoints that download."""

PullNews = Progress | str | PullResult
"""How far it is; a sentence for people; and at the end what there is now."""


def pull_name(text: str) -> str:
    """`text`, when it is a name that clients may have downloaded: of a repository, of the registry of the settings, or
    a short name. Raises ApiError: no address that a client sends is ever opened."""
    try:
        name = parse_name(text)
    except UsageError as error:
        raise ApiError(400, f"{error.message} {error.hint}".strip(), code="invalid_name", param="model") from error
    if isinstance(name, RepoName | AliasName) or (isinstance(name, OllamaName) and name.host is None):
        return text.strip()
    raise ApiError(
        400,
        _("Over the network, models are pulled by name only, not from an address or a path.")
        + " "
        + _("On the machine itself: {command}").format(command="bendi pull …"),
        code="invalid_name",
        param="model",
    )


class _Left(Exception):
    """Nobody watches any more."""


@dataclass(eq=False)
class _Job:
    """One download and those who watch it. `latest`: for who comes later."""

    watchers: set[asyncio.Queue[PullNews | Exception]]
    abandoned: threading.Event
    latest: Progress | None = None


class Pulls:
    """The downloads that run, by name. Lives in one event loop."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}

    async def watch(self, store: Store, text: str) -> AsyncGenerator[PullNews]:
        """Has the model downloaded, or watches its download; ends with a PullResult. Raises as `store.pull.pull`."""
        name = pull_name(text)
        news: asyncio.Queue[PullNews | Exception] = asyncio.Queue()
        job = self._jobs.get(name)
        if job is None:
            job = self._jobs[name] = _Job(set(), threading.Event())
            loop = asyncio.get_running_loop()
            self._start(store, name, job, lambda item: _call(loop, self._spread, name, job, item))
        elif job.latest is not None:
            news.put_nowait(job.latest)
        job.watchers.add(news)
        try:
            while True:
                item = await news.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if isinstance(item, PullResult):
                    return
        finally:
            job.watchers.discard(news)
            if not job.watchers:
                job.abandoned.set()
                if self._jobs.get(name) is job:
                    del self._jobs[name]

    def _start(self, store: Store, name: str, job: _Job, tell: Callable[[PullNews | Exception], None]) -> None:
        told_s = 0.0

        def show(progress: Progress) -> None:
            nonlocal told_s
            if job.abandoned.is_set():
                raise _Left
            now_s = time.monotonic()
            if now_s - told_s >= _TELL_EVERY_S or progress.done_bytes == progress.total_bytes:
                told_s = now_s
                tell(progress)

        def work() -> None:
            try:
                tell(pull(store, name, events=PullEvents(progress=show, note=tell)))
            except Exception as error:
                tell(error)

        threading.Thread(target=work, name="bendi-pull", daemon=True).start()

    def _spread(self, name: str, job: _Job, item: PullNews | Exception) -> None:
        if isinstance(item, Progress):
            job.latest = item
        elif not isinstance(item, str) and self._jobs.get(name) is job:
            del self._jobs[name]
        for watcher in job.watchers:
            watcher.put_nowait(item)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: the server has ended
        loop.call_soon_threadsafe(function, *arguments)

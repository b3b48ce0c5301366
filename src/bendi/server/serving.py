"""`bendi serve` without its command line: from the settings to a server that runs, and from a signal to its end.

Ending: the first SIGTERM or Ctrl-C lets answers finish, for as long as the settings say; a second one ends at once.
Workers never outlive the server, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from bendi.engines import scheduling
from bendi.errors import ConfigError, DataError
from bendi.i18n import _
from bendi.server.app import ALL, WITHOUT_PAGE, create_app
from bendi.server.keys import KeyRing
from bendi.server.kinds import usual_kind
from bendi.server.listening import Place, check_place, open_sockets
from bendi.server.metrics import Metrics
from bendi.server.middleware import Log
from bendi.server.policy import policy_for
from bendi.server.pool import ModelPool, PoolLimits, Wish
from bendi.server.process_memory import collect_less, receive_small_pieces, return_holes, return_large_pieces
from bendi.server.running_server import RunningServer, announced
from bendi.server.services import Services
from bendi.server.stored_answers import StoredAnswers
from bendi.settings import Settings
from bendi.store import Store
from bendi.store.names import PathName, as_name

EXIT_FORCED = 130
_SAVE_KEYS_EVERY_S = 300.0
_TIDY_EVERY_S = 60.0
_HARD_END_S = 5.0
_HEAD_BYTES = 64 * 1024
_WISHED_FILES = 65536
_QUIET_KEEP_ALIVE_S = 75
_TICK_S = 1.0


@dataclass(frozen=True)
class Start:
    """`models`: loaded before anybody may ask, and kept. `on_ready` gets the address, such as `http://127.0.0.1:23634`.
    `page`: whether there is a web page at it."""

    place: Place
    models: tuple[str, ...]
    on_ready: Callable[[str], None]
    log: Log
    page: bool = True


def serve(settings: Settings, start: Start) -> int:
    """Serves until a signal comes. Returns the exit code: 0 when every answer could finish, or was given its time.

    Raises UsageError and ConfigError before anything is opened to others; NotFoundError, OutOfMemory and EngineError
    when a model of `start` cannot be loaded.
    """
    keys = KeyRing(settings.keys_file)
    check_place(start.place, keys)
    _allow_many_connections()
    receive_small_pieces()
    return_large_pieces()
    scheduling.run_promptly()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(listener) for listener in open_sockets(start.place)]
        files = [name.path for text in start.models if isinstance(name := as_name(text), PathName)]
        services = make_services(settings, keys, files)
        stack.callback(services.close)
        stack.enter_context(_logging_to(start.log))
        return asyncio.run(_Run(services, start, sockets).until_told())


def make_services(settings: Settings, keys: KeyRing | None = None, files: Sequence[Path] = ()) -> Services:
    """What handlers use, for one server. `files`: models outside the store that clients may ask by their paths."""
    store = Store(settings)
    metrics = Metrics()
    limits = replace(PoolLimits.of(settings), files=tuple(files))
    return Services(
        settings=settings,
        store=store,
        pool=ModelPool(settings, store, limits, metrics),
        keys=keys or KeyRing(settings.keys_file),
        metrics=metrics,
        stored=StoredAnswers(settings.responses_file),
    )


def server_config(app: ASGIApp, place: Place, drain_s: float) -> uvicorn.Config:
    """How uvicorn runs it: HTTP and nothing else, within limits. Raises ConfigError when TLS cannot be used."""
    config = uvicorn.Config(
        app,
        log_config=None, access_log=False, server_header=False,
        lifespan="off", ws="none", http=Connection,
        # Nobody may say in a header from where a request came.
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_keep_alive=_QUIET_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(drain_s),
        ssl_certfile=place.tls_cert, ssl_keyfile=place.tls_key,
    )  # fmt: skip
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            _("TLS cannot be used with {cert} and {key}: {error}").format(
                cert=place.tls_cert, key=place.tls_key, error=error
            ),
            hint=_("Both must be PEM files, the key without a password and belonging to the certificate."),
        ) from error
    return config


class Connection(H11Protocol):
    """uvicorn's connection, which would be kept until its keep-alive time is over when its client reset it, and sends
    the head of an answer and what comes with it one by one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(HeadWaits(transport))  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None


class HeadWaits:
    """A transport on which the head of an answer waits for what is written in the same step: a client that is woken
    twice takes the processor twice, and from the engine."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head = transport, b""
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            self.write(b"")


class Server(uvicorn.Server):
    """uvicorn, which leaves signals to us: it would end the process with the signal's own code. And which sleeps: it
    would look ten times a second whether to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # the date of answers is that of the last tick
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _TICK_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class _Run:
    """One life of a server."""

    services: Services
    start: Start
    sockets: list[socket.socket]
    _signals: int = field(default=0, init=False)
    _told: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def until_told(self) -> int:
        services = self.services
        services.phase.now = "starting"
        policy = policy_for(services.settings, self.start.place.host)
        app = create_app(services, policy, self.start.log, ALL if self.start.page else WITHOUT_PAGE)
        server = Server(server_config(app, self.start.place, services.settings.serve_drain_s))
        main = asyncio.current_task()
        assert main
        with _signals_to(lambda: self._on_signal(server, main)):
            serving = asyncio.create_task(server.serve(self.sockets))
            keeping = asyncio.create_task(self._keep_uses())
            tidying = asyncio.create_task(_tidy())
            try:
                with self._announced():
                    await self._load_models()
                    await serving
                return 0
            except asyncio.CancelledError:
                if self._signals < 2:
                    raise
                return EXIT_FORCED
            finally:
                keeping.cancel()
                tidying.cancel()
                server.end()
                await services.pool.close(0.0)
                services.keys.save_used()
                self.start.log({"event": "ended"})

    async def _load_models(self) -> None:
        """Then the server is ready, unless it was told to end meanwhile."""
        loading = asyncio.create_task(self._pin_models())
        told = asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait({loading, told}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                await loading
        finally:
            told.cancel()
            loading.cancel()
        if not self._told.is_set():
            collect_less()
            self.services.phase.now = "ready"
            address = self.sockets[0].getsockname()
            name = self._shown_name()
            url = f"{self.start.place.scheme}://{name}:{address[1]}"
            self.start.log({"event": "ready", "url": url})
            self.start.on_ready(url)

    async def _pin_models(self) -> None:
        pool = self.services.pool
        for name in self.start.models:
            model = await pool.model_of(Wish(name))
            kind = await asyncio.to_thread(usual_kind, model.path)
            self.start.log({"event": "loading", "model": model.name})
            async with pool.lease(Wish(name, kind, keep_alive_s=math.inf, session=None)):
                await pool.pin(name, True)

    @contextlib.contextmanager
    def _announced(self) -> Iterator[None]:
        """While inside, `bendi ps` and the other verbs find this server."""
        place = self.start.place
        host, port = self.sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        server = RunningServer(
            url=f"{place.scheme}://{f'[{host}]' if ':' in host else host}:{port}",
            pid=os.getpid(),
            key=self.services.keys.own_key(),
            certificate=str(place.tls_cert.absolute()) if place.tls_cert else "",
        )
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(announced(self.services.settings, server))
            except DataError as error:
                self.start.log({"event": "not_announced", "reason": error.message})
            yield

    def _shown_name(self) -> str:
        host = self.start.place.host
        if host in ("0.0.0.0", "::"):
            return socket.gethostname()
        return f"[{host}]" if ":" in host else host

    def _on_signal(self, server: Server, main: asyncio.Task[Any]) -> None:
        self._signals += 1
        if self._signals == 1:
            self.services.phase.now = "draining"
            self.start.log({"event": "draining", "for_s": self.services.settings.serve_drain_s})
            self._told.set()
            server.end()
        elif self._signals == 2:
            # Should anything hold the end up, the process goes, and the kernel ends the workers with it.
            timer = threading.Timer(_HARD_END_S, os._exit, (EXIT_FORCED,))
            timer.daemon = True
            timer.start()
            main.cancel()

    async def _keep_uses(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_KEYS_EVERY_S)
            await asyncio.to_thread(self.services.keys.save_used)


async def _tidy() -> None:
    while True:
        await asyncio.sleep(_TIDY_EVERY_S)
        await asyncio.to_thread(return_holes)


@contextlib.contextmanager
def _signals_to(on_signal: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.getsignal(number)
        if sys.platform == "win32":
            signal.signal(number, lambda *_args: loop.call_soon_threadsafe(on_signal))
        else:
            loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextlib.contextmanager
def _logging_to(log: Log) -> Iterator[None]:
    """What uvicorn and asyncio have to say goes where everything goes, without texts of exceptions."""
    handler = _Forward(log)
    loggers = [logging.getLogger(name) for name in ("uvicorn", "asyncio")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


class _Forward(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        said = record.getMessage().splitlines()[:1]
        self._log({"event": "server", "level": record.levelname.lower(), "said": said, "kind": kind})


def _allow_many_connections() -> None:
    """A stream needs two files, and many systems begin with 1024."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wished = _WISHED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WISHED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wished:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wished, hard))

"""A real server on loopback for tests: uvicorn in a thread, everything behind it real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import httpx

from bendi.server.app import ALL, create_app
from bendi.server.endpoint import Endpoint
from bendi.server.listening import Place, open_sockets
from bendi.server.policy import Policy
from bendi.server.pool import ModelPool
from bendi.server.serving import Server, make_services, server_config
from bendi.settings import Settings


class LiveServer:
    """`url`: where it listens. `log`: what it has logged. `client`: an HTTP client for it, closed with it.
    `pool`: instead of the usual one."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy | None = None,
        endpoints: tuple[Endpoint, ...] = ALL,
        pool: ModelPool | None = None,
    ) -> None:
        self.services = make_services(settings)
        if pool:
            self.services = replace(self.services, pool=pool)
        self.log: list[Mapping[str, Any]] = []
        app = create_app(self.services, policy or Policy(), self.log.append, endpoints)
        self._sockets = open_sockets(Place("127.0.0.1", 0))
        self.port = self._sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        self._server = Server(server_config(app, Place("127.0.0.1", self.port), drain_s=5.0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            try:
                await self._server.serve(self._sockets)
            finally:
                await self.services.pool.close(0.0)
                self.services.close()

        asyncio.run(main())

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            self._thread.join(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        with suppress(RuntimeError):  # its loop is closed: a test has ended it before
            self._loop.call_soon_threadsafe(self._server.end)
        self._thread.join(30)
        assert not self._thread.is_alive()

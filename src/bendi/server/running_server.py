"""The server that runs on this machine: where it is, as it wrote down itself, and what other verbs ask it.

`serve.json` in the state folder is readable by its owner only: where keys exist, it holds one that was made for this
purpose and is good for as long as the server runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from bendi.chat.durable import write_durably
from bendi.errors import BendiError, DataError, NotFoundError
from bendi.i18n import _
from bendi.settings import Settings

FILE_NAME = "serve.json"
_LONGEST_FILE_BYTES = 64 * 1024
_CONNECT_S = 5.0
_ANSWER_S = 900.0
"""Loading a large model takes minutes."""


@dataclass(frozen=True)
class RunningServer:
    """`url`: where this machine reaches it, such as `http://127.0.0.1:23634`. `key`: with all rights, empty where none
    is needed. `certificate`: of TLS, the only one to be accepted; empty without TLS."""

    url: str
    pid: int
    key: str = ""
    certificate: str = ""


def server_file(settings: Settings) -> Path:
    return settings.state_dir / FILE_NAME


@contextlib.contextmanager
def announced(settings: Settings, server: RunningServer) -> Iterator[None]:
    """While inside, others find `server`. The last one that was started is found, where there are several.

    Raises DataError when that cannot be written down.
    """
    path = server_file(settings)
    try:
        write_durably(path, json.dumps(asdict(server)).encode())
    except OSError as error:
        raise DataError(
            _("{path} cannot be written: {error}").format(path=path, error=error),
            hint=_("See `bendi doctor` for the folders and their free space."),
        ) from error
    try:
        yield
    finally:
        if _read(path) == server:
            with contextlib.suppress(OSError):
                path.unlink()


def find_server(settings: Settings) -> RunningServer:
    """Raises NotFoundError when none runs."""
    server = _read(server_file(settings))
    if server is None or not _runs(server.pid):
        raise _none_runs()
    return server


def ask_server(
    settings: Settings, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = _ANSWER_S
) -> dict[str, Any]:
    """What the server of this machine answers. Raises NotFoundError when none runs, or when it says so; BendiError
    with its words when it refuses."""
    server = find_server(settings)
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    limits = httpx.Timeout(timeout_s, connect=_CONNECT_S)
    try:
        with httpx.Client(verify=_trust(server), trust_env=False, timeout=limits) as client:
            answer = client.request(method, server.url + path, headers=headers, json=body)
            content = answer.json()
    except httpx.ConnectError as error:
        raise _none_runs() from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise BendiError(
            _("The server at {url} did not answer: {error}").format(url=server.url, error=error),
            hint=_("Look at what it prints, or start it again: {command}").format(command="bendi serve"),
        ) from error
    if answer.status_code >= 400:
        said = str((content.get("error") or {}).get("message") or answer.status_code)
        raise (NotFoundError if answer.status_code == 404 else BendiError)(said)
    assert isinstance(content, dict)
    return content


def _trust(server: RunningServer) -> ssl.SSLContext | bool:
    """This machine is reached by an address that need not stand in the certificate; the certificate itself must be the
    server's."""
    if not server.certificate:
        return True
    context = ssl.create_default_context(cafile=server.certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # whoever has signed it
    return context


def _read(path: Path) -> RunningServer | None:
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_LONGEST_FILE_BYTES))
        server = RunningServer(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (server.url, server.key, server.certificate)
    return server if all(isinstance(text, str) for text in texts) and isinstance(server.pid, int) else None


def _runs(pid: int) -> bool:
    if os.name != "posix":
        return True  # asking it will tell
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _none_runs() -> NotFoundError:
    return NotFoundError(
        _("No server runs on this machine for this user."), hint=_("Start it: {command}").format(command="bendi serve")
    )

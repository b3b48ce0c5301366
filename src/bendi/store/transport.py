"""The one file that opens connections to other machines.

- A token goes to the origin it belongs to and nowhere else: redirects are followed by hand, and every hop asks again.
  Never over plain http, except to this machine. What a server names in `WWW-Authenticate` is never contacted.
- Bodies arrive as they are stored (`Accept-Encoding: identity`); a compressed answer is refused, never unpacked.
- Nothing is sent but the request itself: no telemetry, no identifier, no cookie kept.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from bendi.errors import DownloadError, Offline
from bendi.formats.json_scan import bounded_json
from bendi.i18n import _
from bendi.lazy import lazily
from bendi.store.pieces import Pieces
from bendi.units import MIB, format_duration

if TYPE_CHECKING:
    import httpx
else:
    httpx = lazily("httpx")  # looking at a model of this machine must not wait for it

USER_AGENT = "bendi/0.1"
_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
MAX_JSON_BYTES = 4 * MIB
"""Listings take some 500 bytes a file, and a page of the hub has 1000 files."""
T = TypeVar("T")


@dataclass(frozen=True)
class DownloadOptions:
    """How patient and how parallel. Times in seconds, sizes in bytes.

    `attempts`: failures in a row, without one new byte, before giving up; the pause between them starts at `backoff_s`
    and doubles up to `backoff_max_s`, or is what the server asks for, at most `retry_after_max_s`. `stall_s`: silence
    after which a connection is taken for dead. `piece_bytes`: what one request asks for; several of them run at once
    on `connections` connections. `disk_reserve_bytes`: what must stay free on the disk.
    """

    connections: int = 4
    piece_bytes: int = 32 * MIB
    attempts: int = 6
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 300.0
    connect_s: float = 15.0
    stall_s: float = 30.0
    redirects: int = 10
    journal_period_s: float = 2.0
    disk_reserve_bytes: int = 256 * MIB


class Transient(Exception):
    """A failure that may pass: the connection broke, the server is busy. `reason` is for the user."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """A definite answer that is not the file: `status`, and the `code` that some servers add."""

    def __init__(self, status: int, host: str, code: str = "") -> None:
        super().__init__(f"{host}: {status} {code}")
        self.status, self.host, self.code = status, host, code


class Answer:
    """An answer whose body has not been read yet. `linked`: headers of the first redirect, by lower-case name.

    `body_bytes`: the length of a body that was read as a whole.
    """

    def __init__(self, response: httpx.Response, linked: Mapping[str, str]) -> None:
        self._response = response
        self.linked = linked
        self.status = response.status_code
        self.url = str(response.url)
        self.body_bytes = 0

    def header(self, name: str) -> str | None:
        value = self._response.headers.get(name)
        return None if value is None else str(value)

    @property
    def length_bytes(self) -> int | None:
        """What `Content-Length` says, if it says something."""
        text = self.header("Content-Length") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

    def blocks(self) -> Iterator[bytes]:
        """The body, as it arrives. Raises Transient when it breaks off before its announced end."""
        try:
            with _transient(self.url):
                yield from self._response.iter_raw()
        except httpx.StreamError as error:  # closed by `abort`, from another thread
            raise Transient(str(error)) from error

    def abort(self) -> None:
        """Wakes a thread that waits for the body, which then gets Transient. Callable from any thread."""
        stream = self._response.extensions.get("network_stream")
        raw = stream.get_extra_info("socket") if stream is not None else None
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)


class Transport:
    """Connections for one pull. A context manager.

    `tokens`: secret by the endpoint it is for. `offline`: refuses before any socket is made.
    """

    def __init__(
        self, tokens: Mapping[str, str] | None = None, options: DownloadOptions | None = None, *, offline: bool = False
    ) -> None:
        self.options = options or DownloadOptions()
        self._tokens = {origin(endpoint): token for endpoint, token in (tokens or {}).items()}
        self._offline = offline
        # Threads that met at its first use would find the library half imported.
        self._client_type = httpx.Client
        self._client: httpx.Client | None = None

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """GETs `url`, following redirects. Raises Transient, Refused, or DownloadError for what cannot pass."""
        linked: dict[str, str] = {}
        for _hop in range(self.options.redirects + 1):
            with _transient(url):
                response = self._send(url, headers or {})
            try:
                if response.status_code in _REDIRECTS and "Location" in response.headers:
                    linked = linked or {name.lower(): value for name, value in response.headers.items()}
                    url = _redirected(response)
                    continue
                _check_status(response)
                yield Answer(response, linked or {name.lower(): value for name, value in response.headers.items()})
                return
            finally:
                response.close()
        raise DownloadError(
            _("{host} redirects in circles").format(host=host_of(url)),
            hint=_("Try again later, or another source of the same model."),
        )

    def get_json(
        self, url: str, *, accept: str = "application/json", limit_bytes: int = MAX_JSON_BYTES, attempts: int = 0
    ) -> tuple[Any, Answer]:
        """The JSON at `url` and its answer. Tries again as the options say. Raises Refused or DownloadError."""

        def once() -> tuple[Any, Answer]:
            body, answer = self._read(url, accept, limit_bytes)
            try:
                return bounded_json(body), answer
            except ValueError as error:
                raise DownloadError(
                    _("the answer of {host} is not what its protocol says").format(host=host_of(url)),
                    hint=_("A proxy or login page may be in between. Open this in a browser: {url}").format(url=url),
                ) from error

        return self.patiently(once, url, attempts)

    def get_bytes(self, url: str, limit_bytes: int) -> bytes:
        """A small body. Raises Refused, or DownloadError, also when it is larger than `limit_bytes`."""
        return self.patiently(lambda: self._read(url, "*/*", limit_bytes)[0], url)

    def patiently(self, call: Callable[[], T], url: str, attempts: int = 0) -> T:
        """`call()`, again after Transient. Raises DownloadError when it never works."""
        attempts = attempts or self.options.attempts
        for attempt in range(1, attempts + 1):
            try:
                return call()
            except Transient as error:
                if attempt == attempts:
                    raise unreachable(url, error) from error
                time.sleep(self.pause_s(error, attempt, url))
        raise AssertionError

    def pause_s(self, error: Transient, attempt: int, url: str) -> float:
        """How long to wait after the `attempt`-th failure in a row. Raises DownloadError when the server asks for more
        than the options allow."""
        if error.retry_after_s is None:
            return min(self.options.backoff_s * 2.0 ** min(attempt - 1, 20), self.options.backoff_max_s)
        if error.retry_after_s > self.options.retry_after_max_s:
            raise DownloadError(
                _("{host} asks to come back in {time}").format(
                    host=host_of(url), time=format_duration(error.retry_after_s)
                ),
                hint=_("Type the same command again then: it continues where it stopped."),
            ) from error
        return error.retry_after_s

    def _read(self, url: str, accept: str, limit_bytes: int) -> tuple[bytes, Answer]:
        with self.open(url, {"Accept": accept}) as answer:
            body, pieces = bytearray(), Pieces()
            for block in answer.blocks():
                pieces.take(len(block), host_of(url))
                body += block
                if len(body) > limit_bytes:
                    raise DownloadError(
                        _("the answer of {host} is too long to be right").format(host=host_of(url)),
                        hint=_("A proxy may be in between. Use another source of the same model."),
                    )
            answer.body_bytes = len(body)
            return bytes(body), answer

    def _send(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        if self._offline:
            raise offline_error(url)
        if self._client is None:
            self._client = _client(self._client_type, self.options)
        self._client.cookies.clear()
        authorization = self.authorization(url)
        extra = {"Authorization": authorization} if authorization else {}
        request = self._client.build_request("GET", url, headers={**headers, **extra})
        return self._client.send(request, stream=True)

    def authorization(self, url: str) -> str | None:
        """What may be sent to `url` as `Authorization`: the token of exactly that origin, encrypted or to ourselves."""
        scheme, host, _port = origin(url)
        token = self._tokens.get(origin(url))
        return f"Bearer {token}" if token and (scheme == "https" or is_loopback(host)) else None


def origin(url: str) -> tuple[str, str, int | None]:
    """(scheme, host, port) of a URL; the port is always a number for http and https."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return ("", "", None)
    return (parts.scheme, parts.host.lower(), parts.port or {"https": 443, "http": 80}.get(parts.scheme))


def host_of(url: str) -> str:
    """The host a user would recognise, with its port when it is an unusual one."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return url[:80]
    return parts.host + (f":{parts.port}" if parts.port else "")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def offline_error(what: str) -> Offline:
    return Offline(
        _("bendi is set to work offline, so {what} was not contacted").format(what=host_of(what) or what),
        hint=_("For this command only: BENDI_OFFLINE=0 bendi ..."),
    )


def unreachable(url: str, error: Transient) -> DownloadError:
    return DownloadError(
        _("{host} could not be used: {reason}").format(host=host_of(url), reason=error.reason),
        hint=_(
            "Type the same command again: it continues where it stopped. Behind a firewall, set HTTPS_PROXY, "
            "set HF_ENDPOINT to a mirror, or use ModelScope (ms:org/repo)."
        ),
    )


@cache
def certificates() -> ssl.SSLContext:
    """Reading the certificates takes longer than anything else in a small request: once per process is enough."""
    return httpx.create_ssl_context()


def _client(client_type: type[httpx.Client], options: DownloadOptions) -> httpx.Client:
    try:
        return client_type(
            verify=certificates(),
            follow_redirects=False,
            timeout=httpx.Timeout(options.stall_s, connect=options.connect_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=options.connections + 1),
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # a SOCKS proxy without its package, or nonsense
        raise DownloadError(
            _("the proxy of this environment cannot be used: {error}").format(error=error),
            hint=_("Look at HTTPS_PROXY, HTTP_PROXY and ALL_PROXY. For a SOCKS proxy: pip install socksio"),
        ) from error
    except OSError as error:
        raise DownloadError(
            _("the certificates of this machine cannot be read: {error}").format(error=error),
            hint=_("Look at SSL_CERT_FILE and SSL_CERT_DIR."),
        ) from error


@contextmanager
def _transient(url: str) -> Iterator[None]:
    """Turns what httpx raises into Transient, or into DownloadError where trying again cannot help."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Transient(_("it does not answer")) from error
    except httpx.ConnectError as error:
        if "CERTIFICATE" in str(error).upper():
            raise DownloadError(
                _("the identity of {host} could not be verified: {error}").format(host=host_of(url), error=error),
                hint=_("A proxy may be reading along. If it is your own, name its certificate in SSL_CERT_FILE."),
            ) from error
        raise Transient(_("no connection ({error})").format(error=error)) from error
    except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
        raise Transient(_("the connection broke ({error})").format(error=error)) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError, httpx.TooManyRedirects) as error:
        raise DownloadError(_("{url} cannot be used: {error}").format(url=url[:200], error=error)) from error


def _redirected(response: httpx.Response) -> str:
    location = response.headers["Location"]
    try:
        target = response.url.join(location)
    except httpx.InvalidURL as error:
        raise DownloadError(_("{host} redirects without saying where").format(host=response.url.host)) from error
    if target.scheme not in ("https", "http") or not target.host or target.userinfo:
        raise DownloadError(_("{host} redirects to something that is no web address").format(host=response.url.host))
    if response.url.scheme == "https" and target.scheme == "http" and not is_loopback(target.host):
        raise DownloadError(
            _("{host} redirects from an encrypted to an unencrypted address, which is refused").format(
                host=response.url.host
            )
        )
    return str(target)


def _check_status(response: httpx.Response) -> None:
    host = host_of(str(response.url))
    status = response.status_code
    if status in _TRY_AGAIN:
        reason = _("it is busy") if status in (429, 503) else _("it reports a failure of its own")
        raise Transient(f"{reason} (HTTP {status})", _retry_after_s(response.headers.get("Retry-After")))
    if status not in (200, 206):
        raise Refused(status, host, response.headers.get("X-Error-Code", ""))
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise DownloadError(
            _("{host} sends the file compressed ({encoding}), though asked not to; it is refused").format(
                host=host, encoding=encoding[:20]
            )
        )


def _retry_after_s(text: str | None) -> float | None:
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

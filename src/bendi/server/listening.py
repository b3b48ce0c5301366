"""Where the server listens, and whether it may: sockets are opened here, before any model is loaded."""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from bendi.errors import ConfigError, UsageError
from bendi.i18n import _
from bendi.server.keys import KeyRing
from bendi.server.policy import is_loopback

_BACKLOG = 2048
_PORT_TRIES = 20


@dataclass(frozen=True)
class Place:
    """`port`: 0 for any free one. `tls_cert`, `tls_key`: PEM files, both or neither. `plain_allowed`: the user has said
    that keys and texts may cross the network unencrypted."""

    host: str
    port: int
    tls_cert: Path | None = None
    tls_key: Path | None = None
    plain_allowed: bool = False

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"


def check_place(place: Place, keys: KeyRing) -> None:
    """Raises UsageError for what would let strangers in, or be read on the way."""
    if (place.tls_cert is None) != (place.tls_key is None):
        raise UsageError(_("TLS needs both a certificate and its key: --tls-cert FILE --tls-key FILE."))
    if is_loopback(place.host):
        return
    if keys.empty:
        raise UsageError(
            _("Others could reach {host}, and there is no key that would keep them out.").format(host=place.host),
            hint=_("Make one first: {command}").format(command="bendi key add NAME"),
        )
    if place.tls_cert is None and not place.plain_allowed:
        raise UsageError(
            _("Keys and texts would cross the network unencrypted."),
            hint=_(
                "Add --tls-cert FILE --tls-key FILE; or --allow-plain-http where a proxy speaks TLS for the server, or "
                "the network is your own."
            ),
        )


def open_sockets(place: Place) -> list[socket.socket]:
    """Listening sockets. This machine's own address is opened in both versions of IP, where there are two.

    Raises ConfigError, with what to do, when it cannot be had.
    """
    host = place.host
    try:
        if not host:  # would mean every address
            raise ValueError(_("there is no address"))
        if host.lower() == "localhost" or host == "127.0.0.1":
            return _loopback(place.port)
        if ":" in host:
            both = host == "::" and socket.has_dualstack_ipv6()
            return [_listen(host, place.port, socket.AF_INET6, both=both)]
        return [_listen(host, place.port, socket.AF_INET)]
    except (OSError, OverflowError, ValueError) as error:
        raise _explained(error, place) from error


def _loopback(port: int) -> list[socket.socket]:
    for attempt in range(_PORT_TRIES):
        first = _listen("127.0.0.1", port, socket.AF_INET)
        try:
            # Not only for clients that take ::1 for localhost: nobody else shall answer them in our place.
            second = _listen("::1", first.getsockname()[1], socket.AF_INET6)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return [first]  # a machine without IPv6
            first.close()
            if port or attempt == _PORT_TRIES - 1:
                raise
        else:
            return [first, second]
    raise AssertionError


def _listen(host: str, port: int, family: socket.AddressFamily, *, both: bool = False) -> socket.socket:
    # On Windows the option that lets a restarted server have its port back would let anybody share it.
    reuse = sys.platform != "win32"
    # asyncio sends small pieces at once (TCP_NODELAY) only where the protocol is named; else answers take 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if reuse:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _explained(error: Exception, place: Place) -> ConfigError:
    where = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return ConfigError(
            _("Another program listens at {where} already, perhaps another bendi.").format(where=where),
            hint=_("Choose another port: {command}").format(command=f"bendi serve --port {place.port + 1}"),
        )
    if number == errno.EACCES:
        return ConfigError(
            _("This user may not listen at {where}.").format(where=where),
            hint=_("Choose a port from 1024 on: {command}").format(command="bendi serve --port 23634"),
        )
    return ConfigError(
        _("The server cannot listen at {where}: {error}").format(where=where, error=error),
        hint=_("--host takes an address of this machine; 127.0.0.1 is for this machine only, 0.0.0.0 for all others."),
    )

"""Who may connect, and how much of anything: made once from the settings and the address that is bound."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from bendi.settings import Settings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Policy:
    """`keys_required`: also where no key exists yet. `hosts`: names of this server, lower case, without ports;
    `any_address`: every IP address will do as one, since only names can be made to point elsewhere. `origins`: of web
    pages that may use it beside its own. `body_bytes`: of one request. `per_minute`: requests of a key that has no
    limit of its own, None for any number. `log_prompts`: bodies of requests are logged."""

    keys_required: bool = False
    hosts: frozenset[str] = LOOPBACK_NAMES
    any_address: bool = False
    origins: frozenset[str] = frozenset()
    body_bytes: int = 32 * 1024 * 1024
    per_minute: int | None = None
    log_prompts: bool = False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address that is bound under this name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def policy_for(settings: Settings, host: str) -> Policy:
    """For a server that listens at `host`."""
    inside = is_loopback(host)
    own = {host.lower()} if inside else {host.lower(), socket.gethostname().lower()}
    return Policy(
        keys_required=not inside,
        hosts=LOOPBACK_NAMES | own | {name.lower() for name in settings.serve_names},
        any_address=not inside,
        origins=frozenset(origin.lower().rstrip("/") for origin in settings.serve_origins),
        body_bytes=settings.serve_body_bytes,
        per_minute=settings.serve_requests_per_minute,
        log_prompts=settings.serve_log_prompts,
    )

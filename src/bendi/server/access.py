"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["public", "infer", "admin"]
"""Who may use an endpoint: anybody; keys that may ask models; keys that may also load, download and delete."""


@dataclass(frozen=True)
class Caller:
    """Whose request it is. `owner`: the name of the key, by which sessions and stored answers are told apart; empty
    where no key is needed (loopback without keys)."""

    owner: str = ""
    scopes: frozenset[Scope] = frozenset({"public", "infer", "admin"})

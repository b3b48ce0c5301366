"""Parameters of an answer: their names, their ranges, and how layers of them (persona, session, flags) are joined.

One table serves the persona file (typed TOML values), `/set` (text) and the flags of `bendi run` (text).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from bendi.errors import UsageError
from bendi.i18n import _
from bendi.messages import Sampling

Policy = Literal["error", "ask", "compact", "slide"]
POLICIES: tuple[Policy, ...] = ("error", "ask", "compact", "slide")


@dataclass(frozen=True)
class Parameters:
    """What a request takes besides its messages. `policy` None: whoever asks has a default."""

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    template_options: Mapping[str, Any] = field(default_factory=dict)
    policy: Policy | None = None


def _number(low: float, high: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(_("a number from {low} to {high}").format(low=f"{low:g}", high=f"{high:g}"))
        return float(value)

    return check


def _integer(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(_("a whole number from {low} to {high}").format(low=low, high=high))
        return value

    return check


def _stop(value: object) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise ValueError(_("a text, or a list of texts"))
    return words


def _options(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(_("a table of options for the chat template"))
    return value


def _policy(value: object) -> str:
    if value not in POLICIES:
        raise ValueError(_("one of {names}").format(names=", ".join(POLICIES)))
    return cast(str, value)


PARAMETERS: Mapping[str, Callable[[object], Any]] = {
    "temperature": _number(0, 5),
    "top_p": _number(0, 1),
    "top_k": _integer(0, 1_000_000),
    "min_p": _number(0, 1),
    "repeat_penalty": _number(0, 5),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _integer(0, 2**32 - 1),
    "max_tokens": _integer(1, 10_000_000),
    "stop": _stop,
    "template_options": _options,
    "context_policy": _policy,
}
_SAMPLING = frozenset(Sampling.__dataclass_fields__)


def check_value(name: str, value: object) -> Any:
    """`value` in the form that `join` takes. Raises UsageError that says what `name` accepts."""
    if name not in PARAMETERS:
        raise UsageError(
            _("there is no parameter {name!r}").format(name=name),
            hint=_("Parameters: {names}").format(names=", ".join(PARAMETERS)),
        )
    try:
        return PARAMETERS[name](value)
    except ValueError as error:
        raise UsageError(
            _("{name} cannot be {value!r}: it takes {what}").format(name=name, value=value, what=error)
        ) from error


def parse_value(name: str, text: str) -> Any:
    """The value that `text` means for `name`: numbers, JSON lists and tables, plain texts. Raises UsageError."""
    value: object = text
    if name not in ("stop", "context_policy") or text.startswith("["):
        try:
            value = json.loads(text)
        except ValueError:
            value = text
    if isinstance(value, float) and value.is_integer() and math.isfinite(value):
        value = int(value) if name in ("top_k", "seed", "max_tokens") else value
    return check_value(name, value)


def join(*layers: Mapping[str, Any]) -> Parameters:
    """One set of parameters; a later layer wins, template options are joined key by key.

    Layers hold values that `check_value` has passed. A None removes what an earlier layer said.
    """
    values: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for layer in layers:
        values |= layer
        options |= layer.get("template_options") or {}
    return Parameters(
        sampling=Sampling(**{name: value for name, value in values.items() if name in _SAMPLING}),
        max_tokens=values.get("max_tokens"),
        stop=tuple(values.get("stop") or ()),
        template_options=options,
        policy=values.get("context_policy"),
    )

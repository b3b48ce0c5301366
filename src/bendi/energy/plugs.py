"""Wall plugs with a meter, asked over HTTP in the local network: Shelly of both generations, and Tasmota.

Asked is what the user named and nothing else: no proxy, no redirect, no name or password. An answer has at most
64 KiB and three seconds. What is asked, and what comes:

- Shelly Gen1 `/status` (API reference): `meters[n].power` in W, `meters[n].total` in watt-minutes; where there are
  `emeters`, their `total` is in Wh.
- Shelly Gen2 and later `/rpc/Switch.GetStatus?id=n`: `apower` in W, `aenergy.total` in Wh; `/rpc/PM1.GetStatus?id=n`
  of those that only measure.
- Tasmota `/cm?cmnd=Status%208` (10 in newer versions): `StatusSNS.ENERGY` with `Power` in W (a list where there are
  several channels) and `Total` in kWh.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from bendi.energy.meter import Clock, Counter, Meter, MeterFacts, MeterFailed, Sample
from bendi.errors import ConfigError
from bendi.i18n import _

PlugKind = Literal["shelly1", "shelly2", "tasmota"]
PLUG_KINDS: tuple[PlugKind, ...] = ("shelly2", "shelly1", "tasmota")
PERIOD_S = 1.0
POWER_REFRESH_S = 1.0
COUNTER_REFRESH_S = 60.0
"""How often a counter has something new is documented for none of them; a minute is what Shelly sums up by."""
TIMEOUT_S = 3.0
_LARGEST_ANSWER_BYTES = 64 * 1024
_MOST_W = 5000.0
"""More than a socket gives (16 A at 240 V, with some room)."""


@dataclass(frozen=True)
class _Reading:
    power_w: float
    energy_j: float | None


def find_plug(url: str, kind: str = "", channel: int = 0, clock: Clock = time.monotonic) -> tuple[Meter | None, str]:
    """A meter of the plug at `url`, such as `http://192.168.1.50`, or None and the reason. `kind`: one of PLUG_KINDS,
    or empty to try. Raises ConfigError for an address or kind that cannot be."""
    host, port = _address(url)
    if kind and kind not in PLUG_KINDS:
        raise ConfigError(
            _("There is no kind of wall plug {kind!r}.").format(kind=kind),
            hint=_("Known kinds: {names}").format(names=", ".join(PLUG_KINDS)),
        )
    reason = "plug_unknown"
    for name in (kind,) if kind else PLUG_KINDS:
        for path, read in _QUESTIONS[name]:
            meter = PlugMeter(host, port, path.format(channel=channel), _at(read, channel), clock)
            try:
                meter.sample()
            except MeterFailed as error:
                reason = error.reason
                if reason != "plug_unknown":
                    return None, reason
            else:
                return meter, ""
    return None, reason


class PlugMeter:
    """A plug that answered. The power is what counts: the counters of some have steps of a watt-hour."""

    def __init__(
        self, host: str, port: int, path: str, read: Callable[[Any], _Reading | None], clock: Clock = time.monotonic
    ) -> None:
        self._host, self._port, self._path, self._read, self._clock = host, port, path, read, clock
        self._counter = Counter(None)
        self.facts = MeterFacts(
            name="plug",
            tier="wall",
            covers=("wall",),
            period_s=PERIOD_S,
            counter_refresh_s=COUNTER_REFRESH_S,
            power_refresh_s=POWER_REFRESH_S,
            prefers="power",
            counter_step_j=3600.0,
            most_w=_MOST_W,
        )

    def sample(self) -> Sample:
        began_s = self._clock()
        reading = self._read(_ask(self._host, self._port, self._path))
        if reading is None:
            raise MeterFailed("plug_unknown")
        time_s = (began_s + self._clock()) / 2
        energy_j = None if reading.energy_j is None else self._counter.add(time_s, reading.energy_j)
        return Sample(time_s, energy_j, reading.power_w, self._counter.resets)

    def close(self) -> None:
        """Each question has its own connection."""


def _address(url: str) -> tuple[str, int]:
    hint = _("Write it as {example}.").format(example="http://192.168.1.50")
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise ConfigError(_("{url!r} is not the address of a wall plug.").format(url=url), hint=hint) from error
    extra = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None
    if parts.scheme != "http" or not parts.hostname or extra:
        raise ConfigError(_("{url!r} is not the address of a wall plug.").format(url=url), hint=hint)
    return parts.hostname, port


def _ask(host: str, port: int, path: str) -> Any:
    """What the plug answers, as JSON. Raises MeterFailed."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    # A plug that sends a byte now and then keeps within any limit for one read; this ends the whole.
    late = threading.Event()
    alarm = threading.Timer(TIMEOUT_S, _hang_up, [connection, late])
    alarm.daemon = True
    alarm.start()
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "identity", "Connection": "close"})
        response = connection.getresponse()
        if response.status in (401, 403):
            raise MeterFailed("plug_refused")
        body = response.read(_LARGEST_ANSWER_BYTES + 1)
        if response.status != 200 or len(body) > _LARGEST_ANSWER_BYTES:
            raise MeterFailed("plug_unknown")
        if response.length:
            raise MeterFailed("plug_unreachable")  # it broke off
        return json.loads(body)
    except (OSError, http.client.HTTPException) as error:
        raise MeterFailed("plug_unreachable") from error
    except (ValueError, RecursionError) as error:
        raise MeterFailed("plug_unreachable" if late.is_set() else "plug_unknown") from error
    finally:
        alarm.cancel()
        connection.close()


def _hang_up(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _shelly1(answer: Any, channel: int) -> _Reading | None:
    for name, unit_j in (("emeters", 3600.0), ("meters", 60.0)):
        meters = _part(answer, name)
        if isinstance(meters, list) and channel < len(meters) and _part(meters[channel], "is_valid") is not False:
            return _reading(_part(meters[channel], "power"), _part(meters[channel], "total"), unit_j)
    return None


def _shelly2(answer: Any, channel: int) -> _Reading | None:
    return _reading(_part(answer, "apower"), _part(_part(answer, "aenergy"), "total"), 3600.0)


def _tasmota(answer: Any, channel: int) -> _Reading | None:
    energy = _part(_part(answer, "StatusSNS"), "ENERGY")
    power = _part(energy, "Power")
    if isinstance(power, list):  # one for each channel; the total is of all
        power = sum(power) if all(_number(each) is not None for each in power) else None
    return _reading(power, _part(energy, "Total"), 3.6e6)


def _reading(power_w: Any, total: Any, unit_j: float) -> _Reading | None:
    watts, units = _number(power_w), _number(total)
    return None if watts is None else _Reading(watts, None if units is None else units * unit_j)


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)
    return float(value) if good else None


def _at(read: Callable[[Any, int], _Reading | None], channel: int) -> Callable[[Any], _Reading | None]:
    return lambda answer: read(answer, channel)


_QUESTIONS: Mapping[str, tuple[tuple[str, Callable[[Any, int], _Reading | None]], ...]] = {
    "shelly2": (("/rpc/Switch.GetStatus?id={channel}", _shelly2), ("/rpc/PM1.GetStatus?id={channel}", _shelly2)),
    "shelly1": (("/status", _shelly1),),
    "tasmota": (("/cm?cmnd=Status%208", _tasmota), ("/cm?cmnd=Status%2010", _tasmota)),
}

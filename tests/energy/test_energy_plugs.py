"""Wall plugs over real HTTP."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from traces import Clock

from bendi.energy import EnergyOptions, Meter, MeterFailed, energy_of, find_meters
from bendi.energy import plugs as plugs_module
from bendi.energy.found import Absent
from bendi.energy.plugs import find_plug
from bendi.energy.windows import Track
from bendi.errors import ConfigError
from plug_server import Answer, Plug, dripping, one, shelly1, shelly2, tasmota

SWITCH = "/rpc/Switch.GetStatus?id=0"
STATUS_8 = "/cm?cmnd=Status%208"
KINDS = {
    "shelly1": ("/status", shelly1(412.5, 120)),
    "shelly2": (SWITCH, shelly2(412.5, 2.0)),
    "tasmota": (STATUS_8, tasmota(412.5, 0.002)),
}
"""412.5 W and 7200 J, as each of them says it: watt-minutes, watt-hours, kilowatt-hours."""


def found(url: str, kind: str = "", channel: int = 0, clock: Clock | None = None) -> Meter:
    meter, reason = find_plug(url, kind, channel, *([clock] if clock else []))
    assert meter is not None, reason
    return meter


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [True, False], ids=["told", "found out"])
def test_kinds(kind: str, told: bool) -> None:
    path, body = KINDS[kind]
    with Plug(one(path, body)) as plug:
        meter = found(plug.url, kind if told else "")
        sample = meter.sample()
        assert (sample.power_w, sample.energy_j) == (412.5, pytest.approx(7200))
        assert (meter.facts.tier, meter.facts.covers) == ("wall", ("wall",))
        assert set(plug.asked) == {path} or not told
        meter.close()


@pytest.mark.parametrize(
    ("path", "kind", "body", "power_w", "energy_j"),
    [
        ("/rpc/PM1.GetStatus?id=0", "shelly2", {"id": 0, "apower": 12.0, "aenergy": {"total": 1.0}}, 12.0, 3600.0),
        (SWITCH, "shelly2", {"apower": 12}, 12.0, None),
        ("/status", "shelly1", {"emeters": [{"power": 99.5, "is_valid": True, "total": 2.0}]}, 99.5, 7200.0),
        ("/cm?cmnd=Status%2010", "tasmota", tasmota([10.0, 20.5], 1.0), 30.5, 3.6e6),
    ],
)
def test_variants(path: str, kind: str, body: dict[str, Any], power_w: float, energy_j: float | None) -> None:
    with Plug(one(path, body)) as plug:
        sample = found(plug.url, kind).sample()
        assert (sample.power_w, sample.energy_j) == (power_w, energy_j)


def test_channels() -> None:
    with Plug(one("/rpc/Switch.GetStatus?id=2", shelly2(7.0, 1.0))) as plug:
        assert found(plug.url, channel=2).sample().power_w == 7.0
        assert find_plug(plug.url, channel=1) == (None, "plug_unknown")
    body = shelly1(1.0, 1)
    body["meters"].append(shelly1(8.0, 1)["meters"][0])
    with Plug(one("/status", body)) as plug:
        assert found(plug.url, channel=1).sample().power_w == 8.0
        assert find_plug(plug.url, channel=2) == (None, "plug_unknown")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Hello</html>",
        b"",
        b"[]",
        b"null",
        b'{"apower": "12"}',
        b'{"apower": true}',
        b'{"apower": NaN}',
        b'{"apower": 1e300}',
        b'{"apower": null, "aenergy": {"total": 5}}',
        b"[" * 40_000,
        b'{"apower": 5, "padding": "' + b"x" * 70_000 + b'"}',
        b"\xff\xfe\x00",
        b'{"meters": [{"power": 5, "is_valid": false, "total": 5}]}',
        b'{"StatusSNS": {"ENERGY": {"Power": ["a"]}}}',
    ],
)
def test_answers_that_are_no_measurement(body: bytes) -> None:
    with Plug(lambda _path: (200, body, {})) as plug:
        assert find_plug(plug.url) == (None, "plug_unknown")


@pytest.mark.parametrize("status", [401, 403])
def test_password(status: int) -> None:
    with Plug(lambda _path: (status, b"", {"WWW-Authenticate": "Basic"})) as plug:
        assert find_plug(plug.url) == (None, "plug_refused")
        assert len(plug.asked) == 1


def test_no_redirect_is_followed() -> None:
    with Plug(one(SWITCH, shelly2(5.0, 1.0))) as other:

        def redirect(path: str) -> Answer:
            return 302, b"", {"Location": other.url + path}

        with Plug(redirect) as plug:
            assert find_plug(plug.url) == (None, "plug_unknown")
        assert other.asked == []


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Plug(lambda _path: (200, shelly2(1.0, 1.0), {})) as proxy, Plug(one(SWITCH, shelly2(5.0, 1.0))) as plug:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert found(plug.url).sample().power_w == 5.0
        assert proxy.asked == []


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert find_plug(f"http://127.0.0.1:{port}") == (None, "plug_unreachable")
    options = EnergyOptions(plug_url=f"http://127.0.0.1:{port}", hardware=False)
    assert find_meters(options).absent == (Absent("plug", "plug_unreachable"),)


def test_answer_that_breaks_off() -> None:
    with Plug(lambda _path: (200, b'{"apower"', {"Content-Length": "90"})) as plug:
        assert find_plug(plug.url) == (None, "plug_unreachable")


def test_plug_that_never_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugs_module, "TIMEOUT_S", 0.5)
    with dripping(0.1) as url:
        assert find_plug(url) == (None, "plug_unreachable")


def test_plug_that_hangs_up_in_the_middle() -> None:
    with Plug(one(SWITCH, shelly2(5.0, 1.0))) as plug:
        meter = found(plug.url)
    with pytest.raises(MeterFailed, match="plug_unreachable"):
        meter.sample()


def test_window_of_a_plug() -> None:
    """Half an hour, 100 W and then 400 W, a counter in watt-hours that agrees or does not; and a counter that is reset,
    which does not matter where the power is what counts."""
    for factor, flags in ((1.0, ()), (1.2, ("counter_vs_integral",))):
        clock = Clock()
        state = {"power_w": 0.0, "total_wh": 0.0}

        with Plug(lambda _path: (200, shelly2(state["power_w"], state["total_wh"]), {})) as plug:  # noqa: B023
            state["power_w"] = 100.0
            meter = found(plug.url, "shelly2", clock=clock)
            samples = []
            for second in range(0, 2000, 3):
                clock.now_s = float(second)
                state["power_w"] = 100.0 if second < 1000 else 400.0
                used_j = 100.0 * min(second, 1000) + 400.0 * max(second - 1000, 0)
                state["total_wh"] = round(factor * used_j / 3600, 3)
                samples.append(meter.sample())
        energy = energy_of(meter.facts, Track(samples), 100.0, 1900.0)
        assert energy.gross_j == pytest.approx(100 * 900 + 400 * 900, rel=0.01)
        assert energy.flags == flags
        assert energy.tier == "wall"


@pytest.mark.parametrize(
    "url",
    ["192.168.1.50", "https://192.168.1.50", "http://", "http://a:b@192.168.1.50", "http://192.168.1.50/status",
     "http://192.168.1.50?x=1", "http://192.168.1.50:99999", "ftp://x", "http://[::1"],
)  # fmt: skip
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_plug(url)
    assert "http://192.168.1.50" in error.value.hint


def test_kind_that_is_none() -> None:
    with pytest.raises(ConfigError) as error:
        find_plug("http://127.0.0.1", "wattson")
    assert "tasmota" in error.value.hint

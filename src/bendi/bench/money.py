"""The tables `[energy]` and `[cost]` of a study file: which meters there are, and what power and hardware cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bendi.bench.tables import Table, maybe_real
from bendi.energy import PLUG_KINDS, CostOptions, EnergyOptions, Hardware, Tariff, TariffPeriod
from bendi.errors import ConfigError
from bendi.i18n import _

_MOST_W, _MOST_PRICE = 1e6, 1e9
_COST = (
    "currency", "price_per_kwh", "periods", "hardware_price", "life_years", "resale", "idle_w", "utilisation", "usd",
    "cloud", "hours",
)  # fmt: skip


def energy_options(top: Table) -> EnergyOptions:
    """Raises ConfigError."""
    table = top.table("energy", tuple(EnergyOptions.__dataclass_fields__))
    kind = table.text("plug_kind")
    if kind and kind not in PLUG_KINDS:
        raise table.bad("plug_kind", kind, _("one of {names}").format(names=", ".join(PLUG_KINDS)))
    return EnergyOptions(
        plug_url=table.text("plug_url"),
        plug_kind=kind,
        plug_channel=table.number("plug_channel", 0, 0, 64),
        declared_w=maybe_real(table, "declared_w", 0.0, _MOST_W),
        declared_idle_w=maybe_real(table, "declared_idle_w", 0.0, _MOST_W),
        gpus=tuple(table.numbers("gpus", (), 0, 64)) if "gpus" in table else None,
        bounds=table.flag("bounds"),
        hardware=table.flag("hardware", True),
    )


def cost_options(top: Table) -> CostOptions:
    """Raises ConfigError."""
    table = top.table("cost", _COST)
    tariff = None
    if "price_per_kwh" in table:
        tariff = Tariff(
            currency=table.text("currency", "USD"),
            price_per_kwh=table.real("price_per_kwh", 0.0, 0.0, _MOST_PRICE),
            periods=tuple(_period(*each) for each in table.tables("periods")),
        )
    elif "periods" in table:
        raise ConfigError(_("{where}: {name} is missing.").format(where=table.where, name="price_per_kwh"))
    hardware = None
    if "hardware_price" in table:
        hardware = Hardware(
            price=table.real("hardware_price", 0.0, 0.0, _MOST_PRICE),
            life_years=table.real("life_years", Hardware.life_years, 0.1, 100.0),
            resale=table.real("resale", 0.0, 0.0, _MOST_PRICE),
            idle_w=table.real("idle_w", 0.0, 0.0, _MOST_W),
        )
    hours = table.reals("hours", (0.0, 24.0), 0.0, 24.0)
    if len(hours) != 2:
        raise table.bad("hours", list(hours), _("the hour of the beginning and that of the end"))
    return CostOptions(
        tariff=tariff,
        hardware=hardware,
        utilisation=table.real("utilisation", CostOptions.utilisation, 1e-4, 1.0),
        usd=maybe_real(table, "usd", 1e-9, _MOST_PRICE),
        cloud=table.texts("cloud"),
        hours=(hours[0], hours[1]),
    )


def _period(given: Mapping[str, Any], where: str) -> TariffPeriod:
    table = Table(given, where, ("begin_h", "end_h", "price_per_kwh", "days"))
    return TariffPeriod(
        begin_h=table.real("begin_h", 0.0, 0.0, 24.0),
        end_h=table.real("end_h", 24.0, 0.0, 24.0),
        price_per_kwh=table.real("price_per_kwh", 0.0, 0.0, _MOST_PRICE),
        days=tuple(table.numbers("days", (), 0, 6)) if "days" in table else (),
    )

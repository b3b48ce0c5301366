"""What tokens cost here, and what the same tokens cost elsewhere. Pure arithmetic; prices in the user's currency.

The cost of a token here is that of its energy, of the hardware's life that it takes, and of the power that the machine
uses while it waits: the last two are larger the less it is used, so they are given as a curve over utilisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean, median, quantiles, stdev

HOURS_PER_DAY = 24.0
DAYS_PER_WEEK = 7
HOURS_PER_YEAR = 365.25 * HOURS_PER_DAY
HOURS_PER_MONTH = HOURS_PER_YEAR / 12
MTOK = 1_000_000
UTILISATIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class TariffPeriod:
    """A price from `begin_h` to `end_h` of the day (over midnight where the end is not after the beginning), on `days`
    (0: Monday; empty: all). A time over midnight belongs to the day on which it is."""

    begin_h: float
    end_h: float
    price_per_kwh: float
    days: tuple[int, ...] = ()

    def holds(self, day: int, hour: float) -> bool:
        if self.days and day not in self.days:
            return False
        if self.begin_h < self.end_h:
            return self.begin_h <= hour < self.end_h
        return hour >= self.begin_h or hour < self.end_h


@dataclass(frozen=True)
class Tariff:
    """`price_per_kwh`: at all times for which no period holds; of periods, the first that holds."""

    currency: str
    price_per_kwh: float
    periods: tuple[TariffPeriod, ...] = ()

    def price_at(self, day: int, hour: float) -> float:
        """For a kWh on `day` (0: Monday) at `hour` (0 to 24)."""
        return next((one.price_per_kwh for one in self.periods if one.holds(day, hour)), self.price_per_kwh)

    def mean_price(self, begin_h: float = 0.0, end_h: float = HOURS_PER_DAY) -> float:
        """For a kWh when the machine runs evenly from `begin_h` to `end_h` on every day of the week."""
        spans = [(begin_h, end_h)] if begin_h < end_h else [(begin_h, HOURS_PER_DAY), (0.0, end_h)]
        edges = {0.0, HOURS_PER_DAY, *(hour for span in spans for hour in span)}
        edges |= {hour for one in self.periods for hour in (one.begin_h, one.end_h)}
        paid = hours = 0.0
        for low, high in pairwise(sorted(edges)):
            middle = (low + high) / 2
            if any(begin <= middle < end for begin, end in spans):
                hours += DAYS_PER_WEEK * (high - low)
                paid += sum(self.price_at(day, middle) for day in range(DAYS_PER_WEEK)) * (high - low)
        return paid / hours


@dataclass(frozen=True)
class Hardware:
    """`price`: in the tariff's currency, of what was bought for this. `life_years`: until it is worth `resale`.
    `idle_w`: what it uses while it waits, if it is left on."""

    price: float
    life_years: float = 5.0
    resale: float = 0.0
    idle_w: float = 0.0

    @property
    def price_per_hour(self) -> float:
        return (self.price - self.resale) / (self.life_years * HOURS_PER_YEAR)


@dataclass(frozen=True)
class CloudPrice:
    """For a million tokens in US dollars. `source`, `date`: where the price stood, and when."""

    model: str
    input_usd: float
    output_usd: float
    source: str
    date: str


@dataclass(frozen=True)
class CostOptions:
    """What the user says. `usd`: how much of the tariff's currency a US dollar is; needed to compare with the cloud
    where that is another currency. `utilisation`: the share of the hours in which it computes. `cloud`: models to
    compare with. `hours`: when it computes."""

    tariff: Tariff | None = None
    hardware: Hardware | None = None
    utilisation: float = 0.1
    usd: float | None = None
    cloud: tuple[str, ...] = ()
    hours: tuple[float, float] = (0.0, HOURS_PER_DAY)

    @property
    def usd_rate(self) -> float | None:
        return 1.0 if self.tariff is not None and self.tariff.currency == "USD" else self.usd


@dataclass(frozen=True)
class Speed:
    """What one token of a kind takes: energy (gross, while it computes) and time. None where it was not measured."""

    wh_per_tok: float | None
    tok_s: float | None


@dataclass(frozen=True)
class Cost:
    """Of a million tokens, in the tariff's currency. `waiting`: energy used while waiting for work."""

    energy: float
    hardware: float = 0.0
    waiting: float = 0.0

    @property
    def total(self) -> float:
        return self.energy + self.hardware + self.waiting


@dataclass(frozen=True)
class CostAnswer:
    """A cost or the reason why there is none."""

    cost: Cost | None
    reason: str = ""


def cost_per_mtok(speed: Speed, options: CostOptions, utilisation: float | None = None) -> CostAnswer:
    """Of a million tokens, with a share `utilisation` of the hours in use (else that of the options)."""
    if options.tariff is None:
        return CostAnswer(None, "no_price")
    if speed.wh_per_tok is None:
        return CostAnswer(None, "no_energy")
    share = options.utilisation if utilisation is None else utilisation
    energy = speed.wh_per_tok * MTOK / 1000 * options.tariff.mean_price(*options.hours)
    if options.hardware is None:
        return CostAnswer(Cost(energy))
    if not speed.tok_s:
        return CostAnswer(None, "no_speed")
    busy_h = MTOK / speed.tok_s / 3600
    waiting_kwh = options.hardware.idle_w / 1000 * busy_h * (1 - share) / share
    return CostAnswer(
        Cost(
            energy,
            hardware=options.hardware.price_per_hour * busy_h / share,
            waiting=waiting_kwh * options.tariff.mean_price(),
        )
    )


def cost_curve(
    speed: Speed, options: CostOptions, utilisations: Sequence[float] = UTILISATIONS
) -> tuple[tuple[float, CostAnswer], ...]:
    """The cost of a million tokens for each utilisation: no single figure is true."""
    return tuple((share, cost_per_mtok(speed, options, share)) for share in utilisations)


@dataclass(frozen=True)
class BreakEven:
    """`answer_mtok`: millions of answer tokens after which the hardware is paid, with `prompt_per_answer` prompt tokens
    for each. `months`: until then, at the utilisation of the options. `within_life`: whether the hardware lives so
    long. `saved_per_mtok`: for each million answer tokens with their prompts, in the tariff's currency, without the
    price of the hardware. `reason`: why there is none."""

    cloud: CloudPrice
    prompt_per_answer: float
    answer_mtok: float | None = None
    months: float | None = None
    within_life: bool | None = None
    saved_per_mtok: float | None = None
    reason: str = ""


def break_even(
    prompt: Speed, answer: Speed, cloud: CloudPrice, options: CostOptions, prompt_per_answer: float
) -> BreakEven:
    """When running it here has paid for the hardware, beside that price of the cloud."""
    missing = BreakEven(cloud, prompt_per_answer)
    rate = options.usd_rate
    if options.tariff is None or options.hardware is None:
        return replace(missing, reason="no_price")
    if rate is None:
        return replace(missing, reason="no_exchange_rate")
    if prompt.wh_per_tok is None or answer.wh_per_tok is None:
        return replace(missing, reason="no_energy")
    if not prompt.tok_s or not answer.tok_s:
        return replace(missing, reason="no_speed")
    busy_h = (prompt_per_answer / prompt.tok_s + 1 / answer.tok_s) * MTOK / 3600
    energy_kwh = (prompt_per_answer * prompt.wh_per_tok + answer.wh_per_tok) * MTOK / 1000
    waiting_kwh = options.hardware.idle_w / 1000 * busy_h * (1 - options.utilisation) / options.utilisation
    here = energy_kwh * options.tariff.mean_price(*options.hours) + waiting_kwh * options.tariff.mean_price()
    saved = (prompt_per_answer * cloud.input_usd + cloud.output_usd) * rate - here
    if saved <= 0:
        return BreakEven(cloud, prompt_per_answer, saved_per_mtok=saved, reason="no_saving")
    answer_mtok = (options.hardware.price - options.hardware.resale) / saved
    months = answer_mtok * busy_h / options.utilisation / HOURS_PER_MONTH
    return BreakEven(
        cloud,
        prompt_per_answer,
        answer_mtok,
        months,
        within_life=months <= options.hardware.life_years * 12,
        saved_per_mtok=saved,
    )


def published_wh_per_token(power_w: float, tok_s: float) -> float:
    """The formula by which studies give the energy of a token: `P / (tok/s) / 3600`. It is the energy only where power
    and rate are of the same time and the power is that of all devices."""
    return power_w / tok_s / 3600


@dataclass(frozen=True)
class Published:
    """The published formula over repeats, as it is published, beside the meter. In Wh per token.

    `values`: of each repeat; `first_quartile`, `third_quartile`: linear, as numpy's; `std`: of the sample, None for a
    single repeat. `metered`: all energy over all tokens. `difference`: of the median from that, relative."""

    values: tuple[float, ...] = ()
    median: float | None = None
    first_quartile: float | None = None
    third_quartile: float | None = None
    mean: float | None = None
    std: float | None = None
    metered: float | None = None
    difference: float | None = None
    reason: str = ""

    @property
    def iqr(self) -> float | None:
        known = self.first_quartile is not None and self.third_quartile is not None
        return (self.third_quartile or 0.0) - (self.first_quartile or 0.0) if known else None


@dataclass(frozen=True)
class Metered:
    """A repeat. `power_w`: as read; `tok_s`: of token generation; `energy_j`, `answer_tok`: of the window by the meter,
    None where there is none."""

    power_w: float | None
    tok_s: float | None
    energy_j: float | None = None
    answer_tok: int = 0


def published(repeats: Sequence[Metered]) -> Published:
    """The formula for each repeat, and the energy of all by the meter, in one place."""
    values = tuple(
        published_wh_per_token(each.power_w, each.tok_s) for each in repeats if each.power_w is not None and each.tok_s
    )
    pairs = [(each.energy_j, each.answer_tok) for each in repeats if each.energy_j is not None and each.answer_tok > 0]
    tokens = sum(tok for _j, tok in pairs)
    metered = math.fsum(joules for joules, _tok in pairs) / tokens / 3600 if tokens else None
    if not values:
        return Published(metered=metered, reason="no_energy")
    middle = median(values)
    first, third = (values[0], values[0]) if len(values) == 1 else quantiles(values, n=4, method="inclusive")[::2]
    return Published(
        values,
        median=middle,
        first_quartile=first,
        third_quartile=third,
        mean=mean(values),
        std=stdev(values) if len(values) > 1 else None,
        metered=metered,
        difference=middle / metered - 1 if metered else None,
    )

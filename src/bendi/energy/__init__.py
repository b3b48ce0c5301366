"""Energy and what it costs: meters, the energy of a time, that of each phase, prices.

Knows meters of NVIDIA, AMD and Intel GPUs, of x86 and Apple processors, wall plugs, and figures that users declare;
how to read them beside the work; what a window of time used, from which kind of meter and seeing what, or why that is
not known; tariffs and prices. Makes no figure up. Does not know models, engines or studies.

    found = find_meters(EnergyOptions(plug_url="http://192.168.1.50"))
    with Sampler(found.meters, found.absent) as sampler:
        begin_s = sampler.mark()
        ...
        end_s = sampler.mark()
        energies = sampler.energy(begin_s, end_s)
"""

from bendi.energy.cloud_prices import bundled_prices, cloud_prices
from bendi.energy.cost import (
    BreakEven,
    CloudPrice,
    Cost,
    CostAnswer,
    CostOptions,
    Hardware,
    Metered,
    Published,
    Speed,
    Tariff,
    TariffPeriod,
    break_even,
    cost_curve,
    cost_per_mtok,
    published,
    published_wh_per_token,
)
from bendi.energy.found import Absent, EnergyOptions, Found, find_meters
from bendi.energy.meter import Meter, MeterFacts, MeterFailed, Sample
from bendi.energy.phases import Estimate, Phases, Repeated, phases_of
from bendi.energy.plugs import PLUG_KINDS
from bendi.energy.reasons import DOUBTS, MISSING, reason_text
from bendi.energy.sampler import Sampler
from bendi.energy.windows import IdleNeed, Track, combined, energy_of, idle_need, with_idle

__all__ = [
    "DOUBTS",
    "MISSING",
    "PLUG_KINDS",
    "Absent",
    "BreakEven",
    "CloudPrice",
    "Cost",
    "CostAnswer",
    "CostOptions",
    "EnergyOptions",
    "Estimate",
    "Found",
    "Hardware",
    "IdleNeed",
    "Meter",
    "MeterFacts",
    "MeterFailed",
    "Metered",
    "Phases",
    "Published",
    "Repeated",
    "Sample",
    "Sampler",
    "Speed",
    "Tariff",
    "TariffPeriod",
    "Track",
    "break_even",
    "bundled_prices",
    "cloud_prices",
    "combined",
    "cost_curve",
    "cost_per_mtok",
    "energy_of",
    "find_meters",
    "idle_need",
    "phases_of",
    "published",
    "published_wh_per_token",
    "reason_text",
    "with_idle",
]

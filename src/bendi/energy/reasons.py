"""Why a figure of energy or cost is missing, and what makes one doubtful: codes for programs, sentences for people."""

from __future__ import annotations

from collections.abc import Mapping

from bendi.i18n import N_, _

MISSING: Mapping[str, str] = {
    "no_meter": N_("This machine shows no meter of energy."),
    "vm_no_counter": N_("This is a virtual machine, and the machine around it passes no meter of energy on."),
    "rapl_permission": N_("The counters of the processor (RAPL) may be read by root only."),
    "rapl_missing": N_("The system shows no counters of the processor (RAPL)."),
    "nvml_missing": N_("NVIDIA's driver library (NVML) or the Python package nvidia-ml-py is not there."),
    "nvml_permission": N_("NVIDIA's driver lets this user read no power."),
    "nvml_unsupported": N_("This NVIDIA GPU tells neither energy nor power."),
    "mig": N_("The GPU is divided (MIG): its meter shows all parts together."),
    "hwmon_missing": N_("The driver of this GPU shows neither energy nor power."),
    "apple_library_missing": N_("Apple's counters can be read with the Python package zeus-apple-silicon only."),
    "plug_unreachable": N_("The wall plug does not answer."),
    "plug_refused": N_("The wall plug asks for a password."),
    "plug_unknown": N_("What the wall plug answers is no measurement of power."),
    "unreadable": N_("The meter could not be read."),
    "meter_failed": N_("The meter failed."),
    "window_too_short": N_("The time measured is shorter than ten readings of the meter."),
    "no_samples": N_("There are no readings of the meter in this time."),
    "not_bracketed": N_("The readings of the meter do not reach from the beginning to the end of this time."),
    "sampling_gap": N_("Readings of the meter are missing in this time."),
    "counter_reset": N_("The counter began anew in this time."),
    "counter_stuck": N_("The counter stood still."),
    "implausible": N_("The meter's figure is outside of what this hardware can use."),
    "too_few_repeats": N_("There are too few repeats."),
    "shapes_alike": N_("Prompts and answers are of the same proportions in all repeats, so they cannot be told apart."),
    "no_energy": N_("No energy was measured."),
    "no_speed": N_("No speed was measured."),
    "no_price": N_("A price is missing: of electricity, or of the hardware."),
    "no_exchange_rate": N_("The prices are in different currencies, and no exchange rate is given."),
    "no_saving": N_("Running it here costs as much as the cloud, or more, even without the price of the hardware."),
}
"""Codes of what is missing. `Energy.reason` is one of them."""

DOUBTS: Mapping[str, str] = {
    "counter_vs_integral": N_("The counter and the sum of the power readings differ by more than 5%."),
    "late_samples": N_("Some readings of the meter came late."),
    "short_window": N_("The time measured is short for this meter: its edges may be off by more than 1%."),
    "averaged_power": N_("The meter shows an average over a time that is not short beside what was measured."),
    "constant": N_("The meter showed the same value all the time."),
    "low": N_("The meter shows less than such hardware needs."),
    "modelled": N_("The hardware computes this figure from a model instead of measuring it."),
    "idle_drift": N_("The power without load was different before and after."),
    "idle_unknown": N_("The power without load is not known."),
    "idle_above_load": N_("The power without load was above that under load."),
}
"""Codes of what makes a figure doubtful. `Energy.flags` holds such codes."""


def reason_text(code: str) -> str:
    """The sentence for a code of either kind; the code itself where it is not known, as in files of later versions."""
    text = MISSING.get(code) or DOUBTS.get(code)
    return _(text) if text else code

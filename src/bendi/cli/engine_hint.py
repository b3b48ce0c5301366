"""Says once that a native build exists as a possibility, and what it brings on this kind of CPU."""

from __future__ import annotations

from bendi.cli import output
from bendi.engines import native_builds
from bendi.hardware import Cpu, detect_cpu
from bendi.i18n import _
from bendi.settings import Settings

MEASURED_IN = "2026-11"
_MINUTES = 10
"""Minutes of one core that a build takes, roughly."""
_GAINS = (
    # What the CPU must have, and the gains over the wheel that were measured on such machines (docs/log.md).
    (frozenset({"amx_int8", "avx512_vnni"}), "AMX", "3.2-3.9", "2.1-2.3"),
    (frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"}), "AVX-512", "1.5-2.6", "1.3-1.9"),
)


def suggest_native(settings: Settings) -> None:
    """Prints the suggestion where it is new, true and read by a person."""
    if settings.engine is not None or native_builds.in_use(settings) or not output.is_terminal(output.talk_stream()):
        return
    text = suggestion(detect_cpu())
    if text and native_builds.first_time(settings, "native builds are possible"):
        output.say(text)


def suggestion(cpu: Cpu) -> str:
    """What a native build brings on `cpu`; empty where nothing was measured on its kind."""
    for needed, name, prompt, generation in _GAINS:
        if needed <= cpu.isa:
            return _(
                "This CPU has {isa}, which the installed engine does not use. `bendi engine build` compiles one that "
                "does, in about {minutes} minutes: PP {prompt} times, TG {generation} times as fast where it was "
                "measured ({date}). This is said once."
            ).format(
                isa=name,
                minutes=max(_MINUTES // max(cpu.usable_cores, 1), 2),
                prompt=prompt,
                generation=generation,
                date=MEASURED_IN,
            )
    return ""

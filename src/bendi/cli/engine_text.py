"""The table of engine builds: state, compiler, instruction sets, and speed as it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bendi.advisor.advice import stored_calibration
from bendi.cli import output
from bendi.engines import native_builds
from bendi.engines.native_builds import NativeBuild
from bendi.engines.registry import wheel_build
from bendi.hardware import detect_machine
from bendi.i18n import N_, _
from bendi.measured import machine_id
from bendi.settings import Settings

_SHOWN_TYPES = ("Q8_0", "Q6_K", "Q4_K", "Q4_0")
_GIGA = 1e9
_STATES = {
    "proven": N_("tested"),
    "untested": N_("not tested"),
    "refused": N_("failed its test"),
    "outdated": N_("to be tested again"),
    "damaged": N_("damaged"),
}
_WIDEST_FIRST = ("amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "sve2", "i8mm", "dotprod")


@dataclass(frozen=True)
class EngineRow:
    """One build as it is shown. `speed`: by type of weights, bytes per second of token generation, its share of the
    memory's bandwidth, and operations per second of prompt processing."""

    name: str
    state: str
    compiler: str
    isa: str
    in_use: bool
    speed: dict[str, dict[str, float]] = field(default_factory=dict)


def engine_rows(settings: Settings, builds: Sequence[NativeBuild]) -> list[EngineRow]:
    """The wheel and all `builds`."""
    used = native_builds.in_use(settings)
    name = wheel_build() or "xllamacpp -"
    wheel = EngineRow(native_builds.WHEEL, "proven", name, "avx2", not used, _speed(settings, name))
    return [wheel, *(build_row(settings, build) for build in builds)]


def build_row(settings: Settings, build: NativeBuild) -> EngineRow:
    return EngineRow(
        name=build.build_id,
        state=native_builds.state_of(build),
        compiler=build.manifest.compiler,
        isa=next((name for name in _WIDEST_FIRST if name in build.manifest.isa), "-"),
        in_use=native_builds.in_use(settings) == build.build_id,
        speed=_speed(settings, build.engine_name),
    )


def print_rows(rows: Sequence[EngineRow]) -> None:
    """The table on stdout, and below it why builds are not used."""
    headings = ["", _("BUILD"), _("STATE"), _("COMPILER"), _("WIDEST"), *(f"TG {name}" for name in _SHOWN_TYPES)]
    table = [
        [
            "*" if row.in_use else "",
            row.name,
            _(_STATES.get(row.state, row.state)),
            row.compiler,
            row.isa,
            *(_share(row.speed.get(name)) for name in _SHOWN_TYPES),
        ]
        for row in rows
    ]
    first = len(headings) - len(_SHOWN_TYPES)
    output.table(headings, table, right=frozenset(range(first, len(headings))))
    output.say(
        _("TG: bytes of weights read per second, and their share of what memory can give; `bendi calibrate` measures.")
    )


def _share(speed: dict[str, float] | None) -> str:
    if not speed:
        return "-"
    return f"{speed['generation_bytes_s'] / _GIGA:.1f} ({speed['of_memory']:.0%})"


def _speed(settings: Settings, build: str) -> dict[str, dict[str, float]]:
    calibration = stored_calibration(settings, machine_id(detect_machine()), build, [])
    if calibration is None:
        return {}
    return {
        name: {
            "generation_bytes_s": rates.generation_bytes_s,
            "of_memory": rates.generation_bytes_s / max(calibration.memory_read_bytes_s, 1.0),
            "prompt_op_s": 2 * rates.prompt_weights_s,
        }
        for name, rates in calibration.cpu.types.items()
    }

"""For which machine advice is, and what is known of its speed."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from bendi.advisor.learned import Learned
from bendi.engines import registry
from bendi.errors import StoreError, UsageError
from bendi.hardware import Gpu, Machine, detect_machine, machine_from_json, parse_machine
from bendi.i18n import _
from bendi.measured import MeasuredStore, machine_id
from bendi.planner.calibration import Calibration
from bendi.planner.calibration_runs import from_json
from bendi.planner.gpu_specs import gpu_named, spec_of
from bendi.planner.placement import default_calibration, plan_subject
from bendi.planner.plan import Plan
from bendi.planner.subject import Conditions, Subject
from bendi.settings import Settings

_LARGEST_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Advice:
    """What plans are made for. `measured`: the calibration was measured on this machine with this engine build, and not
    derived from specifications. `here`: the machine is the one that this program runs on. `notes`: what the user should
    know, translated."""

    machine: Machine
    calibration: Calibration
    build: str
    measured: bool
    here: bool = True
    notes: tuple[str, ...] = ()
    learned: Learned = field(default_factory=lambda: Learned(None))

    def planned(self, subject: Subject, conditions: Conditions, key: str = "") -> Plan:
        """The plan for `subject`, with what was learned from earlier answers. `key`: see `measured.model_key`."""
        plan = plan_subject(subject, self.machine, self.calibration, replace(conditions, build=self.build))
        return self.learned.applied(plan, key) if plan.calibrated else plan


def advice_for(settings: Settings, machine: str | None = None) -> Advice:
    """This machine with its stored calibration; with `machine`, the one described there (a file with what `bendi doctor
    --json` prints, or a short form such as `ram=32GiB,gpu=RTX 4090`), which nobody has measured.

    Raises UsageError when the description cannot be used.
    """
    build = engine_build(settings)
    if machine is not None:
        described = described_machine(machine)
        return Advice(described, default_calibration(described), build, measured=False, here=False)
    detected = detect_machine(disk_paths=[settings.models_dirs[0]])
    this, notes = _usable(detected)
    calibration = stored_calibration(settings, machine_id(detected), build, notes)
    return Advice(
        this,
        calibration or default_calibration(this),
        build,
        measured=calibration is not None,
        notes=tuple(notes),
        learned=Learned(settings.measured_file, machine_id(detected), build) if calibration else Learned(None),
    )


def described_machine(text: str) -> Machine:
    """The machine that a file or a short form describes. Raises UsageError."""
    path = Path(text).expanduser()
    if "=" in text and not path.is_file():
        machine = parse_machine(text)
        return replace(machine, gpus=tuple(map(_known, machine.gpus)))
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise UsageError(_("{path} is too large for the description of a machine.").format(path=path))
        content = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            _("{text} is neither a file that describes a machine nor a short form of one: {error}").format(
                text=text, error=error
            ),
            hint=_('Write --machine "ram=32GiB,gpu=RTX 4090", or a file made by: bendi doctor --json > machine.json'),
        ) from error
    return machine_from_json(_machine_part(content))


def _known(gpu: Gpu) -> Gpu:
    """The GPU that somebody means who typed a part of its name. Raises UsageError when nothing is known of it."""
    found = gpu_named(gpu.name)
    if found is not None:
        vendor, spec = found
        return gpu if spec_of(gpu).known else replace(gpu, name=spec.name, vendor=vendor)
    if gpu.memory_total_bytes:
        return gpu  # enough for a careful guess
    raise UsageError(
        _("Nothing is known of a GPU called “{name}”.").format(name=gpu.name),
        hint=_('Say how much memory it has: --machine "ram=32GiB,gpu={name}:16GiB"').format(name=gpu.name),
    )


def _usable(machine: Machine) -> tuple[Machine, list[str]]:
    """Without the GPUs that the engine build cannot use: outside of macOS it computes on the CPU."""
    if not machine.gpus or machine.system == "Darwin":
        return machine, []
    names = ", ".join(gpu.name for gpu in machine.gpus)
    note = _("The engine of this installation computes on the CPU; {names} is not used.").format(names=names)
    return replace(machine, gpus=()), [note]


def engine_build(settings: Settings) -> str:
    """The engine build that loads models, as it names itself."""
    return registry.engine_build(settings) or registry.wheel_build()


def _machine_part(content: str) -> str:
    """The report of `bendi doctor --json` has the machine inside."""
    try:
        report = json.loads(content)
    except ValueError:
        return content
    inner = report.get("machine") if isinstance(report, dict) else None
    return json.dumps(inner) if isinstance(inner, dict) else content


def stored_calibration(settings: Settings, machine: str, build: str, notes: list[str]) -> Calibration | None:
    """What was measured on `machine` (an id) with `build`; adds to `notes` why it is None, if there is a reason."""
    if not settings.measured_file.is_file():
        return None
    with closing(MeasuredStore(settings.measured_file)) as store:
        text = store.calibration(machine, build)
        notes.extend(store.notices)
    if text is None:
        return None
    try:
        return from_json(text)
    except StoreError as error:
        notes.append(f"{error.message} ({error.hint})")
        return None

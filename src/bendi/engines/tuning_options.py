"""What is tried when settings are tuned, in the order of what it usually brings.

Nothing here changes what is computed, only in which order, how rounded, by how many threads and from which copy of the
weights; how far answers are from the default's is measured in the end (`TuningReport.answers`).
Flash attention is on wherever the engine has it, so only "off" is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bendi.engines.tuning_report import Shape, Tuned
from bendi.engines.tuning_search import Option
from bendi.engines.worker_config import BATCH_TOK
from bendi.hardware import Cpu
from bendi.i18n import N_, _

SETTINGS = {
    "engine": N_("engine build"),
    "threads": N_("threads"),
    "flash_attention": N_("flash attention"),
    "repack": N_("repacked weights"),
    "batch_tok": N_("batch"),
    "keep_to_cores": N_("threads on CPUs"),
    "spread_numa": N_("NUMA nodes"),
}
"""Their names for people."""
_BATCHES_TOK = (256, 1024)
LONGEST_BATCH_S = 1.0
"""A batch larger than the usual one is tried only where it takes no longer: a cancelled prompt waits for it."""
_MOST_COUNTS = 4


@dataclass(frozen=True)
class Situation:
    """What decides which settings are worth a try. `shape`: of the requests that are timed; `pp_tok_s`: with the
    default settings. `builds`: other engine builds. `free_threads`: the user has not said how many. `repacked`: the
    engine has its own copy of the weights."""

    cpu: Cpu
    default: Tuned
    shape: Shape
    pp_tok_s: float
    kv_type: str
    builds: Sequence[str] = ()
    free_threads: bool = True
    repacked: bool = True


def options(situation: Situation) -> list[Option]:
    """All changes that could make a difference."""
    found = [Option("engine", build, {"engine": build}) for build in situation.builds]
    if situation.free_threads:
        found += _threads(situation)
    found += _places(situation.cpu)
    if situation.default.flash_attention is None and situation.kv_type in ("f16", "bf16", "f32"):
        found.append(Option("flash_attention", _("off"), {"flash_attention": False}))
    if situation.repacked:
        found.append(Option("repack", _("off"), {"repack": False}))
    return [*found, *_batches(situation)]


def _threads(situation: Situation) -> Iterator[Option]:
    cpu, default = situation.cpu, situation.default
    cores = cpu.usable_cores
    counts = sorted({cores, cores * 3 // 4, cores // 2, min(cpu.performance_cores, cores)} - {0}, reverse=True)
    for count in counts[:_MOST_COUNTS]:
        # Left to itself the engine takes all cores, where they are of one kind and nothing restricts them.
        usual = default.threads or (cores if cores == cpu.physical_cores == cpu.performance_cores else 0)
        if count != usual:
            yield Option("threads", str(count), {"threads": count, "prompt_threads": 0})
    for count in counts[:_MOST_COUNTS]:
        if count < cores:  # generation waits for memory, which fewer threads can keep busy; prompts need all of them
            value = _("{count}, {prompts} for prompts").format(count=count, prompts=cores)
            yield Option("threads", value, {"threads": count, "prompt_threads": cores})


def _places(cpu: Cpu) -> Iterator[Option]:
    """Where threads run. Left to itself the system may put two on one core while another is idle."""
    if cpu.logical_cores > cpu.physical_cores or cpu.performance_cores < cpu.usable_cores:
        yield Option("keep_to_cores", _("one for each core"), {"keep_to_cores": True})
    if cpu.numa_nodes > 1:
        yield Option("spread_numa", _("threads on all of them"), {"spread_numa": True})


def _batches(situation: Situation) -> Iterator[Option]:
    prompt_tok = situation.shape.prompt_tok
    usual_tok = min(situation.default.batch_tok, prompt_tok)
    for batch_tok in _BATCHES_TOK:
        too_long = batch_tok > BATCH_TOK and batch_tok / situation.pp_tok_s > LONGEST_BATCH_S
        if min(batch_tok, prompt_tok) != usual_tok and not too_long:
            yield Option("batch_tok", str(batch_tok), {"batch_tok": batch_tok})

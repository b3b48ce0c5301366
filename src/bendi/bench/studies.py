"""Runs a study: block after block, each configuration started anew, everything kept as soon as it is there.

Whatever ends a study (Ctrl-C, a kill, a full disk, a power cut) costs at most the repeat that was being measured; the
same command goes on after it. One study measures on a machine at a time: a second one waits or is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from bendi.bench.cells import Group, groups_of, left_of
from bendi.bench.gate import ask_questions, compared, unjudged
from bendi.bench.journal import Journal
from bendi.bench.opening import Garage, Opened
from bendi.bench.prompts import Ruler, takes_tokens
from bendi.bench.repeats import Place, Turn, measure
from bendi.bench.study import Study
from bendi.bench.subjects import Subject
from bendi.errors import BendiError, DataError, StoreError
from bendi.i18n import _
from bendi.results import Cell, Check, Failure
from bendi.settings import Settings
from bendi.store.lock import locked

STUDIES = "studies"
"""Below the state folder: results files."""
_LOCK = ".measuring.lock"


Progress = Callable[[int, int, str], None]
"""Told how many repeats are there, of how many, and what is measured now."""


@dataclass
class Run:
    """One run of a study. `subjects`: by model and quantization."""

    study: Study
    journal: Journal
    garage: Garage
    place: Place
    subjects: Mapping[tuple[str, str], Subject]
    on_progress: Progress = field(default=lambda _done, _total, _label: None)
    on_note: Callable[[str], None] = field(default=lambda _text: None)
    _rulers: dict[tuple[str, str], Ruler] = field(default_factory=dict)

    def run(self) -> None:
        """Measures what is not there yet. Raises StoreError and DataError when results cannot be kept; engines that
        fail are recorded, and do not end a study."""
        facts = self.journal.results.facts
        groups = groups_of(facts.cells, facts.blocks, facts.seed)
        total = sum(len(group.cells) for group in groups)
        left = left_of(groups, self._done())
        done = total - sum(len(group.cells) for group in left)
        for group in left:
            self.on_progress(done, total, _label(group))
            self._measure(group)
            done += len(group.cells)
        self.on_progress(total, total, "")

    def _done(self) -> set[tuple[str, int]]:
        """Pairs of cell and block that need no further try."""
        results = self.journal.results
        found = {(each.cell, each.block) for each in results.repeats}
        found |= {(each.cell, each.block) for each in results.failures if each.final}
        return found

    def _measure(self, group: Group) -> None:
        waiting = list(group.cells)
        for attempt in range(1, self.study.care.tries + 1):
            final = attempt == self.study.care.tries
            try:
                with self._opened(group) as opened:
                    while waiting:
                        self._one(opened, group, waiting[0])
                        waiting.pop(0)
                return
            except (StoreError, DataError):
                raise  # results cannot be kept: to go on would lose them
            except BendiError as error:
                self.on_note(f"{_label(group)}: {error.message}")
                failed = waiting if final else waiting[:1]
                for cell in failed:
                    self.journal.add(Failure(cell.key, group.block, error.message, final))

    @contextmanager
    def _opened(self, group: Group) -> Iterator[Opened]:
        if self.study.care.cool_down_s:
            time.sleep(self.study.care.cool_down_s)
        self.place.idle()
        opened = self.garage.open(group.cells, self._subject(group.cells[0]))
        with closing(opened.engine):
            known = self.journal.results.engine_of(group.cells[0])
            if known != opened.loaded:
                self.journal.add(opened.loaded)
                if opened.loaded.differing:
                    self.on_note(
                        _("{engine} did not take {names} as asked.").format(
                            engine=opened.loaded.engine, names=", ".join(opened.loaded.differing)
                        )
                    )
            if self.study.care.check and self.journal.results.check_of(group.cells[0]) is None:
                self._check(opened, group.cells[0])
            yield opened

    def _one(self, opened: Opened, group: Group, cell: Cell) -> None:
        tokens = self._all_take_tokens() and takes_tokens(cell.workload)
        subject = self._subject(cell)
        turn = Turn(cell, group.block, group.order, subject.vocab_size if tokens else None, opened.load_s)
        ruler = self._rulers.setdefault((cell.model, cell.workload.text), Ruler())
        self.journal.add(measure(opened.engine, turn, self.place, ruler))
        self.place.forget()

    def _all_take_tokens(self) -> bool:
        return all(self.garage.takes_tokens(choice) for choice in self.study.engines)

    def _check(self, opened: Opened, cell: Cell) -> None:
        if self._subject(cell).random_weights:
            self.journal.add(unjudged(cell.configuration))
            return
        check = ask_questions(opened.engine, cell.configuration, self.study.care.timeout_s)
        reference = self._reference(cell)
        if reference is None or reference.configuration == cell.configuration:
            self.journal.add(check)
            # It may be the one that others, measured before, are to be compared with.
            self._compare_again(cell, check)
        else:
            self.journal.add(compared(check, reference))

    def _reference(self, cell: Cell) -> Check | None:
        """What the reference engine answered with the same file: bendi's wheel where it takes part, which every native
        build is proven against, else the first engine of the study."""
        wheels = [each.label for each in self.study.engines if each.kind == "bendi" and each.build == "wheel"]
        label = (wheels or [self.study.engines[0].label])[0]
        same = [
            each
            for each in self.journal.results.facts.cells
            if (each.model, each.quantization, each.engine) == (cell.model, cell.quantization, label)
        ]
        checks = [check for each in same if (check := self.journal.results.check_of(each)) is not None]
        if checks:
            return checks[0]
        return Check(same[0].configuration, "unchecked") if same else None

    def _compare_again(self, cell: Cell, reference: Check) -> None:
        seen: set[str] = {cell.configuration}
        for other in self.journal.results.facts.cells:
            if (other.model, other.quantization) != (cell.model, cell.quantization) or other.configuration in seen:
                continue
            seen.add(other.configuration)
            check = self.journal.results.check_of(other)
            if check is not None and check.texts and check.agreement is None:
                self.journal.add(compared(check, reference))

    def _subject(self, cell: Cell) -> Subject:
        return self.subjects[cell.model, cell.quantization]


@contextmanager
def alone(settings: Settings, *, wait: bool, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Nobody else measures meanwhile who shares the state folder. Raises StoreError at once where somebody does and
    `wait` is False."""
    folder = settings.state_dir / STUDIES
    if wait:
        with locked(folder / _LOCK, on_wait=on_wait):
            yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / _LOCK, wait=False))
        except StoreError as error:
            raise StoreError(
                _("Another study is being measured on this machine; two at once would disturb each other."),
                hint=_("Wait for it by itself: {command}").format(command="bendi bench run --wait STUDY"),
            ) from error
        yield


def _label(group: Group) -> str:
    cell = group.cells[0]
    return " ".join(
        part for part in (f"#{group.block + 1}", cell.model, cell.quantization, cell.engine, cell.settings_text) if part
    )

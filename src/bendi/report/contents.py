"""The order of a report: sections with their figures and tables, whatever they are written as."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from bendi.i18n import _
from bendi.report import tables
from bendi.report.charts import Figure, Table, machine_text
from bendi.report.costs import cloud_table, cost_figures, cost_tables, split_table
from bendi.report.figures import energy_figures, prediction_figures, speed_figures
from bendi.report.findings import Finding, findings
from bendi.report.given import ReportOptions
from bendi.report.trade_offs import main_setups, trade_off_figures
from bendi.report.trends import concurrency_figures, depth_figures
from bendi.report.view import Setup, View, reads
from bendi.report.wording import clean, day
from bendi.results import Results


@dataclass(frozen=True)
class Block:
    """Something with its own heading. `folded`: shown when asked for."""

    title: str
    text: str
    parts: tuple[Figure | Table, ...]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    blocks: tuple[Block, ...]
    text: str = ""

    @property
    def figures(self) -> Iterable[Figure]:
        return (part for block in self.blocks for part in block.parts if isinstance(part, Figure))

    @property
    def tables(self) -> Iterable[Table]:
        return (part for block in self.blocks for part in block.parts if isinstance(part, Table))


class Contents:
    """Everything that a report says, in the language in use when it is asked."""

    OPEN_SETUPS = 3
    """So many workloads are open on a page; the others are folded."""

    def __init__(self, results: Results, options: ReportOptions) -> None:
        self.results, self.options = results, options
        self.view = View(results)

    @property
    def title(self) -> str:
        return clean(self.results.facts.title) or _("A study of speed and energy")

    @property
    def subtitle(self) -> str:
        facts = self.results.facts
        measured = _("{repeats} repeats of {cells} combinations in {blocks} blocks").format(
            repeats=len(self.results.repeats), cells=len(facts.cells), blocks=facts.blocks
        )
        return " · ".join([day(facts.created_s), machine_text(self.results), measured, f"bendi {clean(facts.bendi)}"])

    @cached_property
    def findings(self) -> list[Finding]:
        return findings(self.view, self.options)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """Those that have something to say."""
        made = (
            self._speed(),
            self._energy(),
            self._cost(),
            self._trends(),
            self._choice(),
            self._predictions(),
            self._ran(),
        )
        return tuple(section for section in made if section.blocks)

    @property
    def figures(self) -> list[Figure]:
        return [each for section in self.sections for each in section.figures]

    def _speed(self) -> Section:
        blocks = []
        for setup, folded in self._setups():
            turns = tables.turns_table(self.view, setup)
            parts: list[Figure | Table] = [tables.ranking(self.view, setup), *([turns] if turns else [])]
            blocks.append(Block(setup.name, setup.text, (*parts, *speed_figures(self.view, setup)), folded))
        return Section("speed", _("Speed"), tuple(blocks))

    def _energy(self) -> Section:
        text = _("Each meter on its own: what one sees, another may not.")
        meters = Block("", "", (tables.coverage_table(self.view, self.options),))
        blocks = [meters] if self.results.repeats else []
        if phases := tables.phases_table(self.view, self.options):
            blocks.append(Block("", "", (phases,)))
        for setup, folded in self._setups():
            parts: list[Figure | Table] = []
            for source in self.view.sources:
                parts += energy_figures(self.view, setup, source)
                table = tables.energy_table(self.view, setup, source, self.options)
                parts += [table] if table and source.tier != "none" else []
            if parts:
                blocks.append(Block(setup.name, setup.text, tuple(parts), folded))
        return Section("energy", _("Energy"), tuple(blocks), text)

    def _cost(self) -> Section:
        drawn = main_setups(self.view) or [setup for setup in self.view.setups if not reads(setup.cell)][:1]
        blocks = []
        for setup, folded in self._setups():
            parts: list[Figure | Table] = [*cost_tables(self.view, setup, self.options)]
            parts += cost_figures(self.view, setup, self.options) if setup in drawn else ()
            if parts:
                blocks.append(Block(setup.name, setup.text, tuple(parts), folded))
        if split := split_table(self.view, self.options):
            blocks.append(Block("", "", (split,)))
        cloud = cloud_table(self.options)
        if blocks and cloud:
            blocks.append(Block("", "", (cloud,)))
        return Section("cost", _("Cost"), tuple(blocks))

    def _trends(self) -> Section:
        parts = (*depth_figures(self.view), *concurrency_figures(self.view))
        return Section("trends", _("Depth and concurrency"), (Block("", "", parts),) if parts else ())

    def _choice(self) -> Section:
        parts = tuple(trade_off_figures(self.view, self.options))
        return Section("choice", _("Quality, speed and memory"), (Block("", "", parts),) if parts else ())

    def _predictions(self) -> Section:
        table = tables.prediction_table(self.view)
        parts: tuple[Figure | Table, ...] = (*prediction_figures(self.view), *([table] if table else []))
        return Section("predictions", _("Predictions"), (Block("", "", parts),) if parts else ())

    def _ran(self) -> Section:
        table = tables.engines_table(self.view)
        return Section("ran", _("What ran"), (Block("", "", (table,)),) if table else ())

    def _setups(self) -> list[tuple[Setup, bool]]:
        main = main_setups(self.view)
        ordered = main + [setup for setup in self.view.setups if setup not in main]
        return [(setup, place >= self.OPEN_SETUPS) for place, setup in enumerate(ordered)]

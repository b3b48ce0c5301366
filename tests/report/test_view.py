"""From results to rows: what is ranked, what is not, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_results import CHAT, COUNTER, PROMPT, Study, made, options, rich

from bendi.energy.phases import Repeated, phases_of
from bendi.report.charts import BoxChart, LineChart, PointChart
from bendi.report.contents import Contents
from bendi.report.costs import cost_figures, cost_rows
from bendi.report.figures import energy_figures, prediction_figures, speed_figures
from bendi.report.given import ReportOptions
from bendi.report.tables import coverage_table, energy_table, phases_table, ranking
from bendi.report.trade_offs import front, trade_off_figures
from bendi.report.trends import concurrency_figures, depth_figures
from bendi.report.view import Source, View, summary_of
from bendi.report.wording import TG, clean, figure, ratio, share, shortened
from bendi.results import Check, Energy, Failure, Workload


def test_garbage_is_shown_and_has_no_rank() -> None:
    results = made(Study(garbage=("IQ2_XS",)))
    view = View(results)
    (setup,) = view.setups
    garbage = next(row for row in setup.rows if row.label == "IQ2_XS · bendi")
    assert "repeats one word" in garbage.grey
    # It would be the fastest of all.
    assert garbage.summaries["tg_tok_s"].median > setup.ranked(TG)[0].summaries["tg_tok_s"].median
    assert garbage not in setup.ranked(TG)
    table = ranking(view, setup)
    assert table.rows[-1][:2] == ("", "IQ2_XS · bendi")
    assert table.grey == {len(table.rows) - 1}
    (chart,) = [made_figure.chart for made_figure in speed_figures(view, setup) if made_figure.name == "tg-1"]
    assert isinstance(chart, BoxChart)
    assert [box.colour for box in chart.boxes if box.label == "IQ2_XS · bendi"] == [-1]
    assert chart.boxes[-1].label == "IQ2_XS · bendi"
    for each in trade_off_figures(view, options(results)):
        assert isinstance(each.chart, PointChart)
        assert not [point for point in each.chart.points if point.colour == -1 and point.strong]
    for rows in cost_rows(setup, view.sources[0], options(results), 0.1)[-1:]:
        assert rows.row is garbage


def test_a_rank_needs_a_difference_beyond_chance() -> None:
    view = View(made(Study(quantizations=("Q4_K_M",), engines=("wheel", "other"), noise=0.2)))
    (setup,) = view.setups
    assert "not told apart" in ranking(view, setup).rows[1][-3]
    view = View(made(Study(quantizations=("Q4_K_M",), noise=0.01)))
    assert "not told apart" not in ranking(view, view.setups[0]).rows[1][-3]


def test_tiers_are_never_in_one_chart() -> None:
    meters = (("a", "wall", ("wall",), 1.0), ("b", "counter", COUNTER, 0.7), ("c", "counter", ("gpu board",), 0.4),
              ("d", "bound", ("gpu board",), 2.0))  # fmt: skip
    view = View(made(Study(meters=meters, quantizations=("Q8_0", "Q4_K_M"))))
    assert [source.tier for source in view.sources] == ["wall", "counter", "counter", "bound"]
    (setup,) = view.setups
    figures = [list(energy_figures(view, setup, source)) for source in view.sources]
    assert [len(each) for each in figures] == [1, 1, 1, 0]
    for (made_figure,), source in zip(figures[:3], view.sources, strict=False):
        assert source.meter in made_figure.provenance.energy
        assert isinstance(made_figure.chart, BoxChart) and len(made_figure.chart.boxes) == 4
    bound = energy_table(view, setup, view.sources[3], ReportOptions())
    assert bound is not None
    assert all(row[1].startswith("≤ ") and row[2] == "–" for row in bound.rows)


def test_missing_energy_says_why() -> None:
    results = made(Study(quantizations=("Q8_0",), engines=("bendi",), meters=(("rapl", "counter", COUNTER, 1.0),)))
    lost = tuple(
        replace(each, energy=(Energy("rapl", "none", reason="rapl_permission"),)) if each.block < 4 else each
        for each in results.repeats
    )
    view = View(replace(results, repeats=lost))
    table = coverage_table(view, ReportOptions())
    assert [row[3] for row in table.rows] == ["6 of 10", "0 of 10"]
    assert "may be read by root only" in table.rows[1][-1]
    assert table.rows[1][1] == "not measured"
    none = View(replace(results, repeats=tuple(replace(each, energy=()) for each in results.repeats)))
    assert coverage_table(none, ReportOptions()).rows[0][1] == "not measured"


def test_an_energy_figure_is_all_joules_over_all_tokens() -> None:
    results = made(Study(quantizations=("Q8_0",), engines=("bendi",), workloads=(CHAT, PROMPT)))
    view = View(results)
    for row in view.rows:
        (energy,) = row.energy
        reading = row.cell.workload == PROMPT
        assert energy.per_prompt is reading
        assert energy.gross_j_tok is not None and energy.net_j_tok is not None
        repeat = row.repeats[0]
        joules, tok = repeat.energy[0].gross_j, 2048 if reading else 256
        assert joules is not None
        assert energy.gross_j_tok.by_block[repeat.block] == pytest.approx(joules / tok)
        assert energy.net_j_tok.by_block[repeat.block] == pytest.approx((joules - 38 * repeat.window_s) / tok)


def test_labels_say_what_differs() -> None:
    plain = View(made(Study(quantizations=("Q8_0",), engines=("bendi",), blocks=1)))
    assert [row.label for row in plain.rows] == ["Q8_0"]
    settings = ({"split_mode": "row", "context_tok": 1}, {"split_mode": "layer", "context_tok": 1})
    swept = View(made(Study(quantizations=("Q8_0",), engines=("bendi",), settings=settings, blocks=1)))
    assert [row.label for row in swept.rows] == ["Q8_0 · split_mode=row", "Q8_0 · split_mode=layer"]
    models = View(made(Study(models=("A", "B"), quantizations=("Q8_0",), blocks=1)))
    assert [setup.name for setup in models.setups] == ["A · chat", "B · chat"]


def test_what_was_never_measured_is_grey() -> None:
    results = made(Study(quantizations=("Q8_0", "Q4_K_M"), engines=("bendi",), blocks=3))
    gone = results.facts.cells[0].key
    view = View(
        replace(
            results,
            repeats=tuple(each for each in results.repeats if each.cell != gone),
            failures=(Failure(gone, 0, "out of memory", final=True),),
        )
    )
    assert view.rows[0].grey == "failed: out of memory"
    assert ranking(view, view.setups[0]).rows[-1][1] == "Q8_0"


def test_remarks() -> None:
    results = made(Study(quantizations=("Q8_0",), engines=("bendi",), blocks=8))
    repeats = [
        replace(results.repeats[0], steady=False),
        replace(results.repeats[1], slowness=1.5),
        *results.repeats[2:],
    ]
    cached = tuple(replace(answer, cached_tok=400) for answer in repeats[2].answers)
    repeats[2] = replace(repeats[2], answers=cached)
    checks = (Check(results.facts.cells[0].configuration, "unchecked"),)
    view = View(replace(results, repeats=tuple(repeats), checks=checks))
    flags = "; ".join(view.rows[0].flags)
    for said in (
        "not checked",
        "not steady before 1 of 8",
        "disturbed in 1 of 8",
        "9.8% of the prompts came from a cache",
    ):
        assert said in flags
    assert not view.rows[0].grey


def test_few_repeats_get_points_and_a_warning() -> None:
    view = View(made(Study(quantizations=("Q8_0",), engines=("bendi",), blocks=3)))
    (tg, _pp) = speed_figures(view, view.setups[0])
    notes = " ".join(tg.notes)
    assert "fewer than 8 repeats" in notes and "only 75% sure" in notes
    assert "only 75% sure" in ranking(view, view.setups[0]).rows[0][-1]
    assert summary_of([], TG.of) is None


def test_every_chart_has_its_provenance() -> None:
    results = rich()
    contents = Contents(results, options(results))
    names = [each.name for each in contents.figures]
    assert len(names) == len(set(names))
    assert {name.split("-")[0] for name in names} == {
        "tg", "pp", "throughput", "energy", "cost", "depth", "concurrency", "quality", "speed", "predictions",
    }  # fmt: skip
    for each in contents.figures:
        where = each.provenance
        assert "2026-11-2" in where.date and "Ryzen" in where.machine and where.repeats.startswith("n = ")
        assert any("b6871" in line and "model 3f1c9a" in line for line in where.ran)
        if each.name.startswith(("energy", "cost")):
            assert "(plug)" in where.energy or "(rapl)" in where.energy
    tables = [table for section in contents.sections for table in section.tables]
    assert [table.name for table in tables if table.provenance is None] == ["cloud", "engines"]


def test_lines_against_depth_and_concurrency() -> None:
    view = View(rich())
    (tg, _pp) = depth_figures(view)
    assert isinstance(tg.chart, LineChart)
    assert tg.chart.ticks == (0.0, 4096.0, 16384.0)
    assert all(len(line.points) == 3 for line in tg.chart.lines)
    assert all(line.points[0].y > line.points[2].y for line in tg.chart.lines)
    (throughput, _tg) = concurrency_figures(view)
    assert isinstance(throughput.chart, LineChart)
    assert throughput.chart.ticks == (1.0, 2.0, 4.0, 8.0)
    assert not list(depth_figures(View(made())))
    many = Study(quantizations=tuple(f"Q{n}" for n in range(12)), engines=("bendi",), concurrencies=(1, 2), blocks=2)
    (crowded, _tg) = concurrency_figures(View(made(many)))
    assert isinstance(crowded.chart, LineChart)
    assert len(crowded.chart.lines) == 8
    assert "8 of 12" in " ".join(crowded.notes)


def test_prices_without_a_source_are_not_shown() -> None:
    results = made(Study(quantizations=("Q4_K_M",)))
    view = View(results)
    (shown,) = cost_figures(view, view.setups[0], options(results))
    assert isinstance(shown.chart, LineChart)
    assert [name for name, _level in shown.chart.levels] == ["some-model-8b (2026-11-20)", "large-model (2026-11-20)"]
    assert not list(cost_figures(view, view.setups[0], ReportOptions()))
    found = cost_rows(view.setups[0], view.sources[0], options(results), 0.1)[0]
    energy = found.row.energy[0].gross_j_tok
    assert energy is not None and found.answer.cost is not None
    assert found.answer.cost.energy == pytest.approx(energy.median / 3600 * 1000 * 0.14)
    assert found.low is not None and found.high is not None
    assert found.low < found.answer.cost.total < found.high


def test_predictions_beside_measurements() -> None:
    results = made(Study(quantizations=("Q8_0",), garbage=("Q8_0",)))
    (shown,) = prediction_figures(View(results))
    assert isinstance(shown.chart, PointChart)
    assert len(shown.chart.points) == 2  # what answers garbage is not counted as predicted


def test_phases_of_energy() -> None:
    shapes = (CHAT, PROMPT, Workload("short", 64, 256, requests=3))
    results = made(Study(quantizations=("Q4_K_M",), engines=("bendi",), workloads=shapes))
    view = View(results)
    table = phases_table(view, ReportOptions())
    assert table is not None
    expected = phases_of(
        [
            Repeated(each.energy[0].gross_j or 0, each.input_tok, each.output_tok, len(each.answers))
            for each in results.repeats
        ]
    )
    assert expected.per_answer_tok_j is not None
    assert table.rows[0][3].startswith(figure(expected.per_answer_tok_j.value))
    assert table.rows[0][6] == "30"
    alone = phases_table(View(made(Study(quantizations=("Q4_K_M",), engines=("bendi",)))), ReportOptions())
    assert alone is not None and "same proportions" in alone.notes[0]


def test_the_front() -> None:
    points = [(1.0, 9.0), (2.0, 8.0), (2.0, 7.0), (3.0, 1.0)]
    assert front(points, True, True) == [True, True, False, True]
    assert front(points, False, True) == [True, False, False, False]
    assert front([(1.0, 1.0), (1.0, 1.0)], True, True) == [True, True]


@pytest.mark.parametrize("blocks", [0, 1])
def test_almost_nothing(blocks: int) -> None:
    results = made(Study(blocks=blocks, quantizations=("Q8_0",)))
    contents = Contents(results, options(results))
    assert all(section.title for section in contents.sections)
    assert bool(contents.figures) is bool(blocks)


def test_figures_and_names() -> None:
    values = [0, 1234.5, 99.94, 31.24, 1.234, 0.5, 0.00123, 0.0000123, None]
    assert [figure(value) for value in values] == [
        "0", "1234", "99.9", "31.2", "1.23", "0.500", "0.00123", "1.23e-05", "–",
    ]  # fmt: skip
    assert (ratio(1.416), ratio(0.0123)) == ("1.42", "0.0123")
    assert (share(0.0213), share(0.4)) == ("2.1%", "40%")
    assert clean("a\x1b[31m\u202eb\n c\x00") == "a[31mb c"
    assert len(clean("x" * 1000)) == 160
    assert shortened("abcdefghij", 6) == "abc…ij" or len(shortened("abcdefghij", 6)) <= 6
    assert shortened("量化量化量化", 7).count("…") == 1


def test_sources_are_told_apart() -> None:
    assert Source("wall", ("wall",), "a") != Source("wall", ("wall",), "b")

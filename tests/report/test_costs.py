"""What costs are shown: of answers, of requests where the work is in the prompts, and why there are none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_results import CHAT, PROMPT, Study, made, options

from bendi.energy.cost import CostOptions, Hardware, Tariff
from bendi.report import ReportOptions, markdown, page, terminal
from bendi.report.charts import Table
from bendi.report.contents import Contents
from bendi.report.costs import cost_rows, cost_tables, split_table, why_no_cost
from bendi.report.view import View
from bendi.results import Energy, Results, Workload

ONE = Study(quantizations=("Q4_K_M",), engines=("bendi",))
ELECTRICITY = ReportOptions(cost=CostOptions(Tariff("EUR", 0.36)))


def tables_of(results: Results, given: ReportOptions = ELECTRICITY) -> list[Table]:
    sections = {section.name: section for section in Contents(results, given).sections}
    return list(sections["cost"].tables) if "cost" in sections else []


def test_where_the_work_is_in_the_prompts_a_request_has_a_price() -> None:
    results = made(replace(ONE, workloads=(PROMPT,)))
    (table,) = tables_of(results)
    assert table.columns[1] == "EUR per 1000 requests"
    joules = sorted(each.energy[0].gross_j or 0.0 for each in results.repeats)
    middle = (joules[4] + joules[5]) / 2
    # 0.36 for a kWh are 1e-7 for a joule.
    assert float(table.rows[0][1]) == pytest.approx(1000 * middle * 1e-7, rel=0.006)
    assert float(table.rows[0][3]) == pytest.approx(1e6 * middle * 1e-7 / 2049, rel=0.006)
    assert "to" in table.rows[0][2]
    said = " ".join(table.notes)
    assert "answers have 1 tokens and prompts 2048" in said
    assert "Prompts and answers have no price each: Prompts and answers are of the same proportions" in said
    for shown in (page(results, ELECTRICITY), markdown(results, ELECTRICITY)):
        assert "have no price of their own here" in shown


def test_a_request_costs_as_much_as_its_tokens() -> None:
    results = made(replace(ONE, workloads=(CHAT,)))
    view = View(results)
    (setup,) = view.setups
    given = options(results)
    found = {
        unit: cost_rows(setup, view.sources[0], given, 0.1, unit)[0].answer.cost
        for unit in ("answer token", "token", "request")
    }
    answer, token, request = (found[unit] for unit in ("answer token", "token", "request"))
    assert answer and token and request
    assert request.total == pytest.approx(128 * answer.total)
    assert request.total == pytest.approx(640 * token.total)
    assert request.hardware > 0 and request.waiting > 0
    (table,) = cost_tables(view, setup, given)
    assert float(table.rows[0][-1]) == pytest.approx(request.total / 1000, rel=0.006)


def test_many_answers_at_once_have_a_cost() -> None:
    results = made(replace(ONE, concurrencies=(4,)))
    (table,) = tables_of(results)
    assert table.columns[1] == "EUR per million tokens" and float(table.rows[0][1]) > 0
    drawn = [each.name for each in Contents(results, options(results)).figures if each.name.startswith("cost")]
    assert drawn == ["cost-1-1"]


def test_each_kind_of_token_has_a_price_where_repeats_tell_them_apart() -> None:
    shapes = (CHAT, PROMPT, Workload("short", 64, 256, requests=3))
    results = made(replace(ONE, workloads=shapes))
    view = View(results)
    table = split_table(view, ELECTRICITY)
    assert table is not None
    assert table.title in [each.title for each in tables_of(results)]
    prompt, answer = (float(cell.split()[0]) for cell in table.rows[0][2:4])
    assert 0 < prompt < answer
    reading = next(setup for setup in view.setups if setup.cell.workload == PROMPT)
    (of_reading,) = cost_tables(view, reading, ELECTRICITY)
    assert "no price each" not in " ".join(of_reading.notes)
    assert split_table(View(made(ONE)), ELECTRICITY) is None
    assert split_table(view, ReportOptions()) is None


def test_no_cost_says_why() -> None:
    results = made(ONE)
    lost = tuple(replace(each, energy=(Energy("rapl", "none", reason="rapl_permission"),)) for each in results.repeats)
    blind = replace(results, repeats=lost)
    assert not tables_of(blind)
    assert "There is no cost: No energy was measured." in terminal(blind, 200, ELECTRICITY)
    only_hardware = ReportOptions(cost=CostOptions(hardware=Hardware(2600)))
    assert "A price is missing" in why_no_cost(View(results), only_hardware)
    assert not why_no_cost(View(results), ELECTRICITY)
    assert not why_no_cost(View(blind), ReportOptions())
    nothing = replace(results, repeats=())
    assert not why_no_cost(View(nothing), ELECTRICITY)


def test_a_bound_is_at_most() -> None:
    meters = (("limit", "bound", ("gpu board",), 3.0),)
    (table,) = tables_of(made(replace(ONE, workloads=(PROMPT,), meters=meters)))
    assert all(cell.startswith("≤ ") for cell in (table.rows[0][1], table.rows[0][3])) and table.rows[0][2] == "–"


def test_turns_of_a_conversation() -> None:
    talk = Workload("talk", 64, 32, turns=2, requests=2)
    results = made(replace(ONE, workloads=(talk,), blocks=8))
    told = []
    for repeat in results.repeats:
        first, second = repeat.answers
        later = replace(second, prompt_tok=160, cached_tok=96, arrivals_s=tuple(t - 0.1 for t in second.arrivals_s))
        told.append(replace(repeat, answers=(first, later, first, replace(later, cached_tok=0))))
    again = replace(results, repeats=tuple(told))
    contents = Contents(again, ReportOptions())
    (table,) = [each for section in contents.sections for each in section.tables if each.name.startswith("turns")]
    assert [row[1:4] for row in table.rows] == [("1", "64.0", "0"), ("2", "160", "48.0")]
    assert float(table.rows[0][4]) > float(table.rows[1][4]) and table.rows[0][-1] == "8"
    (row,) = contents.view.rows
    # Of the second turns, 64 tokens stood before each; one of two had them.
    assert any("50% of the earlier conversation" in flag for flag in row.flags)
    assert not any("earlier conversation" in flag for flag in View(made(ONE)).rows[0].flags)

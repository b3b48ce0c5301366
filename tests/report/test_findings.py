"""What the results say in sentences."""

from __future__ import annotations

from dataclasses import replace

from made_results import PROMPT, Study, made, options, rich

from bendi.report.findings import findings
from bendi.report.given import ReportOptions
from bendi.report.view import View
from bendi.results import Energy, Failure, Results


def said(results: Results, chosen: ReportOptions | None = None) -> list[str]:
    return [each.text for each in findings(View(results), chosen or options(results))]


def test_the_fastest_against_the_baseline() -> None:
    (first, *_rest) = said(made(Study(quantizations=("Q4_K_M",))))
    assert first.startswith("Q4_K_M · bendi writes 3")
    assert "tok/s, 1.1" in first and "times Q4_K_M · wheel (1.0" in first
    assert first.endswith("% could not have been seen.")


def test_the_engine_is_compared_also_where_another_quantization_is_faster() -> None:
    texts = said(made(Study(quantizations=("Q4_K_M", "IQ2_XS"), garbage=("IQ2_XS",))))
    assert texts[0].startswith("IQ2_XS · wheel writes")
    assert texts[1].startswith("Q4_K_M · bendi writes") and "times Q4_K_M · wheel" in texts[1]
    assert any("not ranked: IQ2_XS · bendi (repeats one word for ever)" in text for text in texts)


def test_what_cannot_be_told_apart_is_said_so() -> None:
    study = Study(quantizations=("Q4_K_M",), engines=("wheel", "other"), noise=0.2)
    assert "cannot be told apart from" in said(made(study))[0]


def test_few_repeats_are_not_sure() -> None:
    assert "fewer than 6 pairs" in said(made(Study(quantizations=("Q4_K_M",), blocks=3)))[0]
    alone = said(made(Study(quantizations=("Q4_K_M",), engines=("bendi",), blocks=7)))[0]
    assert alone.startswith("Q4_K_M writes") and " to " in alone


def test_reading_and_writing_are_told_apart() -> None:
    texts = said(made(Study(quantizations=("Q8_0",), workloads=(PROMPT,))))
    assert "reads prompts at" in texts[0]
    everything = said(rich())
    assert any("in all answers together" in text for text in everything)
    for begin in ("chat: Q4_K_M", "Token generation (TG): halves", "Predictions of TG", "Energy is missing in 20 cases",
                  "Failed repeats: 1", "Settings were not taken by"):  # fmt: skip
        assert any(text.startswith(begin) for text in everything), begin


def test_a_bound_is_no_finding() -> None:
    bound = made(Study(meters=(("limit", "bound", ("gpu board",), 3.0),)))
    assert not any(" J for each token" in text for text in said(bound))


def test_no_energy_at_all() -> None:
    results = made(Study(quantizations=("Q8_0",)))
    none = Energy("", "none", reason="vm_no_counter")
    bare = replace(results, repeats=tuple(replace(each, energy=(none,)) for each in results.repeats))
    assert any(text.startswith("Energy: not measured. This is a virtual machine") for text in said(bare))
    unread = replace(results, repeats=tuple(replace(each, energy=()) for each in results.repeats))
    assert any(text == "Energy: not measured. The results name no meter." for text in said(unread))
    assert not said(made(Study(blocks=0)))
    failed = replace(
        made(Study(blocks=0)), failures=(Failure("a", 0, "out of memory"), Failure("b", 0, "out of memory"))
    )
    assert said(failed) == ["Failed repeats: 2, of 2 combinations; most often: out of memory"]

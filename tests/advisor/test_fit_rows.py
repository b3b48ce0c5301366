"""The catalogue ranked for machines that nobody has."""

from __future__ import annotations

from pathlib import Path

import pytest

from bendi.advisor.advice import Advice, advice_for
from bendi.advisor.fit import SORTS, USES, Filters, FitRow, fit
from bendi.advisor.ranking import speed_for
from bendi.settings import Settings, load_settings
from bendi.store.names import AliasName, parse_name


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"BENDI_STATE": str(tmp_path / "state"), "BENDI_CONFIG": str(tmp_path / "config")})


def machine(settings: Settings, text: str) -> Advice:
    return advice_for(settings, text)


@pytest.fixture
def laptop(settings: Settings) -> Advice:
    return machine(settings, "ram=16GiB,cores=8")


def names(rows: list[FitRow]) -> set[str]:
    return {row.model for row in rows}


def test_best_first_and_all_fit(laptop: Advice) -> None:
    rows = fit(laptop)
    assert len(rows) > 30
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    for row in rows:
        assert row.plan.verdict == "fits"
        assert sum(share.used_bytes for share in row.plan.shares) <= sum(s.budget_bytes for s in row.plan.shares)
        assert row.why and all(row.why)
        assert isinstance(parse_name(row.get.removeprefix("bendi pull ")), AliasName)
        assert row.plan.settings.context_tok >= row.plan.workload.context_tok or row.plan.verdict != "fits"


def test_more_memory_never_takes_a_model_away(settings: Settings) -> None:
    before: set[str] = set()
    for size in (4, 8, 16, 32, 64):
        now = names(fit(machine(settings, f"ram={size}GiB,cores=8")))
        assert before <= now
        before = now


def test_a_gpu_helps(settings: Settings) -> None:
    without = fit(machine(settings, "ram=32GiB,cores=8"))
    with_gpu = fit(machine(settings, "ram=32GiB,cores=8,gpu=RTX 4090"))
    assert with_gpu[0].score > without[0].score
    assert speed_for(with_gpu[0].plan).tg.tok_s > 10


def test_filters(laptop: Advice) -> None:
    assert {row.kind for row in fit(laptop, Filters(kind="moe"))} == {"moe"}
    assert all("apache" in row.licence.casefold() for row in fit(laptop, Filters(licence="Apache")))
    assert all({"zh", "multilingual"} & set(row.languages) for row in fit(laptop, Filters(language="zh")))
    assert {row.thinking for row in fit(laptop, Filters(thinking=True))} <= {"thinking", "hybrid"}
    assert {row.thinking for row in fit(laptop, Filters(thinking=False))} <= {"instruct", "hybrid"}
    limit = 3 * 1024**3
    small = fit(laptop, Filters(max_bytes=limit))
    assert small and all(row.plan.file_bytes <= limit for row in small)
    assert all(speed_for(row.plan).tg.tok_s >= 20 for row in fit(laptop, Filters(min_tg_tok_s=20)))
    assert all(row.plan.settings.context_tok >= 16384 for row in fit(laptop, Filters(min_context_tok=16384)))


def test_everything_shows_what_does_not_fit_last(laptop: Advice) -> None:
    rows = fit(laptop, Filters(everything=True))
    verdicts = [row.plan.verdict == "fits" for row in rows]
    assert not all(verdicts) and verdicts == sorted(verdicts, reverse=True)
    assert names(fit(laptop)) <= names(rows)
    assert "deepseek-v3.1:671b" in names(rows)


@pytest.mark.parametrize("use", USES)
def test_every_use_has_an_answer(laptop: Advice, use: str) -> None:
    rows = fit(laptop, Filters(use=use))
    assert rows
    assert ({row.thinking for row in rows} == {"embedding"}) == (use == "embedding")


@pytest.mark.parametrize("sort", SORTS)
def test_every_order(laptop: Advice, sort: str) -> None:
    rows = fit(laptop, Filters(sort=sort))  # type: ignore[arg-type]
    assert names(rows) == names(fit(laptop))


def test_advice_of_another_machine(settings: Settings, tmp_path: Path) -> None:
    advice = machine(settings, "ram=64GiB,cores=16,gpu=RTX 3090")
    assert not advice.here and not advice.measured
    assert advice.machine.gpus[0].name == "RTX 3090"

"""The proof of native builds: what it lets pass, and that nothing broken gets through it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import hostile_server
import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_engine import needed_build

from bendi.engines import LoadRequest, native, native_builds, native_proof, open_engine, wheel
from bendi.engines.native_builds import NativeBuild
from bendi.engines.native_proof import Trial, answers, distance, farthest, load_request, prove, write_model
from bendi.engines.native_proof_cases import FORCED_TOK, PROMPTS_TOK, TYPES, VOCABULARY, Case, cases, prompts
from bendi.engines.random_weights import MEASURABLE_TYPES
from bendi.errors import EngineUnsupported
from bendi.settings import Settings, load_settings

TABLE = st.lists(st.floats(-12, 0), min_size=4, max_size=8).map(lambda row: dict(enumerate(row)))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BENDI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENDI_STATE", str(tmp_path / "state"))
    return load_settings()


def normalised(table: dict[int, float]) -> dict[int, float]:
    total = math.log(sum(math.exp(value) for value in table.values()))
    return {token: value - total for token, value in table.items()}


@given(TABLE)
def test_the_same_is_no_distance(table: dict[int, float]) -> None:
    assert distance(normalised(table), normalised(table)).tolerable


@given(TABLE, st.floats(0.5, 5))
def test_one_changed_token_is_seen(table: dict[int, float], change: float) -> None:
    reference = normalised(table)
    other = {**reference, 0: reference[0] - change}
    found = distance(reference, other)
    assert found.logprob == pytest.approx(change)
    assert not found.tolerable


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_tolerable(bad: float) -> None:
    assert not distance({0: -1.0, 1: -0.5}, {0: bad, 1: -0.5}).tolerable


def test_missing_tokens_are_not_tolerable() -> None:
    assert not distance({0: -1.0, 1: -0.5}, {0: -1.0}).tolerable
    assert not native_proof.Distance(math.nan, 0.0).tolerable


def test_experts_may_differ_where_their_choice_hangs_on_a_digit_but_not_in_one_whole_prompt() -> None:
    right = [{0: -0.7, 1: -0.7} for _ in prompts()]
    other = {0: -0.1, 1: -2.35}
    experts, dense = Case("experts", "Q8_0"), Case("dense", "Q8_0")
    one = [other, *right[1:]]
    assert farthest(right, one, experts.spared).tolerable and not farthest(right, one, dense.spared).tolerable
    whole = [other] * (1 + FORCED_TOK) + right[1 + FORCED_TOK :]
    assert not farthest(right, whole, experts.spared).tolerable
    torn = [{0: math.nan, 1: -0.7}, *right[1:]]
    assert not farthest(right, torn, experts.spared).tolerable


def test_every_type_and_thread_count_is_tried() -> None:
    found = cases(4)
    assert {case.type_name for case in found} == set(TYPES) <= MEASURABLE_TYPES
    assert {(case.type_name, case.kind) for case in found} >= {
        (name, kind) for name in TYPES for kind in ("dense", "experts")
    }
    assert {1, 2, 3} <= {case.threads for case in found}
    assert {case.kv_type for case in found} >= {"f16", "q8_0", "q4_0"}
    assert {case.flash_attention for case in found} == {None, True, False}
    assert {case.kind for case in found} >= {"windows", "sinks", "heads of 128"}
    assert [case.kind for case in found if case.windowed] == ["windows", "sinks"]
    assert len({case.name for case in found}) == len(found)


def test_prompts_are_of_all_lengths_and_followed_by_single_tokens() -> None:
    asked = list(prompts())
    fresh = [len(prompt) for prompt, new_tok in asked if new_tok == len(prompt)]
    assert fresh == list(PROMPTS_TOK)
    assert len(asked) == len(PROMPTS_TOK) * (1 + FORCED_TOK)
    assert len({prompt[0] for prompt, _ in asked}) == len(PROMPTS_TOK)
    assert all(300 <= token < VOCABULARY for prompt, _ in asked for token in prompt)


@pytest.mark.parametrize("behaviour", hostile_server.BEHAVIOURS)
def test_a_broken_build_is_kept_aside(behaviour: str, settings: Settings, tmp_path: Path) -> None:
    build = hostile_server.install(settings, tmp_path, behaviour, VOCABULARY)
    proven = prove(build, settings, trial=Trial(quick=True, patience_s=20.0 if behaviour != "hang" else 2.0))
    assert proven.proof and not proven.proof.proven
    assert "dense Q8_0" in proven.proof.reason
    assert native_builds.find_build(settings, build.build_id).proof == proven.proof, "the reason is kept"
    assert native_builds.state_of(proven) == "refused"
    with pytest.raises(EngineUnsupported) as caught:
        native_builds.set_in_use(settings, proven)
    assert proven.proof.reason in caught.value.message and caught.value.hint
    assert not list(native_builds.engines_folder(settings).glob("try-*"))


def test_a_refused_build_is_not_used_even_when_it_is_chosen(
    settings: Settings, tmp_path: Path, demo_model: Path
) -> None:
    build = hostile_server.install(settings, tmp_path, "crash", VOCABULARY)
    prove(build, settings, trial=Trial(quick=True))
    (native_builds.engines_folder(settings) / "in-use").write_text(build.build_id)
    said: list[str] = []
    for _ in range(2):
        with closing(open_engine(LoadRequest(demo_model, context_tok=256), settings, on_notice=said.append)) as engine:
            assert engine.info.build.startswith("xllamacpp")
    assert len(said) == 1, "it is said once"
    assert build.build_id in said[0]


def test_a_program_that_was_changed_is_refused(settings: Settings, tmp_path: Path) -> None:
    build = hostile_server.install(settings, tmp_path, "wrong", VOCABULARY)
    with build.server.open("ab") as program:
        program.write(b"\n# one more line\n")
    assert native_builds.state_of(build) == "damaged"
    proven = prove(build, settings, trial=Trial(quick=True))
    assert proven.proof and not proven.proof.proven


@pytest.fixture(scope="module")
def build() -> NativeBuild:
    return needed_build()


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path


@pytest.mark.parametrize("case", [Case("dense", "Q4_0"), Case("experts", "Q6_K"), Case("dense", "F16", kv_type="q8_0")])
def test_the_native_build_agrees_with_the_wheel(case: Case, build: NativeBuild, models: Path) -> None:
    load = load_request(case, write_model(case, models))
    found = answers(lambda wanted: native.open_engine(wanted, build=build), load, case)
    assert farthest(answers(wheel.open_engine, load, case), found).tolerable


def test_other_weights_are_not_tolerable(models: Path) -> None:
    """The limits tell right from wrong: one weight of a hundred differs, all else is the same."""
    case = Case("dense", "F16")
    path = write_model(case, models)
    load = load_request(case, path)
    right = answers(wheel.open_engine, load, case)
    content = bytearray(path.read_bytes())
    for position in range(len(content) // 2 | 1, len(content), 202):
        content[position] ^= 0x80  # the sign
    path.write_bytes(content)
    wrong = answers(wheel.open_engine, replace(load, threads=1), case)
    assert not farthest(right, wrong).tolerable

"""Which cells a study has, and their order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bendi.bench.cells import cells_of, groups_of, left_of
from bendi.bench.study import EngineChoice, ModelChoice, Study
from bendi.results import Workload

STUDY = Study(
    "s",
    (ModelChoice("a"), ModelChoice("b")),
    (EngineChoice("x"), EngineChoice("y", settings={"threads": 8})),
    (Workload("w", 10, 5), Workload("deep", 10, 5, depth_tok=100)),
    settings={"threads": (1, 2), "flash_attention": (True, False)},
    folder=Path(),
)
CELLS = cells_of(STUDY, {"a": ["Q8_0", "Q4_0"], "b": ["Q8_0"]})


def test_every_combination_once() -> None:
    # Three files; engine x with 2 x 2 settings, engine y, whose threads are fixed, with 2; two workloads.
    assert len(CELLS) == 3 * (4 + 2) * 2
    assert len({cell.key for cell in CELLS}) == len(CELLS)
    assert {cell.settings["threads"] for cell in CELLS if cell.engine == "y"} == {8}


def test_names_depend_on_content_alone() -> None:
    again = cells_of(STUDY, {"a": ["Q8_0", "Q4_0"], "b": ["Q8_0"]})
    assert [cell.key for cell in again] == [cell.key for cell in CELLS]
    same = [cell for cell in CELLS if cell.configuration == CELLS[0].configuration]
    assert {cell.workload.name for cell in same} == {"w", "deep"}


@given(blocks=st.integers(1, 6), seed=st.integers(0, 1000))
def test_a_block_has_every_cell_once(blocks: int, seed: int) -> None:
    groups = groups_of(CELLS, blocks, seed)
    for block in range(blocks):
        inside = [cell.key for group in groups if group.block == block for cell in group.cells]
        assert sorted(inside) == sorted(cell.key for cell in CELLS)
    for group in groups:
        assert len({cell.configuration for cell in group.cells}) == 1
        depths = [cell.workload.depth_tok for cell in group.cells]
        assert depths == sorted(depths)
    assert groups == groups_of(CELLS, blocks, seed)


def test_blocks_have_orders_of_their_own() -> None:
    groups = groups_of(CELLS, 5, 1)
    orders = {tuple(group.configuration for group in groups if group.block == block) for block in range(5)}
    assert len(orders) > 1


@given(st.sets(st.tuples(st.sampled_from([cell.key for cell in CELLS]), st.integers(0, 2))))
def test_what_is_left_and_what_is_done_are_everything(done: set[tuple[str, int]]) -> None:
    groups = groups_of(CELLS, 3, 1)
    left = {(cell.key, group.block) for group in left_of(groups, done) for cell in group.cells}
    assert left.isdisjoint(done)
    assert left | done == {(cell.key, group.block) for group in groups for cell in group.cells}


def test_conversations_have_one_state_of_the_cache() -> None:
    study = replace(STUDY, workloads=(Workload("w", 10, 5), Workload("talk", 10, 5, turns=3)), cache=("fresh", "warm"))
    cells = cells_of(study, {"a": ["Q8_0"], "b": []})
    assert {cell.cache for cell in cells if cell.workload.name == "w"} == {"fresh", "warm"}
    assert {cell.cache for cell in cells if cell.workload.name == "talk"} == {"fresh"}
    assert len(cells) == 6 * 3

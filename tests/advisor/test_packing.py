"""Values written once and built on demand."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.advisor.packing import Pool, Unpacked
from bendi.errors import StoreError


@dataclass(frozen=True)
class Leaf:
    name: str
    numbers: tuple[int, ...]
    share: float | None = None


@dataclass(frozen=True)
class Branch:
    leaves: tuple[Leaf | None, ...]
    first: Leaf | None
    size: int


TYPES = {"Leaf": Leaf, "Branch": Branch}
leaves = st.builds(Leaf, st.text(max_size=5), st.tuples() | st.tuples(st.integers()), st.none() | st.floats(0, 1))
branches = st.builds(
    Branch, st.lists(st.none() | leaves, max_size=6).map(tuple), st.none() | leaves, st.integers(-(2**60), 2**60)
)


@given(st.lists(branches, max_size=5))
def test_comes_back_as_it_was(values: list[Branch]) -> None:
    classes: dict[str, list[str]] = {}
    pool = Pool(classes)
    numbers = [pool.add(value) for value in values]
    table = json.loads(json.dumps({"classes": classes, "entries": pool.entries}))
    unpacked = Unpacked(table["entries"], table["classes"], TYPES)
    assert [unpacked.value(number) for number in numbers] == values


def test_equal_values_are_written_once() -> None:
    pool = Pool({})
    leaf = Leaf("a", (1,))
    assert pool.add(Branch((leaf, leaf), leaf, 1)) == pool.add(Branch((Leaf("a", (1,)),) * 2, leaf, 1))
    assert len(pool.entries) == 3


def test_a_table_of_another_version_is_refused() -> None:
    unpacked = Unpacked([[0, "a", [1]]], {"Leaf": ["name", "colours"]}, TYPES)
    with pytest.raises(StoreError, match="does not belong to this version"):
        unpacked.value(0)

"""Which bytes are there: arithmetic of ranges, and a journal that is never believed further than the disk."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.errors import StoreError
from bendi.store.journal import (
    Identity,
    PartFile,
    add_range,
    journal_path,
    missing_ranges,
    part_path,
    read_journal,
    total_bytes,
)

pairs = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted).map(tuple)
HASH = Identity("https://h/x", 100, sha256="0" * 64)


@given(st.lists(pairs, max_size=12))
def test_ranges_are_sets_of_bytes(added: list[tuple[int, int]]) -> None:
    ranges: tuple[tuple[int, int], ...] = ()
    truth: set[int] = set()
    for start, end in added:
        ranges = add_range(ranges, start, end)
        truth |= set(range(start, end))
    assert {byte for start, end in ranges for byte in range(start, end)} == truth
    assert total_bytes(ranges) == len(truth)
    assert all(a[1] < b[0] for a, b in pairwise(ranges)), "ascending, not touching"
    assert all(start < end for start, end in ranges)


@given(st.lists(pairs, max_size=8), st.integers(0, 60), st.integers(1, 20))
def test_missing_is_the_rest_in_pieces(added: list[tuple[int, int]], size: int, piece: int) -> None:
    ranges: tuple[tuple[int, int], ...] = ()
    for start, end in added:
        ranges = add_range(ranges, start, end)
    missing = missing_ranges(ranges, size, piece)
    there = {byte for start, end in ranges for byte in range(start, end)}
    flat = [byte for start, end in missing for byte in range(start, end)]
    assert flat == sorted(set(range(size)) - there)
    assert all(0 < end - start <= piece for start, end in missing)


def test_write_save_and_resume(tmp_path: Path) -> None:
    target = tmp_path / "模型.gguf"
    part = PartFile(target, HASH)
    part.write(0, 10, b"b" * 10)
    part.write(0, 50, b"c" * 5)
    part.save()
    part.close()
    again = PartFile(target, HASH)
    assert again.resumed
    assert again.done_bytes == 15
    assert again.missing(1000) == [(0, 10), (20, 50), (55, 100)]
    assert again.missing(1000, [(0, 10), (60, 100)]) == [(20, 50), (55, 60)]
    again.close()


@pytest.mark.parametrize(
    "other",
    [
        Identity("https://h/x", 100, sha256="1" * 64),
        Identity("https://h/x", 99, sha256="0" * 64),
        Identity("https://h/x", 100, git_sha1="0" * 40),
        Identity("https://h/x", 100, etag='"a"'),
        Identity("https://h/x", 100),
    ],
)
def test_bytes_of_another_file_are_forgotten(tmp_path: Path, other: Identity) -> None:
    part = PartFile(tmp_path / "x.gguf", HASH)
    part.write(0, 0, b"a" * 50)
    part.save()
    part.close()
    again = PartFile(tmp_path / "x.gguf", other)
    assert (again.done_bytes, again.resumed) == (0, False)
    assert part_path(tmp_path / "x.gguf").stat().st_size == 0
    again.close()


def test_the_same_hash_may_come_from_anywhere() -> None:
    assert HASH.same_bytes(Identity("https://mirror/x", 100, sha256="0" * 64, etag='"other"'))
    plain = Identity("https://h/x", 100, etag='"a"')
    assert plain.same_bytes(plain)
    assert not plain.same_bytes(Identity("https://mirror/x", 100, etag='"a"'))
    nothing = Identity("https://h/x", 100)
    assert not nothing.same_bytes(nothing), "without a validator nobody knows"


def test_a_block_of_an_earlier_generation_is_not_written(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "x.gguf", HASH)
    old = part.generation
    part.write(old, 0, b"a" * 10)
    part.restart(HASH)
    assert not part.write(old, 0, b"a" * 10)
    assert part.done_bytes == 0
    assert part.write(part.generation, 0, b"b" * 100)
    assert part.complete
    part.close()


def test_what_was_verified_is_remembered_only_when_whole(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "x.gguf", HASH)
    part.write(0, 0, b"a" * 100)
    part.save("f" * 64)
    part.close()
    again = PartFile(tmp_path / "x.gguf", HASH)
    assert again.sha256 == "f" * 64
    again.close()
    with part_path(tmp_path / "x.gguf").open("r+b") as file:
        file.truncate(99)
    again = PartFile(tmp_path / "x.gguf", HASH)
    assert again.sha256 is None
    again.close()


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_bytes_as_a_journal(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    read_journal(path)


@pytest.mark.parametrize(
    "text",
    ['{"format": 2}', '{"format": 1, "identity": {"url": "x"}, "done": [[5, 1]], "verified_sha256": null}',
     '{"format": 1, "identity": {"url": "x", "evil": 1}, "done": [], "verified_sha256": null}',
     '{"format": 1, "identity": {"url": "x"}, "done": [[-5, 1]], "verified_sha256": null}', "[]", "null"],
)  # fmt: skip
def test_journals_that_are_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "j").write_text(text)
    assert read_journal(tmp_path / "j") is None


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    part_path(tmp_path / "x.gguf").symlink_to(precious)
    with pytest.raises(StoreError):
        PartFile(tmp_path / "x.gguf", HASH)
    assert precious.read_bytes() == b"precious"
    assert not journal_path(tmp_path / "x.gguf").exists()

"""The results file: nothing is lost that was kept, whatever happens."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import small_disk
from bendi.bench.journal import Journal, Record, read_results, write_sqlite
from bendi.errors import DataError, NotFoundError, StoreError
from bendi.results import (
    RESULTS_SCHEMA,
    Answer,
    Cell,
    Check,
    Energy,
    Failure,
    LoadedEngine,
    Prediction,
    Repeat,
    StudyFacts,
    Workload,
)

CELL = Cell("m", "Q8_0", "bendi", Workload("w", 10, 5), {"threads": 2, "flash_attention": True})
FACTS = StudyFacts("id", "Ein Titel 标题", "text", 1.5, 3, 1, "0.1", {"cpu": {"model": "x"}}, (CELL,))
ANSWER = Answer(0.1, 1.1, (0.25, 0.5, 1.0), 10, 3, "length", (1, 1, 1), 2, 100.0, 20.0, None, "ab")
REPEAT = Repeat(
    CELL.key, 0, 1, 1e9, 1.25, (ANSWER,), (Energy("plug", "wall", ("wall",), 1.25, 50.0, 10.0, "", ("late",)),),
    2, False, 0.7, 1 << 20, 0.001, 1.05, {"load_1min": 0.5}, {},
)  # fmt: skip
RECORDS: list[Record] = [
    Prediction(CELL.key, 100.0, 20.0, 1 << 30, 0.1),
    LoadedEngine(CELL.configuration, "bendi", "llama.cpp", "b1", "ff", 7, {"threads": 2}, {"threads": 1}, ("threads",)),
    Check(CELL.configuration, "ok", texts=("你好", "a")),
    REPEAT,
    Failure(CELL.key, 1, "it died", True),
]


def written(path: Path) -> Journal:
    journal = Journal(path, FACTS)
    for record in RECORDS:
        journal.add(record)
    return journal


def test_what_is_written_is_read(tmp_path: Path) -> None:
    journal = written(tmp_path / "r.jsonl")
    results = read_results(tmp_path / "r.jsonl")
    assert results == journal.results
    assert results.repeats == (REPEAT,)
    assert results.facts == FACTS
    assert results.of(CELL) == (REPEAT,)
    assert results.check_of(CELL) == RECORDS[2]
    assert (tmp_path / "r.jsonl").stat().st_mode & 0o077 == 0


def test_a_file_is_never_begun_twice(tmp_path: Path) -> None:
    written(tmp_path / "r.jsonl")
    with pytest.raises(StoreError):
        Journal(tmp_path / "r.jsonl", FACTS)
    assert len(read_results(tmp_path / "r.jsonl").repeats) == 1


def test_cut_anywhere_in_the_last_record(tmp_path: Path) -> None:
    """A kill or a power cut in the middle of a write costs that record and no other."""
    path = tmp_path / "r.jsonl"
    written(path)
    whole = path.read_bytes()
    last = whole[: whole.rfind(b"\n", 0, -1) + 1]
    for size in range(len(last), len(whole)):
        path.write_bytes(whole[:size])
        assert not read_results(path).failures
        journal = Journal(path)
        assert path.read_bytes() == last
        journal.add(RECORDS[-1])
        assert path.read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    written(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for number, bad in (
        (1, b'{"kind": "repeat"}\n'),
        (3, b"\xff\n"),
        (4, b'{"kind": "repeat", "cell": 3}\n'),
        (5, b"[]\n"),
    ):
        path.write_bytes(b"".join([*lines[: number - 1], bad, *lines[number:]]))
        with pytest.raises(DataError) as caught:
            read_results(path)
        assert f"line {number}" in caught.value.message


def test_later_and_unknown_files(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    written(path)
    first, *rest = path.read_text().splitlines(keepends=True)
    row = json.loads(first)
    path.write_text(json.dumps({**row, "schema": RESULTS_SCHEMA + 1}) + "\n" + "".join(rest))
    with pytest.raises(DataError, match="later version"):
        read_results(path)
    path.write_text("")
    with pytest.raises(DataError, match="empty"):
        read_results(path)
    with pytest.raises(NotFoundError):
        read_results(tmp_path / "none.jsonl")
    # A kind of record that this version does not know is left alone.
    path.write_text(first + '{"kind": "weather", "rain": 3}\n' + "".join(rest))
    assert len(read_results(path).repeats) == 1


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "small", "96k") as folder:
        path = folder / "r.jsonl"
        journal = written(path)
        before = path.read_bytes()
        ballast = small_disk.fill(folder)
        big = Check(CELL.configuration, "ok", texts=("x" * 10000,))
        with pytest.raises(StoreError, match="full"):
            journal.add(big)
        assert path.read_bytes() == before
        assert journal.results.checks[-1] == RECORDS[2]
        ballast.unlink()
        journal.add(big)
        assert read_results(path).checks[-1] == big


def test_the_same_as_tables(tmp_path: Path) -> None:
    journal = written(tmp_path / "r.jsonl")
    write_sqlite(journal.results, tmp_path / "r.sqlite3")
    with closing(sqlite3.connect(tmp_path / "r.sqlite3")) as database:
        row = database.execute(
            "SELECT model, quantization, pp_tok_s, tg_tok_s, gross_j, energy.tier FROM cells"
            " JOIN repeats USING (cell) JOIN energy USING (cell, block)"
        ).fetchone()
        assert row == ("m", "Q8_0", REPEAT.pp_tok_s, REPEAT.tg_tok_s, 50.0, "wall")
        assert database.execute("SELECT count(*) FROM answers").fetchone() == (1,)
        assert database.execute("PRAGMA user_version").fetchone() == (RESULTS_SCHEMA,)
    with pytest.raises(DataError, match="exists"):
        write_sqlite(journal.results, tmp_path / "r.sqlite3")

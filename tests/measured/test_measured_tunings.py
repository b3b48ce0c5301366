"""Tuned settings are kept beside the other measurements, also in files of earlier versions."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from measurements import BUILD, LOAD, MACHINE

from bendi.measured import MeasuredStore, TuningRow, TuningStore
from bendi.measured.schema import MIGRATIONS

ROW = TuningRow(MACHINE, "k", BUILD, "f16", "qwen3:4b", "first")
NAME = "measured.sqlite3"


def texts(store: TuningStore) -> list[tuple[str, str]]:
    return [(row.build, row.text) for row in store.tunings()]


def test_kept_and_forgotten(tmp_path: Path) -> None:
    with closing(TuningStore(tmp_path / NAME)) as store:
        assert store.tunings() == [] and not list(tmp_path.iterdir()), "nothing is made by reading"
        assert store.save(ROW)
        assert store.save(replace(ROW, text="second")), "replaces what there was"
        assert store.save(replace(ROW, build="another", model="a\udcffb"))
        assert store.save(replace(ROW, kv_type="q8_0"))
        assert {row.model for row in store.tunings()} == {"qwen3:4b", "a?b"}
        assert sorted(texts(store)) == [("another", "first"), (BUILD, "first"), (BUILD, "second")]
        assert store.tunings()[0].saved_s > 1.7e9
        assert store.forget(MACHINE, "other") == store.forget("other", "k") == 0
        assert store.forget(MACHINE, "k") == 3
        assert store.tunings() == [] and store.notices == []


def first_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute("INSERT INTO calibrations VALUES (?, ?, 'kept', 1.0)", (MACHINE, BUILD))
        connection.execute("PRAGMA user_version = 1")
        connection.commit()


def test_a_file_of_the_first_version(tmp_path: Path) -> None:
    first_version(tmp_path / NAME)
    with closing(TuningStore(tmp_path / NAME)) as store, closing(MeasuredStore(tmp_path / NAME)) as measured:
        assert store.save(ROW) and measured.add_load(LOAD)
        assert texts(store) == [(BUILD, "first")]
        assert measured.calibration(MACHINE, BUILD) == "kept"
        assert store.notices == measured.notices == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs permissions that count")
def test_a_file_of_the_first_version_that_nobody_may_write(tmp_path: Path) -> None:
    first_version(tmp_path / NAME)
    (tmp_path / NAME).chmod(0o400)
    with closing(TuningStore(tmp_path / NAME)) as store:
        assert store.tunings() == [] and store.notices == []
    assert [path.name for path in tmp_path.iterdir()] == [NAME], "it is not damaged"


def test_damage_is_moved_aside(tmp_path: Path) -> None:
    with closing(TuningStore(tmp_path / NAME)) as store:
        assert store.save(ROW)
    with closing(sqlite3.connect(tmp_path / NAME)) as connection:
        connection.execute("UPDATE tunings SET text = x'00'")
        connection.commit()
    with closing(TuningStore(tmp_path / NAME)) as store:
        assert store.tunings() == []
        assert "damaged" in store.notices[0]
        assert store.save(ROW) and texts(store) == [(BUILD, "first")]

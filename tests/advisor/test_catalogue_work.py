"""The table of the catalogue is what the dimensions of its models make."""

from __future__ import annotations

from pathlib import Path

import pytest

import bendi.advisor
from bendi.advisor.catalogue_work import FILE_NAME, catalogue_subjects
from bendi.advisor.shapes import worked_out
from bendi.store.known_models import known_models

SAMPLE = ("qwen3:8b", "qwen3:30b", "gemma3:4b", "deepseek-v3.1:671b", "falcon-h1:0.5b", "lfm2:8b", "bge-m3:567m")


@pytest.mark.parametrize("alias", SAMPLE)
def test_a_sample_is_worked_out_again(alias: str) -> None:
    fresh = worked_out(known_models()[alias])
    kept = catalogue_subjects(alias)
    assert [subject.quantization for subject in fresh] == list(kept)
    for subject in fresh:
        assert kept[subject.quantization] == subject, "run python tools/catalogue_work.py"


def test_every_known_model_is_there() -> None:
    assert [alias for alias in known_models() if not catalogue_subjects(alias)] == []
    assert not catalogue_subjects("no such model")


def test_it_stays_small() -> None:
    assert Path(str(bendi.advisor.__file__)).with_name(FILE_NAME).stat().st_size < 2 * 1024**2

"""Mixtures against llama.cpp's own record: twelve real models in every quantization, each tensor."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from snapshot_models import MODELS

from bendi.planner.mixture import MixtureFacts, quantized_types
from bendi.planner.mixture_rules import FILE_TYPES

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(os.environ.get("BENDI_LLAMA_CPP_SDIST") or ROOT / ".cache" / "llama-cpp-python-0.3.36.tar.gz")
SECTION = re.compile(r"\[(\w+)] (\w+)")


@pytest.fixture(scope="session")
def snapshots() -> Mapping[str, str]:
    """Texts of the snapshots by model, from the source package or from the folder it was unpacked to."""
    if not PACKAGE.exists():
        pytest.skip(f"no {PACKAGE}: scripts/fetch-oracle fetches it (or set BENDI_LLAMA_CPP_SDIST)")
    if PACKAGE.is_dir():
        return {path.stem: path.read_text() for path in PACKAGE.rglob("tests/snapshots/*.schema")}
    texts = {}
    with tarfile.open(PACKAGE) as package:
        for member in package:
            file = package.extractfile(member) if re.search(r"/tests/snapshots/[^/]+\.schema$", member.name) else None
            if file is not None:
                texts[Path(member.name).stem] = file.read().decode()
    return texts


def sections(text: str) -> dict[str, tuple[str, dict[str, str]]]:
    """For every quantization its base type and the tensors that differ from it."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    different: dict[str, str] = {}
    for line in text.splitlines():
        if head := SECTION.fullmatch(line):
            different = {}
            found[head[1]] = (head[2].upper(), different)
        elif line and not line.startswith("#"):
            name, type_name = line.rsplit(" ", 1)
            different[name] = type_name.upper()
    return found


def test_every_snapshot_has_its_model(snapshots: Mapping[str, str]) -> None:
    assert set(snapshots) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_of_every_quantization(name: str, snapshots: Mapping[str, str]) -> None:
    model, text = MODELS[name], snapshots[name]
    head = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text.splitlines()[1])}
    embedding = model.tensors[0]
    assert embedding.shape == (head["n_embd"], head["n_vocab"] or embedding.shape[1])
    facts = MixtureFacts(
        model.architecture, head["n_layer"], head["n_head"], head["n_head_kv"], head.get("n_expert", 0)
    )

    unquantized = [replace(tensor, type_name="I8") for tensor in model.tensors]
    recorded = sections(text)
    assert len(recorded) == 33
    for file_type, (base, different) in recorded.items():
        assert FILE_TYPES[file_type] == base
        types = {
            t.name: got for t, got in zip(unquantized, quantized_types(unquantized, facts, file_type), strict=True)
        }
        quantized = {tensor_name for tensor_name, got in types.items() if got != "I8"}
        assert set(different) <= quantized, file_type
        wanted = {tensor_name: different.get(tensor_name, base) for tensor_name in quantized}
        assert {n: types[n] for n in quantized} == wanted, file_type

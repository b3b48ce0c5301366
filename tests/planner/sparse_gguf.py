"""Writes GGUF files that are all header: tensors are declared, their data is a hole in the file."""

from __future__ import annotations

from pathlib import Path

from bendi.formats.blueprint import Blueprint
from bendi.formats.gguf_writer import Vocabulary, write_gguf


def write_sparse(model: Blueprint, path: Path) -> Path:
    """The file of `model` at `path`: full logical size, on disk only its header."""
    path.unlink(missing_ok=True)
    return write_gguf(path, model.full_metadata() | Vocabulary(model.vocab).metadata(), model.header().tensors)

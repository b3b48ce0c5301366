"""What stands between a file and the engine: memory, and that it stays the file that was checked."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from bendi.engines import LoadRequest, open_engine
from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.probes import dense_config
from bendi.engines.random_weights import write_random_model
from bendi.errors import ModelFileError
from bendi.formats.blueprints import blueprint_from_config
from bendi.messages import GenerateRequest
from bendi.settings import load_settings
from bendi.units import MIB


@pytest.fixture(scope="module")
def repacked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Q4_0 model of 345 MiB: a type that the engine likes to keep in another order."""
    blueprint = blueprint_from_config(dense_config(12, 2048, 6144, (16, 8, 128)), "large")
    types = ["Q4_0" if name != "F32" else name for name in blueprint.default_types()]
    return write_random_model(tmp_path_factory.mktemp("models") / "large.gguf", blueprint, types)


@pytest.mark.parametrize("limit_bytes, copied", [(None, True), (300 * MIB, False)])
def test_a_copy_is_made_only_where_it_fits(repacked_model: Path, limit_bytes: int | None, copied: bool) -> None:
    load = LoadRequest(repacked_model, context_tok=512, memory_limit_bytes=limit_bytes)
    with closing(open_engine(load, load_settings())) as engine:
        *_texts, last = engine.generate(GenerateRequest(prompt=(300, 301, 302), max_tokens=2, ignore_end=True))
        assert last.usage is not None and last.usage.completion_tok == 2
        assert isinstance(engine, LlamaServerEngine) and engine.info.buffers is not None
        buffers = engine.info.buffers.weights_bytes_by_buffer
    assert ("CPU_REPACK" in buffers) == copied


def test_a_file_changed_while_it_loads_is_not_used(demo_model: Path, tmp_path: Path) -> None:
    """The engine opens the file by its name, after the gate has read it."""
    path = tmp_path / "model.gguf"
    path.write_bytes(demo_model.read_bytes())
    with pytest.raises(ModelFileError, match="changed while"):
        open_engine(LoadRequest(path, context_tok=512), load_settings(), lambda _fraction: os.utime(path))

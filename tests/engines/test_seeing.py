"""Models that see: images go to the engine, and nothing but images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from native_engine import opener

from bendi.engines import LoadRequest, native_worker, wheel, worker
from bendi.engines.prepare import prepare, worker_config
from bendi.engines.projector import projector_beside
from bendi.errors import EngineError, ModelFileError, RequestRejected
from bendi.messages import GenerateRequest, Message, Sampling
from eyes import IMAGE_TOK, png, write_projector

REAL = ("wheel", "native")
RED, BLUE = png(255, 0, 0), png(0, 0, 255)
DEMO_LENGTH = 256


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_projector(tmp_path_factory.mktemp("models") / "mmproj.gguf", DEMO_LENGTH)


@pytest.fixture(scope="module", params=REAL)
def engine(request: pytest.FixtureRequest, demo_model: Path, projector: Path) -> Iterator[Any]:
    load = LoadRequest(model_path=demo_model, context_tok=512, mmproj_path=projector)
    opened = opener(request.param)(load, None)
    yield opened
    opened.close()


def ask(*images: bytes) -> GenerateRequest:
    message = Message("user", "What is this?", images=images)
    return GenerateRequest(messages=(message,), max_tokens=12, sampling=Sampling(temperature=0.0))


def logprobs(engine: Any, *images: bytes) -> list[float]:
    request = ask(*images)
    chunks = list(engine.generate(GenerateRequest(**{**request.__dict__, "logprobs": 0})))
    return [token.logprob for chunk in chunks for token in chunk.logprobs]


def test_images_are_seen(engine: Any) -> None:
    seen = [logprobs(engine, *images) for images in ((), (RED,), (BLUE,), (RED,))]
    assert seen[1] == pytest.approx(seen[3], abs=1e-3)
    assert len({tuple(round(number, 4) for number in one) for one in seen[:3]}) == 3


def test_images_are_counted(engine: Any) -> None:
    counts = []
    for images in ((), (RED,), (RED, BLUE)):
        last = list(engine.generate(ask(*images)))[-1]
        assert last.usage.prompt_tok == engine.count_tokens(ask(*images).messages)
        counts.append(last.usage.prompt_tok)
    assert counts[1] >= counts[0] + IMAGE_TOK and counts[2] >= counts[1] + IMAGE_TOK


@pytest.mark.parametrize("image", [b"", b"nonsense", b"RIFF\0\0\0\0AVI LIST", b"\0\0\0\x18ftypmp42", b"<svg/>"])
def test_what_is_no_image_never_reaches_the_worker(engine: Any, image: bytes) -> None:
    with pytest.raises(RequestRejected) as caught:
        list(engine.generate(ask(image)))
    assert "PNG" in caught.value.hint


@pytest.mark.parametrize("image", [RED[:40], b"BM" + bytes(60), b"\xff\xd8\xff" + bytes(60), b"GIF89a" + bytes(20)])
def test_broken_images_are_refused(engine: Any, image: bytes) -> None:
    with pytest.raises(RequestRejected):
        list(engine.generate(ask(image)))
    assert list(engine.generate(ask(RED)))[-1].usage, "the engine goes on"


def test_no_program_is_looked_for(demo_model: Path, projector: Path) -> None:
    """The engine hands what it cannot decode to ffmpeg, found in this folder: here it is a file."""
    load = LoadRequest(model_path=demo_model, context_tok=256, mmproj_path=projector)
    config = worker_config(load, prepare(load))
    said = native_worker.arguments(config, "key")
    assert said[said.index("--video-ffmpeg-dir") + 1] == str(demo_model)
    assert worker._parameters(config).video_ffmpeg_bin_dir == str(demo_model)


@pytest.mark.parametrize("more", [{"general.architecture": "llama"}, {"clip.has_vision_encoder": False}])
def test_only_projectors_are_taken(demo_model: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    path = write_projector(tmp_path / "other.gguf", DEMO_LENGTH, **more)
    with pytest.raises(ModelFileError) as caught:
        prepare(LoadRequest(model_path=demo_model, mmproj_path=path))
    assert caught.value.hint
    with pytest.raises(ModelFileError):
        prepare(LoadRequest(model_path=demo_model, mmproj_path=demo_model))


def test_a_projector_of_another_model(demo_model: Path, tmp_path: Path) -> None:
    path = write_projector(tmp_path / "other.gguf", 2 * DEMO_LENGTH)
    with pytest.raises(EngineError) as caught:
        wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=256, mmproj_path=path))
    assert caught.value.message


def test_the_projector_in_the_folder_of_a_model_is_found(demo_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(demo_model.read_bytes())
    assert projector_beside(model) is None
    (tmp_path / "mmproj-broken.gguf").write_bytes(b"GGUF")
    write_projector(tmp_path / "mmproj-other.gguf", DEMO_LENGTH, **{"general.name": "another"})
    write_projector(tmp_path / "mmproj-silent.gguf", DEMO_LENGTH)
    assert projector_beside(model) is None
    found = write_projector(tmp_path / "mmproj-right.gguf", DEMO_LENGTH, **{"general.name": "Bendi demo"})
    assert projector_beside(model) == found
    assert projector_beside(found) is None
    assert projector_beside(tmp_path / "gone" / "model.gguf") is None


def test_the_worker_may_read_it_and_is_watched_for_changes(demo_model: Path, projector: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mmproj.gguf"
    copy.write_bytes(projector.read_bytes())
    load = LoadRequest(model_path=demo_model, context_tok=256, mmproj_path=copy)
    prepared = prepare(load)
    config = worker_config(load, prepared)
    assert config.mmproj_path in config.part_paths and json.dumps(config.__dict__)
    prepared.check_unchanged()
    copy.write_bytes(projector.read_bytes() + b"\0")
    with pytest.raises(ModelFileError):
        prepared.check_unchanged()


def test_without_one_the_model_sees_nothing(demo_model: Path) -> None:
    load = LoadRequest(model_path=demo_model, context_tok=256)
    with closing(wheel.open_engine(load)) as engine, pytest.raises(RequestRejected):
        list(engine.generate(ask(RED)))

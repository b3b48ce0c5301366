"""Headers of local models that are remembered: right, thrown away when anything changed, and never used for loading."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from headers import gguf_with_vocabulary
from tiny import gguf, split_gguf

from bendi.errors import ModelFileError, NotFoundError
from bendi.formats import GgufFile, read_gguf_split
from bendi.settings import Settings
from bendi.store import Store
from bendi.store.inspecting import inspect_model
from bendi.store.local_headers import FOLDER, LIMITS, local_headers

OLD_S = 1_600_000_000
QUIET_S = 2.3


def quiet(*paths: Path) -> None:
    """Waits until the last change of `paths` is long ago, as it is for most models."""
    while time.time() - max(path.stat().st_ctime for path in paths) < QUIET_S:
        time.sleep(0.05)


def kept(settings: Settings) -> list[Path]:
    folder = settings.cache_dir / FOLDER
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that nothing has changed for a while, in a folder with the parts of another one."""
    folder = tmp_path_factory.mktemp("模型 models")
    path = folder / "m-Q4_0.gguf"
    path.write_bytes(gguf_with_vocabulary(2000))
    for number, part in enumerate(split_gguf(3, 500), 1):
        (folder / f"big-{number:05d}-of-00003.gguf").write_bytes(part)
    quiet(*folder.iterdir())
    return path


def remembered(path: Path, settings: Settings) -> tuple[GgufFile, ...]:
    """What is remembered of a model, marked so that it differs from what is in the file."""
    first = local_headers(path, settings.cache_dir)
    [entry] = kept(settings)
    line, _newline, body = entry.read_bytes().partition(b"\n")
    assert b'"alignment": 32' in body
    other = body.replace(b'"alignment": 32', b'"alignment": 64')
    head = json.loads(line) | {"sha256": hashlib.sha256(other).hexdigest(), "bytes": len(other)}
    entry.write_bytes(json.dumps(head).encode() + b"\n" + other)
    return tuple(replace(part, alignment=64) for part in first)


def test_what_is_remembered_is_what_was_read(model: Path, settings: Settings) -> None:
    read = read_gguf_split(model)
    assert local_headers(model, settings.cache_dir) == read
    [entry] = kept(settings)
    assert entry.stat().st_size < 20_000, "the vocabulary is not in it"
    again = local_headers(model, settings.cache_dir)
    assert again == read
    assert [list(map(type, part.metadata.values())) for part in again] == [
        list(map(type, part.metadata.values())) for part in read
    ]


def test_the_file_is_not_read_again(model: Path, settings: Settings) -> None:
    marked = remembered(model, settings)
    assert local_headers(model, settings.cache_dir) == marked
    assert inspect_model(Store(settings), str(model)).parts == marked


def test_all_parts_of_a_split_model(model: Path, settings: Settings) -> None:
    path = model.with_name("big-00002-of-00003.gguf")
    read = read_gguf_split(path)
    assert len(read) == 3
    assert local_headers(path, settings.cache_dir) == local_headers(path, settings.cache_dir) == read
    assert len(kept(settings)) == 1


def test_a_demo_model(demo_model: Path, settings: Settings) -> None:
    read = read_gguf_split(demo_model)
    assert local_headers(demo_model, settings.cache_dir) == local_headers(demo_model, settings.cache_dir) == read


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path: Path, settings: Settings) -> None:
    """Two changes within one tick of the clock would look alike."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(100, 1))
    os.utime(path, (OLD_S, OLD_S))
    local_headers(path, settings.cache_dir)
    assert kept(settings) == []


def overwritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def replaced(path: Path, content: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(content)
    other.replace(path)


def changed_in_place(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)


def test_a_changed_file_with_the_old_size_and_time(tmp_path: Path, settings: Settings) -> None:
    """Behind the first bytes, too: they stay as they were, a later key changes."""
    old = gguf_with_vocabulary(20_000)
    new = old.replace(b"messages[0].content", b"messages[1].content")
    assert len(new) == len(old)
    assert new[:65536] == old[:65536]
    changes = {tmp_path / f"{change.__name__}.gguf": change for change in (overwritten, replaced, changed_in_place)}
    for path in changes:
        path.write_bytes(old)
        os.utime(path, (OLD_S, OLD_S))
    quiet(*changes)
    for number, (path, change) in enumerate(changes.items(), 1):
        local_headers(path, settings.cache_dir)
        assert len(kept(settings)) == number, "remembered"
        change(path, new)
        os.utime(path, (OLD_S, OLD_S))
        found = local_headers(path, settings.cache_dir)
        assert found == read_gguf_split(path)
        assert found[0].text("tokenizer.chat_template") == "{{ messages[1].content }}"


def test_a_file_that_is_gone_or_broken(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(NotFoundError):
        local_headers(tmp_path / "none.gguf", settings.cache_dir)
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelFileError):
        local_headers(path, settings.cache_dir)
    with pytest.raises(ModelFileError):
        local_headers(tmp_path, settings.cache_dir)
    assert kept(settings) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"x",
        lambda raw: raw[:-10] + b"0" * 10,
        lambda raw: b"",
        lambda raw: b"\xff\xfe\n",
        lambda raw: b"[" * 100_000,
        lambda raw: raw.replace(b'"version": 1', b'"version": 99', 1),
        lambda raw: raw.partition(b"\n")[0] + b"\n",
    ],
    ids=["shorter", "longer", "flipped", "empty", "binary", "deep", "other version", "no body"],
)
def test_what_is_damaged_is_made_again(model: Path, settings: Settings, damage: Callable[[bytes], bytes]) -> None:
    remembered(model, settings)
    [entry] = kept(settings)
    entry.write_bytes(damage(entry.read_bytes()))
    assert local_headers(model, settings.cache_dir) == read_gguf_split(model)
    assert kept(settings) == [entry]


@pytest.mark.parametrize("body", ["[{}]", "{}", "[1]", '[{"names":[1],"shapes":[]}]', "null", '["x"]'])
def test_what_is_sound_and_means_nothing(model: Path, settings: Settings, body: str) -> None:
    """Right by its hash, so that the reader itself must notice."""
    remembered(model, settings)
    [entry] = kept(settings)
    head = json.loads(entry.read_bytes().partition(b"\n")[0])
    head |= {"sha256": hashlib.sha256(body.encode()).hexdigest(), "bytes": len(body)}
    entry.write_bytes(json.dumps(head).encode() + b"\n" + body.encode())
    assert local_headers(model, settings.cache_dir) == read_gguf_split(model)


def test_a_folder_that_cannot_be_used(model: Path, settings: Settings, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert local_headers(model, blocked) == read_gguf_split(model)


def test_no_more_than_a_few_are_kept(model: Path, settings: Settings) -> None:
    folder = settings.cache_dir / FOLDER
    folder.mkdir(parents=True)
    for number in range(LIMITS.files + 10):
        (folder / f"{number}.json").write_bytes(b"{}\n")
        os.utime(folder / f"{number}.json", (OLD_S + number, OLD_S + number))
    local_headers(model, settings.cache_dir)
    assert len(kept(settings)) == LIMITS.files
    assert not (folder / "0.json").exists()


def test_many_writers_at_once(model: Path, settings: Settings) -> None:
    read = read_gguf_split(model)
    wrong: list[object] = []

    def look() -> None:
        for _time in range(10):
            found = local_headers(model, settings.cache_dir)
            for entry in kept(settings):
                entry.unlink(missing_ok=True)
            if found != read:
                wrong.append(found)

    threads = [threading.Thread(target=look) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(entry.suffix == ".json" for entry in kept(settings)), "nothing half written is left"


def test_engines_do_not_read_it() -> None:
    """What decides about a load reads the file itself: nothing below `engines` knows these headers."""
    code = (
        "import sys, bendi.engines.prepare, bendi.store.pull, bendi.store.importing, bendi.store.upkeep;"
        "print('bendi.store.local_headers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"

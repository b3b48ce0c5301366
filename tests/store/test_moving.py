"""The store moves while every model stays where somebody can find it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dying import die_at, in_a_child
from pulling import everything
from tiny import gguf, sha256, split_gguf

from bendi.errors import StoreError, UsageError
from bendi.settings import Settings, load_settings
from bendi.store import Store
from bendi.store.importing import import_file
from bendi.store.journal import journal_path, part_path
from bendi.store.lock import STORE_LOCK_NAME, locked
from bendi.store.moving import MOVE_NOTE_NAME, move_store
from bendi.store.record import Entry, RecordedFile, put_entry
from bendi.store.upkeep import verify


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """On a disk that syncs fast where there is one, since stores are moved again and again."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder, "一 台 机器")


@pytest.fixture
def reload(base: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Settings]:
    """The settings as the next command would read them from the file."""
    config = base / "config"
    config.mkdir(parents=True)
    monkeypatch.setenv("BENDI_CONFIG", str(config))
    monkeypatch.setenv("HF_HUB_CACHE", str(base / "none"))
    (config / "config.toml").write_text(
        f'# my settings\nlanguage = "zh"  # 中文\nmodels_dirs = ["{base / "old"}"]\noffline = true\n', "utf-8"
    )
    return load_settings


@pytest.fixture
def models(base: Path, reload: Callable[[], Settings]) -> dict[str, list[bytes]]:
    """Content by name: a copy, a split model, one that is only registered, one of the user, and an unfinished one."""
    store = Store(reload())
    contents = {"copy": [gguf(30_000, 1)], "big": split_gguf(2, 9000, 2), "there": [gguf(50, 3)]}
    outside = base / "outside"
    outside.mkdir()
    (outside / "c.gguf").write_bytes(contents["copy"][0])
    for number, part in enumerate(contents["big"], 1):
        (outside / f"big-{number:05d}-of-00002.gguf").write_bytes(part)
    (outside / "t.gguf").write_bytes(contents["there"][0])
    import_file(store, outside / "c.gguf", name="copy")
    import_file(store, outside / "big-00001-of-00002.gguf", name="big")
    import_file(store, outside / "t.gguf", name="there", way="in place")
    folder = base / "old" / "hf" / "a" / "b"
    folder.mkdir(parents=True)
    target = folder / "x-Q4_0.gguf"
    part_path(target).write_bytes(b"half")
    journal_path(target).write_text("{}")
    put_entry(folder, Entry("hf:a/b:Q4_0", "download", (RecordedFile("x-Q4_0.gguf", 99, "0" * 64),), complete=False))
    return contents


@pytest.fixture(params=["one disk", "two disks"])
def new_root(request: pytest.FixtureRequest, base: Path) -> Iterator[Path]:
    folder = base / "新 盘" / "models"
    if request.param == "one disk":
        yield folder
        return
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can mount another file system")
    folder.parent.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder.parent], capture_output=True)
    if done.returncode:
        pytest.skip(f"no other file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder.parent], check=True)


def all_there(settings: Settings, models: dict[str, list[bytes]]) -> bool:
    store = Store(settings)
    return all([part.read_bytes() for part in store.resolve(name).parts] == parts for name, parts in models.items())


def test_move(base: Path, reload: Callable[[], Settings], models: dict[str, list[bytes]], new_root: Path) -> None:
    moved = move_store(reload(), new_root, reserve_bytes=0)
    assert moved.models == 4
    assert all_there(reload(), models)
    settings = reload()
    assert settings.models_dirs == (new_root,)
    assert settings.offline
    assert "# my settings" in settings.config_file.read_text("utf-8")
    assert 'language = "zh"  # 中文' in settings.config_file.read_text("utf-8")
    assert not (base / "old").exists()
    assert part_path(new_root / "hf" / "a" / "b" / "x-Q4_0.gguf").read_bytes() == b"half"
    assert not Store(settings).lookup("hf:a/b:Q4_0").complete
    assert (base / "outside" / "t.gguf").exists()
    assert all(verify(Store(settings).resolve(name)).ok for name in models)
    assert not (new_root / MOVE_NOTE_NAME).exists()


def test_files_of_the_user_stay_and_are_still_found(
    base: Path, reload: Callable[[], Settings], models: dict[str, list[bytes]], new_root: Path
) -> None:
    mine = base / "old" / "mine.gguf"
    mine.write_bytes(gguf(77, 7))
    moved = move_store(reload(), new_root, reserve_bytes=0)
    assert moved.stayed == 1
    assert mine.exists()
    assert reload().models_dirs == (new_root, base / "old")
    assert Store(reload()).resolve("mine").path == mine
    assert all_there(reload(), models)


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_death_at_any_moment_loses_nothing_and_the_same_command_goes_on(
    base: Path, reload: Callable[[], Settings], models: dict[str, list[bytes]], new_root: Path
) -> None:
    """Dies before the first, the second, ... change of the disk, each time in the same store; then goes on."""
    names = ("old", "config", "outside")
    for name in names:
        shutil.copytree(base / name, base / "before" / name)
    for number in range(1, 500):
        shutil.rmtree(new_root, ignore_errors=True)
        for name in names:
            shutil.rmtree(base / name, ignore_errors=True)
            shutil.copytree(base / "before" / name, base / name)

        def attempt(number: int = number) -> None:
            die_at(number)
            move_store(reload(), new_root, reserve_bytes=0)

        status = in_a_child(attempt)
        assert status in (0, 99)
        assert all_there(reload(), models)
        if status == 0:
            break
        if reload().models_dirs != (new_root,):
            move_store(reload(), new_root, reserve_bytes=0)
        assert all_there(reload(), models)
        assert reload().models_dirs == (new_root,)
        assert everything(base / "old") == set()
    assert number > 40


def test_a_running_program_keeps_its_model(
    base: Path, reload: Callable[[], Settings], models: dict[str, list[bytes]], new_root: Path
) -> None:
    path = Store(reload()).resolve("copy").path
    code = (
        "import mmap, sys, hashlib\n"
        "with open(sys.argv[1], 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as weights:\n"
        "    print('mapped', flush=True); sys.stdin.readline()\n"
        "    print(hashlib.sha256(weights).hexdigest(), flush=True)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "mapped\n"
    move_store(reload(), new_root, reserve_bytes=0)
    assert not path.exists()
    out, _nothing = worker.communicate("go\n", timeout=30)
    assert out.strip() == sha256(models["copy"][0])


def test_too_little_space_changes_nothing(
    base: Path, reload: Callable[[], Settings], models: dict[str, list[bytes]]
) -> None:
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can mount another file system")
    small = base / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], capture_output=True)
    if done.returncode:
        pytest.skip(f"no other file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        with pytest.raises(StoreError, match="are needed"):
            move_store(reload(), small)
        assert all_there(reload(), models)
        assert reload().models_dirs == (base / "old",)
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_damaged_model_stops_the_move(
    base: Path,
    reload: Callable[[], Settings],
    models: dict[str, list[bytes]],
    new_root: Path,
    request: pytest.FixtureRequest,
) -> None:
    path = Store(reload()).resolve("copy").path
    path.write_bytes(gguf(30_000, 99))
    if "one disk" in request.node.name:
        pytest.skip("nothing is read when nothing is copied")
    with pytest.raises(StoreError, match="damaged"):
        move_store(reload(), new_root, reserve_bytes=0)
    assert path.exists()
    assert reload().models_dirs == (base / "old",)


def test_a_file_in_the_way_is_not_replaced(
    base: Path, reload: Callable[[], Settings], models: dict[str, list[bytes]], new_root: Path
) -> None:
    other = new_root / "files" / "copy" / "c.gguf"
    other.parent.mkdir(parents=True)
    other.write_bytes(gguf(10, 5))
    with pytest.raises(StoreError, match="in the way"):
        move_store(reload(), new_root, reserve_bytes=0)
    assert other.read_bytes() == gguf(10, 5)
    assert all_there(reload(), models)


def test_folders_that_cannot_be_meant(
    base: Path, reload: Callable[[], Settings], models: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = base / "old"
    (base / "file").write_text("")
    for folder in (old, old / "inside", base, base / "file", base / "outside" / ".." / "old"):
        with pytest.raises((UsageError, StoreError)):
            move_store(reload(), folder)
    assert all_there(reload(), models)
    monkeypatch.setenv("BENDI_MODELS", str(base / "old"))
    move_refused = load_settings()
    assert move_refused.models_dirs == (base / "old",)
    monkeypatch.setenv("BENDI_MODELS", str(base / "outside"))
    with pytest.raises(UsageError, match="BENDI_MODELS"):
        move_store(load_settings(), base / "new")


def test_a_pull_and_a_move_exclude_each_other(
    base: Path, reload: Callable[[], Settings], models: dict[str, list[bytes]]
) -> None:
    with locked(base / "old" / STORE_LOCK_NAME, shared=True), pytest.raises(StoreError, match="another bendi"):
        move_store(reload(), base / "new")
    assert all_there(reload(), models)


def test_settings_without_a_models_folder(
    base: Path, reload: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "config" / "config.toml").unlink()
    monkeypatch.setenv("XDG_DATA_HOME", str(base / "data"))
    settings = reload()
    (base / "t.gguf").parent.mkdir(exist_ok=True)
    (base / "t.gguf").write_bytes(gguf())
    import_file(Store(settings), base / "t.gguf")
    move_store(settings, base / "new")
    assert reload().models_dirs == (base / "new",)
    assert Store(reload()).resolve("t").path.is_relative_to(base / "new")
    assert json.loads((base / "new" / "files" / "t" / "bendi.json").read_text())["format"] == 1

"""The headers that are kept: found again, thrown away when damaged, never more than the limit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bendi.store.blocks import Blocks, Spool
from bendi.store.header_cache import HeaderCache, Kept, address_key, file_key
from bendi.store.remote import RemoteFile

KEY = "a" * 64


def kept(*blocks: tuple[int, bytes], size_bytes: int = 10_000) -> Kept:
    made = Blocks(Spool())
    for start, block in blocks:
        made.add(start, block)
    return Kept(size_bytes, made)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "缓存 cache" / "headers"


def test_what_is_saved_is_found(folder: Path) -> None:
    cache = HeaderCache(folder)
    assert cache.load(KEY, Spool()) is None
    cache.save(KEY, kept((0, b"head"), (100, b"\n\0tail")))
    found = HeaderCache(folder).load(KEY, Spool())
    assert found is not None
    assert (found.size_bytes, found.blocks.spans()) == (10_000, [(0, 4), (100, 6)])
    assert list(found.blocks.pieces()) == [b"head", b"\n\0tail"]
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.head"]
    cache.forget(KEY)
    cache.forget(KEY)
    assert cache.load(KEY, Spool()) is None


def test_what_has_no_key_is_not_kept(folder: Path) -> None:
    cache = HeaderCache(folder)
    cache.save(None, kept((0, b"head")))
    assert cache.load(None, Spool()) is None
    cache.forget(None)
    assert not folder.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        lambda raw: raw + b"x",
        lambda raw: raw.replace(b'"version": 1', b'"version": 2'),
        lambda raw: raw.replace(b'"size_bytes": 10000', b'"size_bytes": 3'),
        lambda raw: raw.replace(b'"size_bytes": 10000', b'"size_bytes": "x"'),
        lambda raw: raw.replace(b"[[0, 4], [100, 6]]", b"[[0, 4], [2, 6]]"),
        lambda raw: raw.replace(b"[[0, 4], [100, 6]]", b"[[0, 4], [100, 7]]"),
        lambda raw: raw.replace(b"[[0, 4], [100, 6]]", b"[[0, 4], [100, 5]]"),
        lambda raw: raw.replace(b"[[0, 4], [100, 6]]", b"[[-9, 4], [100, 6]]"),
        lambda raw: raw.replace(b"[[0, 4], [100, 6]]", b"[[0, 10], [100, 0]]"),
        lambda raw: raw.replace(b"[[0, 4], [100, 6]]", b'[["0", 4], [100, 6]]'),
        lambda raw: raw.replace(b"[[0, 4], [100, 6]]", b"null"),
        lambda raw: b"[" * 100_000,
        lambda raw: b"",
        lambda raw: b"\xff\xfe\n",
    ],
    ids=[
        "shorter", "flipped", "longer", "other version", "size too small", "size is text", "overlap", "block too long",
        "block too short", "before the start", "empty block", "offset is text", "no blocks", "deep", "empty", "binary",
    ],
)  # fmt: skip
def test_what_is_damaged_is_as_good_as_not_there(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    cache = HeaderCache(folder)
    cache.save(KEY, kept((0, b"head"), (100, b"\n\0tail")))
    path = folder / f"{KEY}.head"
    raw = path.read_bytes()
    assert damage(raw) != raw
    path.write_bytes(damage(raw))
    assert cache.load(KEY, Spool()) is None
    assert not path.exists()


def test_a_file_too_large_to_be_ours_is_not_read(folder: Path) -> None:
    folder.mkdir(parents=True)
    path = folder / f"{KEY}.head"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert HeaderCache(folder).load(KEY, Spool()) is None
    assert not path.exists()


def test_what_was_not_used_for_longest_goes(folder: Path) -> None:
    cache = HeaderCache(folder, limit_bytes=5000)
    for number in range(4):
        cache.save(address_key(str(number)), kept((0, bytes(1000))))
        os.utime(folder / f"{address_key(str(number))}.head", (1000 + number, 1000 + number))
    assert cache.load(address_key("0"), Spool()) is not None  # used just now
    cache.save(address_key("new"), kept((0, bytes(2000))))
    left = {path.name.removesuffix(".head") for path in folder.iterdir()}
    assert left == {address_key("0"), address_key("3"), address_key("new")}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5000


def test_a_folder_that_cannot_be_used_is_no_reason_to_fail(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    cache = HeaderCache(blocked / "headers")
    cache.save(KEY, kept((0, b"head")))
    assert cache.load(KEY, Spool()) is None
    cache.forget(KEY)


def test_keys() -> None:
    file = RemoteFile("https://example.org/m.gguf", "m.gguf", 10)
    assert file_key(file) is None
    assert file_key(RemoteFile(file.url, file.path, 10, sha256=KEY)) == KEY
    keys = {
        file_key(RemoteFile("https://example.org/m.gguf", "m.gguf", 10, etag='"1"')),
        file_key(RemoteFile("https://example.org/m.gguf", "m.gguf", 10, etag='"2"')),
        file_key(RemoteFile("https://example.org/m.gguf", "m.gguf", 11, etag='"2"')),
        file_key(RemoteFile("https://example.org/n.gguf", "m.gguf", 10, etag='"2"')),
        file_key(RemoteFile("https://example.org/n.gguf", "m.gguf", 10, last_modified="today")),
        file_key(RemoteFile("https://example.org/n.gguf", "m.gguf", 10, git_sha1="b" * 40)),
    }
    assert len(keys) == 6
    assert all(key and "/" not in key and len(key) < 100 for key in keys)

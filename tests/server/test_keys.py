"""Keys: made once, kept as hashes, removed for good, and never an open door because a file is damaged."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from bendi.cli.main import main
from bendi.errors import ConfigError, NotFoundError, UsageError
from bendi.server.keys import KeyRing
from bendi.settings import load_settings


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "state" / "keys.json")


def test_a_key_opens_what_its_scope_says(ring: KeyRing) -> None:
    assert ring.empty
    asks, rules = ring.add("phone"), ring.add("laptop", "admin", 60)
    assert not ring.empty
    caller = ring.caller(asks)
    assert caller and (caller.owner, "admin" in caller.scopes, "infer" in caller.scopes) == ("phone", False, True)
    found = ring.find(rules)
    assert found and (found.caller.owner, found.requests_per_minute) == ("laptop", 60)
    assert "admin" in found.caller.scopes
    assert len({asks, rules}) == 2 and asks.startswith("bendi-") and len(asks) > 40


@pytest.mark.parametrize("wrong", ["", "bendi-", "x" * 300, "bendi-\ud800", "密钥", "\0"])
def test_wrong_keys(ring: KeyRing, wrong: str) -> None:
    ring.add("phone")
    assert ring.caller(wrong) is None


def test_only_hashes_are_on_disk_and_only_the_owner_reads_them(ring: KeyRing) -> None:
    key = ring.add("phone")
    text = ring.path.read_text("utf-8")
    assert key not in text and key.removeprefix("bendi-") not in text
    assert hashlib.sha256(key.encode()).hexdigest() in text
    if sys.platform != "win32":
        assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600


def test_a_removed_key_stops_working_in_a_ring_that_is_in_use(ring: KeyRing) -> None:
    serving = KeyRing(ring.path)
    key = ring.add("phone")
    assert serving.caller(key)
    ring.remove("phone")
    assert serving.caller(key) is None and serving.empty


def test_uses_never_bring_back_a_removed_key(ring: KeyRing) -> None:
    serving = KeyRing(ring.path)
    key = ring.add("phone")
    serving.caller(key)
    ring.remove("phone")
    serving.save_used()
    assert ring.all() == []


def test_last_use_is_kept(ring: KeyRing) -> None:
    key = ring.add("phone")
    assert ring.all()[0].used_s is None
    serving = KeyRing(ring.path)
    serving.caller(key)
    assert ring.all()[0].used_s is None  # not by each request
    serving.save_used()
    used_s = ring.all()[0].used_s
    assert used_s is not None and used_s >= ring.all()[0].created_s


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"version": 2, "keys": []}', b'{"version": 1, "keys": [{"name": "x"}]}', b"null"],
)
def test_a_damaged_file_opens_nothing(ring: KeyRing, content: bytes) -> None:
    key = ring.add("phone")
    ring.path.write_bytes(content)
    serving = KeyRing(ring.path)
    assert serving.caller(key) is None
    assert not serving.empty
    with pytest.raises(ConfigError):
        ring.all()
    with pytest.raises(ConfigError):  # and is not overwritten
        ring.add("other")
    assert ring.path.read_bytes() == content


def test_unknown_scopes_in_the_file_are_refused(ring: KeyRing) -> None:
    key = ring.add("phone")
    document = json.loads(ring.path.read_bytes())
    document["keys"][0]["scope"] = "root"
    ring.path.write_text(json.dumps(document), "utf-8")
    assert KeyRing(ring.path).caller(key) is None


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "../x", "x" * 65, "名", "a\nb"])
def test_names_that_a_key_cannot_have(ring: KeyRing, name: str) -> None:
    with pytest.raises(UsageError):
        ring.add(name)


def test_a_name_is_given_once_and_found_when_removed(ring: KeyRing) -> None:
    ring.add("phone")
    with pytest.raises(UsageError):
        ring.add("phone")
    with pytest.raises(NotFoundError):
        ring.remove("laptop")


def test_two_who_add_at_once_both_succeed(ring: KeyRing) -> None:
    threads = [threading.Thread(target=ring.add, args=(f"key{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in ring.all()) == sorted(f"key{number}" for number in range(8))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_opens_nothing(ring: KeyRing) -> None:
    key = ring.add("phone")
    ring.path.chmod(0)
    serving = KeyRing(ring.path)
    assert serving.caller(key) is None and not serving.empty


def test_the_own_key_is_in_no_file_and_ends_with_its_ring(ring: KeyRing) -> None:
    ring.add("phone")
    key = ring.own_key()
    caller = ring.caller(key)
    assert caller and caller.owner == "bendi" and "admin" in caller.scopes
    ring.save_used()
    assert [row.name for row in ring.all()] == ["phone"]
    assert KeyRing(ring.path).caller(key) is None
    assert ring.caller(ring.own_key()) and ring.caller(key) is None


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "list"]) == 0
    assert "No keys" in capsys.readouterr().err
    assert main(["key", "add", "phone", "--rpm", "30"]) == 0
    key = capsys.readouterr().out.strip()
    ring = KeyRing(load_settings().keys_file)
    assert ring.caller(key)
    assert main(["key", "add", "phone"]) == 2
    assert main(["key", "add", "ci", "--scope", "admin", "--json"]) == 0
    capsys.readouterr()
    assert main(["key", "list", "--json"]) == 0
    out = capsys.readouterr().out
    assert [row["name"] for row in json.loads(out)] == ["phone", "ci"]
    assert "digest" not in out and key not in out
    assert main(["key", "list"]) == 0
    assert "phone" in capsys.readouterr().out
    assert main(["key", "rm", "phone"]) == 0
    assert main(["key", "rm", "phone"]) == 3
    assert main(["key", "add", "x", "--rpm", "0"]) == 2
    assert ring.caller(key) is None

"""The header of a model far away: right, cheap, remembered, and refused where it is hostile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from headers import gguf_with_vocabulary, sent_bytes
from pulling import IMPATIENT
from servers import COMMIT, Fault, FileServer, HubServer, ModelScopeServer, OllamaRegistryServer, Start
from tiny import gguf, sha256, split_gguf

from bendi.errors import DownloadError, ModelFileError, NotFoundError
from bendi.formats import MemorySource, anatomy, model_info, read_gguf_from
from bendi.settings import Settings
from bendi.store.names import parse_name
from bendi.store.remote_header import RemoteHeader, read_remote_model
from bendi.units import KIB, MIB

REPO = "org/Tiny-GGUF"
Look = Callable[..., RemoteHeader]


@pytest.fixture
def cdn(start: Start) -> FileServer:
    return start(FileServer(host="localhost"))


@pytest.fixture
def hub(start: Start, cdn: FileServer) -> HubServer:
    return start(HubServer(cdn))


@pytest.fixture
def look(settings: Settings, hub: HubServer) -> Look:
    """Reads the header of a model by name, with settings as changed."""

    def read(text: str, **changes: Any) -> RemoteHeader:
        name = parse_name(text)
        changed = replace(settings, **{"hf_endpoint": hub.url, **changes})
        # A busy machine takes a while to hash what the hub promises.
        return read_remote_model(name, changed, replace(IMPATIENT, stall_s=20.0))  # type: ignore[arg-type]

    return read


def test_a_large_vocabulary_costs_under_10_mb(hub: HubServer, cdn: FileServer, look: Look) -> None:
    """Every byte that crosses the network is counted by the server; nothing is asked for twice; no weights come."""
    content = gguf_with_vocabulary(250_000, payload_bytes=16 * MIB)
    hub.repos[REPO] = {"m-Q4_K_M.gguf": content}
    found = look(f"hf:{REPO}")
    header_bytes = found.parts[0].data_offset
    assert header_bytes > 7_800_000
    assert found.received_bytes == sent_bytes(cdn, found.received_bytes)
    assert header_bytes <= cdn.body_bytes < min(header_bytes + 1.2 * MIB, 10_000_000)
    asked = sorted(tuple(map(int, seen.headers["range"].removeprefix("bytes=").split("-"))) for seen in cdn.seen)
    assert sum(end + 1 - start for start, end in asked) == cdn.body_bytes
    assert all(before[1] < after[0] for before, after in itertools.pairwise(asked))
    assert found.info == model_info(read_gguf_from(MemorySource(content), "x"))
    assert found.info.vocab_size == 250_000
    assert anatomy(*found.parts).active_parameters == 16 * MIB // 4 + 64 * 2 // 8 + 32


def test_a_small_header_costs_one_small_request(hub: HubServer, cdn: FileServer, look: Look) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf(5 * MIB)}
    found = look(f"hf:{REPO}")
    assert found.received_bytes == sent_bytes(cdn, 64 * KIB) == 64 * KIB
    assert len(cdn.seen) == 1


def test_all_parts_of_a_split_model(hub: HubServer, cdn: FileServer, look: Look) -> None:
    parts = split_gguf(3, 500_000)
    hub.repos[REPO] = {f"Q4/big-Q4_K_M-{number:05d}-of-00003.gguf": part for number, part in enumerate(parts, 1)}
    found = look(f"hf:{REPO}")
    assert len(found.parts) == len(found.remote.files) == 3
    assert found.info.parameters == 3 * 125_000
    assert found.info.file_size_bytes == sum(map(len, parts))
    assert found.received_bytes == sent_bytes(cdn, 3 * 64 * KIB) == 3 * 64 * KIB


def test_parts_of_different_models(hub: HubServer, look: Look) -> None:
    wrong = [split_gguf(2, seed=1)[0], gguf(128, 9, (0, 2, 2))]
    hub.repos[REPO] = {f"big-{number:05d}-of-00002.gguf": part for number, part in enumerate(wrong, 1)}
    with pytest.raises(ModelFileError, match=r"big-00002-of-00002\.gguf is part 1 of 2"):
        look(f"hf:{REPO}")


def test_a_second_look_costs_nothing_but_the_listing(
    hub: HubServer, cdn: FileServer, look: Look, settings: Settings
) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf_with_vocabulary(5000, 1000)}
    first = look(f"hf:{REPO}")
    before = sent_bytes(cdn, first.received_bytes)
    cdn.seen.clear()
    second = look(f"hf:{REPO}:Q4_K_M@{COMMIT}")
    assert (second.info, second.parts) == (first.info, first.parts)
    assert second.received_bytes == 0
    assert (cdn.seen, cdn.body_bytes) == ([], before)
    assert len(hub.paths("/resolve/")) == 1
    [kept] = (settings.cache_dir / "headers").iterdir()
    assert kept.name == f"{sha256(hub.repos[REPO]['m-Q4_K_M.gguf'])}.head"


def test_a_new_version_is_looked_at_anew(hub: HubServer, look: Look) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf(1000, 1)}
    look(f"hf:{REPO}")
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf(2000, 2)}
    found = look(f"hf:{REPO}")
    assert found.info.name == "tiny 2"
    assert found.received_bytes > 0


def test_what_arrived_before_a_break_is_not_asked_for_again(hub: HubServer, cdn: FileServer, look: Look) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf_with_vocabulary(20_000)}
    cdn.faults = [Fault(cut_after=60_000), Fault(), Fault(cut_after=50_000), Fault(status=503, times=3)]
    with pytest.raises(DownloadError, match="busy"):
        look(f"hf:{REPO}")
    before = cdn.body_bytes
    found = look(f"hf:{REPO}")
    assert before > 100_000
    assert sent_bytes(cdn, before + found.received_bytes) == before + found.received_bytes
    assert cdn.body_bytes < found.parts[0].data_offset + MIB


def test_what_is_remembered_wrongly_is_read_again(
    hub: HubServer, cdn: FileServer, look: Look, settings: Settings
) -> None:
    content = gguf(1000, 1)
    hub.repos[REPO] = {"m-Q4_K_M.gguf": b"XXXX" + content[4:]}
    hub.promised = {"m-Q4_K_M.gguf": sha256(content)}
    with pytest.raises(ModelFileError):
        look(f"hf:{REPO}")
    assert not (settings.cache_dir / "headers").exists(), "what is no model is not remembered"
    # A cache with a sound file about the wrong bytes: as if a server had sent them once.
    hub.repos[REPO] = {"m-Q4_K_M.gguf": content}
    look(f"hf:{REPO}")
    [kept] = (settings.cache_dir / "headers").iterdir()
    line, _newline, body = kept.read_bytes().partition(b"\n")
    wrong = b"XXXX" + body[4:]
    kept.write_bytes(line.replace(sha256(body).encode(), sha256(wrong).encode()) + b"\n" + wrong)
    found = look(f"hf:{REPO}")
    assert found.info.name == "tiny 1"
    assert found.received_bytes == len(content)
    assert look(f"hf:{REPO}").received_bytes == 0


def test_modelscope(start: Start, cdn: FileServer, look: Look) -> None:
    server = start(ModelScopeServer(cdn))
    server.repos["Org/M-GGUF"] = {"子 文件夹/模型 Q4_K_M.gguf": gguf(200_000, 6)}
    found = look("ms:Org/M-GGUF", ms_endpoint=server.url)
    assert found.info.name == "tiny 6"
    assert found.received_bytes == sent_bytes(cdn, 64 * KIB) == 64 * KIB
    assert look("ms:Org/M-GGUF", ms_endpoint=server.url).received_bytes == 0


def test_ollama(start: Start, cdn: FileServer, look: Look) -> None:
    server = start(OllamaRegistryServer(cdn))
    server.add("library/tiny:1b", {"model": gguf(200_000, 7), "license": b"free"})
    found = look("ollama:tiny:1b", ollama_registry=server.url)
    assert found.info.name == "tiny 7"
    assert found.received_bytes == sent_bytes(cdn, 64 * KIB) == 64 * KIB
    assert look("ollama:tiny:1b", ollama_registry=server.url).received_bytes == 0
    with pytest.raises(NotFoundError):
        look("ollama:tiny:2b", ollama_registry=server.url)


def test_a_url(start: Start, look: Look) -> None:
    server = start(FileServer())
    url = server.put("/子 夹/模型.gguf", gguf(200_000, 1), etag='"v1"')
    found = look(url)
    assert found.info.name == "tiny 1"
    assert found.received_bytes == 64 * KIB
    assert sent_bytes(server, 64 * KIB + 1) == 64 * KIB + 1, "one byte tells size and version"
    assert look(url).received_bytes == 0
    server.put("/子 夹/模型.gguf", gguf(200_000, 2), etag='"v2"')
    assert look(url).info.name == "tiny 2"


def test_a_url_that_nothing_identifies_is_not_remembered(start: Start, look: Look, settings: Settings) -> None:
    server = start(FileServer())
    url = server.put("/m.gguf", gguf(200_000, 1))
    assert look(url).received_bytes == look(url).received_bytes == 64 * KIB
    assert not (settings.cache_dir / "headers").exists()


def test_a_server_without_ranges(start: Start, look: Look) -> None:
    content = gguf(48 * MIB, 1)
    server = start(FileServer())
    server.faults = [Fault(no_ranges=True, times=-1)]
    found = look(server.put("/m.gguf", content, etag='"v1"'))
    assert found.info.name == "tiny 1"
    assert found.received_bytes < MIB
    assert server.body_bytes < len(content)


def test_a_gated_repository_says_what_to_do(hub: HubServer, look: Look) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf(1000)}
    hub.gated = {REPO}
    with pytest.raises(DownloadError) as caught:
        look(f"hf:{REPO}")
    assert "HF_TOKEN" in caught.value.hint
    assert look(f"hf:{REPO}", hf_token="t").info.name == "tiny 0"


def test_the_token_stays_at_home(hub: HubServer, cdn: FileServer, look: Look) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf_with_vocabulary(5000)}
    look(f"hf:{REPO}", hf_token="hf_secret")
    assert {seen.authorization for seen in hub.seen} == {"Bearer hf_secret"}
    assert {seen.authorization for seen in cdn.seen} == {None}


def test_offline_opens_no_connection(hub: HubServer, look: Look) -> None:
    with pytest.raises(DownloadError, match="offline"):
        look(f"hf:{REPO}", offline=True)
    assert hub.seen == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>not a model" + bytes(500), "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n" + b"oid sha256:0\n" * 20, "Git LFS"),
        (gguf(5000)[:-100], "truncated"),
        (b"GGUF" + bytes(200), "version"),
        (gguf(5000)[:8] + b"\xff" * 8 + gguf(5000)[16:], "more than a file of its size"),
    ],
    ids=["page", "pointer", "truncated", "zeros", "counts"],
)
def test_what_is_no_model_is_refused(
    hub: HubServer, cdn: FileServer, look: Look, settings: Settings, content: bytes, reason: str
) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": content}
    with pytest.raises(ModelFileError, match=reason) as caught:
        look(f"hf:{REPO}")
    assert caught.value.message.startswith("m-Q4_K_M.gguf cannot be used")
    assert not (settings.cache_dir / "headers").exists()


def test_a_header_without_an_end_is_given_up(start: Start, look: Look) -> None:
    """A vocabulary of 80 MB: every token would have to be walked over."""
    server = start(FileServer())
    strings = b"".join(len(text).to_bytes(8, "little") + text for text in [b"x" * 10_000] * 8000)
    key = b"tokenizer.ggml.tokens"
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    head += len(key).to_bytes(8, "little") + key + (9).to_bytes(4, "little") + (8).to_bytes(4, "little")
    url = server.put("/m.gguf", head + (8000).to_bytes(8, "little") + strings)
    with pytest.raises(ModelFileError, match="more than 64 MiB"):
        look(url)
    assert server.body_bytes <= 65 * MIB

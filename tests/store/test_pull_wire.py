"""Pulls from servers that speak the real wire protocols and behave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pulling import Puller, everything
from servers import COMMIT, Fault, FileServer, HubServer, ModelScopeServer, OllamaRegistryServer, Start
from tiny import gguf, sha256, split_gguf

from bendi.errors import DownloadError, NotFoundError, StoreError, UsageError
from bendi.settings import Settings
from bendi.store.record import read_record

REPO = "org/Tiny-GGUF"


@pytest.fixture
def cdn(start: Start) -> FileServer:
    return start(FileServer(host="localhost"))


@pytest.fixture
def hub(start, cdn: FileServer, puller: Puller) -> HubServer:
    server = start(HubServer(cdn))
    puller.use(hf_endpoint=server.url)
    server.repos[REPO] = {
        "README.md": b"# read me",
        "Tiny-Q4_K_M.gguf": gguf(20_000, 1),
        "Tiny-Q8_0.gguf": gguf(30_000, 2),
        "mmproj-F16.gguf": gguf(500, 3),
    }
    return server


def test_hub_takes_the_preferred_quantization_and_records_where_it_came_from(hub: HubServer, puller: Puller) -> None:
    result = puller(f"hf:{REPO}")
    assert result.status == "downloaded"
    content = hub.repos[REPO]["Tiny-Q4_K_M.gguf"]
    assert result.model.path.read_bytes() == content
    assert result.model.path == puller.store.root / "hf" / "org" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf"
    assert result.model.name == f"hf:{REPO}:Q4_K_M"
    assert result.model.owned
    [entry] = read_record(result.model.path.parent)
    assert entry.revision == COMMIT
    assert entry.files[0].sha256 == sha256(content)
    assert entry.source == f"{hub.url}/{REPO}/resolve/{COMMIT}/Tiny-Q4_K_M.gguf"
    assert everything(puller.store.root) == {
        "hf/org/Tiny-GGUF/Tiny-Q4_K_M.gguf", "hf/org/Tiny-GGUF/bendi.json",
    }  # fmt: skip


@pytest.mark.parametrize("chosen", [":q8_0", "/Tiny-Q8_0.gguf", ":Q8_0@v1", ":Tiny-Q8_0.gguf"])
def test_hub_takes_what_is_asked_for(hub: HubServer, puller: Puller, chosen: str) -> None:
    assert puller(f"hf:{REPO}{chosen}").model.path.read_bytes() == hub.repos[REPO]["Tiny-Q8_0.gguf"]


def test_a_projector_comes_only_by_its_name(hub: HubServer, puller: Puller) -> None:
    model = puller(f"hf:{REPO}/mmproj-F16.gguf").model
    assert model.path.name == "mmproj-F16.gguf"
    assert puller.store.resolve(f"hf:{REPO}/mmproj-F16.gguf").path == model.path


def test_hub_says_what_there_is_instead(hub: HubServer, puller: Puller) -> None:
    with pytest.raises(NotFoundError) as caught:
        puller(f"hf:{REPO}:Q2_K")
    assert f"bendi pull hf:{REPO}:Q4_K_M" in caught.value.hint
    assert "19.8 KiB" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        puller(f"hf:{REPO}/Tiny-Q4_K_S.gguf")
    assert "Tiny-Q4_K_M.gguf" in caught.value.hint


def test_hub_pages_are_followed_on_the_same_host(hub: HubServer, puller: Puller) -> None:
    hub.page = 1
    hub.repos[REPO] = {f"m-Q{n}_0.gguf": gguf(100, n) for n in (4, 5, 8)}
    assert puller(f"hf:{REPO}:Q8_0").model.path.read_bytes() == gguf(100, 8)
    assert len(hub.paths("/tree/")) == 4


def test_pages_of_a_mirror_that_passes_on_the_links_of_the_hub(hub: HubServer, puller: Puller, start: Start) -> None:
    original = start(HubServer())
    hub.page, hub.link_base = 1, original.url
    puller.use(hf_token="secret")
    assert puller(f"hf:{REPO}:Q8_0").status == "downloaded"
    assert original.seen == []


def test_a_small_file_is_checked_by_its_git_hash(hub: HubServer, puller: Puller) -> None:
    hub.small = {"Tiny-Q4_K_M.gguf"}
    model = puller(f"hf:{REPO}").model
    assert model.sha256 == (sha256(hub.repos[REPO]["Tiny-Q4_K_M.gguf"]),)
    hub.repos[REPO]["Tiny-Q8_0.gguf"] = gguf(3000, 9)
    hub.small.add("Tiny-Q8_0.gguf")
    hub.faults = [Fault("/resolve/", flip=2900, times=-1)]
    with pytest.raises(StoreError, match="not what was promised"):
        puller(f"hf:{REPO}:Q8_0")


def test_a_second_pull_downloads_nothing(hub: HubServer, cdn: FileServer, puller: Puller) -> None:
    puller(f"hf:{REPO}")
    before = cdn.body_bytes
    assert puller(f"hf:{REPO}:Q4_K_M").status == "present"
    assert cdn.body_bytes == before


def test_force_downloads_again(hub: HubServer, puller: Puller) -> None:
    path = puller(f"hf:{REPO}").model.path
    path.write_bytes(b"damaged")
    assert puller(f"hf:{REPO}", force=True).status == "downloaded"
    assert path.read_bytes() == hub.repos[REPO]["Tiny-Q4_K_M.gguf"]


def test_a_file_of_the_wrong_size_is_not_taken_for_present(hub: HubServer, puller: Puller) -> None:
    path = puller(f"hf:{REPO}").model.path
    path.write_bytes(b"damaged")
    assert puller(f"hf:{REPO}").status == "downloaded"
    assert path.read_bytes() == hub.repos[REPO]["Tiny-Q4_K_M.gguf"]


def test_a_new_version_replaces_the_old_one_when_it_is_whole(hub: HubServer, puller: Puller) -> None:
    old = puller(f"hf:{REPO}").model.path.read_bytes()
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = new = gguf(21_000, 77)
    hub.faults = [Fault("/resolve/", status=404, times=-1)]
    with pytest.raises(NotFoundError):
        puller(f"hf:{REPO}")
    model = puller.store.resolve(f"hf:{REPO}")
    assert model.path.read_bytes() == old
    hub.faults = []
    assert puller(f"hf:{REPO}").model.path.read_bytes() == new


def test_a_renamed_file_leaves_no_orphan(hub: HubServer, puller: Puller) -> None:
    puller(f"hf:{REPO}")
    content = hub.repos[REPO].pop("Tiny-Q4_K_M.gguf")
    hub.repos[REPO]["tiny.Q4_K_M.gguf"] = content[:-1] + b"x"
    puller(f"hf:{REPO}:Q4_K_M")
    assert everything(puller.store.root) == {"hf/org/Tiny-GGUF/tiny.Q4_K_M.gguf", "hf/org/Tiny-GGUF/bendi.json"}


def test_a_pinned_revision_has_its_own_folder(hub: HubServer, puller: Puller) -> None:
    puller(f"hf:{REPO}:Q4_K_M")
    old = hub.repos[REPO]["Tiny-Q4_K_M.gguf"]
    hub.repos[REPO]["Tiny-Q4_K_M.gguf"] = gguf(22_000, 5)
    pinned = puller(f"hf:{REPO}:Q4_K_M@refs/pr/1").model
    assert pinned.path.parent.name == "Tiny-GGUF@refs+pr+1"
    assert puller.store.resolve(f"hf:{REPO}:Q4_K_M").path.read_bytes() == old
    assert puller.store.resolve(f"hf:{REPO}:Q4_K_M@refs/pr/1").path == pinned.path


def test_the_same_bytes_under_another_revision_are_used_in_place(hub: HubServer, puller: Puller) -> None:
    first = puller(f"hf:{REPO}:Q4_K_M").model
    result = puller(f"hf:{REPO}:Q4_K_M@{COMMIT}")
    assert (result.status, result.model.path) == ("elsewhere", first.path)


def test_split_models_come_with_all_parts(hub: HubServer, puller: Puller) -> None:
    parts = split_gguf(3, 5000, 4)
    hub.repos["org/Big"] = {f"Q4_K_M/big-Q4_K_M-{n:05d}-of-00003.gguf": part for n, part in enumerate(parts, 1)}
    model = puller("hf:org/Big").model
    assert [path.read_bytes() for path in model.parts] == parts
    assert model.path.name == "big-Q4_K_M-00001-of-00003.gguf"
    assert puller.progress[-1].total_bytes == sum(map(len, parts))
    assert puller.store.resolve("org/Big").parts == model.parts


def test_a_split_model_with_a_missing_part_is_refused(hub: HubServer, puller: Puller) -> None:
    hub.repos["org/Big"] = {"big-Q4_K_M-00001-of-00002.gguf": split_gguf(2)[0]}
    with pytest.raises(NotFoundError):
        puller("hf:org/Big")


def test_parts_of_different_models_are_not_installed(hub: HubServer, puller: Puller) -> None:
    wrong = [split_gguf(2, seed=1)[0], gguf(128, 9, (0, 2, 2))]
    hub.repos["org/Big"] = {f"big-{n:05d}-of-00002.gguf": part for n, part in enumerate(wrong, 1)}
    with pytest.raises(Exception, match="do not fit together"):
        puller("hf:org/Big")
    assert not list(puller.store.root.rglob("*.gguf"))


def test_modelscope(start: Start, cdn: FileServer, puller: Puller) -> None:
    server = start(ModelScopeServer(cdn))
    content = gguf(50_000, 6)
    server.repos["Org/模"] = {}
    server.repos["Org/M-GGUF"] = {"子 文件夹/模型 Q4_K_M.gguf": content, "config.json": b"{}"}
    puller.use(ms_endpoint=server.url)
    model = puller("ms:Org/M-GGUF").model
    assert model.path.read_bytes() == content
    assert model.name == "ms:Org/M-GGUF:Q4_K_M"
    assert model.path.relative_to(puller.store.root).as_posix() == "ms/Org/M-GGUF/子 文件夹/模型 Q4_K_M.gguf"
    with pytest.raises(NotFoundError):
        puller("ms:Org/Nothing")


def test_ollama(start: Start, cdn: FileServer, puller: Puller) -> None:
    server = start(OllamaRegistryServer(cdn))
    content = gguf(40_000, 7)
    server.add("library/tiny:1b", {
        "model": content, "template": b"{{ .Prompt }}", "params": b'{"stop":["x"]}', "license": b"free",
        "projector": gguf(2000, 8),
    })  # fmt: skip
    puller.use(ollama_registry=server.url)
    model = puller("ollama:tiny:1b").model
    assert model.path == puller.store.root / "ollama" / "tiny" / "1b.gguf"
    assert model.path.read_bytes() == content
    assert json.loads((model.path.parent / "1b.params.json").read_text()) == {"stop": ["x"]}
    assert (model.path.parent / "1b.license.txt").read_text() == "free"
    assert any("see images" in note for note in puller.notes)
    assert puller.store.resolve("tiny:1b").path == model.path
    assert server.seen[0].headers["accept"] == "application/vnd.docker.distribution.manifest.v2+json"
    with pytest.raises(NotFoundError):
        puller("ollama:tiny:2b")


def test_ollama_namespace_and_host(start: Start, puller: Puller) -> None:
    server = start(OllamaRegistryServer())
    server.add("someone/tiny:latest", {"model": gguf(100, 1)})
    puller.use(ollama_registry="http://127.0.0.1:9")
    model = puller(f"ollama:localhost:{server.port}/someone/tiny").model
    assert model.path.relative_to(puller.store.root).as_posix() == (
        f"ollama/localhost+{server.port}/someone/tiny/latest.gguf"
    )


def test_ollama_models_of_several_files_and_of_none(start: Start, puller: Puller) -> None:
    server = start(OllamaRegistryServer())
    parts = split_gguf(2, 300, 3)
    server.add("library/big:x", [("model", parts[0]), ("model", parts[1])])
    server.add("library/other:x", {"tensor": b"abc"})
    puller.use(ollama_registry=server.url)
    assert [path.name for path in puller("ollama:big:x").model.parts] == [
        "x-00001-of-00002.gguf", "x-00002-of-00002.gguf",
    ]  # fmt: skip
    with pytest.raises(NotFoundError, match="no GGUF"):
        puller("ollama:other:x")


def test_url_with_and_without_a_hash(start: Start, puller: Puller) -> None:
    server = start(FileServer())
    content = gguf(10_000, 1)
    url = server.put("/子 夹/模型.gguf", content, etag='"v1"')
    model = puller(url).model
    assert model.path.read_bytes() == content
    assert model.path.relative_to(puller.store.root).as_posix() == f"url/127.0.0.1+{server.port}/子 夹/模型.gguf"
    assert model.sha256 == (sha256(content),)
    assert puller(url).status == "present"
    assert puller(f"{url}#sha256={sha256(content)}").status in ("elsewhere", "present")
    other = server.put("/b.gguf", content)
    with pytest.raises(StoreError, match="not what was promised"):
        puller(f"{other}#sha256={'0' * 64}")


def test_a_url_without_ranges_length_or_validators(start: Start, puller: Puller) -> None:
    server = start(FileServer())
    content = gguf(100_000, 1)
    server.faults = [Fault(no_ranges=True, no_length=True, times=-1)]
    assert puller(server.put("/m.gguf", content)).model.path.read_bytes() == content


def test_a_split_url(start: Start, puller: Puller) -> None:
    server = start(FileServer())
    parts = split_gguf(2, 400, 5)
    for number, part in enumerate(parts, 1):
        url = server.put(f"/m-{number:05d}-of-00002.gguf", part)
    assert [path.read_bytes() for path in puller(url).model.parts] == parts


def test_a_url_of_the_hub_becomes_a_name_with_hashes(hub: HubServer, puller: Puller) -> None:
    # The page of a mirror is a plain URL; its answer still promises the hash in X-Linked-Etag.
    content = hub.repos[REPO]["Tiny-Q8_0.gguf"]
    model = puller(f"{hub.url}/{REPO}/resolve/main/Tiny-Q8_0.gguf").model
    assert model.sha256 == (sha256(content),)


def test_an_alias_falls_back_to_its_second_source(start: Start, settings: Settings, puller: Puller) -> None:
    server = start(ModelScopeServer())
    content = gguf(5000, 1)
    server.repos["unsloth/Qwen3-0.6B-GGUF"] = {"Qwen3-0.6B-Q4_K_M.gguf": content}
    puller.use(ms_endpoint=server.url)  # nothing listens at the hub's address
    result = puller("qwen3:0.6b")
    assert result.model.name == "ms:unsloth/Qwen3-0.6B-GGUF:Q4_K_M"
    assert any("trying ms:unsloth" in note for note in puller.notes)
    assert puller.store.resolve("qwen3:0.6b").path == result.model.path


def test_own_aliases(hub: HubServer, settings: Settings, puller: Puller) -> None:
    settings.config_dir.mkdir(parents=True)
    (settings.config_dir / "aliases.toml").write_text(f'"千问" = "hf:{REPO}:Q8_0"\n', "utf-8")
    assert puller("千问").model.name == f"hf:{REPO}:Q8_0"
    assert puller.store.resolve("千问").label == "Q8_0"


def test_paths_are_not_pulled(puller: Puller, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        puller(str(tmp_path / "a model.gguf"))
    assert "bendi import '" in caught.value.hint


def test_missing_things(hub: HubServer, puller: Puller) -> None:
    with pytest.raises(NotFoundError, match="no repository"):
        puller("hf:org/Nothing")
    with pytest.raises(NotFoundError, match="has no nowhere"):
        puller(f"hf:{REPO}@nowhere")


def test_a_gated_repository_says_what_to_do(hub: HubServer, puller: Puller) -> None:
    hub.gated = {REPO}
    with pytest.raises(DownloadError) as caught:
        puller(f"hf:{REPO}")
    assert f"{hub.url}/{REPO}" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint
    assert puller.use(hf_token="t").__call__(f"hf:{REPO}").status == "downloaded"


def test_offline_opens_no_connection(hub: HubServer, puller: Puller) -> None:
    model = puller(f"hf:{REPO}").model
    hub.seen.clear()
    puller.use(offline=True)
    assert puller(f"hf:{REPO}").model.path == model.path
    with pytest.raises(DownloadError, match="offline"):
        puller(f"hf:{REPO}:Q8_0")
    assert hub.seen == []


def test_a_file_of_the_user_is_not_replaced(hub: HubServer, puller: Puller) -> None:
    folder = puller.store.root / "hf" / "org" / "Tiny-GGUF"
    folder.mkdir(parents=True)
    mine = folder / "Tiny-Q4_K_M.gguf"
    mine.write_bytes(b"mine")
    with pytest.raises(StoreError, match="in the way"):
        puller(f"hf:{REPO}")
    assert mine.read_bytes() == b"mine"


def test_the_same_file_put_there_by_the_user_is_used(hub: HubServer, puller: Puller) -> None:
    folder = puller.store.root / "hf" / "org" / "Tiny-GGUF"
    folder.mkdir(parents=True)
    (folder / "Tiny-Q4_K_M.gguf").write_bytes(hub.repos[REPO]["Tiny-Q4_K_M.gguf"])
    result = puller(f"hf:{REPO}")
    assert (result.status, result.model.owned) == ("elsewhere", False)


def test_what_lm_studio_has_is_used_in_place(
    hub: HubServer, cdn: FileServer, settings: Settings, puller: Puller
) -> None:
    folder = settings.lmstudio_models_dir / "org" / "Tiny-GGUF"
    folder.mkdir(parents=True)
    (folder / "Tiny-Q4_K_M.gguf").write_bytes(hub.repos[REPO]["Tiny-Q4_K_M.gguf"])
    result = puller(f"hf:{REPO}")
    assert (result.status, result.model.origin) == ("elsewhere", "lmstudio")
    assert cdn.body_bytes == 0
    (folder / "Tiny-Q4_K_M.gguf").write_bytes(bytes(len(hub.repos[REPO]["Tiny-Q4_K_M.gguf"])))
    assert puller(f"hf:{REPO}").status == "downloaded"


def test_the_user_agent_says_who_and_nothing_more(hub: HubServer, cdn: FileServer, puller: Puller) -> None:
    puller(f"hf:{REPO}")
    for seen in hub.seen + cdn.seen:
        assert seen.headers["user-agent"] == "bendi/0.1"
        assert seen.headers["accept-encoding"] == "identity"
        assert set(seen.headers) <= {"host", "accept", "accept-encoding", "connection", "user-agent", "range"}


def test_progress_ends_at_the_total(hub: HubServer, puller: Puller) -> None:
    puller(f"hf:{REPO}")
    assert [p.phase for p in puller.progress][-1] == "check"
    assert puller.progress[-1].done_bytes == puller.progress[-1].total_bytes
    assert {p.file for p in puller.progress} == {"Tiny-Q4_K_M.gguf"}

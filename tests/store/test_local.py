"""Models are found where they lie, under every name that means them, and nothing of others is touched."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pulling import Puller, everything
from servers import FileServer, HubServer
from tiny import gguf, sha256, split_gguf

from bendi.errors import ConfigError, ModelFileError, NotFoundError, StoreError, UsageError
from bendi.settings import Settings
from bendi.store import Store
from bendi.store.importing import import_file
from bendi.store.record import Entry, RecordedFile, put_entry, read_record
from bendi.store.upkeep import remove, verify

REPO = "org/Tiny-GGUF"


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings)


@pytest.fixture
def hub(start, puller: Puller) -> HubServer:
    server = start(HubServer(start(FileServer(host="localhost"))))
    puller.use(hf_endpoint=server.url)
    server.repos[REPO] = {"Tiny-Q4_K_M.gguf": gguf(4000, 1), "Tiny-Q8_0.gguf": gguf(5000, 2)}
    return server


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_ollama(settings: Settings, name: str, content: bytes, host: str = "registry.ollama.ai") -> Path:
    blob = put(settings.ollama_models_dir / "blobs" / f"sha256-{sha256(content)}", content)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{sha256(content)}",
             "size": len(content)}  # fmt: skip
    namespace, _slash, rest = name.partition("/")
    model, _colon, tag = rest.partition(":")
    put(settings.ollama_models_dir / "manifests" / host / namespace / model / tag,
        json.dumps({"schemaVersion": 2, "layers": [layer]}).encode())  # fmt: skip
    return blob


def put_cached(settings: Settings, repo: str, path: str, content: bytes, commit: str = "a" * 40) -> Path:
    folder = settings.hf_cache_dir / f"models--{repo.replace('/', '--')}"
    blob = put(folder / "blobs" / sha256(content), content)
    link = folder / "snapshots" / commit / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    put(folder / "refs" / "main", commit.encode())
    return link


# Finding


def test_an_empty_machine_has_no_models(store: Store) -> None:
    assert store.models() == []


def test_plain_folders_with_chinese_names_and_spaces(store: Store) -> None:
    path = put(store.root / "我的 文件夹" / "千问 模型-Q4_0.gguf", gguf())
    [model] = store.models()
    assert (model.path, model.origin, model.owned, model.label) == (path, "folder", False, "Q4_0")
    for text in ("千问 模型-Q4_0", "千问 模型-Q4_0.gguf", "我的 文件夹/千问 模型-Q4_0.gguf", str(path), model.name):
        assert store.resolve(text).path == path


def test_several_roots(settings: Settings, tmp_path: Path) -> None:
    second = tmp_path / "second disk"
    put(settings.models_dirs[0] / "a.gguf", gguf(seed=1))
    put(second / "b.gguf", gguf(seed=2))
    store = Store(replace(settings, models_dirs=(settings.models_dirs[0], second)))
    assert [model.name for model in store.models()] == ["a.gguf", "b.gguf"]


def test_lm_studio_ollama_and_the_hub_cache(settings: Settings, store: Store) -> None:
    lmstudio = put(settings.lmstudio_models_dir / "pub" / "Repo-GGUF" / "Repo-Q5_K_M.gguf", gguf(seed=1))
    ollama = put_ollama(settings, "library/llama3.2:1b", gguf(seed=2))
    other = put_ollama(settings, "someone/tiny:latest", gguf(seed=3))
    foreign = put_ollama(settings, "org/Repo:Q4", gguf(seed=4), host="hf.co")
    cached = put_cached(settings, "org/Cached-GGUF", "sub/c-Q8_0.gguf", gguf(seed=5))
    before = {path: path.stat().st_mtime_ns for path in settings.models_dirs[0].parent.rglob("*")}
    for text, path in {
        "hf:pub/Repo-GGUF:Q5_K_M": lmstudio,
        "pub/Repo-GGUF": lmstudio,
        "Repo-Q5_K_M": lmstudio,
        "ollama:llama3.2:1b": ollama,
        "llama3.2:1b": ollama,
        "ollama:someone/tiny": other,
        "tiny": other,
        "ollama:hf.co/org/Repo:Q4": foreign,
        "hf:org/Cached-GGUF:Q8_0": cached,
        "hf:org/Cached-GGUF/sub/c-Q8_0.gguf": cached,
    }.items():
        assert store.resolve(text).path == path, text
    assert {model.origin for model in store.models()} == {"lmstudio", "ollama", "hub cache"}
    assert not any(model.owned for model in store.models())
    assert {path: path.stat().st_mtime_ns for path in settings.models_dirs[0].parent.rglob("*")} == before


def test_what_is_no_model_is_not_listed(settings: Settings, store: Store) -> None:
    put(store.root / "mmproj-F16.gguf", gguf())
    put(store.root / "imatrix.gguf", gguf())
    put(store.root / "x.gguf.part", gguf())
    put(store.root / "empty.gguf", b"")
    put(store.root / ".hidden" / "x.gguf", gguf())
    put(store.root / "big-00001-of-00002.gguf", gguf())
    put(store.root / "notes.txt", b"")
    (store.root / "dangling.gguf").symlink_to("nowhere")
    put(settings.ollama_models_dir / "manifests" / "registry.ollama.ai" / "library" / "bad" / "x", b"{not json")
    (settings.hf_cache_dir / "models--a--b" / "snapshots" / "c").mkdir(parents=True)
    (settings.hf_cache_dir / "models--a--b" / "snapshots" / "c" / "x.gguf").symlink_to("../../blobs/gone")
    assert store.models() == []


def test_a_loop_of_links_ends(store: Store) -> None:
    put(store.root / "a" / "x.gguf", gguf())
    (store.root / "a" / "again").symlink_to(store.root)
    assert len(store.models()) == 1


def test_split_models_are_one_model(store: Store) -> None:
    parts = [put(store.root / f"big-Q4_0-{n:05d}-of-00003.gguf", part) for n, part in enumerate(split_gguf(3), 1)]
    [model] = store.models()
    assert model.parts == tuple(parts)
    assert model.size_bytes == sum(path.stat().st_size for path in parts)
    assert store.resolve(str(parts[1])).parts == tuple(parts), "any part means the model"


def test_one_file_in_two_places_is_one_model(settings: Settings, store: Store) -> None:
    original = put(settings.lmstudio_models_dir / "pub" / "R" / "r-Q4_0.gguf", gguf())
    store.root.mkdir(parents=True)
    os.link(original, store.root / "mine.gguf")
    [model] = store.models()
    assert store.resolve("hf:pub/R:Q4_0").path == store.resolve("mine").path == model.path


# Names


def test_several_quantizations_need_a_choice(settings: Settings, store: Store) -> None:
    for label in ("Q4_K_M", "Q8_0"):
        put(settings.lmstudio_models_dir / "pub" / "R-GGUF" / f"r-{label}.gguf", gguf(seed=len(label)))
    with pytest.raises(UsageError) as caught:
        store.resolve("hf:pub/R-GGUF")
    assert "hf:pub/R-GGUF:Q4_K_M" in caught.value.hint
    assert "hf:pub/R-GGUF:Q8_0" in caught.value.hint
    assert store.resolve("hf:pub/R-GGUF:q8_0").label == "Q8_0"


def test_one_name_in_several_places_prefers_ours(hub: HubServer, settings: Settings, puller: Puller) -> None:
    put(settings.lmstudio_models_dir / "org" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf", gguf(99, 9))
    puller(f"hf:{REPO}:Q4_K_M")
    assert puller.store.resolve(f"hf:{REPO}:Q4_K_M").origin == "bendi"


def test_what_is_not_here_names_the_nearest_and_the_command(store: Store) -> None:
    put(store.root / "Qwen3-8B-Q4_K_M.gguf", gguf())
    with pytest.raises(NotFoundError) as caught:
        store.resolve("Qwen3-8B-Q4_K_S")
    assert "Qwen3-8B-Q4_K_M.gguf" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        store.resolve("qwen3:8b")
    assert "bendi pull qwen3:8b" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        store.resolve("hf:a/b:Q4_0")
    assert "bendi pull hf:a/b:Q4_0" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        store.resolve("qwem3:8b")
    assert "qwen3:8b" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        store.resolve("org/repo")
    assert "hf:org/repo" in caught.value.hint
    with pytest.raises(NotFoundError, match="no model file at"):
        store.resolve("/nowhere/x.gguf")
    assert store.find("qwen3:8b") is None


def test_paths(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "某 处" / "m.gguf", gguf())
    blob = put(tmp_path / "blob-without-ending", gguf())
    assert store.resolve(str(path)).path == path
    assert store.resolve(str(path.parent)).path == path, "a folder with one model"
    assert store.resolve(str(blob)).path == blob
    monkeypatch.chdir(path.parent)
    assert store.resolve("m.gguf").path == Path("m.gguf")
    assert store.resolve("./m.gguf").path == Path("m.gguf")
    put(path.parent / "n.gguf", gguf())
    with pytest.raises(UsageError):
        store.resolve(str(path.parent))


def test_the_demo(store: Store, demo_model: Path) -> None:
    if not demo_model.exists():
        with pytest.raises(StoreError, match="missing"):
            store.resolve("demo")
        pytest.skip("the built-in model is not in this checkout")
    model = store.resolve("Demo")
    assert (model.name, model.origin, model.owned) == ("demo", "demo", False)
    assert model.path.samefile(demo_model)


def test_own_aliases_win_and_are_checked(settings: Settings, store: Store, tmp_path: Path) -> None:
    path = put(tmp_path / "x.gguf", gguf())
    put(settings.config_dir / "aliases.toml", f'work = "{path}"\n"qwen3:8b" = "hf:a/b:Q4_0"\n'.encode())
    assert store.resolve("work").path == path
    with pytest.raises(NotFoundError):
        store.resolve("qwen3:8b")
    for bad in ('work = "nonsense nonsense"', "work = 5", 'demo = "hf:a/b"', 'x = "y"', '"a/b" = "hf:a/b"', "= ="):
        put(settings.config_dir / "aliases.toml", bad.encode())
        with pytest.raises(ConfigError):
            Store(settings).resolve("work")


def test_the_catalogue_is_sound(store: Store) -> None:
    names = store.catalogue.names()
    assert len(names) > 30
    assert {"qwen3:0.6b", "qwen3:8b", "llama3.2:1b", "gemma3:4b", "gpt-oss:20b", "deepseek-r1:8b", "demo"} <= set(names)
    assert names == sorted(names)
    assert "qwen3:8b" in store.catalogue.near("qwen3")


# Records


def test_a_hostile_record_reaches_nothing(store: Store) -> None:
    precious = put(store.root.parent / "precious.gguf", gguf())
    folder = store.root / "hf" / "a" / "b"
    for path in ("../../../../precious.gguf", str(precious), "..\\x", "a/../../../../../precious.gguf"):
        entry = {"name": "hf:a/b:Q4_0", "how": "download", "files": [{"path": path, "size_bytes": 1, "sha256": None}]}
        put(folder / "bendi.json", json.dumps({"format": 1, "models": [entry]}).encode())
        assert read_record(folder) == ()
        assert store.models() == []
    assert precious.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "models": 5}',
                                  '{"format": 1, "models": [5, {}, {"name": 1, "how": "x", "files": []}]}',
                                  '{"format": 9, "models": []}', "[" * 100_000])  # fmt: skip
def test_a_broken_record_is_none(store: Store, text: str) -> None:
    put(store.root / "x" / "bendi.json", text.encode())
    put(store.root / "x" / "m.gguf", gguf())
    [model] = store.models()
    assert not model.owned


def test_records_keep_each_other(tmp_path: Path) -> None:
    for name in ("b", "a", "b"):
        put_entry(tmp_path, Entry(name, "download", (RecordedFile(f"{name}.gguf", 5, "0" * 64),)))
    assert [entry.name for entry in read_record(tmp_path)] == ["a", "b"]


# Checking and deleting


def test_verify(hub: HubServer, puller: Puller, settings: Settings) -> None:
    model = puller(f"hf:{REPO}:Q4_K_M").model
    good = verify(model)
    assert (good.ok, good.hashed) == (True, True)
    content = bytearray(model.path.read_bytes())
    content[-1] ^= 1
    model.path.write_bytes(content)
    assert "has changed" in verify(puller.store.resolve(model.name)).problems[0]
    model.path.write_bytes(content[:-1])
    bad = verify(puller.store.lookup(model.name))
    assert any("bytes instead of" in problem for problem in bad.problems)
    model.path.unlink()
    assert any("missing" in problem for problem in verify(puller.store.lookup(model.name)).problems)


def test_verify_of_others(settings: Settings, store: Store) -> None:
    put(store.root / "mine.gguf", gguf())
    blob = put_ollama(settings, "library/x:1", gguf(seed=2))
    cached = put_cached(settings, "a/b", "c-Q4_0.gguf", gguf(seed=3))
    assert [(result.ok, result.hashed) for result in map(verify, store.models())] == [
        (True, True), (True, False), (True, True),
    ]  # fmt: skip
    blob.write_bytes(gguf(seed=4))
    cached.resolve().write_bytes(b"GGUF damaged")
    put(store.root / "mine.gguf", b"GGUF damaged")
    assert [verify(model).ok for model in store.models()] == [False, False, False]


def test_rm_deletes_what_we_brought_and_nothing_else(hub: HubServer, puller: Puller) -> None:
    first = puller(f"hf:{REPO}:Q4_K_M").model
    puller(f"hf:{REPO}:Q8_0")
    mine = put(first.path.parent / "mine.gguf", gguf())
    assert remove(puller.store, puller.store.lookup(first.name)) == first.size_bytes
    assert everything(puller.store.root) == {
        "hf/org/Tiny-GGUF/Tiny-Q8_0.gguf", "hf/org/Tiny-GGUF/mine.gguf", "hf/org/Tiny-GGUF/bendi.json",
    }  # fmt: skip
    remove(puller.store, puller.store.lookup(f"hf:{REPO}:Q8_0"))
    assert everything(puller.store.root) == {"hf/org/Tiny-GGUF/mine.gguf"}
    mine.unlink()


def test_rm_leaves_no_empty_folders(hub: HubServer, puller: Puller) -> None:
    remove(puller.store, puller(f"hf:{REPO}:Q4_K_M").model)
    assert not (puller.store.root / "hf").exists()
    assert puller.store.root.exists()


def test_rm_refuses_what_others_own(settings: Settings, store: Store) -> None:
    paths = {
        "mine": put(store.root / "mine.gguf", gguf(seed=1)),
        "hf:p/R:Q4_0": put(settings.lmstudio_models_dir / "p" / "R" / "r-Q4_0.gguf", gguf(seed=2)),
        "ollama:x:1": put_ollama(settings, "library/x:1", gguf(seed=3)),
        "hf:a/b:Q4_0": put_cached(settings, "a/b", "c-Q4_0.gguf", gguf(seed=4)),
    }
    for name, owner in zip(paths, ("you", "LM Studio", "Ollama", "cache"), strict=True):
        with pytest.raises(StoreError, match=owner):
            remove(store, store.lookup(name))
    with pytest.raises(StoreError):
        remove(store, store.lookup(str(paths["mine"])))
    assert all(path.exists() for path in paths.values())


def test_rm_believes_a_record_that_says_it_is_not_ours(store: Store) -> None:
    folder = store.root / "files" / "x"
    path = put(folder / "x.gguf", gguf())
    put_entry(folder, Entry("x", "in place", (RecordedFile("x.gguf", path.stat().st_size),)))
    with pytest.raises(StoreError, match="does not delete"):
        remove(store, store.lookup("x"))
    assert path.exists()


def test_rm_follows_no_link_out_of_the_store(hub: HubServer, puller: Puller, tmp_path: Path) -> None:
    model = puller(f"hf:{REPO}:Q4_K_M").model
    elsewhere = tmp_path / "elsewhere"
    model.path.parent.rename(elsewhere)
    model.path.parent.symlink_to(elsewhere)
    with pytest.raises((StoreError, NotFoundError)):
        remove(puller.store, model)
    assert (elsewhere / "Tiny-Q4_K_M.gguf").exists()
    model.path.parent.unlink()
    model.path.parent.mkdir()
    (elsewhere / "bendi.json").rename(model.path.parent / "bendi.json")
    model.path.symlink_to(elsewhere / "Tiny-Q4_K_M.gguf")
    remove(puller.store, puller.store.lookup(model.name))
    assert (elsewhere / "Tiny-Q4_K_M.gguf").exists(), "the link goes, what it leads to stays"
    assert not model.path.is_symlink()


def test_rm_deletes_an_unfinished_download(hub: HubServer, puller: Puller) -> None:
    from servers import Fault

    hub.cdn.faults = [Fault(cut_after=1000), Fault(cut_after=0, times=-1)]
    with pytest.raises(StoreError):
        puller(f"hf:{REPO}:Q4_K_M")
    model = puller.store.lookup(f"hf:{REPO}:Q4_K_M")
    assert not model.complete
    with pytest.raises(StoreError) as caught:
        puller.store.resolve(f"hf:{REPO}:Q4_K_M")
    assert f"bendi pull hf:{REPO}:Q4_K_M" in caught.value.hint
    remove(puller.store, model)
    assert everything(puller.store.root) == set()


def test_rm_during_a_download_is_refused(hub: HubServer, puller: Puller) -> None:
    model = puller(f"hf:{REPO}:Q4_K_M").model
    from bendi.store.lock import locked

    with locked(model.path.with_name(f".{model.path.name}.lock")), pytest.raises(StoreError, match="another bendi"):
        remove(puller.store, model)
    assert model.path.exists()


# Taking files in


@pytest.mark.parametrize("way", ["copy", "link", "in place"])
def test_import(store: Store, tmp_path: Path, way) -> None:
    source = put(tmp_path / "下 载" / "我的 模型-Q4_0.gguf", gguf(20_000, 3))
    before = (source.stat().st_mtime_ns, source.read_bytes())
    model = import_file(store, source, way=way)
    assert model.name == "我的 模型-Q4_0"
    assert store.resolve("我的 模型-Q4_0").path.read_bytes() == before[1]
    assert model.sha256 == (sha256(before[1]),)
    assert verify(model).ok
    assert import_file(store, source, way=way).path == model.path, "twice is harmless"
    assert (model.path == source) == (way == "in place")
    assert model.owned == (way != "in place")
    remove(store, store.lookup(model.name))
    assert (source.stat().st_mtime_ns, source.read_bytes()) == before
    assert everything(store.root) == set()


def test_import_of_a_split_model(store: Store, tmp_path: Path) -> None:
    parts = [put(tmp_path / f"b-{n:05d}-of-00002.gguf", part) for n, part in enumerate(split_gguf(2, 4000), 1)]
    model = import_file(store, parts[1], name="大模型")
    assert [path.read_bytes() for path in model.parts] == [path.read_bytes() for path in parts]
    in_place = import_file(store, parts[0], name="there", way="in place")
    assert in_place.parts == tuple(parts)


def test_import_refuses(store: Store, tmp_path: Path) -> None:
    good = put(tmp_path / "a.gguf", gguf(seed=1))
    other = put(tmp_path / "b" / "a.gguf", gguf(seed=2))
    with pytest.raises(ModelFileError):
        import_file(store, put(tmp_path / "bad.gguf", b"GGUF nonsense"))
    with pytest.raises(NotFoundError):
        import_file(store, tmp_path / "nothing.gguf")
    for name in ("../x", "a/b", "CON", "demo", "", "a:b", "x.gguf"):
        with pytest.raises(UsageError):
            import_file(store, good, name=name or "..")
    import_file(store, good)
    with pytest.raises(UsageError, match="already called a"):
        import_file(store, other)
    assert store.resolve("a").path.read_bytes() == gguf(seed=1)
    assert everything(store.root) == {"files/a/a.gguf", "files/a/bendi.json"}


def test_real_weights(store: Store, stories_model: Path) -> None:
    if not stories_model.exists():
        pytest.skip(f"{stories_model} does not exist")
    model = import_file(store, stories_model, name="stories")
    assert model.sha256 == (hashlib.sha256(stories_model.read_bytes()).hexdigest(),)
    assert verify(model).ok

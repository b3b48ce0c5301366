"""Looking at models by any name, and `bendi inspect` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from headers import CONFIG, gguf_with_vocabulary, repository, safetensors, sent_bytes
from pulling import IMPATIENT, Puller
from servers import COMMIT, Fault, FileServer, HubServer, ModelScopeServer, Start
from tiny import gguf, split_gguf

from bendi.cli.main import main
from bendi.errors import DownloadError, ModelFileError, NotFoundError, UsageError
from bendi.settings import Settings
from bendi.store import Store
from bendi.store.inspecting import Inspection, InspectOptions, inspect_model
from bendi.units import KIB

REPO = "org/Tiny"
OPTIONS = InspectOptions(download=replace(IMPATIENT, stall_s=20.0))
Look = Callable[..., Inspection]


@pytest.fixture
def hub(start: Start) -> HubServer:
    return start(HubServer())


@pytest.fixture
def look(settings: Settings, hub: HubServer) -> Look:
    def inspect(text: str, options: InspectOptions = OPTIONS, **changes: Any) -> Inspection:
        return inspect_model(Store(replace(settings, **{"hf_endpoint": hub.url, **changes})), text, options)

    return inspect


@pytest.mark.parametrize("shards", [1, 3])
def test_a_repository_without_gguf_files(hub: HubServer, look: Look, shards: int) -> None:
    """Config and headers tell everything; of the weights nothing is read."""
    hub.repos[REPO] = repository(shards=shards, layer_bytes=200 * KIB)
    found = look(f"hf:{REPO}")
    assert (found.name, found.container, found.revision) == (f"hf:{REPO}", "safetensors", COMMIT)
    info, parts = found.info, found.anatomy
    assert (info.architecture, info.block_count, info.head_count, info.head_count_kv) == ("qwen3_moe", 2, 8, 2)
    assert (info.expert_count, info.expert_used_count, info.key_length) == (4, 1, 16)
    layer = 64 * (64 + 1600)
    assert info.parameters == 2 * 300 * 64 + 2 * 5 * layer
    assert parts.active_parameters == 2 * 300 * 64 + 2 * 2 * layer
    assert info.bytes_by_type == {"BF16": 2 * info.parameters}
    assert (info.tokenizer_model, info.licence, info.chat_template) == ("Qwen2Tokenizer", "apache-2.0", "{{ x }}")
    assert len(found.files) == shards
    assert found.size_bytes == sum(len(content) for name, content in hub.repos[REPO].items() if "safetensors" in name
                                   and not name.endswith(".json"))  # fmt: skip
    assert found.notes == ()
    assert found.received_bytes is not None
    assert found.received_bytes == sent_bytes(hub, found.received_bytes) <= (6 + shards) * 64 * KIB


def test_a_second_look_at_it_costs_nothing(hub: HubServer, look: Look) -> None:
    hub.repos[REPO] = repository(shards=3)
    first = look(f"hf:{REPO}")
    before = sent_bytes(hub, first.received_bytes or 0)
    second = look(f"hf:{REPO}")
    assert (second.info, second.anatomy) == (first.info, first.anatomy)
    assert (second.received_bytes, hub.body_bytes) == (0, before)


def test_modelscope_has_such_repositories_too(start: Start, look: Look) -> None:
    server = start(ModelScopeServer())
    server.repos[REPO] = repository(shards=2)
    found = look(f"ms:{REPO}", ms_endpoint=server.url)
    assert (found.info.architecture, len(found.files), found.revision) == ("qwen3_moe", 2, "master")
    assert look(f"ms:{REPO}", ms_endpoint=server.url).received_bytes == found.received_bytes


def test_gguf_files_come_first(hub: HubServer, look: Look) -> None:
    hub.repos[REPO] = {**repository(), "m-Q8_0.gguf": gguf(1000, 3)}
    assert look(f"hf:{REPO}").container == "GGUF"


def test_what_is_asked_for_is_not_replaced_by_something_else(hub: HubServer, look: Look) -> None:
    hub.repos[REPO] = repository()
    with pytest.raises(NotFoundError, match="no complete GGUF"):
        look(f"hf:{REPO}:Q4_K_M")
    hub.repos[REPO] = {**repository(), "one.gguf": gguf(1000, 1), "two.gguf": gguf(1000, 2)}
    with pytest.raises(NotFoundError, match="several models"):
        look(f"hf:{REPO}")


def test_a_repository_with_neither(hub: HubServer, look: Look) -> None:
    hub.repos[REPO] = {"README.md": b"# nothing"}
    with pytest.raises(NotFoundError, match=r"neither GGUF files nor a config\.json"):
        look(f"hf:{REPO}")
    with pytest.raises(NotFoundError, match="no repository"):
        look("hf:org/Nothing")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", b"{", r"config\.json is not JSON"),
        ("config.json", json.dumps({**CONFIG, "num_hidden_layers": -1}).encode(), "num_hidden_layers is '-1'"),
        ("model.safetensors", b"\xff" * 100, "does not begin as safetensors"),
        ("model.safetensors", (2**60).to_bytes(8, "little") + b"{" + bytes(300), "claims a header of"),
        ("model.safetensors", (9_000_000).to_bytes(8, "little") + b"{" + bytes(300), "truncated"),
    ],
    ids=["config cut", "config out of range", "not safetensors", "huge header", "truncated"],
)
def test_hostile_repositories(hub: HubServer, look: Look, name: str, content: bytes, reason: str) -> None:
    hub.repos[REPO] = {**repository(), name: content}
    with pytest.raises(ModelFileError, match=reason):
        look(f"hf:{REPO}")


def test_an_index_that_promises_what_is_not_there(hub: HubServer, look: Look) -> None:
    files = repository(shards=2)
    index = json.loads(files["model.safetensors.index.json"])
    index["weight_map"]["extra.weight"] = "model-00001-of-00002.safetensors"
    hub.repos[REPO] = {**files, "model.safetensors.index.json": json.dumps(index).encode()}
    with pytest.raises(ModelFileError, match=r"does not have the tensor 'extra\.weight'"):
        look(f"hf:{REPO}")


def test_an_index_that_leads_out_of_the_repository(hub: HubServer, look: Look) -> None:
    files = repository(shards=2)
    index = json.loads(files["model.safetensors.index.json"])
    index["weight_map"]["extra.weight"] = "../../elsewhere/model.safetensors"
    hub.repos[REPO] = {**files, "model.safetensors.index.json": json.dumps(index).encode()}
    with pytest.raises(ModelFileError, match="not the name of a safetensors file beside it"):
        look(f"hf:{REPO}")
    assert not [path for path in hub.paths() if "elsewhere" in path]


def test_many_headers_cost_what_they_are_long(hub: HubServer, look: Look) -> None:
    """Nothing is read ahead when the file has said where its header ends."""
    names = {f"model.layers.0.mlp.experts.{index}.up_proj.weight": ("BF16", [8, 8], 2) for index in range(2000)}
    content = safetensors(names)
    header_bytes = 8 + int.from_bytes(content[:8], "little")
    assert 128 * KIB < header_bytes < len(content) - 100 * KIB
    hub.repos[REPO] = {"config.json": repository()["config.json"], "model.safetensors": content}
    found = look(f"hf:{REPO}")
    assert found.received_bytes == header_bytes + len(hub.repos[REPO]["config.json"])


def test_weights_in_another_format(hub: HubServer, look: Look) -> None:
    hub.repos[REPO] = {"config.json": repository()["config.json"], "pytorch_model.bin": b"\x80\x02"}
    with pytest.raises(NotFoundError, match="lacks weights in GGUF or safetensors format"):
        look(f"hf:{REPO}")


def test_a_missing_file_of_weights(hub: HubServer, look: Look) -> None:
    files = repository(shards=2)
    del files["model-00002-of-00002.safetensors"]
    hub.repos[REPO] = files
    with pytest.raises(NotFoundError):
        look(f"hf:{REPO}")


def test_a_model_that_is_here_is_read_here(hub: HubServer, look: Look, puller: Puller) -> None:
    hub.repos[REPO] = {"m-Q8_0.gguf": gguf(200_000, 3)}
    puller.use(hf_endpoint=hub.url)
    puller(f"hf:{REPO}")
    hub.seen.clear()
    found = look(f"hf:{REPO}:Q8_0")
    assert found.local is not None and found.received_bytes is None and hub.seen == []
    far = look(f"hf:{REPO}:Q8_0", replace(OPTIONS, remote=True))
    assert far.local is None and far.received_bytes == 64 * KIB
    assert (far.info, far.parts, far.sha256) == (found.info, found.parts, found.sha256)


def test_a_short_name_falls_back_to_its_second_source(start: Start, look: Look) -> None:
    server = start(ModelScopeServer())
    server.repos["unsloth/Qwen3-0.6B-GGUF"] = {"Qwen3-0.6B-Q4_K_M.gguf": gguf(5000, 1)}
    notes: list[str] = []
    options = replace(OPTIONS, note=notes.append)
    found = look("qwen3:0.6b", options, hf_endpoint="http://127.0.0.1:9", ms_endpoint=server.url)
    assert found.name == "ms:unsloth/Qwen3-0.6B-GGUF:Q4_K_M"
    assert any("trying ms:unsloth" in note for note in notes)


def test_the_source_whose_files_cannot_be_reached_is_left_for_the_next(
    start: Start, hub: HubServer, look: Look
) -> None:
    """Behind some firewalls the hub answers, but the place where it keeps its files does not."""
    server = start(ModelScopeServer())
    for source in (hub, server):
        source.repos["unsloth/Qwen3-0.6B-GGUF"] = {"Qwen3-0.6B-Q4_K_M.gguf": gguf(5000, 1)}
    hub.faults = [Fault("/resolve/", status=503, times=-1)]
    assert look("qwen3:0.6b", ms_endpoint=server.url).name == "ms:unsloth/Qwen3-0.6B-GGUF:Q4_K_M"


def test_bytes_are_reported_as_they_come(hub: HubServer, look: Look) -> None:
    hub.repos[REPO] = {"m-Q8_0.gguf": gguf_with_vocabulary(20_000)}
    counts: list[int] = []
    found = look(f"hf:{REPO}", replace(OPTIONS, on_bytes=counts.append))
    assert counts == sorted(counts)
    assert counts[-1] == found.received_bytes


def test_folders_of_this_machine(tmp_path: Path, look: Look) -> None:
    folder = tmp_path / "一个 模型"
    folder.mkdir()
    for name, content in repository(shards=2).items():
        (folder / name).write_bytes(content)
    found = look(str(folder))
    assert (found.info.architecture, found.received_bytes, len(found.files)) == ("qwen3_moe", None, 2)
    assert look(str(folder / "model-00001-of-00002.safetensors")).info == found.info
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model-00001-of-00002\.safetensors is missing"):
        look(str(folder))
    lonely = tmp_path / "model.safetensors"
    lonely.write_bytes(repository()["model.safetensors"])
    with pytest.raises(ModelFileError, match="safetensors format"):
        look(str(lonely))
    with pytest.raises(NotFoundError):
        look(str(tmp_path / "nothing.gguf"))


def test_a_name_that_is_none(look: Look) -> None:
    with pytest.raises(UsageError, match="does not say where"):
        look("org/repo")
    with pytest.raises(NotFoundError, match="no short name"):
        look("nosuchname:1b")


def test_offline(hub: HubServer, look: Look) -> None:
    with pytest.raises(DownloadError, match="offline"):
        look(f"hf:{REPO}", offline=True)
    assert hub.seen == []


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bendi(
    settings: Settings, hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The command, with the hub and the folders of this test."""
    for name, value in {
        "BENDI_MODELS": settings.models_dirs[0], "BENDI_STATE": settings.state_dir, "BENDI_CACHE": settings.cache_dir,
        "BENDI_CONFIG": settings.config_dir, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": settings.hf_cache_dir,
        "MODELSCOPE_ENDPOINT": settings.ms_endpoint, "OLLAMA_MODELS": settings.ollama_models_dir,
        "BENDI_LMSTUDIO_MODELS": settings.lmstudio_models_dir,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


def test_the_verb(hub: HubServer, bendi: Run) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf_with_vocabulary(3000, 1_000_000)}
    code, out, talk = bendi("inspect", f"hf:{REPO}")
    assert (code, talk) == (0, "")
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    facts = {label.strip(): text.strip() for label, text in lines.items()}
    assert facts["name"] == f"hf:{REPO}:Q4_K_M"
    assert facts["architecture"] == "qwen3moe"
    assert facts["parameters"] == "250 k, 250 k of them for each token"
    assert facts["experts"] == "2 of 8 experts, layers with them: 1"
    assert facts["attention heads"] == "8 / KV 2, size 16"
    assert facts["trained for"] == "32768 tokens"
    assert facts["bytes read"].startswith("a header of ") and facts["bytes read"].endswith(" received")
    assert bendi("inspect", f"hf:{REPO}", "--template")[1] == "{{ messages[0].content }}\n"


def test_the_verb_as_json(hub: HubServer, bendi: Run) -> None:
    hub.repos[REPO] = {"m-Q4_K_M.gguf": gguf_with_vocabulary(3000, 1_000_000)}
    found = json.loads(bendi("inspect", f"hf:{REPO}", "--json")[1])
    assert found["received_bytes"] == sent_bytes(hub, found["received_bytes"])
    assert found["container"] == "GGUF"
    assert found["layer_kinds"] == {"attention": 2}
    assert found["active_parameters"] == 250_000 + 16 + 32
    assert found["parameters"] == 250_000 + 64 + 32
    assert found["sha256"][0] and len(found["sha256"][0]) == 64
    again = json.loads(bendi("inspect", f"hf:{REPO}", "--json")[1])
    assert again == {**found, "received_bytes": 0}


def test_the_verb_says_what_it_does_not_know(hub: HubServer, bendi: Run) -> None:
    files = repository()
    files["config.json"] = json.dumps({**CONFIG, "model_type": "new", "architectures": ["NewForCausalLM"]}).encode()
    hub.repos[REPO] = files
    code, out, talk = bendi("inspect", f"hf:{REPO}")
    assert code == 0 and "new" in out
    assert "does not know the architecture NewForCausalLM" in talk


def test_the_verb_explains_errors(hub: HubServer, bendi: Run) -> None:
    code, out, talk = bendi("inspect", "hf:org/Nothing")
    assert (code, out) == (3, "")
    assert "no repository" in talk
    hub.repos[REPO] = {"m-Q4_K_M.gguf": b"<html>" + bytes(500)}
    code, _out, talk = bendi("inspect", f"hf:{REPO}")
    assert code == 4 and "web page" in talk


def test_show_and_inspect_agree(hub: HubServer, bendi: Run, puller: Puller) -> None:
    hub.repos[REPO] = {f"big-Q8_0-{n:05d}-of-00002.gguf": part for n, part in enumerate(split_gguf(2, 3000), 1)}
    puller.use(hf_endpoint=hub.url)
    puller(f"hf:{REPO}")
    shown = json.loads(bendi("show", f"hf:{REPO}", "--json")[1])
    inspected = json.loads(bendi("inspect", f"hf:{REPO}", "--json")[1])
    assert {key: shown[key] for key in inspected} == inspected
    assert shown["owned"] is True and len(shown["parts"]) == 2


def test_a_plain_server(start: Start, bendi: Run) -> None:
    server = start(FileServer())
    found = json.loads(bendi("inspect", server.put("/m.gguf", gguf(300_000, 5)), "--json")[1])
    assert found["title"] == "tiny 5"
    assert found["received_bytes"] == 64 * KIB == sent_bytes(server, 64 * KIB + 1) - 1

"""`bendi plan` as a user types it: short names without a network, files, and sources far away."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bendi.cli.main import main
from bendi.cli.output import cell_width
from bendi.formats import TENSOR_TYPES_BY_NAME
from bendi.formats.blueprints import blueprint_from_config
from bendi.formats.gguf_writer import Vocabulary, write_gguf
from bendi.store.known_models import known_models

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "store"))

from headers import repository
from servers import HubServer

Run = Callable[..., tuple[int, str, str]]
LAPTOP = ("--machine", "ram=16GiB,cores=8")
OFFER_KEYS = {
    *("plan", "availability", "recommended", "score", "lost", "reasons", "get", "run", "imatrix_needed"),
}
PLAN_KEYS = {
    *("model", "quantization", "file_bytes", "build", "settings", "memory", "shares", "verdict", "workload", "speeds"),
    *("ttft_s", "request_s", "load_warm_s", "load_cold_s", "load_error", "error", "calibrated", "reasons"),
}
CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "vocab_size": 400,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    for variable in ("HF_HUB_CACHE", "OLLAMA_MODELS", "BENDI_LMSTUDIO_MODELS"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def small_model(path: Path, type_name: str = "Q8_0", payload_bytes: int = 0) -> bytes:
    """A sound model file; its tensors are zeros, and may be followed by more of them."""
    blueprint = blueprint_from_config(CONFIG, "Small")
    types = [type_name if default == "F16" else default for default in blueprint.default_types()]
    assert type_name in TENSOR_TYPES_BY_NAME
    metadata = blueprint.full_metadata() | Vocabulary(blueprint.vocab).metadata()
    write_gguf(path, metadata, blueprint.header(types).tensors, lambda tensor: iter((bytes(tensor.size_bytes),)))
    return path.read_bytes() + bytes(payload_bytes)


def test_a_short_name_needs_no_network(bendi: Run) -> None:
    code, out, err = bendi("plan", "qwen3:8b", *LAPTOP)
    assert code == 0, err
    assert "Qwen3 8B" in out and "Q4_K_M" in out and "±" in out
    assert "To get it: bendi pull qwen3:8b:" in out and "To run it: bendi run qwen3:8b:" in out
    assert sum(line.startswith("* ") and "GiB" in line for line in out.splitlines()) == 1
    assert "\x1b" not in out


def test_for_this_machine_it_says_how_speeds_are_known(bendi: Run) -> None:
    code, out, err = bendi("plan", "qwen3:0.6b")
    assert code == 0, err
    assert "bendi calibrate" in out


def test_as_json(bendi: Run) -> None:
    code, out, _err = bendi("plan", "qwen3:8b", *LAPTOP, "--json")
    report = json.loads(out)
    assert code == 0 and report["schema"] == 1
    assert set(report) == {"schema", "name", "title", "offers", "others", "received_bytes", "notes", "machine"}
    assert set(report["offers"][0]) == OFFER_KEYS
    assert set(report["offers"][0]["plan"]) == PLAN_KEYS
    assert sum(offer["recommended"] for offer in report["offers"]) == 1
    for offer in report["offers"]:
        tg = [speed["tg"]["tok_s"] for speed in offer["plan"]["speeds"]]
        assert tg == sorted(tg, reverse=True)


def test_only_some_quantizations(bendi: Run) -> None:
    code, out, _err = bendi("plan", "qwen3:8b", *LAPTOP, "--json", "--quant", "q6_k,Q5_K_S")
    assert code == 0
    assert [offer["plan"]["quantization"] for offer in json.loads(out)["offers"]] == ["Q6_K", "Q5_K_S"]
    code, out, _err = bendi("plan", "qwen3:8b:Q6_K", *LAPTOP, "--json")
    assert [offer["plan"]["quantization"] for offer in json.loads(out)["offers"]] == ["Q6_K"]


def test_only_the_commands(bendi: Run) -> None:
    code, out, _err = bendi("plan", "qwen3:8b:Q4_K_M", *LAPTOP, "--command", "--context", "8192")
    assert code == 0
    assert out.splitlines() == ["bendi pull qwen3:8b:Q4_K_M", "bendi run qwen3:8b:Q4_K_M --context 8192"]


def test_what_is_asked_is_planned(bendi: Run) -> None:
    asked = ("--context", "8192", "--kv", "q8_0", "--parallel", "2", "--prompt", "1000", "--answer", "100")
    _code, out, _err = bendi("plan", "qwen3:8b:Q4_K_M", *LAPTOP, *asked, "--json")
    plan = json.loads(out)["offers"][0]["plan"]
    assert (plan["settings"]["context_tok"], plan["settings"]["parallel"]) == (8192, 2)
    assert (plan["settings"]["type_k"], plan["settings"]["type_v"]) == ("q8_0", "q8_0")
    assert plan["workload"] == {"name": "chat", "depth_tok": 0, "prompt_tok": 1000, "answer_tok": 100}


def test_too_large_for_the_machine(bendi: Run) -> None:
    code, out, _err = bendi("plan", "deepseek-v3.1:671b", *LAPTOP, "--no-spill")
    assert code == 9
    assert "does not fit" in out and "bendi fit" in out


def test_which_hardware_would_do(bendi: Run) -> None:
    spec = "ram=64GiB,cores=16,gpu=RTX 4090"
    _code, big, _err = bendi("plan", "qwen3:32b:Q4_K_M", "--machine", spec, "--json")
    _code, small, _err = bendi("plan", "qwen3:32b:Q4_K_M", "--machine", "ram=64GiB,cores=16", "--json")
    fast, slow = (json.loads(text)["offers"][0]["plan"]["request_s"] for text in (big, small))
    assert fast < slow / 3


def test_in_chinese_on_a_narrow_terminal(bendi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("BENDI_LANG", "zh")
    code, out, _err = bendi("plan", "qwen3:8b", *LAPTOP)
    assert code == 0
    table = [line for line in out.splitlines() if "GiB" in line and "±" in line]
    assert len(table) > 5 and max(cell_width(line) for line in table) <= 80


def test_a_file_here(bendi: Run, tmp_path: Path) -> None:
    path = tmp_path / "我的 模型-Q8_0.gguf"
    small_model(path)
    code, out, err = bendi("plan", str(path), "--json")
    assert code == 0, err
    offers = json.loads(out)["offers"]
    assert (offers[0]["plan"]["quantization"], offers[0]["availability"]) == ("Q8_0", "here")
    assert offers[0]["plan"]["file_bytes"] == path.stat().st_size
    assert {offer["availability"] for offer in offers[1:]} == {"to_make"}
    assert next(offer for offer in offers if offer["recommended"])["availability"] == "here"


def test_the_built_in_model(bendi: Run) -> None:
    code, out, err = bendi("plan", "demo", "--command")
    assert code == 0, err
    assert out.startswith("bendi run demo --context ")


def test_a_folder_in_safetensors_format(bendi: Run, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    files = repository()
    config = json.loads(files["config.json"]) | {"intermediate_size": 128, "moe_intermediate_size": 128}
    files["config.json"] = json.dumps(config).encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    code, out, err = bendi("plan", str(folder), "--json", "--quant", "F16,Q8_0")
    assert code == 0, err
    offers = json.loads(out)["offers"]
    assert {offer["availability"] for offer in offers} == {"to_make"}
    assert not any(offer["run"] for offer in offers)


def test_a_repository_far_away_costs_its_header(bendi: Run, hub: HubServer, tmp_path: Path) -> None:
    payload = 20_000_000
    hub.repos["org/Small-GGUF"] = {
        "Small-Q8_0.gguf": small_model(tmp_path / "a.gguf") + bytes(payload),
        "Small-Q4_K_M.gguf": small_model(tmp_path / "b.gguf", "Q4_K") + bytes(payload // 2),
        "Small-UD-Q2_K_XL.gguf": small_model(tmp_path / "c.gguf", "Q2_K") + bytes(1000),
    }
    code, out, err = bendi("plan", "hf:org/Small-GGUF", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["received_bytes"] < 1_500_000 and hub.body_bytes < 2_000_000
    offers = {offer["plan"]["quantization"]: offer for offer in report["offers"]}
    assert report["offers"][0]["plan"]["quantization"] == "Q4_K_M"
    assert offers["Q8_0"]["availability"] == offers["Q4_K_M"]["availability"] == "there"
    assert offers["Q8_0"]["plan"]["file_bytes"] == len(hub.repos["org/Small-GGUF"]["Small-Q8_0.gguf"])
    assert offers["Q8_0"]["get"] == "bendi pull hf:org/Small-GGUF:Q8_0"
    assert offers["Q6_K"]["availability"] == "to_make"
    assert [label for label, _size in report["others"]] == ["UD-Q2_K_XL"]


def test_remote_looks_at_the_source_of_a_short_name(bendi: Run, hub: HubServer, tmp_path: Path) -> None:
    hub.repos["unsloth/Qwen3-8B-GGUF"] = hub.repos["Qwen/Qwen3-8B-GGUF"] = {
        "Qwen3-8B-Q4_K_M.gguf": small_model(tmp_path / "a.gguf", "Q4_K")
    }
    code, out, err = bendi("plan", "qwen3:8b", "--from", "hf", "--json")
    assert code == 0, err
    assert json.loads(out)["offers"][0]["availability"] == "there"
    assert hub.seen


def test_no_network_when_offline(bendi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_OFFLINE", "1")
    code, _out, err = bendi("plan", "hf:org/Small-GGUF")
    assert code == 6 and "BENDI_OFFLINE" in err
    assert bendi("plan", "qwen3:8b")[0] == 0


def test_an_unknown_model_gets_the_nearest_names(bendi: Run) -> None:
    code, out, err = bendi("plan", "qwen3:9b")
    assert code == 3 and not out
    assert "qwen3:8b" in err


def test_an_unknown_quantization(bendi: Run) -> None:
    code, _out, err = bendi("plan", "qwen3:8b", *LAPTOP, "--quant", "Q9_Z")
    assert code == 3 and "Q9_Z" in err


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--json",),
        ("qwen3:8b", "--machine", "ram=lots"),
        ("qwen3:8b", "--machine", "nothing"),
        ("qwen3:8b", "--json", "--command"),
        ("qwen3:8b", "--history", "--machine", "ram=8GiB"),
        ("qwen3:8b", "--context", "4096", "--min-ctx", "8192"),
        ("qwen3:8b", "--context", "1000", "--prompt", "4000"),
        ("qwen3:8b", "--parallel", "0"),
        ("qwen3:8b", "--kv", "f64"),
        ("qwen3:8b", "--for", "love"),
    ],
)
def test_what_makes_no_sense(bendi: Run, wrong: tuple[str, ...]) -> None:
    code, out, err = bendi("plan", *wrong)
    assert code == 2 and not out
    assert err and "Traceback" not in err


def test_no_history_yet(bendi: Run) -> None:
    code, out, err = bendi("plan", "--history")
    assert code == 0 and not out and "bendi run demo" in err
    code, out, _err = bendi("plan", "--history", "--json")
    assert json.loads(out) == {"schema": 1, "history": []}


def test_known_models_all_have_a_plan(bendi: Run) -> None:
    for alias in list(known_models())[::40]:
        assert bendi("plan", alias, "--json")[0] in (0, 9)

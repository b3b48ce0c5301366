"""Study files: what they say, and every mistake named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from bendi.bench.study import Care, EngineChoice
from bendi.bench.study_file import parse_study, read_study
from bendi.cli.bench import preset_names, preset_text
from bendi.errors import ConfigError, NotFoundError

LEAST = '[[models]]\nname = "demo"\n[[workloads]]\nprompt_tok = 64\nanswer_tok = 8\n'


def test_a_small_study_has_defaults(tmp_path: Path) -> None:
    study = parse_study(LEAST, tmp_path, "a.toml")
    assert study.title == "a"
    assert study.engines == (EngineChoice("bendi"),)
    assert study.care == Care()
    assert study.workloads[0].name == "64+8"
    assert (study.concurrency, study.cache) == ((1,), ("fresh",))
    assert study.text == LEAST


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    text = """
title = "All of it"
seed = 7
concurrency = [1, 4]
cache = ["fresh", "warm"]
[[models]]
name = "m"
[models.files]
Q8_0 = "a.gguf"
Q4_0 = "/models/b.gguf"
[[engines]]
label = "one"
settings = { threads = 4, flash_attention = "off" }
[[engines]]
kind = "llama-server"
program = "/opt/llama-server"
[settings]
type_k = ["f16", "q8_0"]
gpu_layers = [0, 99]
[[workloads]]
prompt_tok = 100
answer_tok = 10
depth_tok = 2048
requests = 3
[care]
blocks = 9
cool_down_s = 1.5
[energy]
declared_w = 45
[cost]
price_per_kwh = 0.3
"""
    study = parse_study(text, tmp_path, "a.toml")
    assert study.models[0].files == {"Q8_0": tmp_path / "a.gguf", "Q4_0": Path("/models/b.gguf")}
    assert study.engines[0].settings == {"threads": 4, "flash_attention": False}
    assert study.engines[1].label == "llama-server"
    assert study.settings == {"type_k": ("f16", "q8_0"), "gpu_layers": (0, 99)}
    assert (study.care.blocks, study.care.cool_down_s) == (9, 1.5)
    assert study.workloads[0].name == "100+10@2048"
    assert study.energy.declared_w == 45
    assert study.cost.tariff and study.cost.tariff.price_per_kwh == 0.3 and study.cost.tariff.currency == "USD"
    assert study.cost.hardware is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "not valid TOML"),
        ("", "[[models]] is missing"),
        ('[[models]]\nname = "m"', "[[workloads]] is missing"),
        (LEAST + "[cares]\nblocks = 3", "there is no key 'cares'"),
        (LEAST + "[care]\nblocks = 0", "blocks is 0; it must be a number from 1"),
        (LEAST + "[care]\nblocks = true", "blocks is True"),
        (LEAST + "[care]\nsteady_cv = nan", "steady_cv is nan"),
        (LEAST + "[care]\nwarm_up_least = 4\nwarm_up_most = 2", "warm_up_most is below"),
        (LEAST + "[settings]\nthread = [1]", "there is no key 'thread'"),
        (LEAST + "[settings]\nthreads = [1.5]", "threads is 1.5"),
        (LEAST + "[settings]\nthreads = []", "threads is []"),
        (LEAST + '[settings]\nflash_attention = ["maybe"]', "flash_attention is 'maybe'"),
        ('cache = "cold"\n' + LEAST, "cache is 'cold'"),
        ("concurrency = [0]\n" + LEAST, "concurrency is [0]"),
        ('models = "demo"\n[[workloads]]\n', "a list of tables"),
        ("[[models]]\nname = 3\n[[workloads]]\n", "name is 3; it must be a text"),
        ("[[models]]\n[[workloads]]\n", "name is missing"),
        ('[[models]]\nname = "m"\nshape = true\n[[workloads]]\n', "a shape needs quantizations"),
        (LEAST + '[[engines]]\nkind = "gpt"', "kind is 'gpt'"),
        (LEAST + '[[engines]]\nkind = "openai"', "url is missing"),
        (LEAST + "[[engines]]\n[[engines]]\n", "two engines are called 'bendi'"),
        (LEAST + "[[engines]]\nsettings = { speed = 3 }", "there is no setting 'speed'"),
        (LEAST + '[energy]\nplug_kind = "magic"', "plug_kind is 'magic'"),
        (LEAST + "[energy]\ndeclared_w = -1", "declared_w is -1"),
        (LEAST + "[energy]\nwatts = 3", "there is no key 'watts'"),
        (LEAST + '[cost]\nprice_per_kwh = "cheap"', "price_per_kwh is 'cheap'"),
        (LEAST + "[cost]\nutilisation = 2", "utilisation is 2"),
        (LEAST + "[cost]\nhours = [1]", "hours is [1"),
        (LEAST + "[[cost.periods]]\nbegin_h = 22", "price_per_kwh is missing"),
        (LEAST + "[cost]\nprice_per_kwh = 1\n[[cost.periods]]\nbegin_h = 25", "begin_h is 25"),
        (LEAST.replace("answer_tok = 8", "turns = 3\ndepth_tok = 5"), "exclude each other"),
    ],
)
def test_mistakes_are_named(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study(text, tmp_path, "a.toml")
    assert words in caught.value.message
    assert "a.toml" in caught.value.message


def test_a_close_key_is_offered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study(LEAST + "[care]\nblock = 3", tmp_path, "a.toml")
    assert "blocks" in caught.value.hint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        read_study(tmp_path / "none.toml")
    assert "bendi bench preset" in caught.value.hint
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError):
        read_study(tmp_path / "b.toml")
    with pytest.raises(ConfigError):
        read_study(tmp_path)


@pytest.mark.parametrize("name", preset_names())
def test_presets_can_be_read(name: str, tmp_path: Path) -> None:
    study = parse_study(preset_text(name), tmp_path, name)
    assert study.models and study.workloads and study.care.blocks >= 5


def test_idle_time_is_left_to_the_meters_unless_it_is_said(tmp_path: Path) -> None:
    assert parse_study(LEAST, tmp_path, "a.toml").care.idle_s is None
    assert parse_study(LEAST + "[care]\nidle_s = 0\n", tmp_path, "a.toml").care.idle_s == 0.0


def test_quantizations_from_one_file(tmp_path: Path) -> None:
    text = LEAST.replace('name = "demo"', 'name = "m"\nsource = "f16.gguf"\nquantizations = ["Q8_0"]')
    (model,) = parse_study(text, tmp_path, "a.toml").models
    assert model.source == "f16.gguf" and model.is_quantized_here
    for wrong in (text.replace('quantizations = ["Q8_0"]', ""), text.replace("source =", "shape = true\nsource =")):
        with pytest.raises(ConfigError, match="quantizations") as raised:
            parse_study(wrong, tmp_path, "a.toml")
        assert "quantizations = [" in raised.value.hint

"""Settings: environment over file over default, and clear errors for what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from bendi.errors import ConfigError
from bendi.settings import ENVIRONMENT, Settings, load_settings


def write(folder: Path, text: str) -> dict[str, str]:
    (folder / "config.toml").write_text(text, "utf-8")
    return {"BENDI_CONFIG": str(folder)}


def test_defaults(tmp_path: Path) -> None:
    settings = load_settings({"BENDI_CONFIG": str(tmp_path)})
    assert settings.hf_endpoint == "https://huggingface.co"
    assert settings.offline is False
    assert settings.models_dirs[0].is_absolute()
    assert settings.personas_file == tmp_path / "personas.toml"


def test_environment_beats_file(tmp_path: Path) -> None:
    env = write(tmp_path, 'threads = 4\ncontext_tok = 8192\nmodels_dirs = ["/data/模型", "~/models"]\noffline = true\n')
    settings = load_settings(env | {"BENDI_THREADS": "6"})
    assert (settings.threads, settings.context_tok, settings.offline) == (6, 8192, True)
    assert settings.models_dirs == (Path("/data/模型"), Path.home() / "models")


def test_several_roots(tmp_path: Path) -> None:
    settings = load_settings({"BENDI_CONFIG": str(tmp_path), "BENDI_MODELS": "/a:/b c"})
    assert settings.models_dirs == (Path("/a"), Path("/b c"))


def test_sizes_and_urls(tmp_path: Path) -> None:
    env = {"BENDI_CONFIG": str(tmp_path), "BENDI_WORKER_MEMORY": "8GiB", "HF_ENDPOINT": "https://hf-mirror.com/"}
    settings = load_settings(env)
    assert settings.worker_memory_bytes == 8 * 1024**3
    assert settings.hf_endpoint == "https://hf-mirror.com"


@pytest.mark.parametrize(
    ("name", "value"),
    [("BENDI_THREADS", "many"), ("BENDI_THREADS", "0"), ("BENDI_OFFLINE", "perhaps"), ("BENDI_WORKER_MEMORY", "big")],
)
def test_bad_variables_are_named(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"BENDI_CONFIG": str(tmp_path), name: value})
    assert name in caught.value.message and value in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threads = ", "not valid TOML"),
        ("treads = 4", "treads"),
        ('threads = "four"', "threads"),
        ("models_dirs = []", "models_dirs"),
        ("models_dirs = [1]", "models_dirs"),
        ("threads = true", "threads"),
    ],
)
def test_bad_files_are_explained(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text))
    assert said in caught.value.message
    assert caught.value.hint


def test_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError):
        load_settings({"BENDI_CONFIG": str(tmp_path)})


def test_every_variable_belongs_to_a_setting() -> None:
    assert set(ENVIRONMENT) <= set(Settings.__dataclass_fields__)


def test_saved_token_is_for_the_hub_only(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_saved\n")
    env = {"BENDI_CONFIG": str(tmp_path), "HF_HOME": str(tmp_path)}
    assert load_settings(env).hf_token == "hf_saved"
    assert load_settings(env | {"HF_TOKEN": "hf_own"}).hf_token == "hf_own"
    assert load_settings(env | {"HF_ENDPOINT": "https://mirror.example"}).hf_token is None
    assert load_settings(env | {"HF_HOME": str(tmp_path / "absent")}).hf_token is None


def test_editor(tmp_path: Path) -> None:
    env = {"BENDI_CONFIG": str(tmp_path), "EDITOR": "vi"}
    assert load_settings(env).editor == "vi"
    assert load_settings(env | {"VISUAL": "code -w"}).editor == "code -w"

"""Every setting: environment variable first, then `config.toml`, then the default.

One row per setting in the `Settings` class; `ENVIRONMENT` maps fields to variables. Nothing else in bendi reads the
environment (except `i18n`, which must work before settings can be read). `platformdirs` is the one import here
that is not the standard library: it knows where each platform keeps data.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from bendi.errors import ConfigError
from bendi.i18n import _
from bendi.units import GIB, MIB, parse_duration, parse_size

ENVIRONMENT = {
    "models_dirs": "BENDI_MODELS",
    "state_dir": "BENDI_STATE",
    "cache_dir": "BENDI_CACHE",
    "config_dir": "BENDI_CONFIG",
    "language": "BENDI_LANG",
    "offline": "BENDI_OFFLINE",
    "engine": "BENDI_ENGINE",
    "editor": "VISUAL",
    "threads": "BENDI_THREADS",
    "context_tok": "BENDI_CONTEXT",
    "worker_memory_bytes": "BENDI_WORKER_MEMORY",
    "kept_states_bytes": "BENDI_KEPT_STATES",
    "hf_endpoint": "HF_ENDPOINT",
    "hf_token": "HF_TOKEN",
    "hf_cache_dir": "HF_HUB_CACHE",
    "ms_endpoint": "MODELSCOPE_ENDPOINT",
    "ms_token": "MODELSCOPE_API_TOKEN",
    "ollama_registry": "BENDI_OLLAMA_REGISTRY",
    "ollama_models_dir": "OLLAMA_MODELS",
    "lmstudio_models_dir": "BENDI_LMSTUDIO_MODELS",
    "serve_host": "BENDI_SERVE_HOST",
    "serve_port": "BENDI_SERVE_PORT",
    "serve_names": "BENDI_SERVE_NAMES",
    "serve_origins": "BENDI_SERVE_ORIGINS",
    "serve_keep_alive_s": "BENDI_SERVE_KEEP_ALIVE",
    "serve_memory_bytes": "BENDI_SERVE_MEMORY",
    "serve_slots": "BENDI_SERVE_SLOTS",
    "serve_queue": "BENDI_SERVE_QUEUE",
    "serve_stall_s": "BENDI_SERVE_STALL",
    "serve_drain_s": "BENDI_SERVE_DRAIN",
    "serve_body_bytes": "BENDI_SERVE_BODY",
    "serve_requests_per_minute": "BENDI_SERVE_REQUESTS_PER_MINUTE",
    "serve_log": "BENDI_SERVE_LOG",
    "serve_keep_prompts": "BENDI_SERVE_KEEP_PROMPTS",
    "serve_log_prompts": "BENDI_SERVE_LOG_PROMPTS",
}
PATH_LISTS = ("models_dirs",)
TEXT_LISTS = ("serve_names", "serve_origins")
SWITCHES = ("offline", "serve_keep_prompts", "serve_log_prompts")
NUMBERS = {
    "threads": 2**31, "context_tok": 2**31, "serve_requests_per_minute": 2**31, "serve_port": 65535,
    "serve_slots": 256, "serve_queue": 2**31,
}  # fmt: skip
"""The largest value of each; the smallest is 1."""
LOGS = ("auto", "json", "text", "none")


def _data(*parts: str) -> Path:
    return Path(platformdirs.user_data_dir("bendi", appauthor=False), *parts)


@dataclass(frozen=True)
class Settings:
    """All settings with their defaults. `None` means: decide by looking at the machine or the model."""

    models_dirs: tuple[Path, ...]
    """Folders with models; `pull` writes into the first, all are searched (several: separated as in PATH)."""
    state_dir: Path
    """Sessions, runs, calibration (SQLite)."""
    cache_dir: Path
    """Engine builds and prompt caches: may be deleted at any time."""
    config_dir: Path
    """`config.toml` (these settings) and `personas.toml`."""
    language: str | None = None
    offline: bool = False
    """True: no verb opens a connection to another machine."""
    engine: str | None = None
    """Which engine build runs models (`wheel`, `fake`); None: the best that works here."""
    editor: str | None = None
    """The command that opens a file for editing (`VISUAL`, else `EDITOR`)."""
    threads: int | None = None
    context_tok: int | None = None
    """Context length to load models with; None: what the model was trained for, within the memory budget."""
    worker_memory_bytes: int | None = None
    """Upper bound for a worker's own memory (weights mapped from the file do not count)."""
    kept_states_bytes: int = 8 * GIB
    """Disk space for what engines have computed of conversations, so that they go on at once; 0: nothing is kept."""
    hf_endpoint: str = "https://huggingface.co"
    hf_token: str | None = None
    hf_cache_dir: Path = Path("~/.cache/huggingface/hub")
    ms_endpoint: str = "https://modelscope.cn"
    ms_token: str | None = None
    ollama_registry: str = "https://registry.ollama.ai"
    ollama_models_dir: Path = Path("~/.ollama/models")
    lmstudio_models_dir: Path = Path("~/.lmstudio/models")
    serve_host: str = "127.0.0.1"
    """The address at which `bendi serve` listens; any but this machine's own needs a key and TLS."""
    serve_port: int = 23634
    """"bendi" on the keys of a telephone. Below the ports that systems give away, and used by no other model server."""
    serve_names: tuple[str, ...] = ()
    """Further names under which clients reach the server, such as that of a container (several: comma between)."""
    serve_origins: tuple[str, ...] = ()
    """Web pages of elsewhere that may use the server, such as `https://chat.example.org`."""
    serve_keep_alive_s: float = 300.0
    """How long a model stays loaded after its last request (`5m`, `1h`, `0`, `never` for as long as there is room)."""
    serve_memory_bytes: int | None = None
    """What all loaded models together may take; None: what the machine has."""
    serve_slots: int = 4
    """Answers of one model at the same time, where memory allows; further requests wait."""
    serve_queue: int = 512
    """Requests that may wait for their turn; further ones are told to come again later."""
    serve_stall_s: float = 60.0
    """How long a client may leave a streamed answer unread before it is stopped."""
    serve_drain_s: float = 30.0
    """How long a server that shall end waits for answers."""
    serve_body_bytes: int = 32 * MIB
    """The largest request."""
    serve_requests_per_minute: int | None = None
    """Of each key that has no limit of its own; None: any number."""
    serve_log: str = "auto"
    """How requests are logged on standard error, one of LOGS; `auto`: `text` on a terminal, else `json`."""
    serve_keep_prompts: bool = False
    """Whether what models computed of programs' prompts may be kept on disk, as that of sessions is, so that they go on
    at once when a model is loaded again."""
    serve_log_prompts: bool = False
    """True: the log also has what clients send."""

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.toml"

    @property
    def personas_file(self) -> Path:
        return self.config_dir / "personas.toml"

    @property
    def sessions_file(self) -> Path:
        return self.state_dir / "bendi.sqlite3"

    @property
    def keys_file(self) -> Path:
        """Hashes of the keys to the server."""
        return self.state_dir / "keys.json"

    @property
    def responses_file(self) -> Path:
        """Answers that clients of the server asked it to keep."""
        return self.state_dir / "responses.sqlite3"

    @property
    def kept_states_dir(self) -> Path:
        """What engines have computed of conversations; may be deleted at any time."""
        return self.cache_dir / "conversations"

    @property
    def measured_file(self) -> Path:
        """What this machine was measured to do; may be deleted at any time."""
        return self.state_dir / "measured.sqlite3"


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environ` (default: the process's) and the config file.

    Raises ConfigError, naming the variable or key and its value, when one cannot be used.
    """
    env = os.environ if environ is None else environ
    config_dir = Path(env.get("BENDI_CONFIG") or platformdirs.user_config_dir("bendi", appauthor=False)).expanduser()
    values: dict[str, Any] = {
        "models_dirs": (_data("models"),),
        "state_dir": _data("state"),
        "cache_dir": Path(platformdirs.user_cache_dir("bendi", appauthor=False)),
    }
    values |= _from_file(config_dir / "config.toml")
    for name, variable in ENVIRONMENT.items():
        raw = env.get(variable, "")
        if raw:
            parts = [part for part in raw.split(os.pathsep) if part] if name in PATH_LISTS else raw
            values[name] = _convert(name, parts, variable)
    if "hf_token" not in values and values.get("hf_endpoint", Settings.hf_endpoint) == Settings.hf_endpoint:
        # What `hf auth login` has saved goes to the hub itself only, never to a mirror that was set later.
        values["hf_token"] = _saved_token(env)
    if env.get("EDITOR") and "editor" not in values:
        values["editor"] = env["EDITOR"]
    if env.get("HF_HUB_OFFLINE", "") in ("1", "true", "ON", "YES"):
        values["offline"] = True
    values["config_dir"] = config_dir
    settings = Settings(**values)
    return _expanded(settings)


def _saved_token(env: Mapping[str, str]) -> str | None:
    home = Path(env.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    path = Path(env["HF_TOKEN_PATH"]) if env.get("HF_TOKEN_PATH") else home / "token"
    try:
        return path.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(_("{path} cannot be read: {error}").format(path=path, error=error)) from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            _("{path} is not valid TOML: {error}").format(path=path, error=error),
            hint=_("Correct that line, or move the file away."),
        ) from error
    known = {field.name for field in fields(Settings)} - {"config_dir"}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            _("{path} has unknown keys: {keys}").format(path=path, keys=", ".join(unknown)),
            hint=_("Known keys: {keys}").format(keys=", ".join(sorted(known))),
        )
    return {name: _convert(name, value, f"{path}: {name}") for name, value in table.items()}


def _convert(name: str, raw: object, where: str) -> object:
    """One value in the type that `Settings` declares for `name`."""
    try:
        if name in PATH_LISTS:
            parts = [raw] if isinstance(raw, str) else raw
            if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
                raise ValueError
            return tuple(Path(part) for part in parts)
        if name.endswith("_dir"):
            return Path(_text(raw))
        if name in TEXT_LISTS:
            texts = raw.split(",") if isinstance(raw, str) else raw
            if not isinstance(texts, list):
                raise ValueError
            return tuple(text for part in texts if (text := _text(part).strip()))
        if name in SWITCHES:
            return raw if isinstance(raw, bool) else _flag(_text(raw))
        if name.endswith("_bytes"):
            return raw if isinstance(raw, int) and not isinstance(raw, bool) else parse_size(_text(raw))
        if name in NUMBERS:
            number = int(raw) if isinstance(raw, (int, str)) and not isinstance(raw, bool) else 0
            if not 1 <= number <= NUMBERS[name]:
                raise ValueError
            return number
        if name.endswith("_s"):
            return parse_duration(raw) if isinstance(raw, str) else _seconds(raw)
        if name == "serve_log" and raw not in LOGS:
            raise ValueError
        return _text(raw).rstrip("/") if name.endswith(("_endpoint", "_registry")) else _text(raw)
    except ValueError as error:
        raise ConfigError(
            _("{where} has the value {value!r}, which cannot be used").format(where=where, value=raw),
            hint=_("Change it, or remove it to get the default."),
        ) from error


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError
    return raw


def _seconds(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not raw >= 0:
        raise ValueError
    return float(raw)


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError


def _expanded(settings: Settings) -> Settings:
    changes: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Path):
            changes[field.name] = value.expanduser()
        elif field.name in PATH_LISTS:
            changes[field.name] = tuple(path.expanduser() for path in value)
    return Settings(**{field.name: getattr(settings, field.name) for field in fields(settings)} | changes)

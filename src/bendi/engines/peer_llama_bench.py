"""`llama-bench`: what llama.cpp itself says of its speed without a server, to compare servers with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendi.engines.peer_llama import Program, look_at
from bendi.engines.peer_process import peer_environment
from bendi.engines.peer_types import Verified, check_settings, own_options, verify
from bendi.errors import EngineCrashed, EngineError
from bendi.i18n import _

NAME = "llama-bench"
_FLAGS = {
    "threads": "-t", "batch_tok": "-b", "ubatch_tok": "-ub", "type_k": "-ctk", "type_v": "-ctv", "gpu_layers": "-ngl",
    "split_mode": "-sm", "tensor_split": "-ts",
}  # fmt: skip
_ALL_LAYERS = 999
_SAID = {
    "threads": "n_threads", "batch_tok": "n_batch", "ubatch_tok": "n_ubatch", "type_k": "type_k", "type_v": "type_v",
    "gpu_layers": "n_gpu_layers", "split_mode": "split_mode", "tensor_split": "tensor_split", "repack": "repack",
}  # fmt: skip


@dataclass(frozen=True)
class BenchAsk:
    """`prompt_tok` and `answer_tok` are timed apart, each after `depth_tok` tokens; 0 for not at all."""

    prompt_tok: int
    answer_tok: int
    depth_tok: int = 0
    repeats: int = 5
    timeout_s: float = 3600.0


@dataclass(frozen=True)
class BenchRates:
    """Of one of the two. `rates_tok_s`: one for each repetition. `build`: of llama.cpp. `row`: all that it said."""

    prompt_tok: int
    answer_tok: int
    depth_tok: int
    rates_tok_s: tuple[float, ...]
    build: str
    verified: Verified
    row: Mapping[str, Any]


def bench_rates(program: Path, model_path: Path, settings: Mapping[str, Any], ask: BenchAsk) -> list[BenchRates]:
    """Runs it once. `settings`: names of SETTINGS but those of servers. Raises UsageError, EngineError."""
    asked = check_settings(NAME, settings, (*_FLAGS, "flash_attention", "mmap", "repack"))
    found = look_at(program)
    command = [
        str(program), "-m", str(model_path), "-p", str(ask.prompt_tok), "-n", str(ask.answer_tok),
        "-d", str(ask.depth_tok), "-r", str(ask.repeats), "-o", "jsonl", *_arguments(found, asked),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ask.timeout_s,
            env=peer_environment({}),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(_("{engine} could not answer: {reason}").format(engine=NAME, reason=error)) from error
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or [""]
        raise EngineCrashed(
            _("{engine} ended (exit code {code}). {words}").format(
                engine=NAME, code=done.returncode, words=words[-1][-300:]
            ),
            hint=_("Check the settings and the model file; the program itself may say more."),
        )
    return read_rows(done.stdout.decode("utf-8", "replace"), asked)


def read_rows(text: str, asked: Mapping[str, Any]) -> list[BenchRates]:
    """From its JSON lines. Raises EngineError for what is none."""
    rates = []
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        try:
            row = json.loads(line)
            rates.append(
                BenchRates(
                    prompt_tok=int(row["n_prompt"]),
                    answer_tok=int(row["n_gen"]),
                    depth_tok=int(row.get("n_depth", 0)),
                    rates_tok_s=tuple(float(rate) for rate in row["samples_ts"]),
                    build=f"{row.get('build_number', '')} ({row.get('build_commit', '')})",
                    verified=verify(asked, _said(row, asked)),
                    row=row,
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                _("{engine} sent something else than an answer: {said}").format(engine=NAME, said=line[:200])
            ) from error
    if not rates:
        raise EngineError(_("{engine} sent something else than an answer: {said}").format(engine=NAME, said=text[:200]))
    return rates


def _said(row: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: row.get(field) for name, field in _SAID.items()}
    if not row.get("gpu_info"):
        said["gpu_layers"] = 0  # it repeats what it was told, also where there is no GPU
    elif said["gpu_layers"] == _ALL_LAYERS and asked.get("gpu_layers", 0) < 0:
        said["gpu_layers"] = asked["gpu_layers"]
    flash = row.get("flash_attn")
    said["flash_attention"] = bool(flash) if flash in (0, 1) else None
    mode = row.get("load_mode")
    said["mmap"] = row.get("use_mmap") if mode is None else {"mmap": True, "none": False}.get(str(mode))
    if "tensor_split" in asked:
        # It writes 3.00/1.00 for 3,1.
        said["tensor_split"] = _split(str(said["tensor_split"] or ""), str(asked["tensor_split"]))
    return said


def _split(said: str, asked: str) -> str:
    """The words of who asked, if it is the same."""
    try:
        numbers = [[float(part) for part in text.replace("/", ",").split(",") if part] for text in (said, asked)]
    except ValueError:
        return said
    while numbers[0] and numbers[0][-1] == 0:
        numbers[0].pop()
    return asked if numbers[0] == numbers[1] else said


def _arguments(program: Program, asked: Mapping[str, Any]) -> list[str]:
    said: list[str] = []
    for name, flag in _FLAGS.items():
        if name in asked:
            value = asked[name]
            text = str(_ALL_LAYERS if name == "gpu_layers" and value < 0 else value)
            said += [flag, text.replace(",", "/") if name == "tensor_split" else text]
    if "flash_attention" in asked:
        said += ["-fa", "1" if asked["flash_attention"] else "0"]
    if "mmap" in asked:
        wanted = asked["mmap"]
        said += (
            ["-lm", "mmap" if wanted else "none"] if program.has("--load-mode") else ["-mmp", "1" if wanted else "0"]
        )
    if "repack" in asked:
        said += ["--repack", "1" if asked["repack"] else "0"]
    if program.has("--offline"):
        said.append("--offline")
    return said + own_options(asked)

"""`bendi show`: what a model file says about itself."""

from __future__ import annotations

import argparse

from bendi.cli import output
from bendi.formats import ModelInfo, read_model
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store import LocalModel, Store
from bendi.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=_("a model of this machine: name, short name or path"))
    parser.add_argument("--template", action="store_true", help=_("print the chat template instead"))
    parser.add_argument("--json", action="store_true", help=_("as JSON"))


def run(args: argparse.Namespace) -> int:
    model = Store(load_settings()).resolve(args.name)
    info = read_model(model.path)
    if args.template:
        output.data(info.chat_template or "")
        return 0
    if args.json:
        output.json_data(_as_json(model, info))
        return 0
    rows = [(label, text) for label, text in _facts(model, info) if text]
    output.table(("", ""), rows)
    return 0


def _facts(model: LocalModel, info: ModelInfo) -> list[tuple[str, str]]:
    entry = model.entry
    experts = _("{used} of {count} experts").format(used=info.expert_used_count, count=info.expert_count)
    template = info.chat_template_sha256
    return [
        (_("name"), model.name),
        (_("calls itself"), info.name),
        (_("architecture"), info.architecture + (f", {experts}" if info.expert_count else "")),
        (_("parameters"), format_count(info.parameters)),
        (_("quantization"), info.quantization),
        (_("layers"), str(info.block_count)),
        (_("embedding length"), str(info.embedding_length)),
        (_("attention heads"), f"{_per_layer(info.head_count)} / KV {_per_layer(info.head_count_kv)}"),
        (_("trained for"), _("{count} tokens").format(count=info.context_length) if info.context_length else ""),
        (_("vocabulary"), f"{info.vocab_size} ({info.tokenizer_model})"),
        (_("chat template"), f"sha256 {template[:16]}" if template else _("none")),
        (_("languages"), ", ".join(info.languages)),
        (_("licence"), info.licence),
        (_("size"), format_size(model.size_bytes)),
        (_("files"), "\n".join(str(path) for path in model.parts[:1]) + _more(len(model.parts))),
        (_("kept by"), _("bendi") if model.owned else model.origin),
        (_("came from"), entry.source if entry else ""),
        (_("revision"), entry.revision if entry else ""),
        (_("since"), entry.installed if entry else ""),
        ("sha256", model.sha256[0] or "" if model.sha256 else ""),
    ]


def format_count(count: int) -> str:
    """`"8.19 B"`, `"596 M"`, `"292 k"`: parameters in the way of the field, powers of 1000."""
    for unit, power in (("T", 12), ("B", 9), ("M", 6), ("k", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return str(count)


def _more(count: int) -> str:
    return _(" and {count} more").format(count=count - 1) if count > 1 else ""


def _per_layer(value: int | tuple[int, ...]) -> str:
    return str(value) if isinstance(value, int) else f"{min(value)}-{max(value)}"


def _as_json(model: LocalModel, info: ModelInfo) -> dict[str, object]:
    entry = model.entry
    return {
        "name": model.name,
        "path": str(model.path),
        "parts": [str(path) for path in model.parts],
        "size_bytes": model.size_bytes,
        "sha256": list(model.sha256),
        "origin": model.origin,
        "owned": model.owned,
        "source": entry.source if entry else None,
        "revision": entry.revision if entry else None,
        "installed": entry.installed if entry else None,
        "architecture": info.architecture,
        "title": info.name,
        "parameters": info.parameters,
        "quantization": info.quantization,
        "file_type": info.file_type,
        "layers": info.block_count,
        "embedding_length": info.embedding_length,
        "head_count": info.head_count,
        "head_count_kv": info.head_count_kv,
        "context_length": info.context_length,
        "vocab_size": info.vocab_size,
        "experts": info.expert_count,
        "experts_used": info.expert_used_count,
        "tokenizer": info.tokenizer_model,
        "chat_template_sha256": info.chat_template_sha256,
        "licence": info.licence,
        "languages": list(info.languages),
        "bytes_by_type": dict(info.bytes_by_type),
    }

"""`bendi inspect`: what a model says about itself, here or far away, without downloading it."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

from bendi.cli import output
from bendi.formats import Anatomy, ModelInfo, RopeScaling
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store import Store
from bendi.store.inspecting import Inspection, InspectOptions, inspect_model, inspection_record
from bendi.units import format_size

Fact = tuple[str, str]
_SHOWN_FILES = 4


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME",
        help=_("hf:org/repo[:Q4_K_M], ms:org/repo, ollama:name:tag, https://.../file.gguf, a short name, or a path"),
    )  # fmt: skip
    parser.add_argument("--remote", action="store_true", help=_("look at its source, even if it is on this machine"))
    parser.add_argument("--from", dest="source", choices=("hf", "ms"), help=_("where to look for a short name"))
    parser.add_argument("--template", action="store_true", help=_("print the chat template instead"))
    parser.add_argument("--json", action="store_true", help=_("as JSON"))


def run(args: argparse.Namespace) -> int:
    options = InspectOptions(remote=args.remote, source=args.source, note=output.say)
    with output.progress(_("header")) as bar:
        options = replace(options, on_bytes=lambda count: bar.update(count, None))
        inspection = inspect_model(Store(load_settings()), args.name, options)
    for note in inspection.notes:
        output.say(note)
    if args.template:
        output.data(inspection.info.chat_template or "")
    elif args.json:
        output.json_data(inspection_record(inspection))
    else:
        output.facts(facts_of(inspection))
    return 0


def facts_of(inspection: Inspection) -> list[Fact]:
    """(label, text) of everything that the header tells; texts may be empty."""
    info, parts = inspection.info, inspection.anatomy
    template = info.chat_template_sha256
    return [
        (_("name"), inspection.name),
        (_("name in the file"), info.name),
        (_("architecture"), info.architecture),
        (_("parameters"), _parameters(info, parts)),
        (_("quantization"), info.quantization),
        (_("tensor types"), _types(info)),
        (_("layers"), _layers(info, parts)),
        (_("experts"), _experts(info, parts)),
        (_("embedding length"), str(info.embedding_length)),
        (_("attention heads"), _heads(info, parts)),
        (_("MLA"), _("{count} numbers for each token and layer").format(count=parts.latent_length)
         if parts.latent_length else ""),
        (_("trained for"), _context(info, parts.rope_scaling)),
        (_("vocabulary"), f"{info.vocab_size}" + (f" ({info.tokenizer_model})" if info.tokenizer_model else "")),
        (_("output head"), _("shared with the embedding") if parts.tied_embeddings else ""),
        (_("chat template"), f"sha256 {template[:16]}" if template else _("none")),
        (_("languages"), ", ".join(info.languages)),
        (_("licence"), info.licence),
        (_("size"), format_size(inspection.size_bytes)),
        (_("files"), _files(inspection.files)),
        (_("bytes read"), _read(inspection)),
    ]  # fmt: skip


def format_count(count: int) -> str:
    """`"8.19 B"`, `"596 M"`, `"292 k"`: parameters in the way of the field, powers of 1000."""
    for unit, power in (("T", 12), ("B", 9), ("M", 6), ("k", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return str(count)


def _parameters(info: ModelInfo, parts: Anatomy) -> str:
    text = format_count(info.parameters)
    if info.expert_count > 1 and parts.active_parameters < info.parameters:
        text += ", " + _("{count} of them for each token").format(count=format_count(parts.active_parameters))
    return text


def _types(info: ModelInfo) -> str:
    sizes = sorted(info.bytes_by_type.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {format_size(size)}" for name, size in sizes)


def _layers(info: ModelInfo, parts: Anatomy) -> str:
    texts = [str(len(parts.layers) or info.block_count)]
    full, windows = parts.count("attention"), parts.count("window")
    recurrent, both, none = parts.count("recurrent"), parts.count("both"), parts.count("none")
    if windows or recurrent or both or none:
        texts.append(_("{count} with attention to the whole context").format(count=full) if full else "")
        texts.append(
            _("{count} with a window of {window} tokens").format(count=windows, window=parts.window_tok or "?")
            if windows else ""
        )  # fmt: skip
        texts.append(_("{count} recurrent").format(count=recurrent) if recurrent else "")
        texts.append(_("{count} with attention and a recurrent state").format(count=both) if both else "")
        texts.append(_("{count} without attention").format(count=none) if none else "")
    if parts.shared_kv_layers:
        texts.append(_("the last {count} without a KV cache of their own").format(count=parts.shared_kv_layers))
    if parts.prediction_layers:
        texts.append(_("{count} more to guess tokens ahead").format(count=parts.prediction_layers))
    return ", ".join(text for text in texts if text)


def _experts(info: ModelInfo, parts: Anatomy) -> str:
    if not info.expert_count:
        return ""
    text = _("{used} of {count} experts").format(used=info.expert_used_count, count=info.expert_count)
    if parts.experts_shared:
        text += ", " + _("{count} more for every token").format(count=parts.experts_shared)
    if 0 < parts.expert_layers < len(parts.layers):
        text += ", " + _("layers with them: {count}").format(count=parts.expert_layers)
    return text


def _heads(info: ModelInfo, parts: Anatomy) -> str:
    if not info.head_count:
        return _("none")
    text = f"{_per_layer(info.head_count)} / KV {_per_layer(info.head_count_kv)}"
    same = info.key_length == info.value_length
    size = str(info.key_length) if same else f"K {info.key_length}, V {info.value_length}"
    text += ", " + _("size {size}").format(size=size)
    if parts.window_key_length:
        text += " " + _("({size} in layers with a window)").format(size=parts.window_key_length)
    return text


def _context(info: ModelInfo, scaling: RopeScaling | None) -> str:
    if not info.context_length:
        return ""
    text = _("{count} tokens").format(count=info.context_length)
    if scaling is None:
        return text
    stretched = scaling.kind
    if scaling.factor is not None and math.isfinite(scaling.factor):
        stretched += f" x{scaling.factor:g}"
    if scaling.original_context_tok:
        stretched += " " + _("from {count}").format(count=scaling.original_context_tok)
    return f"{text} ({stretched})"


def _files(files: tuple[str, ...]) -> str:
    shown = files[:1] if len(files) > _SHOWN_FILES else files
    rest = len(files) - len(shown)
    return ", ".join(shown) + (_(" and {count} more").format(count=rest) if rest else "")


def _read(inspection: Inspection) -> str:
    header = _("a header of {size}").format(size=format_size(inspection.header_bytes))
    if inspection.received_bytes is None:
        return header
    if inspection.received_bytes == 0:
        return header + ", " + _("remembered from an earlier look")
    return header + ", " + _("{size} received").format(size=format_size(inspection.received_bytes))


def _per_layer(value: int | tuple[int, ...]) -> str:
    if isinstance(value, int) or not value:
        return str(value or 0)
    return str(value[0]) if len(set(value)) == 1 else f"{min(value)}-{max(value)}"

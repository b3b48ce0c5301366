"""A model in safetensors format with its `config.json`, in the same words as a GGUF file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bendi.errors import ModelFileError, NotFoundError
from bendi.formats.anatomy import Anatomy
from bendi.formats.hf_config import Config, ConfigFacts, parse_json, read_config, word
from bendi.formats.hf_weights import WeightCount, count_weights
from bendi.formats.model_info import ModelInfo
from bendi.formats.safetensors import (
    SafetensorsFile,
    TensorBudget,
    bytes_by_dtype,
    check_index,
    read_index,
    read_safetensors,
)
from bendi.formats.source import ByteSource, FileSource
from bendi.formats.tensor_table import JoinedTensors, SafetensorsTensor
from bendi.i18n import _

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
README = "README.md"
MAX_README_BYTES = 8192
"""The licence stands in the first lines."""
_MAX_TEMPLATE_BYTES = 2**20
_LICENCE = re.compile(r"^license:[ \t]*['\"]?([\w.+-]{1,100})", re.MULTILINE)


@dataclass(frozen=True)
class HfTexts:
    """The small files beside the weights, where they are there. `tokenizer`: `tokenizer_config.json` as JSON."""

    tokenizer: Mapping[str, object] | None = None
    template: str | None = None
    readme: str = ""


@dataclass(frozen=True)
class HfModel:
    """What a model is, what its layers are made of, and what the user should know about how that was found.

    `files`: names of the files with weights; `header_bytes`: of their headers. `config`: `config.json` as it is.
    """

    info: ModelInfo
    anatomy: Anatomy
    notes: tuple[str, ...]
    files: tuple[str, ...]
    header_bytes: int
    config: Config


def model_info_from_config(
    config: Config, tensors: Sequence[SafetensorsTensor] = (), texts: HfTexts | None = None
) -> tuple[ModelInfo, Anatomy, tuple[str, ...]]:
    """(facts, layers, notes) of a model from its `config.json`, read as JSON, and its tensors.

    Without tensors, what only they tell is 0: parameters and bytes. Raises ModelFileError when the config is not that
    of a language model, or says what cannot be.
    """
    facts = read_config(config)
    weights = count_weights(tensors, facts)
    return (
        _info(facts, weights, tensors, texts or HfTexts()),
        _anatomy(facts, weights, bool(tensors)),
        _notes(config, facts),
    )


def hf_model(config: Config, files: Mapping[str, SafetensorsFile], texts: HfTexts | None = None) -> HfModel:
    """A model from everything that was read of it; `files` by their names. Raises as `model_info_from_config`."""
    tensors = JoinedTensors([file.tensors for file in files.values()])
    info, anatomy, notes = model_info_from_config(config, tensors, texts)
    size_bytes = sum(file.file_size_bytes for file in files.values())
    header_bytes = sum(file.data_offset for file in files.values())
    return HfModel(replace(info, file_size_bytes=size_bytes), anatomy, notes, tuple(files), header_bytes, config)


def is_hf_folder(path: Path) -> bool:
    """Whether `path` is a folder with a model in safetensors format."""
    return (path / CONFIG).is_file() and ((path / WEIGHTS).is_file() or (path / INDEX).is_file())


def read_hf_folder(path: Path) -> HfModel:
    """The model in a folder of this machine: config, all headers, tokenizer and licence; no weights.

    Raises NotFoundError when a file is missing, ModelFileError when one is damaged or hostile.
    """
    config = _read_json(path / CONFIG)
    files: dict[str, SafetensorsFile] = {}
    budget = TensorBudget()
    with ExitStack() as stack:
        if (path / INDEX).is_file():
            index = read_index(stack.enter_context(FileSource(path / INDEX)), INDEX)
            budget.promise(index.weight_map)
            for name in index.files:
                if not (path / name).is_file():
                    raise ModelFileError(
                        _("{name} is missing: the model has {count} files, which must be in one folder.").format(
                            name=name, count=len(index.files)
                        ),
                        hint=_("Download that file, too."),
                    )
                with FileSource(path / name) as source:
                    files[name] = read_safetensors(source, name, budget)
            check_index(index, files)
        else:
            source = stack.enter_context(FileSource(path / WEIGHTS))
            files[WEIGHTS] = read_safetensors(source, WEIGHTS, budget)
    return hf_model(config, files, _texts(path))


def read_texts(tokenizer: ByteSource | None, template: ByteSource | None, readme: ByteSource | None) -> HfTexts:
    """The small files, of those that are there. A damaged one counts as not there: it is not needed."""
    try:
        settings = parse_json(tokenizer, TOKENIZER) if tokenizer else None
    except ModelFileError:
        settings = None
    text = None
    if template is not None and template.size_bytes <= _MAX_TEMPLATE_BYTES:
        text = template.read_at(0, template.size_bytes).decode(errors="replace")
    head = readme.read_at(0, min(MAX_README_BYTES, readme.size_bytes)) if readme else b""
    return HfTexts(settings, text, head.decode(errors="replace"))


def _read_json(path: Path) -> dict[str, object]:
    with FileSource(path) as source:
        return parse_json(source, path.name)


def _texts(path: Path) -> HfTexts:
    with ExitStack() as stack:

        def opened(name: str) -> FileSource | None:
            try:
                return stack.enter_context(FileSource(path / name))
            except (NotFoundError, ModelFileError):
                return None

        return read_texts(opened(TOKENIZER), opened(TEMPLATE), opened(README))


def _info(facts: ConfigFacts, weights: WeightCount, tensors: Sequence[SafetensorsTensor], texts: HfTexts) -> ModelInfo:
    sizes = bytes_by_dtype(tensors)
    template = texts.template or _template(texts.tokenizer or {})
    licence = _LICENCE.search(texts.readme) if texts.readme.startswith("---") else None
    tensor_bytes = sum(sizes.values())
    return ModelInfo(
        architecture=facts.family,
        kind="model",
        name=facts.name,
        parameters=weights.parameters,
        block_count=len(facts.layers),
        embedding_length=facts.embedding_length,
        head_count=facts.head_count,
        head_count_kv=facts.head_count_kv,
        key_length=facts.key_length,
        value_length=facts.value_length,
        context_length=facts.context_length,
        vocab_size=facts.vocab_size or weights.vocabulary,
        expert_count=facts.expert_count,
        expert_used_count=facts.expert_used_count,
        file_type=facts.quantization.upper() or None,
        dominant_type=max(sizes, key=sizes.__getitem__, default=""),
        tensor_bytes=tensor_bytes,
        bytes_by_type=sizes,
        file_size_bytes=tensor_bytes,
        tokenizer_model=word((texts.tokenizer or {}).get("tokenizer_class")),
        tokenizer_pre="",
        chat_template=template,
        chat_template_sha256=template and hashlib.sha256(template.encode(errors="replace")).hexdigest(),
        licence=licence[1] if licence else "",
        languages=(),
        general={},
        split_no=None,
        split_count=None,
        split_tensors_count=None,
    )


def _template(tokenizer: Mapping[str, object]) -> str | None:
    """The chat template of `tokenizer_config.json`: a text, or several with names."""
    template = tokenizer.get("chat_template")
    if isinstance(template, list):
        named = [part for part in template if isinstance(part, dict) and part.get("name") == "default"]
        template = named[0].get("template") if named else None
    return template if isinstance(template, str) and template else None


def _anatomy(facts: ConfigFacts, weights: WeightCount, seen: bool) -> Anatomy:
    return Anatomy(
        layers=facts.layers,
        window_tok=facts.window_tok,
        shared_kv_layers=facts.shared_kv_layers,
        latent_length=facts.latent_length,
        window_key_length=facts.window_head_length,
        window_value_length=facts.window_head_length,
        experts_shared=facts.experts_shared,
        expert_layers=weights.expert_layers,
        prediction_layers=facts.prediction_layers,
        active_parameters=weights.active,
        tied_embeddings=not weights.has_head if seen else facts.tied_embeddings,
        rope_scaling=facts.rope_scaling,
    )


def _notes(config: Config, facts: ConfigFacts) -> tuple[str, ...]:
    if facts.known:
        return ()
    named = config.get("architectures")
    first = word(named[0]) if isinstance(named, list) and named else ""
    return (
        _("bendi does not know the architecture {name}: layers, heads and context are read under their usual names, "
          "and layers of a special kind may have been overlooked.").format(name=first or facts.family or "?"),
    )  # fmt: skip

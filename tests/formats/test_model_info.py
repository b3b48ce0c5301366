from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_bytes import ARRAY, I32, STRING, U32, Arr, Gguf, Tensor, llama, renamed, strings

from bendi.formats import GgufFile, model_info, read_model

Read = Callable[[bytes], GgufFile]


def test_facts(read: Read) -> None:
    info = model_info(read(llama().build()))
    assert (info.architecture, info.kind, info.name) == ("llama", "model", "Little")
    assert (info.block_count, info.embedding_length, info.context_length) == (2, 64, 4096)
    assert (info.head_count, info.head_count_kv, info.key_length, info.value_length) == (8, 2, 8, 8)
    assert (info.expert_count, info.expert_used_count) == (0, 0)
    assert info.parameters == 64 * 260 + 64 * 64
    assert info.vocab_size == 260
    assert (info.file_type, info.dominant_type, info.quantization) == ("Q4_K_M", "F32", "Q4_K_M")
    assert info.bytes_by_type == {"F32": 4 * info.parameters}
    assert (info.tokenizer_model, info.tokenizer_pre) == ("llama", "")
    assert info.chat_template == "{{ messages[0].content }}"
    assert info.chat_template_sha256 == hashlib.sha256(b"{{ messages[0].content }}").hexdigest()
    assert (info.licence, info.languages) == ("apache-2.0", ("en", "zh"))
    assert info.general["file_type"] == 15
    assert info.general["languages"] == ("en", "zh")
    assert (info.split_no, info.split_count, info.split_tensors_count) == (None, None, None)


def test_what_a_file_does_not_say(read: Read) -> None:
    info = model_info(read(Gguf(keys=[("general.architecture", (STRING, "new"))]).build()))
    assert dataclasses.astuple(info)[:4] == ("new", "model", "", 0)
    assert (info.block_count, info.head_count, info.head_count_kv, info.key_length) == (0, 0, 0, 0)
    assert info.context_length is None
    assert info.file_type is None and info.quantization == ""
    assert info.chat_template is None and info.chat_template_sha256 is None


def test_stated_head_size_wins(read: Read) -> None:
    made = llama().add("llama.attention.key_length", U32, 128).add("llama.attention.value_length", U32, 64)
    # An architecture in which the two may differ.
    info = model_info(read(renamed(made, "deepseek2").build()))
    assert (info.key_length, info.value_length) == (128, 64)


def test_heads_per_layer(read: Read) -> None:
    made = llama().set("llama.attention.head_count_kv", ARRAY, Arr(I32, [0, 2]))
    assert model_info(read(made.build())).head_count_kv == (0, 2)
    made = llama().set("llama.attention.head_count", ARRAY, Arr(I32, [0, 8])).without("llama.attention.head_count_kv")
    info = model_info(read(made.build()))
    assert info.head_count == info.head_count_kv == (0, 8)
    assert info.key_length == 8


def test_experts(read: Read) -> None:
    made = llama().add("llama.expert_count", U32, 128).add("llama.expert_used_count", U32, 8)
    info = model_info(read(made.build()))
    assert (info.expert_count, info.expert_used_count) == (128, 8)


def test_the_quantization_that_most_bytes_have(read: Read) -> None:
    tensors = [Tensor("a", (256, 9), 12, size_bytes=9 * 144), Tensor("b", (256,), 14, size_bytes=210), Tensor("c")]
    info = model_info(read(llama().without("general.file_type").with_tensors(*tensors).build()))
    assert info.bytes_by_type == {"Q4_K": 1296, "Q6_K": 210, "F32": 128}
    assert (info.file_type, info.quantization) == (None, "Q4_K")


def test_vocabulary_without_tokens(read: Read) -> None:
    made = llama()
    for name in ("tokens", "scores", "token_type"):
        made = made.without(f"tokenizer.ggml.{name}")
    assert model_info(read(made.build())).vocab_size == 260  # from the embedding
    assert model_info(read(made.add("llama.vocab_size", U32, 300).build())).vocab_size == 300


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\r\n\tb", "a\u202eb", "a\x9bb"])
def test_names_cannot_move_the_cursor(read: Read, text: str) -> None:
    made = llama().set("general.name", STRING, text).set("general.license", STRING, text)
    info = model_info(read(made.add("general.tags", ARRAY, strings([text])).build()))
    shown = [info.name, info.licence, info.general["name"], *info.general["tags"]]  # type: ignore[misc]
    assert all(isinstance(line, str) and line.isprintable() and line[0] + line[-1] == "ab" for line in shown)


@pytest.mark.parametrize(("value", "languages"), [("zh", ("zh",)), ("", ())])
def test_languages_as_one_text(read: Read, value: str, languages: tuple[str, ...]) -> None:
    assert model_info(read(llama().set("general.languages", STRING, value).build())).languages == languages


def test_names_are_short(read: Read) -> None:
    info = model_info(read(llama().set("general.name", STRING, "长" * 10_000).build()))
    assert len(info.name) == 500


def test_invalid_utf8_in_a_text_is_replaced(read: Read) -> None:
    assert model_info(read(llama().set("general.name", STRING, b"a\xffb").build())).name == "a\ufffdb"


def test_facts_are_plain_data(read: Read) -> None:
    info = model_info(read(llama().build()))
    assert dataclasses.asdict(info)["bytes_by_type"] == info.bytes_by_type


def test_real_model(stories_model: Path) -> None:
    info = read_model(stories_model)
    assert (info.architecture, info.vocab_size, info.context_length) == ("llama", 512, 128)
    assert (info.block_count, info.embedding_length, info.head_count, info.head_count_kv) == (5, 64, 8, 4)
    assert info.parameters == 292_800
    assert (info.file_type, info.quantization) == (None, "F32")
    assert info.chat_template is None
    assert info.tensor_bytes == 4 * info.parameters

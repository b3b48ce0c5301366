"""The models for llama.cpp's tests of its server: `.venv/bin/python make_models.py FOLDER`.

They download theirs; the ones made here are what there is of them, or answer as much of a question as the tests check.

| file | in place of | what it is |
|---|---|---|
| stories260K | the same | the same weights, with the context that they were trained for |
| stories260K-tools | the same with an agent's template | the same, with a template that shows tools and thinking |
| stories260K-plain | the same with a template that is none | the same, with that template |
| minilm | bge-small | all-MiniLM-L6-v2, whose vocabulary is the same |
| ranker | jina-reranker-v1-tiny | knows which words are of machine learning, and counts them |
| cat | tinygemma3 | sees, and says "cat" whatever it sees, as tinygemma3 does of the first picture |
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TESTS))

import minilm  # noqa: E402
import scripted_model  # noqa: E402
from bert_models import SMALL_VOCABULARY, BertShape, write_bert  # noqa: E402
from eyes import png, write_projector  # noqa: E402

NOT_A_TEMPLATE = "This is not a chat template, it is"
TOOLS_AND_THINKING = scripted_model.TOOL_TEMPLATE.replace(
    "{% if m.content %}",
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}{% if m.content %}",
)
_CAT_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
_SAYS_CAT = {">": "c", "c": "a", "a": "t"}
_SCRIPTED_WIDTH = 320
_TRAINED_TOK = 512
"""The context of stories260K by its own header (`SOURCE.txt`); the converter wrote another."""
_WITH_TOOLS_TOK = 2048
"""Its tests ask for 8192: tools take room, with a vocabulary of 512."""
_RANKER = BertShape(width=32, layers=1, heads=4, feed_forward=64, context_tok=512, ranks=True, pooling="")
_SUBJECT = ("machine", "learning", "intelligence", "algorithms", "data", "statistical")
_STRING = 8
_ALIGNMENT = 32


def main(folder: Path) -> None:
    data = Path(os.environ.get("BENDI_TEST_DATA") or TESTS.parent.parent / "shared" / "data")
    converted = (data / "stories260K" / "stories260K-f32.gguf").read_bytes()
    stories = _with_context(converted, _TRAINED_TOK)
    (folder / "stories260K.gguf").write_bytes(stories)
    longer = _with_context(converted, _WITH_TOOLS_TOK)
    (folder / "stories260K-tools.gguf").write_bytes(_with_template(longer, TOOLS_AND_THINKING))
    (folder / "stories260K-plain.gguf").write_bytes(_with_template(stories, NOT_A_TEMPLATE))
    shutil.copy(minilm.make(), folder / "minilm.gguf")
    write_bert(folder / "ranker.gguf", _RANKER, (*SMALL_VOCABULARY, *_SUBJECT), _ranker_numbers)
    cat = scripted_model.write(folder / "cat.gguf", _SAYS_CAT, _CAT_TEMPLATE)
    cat.write_bytes(_with_text(cat.read_bytes(), "general.name", "cat".ljust(_padded("general.name", "cat"))))
    write_projector(folder / "mmproj-cat.gguf", _SCRIPTED_WIDTH, **{"general.name": "cat"})
    (folder / "picture.png").write_bytes(png(255, 0, 0))


def _with_context(raw: bytes, context_tok: int) -> bytes:
    key = b"llama.context_length"
    at = raw.index(key) + len(key) + 4
    return raw[:at] + struct.pack("<I", context_tok) + raw[at + 4 :]


def _with_template(raw: bytes, template: str) -> bytes:
    comment = "{##}"
    filling = _padded("tokenizer.chat_template", comment + template) - len((comment + template).encode())
    return _with_text(raw, "tokenizer.chat_template", "{#" + " " * filling + "#}" + template)


def _with_text(raw: bytes, key: str, text: str) -> bytes:
    """The same file with one more key. Its entry must be as long as some tensors' alignments, so that nothing moves."""
    entry = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<IQ", _STRING, len(text.encode())) + text.encode()
    assert len(entry) % _ALIGNMENT == 0
    (count,) = struct.unpack_from("<Q", raw, 16)
    return raw[:16] + struct.pack("<Q", count + 1) + entry + raw[24:]


def _padded(key: str, text: str) -> int:
    """So many bytes must `text` have, at least its own, for its entry to be as `_with_text` wants it."""
    around = 8 + len(key) + 12
    return -(-(around + len(text.encode())) // _ALIGNMENT) * _ALIGNMENT - around


def _ranker_numbers(name: str) -> bytes:
    """One layer whose attention takes the mean of all tokens: what comes out at the first one says which share of them
    are words of the subject."""
    width = _RANKER.width
    if name == "token_embd.weight":
        subject, other = [1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]
        words = (*SMALL_VOCABULARY, *_SUBJECT)
        rows = [[*(subject if word in _SUBJECT else other), *[0.0] * (width - 4)] for word in words]
        return _floats([number for row in rows for number in row])
    if name.endswith("norm.weight"):
        return _floats([1.0] * width)
    if name.endswith(("attn_v.weight", "attn_output.weight")) or name == "cls.weight":
        return _floats([float(row == column) for row in range(width) for column in range(width)])
    if name == "cls.output.weight":
        return _floats([50.0, *[0.0] * (width - 1)])
    if name == "cls.output.bias":
        return _floats([-2.0])
    return bytes(4 * _size(name))


def _floats(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def _size(name: str) -> int:
    """Numbers in a tensor of zeros."""
    width, forward = _RANKER.width, _RANKER.feed_forward
    if name.endswith("ffn_up.bias"):
        return forward
    if name.endswith(("ffn_up.weight", "ffn_down.weight")):
        return width * forward
    if name == "position_embd.weight":
        return width * _RANKER.context_tok
    if name == "token_types.weight":
        return width * 2
    return width * width if name.endswith(("attn_q.weight", "attn_k.weight")) else width


if __name__ == "__main__":
    main(Path(sys.argv[1]))

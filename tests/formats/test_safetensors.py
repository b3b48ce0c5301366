from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from safetensors_bytes import built, entries, entry, raw

from bendi.errors import ModelFileError
from bendi.formats import MemorySource, SafetensorsFile, read_safetensors
from bendi.formats.safetensors import TensorBudget, bytes_by_dtype, check_index, read_index
from bendi.units import MIB

Bounded = Callable[..., AbstractContextManager[None]]

GOOD = entries({"a.weight": ("F32", [2, 3]), "b.weight": ("BF16", [4]), "c": ("U8", [])})


def read(data: bytes, budget: TensorBudget | None = None) -> SafetensorsFile:
    return read_safetensors(MemorySource(data), "x.safetensors", budget)


def test_a_good_file() -> None:
    data = built({"__metadata__": {"format": "pt", "log": "x" * 5000}, **GOOD})
    file = read(data)
    assert [(t.name, t.dtype, t.shape, t.offset, t.size_bytes, t.elements) for t in file.tensors] == [
        ("a.weight", "F32", (2, 3), 0, 24, 6),
        ("b.weight", "BF16", (4,), 24, 8, 4),
        ("c", "U8", (), 32, 1, 1),
    ]
    assert file.metadata == {"format": "pt"}, "long texts are left out"
    assert file.file_size_bytes == len(data) == file.data_offset + 33
    assert bytes_by_dtype(file.tensors) == {"F32": 24, "BF16": 8, "U8": 1}


def test_the_example_of_the_format() -> None:
    """The bytes that the documentation of the format has as its example."""
    header = b'{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}'
    [tensor] = read(b"<\x00\x00\x00\x00\x00\x00\x00" + header + bytes(16)).tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("test", "I32", (2, 2))


@pytest.mark.parametrize(
    "data",
    [
        raw(b"{}"),
        raw(b"{}      "),
        raw(b'{ "a" : { "dtype" : "F32" ,\n"shape":[1], "data_offsets":[0,4]}\n}\t', 4),
        raw(b'{"__metadata__":{}}'),
        built({"empty": entry("F32", [0, 5], 0, 0), "b": entry("U8", [3], 0, 3), "end": entry("F32", [0], 3, 3)}),
        built({"second": entry("U8", [3], 2, 5), "first": entry("U8", [2], 0, 2)}),
        built({"文字": entry("F4", [3, 2], 0, 3)}),
        built({"a": {**entry("U8", [1], 0, 1), "later": {"field": [1, 2]}}}),
    ],
    ids=["empty", "padded", "blanks", "no metadata", "empty tensors", "any order", "half bytes", "unknown field"],
)
def test_what_is_allowed(data: bytes) -> None:
    read(data)


def _big(number: int) -> bytes:
    return raw(f'{{"a":{{"dtype":"U8","shape":[{number}],"data_offsets":[0,{number}]}}}}'.encode(), 4)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "the file is empty"),
    "seven bytes": (b"\x02\0\0\0\0\0\0", "does not begin as safetensors|begins with zeros"),
    "only a length": (struct.pack("<Q", 2), "does not begin as safetensors"),
    "GGUF": (b"GGUF" + bytes(40), "it is a GGUF file"),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n", "Git LFS"),
    "pickle": (b"\x80\x02}q\x00" + bytes(20), "pickle"),
    "list instead of object": (raw(b"[1]"), "does not begin as safetensors"),
    "header of one byte": (struct.pack("<Q", 1) + b"{" + bytes(20), "claims a header of 1 bytes"),
    "header over 100 MB": (struct.pack("<Q", 100_000_001) + b"{" + bytes(20), "claims a header of 100000001 bytes"),
    "header of 2**64-1": (b"\xff" * 8 + b"{" + bytes(20), "claims a header of 18446744073709551615"),
    "header longer than the file": (struct.pack("<Q", 5000) + b'{"a":1}', "in the middle of its header"),
    "not JSON": (raw(b"{nothing}"), "JSON text is damaged"),
    "JSON that breaks off": (raw(b'{"a":{"dtype":"F32"'), "JSON text is damaged"),
    "two objects": (raw(b"{}{}"), "JSON text is damaged"),
    "text after the object": (raw(b"{}x"), "JSON text is damaged"),
    "zero after the object": (raw(b"{}\0"), "JSON text is damaged"),
    "comma too many": (raw(b'{"a":{},}'), "damaged|no type"),
    "single quotes": (raw(b"{'a':{}}"), "JSON text is damaged"),
    "name that is a number": (raw(b"{1:{}}"), "JSON text is damaged"),
    "not UTF-8": (raw(b'{"\xff":{}}'), "not UTF-8"),
    "half of a character at the end": (raw(b'{"a":"\xe4\xb8'), "not UTF-8"),
    "lone surrogate": (raw(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1), "the name"),
    "control characters in a name": (raw(b'{"\\u001b[2J":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
                                     r"the name '\\x1b\[2J'"),
    "empty name": (raw(b'{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1), "the name ''"),
    "name of 2000 letters": (built({"n" * 2000: entry("U8", [1], 0, 1)}), "no end within 1024|longer"),
    "name twice": (raw(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
                       b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2), "the name 'a' twice"),
    "name twice in other spelling": (raw(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
                                         b'"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2),
                                     "the name 'a' twice"),
    "field twice": (raw(b'{"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}}', 1),
                    "the name 'dtype' twice"),
    "metadata twice": (raw(b'{"__metadata__":{},"__metadata__":{}}'), "the name '__metadata__' twice"),
    "metadata key twice": (raw(b'{"__metadata__":{"k":"1","k":"2"}}'), "the name 'k' twice"),
    "metadata that is no text": (raw(b'{"__metadata__":{"k":1}}'), "metadata 'k' is not a text"),
    "metadata that is an object": (raw(b'{"__metadata__":{"k":{}}}'), "metadata 'k' is not a text"),
    "metadata that is a list": (raw(b'{"__metadata__":[]}'), "JSON text is damaged"),
    "tensor that is a number": (raw(b'{"a":1}'), "no type, shape and place"),
    "tensor that is null": (raw(b'{"a":null}'), "no type, shape and place"),
    "tensor without a type": (raw(b'{"a":{"shape":[1],"data_offsets":[0,1]}}', 1), "no type, shape and place"),
    "type that is a number": (built({"a": {**entry("U8", [1], 0, 1), "dtype": 3}}), "no type, shape and place"),
    "unknown type": (built({"a": entry("Q4", [1], 0, 1)}), "unknown type 'Q4'"),
    "shape that is a text": (built({"a": {**entry("U8", [1], 0, 1), "shape": "1"}}), "no type, shape and place"),
    "negative size": (built({"a": entry("U8", [-1], 0, 1)}), "no type, shape and place"),
    "fraction": (raw(b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', 1), "no type, shape and place"),
    "true as a size": (raw(b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', 1), "no type, shape and place"),
    "NaN": (raw(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', 1), "JSON text is damaged"),
    "size of 2**63": (_big(2**63), "no type, shape and place"),
    "size of a thousand digits": (_big(10**1000), "JSON text is damaged"),
    "sizes that overflow": (built({"a": entry("F32", [2**40, 2**40], 0, 8)}), "its shape is"),
    "sizes that wrap around to the right one": (built({"a": entry("F32", [2**62 + 1, 4], 0, 16)}), "its shape is"),
    "sizes that overflow before a zero": (built({"a": entry("F32", [2**62, 2**62, 0], 0, 0)}), "its shape is"),
    "seventeen dimensions": (built({"a": entry("U8", [1] * 17, 0, 1)}), "17 dimensions"),
    "one offset": (built({"a": {**entry("U8", [1], 0, 1), "data_offsets": [0]}}, 1), "no type, shape and place"),
    "three offsets": (built({"a": {**entry("U8", [1], 0, 1), "data_offsets": [0, 1, 2]}}), "no type, shape and place"),
    "offsets the wrong way": (built({"a": entry("U8", [1], 5, 4)}), "does not fill the bytes 5 to 4"),
    "more bytes than the shape": (built({"a": entry("F32", [2], 0, 9)}), "does not fill the bytes 0 to 9"),
    "fewer bytes than the shape": (built({"a": entry("F32", [2], 0, 7)}), "does not fill the bytes 0 to 7"),
    "part of a byte": (built({"a": entry("F4", [3], 0, 2)}), "does not fill the bytes"),
    "hole at the start": (built({"a": entry("U8", [1], 1, 2)}), "1 bytes of no tensor"),
    "hole in the middle": (built({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 4, 5)}), "3 bytes of no tensor"),
    "overlap": (built({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 3, 7)}), "overlaps 'a'"),
    "same place": (built({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 0, 4)}), "overlaps 'a'"),
    "empty tensor inside another": (built({"a": entry("U8", [4], 0, 4), "b": entry("U8", [0], 2, 2)}), "overlaps 'a'"),
    "beyond the end": (built(GOOD, 32), "truncated"),
    "far beyond the end": (built({"a": entry("U8", [2**60], 0, 2**60)}, 5), "truncated"),
    "bytes after the last tensor": (built(GOOD, 34), "1 bytes after its last tensor"),
    "another file behind": (built(GOOD) + b"PK\x03\x04" + bytes(100), "bytes after its last tensor"),
    "deep lists": (raw(b'{"a":' + b"[" * 200_000 + b"}"), "no end within|damaged"),
    "deep objects": (raw(b'{"a":' * 100_000 + b"}" * 100_000), "no end within|damaged"),
    "entry without an end": (raw(b'{"a":{"dtype":"' + b"x" * 100_000), "no end within"),
    "name without an end": (raw(b'{"' + b"a" * 100_000), "no end within"),
    "too many metadata keys": (
        raw(json.dumps({"__metadata__": {str(index): "" for index in range(5000)}}).encode()), "more than 4096 entries",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_refused(name: str, bounded: Bounded) -> None:
    data, reason = HOSTILE[name]
    with bounded(), pytest.raises(ModelFileError, match=reason) as caught:
        read(data)
    assert caught.value.message.startswith("x.safetensors cannot be used: ")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500
    assert caught.value.hint


EXPENSIVE = {
    "brackets": b'{"a":' + b"[]," * 3_000_000,
    "blanks": b"{" + b" " * 10_000_000 + b'"a"',
    "a text": b'{"__metadata__":{"a":"' + b"x" * 9_000_000 + b'"}}',
    "metadata": b'{"__metadata__":{' + b",".join(b'"%d":"%s"' % (index, b"x" * 4000) for index in range(5000)) + b"}}",
    "numbers": b'{"a":{"shape":[' + b"1," * 4_000_000,
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_megabytes_of_nothing_cost_little(name: str, bounded: Bounded) -> None:
    data = raw(EXPENSIVE[name])
    with bounded(), pytest.raises(ModelFileError):
        read(data)


def test_more_tensors_than_any_model() -> None:
    made = {f"t{index}": entry("U8", [0], 0, 0) for index in range(50)}
    read(built(made), TensorBudget(tensors=50))
    with pytest.raises(ModelFileError, match="more tensors than any model"):
        read(built(made), TensorBudget(tensors=49))
    with pytest.raises(ModelFileError, match="more tensors than any model"):
        read(built(made), TensorBudget(kept_bytes=100))


def test_files_of_one_model_share_what_is_allowed() -> None:
    budget = TensorBudget(tensors=4)
    read(built(GOOD), budget)
    with pytest.raises(ModelFileError, match=r"has the tensor 'a\.weight', which x\.safetensors has too"):
        read_safetensors(MemorySource(built({"a.weight": entry("U8", [1], 0, 1)})), "y.safetensors", budget)


INDEX = {"metadata": {"total_size": 33}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}


def index_of(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def test_a_good_index() -> None:
    index = read_index(MemorySource(index_of(INDEX)), "index.json")
    assert index.files == ("m-1.safetensors", "m-2.safetensors")
    files = {name: read(built({tensor: entry("U8", [1], 0, 1)})) for tensor, name in index.weight_map.items()}
    check_index(index, files)
    with pytest.raises(ModelFileError, match="does not have the tensor 'b'"):
        check_index(index, {**files, "m-2.safetensors": read(raw(b"{}"))})


HOSTILE_INDEX: dict[str, tuple[object, str]] = {
    "empty": (b"", "damaged"),
    "a list": ([], "damaged"),
    "no weight map": ({"metadata": {}}, "which file has which tensor"),
    "empty weight map": ({"weight_map": {}}, "which file has which tensor"),
    "weight map that is a list": ({"weight_map": []}, "damaged"),
    "path upwards": ({"weight_map": {"a": "../x.safetensors"}}, "not the name of a safetensors file"),
    "absolute path": ({"weight_map": {"a": "/etc/x.safetensors"}}, "not the name of a safetensors file"),
    "Windows path": ({"weight_map": {"a": "C:\\x.safetensors"}}, "not the name of a safetensors file"),
    "URL": ({"weight_map": {"a": "https://x/y.safetensors"}}, "not the name of a safetensors file"),
    "pickle": ({"weight_map": {"a": "model.bin"}}, "not the name of a safetensors file"),
    "hidden file": ({"weight_map": {"a": ".x.safetensors"}}, "not the name of a safetensors file"),
    "line break": ({"weight_map": {"a": "x.safetensors\n"}}, "not the name of a safetensors file"),
    "number": ({"weight_map": {"a": 1}}, "not the name of a safetensors file"),
    "control characters": ({"weight_map": {"\x1b[2J": "x.safetensors"}}, "the name"),
    "too many files": ({"weight_map": {str(n): f"m-{n}.safetensors" for n in range(1100)}}, "more than 1000 files"),
    "tensor twice": (b'{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}', "the name 'a' twice"),
    "weight map twice": (b'{"weight_map":{"a":"x.safetensors"},"weight_map":{}}', "the name 'weight_map' twice"),
    "rubbish behind": (b'{"weight_map":{"a":"x.safetensors"}} x', "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE_INDEX)
def test_refused_index(name: str, bounded: Bounded) -> None:
    value, reason = HOSTILE_INDEX[name]
    with bounded(), pytest.raises(ModelFileError, match=reason) as caught:
        read_index(MemorySource(index_of(value)), "index.json")
    assert caught.value.message.startswith("index.json cannot be used: ")
    assert caught.value.message.isprintable() and caught.value.hint


def test_as_much_as_a_real_model_has(bounded: Bounded) -> None:
    """A file as large as all of the largest published header together."""
    made = {
        f"model.layers.{index // 800}.mlp.experts.{index % 800}.gate_proj.weight": entry("U8", [1], index, index + 1)
        for index in range(30_000)
    }
    data = built(made)
    assert len(data) > 3 * MIB
    with bounded():
        assert len(read(data).tensors) == 30_000

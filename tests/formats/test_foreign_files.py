"""Files that are not GGUF are refused with what they are."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from bendi.errors import ModelFileError
from bendi.formats import GgufFile


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.gguf"))
    return out.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


FOREIGN = {
    "empty": (b"", "the file is empty"),
    "zeros": (bytes(5000), "begins with zeros"),
    "GGJT": (b"tjgg" + bytes(40), "came before GGUF"),
    "GGML": (struct.pack("<I", 0x67676D6C) + bytes(40), "came before GGUF"),
    "PyTorch": (zipped(), "PyTorch"),
    "pickle": (pickle.dumps({"a": 1}), "pickle"),
    "old pickle": (pickle.dumps([1], protocol=2), "pickle"),
    "safetensors": (safetensors(), "safetensors"),
    "tar": (tarred(), "archive"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(20), "archive"),
    "web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "web page in capitals": (b"<HTML><HEAD>", "web page"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "Git LFS pointer"),
    "JSON": (b'{"error": "Repository not found"}', "JSON"),
    "text": ("Entry not found 没有\n".encode() * 100, "is text"),
    "short text": (b"Forbidden", "is text"),
    "anything": (bytes(range(1, 255)) * 9, "does not begin as GGUF"),
    "one byte": (b"\x80", "does not begin as GGUF"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_recognised(name: str, read: Callable[[bytes], GgufFile]) -> None:
    data, reason = FOREIGN[name]
    with pytest.raises(ModelFileError, match=reason) as caught:
        read(data)
    assert caught.value.hint

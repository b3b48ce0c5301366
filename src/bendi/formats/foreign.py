"""Recognises what a file is when it is not GGUF, so that the refusal can say it."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from bendi.i18n import N_

HEAD_BYTES = 1024
"""How much of the start of a file `recognise` wants to see."""


class Foreign(NamedTuple):
    """What the file is and what to do about it; both to be shown through `_`."""

    reason: str
    hint: str


_PULL_AGAIN = N_("Download it again: `bendi pull` checks what arrives.")
_GET_GGUF = N_("Get a GGUF version of the model: `bendi pull`.")
_UNPACK = N_("Unpack it first, if you trust where it comes from.")

_EMPTY = Foreign(N_("the file is empty"), _PULL_AGAIN)
_ZEROS = Foreign(N_("the file begins with zeros: room was made for a download that never arrived"), _PULL_AGAIN)
_OLD_GGML = Foreign(N_("the file has the format that came before GGUF (GGML, GGJT), which no engine reads"), _GET_GGUF)
_HTML = Foreign(N_("the file is a web page, most likely an error message saved under this name"), _PULL_AGAIN)
_LFS = Foreign(
    N_("the file is a Git LFS pointer: a few lines of text that stand for the model"),
    N_("Run `git lfs pull` in that repository, or get the model with `bendi pull`."),
)
_PYTORCH = Foreign(
    N_("the file is a ZIP archive, as PyTorch checkpoints are; those can run any program when they are loaded"),
    _GET_GGUF,
)
_PICKLE = Foreign(N_("the file is a Python pickle, which can run any program when it is loaded"), _GET_GGUF)
_SAFETENSORS = Foreign(N_("the file is in safetensors format, which must be converted first"), _GET_GGUF)
_ARCHIVE = Foreign(N_("the file is a compressed archive"), _UNPACK)
_JSON = Foreign(N_("the file is JSON text: a configuration, or an error message saved under this name"), _PULL_AGAIN)
_TEXT = Foreign(N_("the file is text"), _PULL_AGAIN)
_UNKNOWN = Foreign(N_("the file does not begin as GGUF files do"), _PULL_AGAIN)

_OLD_NAMES = (b"ggml", b"ggmf", b"ggjt", b"ggla")
_ARCHIVES = (b"\x1f\x8b", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"Rar!")
_MAX_SAFETENSORS_HEADER_BYTES = 100_000_000


def recognise(head: bytes) -> Foreign:
    """What a file that begins with `head` (`HEAD_BYTES`, or the whole file) is, given that it is not GGUF."""
    if not head:
        return _EMPTY
    if head[:4] in _OLD_NAMES or head[:4][::-1] in _OLD_NAMES:
        return _OLD_GGML
    if head.startswith(b"PK\x03\x04"):
        return _PYTORCH
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return _PICKLE
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        return _ARCHIVE
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _MAX_SAFETENSORS_HEADER_BYTES:
        return _SAFETENSORS
    if not head.strip(b"\0"):
        return _ZEROS
    return _recognise_text(head)


def _recognise_text(head: bytes) -> Foreign:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"version https://git-lfs"):
        return _LFS
    if text[:14].lower() == b"<!doctype html" or text[:5].lower() in (b"<html", b"<?xml", b"<head", b"<body"):
        return _HTML
    if text.startswith((b"{", b"[")):
        return _JSON
    if b"\0" not in head and not any(byte < 9 for byte in head):
        try:
            # The end of `head` may cut a character in two.
            codecs.getincrementaldecoder("utf-8")().decode(head, len(head) < HEAD_BYTES)
        except UnicodeDecodeError:
            return _UNKNOWN
        return _TEXT
    return _UNKNOWN

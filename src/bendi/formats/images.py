"""What the beginning of an image file says: its kind and its size. Pixels are decoded by engines only, so what a header
promises is bounded before."""

from __future__ import annotations

import struct

from bendi.units import MIB

MAX_IMAGE_BYTES = 10 * MIB
MAX_PIXELS = 50_000_000
_TYPES = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"))
_MAX_SEGMENTS = 2000
_FRAMES_WITH_SIZE = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def is_usable(width: int, height: int) -> bool:
    """Whether an engine shall decode an image of so many pixels."""
    return min(width, height) >= 2 and width * height <= MAX_PIXELS


def media_type(image: bytes) -> str:
    """By its beginning; `application/octet-stream` for what no engine reads."""
    return next((kind for begins, kind in _TYPES if image.startswith(begins)), "application/octet-stream")


def pixels(content: bytes) -> tuple[int, int] | None:
    """Width and height as the header says; None when this is no image that the engine reads."""
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", content, 16)
            return width, height
        if content.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", content, 6)
            return width, height
        if content.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", content, 18)
            return abs(width), abs(height)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg_pixels(content)
    except struct.error:
        pass
    return None


def _jpeg_pixels(content: bytes) -> tuple[int, int] | None:
    """Segment after segment, to the first that begins a frame. Raises struct.error at the end of the bytes."""
    at = 2
    for _step in range(_MAX_SEGMENTS):
        marker, length = struct.unpack_from(">HH", content, at)
        if marker >> 8 != 0xFF:
            return None
        if marker == 0xFFFF:  # padding
            at += 1
            continue
        if marker & 0xFF in _FRAMES_WITH_SIZE:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        at += 2 + max(length, 2)
    return None

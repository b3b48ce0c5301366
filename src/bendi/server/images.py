"""Images in requests: only as data inside the request, of kinds that the engine reads, of bounded size.

No URL is ever opened: that would let a client make this machine ask others. Only the header is read here; the pixels
are decoded by the worker, so what a header promises is bounded before.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct

from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.units import MIB, format_size

MAX_IMAGE_BYTES = 10 * MIB
MAX_IMAGES = 16
"""In one request."""
MAX_PIXELS = 50_000_000
_DATA_URI = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)
_MAX_SEGMENTS = 2000
_FRAMES_WITH_SIZE = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def image_from_url(url: str, param: str) -> bytes:
    """The image in a `data:` URI. `param`: the field, for the message. Raises ApiError for anything else."""
    found = _DATA_URI.match(url)
    if found is None:
        raise ApiError(
            400,
            _(
                "Images are taken only as data:image/...;base64, URIs: this server opens no URL. "
                "Send the image itself in the request."
            ),
            code="invalid_image_url",
            param=param,
        )
    return image_from_base64(url[found.end() :], param)


def image_from_base64(text: str, param: str) -> bytes:
    """The image, checked: its size, that it is one, and how many pixels it will have. Raises ApiError."""
    if len(text) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        raise _refused(413, _("An image may have at most {size}.").format(size=format_size(MAX_IMAGE_BYTES)), param)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(400, _("The image is not valid base64."), param) from error
    size = pixels(content)
    if size is None:
        raise _refused(400, _("The image cannot be used: send PNG, JPEG, GIF or BMP."), param)
    width, height = size
    if width < 2 or height < 2 or width * height > MAX_PIXELS:
        why = _("The image has {width} x {height} pixels: at least 2 x 2 and at most {most} in all can be used.")
        raise _refused(400, why.format(width=width, height=height, most=MAX_PIXELS), param)
    return content


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


def _refused(status: int, message: str, param: str) -> ApiError:
    return ApiError(status, message, code="invalid_image", param=param)

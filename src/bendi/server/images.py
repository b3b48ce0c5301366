"""Images in requests: only as data inside the request, of kinds that the engine reads, of bounded size.

No URL is ever opened: that would let a client make this machine ask others. Only the header is read here; the pixels
are decoded by the worker, so what a header promises is bounded before.
"""

from __future__ import annotations

import base64
import binascii
import re

from bendi.formats.images import MAX_IMAGE_BYTES, MAX_PIXELS, is_usable, pixels
from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.units import format_size

MAX_IMAGES = 16
"""In one request."""
_DATA_URI = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)


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
    if not is_usable(width, height):
        why = _("The image has {width} x {height} pixels: at least 2 x 2 and at most {most} in all can be used.")
        raise _refused(400, why.format(width=width, height=height, most=MAX_PIXELS), param)
    return content


def _refused(status: int, message: str, param: str) -> ApiError:
    return ApiError(status, message, code="invalid_image", param=param)

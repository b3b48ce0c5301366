"""Images: data only, bounded, and what is no image is refused before a worker sees it."""

from __future__ import annotations

import base64
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import png

from bendi.formats.images import MAX_IMAGE_BYTES, pixels
from bendi.server.api_errors import ApiError
from bendi.server.images import image_from_base64, image_from_url


def uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def test_the_image_is_what_was_sent() -> None:
    assert image_from_url(uri(png(8, 4)), "messages") == png(8, 4)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/a.png",
        "https://example.com/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "data:text/html,x",
        "",
    ],
)
def test_no_url_is_opened(url: str) -> None:
    with pytest.raises(ApiError) as caught:
        image_from_url(url, "messages.0.content.1.image_url")
    assert caught.value.status == 400
    assert caught.value.param == "messages.0.content.1.image_url"


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<svg/>", png(1, 1), png(9000, 9000)])
def test_what_is_no_usable_image_is_refused(content: bytes) -> None:
    with pytest.raises(ApiError, match="image"):
        image_from_url(uri(content), "x")


def test_size_and_base64_are_checked() -> None:
    with pytest.raises(ApiError) as caught:
        image_from_base64("A" * (MAX_IMAGE_BYTES * 2), "x")
    assert caught.value.status == 413
    with pytest.raises(ApiError, match="base64"):
        image_from_base64("not base64!", "x")


def test_sizes_of_the_other_kinds() -> None:
    frame = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc2\x00\x0b\x08\x00\x10\x00\x20"
    assert pixels(frame) == (32, 16)
    assert pixels(b"GIF89a" + struct.pack("<HH", 5, 6)) == (5, 6)
    assert pixels(b"BM" + bytes(16) + struct.pack("<ii", 7, -8)) == (7, 8)


def test_a_hostile_jpeg_costs_no_time() -> None:
    started_s = time.monotonic()
    assert pixels(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 2_000_000) is None
    assert time.monotonic() - started_s < 0.5


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_end_in_a_size_or_none(tail: bytes, head: bytes) -> None:
    size = pixels(head + tail)
    assert size is None or len(size) == 2

"""What clients send is read strictly, and whatever it is, the answer is a clear refusal."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from starlette.datastructures import QueryParams

from bendi.server.api_errors import ApiError
from bendi.server.bodies import MAX_DEPTH, check_query, read_body, read_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


class Part(BaseModel):
    kind: Literal["a", "b"]


class Body(BaseModel):
    model: str = Field(max_length=10)
    count: int = Field(1, ge=1, le=5)
    parts: list[Part] | str = ""


def refusal(raw: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_body(raw, Body)
    assert caught.value.status == 400
    return caught.value


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_what_is_json_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode("utf-8")) == value


@given(st.binary())
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(read_json(raw), dict)
    except ApiError as error:
        assert error.status == 400


@settings(max_examples=200)
@given(st.text('[]{}":,0123456789.eE+-truefalsn \\u\ud800\n', max_size=60))
def test_almost_json_is_read_or_refused(text: str) -> None:
    try:
        value = read_json(text.encode("utf-8", "surrogatepass"))
        json.dumps(value, allow_nan=False).encode()
    except ApiError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"null", b"[]", b'"text"', b"1", b"{", b"{}{}", b'{"model": "x"', b"{'model': 'x'}", b'{"a": 1,}',
        b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": -1e999}',
        b'{"a": ' + b"9" * 25 + b"}", b'{"a": ' + b"9" * 10_000 + b"}", b'{"a": 1, "a": 2}',
        b'{"b": {"a": 1, "a": 1}}', b'{"a": "\\ud800"}', b'{"\\udc00": 1}', b"\xff", b'{"a": "\xed\xa0\x80"}',
        '{"a": 1}'.encode("utf-16"), b'{"a": "\n"}', b'{"a": 01}', b"\x00",
    ],
    ids=repr,
)  # fmt: skip
def test_malformed_bodies(raw: bytes) -> None:
    assert refusal(raw).code == "invalid_json"


@pytest.mark.parametrize("depth", [MAX_DEPTH, 1000, 100_000, 1_000_000])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting(depth: int, begin: bytes, end: bytes) -> None:
    assert "deep" in refusal(b'{"a":' + begin * depth + b"1" + end * depth + b"}").message
    assert refusal(b'{"a":' + begin * depth).status == 400


def test_useful_depth_is_read() -> None:
    assert read_json(b'{"a":' + b"[" * 90 + b"]" * 90 + b"}")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"), ({"model": 1}, "model"), ({"model": "x" * 11}, "model"), ({"model": None}, "model"),
        ({"model": "x", "count": 0}, "count"), ({"model": "x", "count": 2**63}, "count"),
        ({"model": "x", "count": "many"}, "count"),
    ],
)  # fmt: skip
def test_the_field_at_fault_is_named(body: dict[str, Any], param: str) -> None:
    error = refusal(json.dumps(body).encode())
    assert (error.param, error.code) == (param, "invalid_request")
    assert param in error.message and "pydantic" not in error.message


def test_fields_deep_inside_are_named() -> None:
    error = refusal(b'{"model": "x", "parts": [{"kind": "c"}]}')
    assert error.param and error.param.startswith("parts") and "kind" in error.param


def test_what_was_sent_is_not_repeated() -> None:
    error = refusal(b'{"model": ["a private text"]}')
    assert "private" not in error.message


def test_unknown_fields_are_left_out() -> None:
    assert "n_discard" not in read_body(b'{"model": "x", "n_discard": -1}', Body).model_dump()


class Query(BaseModel):
    limit: int = Field(10, ge=1)
    all: bool = False


def test_queries() -> None:
    assert check_query(QueryParams("limit=5&all=true&other=1&other=2"), Query) == Query(limit=5, all=True)
    for text in ("limit=x", "limit=0", "limit=1&limit=2", "all=perhaps", "limit=", f"limit={math.inf}"):
        with pytest.raises(ApiError) as caught:
            check_query(QueryParams(text), Query)
        assert caught.value.status == 400

"""What clients send: from bytes to the model of an endpoint, or a clear refusal.

JSON is read strictly, so that what is checked here is what everybody behind it sees: UTF-8, one object, no name twice,
no NaN or infinity, no number beyond 64 bits, no half of a surrogate pair, and no deeper than anything useful.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams

from bendi.i18n import _
from bendi.server.api_errors import ApiError

Model = TypeVar("Model", bound=BaseModel)
MAX_DEPTH = 100
_BIGGEST_INT = 2**64
_LONGEST_REASON = 300


def read_body(raw: bytes, model: type[Model]) -> Model:
    """The body as `model`. Raises ApiError 400 with the field at fault as `param`."""
    return check_body(read_json(raw), model)


def read_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises ApiError 400."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(_("The body is not UTF-8 text.")) from error
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            # Half of a surrogate pair is a Python string that cannot be sent on.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeEncodeError as error:
        raise _refusal(_("The body has half of a surrogate pair (\\ud800 to \\udfff).")) from error
    except ValueError as error:
        raise _refusal(_("The body is not valid JSON: {reason}").format(reason=error)) from error
    if not isinstance(value, dict):
        raise _refusal(_("The body must be a JSON object."))
    _check_depth(value)
    return value


def check_body(value: dict[str, Any], model: type[Model]) -> Model:
    """Raises ApiError 400 for the first field that is wrong. What the client sent is not repeated."""
    return _checked(value, model)


def check_query(query: QueryParams, model: type[Model]) -> Model:
    """What stands behind the `?`. Names that the model does not have are ignored. Raises ApiError 400."""
    names = [name for name, _value in query.multi_items()]
    twice = next((name for name in model.model_fields if names.count(name) > 1), None)
    if twice:
        raise ApiError(400, _("{field} stands twice in the address.").format(field=twice), param=twice)
    return _checked(dict(query), model)


def _checked(value: Mapping[str, Any], model: type[Model]) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # A union reports every member that it tried, by names of ours: clients know only their own fields.
        place = ".".join(str(part) for part in first["loc"] if not isinstance(part, str) or part.isidentifier())
        reason = str(first["msg"])[:_LONGEST_REASON]
        said = _("{field}: {reason}").format(field=place[:_LONGEST_REASON], reason=reason) if place else reason
        raise ApiError(400, said, code="invalid_request", param=place[:_LONGEST_REASON] or None) from error


def _refusal(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_json")


def _too_deep() -> ApiError:
    return _refusal(_("The body is nested more than {depth} deep.").format(depth=MAX_DEPTH))


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _depth in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(_("a name stands twice in one object"))
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(number := int(digits)) > _BIGGEST_INT:
        raise ValueError(_("a number is beyond 64 bits"))
    return number


def _decimal(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(_("a number is beyond 64 bits"))
    return number


def _constant(_name: str) -> NoReturn:
    raise ValueError(_("NaN and Infinity are no JSON"))


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_decimal, parse_constant=_constant
)

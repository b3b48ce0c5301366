"""What Ollama's clients send, and what it means to an engine. Fields that are not named here have no effect; those that
would change the answer and cannot be honoured are refused, with the reason (docs/ollama.md lists all)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from bendi.chat.parameters import check_value
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.messages import GenerateRequest, Message, Sampling, ToolCall
from bendi.server.api_errors import ApiError
from bendi.server.generation import Ask, ContextPolicy
from bendi.server.images import MAX_IMAGES, image_from_base64
from bendi.server.ollama_fields import wish_for
from bendi.server.pool import Wish

_SAMPLING = frozenset(Sampling.__dataclass_fields__)
_WHOLE = frozenset({"top_k", "seed", "num_predict", "num_ctx"})


class OllamaFunctionCall(BaseModel):
    """`arguments`: an object, not a text as elsewhere."""

    name: str
    arguments: dict[str, Any] = {}


class OllamaToolCall(BaseModel):
    id: str = ""
    function: OllamaFunctionCall


class OllamaMessage(BaseModel):
    """`tool_name`: of a `tool` message: whose result it is. `images`: base64."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaRequest(BaseModel):
    """What all requests for text have. `think`: whether, or how long, a thinking model thinks. `truncate`: whether old
    messages may be left out of a prompt that does not fit."""

    model: str = Field(min_length=1, max_length=2048)
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    keep_alive: float | str | None = None
    think: bool | Literal["low", "medium", "high", ""] | None = None
    truncate: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


class OllamaGenerateRequest(OllamaRequest):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class OllamaChatRequest(OllamaRequest):
    messages: list[OllamaMessage] | None = None
    tools: list[dict[str, Any]] | None = None


def wish_of(body: OllamaRequest) -> Wish:
    """Which model, with how much context, for how long."""
    return wish_for(body.model, "text", body.options, body.keep_alive)


def generate_ask(body: OllamaGenerateRequest) -> Ask:
    """What /api/generate asks for. Raises ApiError."""
    _refuse_what_cannot_be(body)
    prompt = body.prompt or ""
    if body.raw:
        if body.system or body.images:
            raise _refused(_("A raw prompt is sent as it is: system and images have no place in it."), "raw")
        return _ask(body, GenerateRequest(prompt=prompt))
    images = _images(body.images, "images")
    turns = [Message("system", body.system)] if body.system else []
    return _ask(body, GenerateRequest(messages=(*turns, Message("user", prompt, images=images))))


def chat_ask(body: OllamaChatRequest) -> Ask:
    """What /api/chat asks for. Raises ApiError."""
    messages = _messages(body.messages or [])
    return _ask(body, GenerateRequest(messages=messages, tools=_tools(body.tools or [])))


def _ask(body: OllamaRequest, request: GenerateRequest) -> Ask:
    options = body.options or {}
    policy: ContextPolicy | None = None if body.truncate is None else "slide" if body.truncate else "error"
    most_tok = _number(options, "num_predict", -(2**31), 2**31 - 1)
    request = replace(
        request,
        sampling=_sampling(options),
        stop=tuple(_checked("stop", options.get("stop") or [])),
        # 0 and below mean no limit to Ollama.
        max_tokens=most_tok if most_tok and most_tok > 0 else None,
        json_schema=_schema(body.format),
        template_options=_thinking(body.think),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    return Ask(wish_of(body), request, policy)


def _sampling(options: Mapping[str, Any]) -> Sampling:
    values = {name: _whole(name, options[name]) for name in _SAMPLING & options.keys() if options[name] is not None}
    if values.get("seed", 0) < 0:  # a random one
        del values["seed"]
    return Sampling(**{name: _checked(name, value) for name, value in values.items()})


def _number(options: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = _whole(name, options.get(name))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refused(_("{name} must be a whole number.").format(name=name), f"options.{name}")
    return value


def _whole(name: str, value: Any) -> Any:
    """JSON does not tell 1.0 from 1, and some clients write every number with a point."""
    return int(value) if name in _WHOLE and isinstance(value, float) and value.is_integer() else value


def _checked(name: str, value: Any) -> Any:
    try:
        return check_value(name, value)
    except UsageError as error:
        raise _refused(f"{error.message} {error.hint}".strip(), f"options.{name}") from error


def _schema(wanted: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if wanted is None or wanted == "":
        return None
    if wanted == "json":
        return {"type": "object"}
    if isinstance(wanted, str):
        raise _refused(_('format takes "json" or a JSON schema.'), "format")
    return wanted


def _thinking(think: bool | str | None) -> dict[str, Any]:
    if think is None or think == "":
        return {}
    if isinstance(think, bool):
        return {"enable_thinking": think}
    return {"enable_thinking": True, "reasoning_effort": think}


def _refuse_what_cannot_be(body: OllamaGenerateRequest) -> None:
    if body.suffix:
        raise _refused(_("{model} cannot fill in before a suffix.").format(model=body.model), "suffix")
    if body.template:
        raise _refused(
            _("Templates are taken from models only, never from requests: they are programs. Use raw for your own."),
            "template",
        )
    if body.context:
        raise _refused(
            _("context is not supported: send the conversation as messages to /api/chat; its start is not computed "
              "again."),
            "context",
        )  # fmt: skip


def _messages(sent: Sequence[OllamaMessage]) -> tuple[Message, ...]:
    """With an id for every call of a tool and every result: Ollama tells them apart by name and order."""
    images = sum(len(message.images or ()) for message in sent)
    if images > MAX_IMAGES:
        raise _refused(_("A request may have at most {count} images.").format(count=MAX_IMAGES), "messages")
    turns: list[Message] = []
    waiting: list[ToolCall] = []
    made = 0
    for at, message in enumerate(sent):
        content = message.content or ""
        if message.role == "tool":
            call_id = message.tool_call_id or _take(waiting, message.tool_name)
            turns.append(Message("tool", content, tool_call_id=call_id))
            continue
        calls = []
        for call in message.tool_calls or ():
            made += 1
            arguments = json.dumps(call.function.arguments, ensure_ascii=False)
            calls.append(ToolCall(call.id or f"call_{made}", call.function.name, arguments))
        waiting += calls
        turns.append(
            Message(
                message.role,
                content,
                reasoning=message.thinking or "",
                tool_calls=tuple(calls),
                images=_images(message.images, f"messages.{at}.images"),
            )
        )
    return tuple(turns)


def _take(waiting: list[ToolCall], name: str | None) -> str:
    """The id of the first call of that name (of any, without a name) that has no result yet."""
    for at, call in enumerate(waiting):
        if name in (None, "", call.name):
            return waiting.pop(at).id
    return ""


def _images(texts: Iterable[str] | None, param: str) -> tuple[bytes, ...]:
    return tuple(image_from_base64(text, param) for text in texts or ())


def _tools(tools: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    for at, tool in enumerate(tools):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _refused(_("A tool must have a function with a name."), f"tools.{at}")
    return tuple({"type": "function", "function": _function(tool["function"])} for tool in tools)


def _function(sent: Mapping[str, Any]) -> dict[str, Any]:
    return {key: sent[key] for key in ("name", "description", "parameters") if sent.get(key) is not None}


def _refused(message: str, param: str) -> ApiError:
    return ApiError(400, message, code="invalid_request", param=param)

"""From the items of a response's conversation to messages, and what a request asks for beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from bendi.i18n import _
from bendi.messages import GenerateRequest, Message, ToolCall
from bendi.server.generation import Ask, ContextPolicy
from bendi.server.images import MAX_IMAGES, image_from_url
from bendi.server.openai_fields import (
    biases_of,
    checked_schema,
    new_id,
    refuse_unknown,
    refused,
    sampling_of,
    stops_of,
    template_options_of,
)
from bendi.server.openai_response_types import (
    AllowedChoice,
    FunctionCallItem,
    FunctionChoice,
    FunctionOutputItem,
    InputImage,
    Item,
    MessageItem,
    ObjectFormat,
    ReasoningItem,
    Refusal,
    ResponseBody,
    SchemaFormat,
)
from bendi.server.openai_tools import Choice, tools_of
from bendi.server.openai_types import (
    AllowedTools,
    AllowedToolsList,
    Function,
    FunctionReference,
    Tool,
    ToolReference,
)
from bendi.server.pool import Wish

LOGPROBS = "message.output_text.logprobs"
_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])
_ID_PREFIXES = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}


def input_items(body: ResponseBody) -> list[dict[str, Any]]:
    """The items of a request as they are stored: each has an id, and only fields that are known."""
    if isinstance(body.input, str):
        parts = [{"type": "input_text", "text": body.input}]
        return [{"type": "message", "id": new_id("msg_"), "role": "user", "content": parts}]
    named = [_plain(item) for item in body.input]
    return [item | {"id": item.get("id") or new_id(_ID_PREFIXES[item["type"]])} for item in named]


def _plain(item: Item) -> dict[str, Any]:
    known = item.model_dump(include=set(type(item).model_fields), exclude_none=True)
    if isinstance(item, MessageItem) and isinstance(item.content, str):
        kind = "output_text" if item.role == "assistant" else "input_text"
        known["content"] = [{"type": kind, "text": item.content}]
    return known


def ask_of(body: ResponseBody, items: Sequence[Mapping[str, Any]]) -> Ask:
    """`items`: the whole conversation. Raises ApiError for what cannot be honoured."""
    refuse_unknown(body)
    tools, choice = _tools(body)
    request = GenerateRequest(
        messages=messages_of(_ITEMS.validate_python(list(items)), body.instructions),
        max_tokens=body.max_output_tokens,
        stop=stops_of(body.stop),
        sampling=sampling_of(body),
        json_schema=_schema(body),
        tools=tools,
        tool_choice=choice,
        template_options=template_options_of(body.reasoning.effort if body.reasoning else None, None),
        logprobs=body.top_logprobs or 0 if wants_logprobs(body) else None,
        logit_bias=biases_of(body.logit_bias),
        parallel_tool_calls=body.parallel_tool_calls if tools else None,
    )
    return Ask(Wish(body.model), request, policy=_policy(body))


def wants_logprobs(body: ResponseBody) -> bool:
    return bool(body.top_logprobs) or LOGPROBS in (body.include or ())


def _policy(body: ResponseBody) -> ContextPolicy | None:
    if body.context_policy:
        return body.context_policy
    return {"auto": "slide", "disabled": "error"}.get(body.truncation or "")  # type: ignore[return-value]


def messages_of(items: Sequence[Item], instructions: str | None = None) -> tuple[Message, ...]:
    """The conversation: what one answer consists of (thinking, text, calls) is one message. Raises ApiError."""
    turns: list[Message] = [Message("system", instructions)] if instructions else []
    thinking = ""
    for at, item in enumerate(items):
        if isinstance(item, ReasoningItem):
            thinking += "".join(part.text for part in item.content or item.summary)
        elif isinstance(item, FunctionOutputItem):
            output = item.output if isinstance(item.output, str) else "\n".join(part.text for part in item.output)
            turns.append(Message("tool", output, tool_call_id=item.call_id))
        elif isinstance(item, FunctionCallItem):
            if not turns or turns[-1].role != "assistant" or thinking:
                turns.append(Message("assistant", "", reasoning=thinking))
                thinking = ""
            calls = (*turns[-1].tool_calls, ToolCall(item.call_id, item.name, item.arguments))
            turns[-1] = replace(turns[-1], tool_calls=calls)
        else:
            message = _message(item, f"input.{at}")
            if message.role == "assistant":
                message, thinking = replace(message, reasoning=thinking), ""
            elif message.role == "system" and len(turns) == 1 and turns[0].role == "system":
                # Many chat templates take one system message only.
                message = replace(message, content=f"{turns.pop().content}\n\n{message.content}")
            turns.append(message)
    if sum(len(turn.images) for turn in turns) > MAX_IMAGES:
        raise refused("input", _("A request may have {count} images at most.").format(count=MAX_IMAGES))
    return tuple(turns)


def _message(item: MessageItem, place: str) -> Message:
    parts = [] if isinstance(item.content, str) else item.content
    images = [
        image_from_url(part.image_url, f"{place}.content.{at}.image_url")
        for at, part in enumerate(parts)
        if isinstance(part, InputImage)
    ]
    if images and item.role != "user":
        raise refused(f"{place}.content", _("Only the user shows images."))
    texts = [
        part.refusal if isinstance(part, Refusal) else part.text for part in parts if not isinstance(part, InputImage)
    ]
    role = "system" if item.role == "developer" else item.role
    content = item.content if isinstance(item.content, str) else "\n".join(texts)
    return Message(role, content, images=tuple(images))


def _tools(body: ResponseBody) -> tuple[tuple[Mapping[str, Any], ...], Choice]:
    """Responses write the same things flatter than chat completions do."""
    tools = [
        Tool(
            type="function",
            function=Function(name=tool.name, description=tool.description, parameters=tool.parameters),
        )
        for tool in body.tools or ()
    ]
    wanted = body.tool_choice
    if isinstance(wanted, FunctionChoice):
        return tools_of(tools, _reference(wanted))
    if isinstance(wanted, AllowedChoice):
        allowed = AllowedToolsList(mode=wanted.mode, tools=[_reference(tool) for tool in wanted.tools])
        return tools_of(tools, AllowedTools(type="allowed_tools", allowed_tools=allowed))
    return tools_of(tools, wanted)


def _reference(choice: FunctionChoice) -> ToolReference:
    return ToolReference(type="function", function=FunctionReference(name=choice.name))


def _schema(body: ResponseBody) -> Mapping[str, Any] | None:
    wanted = body.text.format if body.text else None
    if isinstance(wanted, ObjectFormat):
        return {"type": "object"}
    if isinstance(wanted, SchemaFormat):
        return checked_schema(wanted.schema_, "text.format.schema") or {"type": "object"}
    return None

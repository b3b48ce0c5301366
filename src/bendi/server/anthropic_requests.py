"""What Anthropic's clients send, and what it means to an engine. Fields that are not named here have no effect: neither
`metadata` nor `cache_control` (what begins as an earlier request did is never computed again, asked or not)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from bendi.i18n import _
from bendi.messages import GenerateRequest, Message, Sampling, ToolCall
from bendi.server.api_errors import ApiError
from bendi.server.generation import Ask
from bendi.server.images import MAX_IMAGES, image_from_base64
from bendi.server.pool import Wish


class TextBlock(BaseModel):
    type: Literal["text"]
    text: str


class ImageSource(BaseModel):
    """Only `base64`: no URL and no stored file is ever opened."""

    type: str
    data: str = ""


class ImageBlock(BaseModel):
    type: Literal["image"]
    source: ImageSource


class DocumentSource(BaseModel):
    """Only `text`, and `content` with text in it: files are not read here."""

    type: str
    data: str = ""
    content: str | list[TextBlock] = ""


class DocumentBlock(BaseModel):
    type: Literal["document"]
    source: DocumentSource
    title: str | None = None


class ToolUseBlock(BaseModel):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


Shown = Annotated[TextBlock | ImageBlock | DocumentBlock, Field(discriminator="type")]


class ToolResultBlock(BaseModel):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[Shown] | None = None


class ThinkingBlock(BaseModel):
    type: Literal["thinking"]
    thinking: str


class RedactedThinkingBlock(BaseModel):
    type: Literal["redacted_thinking"]


Block = Annotated[
    TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock,
    Field(discriminator="type"),
]


class AnthropicMessage(BaseModel):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(BaseModel):
    """`type`: only tools of the client; there are none on this server."""

    type: str | None = None
    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class AnthropicToolChoice(BaseModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class AnthropicThinking(BaseModel):
    """`budget_tokens`: after so many the thinking is ended and the answer begins; without it only `max_tokens` bounds
    both together."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = Field(default=None, ge=1, lt=2**31)


class AnthropicFormat(BaseModel):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class AnthropicOutput(BaseModel):
    format: AnthropicFormat | None = None
    effort: str | None = Field(default=None, max_length=32)


class AnthropicCount(BaseModel):
    """What decides how long a prompt is."""

    model: str = Field(min_length=1, max_length=2048)
    messages: list[AnthropicMessage] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: AnthropicThinking | None = None
    output_config: AnthropicOutput | None = None


class AnthropicRequest(AnthropicCount):
    max_tokens: int = Field(ge=1, lt=2**31)
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)


def ask_of(body: AnthropicRequest) -> Ask:
    """Raises ApiError for what cannot be honoured."""
    stop = tuple(text for text in body.stop_sequences or () if text)
    sampling = Sampling(temperature=body.temperature, top_p=body.top_p, top_k=body.top_k)
    return Ask(
        Wish(body.model), prompt_of(body, GenerateRequest(max_tokens=body.max_tokens, stop=stop, sampling=sampling))
    )


def prompt_of(body: AnthropicCount, rest: GenerateRequest | None = None) -> GenerateRequest:
    """What becomes the prompt, and `rest` besides. Raises ApiError."""
    rest = rest or GenerateRequest()
    choice = body.tool_choice
    tools = _tools(body.tools or ())
    if choice is not None and choice.type in ("any", "tool") and not tools:
        raise _refused(_("tool_choice demands a tool, but the request brings none."), "tool_choice")
    output = body.output_config
    options: dict[str, Any] = {}
    if body.thinking is None or body.thinking.type in ("enabled", "disabled"):
        # Who does not ask for thinking gets none, where the model leaves the choice.
        options["enable_thinking"] = body.thinking is not None and body.thinking.type == "enabled"
    if output is not None and output.effort:
        options["reasoning_effort"] = output.effort
    return GenerateRequest(
        messages=(*_system(body.system), *_turns(body.messages)),
        max_tokens=rest.max_tokens,
        stop=rest.stop,
        sampling=rest.sampling,
        json_schema=output.format.schema_ if output is not None and output.format is not None else None,
        tools=tools,
        tool_choice=_choice(choice),
        template_options=options,
        parallel_tool_calls=False if choice is not None and choice.disable_parallel_tool_use else None,
        thinking_tok=body.thinking.budget_tokens if body.thinking is not None else None,
    )


def _system(sent: str | list[TextBlock] | None) -> list[Message]:
    text = sent if isinstance(sent, str) else "\n\n".join(block.text for block in sent or ())
    return [Message("system", text)] if text else []


def _turns(sent: Sequence[AnthropicMessage]) -> list[Message]:
    turns: list[Message] = []
    for at, message in enumerate(sent):
        where = f"messages.{at}.content"
        if isinstance(message.content, str):
            turns.append(Message(message.role, message.content))
        elif message.role == "assistant":
            turns.append(_assistant(message.content, where))
        else:
            turns += _others(message, message.content, where)
    if sum(len(turn.images) for turn in turns) > MAX_IMAGES:
        raise _refused(_("A request may have at most {count} images.").format(count=MAX_IMAGES), "messages")
    return turns


def _assistant(blocks: Sequence[Block], where: str) -> Message:
    calls: list[ToolCall] = []
    texts: list[str] = []
    thoughts: list[str] = []
    for block in blocks:
        if isinstance(block, ToolUseBlock):
            calls.append(ToolCall(block.id, block.name, json.dumps(block.input, ensure_ascii=False)))
        elif isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ThinkingBlock):
            thoughts.append(block.thinking)
        elif not isinstance(block, RedactedThinkingBlock):
            raise _wrong_place("assistant", block.type, where)
    return Message("assistant", "\n\n".join(texts), reasoning="\n\n".join(thoughts), tool_calls=tuple(calls))


def _others(message: AnthropicMessage, blocks: Sequence[Block], where: str) -> list[Message]:
    """Results of tools become messages of their own, in front; what they show besides text goes with the rest."""
    results: list[Message] = []
    shown: list[Shown] = []
    for block in blocks:
        if isinstance(block, ToolResultBlock):
            inner = [] if block.content is None or isinstance(block.content, str) else block.content
            text = block.content if isinstance(block.content, str) else _text(inner, where)
            results.append(Message("tool", text, tool_call_id=block.tool_use_id))
            shown += [part for part in inner if isinstance(part, ImageBlock)]
        elif isinstance(block, TextBlock | ImageBlock | DocumentBlock):
            shown.append(block)
        else:
            raise _wrong_place(message.role, block.type, where)
    if not shown:
        return results
    images = tuple(_image(block, where) for block in shown if isinstance(block, ImageBlock))
    return [*results, Message(message.role, _text(shown, where), images=images)]


def _text(blocks: Iterable[Shown], where: str) -> str:
    texts = []
    for block in blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, DocumentBlock):
            texts.append(_document(block, where))
    return "\n\n".join(texts)


def _document(block: DocumentBlock, where: str) -> str:
    source = block.source
    if source.type == "text":
        text = source.data
    elif source.type == "content":
        text = source.content if isinstance(source.content, str) else "\n\n".join(part.text for part in source.content)
    else:
        raise _refused(
            _("Documents are taken as text only: this server opens no URL and reads no {type} files.").format(
                type=source.type
            ),
            where,
        )
    return f"{block.title}\n\n{text}" if block.title else text


def _image(block: ImageBlock, where: str) -> bytes:
    if block.source.type != "base64":
        raise _refused(
            _("Images are taken only as base64: this server opens no URL. Send the image itself in the request."), where
        )
    return image_from_base64(block.source.data, where)


def _tools(sent: Sequence[AnthropicTool]) -> tuple[dict[str, Any], ...]:
    found = []
    for at, tool in enumerate(sent):
        if tool.type not in (None, "custom") or tool.input_schema is None:
            raise _refused(
                _("This server has no tools of its own: only tools with an input_schema, which the client runs."),
                f"tools.{at}",
            )
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
        if tool.description:
            function["description"] = tool.description
        found.append({"type": "function", "function": function})
    return tuple(found)


def _choice(choice: AnthropicToolChoice | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if choice.type == "tool":
        if not choice.name:
            raise _refused(_("tool_choice names no tool."), "tool_choice.name")
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type


def _wrong_place(role: str, kind: str, where: str) -> ApiError:
    return _refused(
        _("A turn of the role {role} cannot have a block of type {type}.").format(role=role, type=kind), where
    )


def _refused(message: str, param: str) -> ApiError:
    return ApiError(400, f"{param}: {message}", code="invalid_request", param=param)

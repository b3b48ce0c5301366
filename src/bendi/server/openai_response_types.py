"""What OpenAI's responses look like: requests, the items that conversations are made of, and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from bendi.server.openai_types import (
    Answer,
    BendiFields,
    Body,
    Effort,
    FunctionName,
    ModelName,
    Policy,
    SamplingFields,
    StreamOptions,
)

Status = Literal["in_progress", "completed", "incomplete"]
ItemId = Annotated[str, Field(max_length=256)]


class InputText(Body):
    type: Literal["input_text"]
    text: str


class OutputText(Body):
    type: Literal["output_text"]
    text: str


class Refusal(Body):
    type: Literal["refusal"]
    refusal: str


class InputImage(Body):
    type: Literal["input_image"]
    image_url: str = Field(description="A data: URI. URLs are never opened.")
    detail: Literal["auto", "low", "high", "original"] | None = None


ContentPart = Annotated[InputText | OutputText | Refusal | InputImage, Field(discriminator="type")]
TextPart = Annotated[InputText | OutputText, Field(discriminator="type")]


class MessageItem(Body):
    type: Literal["message"] = "message"
    id: ItemId | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[ContentPart]


class FunctionCallItem(Body):
    type: Literal["function_call"]
    id: ItemId | None = None
    call_id: ItemId
    name: FunctionName
    arguments: str


class FunctionOutputItem(Body):
    type: Literal["function_call_output"]
    id: ItemId | None = None
    call_id: ItemId
    output: str | list[TextPart]


class ReasoningText(Body):
    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(Body):
    type: Literal["reasoning"]
    id: ItemId | None = None
    summary: list[ReasoningText] = Field(default_factory=list)
    content: list[ReasoningText] | None = None


def _kind(value: Any) -> str:
    """A message may leave out that it is one."""
    found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return str(found) if found is not None else "message"


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind),
]


class FunctionTool(Body):
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionChoice(Body):
    type: Literal["function"]
    name: FunctionName


class AllowedChoice(Body):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[FunctionChoice] = Field(min_length=1, max_length=128)


Choice = Literal["none", "auto", "required"] | Annotated[FunctionChoice | AllowedChoice, Field(discriminator="type")]


class PlainFormat(Body):
    type: Literal["text"]


class ObjectFormat(Body):
    type: Literal["json_object"]


class SchemaFormat(Body):
    type: Literal["json_schema"]
    name: str = Field(max_length=64)
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    format: Annotated[PlainFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None


class ReasoningOptions(Body):
    effort: Effort | None = None


class ResponseBody(SamplingFields):
    """POST /v1/responses."""

    model: ModelName
    input: str | Annotated[list[Item], Field(min_length=1, max_length=10_000)]
    instructions: str | None = None
    previous_response_id: ItemId | None = None
    max_output_tokens: int | None = Field(None, ge=1, lt=2**31)
    tools: list[FunctionTool] | None = Field(None, max_length=128)
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[str] | None = Field(None, max_length=16)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = Field(None, description="Default: true. An answer that is not stored cannot be referred to.")
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="auto: the oldest turns are left out where they do not fit, and `bendi` says how many."
    )
    metadata: dict[str, str] | None = Field(None, max_length=16)
    context_policy: Policy | None = Field(
        None, description="What happens when the conversation does not fit into the context. Default: grow."
    )


class ResponseUsage(Answer):
    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseAnswer(Answer):
    """`output`: items of the kinds message, function_call and reasoning, complete."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    error: dict[str, Any] | None
    incomplete_details: dict[str, str] | None
    model: str
    output: list[dict[str, Any]]
    previous_response_id: str | None
    usage: ResponseUsage | None
    store: bool
    truncation: Literal["auto", "disabled"]
    bendi: BendiFields | None


class ItemsQuery(BaseModel):
    after: ItemId | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"


class ItemList(Answer):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(Answer):
    id: str
    object: Literal["response"]
    deleted: Literal[True]

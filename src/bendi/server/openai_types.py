"""What OpenAI's chat and text completions look like: requests and answers, field by field.

Ranges are OpenAI's, except where this server can do more. Fields that no class here names are kept by pydantic, so that
those which cannot be honoured can be refused by name (`openai_fields.refuse`); none of them reaches an engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ModelName = Annotated[str, Field(min_length=1, max_length=512)]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
Policy = Literal["error", "grow", "compact", "slide"]
Metadata = dict[str, Any]


class Body(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class SamplingFields(Body):
    """Sampling as OpenAI names it, and three fields of llama.cpp that every client of local models knows."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    top_k: int | None = Field(None, ge=0, le=100_000, description="As in llama.cpp; 0: all tokens.")
    min_p: float | None = Field(None, ge=0, le=1, description="As in llama.cpp.")
    repeat_penalty: float | None = Field(None, ge=0.1, le=10, description="As in llama.cpp; 1: none.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=300, description="By token number."
    )
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None


class StreamOptions(Body):
    include_usage: bool | None = None


class Function(Body):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class FunctionReference(Body):
    name: FunctionName


class ToolReference(Body):
    type: Literal["function"]
    function: FunctionReference


class AllowedToolsList(Body):
    mode: Literal["auto", "required"]
    tools: list[ToolReference] = Field(max_length=128)


class AllowedTools(Body):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolsList


ToolChoice = Literal["none", "auto", "required"] | Annotated[ToolReference | AllowedTools, Field(discriminator="type")]


class NamedSchema(Body):
    name: str | None = Field(None, max_length=64)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(Body):
    type: Literal["text"]


class JsonObjectFormat(Body):
    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="As in llama.cpp.")


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class TextPart(Body):
    type: Literal["text"]
    text: str


class RefusalPart(Body):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(Body):
    url: str = Field(description="A data: URI. URLs are never opened.")
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | RefusalPart | ImagePart, Field(discriminator="type")]


class FunctionCall(Body):
    name: FunctionName
    arguments: str


class ToolCallBody(Body):
    id: str = Field(max_length=256)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCallBody] | None = Field(None, max_length=128)
    tool_call_id: str | None = Field(None, max_length=256)
    reasoning_content: str | None = Field(None, description="The thinking of an earlier answer.")


class TemplateOptions(BaseModel):
    """Options of chat templates that a client may set; no others reach one."""

    model_config = ConfigDict(extra="forbid")

    enable_thinking: bool | None = None
    reasoning_effort: Literal["low", "medium", "high"] | None = None


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatBody(SamplingFields):
    """POST /v1/chat/completions."""

    model: ModelName
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    n: int | None = Field(None, ge=1, le=8)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateOptions | None = None
    context_policy: Policy | None = Field(
        None, description="What happens when the conversation does not fit into the context. Default: grow."
    )


class InputTokens(Answer):
    """Of a prompt, after the chat template."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class CompletionBody(SamplingFields):
    """POST /v1/completions."""

    model: ModelName
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=64)]
        | Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
        | Annotated[
            list[Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]],
            Field(min_length=1, max_length=64),
        ]
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, lt=2**31, description="Default: 16, as at OpenAI.")
    n: int | None = Field(None, ge=1, le=8)
    best_of: int | None = Field(None, ge=1, le=8, description="Only the same as n.")
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=20, strict=True)
    suffix: str | None = None
    context_policy: Literal["error", "grow"] | None = Field(
        None, description="What happens when the prompt does not fit into the context. Default: grow."
    )


class PromptDetails(Answer):
    cached_tokens: int = 0


class CompletionDetails(Answer):
    reasoning_tokens: int = 0


class UsageAnswer(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class MeasuredTimes(Answer):
    """Time to first token, prompt processing (PP) and token generation (TG); null where nothing was measured."""

    ttft_s: float | None
    pp_tok_s: float | None
    tg_tok_s: float | None


class BendiFields(Answer):
    """What OpenAI has no fields for: the model that answered, what was done to the context, and how long it took."""

    model: str
    context_tok: int
    load_s: float
    policy_applied: Literal["", "grow", "compact", "slide"]
    dropped: int
    timings: MeasuredTimes


class TokenChoice(Answer):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenAnswer(TokenChoice):
    top_logprobs: list[TokenChoice]


class LogprobsAnswer(Answer):
    content: list[TokenAnswer] | None
    refusal: list[TokenAnswer] | None = None


class FunctionCallAnswer(Answer):
    name: str
    arguments: str


class ToolCallAnswer(Answer):
    id: str
    type: Literal["function"]
    function: FunctionCallAnswer


class MessageAnswer(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallAnswer] | None = None


class ChatChoice(Answer):
    index: int
    message: MessageAnswer
    logprobs: LogprobsAnswer | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatAnswer(Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: UsageAnswer
    bendi: BendiFields


class TextLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Answer):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class CompletionAnswer(Answer):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoice]
    usage: UsageAnswer
    bendi: BendiFields

"""From fields of OpenAI's requests to the words of bendi, and back: what its endpoints for text have in common."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from bendi import __version__
from bendi.i18n import N_, _
from bendi.messages import FinishReason, Sampling, TokenLogprob, Usage
from bendi.server.answers import Whole
from bendi.server.api_errors import ApiError, error_body
from bendi.server.generation import Note
from bendi.server.openai_types import Effort, SamplingFields, TemplateOptions
from bendi.server.sse import frame

MAX_SCHEMA_CHARS = 64 * 1024
MAX_SCHEMA_DEPTH = 32
_SEEDS = 2**32 - 1
"""llama.cpp takes 32 bits, of which the highest number means: any."""

_REFUSED: Mapping[str, str] = {
    "audio": N_("there are no models here that speak"),
    "modalities": N_("answers are text"),
    "web_search_options": N_("this server asks nobody else"),
    "functions": N_("this is the old way: send `tools`"),
    "function_call": N_("this is the old way: send `tool_choice`"),
    "grammar": N_("send a JSON schema as `response_format`"),
    "json_schema": N_("send it as `response_format`"),
    "chat_template": N_("the template is the model's own"),
    "background": N_("an answer is written while the client waits"),
    "conversation": N_("go on with `previous_response_id`"),
    "prompt": N_("prompts are not stored here: send `instructions` and `input`"),
    "continue_final_message": N_("an answer is a turn of its own"),
    "mirostat": N_("sampling knows only the fields that are documented"),
    "typical_p": N_("sampling knows only the fields that are documented"),
    "dry_multiplier": N_("sampling knows only the fields that are documented"),
    "xtc_probability": N_("sampling knows only the fields that are documented"),
    "min_tokens": N_("an answer ends where the model ends it"),
    "lora": N_("adapters are not loaded by requests"),
}
"""Fields that would change the answer and cannot be honoured. All others that are not known change nothing."""
_HARMLESS: Mapping[str, tuple[object, ...]] = {"modalities": (["text"],), "mirostat": (0,), "background": (False,)}


def refuse_unknown(body: BaseModel) -> None:
    """Raises ApiError 400 for a field that asks for what this server cannot do."""
    for name, value in (body.model_extra or {}).items():
        reason = _REFUSED.get(name)
        if reason and value not in (None, [], {}, "", False) and value not in _HARMLESS.get(name, ()):
            raise ApiError(
                400,
                _("The field {name} cannot be honoured: {reason}.").format(name=name, reason=_(reason)),
                code="unsupported_parameter",
                param=name,
            )


def refused(param: str, message: str) -> ApiError:
    """A 400 for one field."""
    return ApiError(400, message, code="invalid_request", param=param)


def sampling_of(body: SamplingFields) -> Sampling:
    seed = body.seed if body.seed is not None and body.seed >= 0 else None
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repeat_penalty=body.repeat_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        seed=None if seed is None else seed % _SEEDS,
    )


def stops_of(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(text for text in ([stop] if isinstance(stop, str) else stop or ()) if text)


def biases_of(logit_bias: Mapping[str, float] | None) -> dict[int, float]:
    """Raises ApiError where a key is no token number."""
    try:
        return {int(token): bias for token, bias in (logit_bias or {}).items()}
    except ValueError as error:
        raise refused("logit_bias", _("The keys of logit_bias are token numbers, written as text.")) from error


def template_options_of(effort: Effort | None, options: TemplateOptions | None) -> dict[str, Any]:
    """How much a model shall think, as chat templates know it; templates that do not know it ignore it."""
    chosen: dict[str, Any] = {}
    if effort in ("none", "minimal"):
        chosen["enable_thinking"] = False
    elif effort is not None:
        chosen["reasoning_effort"] = effort if effort in ("low", "medium") else "high"
    return chosen | (options.model_dump(exclude_none=True) if options else {})


def checked_schema(schema: Mapping[str, Any] | None, param: str) -> Mapping[str, Any]:
    """A JSON schema of bounded size and depth: the engine makes a grammar of it. Raises ApiError."""
    wanted = schema or {}
    level: list[Any] = [wanted]
    for _depth in range(MAX_SCHEMA_DEPTH):
        level = [child for value in level for child in _children(value)]
    if level or len(json.dumps(wanted)) > MAX_SCHEMA_CHARS:
        raise refused(
            param,
            _("A JSON schema may have {chars} characters and be {depth} deep.").format(
                chars=MAX_SCHEMA_CHARS, depth=MAX_SCHEMA_DEPTH
            ),
        )
    return wanted


def _children(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def new_id(prefix: str) -> str:
    """Unguessable."""
    return f"{prefix}{secrets.token_hex(16)}"


def build_of(note: Note | None) -> str | None:
    """OpenAI's `system_fingerprint`: answers can be the same again only with the same bendi and engine build."""
    return f"bendi-{__version__}-{note.build.replace(' ', '-')}" if note else None


def finish_of(finish: FinishReason) -> str:
    """As OpenAI names it; an answer that was broken off is a part of one, as one that became too long."""
    return "length" if finish == "cancelled" else finish


def usage_of(wholes: Sequence[Whole], answers_each: int = 1) -> dict[str, Any]:
    """Of all answers to one request. `answers_each`: so many in a row had the same prompt, which is counted once."""
    prompts: list[Usage] = [whole.usage for whole in wholes[::answers_each]]
    prompt_tok = sum(usage.prompt_tok for usage in prompts)
    completion_tok = sum(whole.usage.completion_tok for whole in wholes)
    return {
        "prompt_tokens": prompt_tok,
        "completion_tokens": completion_tok,
        "total_tokens": prompt_tok + completion_tok,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tok for usage in prompts)},
        "completion_tokens_details": {
            "reasoning_tokens": sum(min(whole.reasoning_pieces, whole.usage.completion_tok) for whole in wholes)
        },
    }


def bendi_of(whole: Whole) -> dict[str, Any]:
    """What OpenAI has no fields for (`BendiFields`)."""
    note = whole.note or Note("", "", 0)
    timings = whole.last.timings if whole.last else None
    return {
        "model": note.model,
        "context_tok": note.context_tok,
        "load_s": note.load_s,
        "policy_applied": note.policy_applied,
        "dropped": note.dropped,
        "timings": {
            "ttft_s": timings.ttft_s if timings else None,
            "pp_tok_s": timings.pp_tok_s if timings else None,
            "tg_tok_s": timings.tg_tok_s if timings else None,
        },
    }


def token_of(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.token_bytes)}


def logprobs_of(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """As chat completions write them."""
    rows = [token_of(token) | {"top_logprobs": [token_of(other) for other in token.alternatives]} for token in tokens]
    return {"content": rows, "refusal": None}


def failed_frame(error: ApiError) -> bytes:
    """The last event of a stream that failed."""
    return frame(error_body(error, "openai"))

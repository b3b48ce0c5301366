"""What a persona adds to a request: its system prompt and parameters, wherever the client says nothing."""

from __future__ import annotations

from dataclasses import fields, replace

from bendi.chat.parameters import join
from bendi.chat.personas import Persona
from bendi.messages import GenerateRequest, Message, Sampling


def with_persona(request: GenerateRequest, persona: Persona) -> GenerateRequest:
    """`request` with the persona's values as defaults. Template options are joined key by key."""
    values = join(persona.values)
    messages = request.messages
    if persona.system and request.prompt is None and not any(message.role == "system" for message in messages):
        messages = (Message("system", persona.system), *messages)
    return replace(
        request,
        messages=messages,
        max_tokens=values.max_tokens if request.max_tokens is None else request.max_tokens,
        stop=request.stop or values.stop,
        sampling=_joined(request.sampling, values.sampling),
        template_options={**values.template_options, **request.template_options},
    )


def _joined(own: Sampling, default: Sampling) -> Sampling:
    chosen = {field.name: getattr(own, field.name) for field in fields(own) if getattr(own, field.name) is not None}
    return replace(default, **chosen)

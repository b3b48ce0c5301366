"""How many tokens the prompt of a request has, exactly, before an answer is asked for."""

from __future__ import annotations

from bendi.engines import Tokenizer
from bendi.i18n import _
from bendi.messages import GenerateRequest
from bendi.server.api_errors import ApiError
from bendi.server.endpoint import Call
from bendi.server.persona_request import with_persona
from bendi.server.pool import Wish
from bendi.server.pool_load import in_thread


async def prompt_tok(call: Call, model: str, request: GenerateRequest) -> int:
    """As `model` would be given it, with tools, images and what its persona adds. Raises as `ModelPool.lease`; ApiError
    501 for an engine that cannot tell."""
    persona = call.services.pool.named(model).persona
    if persona:
        request = with_persona(request, persona)
    async with call.services.pool.lease(Wish(model, session=None)) as lease:
        engine = lease.engine
        if not isinstance(engine, Tokenizer):
            raise ApiError(501, _("The engine of this model cannot count tokens."), code="not_implemented")
        return await in_thread(engine.count_tokens, request.messages, request)

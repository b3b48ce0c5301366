"""POST /tokenize and /detokenize, as llama-server's clients know them: which tokens a model makes of a text, and back.

Their numbers are those of `logit_bias`, and of prompts and inputs that are sent as tokens.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from bendi.engines import HasTokens
from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.kinds import usual_kind
from bendi.server.pool import Lease, Wish
from bendi.server.pool_load import in_thread
from bendi.server.reading import LONGEST_INPUT

ModelName = Annotated[str, Field(min_length=1, max_length=512)]
Token = Annotated[int, Field(ge=0, lt=2**31)]


class TokenizeBody(BaseModel):
    """`add_special`: with the tokens that the model wants at the beginning or the end of a text. `parse_special`: names
    of control tokens in the text become those tokens. `with_pieces`: each token with what it stands for."""

    model: ModelName
    content: Annotated[str, Field(max_length=LONGEST_INPUT)]
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class TokenPiece(BaseModel):
    """`piece`: its text, or its bytes where they are no whole characters."""

    id: int
    piece: str | list[int]


class TokenList(BaseModel):
    """Numbers, or pieces where they were asked for."""

    tokens: list[int] | list[TokenPiece]


class DetokenizeBody(BaseModel):
    model: ModelName
    tokens: Annotated[list[Token], Field(max_length=LONGEST_INPUT)]


class TokenText(BaseModel):
    """`content`: bytes that are no whole characters are replaced by U+FFFD."""

    content: str


async def _tokenize(call: Call) -> Response:
    body: TokenizeBody = call.body

    def read(engine: HasTokens) -> list[int] | list[TokenPiece]:
        options = {"special": body.parse_special, "whole": body.add_special}
        if not body.with_pieces:
            return engine.tokens.tokenize(body.content, **options)
        found = engine.tokens.pieces(body.content, **options)
        return [TokenPiece(id=token, piece=_plain(piece)) for token, piece in found]

    lease = await _leased(call, body.model)
    try:
        tokens = await in_thread(read, _readable(lease))
    finally:
        lease.release()
    return JSONResponse(TokenList(tokens=tokens).model_dump())


async def _detokenize(call: Call) -> Response:
    body: DetokenizeBody = call.body
    lease = await _leased(call, body.model)
    try:
        text = await in_thread(_readable(lease).tokens.detokenize, body.tokens)
    finally:
        lease.release()
    return JSONResponse(TokenText(content=text).model_dump())


def _plain(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


async def _leased(call: Call, name: str) -> Lease:
    """The model, for whatever it is loaded or mostly used for: its tokens are the same."""
    pool = call.services.pool
    model = await pool.model_of(Wish(name))
    loaded = [entry.kind for entry in pool.loaded() if entry.path == str(model.path)]
    kind = loaded[0] if loaded else await asyncio.to_thread(usual_kind, model.path)
    return await pool.acquire(Wish(name, kind, session=None))


def _readable(lease: Lease) -> HasTokens:
    if not isinstance(lease.engine, HasTokens):
        raise ApiError(501, _("The engine of this model does not tell its tokens."), code="not_implemented")
    return lease.engine


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/tokenize",
        handler=_tokenize,
        scope="infer",
        dialect="openai",
        summary="The tokens of a text.",
        body=TokenizeBody,
        answer=TokenList,
        errors=MODEL_ERRORS,
    ),
    Endpoint(
        method="POST",
        path="/detokenize",
        handler=_detokenize,
        scope="infer",
        dialect="openai",
        summary="The text of tokens.",
        body=DetokenizeBody,
        answer=TokenText,
        errors=MODEL_ERRORS,
    ),
)

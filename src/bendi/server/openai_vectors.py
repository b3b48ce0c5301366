"""POST /v1/embeddings and /v1/rerank: vectors of texts, and which documents fit a query, for search and RAG.

Reranking has no dialect of its own: the shape is that of Jina and Cohere, which all clients know.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from array import array
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.pool import Wish
from bendi.server.reading import LONGEST_INPUT, MOST_INPUTS, embeddings_of, plain_numbers, ranking_of, shortened

ModelName = Annotated[str, Field(min_length=1, max_length=512)]
Text = Annotated[str, Field(max_length=LONGEST_INPUT)]
Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=LONGEST_INPUT)]
_MANY_BYTES = 64 * 1024


class EmbeddingsBody(BaseModel):
    """`input`: one text, the tokens of one, or several of both. Nothing is ever cut: an input that is too long is
    an error. `dimensions`: only for models that were trained to be shortened."""

    model: ModelName
    input: Text | Tokens | Annotated[list[Text | Tokens], Field(min_length=1, max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=65536)


class TokenCounts(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingEntry(BaseModel):
    """`embedding`: numbers, or the base64 of as many little-endian 32-bit floats."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[EmbeddingEntry]
    model: str
    usage: TokenCounts


class RerankDocument(BaseModel):
    text: Text


class RerankBody(BaseModel):
    """`top_n`: how many to return, None for all. `return_documents`: with their texts."""

    model: ModelName
    query: Annotated[str, Field(min_length=1, max_length=LONGEST_INPUT)]
    documents: Annotated[list[Text | RerankDocument], Field(min_length=1, max_length=MOST_INPUTS)]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None


class RankedDocument(BaseModel):
    """`index`: of the document in the request. `relevance_score`: from 0 to 1. `document`: only where asked for."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankAnswer(BaseModel):
    """`results`: the best first."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RankedDocument]
    usage: TokenCounts


async def _embeddings(call: Call) -> Response:
    body: EmbeddingsBody = call.body
    inputs = _inputs(body.input)
    read = await embeddings_of(call, Wish(body.model, "embedding"), inputs)
    vectors = await asyncio.to_thread(shortened, read, body.dimensions)
    encode = _base64 if body.encoding_format == "base64" else plain_numbers
    counts = {"prompt_tokens": read.result.prompt_tok, "total_tokens": read.result.prompt_tok}

    def written() -> bytes:
        data = [{"object": "embedding", "index": at, "embedding": encode(vector)} for at, vector in enumerate(vectors)]
        # The names as the client wrote them: some compare.
        return json.dumps({"object": "list", "data": data, "model": body.model, "usage": counts}).encode()

    many = len(vectors) * len(vectors[0]) * 4 > _MANY_BYTES
    return Response(await asyncio.to_thread(written) if many else written(), media_type="application/json")


def _inputs(given: str | list[int] | list[str | list[int]]) -> Sequence[str | Sequence[int]]:
    """Raises ApiError for an empty text, of which there is no vector."""
    inputs: list[Any] = [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)
    empty = next((at for at, text in enumerate(inputs) if not text), None)
    if empty is not None:
        raise ApiError(400, _("Input {number} is empty.").format(number=empty), code="invalid_request", param="input")
    return inputs


def _base64(vector: Sequence[float]) -> str:
    numbers = array("f", vector)
    if numbers.itemsize == 4 and array("H", [1]).tobytes() != b"\x01\x00":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


async def _rerank(call: Call) -> Response:
    body: RerankBody = call.body
    texts = [document if isinstance(document, str) else document.text for document in body.documents]
    read = await ranking_of(call, Wish(body.model, "rerank"), body.query, texts)
    scores = read.result.scores
    best = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[: body.top_n]
    answer = RerankAnswer(
        id=f"rerank-{secrets.token_hex(12)}",
        model=body.model,
        results=[
            RankedDocument(
                index=at,
                relevance_score=scores[at],
                document=RerankDocument(text=texts[at]) if body.return_documents else None,
            )
            for at in best
        ],
        usage=TokenCounts(prompt_tokens=read.result.prompt_tok, total_tokens=read.result.prompt_tok),
    )
    return JSONResponse(answer.model_dump(exclude_none=True))


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/v1/embeddings",
        handler=_embeddings,
        scope="infer",
        dialect="openai",
        summary="Vectors of texts.",
        body=EmbeddingsBody,
        answer=EmbeddingsAnswer,
        errors=MODEL_ERRORS,
    ),
    *(
        Endpoint(
            method="POST",
            path=path,
            handler=_rerank,
            scope="infer",
            dialect="openai",
            summary="How relevant documents are to a query.",
            body=RerankBody,
            answer=RerankAnswer,
            errors=MODEL_ERRORS,
        )
        for path in ("/v1/rerank", "/v2/rerank", "/rerank")
    ),
)

"""POST /api/embed and /api/embeddings: vectors of texts, as Ollama's clients ask for them."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.ollama_fields import KeepAlive, OllamaName, wish_for
from bendi.server.reading import LONGEST_INPUT, MOST_INPUTS, embeddings_of, plain_numbers, shortened

Text = Annotated[str, Field(max_length=LONGEST_INPUT)]


class OllamaEmbedRequest(BaseModel):
    """`input`: one text or several; without any, the model is loaded and nothing else. Nothing is ever cut, so
    `truncate` has no effect: a text that is too long is an error. Of `options`, `num_ctx` counts."""

    model: OllamaName
    input: Text | Annotated[list[Text], Field(max_length=MOST_INPUTS)] | None = None
    dimensions: int | None = Field(None, ge=0, le=65536)
    options: dict[str, Any] | None = None
    keep_alive: KeepAlive = None


class OllamaEmbedAnswer(BaseModel):
    """Durations in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbeddingsRequest(BaseModel):
    """The older of the two: one text."""

    model: OllamaName
    prompt: Text | None = None
    options: dict[str, Any] | None = None
    keep_alive: KeepAlive = None


class OllamaEmbeddingsAnswer(BaseModel):
    embedding: list[float]


async def _embed(call: Call) -> Response:
    body: OllamaEmbedRequest = call.body
    started_s = time.monotonic()
    inputs = [body.input] if isinstance(body.input, str) and body.input else list(body.input or ())
    read = await embeddings_of(call, wish_for(body.model, "embedding", body.options, body.keep_alive), inputs)

    def written() -> bytes:
        vectors = [plain_numbers(vector) for vector in shortened(read, body.dimensions or None)]
        counts = {
            "total_duration": _nanoseconds(time.monotonic() - started_s),
            "load_duration": _nanoseconds(read.load_s),
            "prompt_eval_count": read.result.prompt_tok,
        }
        return json.dumps({"model": body.model, "embeddings": vectors, **counts}).encode()

    return Response(await asyncio.to_thread(written), media_type="application/json")


async def _embeddings(call: Call) -> Response:
    body: OllamaEmbeddingsRequest = call.body
    inputs = [body.prompt] if body.prompt else []
    read = await embeddings_of(call, wish_for(body.model, "embedding", body.options, body.keep_alive), inputs)
    vector = plain_numbers(read.result.vectors[0]) if read.result.vectors else []
    return Response(json.dumps({"embedding": vector}), media_type="application/json")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/embed",
        handler=_embed,
        scope="infer",
        dialect="ollama",
        summary="Vectors of texts.",
        body=OllamaEmbedRequest,
        answer=OllamaEmbedAnswer,
        errors=MODEL_ERRORS,
    ),
    Endpoint(
        method="POST",
        path="/api/embeddings",
        handler=_embeddings,
        scope="infer",
        dialect="ollama",
        summary="The vector of one text.",
        body=OllamaEmbeddingsRequest,
        answer=OllamaEmbeddingsAnswer,
        errors=MODEL_ERRORS,
    ),
)

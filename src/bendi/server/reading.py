"""Asks a model that makes vectors or scores: leased, in a thread, stopped when the client goes away, counted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from starlette.requests import ClientDisconnect

from bendi.engines import Embedder, Embeddings, Engine, Ranking, Reranker
from bendi.errors import ContextOverflow, ModelFileError, NotFoundError, OutOfMemory, RequestRejected
from bendi.formats import GgufFile, read_gguf
from bendi.i18n import _
from bendi.messages import Cancellation, Usage
from bendi.server.api_errors import ApiError
from bendi.server.endpoint import Call
from bendi.server.pool import Lease, ModelPool, Wish
from bendi.server.pool_load import in_thread

MOST_INPUTS = 2048
"""Texts in one request, as in OpenAI's API."""
LONGEST_INPUT = 1_000_000
"""Characters of one text."""
_STEP_TOK = 256
_SHORTENABLE = (
    "qwen3-embedding", "embeddinggemma", "mxbai-embed-large", "snowflake-arctic-embed-m-v1.5",
    "snowflake-arctic-embed-m-v2.0", "snowflake-arctic-embed-l-v2.0", "jina-embeddings-v3", "jina-embeddings-v4",
)  # fmt: skip
"""Models whose first numbers are a vector, too, by their makers' model cards: they were trained for it (Matryoshka)."""

Result = TypeVar("Result", Embeddings, Ranking)


@dataclass(frozen=True)
class Read(Generic[Result]):
    """What a model made of what it read. `load_s`: how long it had to be waited for. `path`: of its file."""

    result: Result
    model: str
    load_s: float
    path: Path


async def embeddings_of(call: Call, wish: Wish, inputs: Sequence[str | Sequence[int]]) -> Read[Embeddings]:
    """One vector for each input. Raises as `ModelPool.lease` and `Embedder.vectors`; ClientDisconnect."""

    def ask(engine: Engine, cancel: Cancellation) -> Embeddings:
        if not isinstance(engine, Embedder):
            raise RequestRejected(_("This engine cannot make embeddings."))
        return engine.vectors(inputs, cancel)

    return await _read(call, wish, ask)


async def ranking_of(call: Call, wish: Wish, query: str, documents: Sequence[str]) -> Read[Ranking]:
    """A score for each document. Raises as `ModelPool.lease` and `Reranker.rerank`; ClientDisconnect."""

    def ask(engine: Engine, cancel: Cancellation) -> Ranking:
        if not isinstance(engine, Reranker):
            raise RequestRejected(_("This engine cannot rank documents."))
        return engine.rerank(query, documents, cancel)

    return await _read(call, wish, ask)


def shortened(read: Read[Embeddings], dimensions: int | None) -> list[list[float]]:
    """The first `dimensions` numbers of each vector, again of length 1. Raises ApiError 400 for models that were not
    trained for it: what is left would mean little."""
    vectors = read.result.vectors
    if dimensions is None or not vectors or dimensions == len(vectors[0]):
        return vectors
    whole = len(vectors[0])
    if dimensions > whole:
        raise _dimensions(_("The vectors of this model have {count} numbers.").format(count=whole))
    if not _trained_to_be_shortened(read.path):
        raise _dimensions(
            _("This model was not trained for shorter vectors; leave it out to get all {count} numbers.").format(
                count=whole
            )
        )
    return [_unit(vector[:dimensions]) for vector in vectors]


def plain_numbers(vector: Sequence[float]) -> list[float]:
    """With the nine digits that a 32-bit float has, and no more."""
    return [float(f"{number:.9g}") for number in vector]


async def _read(call: Call, wish: Wish, ask: Callable[[Engine, Cancellation], Result]) -> Read[Result]:
    cancel = Cancellation()
    work = asyncio.ensure_future(_leased(call, wish, ask, cancel))
    watch = asyncio.ensure_future(call.gone())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        watch.cancel()
        if not work.done():
            cancel.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work


async def _leased(
    call: Call, wish: Wish, ask: Callable[[Engine, Cancellation], Result], cancel: Cancellation
) -> Read[Result]:
    pool = call.services.pool
    lease = await pool.acquire(wish)
    waited_s = lease.load_s
    try:
        try:
            result = await in_thread(ask, lease.engine, cancel)
        except ContextOverflow as error:
            lease = await _grown(pool, lease, wish, error)
            waited_s += lease.load_s
            try:
                result = await in_thread(ask, lease.engine, cancel)
            except ContextOverflow as still:
                raise _refused(still) from still
        call.services.metrics.answered(lease.model, Usage(result.prompt_tok, 0))
        return Read(result, lease.model, waited_s, lease.engine.info.model_path)
    finally:
        lease.release()


async def _grown(pool: ModelPool, lease: Lease, wish: Wish, error: ContextOverflow) -> Lease:
    """The same model with a context that is long enough, or the refusal."""
    train_tok = lease.engine.info.train_context_tok
    if error.needed_tok > train_tok:
        raise _refused(error, _("This model takes {tok} tokens at most.").format(tok=train_tok)) from error
    wanted_tok = min(-(-error.needed_tok // _STEP_TOK) * _STEP_TOK, train_tok)
    try:
        longer = await pool.grow(lease, wish, wanted_tok)
    except OutOfMemory as no_room:
        raise _refused(error, no_room.message) from error
    if longer is None:
        why = _("Others use this model, so it could not be loaded again with a longer context.")
        raise _refused(error, why) from error
    return longer


def _refused(error: ContextOverflow, why: str = "") -> ContextOverflow:
    """`error` in words for clients of the server."""
    shorter = _("Split it into shorter texts.")
    hint = f"{why} {shorter}".strip()
    return ContextOverflow(error.message, hint=hint, needed_tok=error.needed_tok, available_tok=error.available_tok)


def _dimensions(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_request", param="dimensions")


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [x / length for x in vector] if length else list(vector)


def _trained_to_be_shortened(path: Path) -> bool:
    try:
        return says_it_can_be_shortened(read_gguf(path))
    except (ModelFileError, NotFoundError, OSError):
        return False


def says_it_can_be_shortened(gguf: GgufFile) -> bool:
    """By its tags, or by its name where its makers say so."""
    tags = gguf.array("general.tags")
    if tags is not None and any("matryoshka" in str(tag).lower() for tag in tags.values or ()):
        return True
    names = [gguf.text(f"general.{key}") for key in ("name", "basename")]
    plain = ["-".join(name.lower().replace("_", "-").split()) for name in names if name]
    return any(known in name for known in _SHORTENABLE for name in plain)

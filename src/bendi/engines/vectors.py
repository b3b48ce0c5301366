"""Vectors and scores over llama-server's HTTP: inputs to JSON, answers to numbers."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bendi.engines import transport
from bendi.engines.protocol import Embeddings, Ranking
from bendi.engines.transport import Address, WorkerGone, WorkerRefused
from bendi.errors import ContextOverflow, EngineError, RequestRejected
from bendi.i18n import _
from bendi.messages import Cancellation


@dataclass(frozen=True)
class VectorCalls:
    """Asks a worker that was loaded to make vectors or scores. `pooling`: as it was loaded. `probabilities`: its scores
    are between 0 and 1 already. `fail`: raises what went wrong, in our words."""

    address: Address
    context_tok: int
    train_context_tok: int
    pooling: str
    probabilities: bool
    fail: Callable[[WorkerGone | WorkerRefused], NoReturn]

    def embeddings(self, inputs: Sequence[str | Sequence[int]], cancel: Cancellation) -> Embeddings:
        """As `Embedder.vectors`."""
        if self.pooling in ("", "rank"):
            raise RequestRejected(
                _("The model was not loaded to make embeddings."), hint=_("Load it with embeddings=True.")
            )
        if not inputs:
            return Embeddings([], 0)
        body = {
            "input": [text if isinstance(text, str) else list(text) for text in inputs],
            # Floats as text are larger, slower to read, and rounded.
            "encoding_format": "base64",
        }
        answer = self._computed("/v1/embeddings", body, cancel, lambda: max(self._length(text) for text in inputs))
        if answer is None:
            return Embeddings([], 0)
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        return Embeddings([_vector(row["embedding"]) for row in rows], int(answer["usage"]["prompt_tokens"]))

    def ranking(self, query: str, documents: Sequence[str], cancel: Cancellation) -> Ranking:
        """As `Reranker.rerank`."""
        if self.pooling != "rank":
            raise RequestRejected(
                _("The model was not loaded to rank documents."), hint=_("Load it with reranking=True.")
            )
        if not documents:
            return Ranking([], 0)
        body = {"query": query, "documents": list(documents)}
        answer = self._computed("/v1/rerank", body, cancel, lambda: self._longest_pair(query, documents))
        if answer is None:
            return Ranking([], 0)
        rows = sorted(answer["results"], key=lambda row: int(row["index"]))
        scores = [self._relevance(float(row["relevance_score"])) for row in rows]
        return Ranking(scores, int(answer["usage"]["prompt_tokens"]))

    def _relevance(self, score: float) -> float:
        if not math.isfinite(score):
            raise _not_numbers()
        return score if self.probabilities else sigmoid(score)

    def _computed(
        self, path: str, body: object, cancel: Cancellation, longest: Callable[[], int]
    ) -> dict[str, Any] | None:
        """The worker's answer; None when cancelled. `longest`: tokens of the longest input, asked only after a refusal,
        for llama-server does not always say that this was the reason."""
        try:
            return transport.call(self.address, path, body, timeout_s=None, cancel=cancel)
        except WorkerGone as error:
            if cancel.cancelled:
                return None
            self.fail(error)
        except WorkerRefused as error:
            try:
                needed_tok = longest()
            except WorkerRefused:
                needed_tok = 0
            if needed_tok > self.context_tok:
                raise input_too_long(needed_tok, self.context_tok, self.train_context_tok) from error
            self.fail(error)

    def _length(self, text: str | Sequence[int]) -> int:
        if not isinstance(text, str):
            return len(text)
        body = {"content": text, "add_special": True, "parse_special": True}
        return len(transport.call(self.address, "/tokenize", body)["tokens"])

    def _longest_pair(self, query: str, documents: Sequence[str]) -> int:
        """What the model sees of nothing at all is what it sees around a query and a document."""
        nothing = transport.call(self.address, "/v1/rerank", {"query": "", "documents": [""]})
        around_tok = int(nothing["usage"]["prompt_tokens"])
        special_tok = self._length("")
        longest = max(self._length(document) for document in documents)
        return around_tok + self._length(query) + longest - 2 * special_tok


def input_too_long(needed_tok: int, available_tok: int, train_context_tok: int) -> ContextOverflow:
    """The error for an input of `needed_tok` tokens where one may have `available_tok`."""
    if needed_tok <= train_context_tok:
        hint = _("Load the model with a larger context (--context {wanted}), or split the text.")
    else:
        hint = _("This model takes {train} tokens at most: split the text.")
    return ContextOverflow(
        _("An input is too large: it has {needed} tokens, but the context holds {available}; nothing was cut.").format(
            needed=needed_tok, available=available_tok
        ),
        hint=hint.format(wanted=-(-needed_tok // 256) * 256, train=train_context_tok),
        needed_tok=needed_tok,
        available_tok=available_tok,
    )


def sigmoid(log_odds: float) -> float:
    """The probability that belongs to `log_odds`."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    odds = math.exp(log_odds)
    return odds / (1 + odds)


def _vector(encoded: str) -> list[float]:
    numbers = array("f")
    numbers.frombytes(base64.b64decode(encoded))
    vector = numbers.tolist()
    if not math.isfinite(math.fsum(vector)):
        raise _not_numbers()
    return vector


def _not_numbers() -> EngineError:
    return EngineError(
        _("The engine computed something that is not a number."),
        hint=_("Check the file with `bendi verify`; if it is good, `bendi doctor` has what a report needs."),
    )

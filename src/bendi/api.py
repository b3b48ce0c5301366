"""bendi from Python: load a model, talk to it, let it go.

import bendi

with bendi.load("demo") as model:
    for chunk in model.chat("What is quantization?"):
        print(chunk.text, end="")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from bendi.engines import Embedder, Engine, EngineInfo, LoadRequest, Tokenizer, open_recorded_engine
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.messages import Cancellation, Chunk, GenerateRequest, Message, Sampling
from bendi.settings import load_settings
from bendi.store import Store

Turn = Message | Mapping[str, Any]


class Model:
    """A loaded model. A context manager: leaving it frees the memory. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    def chat(
        self,
        messages: str | Sequence[Turn],
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        cancel: Cancellation | None = None,
        **options: Any,
    ) -> Iterator[Chunk]:
        """The answer to a conversation, chunk by chunk; the last chunk has usage and timings.

        `messages`: one question, or turns as `Message` or as `{"role": ..., "content": ...}`. `options`: further
        fields of `GenerateRequest` (`stop`, `json_schema`, `tools`, `tool_choice`, `template_options`).

        Raises ContextOverflow when the conversation does not fit: nothing is ever cut.
        """
        turns = [Message("user", messages)] if isinstance(messages, str) else [_message(turn) for turn in messages]
        if not turns:
            raise UsageError(_("There is no message to answer."), hint=_("Pass at least one user message."))
        request = GenerateRequest(
            messages=tuple(turns), max_tokens=max_tokens, sampling=sampling or Sampling(), **options
        )
        return self._engine.generate(request, cancel)

    def complete(
        self, prompt: str, *, max_tokens: int | None = None, sampling: Sampling | None = None, **options: Any
    ) -> Iterator[Chunk]:
        """Continues `prompt` as it is, without the chat template."""
        request = GenerateRequest(prompt=prompt, max_tokens=max_tokens, sampling=sampling or Sampling(), **options)
        return self._engine.generate(request)

    def count_tokens(self, messages: str | Sequence[Turn]) -> int:
        """Tokens of a text, or of a conversation with its template."""
        if not isinstance(self._engine, Tokenizer):
            raise UsageError(_("This engine cannot count tokens."))
        if isinstance(messages, str):
            return len(self._engine.tokenize(messages))
        return self._engine.count_tokens([_message(turn) for turn in messages])

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One L2-normalised vector per text; the model must be loaded with `embeddings=True`."""
        if not isinstance(self._engine, Embedder):
            raise UsageError(_("This engine cannot make embeddings."))
        return self._engine.embed(texts)

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(name: str, *, context_tok: int | None = None, threads: int | None = None, embeddings: bool = False) -> Model:
    """Loads a model by any name that `bendi run` takes: `"demo"`, an alias, `hf:org/repo:Q4_K_M`, a path.

    The model must be on this machine (NotFoundError has the `bendi pull` command); nothing is downloaded. Raises
    ModelFileError, OutOfMemory or EngineError when it cannot be loaded.
    """
    settings = load_settings()
    request = LoadRequest(
        model_path=Store(settings).resolve(name).path,
        context_tok=context_tok or settings.context_tok,
        threads=threads or settings.threads,
        embeddings=embeddings,
        memory_limit_bytes=settings.worker_memory_bytes,
    )
    return Model(open_recorded_engine(request, settings, name=name))


def _message(turn: Turn) -> Message:
    if isinstance(turn, Message):
        return turn
    try:
        return Message(**turn)
    except TypeError as error:
        raise UsageError(
            _("A message cannot be used: {error}").format(error=error),
            hint=_("A message has a role (system, user, assistant) and a content."),
        ) from error

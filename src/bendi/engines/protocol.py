"""What an engine is: one small protocol, and separate protocols for what only some engines can do.

An engine holds one loaded model. `generate` is synchronous; whoever needs concurrency calls it from threads (an
engine accepts concurrent calls and may queue them). Abilities beyond it are protocols of their own, tested with
`isinstance`: there are no flags and no methods that only raise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from bendi.engines.load_report import LoadReport
from bendi.messages import Cancellation, Chunk, GenerateRequest, Message

Pooling = Literal["mean", "cls", "last"]
"""How the vectors of an input's tokens become one: their mean, that of the first token, that of the last."""
KV_TYPES = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "bf16", "f32")


@dataclass(frozen=True)
class LoadRequest:
    """What to load and how. `context_tok`: None means the model's training context, within the memory budget.

    `memory_limit_bytes`: bound of the worker's private memory; weights mapped from the file do not count.
    `load_timeout_s`: a load that takes longer is ended with an error. `type_k`, `type_v`: how keys and values are kept
    in the KV cache, one of KV_TYPES. `state_dir`: a folder, made if need be, where states of conversations can be saved
    (see StatefulEngine). `threads`: for generation, and for prompts unless `prompt_threads` says otherwise.
    `flash_attention`: None for wherever it works. `batch_tok`: tokens of a prompt that are computed at once. `repack`:
    False where the engine must not keep its own copy of the weights; None where it may if there is room.
    `embeddings`, `reranking`: the model is to make vectors or scores instead of text (see Embedder, Reranker);
    `context_tok` then bounds one input. `pooling`: of embeddings; None for what the model's header says, and the mean
    where it says nothing. `mmproj_path`: the projector of a model that sees images, None for a load that does not.
    `speculate`: tokens are guessed from what followed the same words before, and checked several at a time: the same
    text but for rounding, sooner where an answer repeats much of its prompt; log-probabilities cannot be had then.
    `keep_to_cores`: threads run on one logical CPU of each physical core only, the fast cores first; `spread_numa`:
    over all NUMA nodes evenly.
    """

    model_path: Path
    context_tok: int | None = None
    threads: int | None = None
    parallel: int = 1
    embeddings: bool = False
    reranking: bool = False
    pooling: Pooling | None = None
    mmproj_path: Path | None = None
    memory_limit_bytes: int | None = None
    load_timeout_s: float = 600.0
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attention: bool | None = None
    prompt_threads: int | None = None
    batch_tok: int | None = None
    repack: bool | None = None
    state_dir: Path | None = None
    speculate: bool = False
    keep_to_cores: bool = False
    spread_numa: bool = False


@dataclass(frozen=True)
class EngineInfo:
    """Facts about a loaded model, as the engine reports them.

    `context_tok`: tokens that one conversation can hold. `train_context_tok`: what the model was trained for. `slots`:
    how many conversations it holds at a time. `details`: what else a bug report needs, by name. `buffers`: the sizes
    that the engine reported; None where it did not.
    """

    engine: str
    build: str
    model_path: Path
    context_tok: int
    train_context_tok: int
    load_s: float
    has_chat_template: bool = True
    slots: int = 1
    details: dict[str, str] = field(default_factory=dict)
    buffers: LoadReport | None = None


@runtime_checkable
class Engine(Protocol):
    """One loaded model.

    `generate` yields chunks; the last one has `finish`, `usage` and `timings`. Closing the iterator, or calling
    `cancel.cancel()` from any thread, stops the computation within 200 ms, also during prompt processing; after
    `cancel` the iterator ends with a chunk whose `finish` is `"cancelled"`.

    Raises ContextOverflow before anything is computed when the prompt does not fit; RequestRejected when the engine
    refuses the request; EngineCrashed when the worker dies, after which every further call raises it too.
    """

    @property
    def info(self) -> EngineInfo: ...

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]: ...

    def close(self) -> None:
        """Frees the model. Closing twice is harmless; a running answer ends with EngineCrashed."""


class Taker(Protocol):
    """Who gets an answer piece by piece, in the event loop."""

    def take(self, chunks: Sequence[Chunk]) -> None:
        """The next chunks, those together that arrived together."""

    def ended(self, error: BaseException | None) -> None:
        """Called once, after the last chunk, or with what `Engine.generate` would have raised."""


class Flow(Protocol):
    """Makes what arrives wait, and go on."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class LoopAnswers(Protocol):
    """Answers for an event loop."""

    async def begin(self, request: GenerateRequest, cancel: Cancellation, taker: Taker) -> Flow:
        """Asks for the chunks of `Engine.generate`; `taker` gets them. Raises RequestRejected for what the model cannot
        do, and `taker` then hears nothing. `cancel` may be used from any thread."""


@runtime_checkable
class AnswersInLoop(Protocol):
    """Engines whose answers need no thread."""

    @property
    def answers(self) -> LoopAnswers: ...


@runtime_checkable
class Tokenizer(Protocol):
    """Engines that can say how many tokens a text or a conversation takes, exactly."""

    def tokenize(self, text: str, *, special: bool = False) -> list[int]: ...

    def count_tokens(self, messages: Sequence[Message], request: GenerateRequest | None = None) -> int:
        """Prompt tokens of `messages` after the chat template, as `generate` would send them.

        `request` supplies tools and template options when they matter.
        """


class TokenReader(Protocol):
    """From texts to tokens and back. `special`: control tokens in the text are read as such. `whole`: with the tokens
    that the model wants at the beginning or the end of a text. Raises EngineCrashed."""

    def tokenize(self, text: str, *, special: bool = False, whole: bool = False) -> list[int]: ...

    def pieces(self, text: str, *, special: bool = False, whole: bool = False) -> list[tuple[int, bytes]]:
        """As `tokenize`, each token with its bytes, which need not be whole characters."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """What they say; RequestRejected for one that the model does not have."""


@runtime_checkable
class HasTokens(Protocol):
    """Engines whose tokens can be read."""

    @property
    def tokens(self) -> TokenReader: ...


@dataclass(frozen=True)
class Embeddings:
    """One L2-normalised vector for each input, in their order. `prompt_tok`: tokens of all inputs."""

    vectors: list[list[float]]
    prompt_tok: int


@runtime_checkable
class Embedder(Protocol):
    """Engines loaded with `embeddings=True`."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, L2-normalised. Raises as `vectors`."""

    def vectors(self, inputs: Sequence[str | Sequence[int]], cancel: Cancellation | None = None) -> Embeddings:
        """One vector per input, a text or token numbers that are taken as they are. None at all after `cancel`, which
        stops the computation.

        Raises ContextOverflow when an input is longer than the context: nothing is ever cut; RequestRejected for one
        that is empty or has tokens that the model does not have; EngineCrashed.
        """


@dataclass(frozen=True)
class Ranking:
    """How relevant each document is to the query, in their order, from 0 to 1. `prompt_tok`: tokens of all pairs."""

    scores: list[float]
    prompt_tok: int


@runtime_checkable
class Reranker(Protocol):
    """Engines loaded with `reranking=True`."""

    def rerank(self, query: str, documents: Sequence[str], cancel: Cancellation | None = None) -> Ranking:
        """Reads the query together with each document. No scores at all after `cancel`, which stops the computation.
        Raises ContextOverflow when the query and a document are together longer than the context, and EngineCrashed.
        """


@dataclass(frozen=True)
class StateInfo:
    """A state on disk. `cached_tok`: tokens that need not be computed again. `took_s`: to save or to restore it."""

    name: str
    cached_tok: int
    size_bytes: int
    took_s: float


@runtime_checkable
class StatefulEngine(Protocol):
    """Engines loaded with `state_dir`: they can keep what they have computed of a conversation.

    `name`: 1 to 100 letters, digits, `_` and `-`. `slot`: which of as many conversations as the engine was loaded for
    (`parallel`), from 0, else ValueError; the engine puts a request where most of its prompt is already. Both wait for
    an answer that runs there, and raise StateUnusable, with a `reason` for programs, when it cannot be done or must not
    be; then nothing is lost but the time to compute it again.
    """

    def save_state(self, name: str, slot: int = 0) -> StateInfo:
        """Keeps what the engine holds there now: the prompt and the answer of its last request. Replaces a state of
        that name. Also raises EngineCrashed."""

    def restore_state(self, name: str, slot: int = 0) -> StateInfo:
        """Makes the engine hold it again; the next request computes only what does not begin as the saved one did.
        What it held before may be gone even if this fails. Also raises EngineCrashed."""


class Worker(Protocol):
    """The process that an engine runs in."""

    @property
    def alive(self) -> bool: ...

    def resident_bytes(self) -> int:
        """Memory in use, including mapped weights; 0 where the system does not say."""

    def private_bytes(self) -> int:
        """Of that, what is not mapped from files; 0 where the system does not say."""


@runtime_checkable
class HostedEngine(Protocol):
    """Engines in a process of their own."""

    @property
    def worker(self) -> Worker: ...


class Observer(Protocol):
    """Who is told of the answers of an engine. Nothing may be raised, and nothing but `keep` and `close` waits."""

    def begin(self) -> int:
        """An answer begins. Returns what `end` needs."""

    def end(self, ticket: int, last: Chunk | None) -> None:
        """It has ended. `last`: its last chunk; None when it failed or was cancelled."""

    def keep(self) -> None:
        """Writes down what is known of the answers that have ended, which takes a moment."""

    def close(self) -> None:
        """The engine was closed: as `keep`. Closing twice is harmless."""

"""An engine that speaks llama-server's HTTP to its worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bendi.engines import transport
from bendi.engines.kv_state import KvStates
from bendi.engines.llama_answers import Able, Answers, check_images, prompt_fields
from bendi.engines.load_report import LAST_LINE, read_load_report
from bendi.engines.pooling import scores_are_probabilities
from bendi.engines.prepare import Prepared
from bendi.engines.process import WorkerProcess
from bendi.engines.protocol import Embeddings, EngineInfo, LoadRequest, Observer, Ranking, StateInfo
from bendi.engines.tokens import TokenCalls
from bendi.engines.transport import Address, WorkerGone, WorkerRefused
from bendi.engines.vectors import VectorCalls
from bendi.engines.worker_errors import WorkerErrors
from bendi.messages import Cancellation, Chunk, GenerateRequest, Message


class LlamaServerEngine:
    """Engine, AnswersInLoop, Tokenizer, HasTokens and (when loaded for it) Embedder, Reranker and StatefulEngine over a
    worker that is ready.

    `prepared`: what it was loaded from. `worker`: its process. Nothing that it holds knows it: what knows each other is
    not let go before the next collection of garbage, which a server rarely has.
    """

    def __init__(self, worker: WorkerProcess, load: LoadRequest, ready: Mapping[str, Any], prepared: Prepared) -> None:
        assert worker.address
        self.prepared = prepared
        self.worker = worker
        self._address = worker.address
        self._errors = WorkerErrors(worker)
        properties = self._call("/props")
        self._sees = bool(properties.get("modalities", {}).get("vision"))
        able = Able(
            writes=prepared.writes_text,
            takes_tools=bool(properties.get("chat_template_caps", {}).get("supports_tools")),
            sees=self._sees,
            remembers_images=bool(ready.get("remembers_images", True)),
            guesses=load.speculate,
            vocab_size=prepared.info.vocab_size,
        )
        self.answers = Answers(self._address, able, self._errors)
        models = self._call("/v1/models")
        facts = models["data"][0].get("meta") or {}
        self._info = EngineInfo(
            engine="llama.cpp",
            build=str(ready["build"]),
            model_path=load.model_path,
            context_tok=int(properties["default_generation_settings"]["n_ctx"]),
            train_context_tok=int(facts.get("n_ctx_train", 0)),
            load_s=float(ready["load_s"]),
            has_chat_template=prepared.info.chat_template is not None,
            slots=prepared.setup.parallel,
            details={"sandbox": str(ready["sandbox"]), "pid": str(worker.pid)},
            buffers=read_load_report(worker.log_until(LAST_LINE)),
        )
        self._errors.train_context_tok = self._info.train_context_tok
        self._states = KvStates(load, prepared, ready, worker.state_folder)
        self.tokens = TokenCalls(self._address, prepared.info.vocab_size, self._errors.fail)
        self._vectors = VectorCalls(
            self._address,
            self._info.context_tok,
            self._info.train_context_tok,
            prepared.pooling,
            scores_are_probabilities(prepared.headers),
            self._errors.fail,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def observe(self, observer: Observer) -> None:
        """It is told of all answers from now on."""
        self.answers.observer = observer

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        return self.answers.generate(request, cancel or Cancellation())

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return self.tokens.tokenize(text, special=special)

    def count_tokens(self, messages: Sequence[Message], request: GenerateRequest | None = None) -> int:
        wanted = replace(request or GenerateRequest(), messages=tuple(messages))
        check_images(wanted, self._sees)
        body = prompt_fields(messages, wanted)
        return int(self._call("/v1/chat/completions/input_tokens", body)["input_tokens"])

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return self.vectors(texts).vectors

    def vectors(self, inputs: Sequence[str | Sequence[int]], cancel: Cancellation | None = None) -> Embeddings:
        return self._vectors.embeddings(inputs, cancel or Cancellation())

    def rerank(self, query: str, documents: Sequence[str], cancel: Cancellation | None = None) -> Ranking:
        return self._vectors.ranking(query, documents, cancel or Cancellation())

    def next_token(self, prompt: Sequence[int], size: int, timeout_s: float = 60.0) -> tuple[dict[int, float], int]:
        """Log-probabilities of all tokens of a vocabulary of `size` after `prompt`, by number; and how many of the
        prompt's tokens had to be computed for it. Raises EngineError, also when it takes too long."""
        body = {
            "prompt": list(prompt), "n_predict": 1, "n_probs": size, "temperature": 0.0, "cache_prompt": True,
            # The probabilities are those before any sampling, but are sent only with a token that is a whole
            # character: the last one, rather than a byte.
            "logit_bias": [[size - 1, 1000.0]],
        }  # fmt: skip
        answer = self._call("/completion", body, timeout_s)
        (first,) = answer["completion_probabilities"]
        found = {int(row["id"]): float(row["logprob"]) for row in first["top_logprobs"]}
        return found, int(answer["timings"]["prompt_n"])

    def save_state(self, name: str, slot: int = 0) -> StateInfo:
        _check_slot(slot, self._info.slots)

        def write(file_name: str) -> tuple[int, int]:
            answer = _slot_action(self._address, slot, "save", file_name)
            return int(answer["n_saved"]), int(answer["n_written"])

        try:
            return self._states.save(name, write)
        except WorkerGone as error:
            self._errors.fail(error)

    def restore_state(self, name: str, slot: int = 0) -> StateInfo:
        _check_slot(slot, self._info.slots)

        def read(file_name: str) -> int:
            return int(_slot_action(self._address, slot, "restore", file_name)["n_restored"])

        try:
            return self._states.restore(name, read)
        except WorkerGone as error:
            self._errors.fail(error)

    def close(self) -> None:
        self._errors.unloaded = True
        self.worker.close()
        if self.answers.observer:
            self.answers.observer.close()

    def _call(self, path: str, body: object = None, timeout_s: float | None = 60.0) -> dict[str, Any]:
        try:
            return transport.call(self._address, path, body, timeout_s)
        except (WorkerGone, WorkerRefused) as error:
            self._errors.fail(error)


def _check_slot(slot: int, slots: int) -> None:
    """The server takes any number, and counts on from the first slot after the last."""
    if not 0 <= slot < slots:
        raise ValueError(f"slot {slot} of {slots}")


def _slot_action(address: Address, slot: int, action: str, file_name: str) -> dict[str, Any]:
    return transport.call(address, f"/slots/{slot}?action={action}", {"filename": file_name}, timeout_s=None)

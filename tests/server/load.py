"""Clients that stream answers of the built-in model again and again while something happens to the server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

QUESTIONS = ("What is a KV cache?", "What is quantization?", "What is MoE?")
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Heard:
    """One streamed answer. `finish`: why it ended; empty for one without an end. `error`: what came instead of it."""

    text: str
    finish: str = ""
    error: str = ""


def asked(model: str, question: str, **fields: Any) -> dict[str, Any]:
    """The body of a request for a streamed answer, the same at every time."""
    message = {"role": "user", "content": question}
    return {"model": model, "messages": [message], "stream": True, "temperature": 0} | fields


def pieces(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer, `[DONE]` left out."""
    assert answer.status_code == 200, answer.read()
    for line in answer.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def hear(client: httpx.Client, body: dict[str, Any]) -> Heard:
    """A whole answer."""
    text, finish, error = "", "", ""
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        for piece in pieces(answer):
            error = str(piece["error"]["code"]) if "error" in piece else error
            for choice in piece.get("choices", ()):
                text += choice["delta"].get("content") or ""
                finish = choice["finish_reason"] or finish
    return Heard(text, finish, error)


class Load:
    """While inside, each of `questions` is asked by a client of its own, again as soon as it was answered. Leaving
    checks that every answer was complete and the same as before anything happened."""

    def __init__(self, url: str, questions: Sequence[str] = QUESTIONS, pause_s: float = 0.0) -> None:
        self._url, self._pause_s = url, pause_s
        self._heard: dict[str, list[Heard]] = {question: [] for question in questions}
        self._failures: list[str] = []
        self._stop = threading.Event()
        self._news = threading.Condition()
        with self._client() as client:
            self._expected = {question: hear(client, asked("demo", question)) for question in questions}
        assert all(heard.text and heard.finish == "stop" for heard in self._expected.values()), self._expected
        self._threads = [threading.Thread(target=self._ask, args=(question,)) for question in questions]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        if kind is None:
            self._check()

    def more(self, answers: int = 1) -> None:
        """Waits until every client has heard so many more answers, from the first word to the last."""
        with self._news:
            # The answer that is being heard now had begun before.
            wanted = {question: len(heard) + answers + 1 for question, heard in self._heard.items()}
            until_s = time.monotonic() + _PATIENCE_S
            while any(len(self._heard[question]) < count for question, count in wanted.items()):
                assert not self._failures, self._failures
                assert self._news.wait(max(until_s - time.monotonic(), 0.0)), "the clients wait in vain"

    @property
    def answers(self) -> int:
        return sum(len(heard) for heard in self._heard.values())

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=_PATIENCE_S, trust_env=False)

    def _ask(self, question: str) -> None:
        with self._client() as client:
            while not self._stop.is_set():
                try:
                    heard = hear(client, asked("demo", question))
                except Exception as error:
                    with self._news:
                        self._failures.append(repr(error))
                        self._news.notify_all()
                    return
                with self._news:
                    self._heard[question].append(heard)
                    self._news.notify_all()
                self._stop.wait(self._pause_s)

    def _check(self) -> None:
        assert not self._failures, self._failures
        for question, heard in self._heard.items():
            different = [one for one in heard if one != self._expected[question]]
            assert not different, (question, self._expected[question], different[0], len(different), len(heard))

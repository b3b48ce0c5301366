"""Libraries in interpreters of their own: what is said between them and bendi, with a script that needs no library."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from peer_stand_ins import wait_until_gone

from bendi.engines import peer_outside
from bendi.engines.peer_open import open_peer
from bendi.engines.peer_outside import SCRIPTS, OutsideEngine, has_module
from bendi.engines.peer_types import PeerEngine, PeerLoad, PeerSpec, PeerUsage
from bendi.engines.protocol import HostedEngine
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, NotFoundError, RequestRejected, UsageError
from bendi.messages import Cancellation, GenerateRequest, Message, Sampling
from bendi.settings import load_settings

# Counts instead of computing: after a prompt come its length and the numbers after it.
SCRIPT = f"""\
import os, sys, time
sys.path.insert(0, {str(SCRIPTS)!r})
from lines import Refused, Words, serve

def load(given):
    if given["model"].endswith("broken"):
        raise ValueError("no such format")
    if given["model"].endswith("slow"):
        time.sleep(60)
    print("a library greets")
    sys.stderr.write("loaded\\n")

    def answer(request, lines):
        prompt = request["prompt"]
        if prompt == "refuse":
            raise Refused("not that")
        if prompt == "die":
            sys.exit("a library failed")
        if prompt == "nonsense":
            return {{"finish": "because", "usage": {{}}}}
        if prompt == "silence":
            time.sleep(60)
        count = 0
        while count != request["max_tokens"] and not lines.cancelled:
            count += 1
            lines.say({{"text": f"{{len(prompt or request['messages'])}}+{{count}} "}})
            time.sleep(0.001)
        finish = "cancelled" if lines.cancelled else "length"
        usage = {{"prompt_tok": 3, "completion_tok": count, "cached_tok": 1 if prompt else None}}
        return {{"finish": finish, "usage": usage, "timings": {{"pp_tok_s": 5.0, "tg_tok_s": 2.0}}}}

    said = {{"threads": 2, "dtype": "float32"}}
    return {{"version": "1.2", "context_tok": 64, "said": said, "details": {{"pid": os.getpid()}}}}, answer

serve(load)
"""
ASK = GenerateRequest(prompt="abc", max_tokens=3)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "ask.py"
    script.write_text(SCRIPT)
    return [sys.executable, "-B", str(script)]


@pytest.fixture
def engine(command: list[str]) -> Iterator[OutsideEngine]:
    load = PeerLoad(Path("m"), settings={"threads": 2, "dtype": "bfloat16", "device": "cpu"}, silence_s=5.0)
    with closing(OutsideEngine("some library", command, load)) as opened:
        yield opened


def test_it_is_what_it_says(engine: OutsideEngine) -> None:
    assert isinstance(engine, PeerEngine) and isinstance(engine, HostedEngine)
    assert (engine.info.engine, engine.info.build, engine.info.context_tok) == ("some library", "1.2", 64)
    assert engine.verified.confirmed == {"threads": 2} and engine.verified.differing == {"dtype": "float32"}
    assert engine.verified.unconfirmed == ("device",) and engine.info.load_s > 0
    assert engine.pids == (int(engine.info.details["pid"]),)


def test_answers_come_token_by_token(engine: OutsideEngine) -> None:
    *texts, last = engine.generate(ASK)
    assert [chunk.text for chunk in texts] == ["3+1 ", "3+2 ", "3+3 "]
    assert last.finish == "length" and last.usage == PeerUsage(3, 3, 1, cached_known=True)
    assert last.timings and (last.timings.pp_tok_s, last.timings.tg_tok_s) == (5.0, 2.0) and last.timings.ttft_s
    assert "".join(chunk.text for chunk in engine.generate(replace(ASK, prompt=(7, 8), max_tokens=1))) == "2+1 "
    chat = GenerateRequest(messages=(Message("user", "Hi"),), max_tokens=1)
    *texts, last = engine.generate(chat)
    assert texts[0].text == "1+1 " and last.usage == PeerUsage(3, 1, 0, cached_known=False)


def test_it_can_be_cancelled_and_asked_again(engine: OutsideEngine) -> None:
    for _ in range(5):
        cancel, chunks = Cancellation(), []
        for chunk in engine.generate(replace(ASK, max_tokens=2000), cancel):
            chunks.append(chunk)
            if len(chunks) == 3:
                threading.Thread(target=cancel.cancel).start()
        assert chunks[-1].finish == "cancelled" and len(chunks) < 2000
        assert len(list(engine.generate(ASK))) == 4
    stopped = Cancellation()
    stopped.cancel()
    (only,) = engine.generate(replace(ASK, max_tokens=2000), stopped)
    assert only.finish == "cancelled"


def test_an_answer_that_nobody_reads_is_stopped(engine: OutsideEngine) -> None:
    answer = engine.generate(replace(ASK, max_tokens=None))
    assert next(answer).text == "3+1 "
    answer.close()  # type: ignore[attr-defined]
    assert [chunk.text for chunk in engine.generate(ASK)] == ["3+1 ", "3+2 ", "3+3 ", ""]


def test_answers_wait_for_one_another(engine: OutsideEngine) -> None:
    found: list[str] = []

    def ask(text: str) -> None:
        found.append("".join(chunk.text for chunk in engine.generate(replace(ASK, prompt=text, max_tokens=50))))

    threads = [threading.Thread(target=ask, args=("x" * size,)) for size in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {"".join(f"{size}+{count} " for count in range(1, 51)) for size in range(1, 5)}
    assert set(found) == expected


def test_a_request_that_is_refused(engine: OutsideEngine) -> None:
    with pytest.raises(RequestRejected) as caught:
        list(engine.generate(replace(ASK, prompt="refuse")))
    assert "not that" in caught.value.message
    assert len(list(engine.generate(ASK))) == 4


def test_its_death_is_explained(engine: OutsideEngine) -> None:
    for _ in range(2):
        with pytest.raises(EngineCrashed) as caught:
            list(engine.generate(replace(ASK, prompt="die")))
        assert "a library failed" in caught.value.message


def test_an_end_that_is_none(engine: OutsideEngine) -> None:
    with pytest.raises(EngineError) as caught:
        list(engine.generate(replace(ASK, prompt="nonsense")))
    assert "because" in caught.value.message


def test_silence_is_an_error(command: list[str]) -> None:
    with closing(OutsideEngine("some library", command, PeerLoad(Path("m"), silence_s=0.2))) as engine:
        with pytest.raises(EngineError) as caught:
            list(engine.generate(replace(ASK, prompt="silence")))
        assert "nothing" in caught.value.message
        wait_until_gone(engine.pids[0])


def test_closing_ends_it(engine: OutsideEngine) -> None:
    running = engine.generate(replace(ASK, max_tokens=None))
    next(running)
    engine.close()
    engine.close()
    wait_until_gone(engine.pids[0])
    with pytest.raises(EngineCrashed):
        list(running)
    with pytest.raises(EngineCrashed):
        list(engine.generate(ASK))


def test_models_that_cannot_be_loaded(command: list[str], tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        OutsideEngine("some library", command, PeerLoad(Path("broken")))
    assert "ValueError: no such format" in caught.value.message
    with pytest.raises(EngineError) as caught:
        OutsideEngine("some library", command, PeerLoad(Path("slow"), load_timeout_s=0.5))
    with pytest.raises(EngineUnsupported):
        OutsideEngine("some library", [str(tmp_path / "none")], PeerLoad(Path("m")))


def test_interpreters_without_the_library(tmp_path: Path, clean_environment: Path) -> None:
    settings = load_settings()
    assert has_module(Path(sys.executable), "json") and not has_module(Path(sys.executable), "no_such_module")
    assert not has_module(tmp_path / "python", "json")
    for kind, module in peer_outside.MODULES.items():
        if not has_module(Path(sys.executable), module):
            with pytest.raises(EngineUnsupported) as caught:
                open_peer(PeerSpec(kind, program=sys.executable), PeerLoad(tmp_path), settings)
            assert module in caught.value.message


def test_settings_and_models_are_checked_first(
    tmp_path: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(peer_outside.MODULES, "transformers", "json")
    spec = PeerSpec("transformers", program=sys.executable)
    with pytest.raises(UsageError) as caught:
        open_peer(spec, PeerLoad(tmp_path, settings={"type_k": "q8_0"}), load_settings())
    assert "type_k" in caught.value.message
    with pytest.raises(NotFoundError):
        open_peer(spec, PeerLoad(tmp_path / "none"), load_settings())


@pytest.fixture(scope="module")
def lines() -> ModuleType:
    spec = importlib.util.spec_from_file_location("outside_lines", SCRIPTS / "lines.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tokens_become_text(lines: ModuleType) -> None:
    text = "Die Größe von 北京, €5 🙂."
    pieces = [bytes([byte]) for byte in text.encode()]

    def decode(tokens: list[int]) -> str:
        return b"".join(pieces[token] for token in tokens).decode("utf-8", "replace")

    words = lines.Words(decode)
    added = [words.add(token) for token in range(len(pieces))]
    assert "".join(added) == text and "\ufffd" not in "".join(added)
    assert lines.Words(None).add(17) == "<17>"


def test_spaces_between_words_are_kept(lines: ModuleType) -> None:
    """As with vocabularies whose decoder drops the space at the beginning of a text."""
    vocabulary = [" a", " b", "c", " d"]
    words = lines.Words(lambda tokens: "".join(vocabulary[token] for token in tokens).removeprefix(" "))
    assert "".join(words.add(token) for token in (0, 1, 2, 3) * 20) == "a bc d" + " a bc d" * 19


REAL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 500, "max_position_embeddings": 256,
}  # fmt: skip


def test_transformers_for_real(clean_environment: Path) -> None:
    if not has_module(Path(sys.executable), "transformers") or not has_module(Path(sys.executable), "torch"):
        pytest.skip("this interpreter has no transformers with torch")
    load = PeerLoad(config=REAL, settings={"threads": 1, "dtype": "float32"})
    with closing(open_peer(PeerSpec("transformers", program=sys.executable), load, load_settings())) as engine:
        assert engine.verified.confirmed == {"threads": 1, "dtype": "float32"}
        ask = GenerateRequest(
            prompt=tuple(range(40)), max_tokens=6, ignore_end=True, sampling=Sampling(temperature=0.0)
        )
        first, again = list(engine.generate(ask)), list(engine.generate(ask))
        assert first[-1].usage == PeerUsage(40, 6, 0) and again[-1].usage == PeerUsage(40, 6, 39)
        assert [chunk.text for chunk in first] == [chunk.text for chunk in again]
        with pytest.raises(RequestRejected):
            list(engine.generate(replace(ask, prompt=tuple(range(40)) * 10)))

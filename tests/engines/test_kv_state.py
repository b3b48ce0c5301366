"""States of conversations on disk: they save time, never change an answer, and are refused when anything is wrong."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from native_engine import opener

from bendi.engines import LoadRequest, StatefulEngine, process, transport, wheel
from bendi.engines.kv_state import delete_state, model_fingerprint, saved_states, state_paths
from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.protocol import StateInfo
from bendi.engines.random_weights import write_random_model
from bendi.errors import EngineError, StateUnusable
from bendi.formats import read_gguf
from bendi.formats.blueprints import blueprint_from_config
from bendi.messages import Cancellation, GenerateRequest, Message, Sampling, Usage

BUILDS = ("wheel", "native")
GREEDY = Sampling(temperature=0.0)
QUESTION = (Message("user", "What is quantization, and why does it make a model smaller?"),)
WINDOWED = {
    "model_type": "gemma3_text", "num_hidden_layers": 3, "hidden_size": 256, "intermediate_size": 512,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128, "vocab_size": 512, "sliding_window": 128,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "max_position_embeddings": 32768,
    "rope_theta": 1e6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 128,
}  # fmt: skip
RECURRENT = {
    "model_type": "lfm2", "num_hidden_layers": 3, "hidden_size": 256, "intermediate_size": 512, "vocab_size": 512,
    "num_attention_heads": 4, "num_key_value_heads": 2, "conv_L_cache": 3, "full_attn_idxs": [2],
    "max_position_embeddings": 32768, "norm_eps": 1e-5, "rope_theta": 1e6, "block_auto_adjust_ff_dim": False,
}  # fmt: skip


def answer(engine: LlamaServerEngine, request: GenerateRequest) -> tuple[str, Usage]:
    chunks = list(engine.generate(request))
    assert chunks[-1].usage
    return "".join(chunk.text for chunk in chunks), chunks[-1].usage


def distance(one: dict[int, float], other: dict[int, float]) -> float:
    """The largest difference of a log-probability, in nats."""
    return max(abs(one[token] - other[token]) for token in one)


def asked(*messages: Message) -> GenerateRequest:
    return GenerateRequest(messages=messages, max_tokens=32, sampling=GREEDY)


@pytest.fixture(params=BUILDS)
def load(request: pytest.FixtureRequest) -> Callable[[LoadRequest], LlamaServerEngine]:
    found: Callable[[LoadRequest], LlamaServerEngine] = opener(request.param)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "states"


@pytest.fixture(scope="module")
def engine(folder: Path, demo_model: Path) -> Iterator[LlamaServerEngine]:
    with closing(wheel.open_engine(LoadRequest(demo_model, context_tok=512, state_dir=folder))) as opened:
        answer(opened, asked(*QUESTION))
        opened.save_state("good")
        yield opened


@pytest.fixture
def copy(engine: LlamaServerEngine, folder: Path) -> Iterator[tuple[Path, Path]]:
    """The files of a good state, to be spoilt."""
    paths = state_paths(folder, "spoilt")
    for good, path in zip(state_paths(folder, "good"), paths, strict=True):
        shutil.copy(good, path)
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)


def refused(engine: LlamaServerEngine, name: str = "spoilt") -> StateUnusable:
    """The error; the engine must answer after it as it does without any state."""
    with pytest.raises(StateUnusable) as caught:
        engine.restore_state(name)
    assert caught.value.message and caught.value.hint
    text, _usage = answer(engine, asked(*QUESTION))
    assert text.startswith("**Quantization**")
    return caught.value


@pytest.mark.parametrize(
    ("type_k", "type_v", "flash"), [("f16", "f16", None), ("q8_0", "q4_0", None), ("f16", "f16", False)]
)
def test_the_same_answer_after_a_restart(
    load: Callable[[LoadRequest], LlamaServerEngine],
    type_k: str,
    type_v: str,
    flash: bool | None,
    tmp_path: Path,
    demo_model: Path,
) -> None:
    request = LoadRequest(
        demo_model, 1024, type_k=type_k, type_v=type_v, flash_attention=flash, state_dir=tmp_path / "s"
    )
    with closing(load(request)) as engine:
        assert isinstance(engine, StatefulEngine)
        first, _usage = answer(engine, asked(*QUESTION))
        saved = engine.save_state("talk-1")
        more = asked(*QUESTION, Message("assistant", first), Message("user", "And what is a context?"))
        expected, live = answer(engine, more)
    with closing(load(request)) as engine:
        restored = engine.restore_state("talk-1")
        text, usage = answer(engine, more)
    with closing(load(request)) as engine:
        fresh, without = answer(engine, more)
    assert text == expected == fresh
    assert usage.cached_tok == live.cached_tok >= saved.cached_tok - 1
    assert without.cached_tok == 0
    assert restored.cached_tok == saved.cached_tok > 32
    assert restored.size_bytes == saved.size_bytes == state_paths(tmp_path / "s", "talk-1")[0].stat().st_size


@pytest.mark.parametrize("config", [WINDOWED, RECURRENT], ids=["windowed", "recurrent"])
@pytest.mark.parametrize("build", BUILDS)
def test_what_cannot_be_rolled_back(build: str, config: dict[str, object], tmp_path: Path) -> None:
    """Longer, shorter and equal prompts after a restored state: the next token is as likely as without, or refused.

    Computing the same tokens in other batches differs by up to 0.03 nats here, with or without states.
    """
    blueprint = blueprint_from_config(config, "x")
    types = ["Q8_0" if name != "F32" else name for name in blueprint.default_types()]
    request = LoadRequest(write_random_model(tmp_path / "m.gguf", blueprint, types), 1024, state_dir=tmp_path / "s")
    source = random.Random(3)
    words, others = (tuple(source.randrange(300, 512) for _ in range(700)) for _ in range(2))
    with closing(opener(build)(request)) as engine:
        engine.next_token(words[:600], 512)
        if build == "native" and config is WINDOWED:
            with pytest.raises(StateUnusable) as caught:
                engine.save_state("a")
            assert caught.value.reason == "window"
            return
        assert engine.save_state("a").cached_tok == 600
    for prompt in (words, words[:601], words[:300] + words[:50], words[:600]):
        with closing(opener(build)(request)) as engine:
            fresh, _computed = engine.next_token(prompt, 512)
            wrong, _computed = engine.next_token(others[: len(prompt) - 1] + prompt[-1:], 512)
        with closing(opener(build)(request)) as engine:
            engine.restore_state("a")
            found, computed_tok = engine.next_token(prompt, 512)
        assert distance(found, fresh) < 0.06
        assert 5 * distance(found, fresh) < distance(wrong, fresh), "what came before the last token matters"
        if len(prompt) > 600:
            assert computed_tok < len(prompt) - 500, "the point of it all"


def test_the_page_that_shows_prompts_stays_off(engine: LlamaServerEngine, demo_model: Path) -> None:
    with pytest.raises(transport.WorkerRefused):
        transport.call(engine._address, "/slots")
    with closing(wheel.open_engine(LoadRequest(demo_model, context_tok=256))) as without:
        with pytest.raises(transport.WorkerRefused):
            transport.call(without._address, "/slots/0?action=save", {"filename": "x.kv"})
        with pytest.raises(StateUnusable) as caught:
            without.save_state("a")
    assert caught.value.reason == "disabled"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "a\\b", "a.b", "a b", "-a", "名", "a\0", "x" * 101, "a\n"]
)
def test_names_have_no_path_in_them(name: str, engine: LlamaServerEngine, folder: Path) -> None:
    for action in (engine.save_state, engine.restore_state, lambda name: delete_state(folder, name)):
        with pytest.raises(StateUnusable) as caught:
            action(name)
        assert caught.value.reason == "name"


def test_only_the_owner_can_read_it(engine: LlamaServerEngine, folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in state_paths(folder, "good"):
        assert path.stat().st_mode & 0o777 == 0o600
    facts = json.loads(state_paths(folder, "good")[1].read_text())
    assert "uantization" not in json.dumps(facts)
    (exchange,) = (path for path in folder.iterdir() if path.is_dir())
    assert list(exchange.iterdir()) == [], "nothing is left where the engine can reach it"


def test_a_good_one_is_taken(engine: LlamaServerEngine, copy: tuple[Path, Path]) -> None:
    assert engine.restore_state("spoilt").cached_tok == engine.restore_state("good").cached_tok


def test_missing(engine: LlamaServerEngine, copy: tuple[Path, Path]) -> None:
    assert refused(engine, "nothing").reason == "missing"
    copy[0].unlink()
    assert refused(engine).reason == "missing"


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated(keep: int, engine: LlamaServerEngine, copy: tuple[Path, Path]) -> None:
    copy[0].write_bytes(copy[0].read_bytes()[:keep])
    assert refused(engine).reason == "corrupt"


@pytest.mark.parametrize("place", [0, 5, 10, 1000, -1])
def test_a_changed_bit(place: int, engine: LlamaServerEngine, copy: tuple[Path, Path]) -> None:
    content = bytearray(copy[0].read_bytes())
    content[place] ^= 1
    copy[0].write_bytes(content)
    assert refused(engine).reason == "corrupt"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 50000, '{"schema": 1}', '{"schema": 1, "new": 2}', "\ud800", '{"schema": NaN}'],
)
def test_nonsense_about_it(text: str, engine: LlamaServerEngine, copy: tuple[Path, Path]) -> None:
    copy[1].write_bytes(text.encode("utf-8", "surrogatepass"))
    assert refused(engine).reason in ("corrupt", "schema")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2), ("engine", "xllamacpp 1"), ("model", "0" * 64), ("context_tok", 1024), ("type_k", "q8_0"),
        ("type_v", "q8_0"), ("flash_attention", False), ("flash_attention", [1]), ("engine", None),
    ],
)  # fmt: skip
def test_made_with_something_else(
    field: str, value: object, engine: LlamaServerEngine, copy: tuple[Path, Path]
) -> None:
    facts = json.loads(copy[1].read_text())
    copy[1].write_text(json.dumps(facts | {field: value}))
    assert refused(engine).reason == field


def test_other_facts_with_a_right_hash(engine: LlamaServerEngine, copy: tuple[Path, Path]) -> None:
    facts = json.loads(copy[1].read_text())
    copy[1].write_text(json.dumps(facts | {"cached_tok": 7}))
    assert refused(engine).reason == "refused"


@pytest.mark.skipif(os.name != "posix", reason="permissions as on Unix")
def test_files_that_others_could_change(engine: LlamaServerEngine, copy: tuple[Path, Path], tmp_path: Path) -> None:
    for path in copy:
        path.chmod(0o620)
        assert refused(engine).reason == "not ours"
        path.chmod(0o600)
        elsewhere = tmp_path / path.name
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        assert refused(engine).reason == "not ours"
        path.unlink()
        elsewhere.rename(path)
    assert engine.restore_state("spoilt")


def test_a_state_of_another_model_of_the_same_shape(engine: LlamaServerEngine, folder: Path, tmp_path: Path) -> None:
    header = read_gguf(engine.info.model_path)
    content = bytearray(engine.info.model_path.read_bytes())
    tensor = header.tensors[-1]
    middle = header.data_offset + tensor.offset + tensor.size_bytes // 2
    content[middle : middle + 64] = bytes(64)
    other = tmp_path / "trained-further.gguf"
    other.write_bytes(content)
    with (
        closing(wheel.open_engine(LoadRequest(other, context_tok=512, state_dir=folder))) as foreign,
        pytest.raises(StateUnusable) as caught,
    ):
        foreign.restore_state("good")
    assert caught.value.reason == "model"
    same = tmp_path / "moved" / "same.gguf"
    same.parent.mkdir()
    shutil.copy(engine.info.model_path, same)
    assert model_fingerprint([same], [header]) == model_fingerprint([engine.info.model_path], [header])


def test_a_model_file_changed_since(tmp_path: Path, demo_model: Path) -> None:
    path = tmp_path / "m.gguf"
    shutil.copy(demo_model, path)
    with closing(wheel.open_engine(LoadRequest(path, context_tok=512, state_dir=tmp_path / "s"))) as engine:
        answer(engine, asked(*QUESTION))
        path.unlink()
        with pytest.raises(StateUnusable) as caught:
            engine.save_state("a")
    assert caught.value.reason == "model"
    assert list((tmp_path / "s").iterdir()) == []


def test_nothing_to_save(tmp_path: Path, demo_model: Path) -> None:
    with closing(wheel.open_engine(LoadRequest(demo_model, context_tok=256, state_dir=tmp_path / "s"))) as engine:
        with pytest.raises(StateUnusable) as caught:
            engine.save_state("a")
        assert caught.value.reason == "empty"
        assert saved_states(tmp_path / "s") == []


def test_several_conversations_at_once(
    load: Callable[[LoadRequest], LlamaServerEngine], tmp_path: Path, demo_model: Path
) -> None:
    request = LoadRequest(demo_model, context_tok=512, parallel=2, state_dir=tmp_path / "s")
    one, other = (
        GenerateRequest(prompt=text, max_tokens=16, sampling=GREEDY)
        for text in ("A KV cache keeps the keys and values of all tokens, so that", "量化让模型更小：每个权重")
    )
    with closing(load(request)) as engine:
        first, second = answer(engine, one), answer(engine, other)
        saved = [engine.save_state(f"slot-{slot}", slot) for slot in range(2)]
    used_tok = sorted(usage.prompt_tok + usage.completion_tok for _text, usage in (first, second))
    assert all(abs(state.cached_tok - tok) <= 1 for state, tok in zip(sorted_by_size(saved), used_tok, strict=True))
    with closing(load(request)) as engine:
        for slot in (1, 0):
            engine.restore_state(f"slot-{slot}", slot)
        for asked_again, (text, usage) in ((one, first), (other, second)):
            again, cached = answer(engine, asked_again)
            assert again == text
            assert cached.cached_tok >= usage.prompt_tok - 1
        for action in (engine.save_state, engine.restore_state):
            for slot in (-1, 2):
                with pytest.raises(ValueError, match="slot"):
                    action("slot-0", slot)


def sorted_by_size(states: Sequence[StateInfo]) -> list[StateInfo]:
    return sorted(states, key=lambda state: state.cached_tok)


def test_no_folder_can_be_made(tmp_path: Path, demo_model: Path) -> None:
    (tmp_path / "s").write_text("a file")
    with closing(wheel.open_engine(LoadRequest(demo_model, context_tok=256, state_dir=tmp_path / "s"))) as engine:
        assert answer(engine, asked(*QUESTION))[0]
        with pytest.raises(StateUnusable) as caught:
            engine.save_state("a")
    assert caught.value.reason == "disabled"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")
def test_full_disk(load: Callable[[LoadRequest], LlamaServerEngine], tmp_path: Path, demo_model: Path) -> None:
    """The engine can write only the beginning: the state that was there stays."""
    folder = tmp_path / "s"
    with closing(load(LoadRequest(demo_model, context_tok=512, state_dir=folder))) as engine:
        answer(engine, asked(*QUESTION))
        saved = engine.save_state("a")
        before = {path.name: path.read_bytes() for path in state_paths(folder, "a")}
        for room_bytes in (0, 50, saved.size_bytes // 2, saved.size_bytes - 1):
            limits = (room_bytes, resource.RLIM_INFINITY)
            resource.prlimit(int(engine.info.details["pid"]), resource.RLIMIT_FSIZE, limits)
            with pytest.raises(StateUnusable) as caught:
                engine.save_state("a")
            assert caught.value.reason == "unwritable"
            assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
        assert engine.restore_state("a").cached_tok == saved.cached_tok
    assert {path.name for path in folder.iterdir()} == set(before)


@pytest.mark.skipif(sys.platform != "linux", reason="signals as on Linux")
def test_killed_while_saving(
    load: Callable[[LoadRequest], LlamaServerEngine], tmp_path: Path, demo_model: Path
) -> None:
    folder = tmp_path / "s"
    request = LoadRequest(demo_model, context_tok=512, state_dir=folder)
    with closing(load(request)) as engine:
        answer(engine, asked(*QUESTION))
        saved = engine.save_state("a")
        pid = int(engine.info.details["pid"])
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(EngineError):
            engine.save_state("a")
        (exchange,) = (path for path in folder.iterdir() if path.is_dir())
        assert list(exchange.iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a.kv"]
    with closing(load(request)) as engine:
        assert engine.restore_state("a").cached_tok == saved.cached_tok


def test_saving_waits_for_the_answer(engine: LlamaServerEngine) -> None:
    cancel, begun, results = Cancellation(), threading.Event(), []

    def talk() -> None:
        for _chunk in engine.generate(replace(asked(*QUESTION), max_tokens=200, ignore_end=True), cancel):
            begun.set()

    talking = threading.Thread(target=talk)
    talking.start()
    begun.wait()
    saving = threading.Thread(target=lambda: results.append(engine.save_state("busy")))
    saving.start()
    talking.join()
    saving.join()
    assert engine.restore_state("busy").cached_tok == results[0].cached_tok > 200


def test_listing_and_deleting(tmp_path: Path) -> None:
    assert saved_states(tmp_path / "absent") == []
    for age, name in enumerate(("new", "old", "half")):
        for path in state_paths(tmp_path, name)[: 1 if name == "half" else 2]:
            path.write_bytes(bytes(10))
            os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "not one.kv").write_bytes(b"")
    (tmp_path / "bendi-worker-1-x").mkdir()
    assert [(state.name, state.size_bytes, state.saved_s) for state in saved_states(tmp_path)] == [
        ("half", 10, 998.0), ("old", 20, 999.0), ("new", 20, 1000.0),
    ]  # fmt: skip
    delete_state(tmp_path, "old")
    delete_state(tmp_path, "old")
    delete_state(tmp_path, "half")
    assert [state.name for state in saved_states(tmp_path)] == ["new"]


def test_what_a_killed_bendi_leaves_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    left, ours = tmp_path / f"bendi-worker-{gone.pid}-x", tmp_path / f"bendi-worker-{os.getpid()}-x"
    for path in (left, ours):
        path.mkdir()
    (left / "0.kv").write_bytes(b"what was said")
    assert process.remove_orphans([tmp_path]) == [left]
    assert ours.exists() and not left.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_the_engine_can_only_overwrite(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("a")
    code = f"""
import os, sys
from bendi.engines import sandbox
if sandbox.confine([], [], allow_tcp=False, overwrite_dirs=[{str(tmp_path / "mine")!r}]) == "none": sys.exit(77)
def attempt(name, action):
    try: action(); print(name, "yes")
    except OSError as error: print(name, "no")
mine, other = {str(tmp_path / "mine")!r}, {str(tmp_path / "other")!r}
attempt("read", lambda: open(mine + "/a").read())
attempt("overwrite", lambda: open(mine + "/a", "w").write("b"))
attempt("make", lambda: open(mine + "/b", "w"))
attempt("remove", lambda: os.unlink(mine + "/a"))
attempt("rename", lambda: os.rename(mine + "/a", mine + "/c"))
attempt("link", lambda: os.symlink("/etc/passwd", mine + "/d"))
attempt("list", lambda: os.listdir(mine))
attempt("other", lambda: open(other + "/a").read())
attempt("other-write", lambda: open(other + "/a", "w"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    if done.returncode == 77:
        pytest.skip("this kernel has no Landlock")
    assert dict(line.split() for line in done.stdout.splitlines()) == {
        "read": "yes", "overwrite": "yes", "make": "no", "remove": "no", "rename": "no", "link": "no", "list": "no",
        "other": "no", "other-write": "no",
    }, done.stderr  # fmt: skip

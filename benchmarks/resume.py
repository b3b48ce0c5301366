"""How much sooner a conversation goes on after a restart when its computed state was kept on disk.

    python benchmarks/resume.py [--models qwen2.5:0.5b,llama3.2:1b] [--type Q4_K_M] [--tokens 2048,4096] [--repeats 3]

Models of real shapes with random weights. A worker computes a conversation and is ended; a new one takes its state up
and answers 16 more tokens of prompt, and another new one computes everything again. Both times begin when the model is
loaded and end with the first token; restoring includes verifying the file. Medians in seconds, and their ratio (bar:
30 at 4,096 tokens). That the text is the same is tested with a trained model in tests/cli/test_kept_states.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bendi.engines import LoadRequest, StatefulEngine, open_engine
from bendi.engines.random_weights import write_random_model
from bendi.engines.timing import endless_words, take, timed
from bendi.formats.blueprints import blueprint_from_config
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.settings import Settings, load_settings
from bendi.store.known_models import known_models

BAR = 30
_NEW_TOK = 16


def first_token_s(load: LoadRequest, settings: Settings, prompt: tuple[int, ...], state: str) -> tuple[float, float]:
    """Seconds until the first token of an answer in a new worker, and of them for restoring. `state`: empty: none."""
    with closing(open_engine(load, settings)) as engine:
        assert isinstance(engine, StatefulEngine)
        started_s = time.perf_counter()
        if state:
            engine.restore_state(state)
        restored_s = time.perf_counter() - started_s
        timed(engine, prompt, 1)
        return time.perf_counter() - started_s, restored_s


def measure(alias: str, options: argparse.Namespace, settings: Settings) -> bool:
    blueprint = blueprint_from_config(known_models()[alias].config, "model")
    header = blueprint.header()
    types = quantized_types(shapes_of(header), facts_of(header), options.type)
    held = True
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder:
        path = write_random_model(Path(folder) / "model.gguf", blueprint, types)
        os.sync()
        for tokens in options.tokens:
            load = LoadRequest(path, context_tok=tokens + 512, state_dir=Path(folder) / "states")
            words = endless_words(blueprint.vocab)
            past = take(words, tokens)
            with closing(open_engine(load, settings)) as engine:
                assert isinstance(engine, StatefulEngine)
                timed(engine, past, 1)
                saved = engine.save_state("kept")
            kept, again, restoring = [], [], []
            for _repeat in range(options.repeats):
                prompt = past + take(words, _NEW_TOK)
                taken_s, restored_s = first_token_s(load, settings, prompt, "kept")
                kept.append(taken_s)
                restoring.append(restored_s)
                again.append(first_token_s(load, settings, prompt, "")[0])
            ratio = statistics.median(again) / statistics.median(kept)
            held &= tokens < 4096 or ratio >= BAR
            print(
                f"{alias} {options.type}, {tokens} tokens: computed {statistics.median(again):.2f} s"
                f" ({min(again):.2f} to {max(again):.2f}), kept {statistics.median(kept):.3f} s"
                f" ({min(kept):.3f} to {max(kept):.3f}, of them {statistics.median(restoring):.3f} s restoring"
                f" {saved.size_bytes / 1e6:.0f} MB), {ratio:.0f} times as fast; saving took {saved.took_s:.2f} s",
                flush=True,
            )
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="qwen2.5:0.5b,llama3.2:1b")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--tokens", default="2048,4096")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    options.tokens = [int(tokens) for tokens in options.tokens.split(",")]
    settings = load_settings()
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    return int(not all([measure(alias, options, settings) for alias in options.models.split(",")]))


if __name__ == "__main__":
    sys.exit(main())

"""Times Hugging Face transformers, in the interpreter that has it: JSON lines in, JSON lines out (`outside.py`).

A model of the same shape with random weights in bfloat16, its keys and values in a `DynamicCache` that is cut back to
what is to be kept. The fastest loop that its public interface allows: one forward pass for the prompt, then one for
each token, the likeliest one. Nothing of bendi is imported here.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import transformers

_PIECE_TOK = 512


class Model:
    def __init__(self, given: dict[str, Any]) -> None:
        torch.set_num_threads(given["threads"])
        config = transformers.AutoConfig.for_model(**given["config"])
        self._model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        self._held: list[int] = []
        self._cache = transformers.DynamicCache(config=config)

    def ask(self, past: list[int], prompt: list[int], answer_tok: int) -> dict[str, float | int]:
        self._hold(past)
        started_s = time.perf_counter()
        token = self._next(prompt)
        first_s = time.perf_counter()
        for _token in range(answer_tok - 1):
            token = self._next([token])
        ended_s = time.perf_counter()
        rates: dict[str, float | int] = {"pp_tok_s": len(prompt) / (first_s - started_s), "computed_tok": len(prompt)}
        if answer_tok > 1:
            rates["tg_tok_s"] = (answer_tok - 1) / (ended_s - first_s)
        return rates

    def _hold(self, past: list[int]) -> None:
        kept = 0
        while kept < min(len(past), len(self._held)) and past[kept] == self._held[kept]:
            kept += 1
        if self._cache.get_seq_length() > kept:
            self._cache.crop(kept)
        for start in range(kept, len(past), _PIECE_TOK):
            self._next(past[start : start + _PIECE_TOK])
        self._held = past

    def _next(self, tokens: list[int]) -> int:
        with torch.inference_mode():
            answer = self._model(
                input_ids=torch.tensor([tokens]), past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
        return int(answer.logits[0, -1].argmax())


def main() -> None:
    model = Model(json.loads(sys.stdin.readline()))
    print(json.dumps({"ready": f"transformers {transformers.__version__} bf16"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(model.ask(request["past"], request["prompt"], request["answer_tok"])), flush=True)


if __name__ == "__main__":
    main()

"""Times OpenVINO GenAI, in the interpreter that has it: JSON lines in, JSON lines out (`outside.py`).

It reads the GGUF file itself (some architectures and types only), or a folder that `optimum-cli export openvino` made.
Its own defaults, said aloud because naming one changes the others: prompts in one piece, prefixes kept, in blocks of 32
tokens. The tokens to be kept are computed first, in a request of their own. It says how long a prompt took, but not how
much of it was kept: that shows in the time of short prompts. Nothing of bendi is imported here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy
import openvino
import openvino_genai

_ANY_NUMBER = 1 << 30


class Model:
    def __init__(self, given: dict[str, Any]) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.max_num_batched_tokens = _ANY_NUMBER
        self._pipeline = openvino_genai.LLMPipeline(
            given["model"], "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=given["threads"]
        )
        self._held: list[int] = []
        self._held_ms = 0.0

    def ask(self, past: list[int], prompt: list[int], answer_tok: int) -> dict[str, float]:
        if past and past != self._held:
            self._held_ms = self._metrics(past, 1).get_ttft().mean
            self._held = past
        metrics = self._metrics(past + prompt, answer_tok)
        first_ms = metrics.get_ttft().mean
        rates = {"pp_tok_s": 1000 * len(prompt) / first_ms}
        if 8 * len(prompt) < len(past) and 2 * first_ms > self._held_ms:
            rates["computed_tok"] = len(past) + len(prompt)
        if answer_tok > 1:
            rates["tg_tok_s"] = 1000 / metrics.get_tpot().mean
        return rates

    def _metrics(self, tokens: list[int], answer_tok: int) -> Any:
        wanted = openvino_genai.GenerationConfig()
        wanted.max_new_tokens = answer_tok
        wanted.ignore_eos = True
        wanted.apply_chat_template = False
        return self._pipeline.generate(openvino.Tensor(numpy.array([tokens], dtype=numpy.int64)), wanted).perf_metrics


def main() -> None:
    model = Model(json.loads(sys.stdin.readline()))
    version = openvino_genai.get_version().split("-")[0]
    print(json.dumps({"ready": f"OpenVINO GenAI {version}"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(model.ask(request["past"], request["prompt"], request["answer_tok"])), flush=True)


if __name__ == "__main__":
    main()

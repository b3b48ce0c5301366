"""OpenVINO GenAI, in the interpreter that has it (`lines.py`).

It reads a GGUF file itself (some architectures and types only), or a folder that `optimum-cli export openvino` made.
Settings: `threads`, `device`, `prefix_caching` (on unless it is said to be off, as is its own default; naming any
scheduler option changes the others, so prompts are said to be computed in one piece, as by default). It does not say
how much of a prompt it had kept, so with prefixes kept there is no rate of prompts by its own clock. A request ends
early only once its prompt is computed. Nothing of bendi is imported here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from lines import Lines, Refused, Words, serve  # type: ignore[import-not-found]

numpy = importlib.import_module("numpy")
openvino = importlib.import_module("openvino")
genai = importlib.import_module("openvino_genai")

_ANY_NUMBER = 1 << 30


class Model:
    def __init__(self, given: dict[str, Any]) -> None:
        settings = given["settings"]
        self._keeps = settings.get("prefix_caching") is not False
        self._device = settings.get("device") or "CPU"
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = self._keeps
        scheduler.max_num_batched_tokens = _ANY_NUMBER
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": settings["threads"]} if settings.get("threads") else {}
        self._pipeline = genai.LLMPipeline(given["model"], self._device, scheduler_config=scheduler, **properties)
        self._tokenizer = self._pipeline.get_tokenizer()

    @property
    def ready(self) -> dict[str, Any]:
        # What became of the number of threads the pipeline does not tell.
        return {
            "version": str(genai.get_version()).split("-")[0],
            "context_tok": 0,
            "said": {"device": self._device, "prefix_caching": self._keeps},
            "details": {"openvino": str(openvino.get_version())},
        }

    def answer(self, request: dict[str, Any], lines: Lines) -> dict[str, Any]:
        wanted = self._wanted(request)
        streamer = _streamer(Words(self._decode), lines)
        prompt = self._prompt(request)
        try:
            result = self._pipeline.generate(prompt, wanted, streamer)
        except RuntimeError as error:
            raise Refused(str(error).strip().splitlines()[-1]) from error
        metrics = result.perf_metrics
        prompt_tok, completion_tok = metrics.get_num_input_tokens(), metrics.get_num_generated_tokens()
        finish = "length" if completion_tok == request["max_tokens"] else "stop"
        timings = {}
        if not self._keeps:
            timings["pp_tok_s"] = 1000 * prompt_tok / metrics.get_ttft().mean
        if completion_tok > 1:
            timings["tg_tok_s"] = 1000 / metrics.get_tpot().mean
        usage = {
            "prompt_tok": prompt_tok, "completion_tok": completion_tok, "cached_tok": None if self._keeps else 0,
        }  # fmt: skip
        return {"finish": "cancelled" if streamer.stopped else finish, "usage": usage, "timings": timings}

    def _prompt(self, request: dict[str, Any]) -> Any:
        prompt = request["prompt"]
        if prompt is None:
            text = self._tokenizer.apply_chat_template(request["messages"], True)
            return self._tokenizer.encode(text, add_special_tokens=False).input_ids
        if not prompt:
            raise Refused("the prompt is empty")
        if isinstance(prompt, str):
            return self._tokenizer.encode(prompt).input_ids
        return openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))

    def _wanted(self, request: dict[str, Any]) -> Any:
        wanted = genai.GenerationConfig()
        wanted.max_new_tokens = request["max_tokens"] or _ANY_NUMBER
        wanted.ignore_eos = bool(request["ignore_end"])
        wanted.apply_chat_template = False
        sampling = dict(request["sampling"])
        temperature, seed = sampling.pop("temperature", None) or 0.0, sampling.pop("seed", None)
        if temperature > 0:
            if sampling:
                raise Refused(f"sampling by {', '.join(sorted(sampling))} is not done here")
            wanted.do_sample, wanted.temperature, wanted.rng_seed = True, temperature, seed or 0
        return wanted

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False)) if tokens else ""


def _streamer(words: Words, lines: Lines) -> Any:
    class Streamer(genai.StreamerBase):  # type: ignore[misc, name-defined]
        """Its own one that writes text holds several tokens back."""

        def __init__(self) -> None:
            super().__init__()
            self.stopped = False

        def write(self, token: int | list[int]) -> Any:
            for each in token if isinstance(token, list) else [token]:
                lines.say({"text": words.add(int(each))})
            self.stopped = lines.cancelled
            return genai.StreamingStatus.CANCEL if self.stopped else genai.StreamingStatus.RUNNING

        def end(self) -> None:
            """Nothing is held back."""

    return Streamer()


def main() -> None:
    def load(given: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any], Lines], dict[str, Any]]]:
        model = Model(given)
        return model.ready, model.answer

    serve(load)


if __name__ == "__main__":
    main()

"""Hugging Face transformers, in the interpreter that has it (`lines.py`).

A folder with a model, or a model of the shape of `config` with random weights. Keys and values stand in a
`DynamicCache` that is cut back to what the next prompt begins with. The fastest loop that its public interface allows:
one forward pass for every 512 tokens of the prompt, then one for each token. Settings: `threads`, `dtype` (as the model
is stored; bfloat16 for random weights), `device`. Nothing of bendi is imported here.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from typing import Any

from lines import Lines, Refused, Words, serve  # type: ignore[import-not-found]

torch = importlib.import_module("torch")
transformers = importlib.import_module("transformers")

_PIECE_TOK = 512


class Model:
    def __init__(self, given: dict[str, Any]) -> None:
        settings = given["settings"]
        if settings.get("threads"):
            torch.set_num_threads(settings["threads"])
        self._device = settings.get("device") or "cpu"
        self._tokenizer: Any = None
        model = self._random(given["config"], settings) if given["config"] else self._stored(given["model"], settings)
        self._model = model.eval().to(self._device)
        self.config = model.config
        self._cache: Any = transformers.DynamicCache(config=self.config)
        self._held: list[int] = []

    def _random(self, config: dict[str, Any], settings: dict[str, Any]) -> Any:
        shape = transformers.AutoConfig.for_model(**config)
        return transformers.AutoModelForCausalLM.from_config(shape, dtype=_dtype(settings.get("dtype") or "bfloat16"))

    def _stored(self, path: str, settings: dict[str, Any]) -> Any:
        here = {"local_files_only": True, "trust_remote_code": False}
        if any(name.startswith("tokenizer") for name in os.listdir(path)):
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(path, **here)
        dtype = settings.get("dtype")
        return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=_dtype(dtype) if dtype else "auto", **here)

    @property
    def ready(self) -> dict[str, Any]:
        dtype = str(self._model.dtype).removeprefix("torch.")
        return {
            "version": str(transformers.__version__),
            "context_tok": getattr(self.config, "max_position_embeddings", 0) or 0,
            "said": {"threads": torch.get_num_threads(), "dtype": dtype, "device": self._device},
            "details": {"torch": str(torch.__version__), "dtype": dtype},
        }

    def answer(self, request: dict[str, Any], lines: Lines) -> dict[str, Any]:
        prompt, most_tok, choose = self._tokens(request), request["max_tokens"], _chooser(request["sampling"])
        ends = set() if request["ignore_end"] else self._ends()
        started_s = time.perf_counter()
        kept = self._keep(prompt)
        logits: Any = None
        for start in range(kept, len(prompt), _PIECE_TOK):
            if lines.cancelled:
                return _end("cancelled", len(prompt), 0, kept)
            logits = self._forward(prompt[start : start + _PIECE_TOK])
        words, count, finish = Words(self._decode()), 0, "length"
        first_s = last_s = 0.0
        while most_tok is None or count < most_tok:
            token = choose(logits)
            count, last_s = count + 1, time.perf_counter()
            first_s = first_s or last_s
            if token in ends:
                finish = "stop"
                break
            lines.say({"text": words.add(token)})
            if lines.cancelled:
                finish = "cancelled"
                break
            if count != most_tok:
                logits = self._forward([token])
        end = _end(finish, len(prompt), count, kept)
        end["timings"]["pp_tok_s"] = (len(prompt) - kept) / (first_s - started_s)
        if count > 1:
            end["timings"]["tg_tok_s"] = (count - 1) / (last_s - first_s)
        return end

    def _tokens(self, request: dict[str, Any]) -> list[int]:
        prompt = request["prompt"]
        if not isinstance(prompt, list):
            if self._tokenizer is None:
                raise Refused("this model has no tokenizer; prompts must be token numbers")
            if prompt is None:
                found = self._tokenizer.apply_chat_template(
                    request["messages"], add_generation_prompt=True, tokenize=False
                )
                prompt = self._tokenizer(found, add_special_tokens=False)["input_ids"]
            else:
                prompt = self._tokenizer(prompt)["input_ids"]
        tokens = [int(token) for token in prompt]
        vocabulary = self._model.get_input_embeddings().num_embeddings
        if not tokens or not all(0 <= token < vocabulary for token in tokens):
            raise Refused(f"a prompt has tokens from 0 to {vocabulary - 1}")
        longest = getattr(self.config, "max_position_embeddings", 0) or 0
        if longest and len(tokens) + (request["max_tokens"] or 0) > longest:
            raise Refused(f"the prompt has {len(tokens)} tokens, the model takes {longest} with the answer")
        return tokens

    def _keep(self, prompt: list[int]) -> int:
        """How many tokens need not be computed again; the last one is, for what comes after it."""
        kept, most = 0, min(len(prompt) - 1, len(self._held))
        while kept < most and prompt[kept] == self._held[kept]:
            kept += 1
        surplus = self._cache.get_seq_length() - kept
        if surplus > 0:
            if kept and all(getattr(layer, "is_sliding", False) is False for layer in self._cache.layers):
                self._cache.crop(-surplus)
            else:
                kept, self._cache = 0, transformers.DynamicCache(config=self.config)
        self._held = prompt[:kept]
        return kept

    def _forward(self, tokens: list[int]) -> Any:
        with torch.inference_mode():
            answer = self._model(
                input_ids=torch.tensor([tokens], device=self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._held += tokens
        return answer.logits[0, -1]

    def _decode(self) -> Callable[[list[int]], str] | None:
        if self._tokenizer is None:
            return None
        return lambda tokens: str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def _ends(self) -> set[int]:
        end = self._model.generation_config.eos_token_id
        return set() if end is None else set(end) if isinstance(end, list) else {end}


def _dtype(name: str) -> Any:
    return getattr(torch, name)


def _chooser(sampling: dict[str, Any]) -> Callable[[Any], int]:
    """The likeliest token, unless a temperature above 0 is asked for."""
    temperature = sampling.get("temperature") or 0.0
    others = sorted(set(sampling) - {"temperature", "seed"})
    if temperature <= 0:
        return lambda logits: int(logits.argmax())
    if others:
        raise Refused(f"sampling by {', '.join(others)} is not done here")
    source = torch.Generator()
    source.manual_seed(sampling.get("seed") or 0)

    def choose(logits: Any) -> int:
        chances = torch.softmax(logits.float().cpu() / temperature, dim=-1)
        return int(torch.multinomial(chances, 1, generator=source))

    return choose


def _end(finish: str, prompt_tok: int, completion_tok: int, cached_tok: int) -> dict[str, Any]:
    usage = {"prompt_tok": prompt_tok, "completion_tok": completion_tok, "cached_tok": cached_tok}
    return {"finish": finish, "usage": usage, "timings": {}}


def main() -> None:
    def load(given: dict[str, Any]) -> tuple[dict[str, Any], Callable[[dict[str, Any], Lines], dict[str, Any]]]:
        model = Model(given)
        return model.ready, model.answer

    serve(load)


if __name__ == "__main__":
    main()

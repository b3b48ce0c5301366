"""`bendi demo`: this machine in a few lines, then the built-in model answers in both languages, all offline."""

from __future__ import annotations

import argparse

from bendi import api
from bendi.cli import output
from bendi.cli.machine_text import machine_lines
from bendi.hardware import detect_machine
from bendi.i18n import _, language
from bendi.messages import Sampling
from bendi.units import format_duration, format_rate

QUESTIONS = {
    "en": "Why does memory bandwidth decide how fast a model generates text?",
    "zh": "为什么内存带宽决定生成速度？",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", nargs="*", help=_("ask this instead of the two prepared questions"))
    parser.add_argument("--json", action="store_true", help=_("print the answers and timings as JSON"))


def run(args: argparse.Namespace) -> int:
    first = language()
    questions = [" ".join(args.question)] if args.question else [QUESTIONS[first], QUESTIONS[_other(first)]]
    if not args.json:
        for line in machine_lines(detect_machine()):
            output.data(line)
    answers = []
    with api.load("demo") as model:
        for question in questions:
            answers.append(_ask(model, question, show=not args.json))
        load_s = model.info.load_s
    if args.json:
        output.json_data({"model": "demo", "load_s": load_s, "answers": answers})
        return 0
    output.data("")
    output.data(_("The built-in model is tiny: it is there to try everything offline. Real models come next:"))
    for command in ("bendi run demo", "bendi pull --help", "bendi doctor"):
        output.data(f"  {command}")
    return 0


def _other(name: str) -> str:
    return "zh" if name == "en" else "en"


def _ask(model: api.Model, question: str, *, show: bool) -> dict[str, object]:
    """Asks, prints the answer as it comes when `show`, and returns what was said and measured."""
    if show:
        output.data(f"\n> {question}")
    text = ""
    measured: dict[str, object] = {}
    for chunk in model.chat(question, sampling=Sampling(temperature=0.0), max_tokens=400):
        text += chunk.text
        if show and chunk.text:
            output.data(chunk.text, end="")
        if chunk.timings and chunk.usage:
            timings = chunk.timings
            measured = {
                "prompt_tok": chunk.usage.prompt_tok,
                "completion_tok": chunk.usage.completion_tok,
                "ttft_s": timings.ttft_s,
                "pp_tok_s": timings.pp_tok_s,
                "tg_tok_s": timings.tg_tok_s,
            }
            if show:
                parts = [_("load {time}").format(time=format_duration(model.info.load_s))]
                parts += [_("first token {time}").format(time=format_duration(timings.ttft_s or 0))]
                parts += [f"PP {format_rate(timings.pp_tok_s)}"] if timings.pp_tok_s else []
                parts += [f"TG {format_rate(timings.tg_tok_s)}"] if timings.tg_tok_s else []
                output.data("\n[" + " · ".join(parts) + "]")
    return {"question": question, "text": text, **measured}

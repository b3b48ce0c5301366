"""Train the demo model on the CPU.

    python -m tools.demo_model.train --minutes 25 --out build/demo_model/model.pt

Keeps a log (CSV: step, seconds, tokens, loss, exact matches on held-out paraphrases, refusals) and a checkpoint.
The schedule follows the clock or, with --steps, the number of steps, which makes a run repeatable.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional as F

from .batches import IGNORE, Encoder, Options, pad, stream
from .corpus import Conversation, Corpus, Exchange
from .model import Demo, Shape
from .topics import UNKNOWN


JUDGED_TOKENS = 12  # an answer that starts right is the right one: the quick score during training


def learning_rate(progress: float, peak: float, warmup: float = 0.04) -> float:
    """Return the rate at `progress` (0 to 1): linear rise, then cosine fall to 2 % of the peak."""
    if progress < warmup:
        return peak * progress / warmup
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))))


def exact(model: Demo, encoder: Encoder, cases: list[Exchange]) -> list[bool]:
    """Say for each case whether the greedy answer starts as the stored answer does (one forward pass)."""
    rng, options = random.Random(0), Options(cut=0.0)
    right: list[bool] = []
    encoder_noise, encoder.noisy = encoder.noisy, encoder.tokenizer
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(cases), 64):
            rows = [encoder.row(Conversation(None, (case,)), rng, options) for case in cases[start : start + 64]]
            inputs, labels = (torch.from_numpy(part) for part in pad(rows, encoder.pad))
            guess = model.logits(model.hidden(inputs)).argmax(-1)
            late = (labels != IGNORE).cumsum(1) > JUDGED_TOKENS
            right += ((guess == labels) | (labels == IGNORE) | late).all(dim=1).tolist()
    model.train()
    encoder.noisy = encoder_noise
    return right


def optimisers(model: Demo, peak: float, decay: float, muon: bool) -> list[torch.optim.Optimizer]:
    """Return AdamW for embedding and norms, and Muon (or AdamW) for the matrices; norms are not decayed."""
    matrices = [p for p in model.blocks.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    table = [model.embedding.weight]
    groups = [{"params": table if muon else table + matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), eps=1e-9, fused=True)
    if not muon:
        return [adam]
    return [adam, torch.optim.Muon(matrices, lr=peak, weight_decay=decay, ns_steps=4, adjust_lr_fn="match_rms_adamw")]


def report(model: Demo, encoder: Encoder, held: list[Exchange]) -> dict[str, float]:
    """Return the exact-match shares on the held-out questions by language, and of refusals."""
    right = exact(model, encoder, held)
    shares = {}
    for name, wanted in (
        ("en", lambda c: c.lang == "en" and c.topic != UNKNOWN),
        ("zh", lambda c: c.lang == "zh" and c.topic != UNKNOWN),
        ("unknown", lambda c: c.topic == UNKNOWN),
    ):
        rows = [hit for hit, case in zip(right, held, strict=True) if wanted(case)]
        shares[name] = sum(rows) / max(1, len(rows))
    return shares


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the demo model on the CPU.")
    parser.add_argument("--tokenizer", type=Path, default=Path("build/demo_model/tokenizer.json"))
    parser.add_argument("--out", type=Path, default=Path("build/demo_model/model.pt"))
    parser.add_argument("--log", type=Path, default=None)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--holdout", type=int, default=0, help="paraphrases kept back per topic and language")
    parser.add_argument("--seed", type=int, default=20261120)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch-tokens", type=int, default=6144)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--muon", action="store_true")
    parser.add_argument("--every", type=int, default=250)
    for name in ("width", "feed_forward", "layers", "heads", "kv_heads"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(Shape, name))
    return parser.parse_args()


def main() -> None:
    """Train and write the checkpoint."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    encoder = Encoder(options.tokenizer, dropout=Options.dropout)
    corpus = Corpus(options.holdout)
    shape = Shape(
        vocab=encoder.tokenizer.get_vocab_size(), width=options.width, feed_forward=options.feed_forward,
        layers=options.layers, heads=options.heads, kv_heads=options.kv_heads, dropout=options.dropout,
    )  # fmt: skip
    model = Demo(shape)
    optimisers_ = optimisers(model, options.rate, options.decay, options.muon)
    batches = stream(corpus, encoder, Options(batch_tokens=options.batch_tokens), options.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(corpus.held)} held-out questions", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    began, seen, recent = time.monotonic(), 0, []
    log_path = options.log or options.out.with_suffix(".csv")
    with log_path.open("w", newline="") as handle:
        log = csv.writer(handle)
        log.writerow(["step", "seconds", "tokens", "loss", "held_en", "held_zh", "held_unknown"])
        step = 0
        while True:
            passed = time.monotonic() - began
            progress = step / options.steps if options.steps else passed / (60 * options.minutes)
            last = progress >= 1
            if last or (step and step % options.every == 0):
                shares = report(model, encoder, corpus.held)
                row = [step, round(passed), seen, round(sum(recent) / max(1, len(recent)), 4), *shares.values()]
                log.writerow([row[0], row[1], row[2], row[3], *(f"{share:.3f}" for share in shares.values())])
                handle.flush()
                print(*row, flush=True)
                recent = []
            if last:
                break
            for optimiser in optimisers_:
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(progress, options.rate)
            inputs, labels = (torch.from_numpy(part) for part in next(batches))
            wanted = labels != IGNORE
            with torch.autocast("cpu", torch.bfloat16):
                scores = model.logits(model.hidden(inputs)[wanted])
            loss = F.cross_entropy(scores.float(), labels[wanted])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in optimisers_:
                optimiser.step()
                optimiser.zero_grad()
            recent.append(loss.item())
            seen += inputs.numel()
            step += 1
    torch.save({"shape": asdict(shape), "weights": model.state_dict(), "tokens": seen, "steps": step}, options.out)
    print(f"wrote {options.out}: {step} steps, {seen:,} tokens, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

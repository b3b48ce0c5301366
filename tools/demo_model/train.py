"""Train the demo model on the CPU.

    python -m tools.demo_model.train --minutes 25 --out build/demo_model/model.pt

Each worker is a process with one thread and its own stream of conversations; every few seconds the workers replace
their weights by the mean, weighted by the steps each one did. On shared cores this is far faster than threads, which
wait for one another at every operation. The schedule follows the clock or, with --steps, the number of steps.
Keeps a log (CSV: step, seconds, tokens, loss, right starts of answers on held-out paraphrases) and a checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import math
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from numpy.typing import NDArray
from torch.nn import functional as F

from .batches import IGNORE, Encoder, Options, pad, stream
from .corpus import Conversation, Corpus, Exchange, Mix
from .model import Demo, Shape
from .topics import UNKNOWN

PR_SET_PDEATHSIG = 1
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
    groups = [
        {"params": table if muon else table + matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), eps=1e-9, fused=True)
    if not muon:
        return [adam]
    return [adam, torch.optim.Muon(matrices, lr=peak, weight_decay=decay, ns_steps=4, adjust_lr_fn="match_rms_adamw")]


def report(worker: Worker) -> list[float]:
    """Return the shares of right answers on the held-out questions: English, Chinese, refusals."""
    held = worker.corpus.held
    right = exact(worker.model, worker.encoder, held)
    shares = []
    for lang, unknown in (("en", False), ("zh", False), (None, True)):
        rows = [
            hit for hit, case in zip(right, held, strict=True)
            if (case.topic == UNKNOWN) == unknown and lang in (None, case.lang)
        ]  # fmt: skip
        shares.append(sum(rows) / max(1, len(rows)))
    return shares


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the demo model on the CPU.")
    parser.add_argument("--tokenizer", type=Path, default=Path("build/demo_model/tokenizer.json"))
    parser.add_argument("--out", type=Path, default=Path("build/demo_model/model.pt"))
    parser.add_argument("--log", type=Path, default=None)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--steps", type=int, default=0, help="steps of all workers together; 0: by the clock")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--merge-every", type=float, default=4.0, help="seconds between two merges of the workers")
    parser.add_argument(
        "--init", type=Path, default=None, help="checkpoint of the same shape and tokenizer to go on from"
    )
    parser.add_argument("--unknown", type=float, default=Mix.unknown, help="share of out-of-scope questions")
    parser.add_argument("--holdout", type=int, default=0, help="paraphrases kept back per topic and language")
    parser.add_argument("--seed", type=int, default=20261120)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=Shape.dropout)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--adam", action="store_true", help="AdamW for the matrices too, in place of Muon")
    parser.add_argument("--report-every", type=float, default=90.0, help="seconds between two lines of the log")
    for name in ("width", "feed_forward", "layers", "heads", "kv_heads"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(Shape, name))
    return parser.parse_args()


class Worker:
    """One process of a run: its model, its optimisers, its conversations."""

    def __init__(self, rank: int, options: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(options.seed)
        self.rank, self.options = rank, options
        self.encoder = Encoder(options.tokenizer, dropout=Options.dropout)
        self.corpus = Corpus(options.holdout, Mix(unknown=options.unknown))
        sizes = {name: getattr(options, name) for name in ("width", "feed_forward", "layers", "heads", "kv_heads")}
        shape = Shape(vocab=self.encoder.tokenizer.get_vocab_size(), dropout=options.dropout, **sizes)
        self.model = Demo(shape)
        if options.init:
            self.model.load_state_dict(torch.load(options.init, weights_only=True)["weights"])
        self.optimisers = optimisers(self.model, options.rate, options.decay, not options.adam)
        rows = Options(batch_tokens=options.batch_tokens)
        self.batches: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]] = stream(
            self.corpus, self.encoder, rows, options.seed + 1000 * rank
        )
        self.began = time.monotonic()
        self.fresh = torch.zeros(3, dtype=torch.float64)  # since the last merge: steps, tokens, sum of losses

    def step(self, progress: float) -> None:
        """Take one step on one batch."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(progress, self.options.rate)
        inputs, labels = (torch.from_numpy(part) for part in next(self.batches))
        wanted = labels != IGNORE
        with torch.autocast("cpu", torch.bfloat16):
            scores = self.model.logits(self.model.hidden(inputs)[wanted])
        loss = F.cross_entropy(scores.float(), labels[wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.fresh += torch.tensor([1, inputs.numel(), loss.item()], dtype=torch.float64)

    def merge(self) -> torch.Tensor:
        """Replace the weights by the mean over the workers; return the sums of `fresh` and the clock of worker 0."""
        share = self.fresh[0].item()
        clock = time.monotonic() - self.began if self.rank == 0 else 0.0
        sums = torch.cat((self.fresh, torch.tensor([clock], dtype=torch.float64)))
        dist.all_reduce(sums)
        with torch.no_grad():
            flat = torch.cat([p.flatten() for p in self.model.parameters()]) * (share / sums[0].item())
            dist.all_reduce(flat)
            start = 0
            for p in self.model.parameters():
                p.copy_(flat[start : start + p.numel()].view_as(p))
                start += p.numel()
        self.fresh.zero_()
        return sums

    def run(self) -> tuple[int, int]:
        """Train to the end of the schedule; return steps and tokens of all workers."""
        options = self.options
        steps, tokens, clock, recent, reported = 0, 0, 0.0, [0.0, 0.0], 0.0
        log = Log(options.log or options.out.with_suffix(".csv")) if self.rank == 0 else None
        length = 60 * options.minutes
        while True:
            merged = time.monotonic()
            while not self.fresh[0] or time.monotonic() - merged < options.merge_every:
                ahead = steps + options.workers * self.fresh[0].item()
                now = clock + time.monotonic() - merged
                self.step(min(1.0, ahead / options.steps if options.steps else now / length))
            sums = self.merge()
            steps, tokens, clock = steps + int(sums[0]), tokens + int(sums[1]), sums[3].item()
            recent = [recent[0] + sums[2].item(), recent[1] + sums[0].item()]
            over = steps >= options.steps if options.steps else clock >= length
            if log and (over or clock - reported > options.report_every):
                log.add([steps, round(clock), tokens, round(recent[0] / recent[1], 4)], report(self))
                recent, reported = [0.0, 0.0], clock
            if over:
                return steps, tokens


class Log:
    """The training log as CSV, also printed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("step,seconds,tokens,loss,held_en,held_zh,held_unknown\n", encoding="utf-8")

    def add(self, figures: list[float], shares: list[float]) -> None:
        """Append one line."""
        row = [*figures, *(f"{share:.3f}" for share in shares)]
        with self.path.open("a", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerow(row)
        print(*row, flush=True)


def work(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """Run one worker process; worker 0 writes the checkpoint."""
    # Without this a worker computes on when the process that started it is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.workers)
    worker = Worker(rank, options)
    if rank == 0:
        count = sum(p.numel() for p in worker.model.parameters())
        print(f"{count:,} parameters, {len(worker.corpus.held)} held-out questions", flush=True)
    steps, tokens = worker.run()
    if rank == 0:
        weights = worker.model.state_dict()
        torch.save(
            {"shape": asdict(worker.model.shape), "weights": weights, "tokens": tokens, "steps": steps}, options.out
        )
        print(f"wrote {options.out}: {steps} steps, {tokens:,} tokens, {time.monotonic() - worker.began:.0f} s")
    dist.destroy_process_group()


def main() -> None:
    """Train and write the checkpoint."""
    options = parse()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(work, args=(options, f"{folder}/meeting"), nprocs=options.workers)


if __name__ == "__main__":
    main()

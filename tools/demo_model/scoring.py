"""Scoring of answers: does the text state the fact that was asked for? Standard library only."""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .topics import LANGUAGES, UNKNOWN, Topic

_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class Case:
    """One question with the regexes its answer has to match; `topic` is an id, "memory_table" or "unknown"."""

    topic: str
    lang: str
    question: str
    must: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one case; `guess` is the topic the answer belongs to, or "?"."""

    case: Case
    answer: str
    correct: bool
    guess: str


@dataclass
class Score:
    """Verdicts of a run with the figures drawn from them."""

    verdicts: list[Verdict] = field(default_factory=list)

    def accuracy(self, lang: str | None = None, unknown: bool = False) -> float:
        """Return the share of correct answers (0 to 1) among in-scope or, with `unknown`, out-of-scope cases."""
        rows = [
            v.correct
            for v in self.verdicts
            if (v.case.topic == UNKNOWN) == unknown and (lang is None or v.case.lang == lang)
        ]
        return sum(rows) / len(rows) if rows else float("nan")

    def per_topic(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return (topic, lang) -> (correct, asked)."""
        table: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for verdict in self.verdicts:
            row = table[verdict.case.topic, verdict.case.lang]
            row[0] += verdict.correct
            row[1] += 1
        return {key: (row[0], row[1]) for key, row in sorted(table.items())}

    def confusions(self) -> list[tuple[str, str, int]]:
        """Return (asked topic, answered topic, count) of the wrong answers, most frequent first."""
        counts = Counter((v.case.topic, v.guess) for v in self.verdicts if not v.correct)
        return [(asked, guess, count) for (asked, guess), count in counts.most_common()]


def clean(answer: str) -> str:
    """Return the answer as the regexes see it: blanks folded, edges stripped."""
    return _BLANKS.sub(" ", answer).strip()


def matches(answer: str, must: Sequence[str]) -> bool:
    """Say whether every regex of `must` is found in the answer."""
    text = clean(answer)
    return bool(must) and all(re.search(pattern, text) for pattern in must)


def read_cases(path: Path, topics: Iterable[Topic]) -> list[Case]:
    """Read `[[case]]` tables (topic, lang, question, optional must). Raises ValueError for an unknown topic."""
    known = {(topic.id, lang): topic.entries[lang].must for topic in topics for lang in LANGUAGES}
    cases: list[Case] = []
    for raw in tomllib.loads(path.read_text(encoding="utf-8"))["case"]:
        must = tuple(raw.get("must", ())) or known.get((raw["topic"], raw["lang"]), ())
        if not must:
            raise ValueError(f"{path.name}: no regexes for topic {raw['topic']!r} in {raw['lang']!r}")
        cases.append(Case(raw["topic"], raw["lang"], raw["question"], must))
    return cases


def judge(cases: Iterable[Case], ask: Callable[[Case], str], topics: Iterable[Topic]) -> Score:
    """Ask every case and score the answers. `ask` returns the model's answer to the question of a case."""
    table = [(topic.id, lang, topic.entries[lang].must) for topic in topics for lang in LANGUAGES]
    score = Score()
    for case in cases:
        answer = ask(case)
        guess = next((name for name, _lang, must in table if matches(answer, must)), "?")
        score.verdicts.append(Verdict(case, answer, matches(answer, case.must), guess))
    return score


def summary(score: Score) -> str:
    """Return the figures of a run as a few lines of plain text."""
    lines = []
    for lang in LANGUAGES:
        asked = sum(v.case.lang == lang and v.case.topic != UNKNOWN for v in score.verdicts)
        out = sum(v.case.lang == lang and v.case.topic == UNKNOWN for v in score.verdicts)
        lines.append(
            f"{lang}: right fact {score.accuracy(lang):.1%} of {asked}, "
            f"out of scope refused {score.accuracy(lang, unknown=True):.1%} of {out}"
        )
    return "\n".join(lines)

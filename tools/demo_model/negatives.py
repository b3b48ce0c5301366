"""Questions the model has to refuse: out of scope, near misses of the domain's words, nonsense."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from .topics import load_lexicon

_SYLLABLES = re.findall(
    r"\w+",
    "ba be bo da de do fa fi ga go ha hi jo ka ki la lo ma mi na no pa pe ra ri sa so ta ti va vo wa ze zu",
)
_ARTICLES = ("a ", "an ", "the ")


class Negatives:
    """Draws out-of-scope questions. `written` are the hand-written ones per language, used for training."""

    def __init__(self, written: dict[str, Sequence[str]]) -> None:
        self._written = written
        self._lexicon = load_lexicon("outofscope")

    def draw(self, lang: str, rng: random.Random) -> tuple[str, float]:
        """Return a question and how strongly it may be rewritten afterwards (0 to 1)."""
        kind = rng.random()
        if kind < 0.45 and self._written[lang]:
            return rng.choice(self._written[lang]), 0.8
        if kind < 0.58:
            return rng.choice(self._lexicon[lang]["near_misses"]), 0.6
        if kind < 0.90:
            return self.from_template(lang, rng), 0.7
        if kind < 0.97:
            return self.fragments(lang, rng), 0.3
        return nonsense(lang, rng), 0.0

    def from_template(self, lang: str, rng: random.Random) -> str:
        """Return a template filled with one or two nouns."""
        table = self._lexicon[lang]
        template = rng.choice(table["templates"])
        first, second = rng.sample(table["nouns"], 2)
        if lang == "en" and rng.random() < 0.6:
            first, second = _bare(first), _bare(second)
        return template.replace("{x}", first).replace("{y}", second)

    def fragments(self, lang: str, rng: random.Random) -> str:
        """Return a few everyday words in a row, a question without sense."""
        table = self._lexicon[lang]
        words = rng.sample(table["fragments"], rng.randint(2, 5)) + rng.sample(table["nouns"], rng.randint(0, 2))
        rng.shuffle(words)
        return ("" if lang == "zh" else " ").join(words)


def _bare(noun: str) -> str:
    for article in _ARTICLES:
        if noun.startswith(article):
            return noun[len(article) :]
    return noun


def nonsense(lang: str, rng: random.Random) -> str:
    """Return made-up words or characters drawn from the whole common block."""
    if lang == "zh":
        return "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(rng.randint(2, 8)))
    if rng.random() < 0.3:
        return "".join(rng.choice("asdfghjklqwertzuiopyxcvbnm") for _ in range(rng.randint(3, 10)))
    words = ["".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 3))) for _ in range(rng.randint(1, 4))]
    return " ".join(words)

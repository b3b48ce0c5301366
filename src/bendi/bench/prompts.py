"""What engines are asked: prompts of a wanted length, in token numbers or in text, with nothing in them that an engine
could have computed before.

The same block asks every configuration the same things, so that they can be compared in pairs; within a configuration
no prompt is ever repeated, unless the cell is about a warm cache. Token numbers are exact, and are used where every
engine of the study takes them; a text is cut to about the wanted length from what earlier answers showed about the
model's tokens, and what it really had is told by the engine.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from bendi.errors import ConfigError, NotFoundError
from bendi.i18n import _
from bendi.messages import GenerateRequest, Message, Sampling
from bendi.results import Cell, Workload

BUILT_IN = "built-in"
_FIRST_TOKEN = 300
"""Numbers below are bytes and special tokens."""
_FIRST_GUESS_CHARS_PER_TOK = 4.0
_LARGEST_TEXT_BYTES = 64 << 20
_GREEDY = Sampling(temperature=0.0, seed=1)


@dataclass(frozen=True)
class Asked:
    """A prompt: `past`, computed before and not timed, then what is new; as token numbers or as texts."""

    past: tuple[int, ...] | str
    prompt: tuple[int, ...] | str

    @property
    def whole(self) -> tuple[int, ...] | str:
        if isinstance(self.past, str) or isinstance(self.prompt, str):
            return f"{self.past}{self.prompt}"
        return self.past + self.prompt

    def request(self, answer_tok: int) -> GenerateRequest:
        return GenerateRequest(prompt=self.whole, max_tokens=answer_tok, ignore_end=True, sampling=_GREEDY)

    def past_request(self) -> GenerateRequest:
        """Only what is to be computed before."""
        return GenerateRequest(prompt=self.past, max_tokens=1, ignore_end=True, sampling=_GREEDY)


@dataclass
class Ruler:
    """How many characters of a text one token of a model has, as answers showed."""

    chars_per_tok: float = _FIRST_GUESS_CHARS_PER_TOK
    _seen: tuple[int, int] = field(default=(0, 0))

    def learn(self, chars: int, tokens: int) -> None:
        if tokens > 0:
            self._seen = self._seen[0] + chars, self._seen[1] + tokens
            self.chars_per_tok = self._seen[0] / self._seen[1]

    def chars(self, tokens: int) -> int:
        return max(round(tokens * self.chars_per_tok), 1)


class Prompts:
    """Prompts of one cell in one block. `vocab_size`: of the model where token numbers are used, else None."""

    def __init__(self, cell: Cell, block: int, seed: int, vocab_size: int | None, ruler: Ruler, folder: Path) -> None:
        self._workload = cell.workload
        # Not the configuration: every one of them is asked the same.
        self._source = random.Random(f"{seed}/{block}/{cell.workload}/{cell.concurrency}/{cell.cache}")
        self._vocab_size, self._ruler = vocab_size, ruler
        self._text = collection(cell.workload.text, folder) if cell.workload.text else ""
        self._past = self._take(cell.workload.depth_tok)

    def next(self) -> Asked:
        return Asked(self._past, self._take(self._workload.prompt_tok))

    def said(self) -> Message:
        """The next turn of a user in a conversation."""
        return Message("user", self._words(self._workload.prompt_tok))

    def _take(self, tokens: int) -> tuple[int, ...] | str:
        if self._vocab_size is not None and not self._text:
            return tuple(self._source.randrange(_FIRST_TOKEN, self._vocab_size) for _ in range(tokens))
        return self._words(tokens) if tokens else ""

    def _words(self, tokens: int) -> str:
        """About so many tokens. It begins with a number that no other prompt begins with."""
        nonce = f"{self._source.getrandbits(40):x}: "
        wanted = self._ruler.chars(tokens)
        if self._text:
            start = self._source.randrange(max(len(self._text) - wanted, 1))
            return (nonce + self._text[start : start + wanted])[:wanted] + "\n"
        words = [nonce]
        length = len(nonce)
        while length < wanted:
            word = self._source.choice(_any_words())
            words.append(word)
            length += len(word) + 1
        return " ".join(words)[:wanted] + "\n"


def takes_tokens(workload: Workload) -> bool:
    """Whether a workload can be asked in token numbers."""
    return not workload.text and workload.turns == 1


@cache
def collection(name: str, folder: Path) -> str:
    """The text that prompts are taken from: what comes with bendi (`built-in`, `built-in-zh`), or a file. Raises
    NotFoundError and ConfigError."""
    if name.startswith(BUILT_IN):
        return _built_in(name.removeprefix(BUILT_IN).strip("-") or "en")
    path = folder / Path(name).expanduser()
    try:
        if path.stat().st_size > _LARGEST_TEXT_BYTES:
            raise ConfigError(_("{path} is too large.").format(path=path))
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(_("There is no text {path}.").format(path=path), hint=f'text = "{BUILT_IN}"') from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(_("{path} cannot be read: {error}").format(path=path, error=error)) from error
    if not text.strip():
        raise ConfigError(_("{path} is empty.").format(path=path))
    return text


@cache
def _built_in(language: str) -> str:
    table = built_in_prompts()
    if language not in table:
        raise ConfigError(
            _("There are no prompts in {language!r}.").format(language=language),
            hint=", ".join(f"{BUILT_IN}-{name}" for name in table),
        )
    return "\n\n".join(table[language])


@cache
def _any_words() -> tuple[str, ...]:
    return tuple(sorted({word for word in _built_in("en").split() if word.isalpha()}))


@cache
def built_in_prompts() -> dict[str, list[str]]:
    """The prompts that come with bendi, by language."""
    text = files("bendi").joinpath("assets", "prompts.toml").read_text("utf-8")
    return {language: list(rows["prompts"]) for language, rows in tomllib.loads(text).items()}

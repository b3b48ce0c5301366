"""What engines are asked: prompts of a wanted length, in token numbers or in text, with nothing in them that an engine
could have computed before.

The same block asks every configuration the same things, so that they can be compared in pairs; within a configuration
no prompt is ever repeated, unless the cell is about a warm cache. Token numbers are exact, and are used where every
engine of the study takes them; a text is cut to about the wanted length from what a first question showed about the
model's tokens, and what it really had is told by the engine.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from functools import cache, cached_property
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


@dataclass
class Ruler:
    """How many characters of a text one token of a model has. Told once (`repeats.measure` asks the engine), and then
    kept: every configuration is to be asked the same."""

    chars_per_tok: float = 0.0

    @property
    def known(self) -> bool:
        return self.chars_per_tok > 0

    def learn(self, chars: int, tokens: int) -> None:
        self.chars_per_tok = chars / max(tokens, 1)

    def chars(self, tokens: int) -> int:
        return max(round(tokens * (self.chars_per_tok or _FIRST_GUESS_CHARS_PER_TOK)), 1)


class Prompts:
    """Prompts of one cell in one block. `vocab_size`: of the model where token numbers are used, else None. Those for
    warming up come from a source of their own: how many there are must not change those that are timed."""

    def __init__(self, cell: Cell, block: int, seed: int, vocab_size: int | None, ruler: Ruler, folder: Path) -> None:
        self._workload = cell.workload
        # Not the configuration: every one of them is asked the same.
        name = f"{seed}/{block}/{cell.workload}/{cell.concurrency}/{cell.cache}"
        self._timed, self._warming, self._of_past = (random.Random(f"{name}{end}") for end in ("", "/warm", "/past"))
        self._vocab_size, self._ruler = vocab_size, ruler
        self._text = collection(cell.workload.text, folder) if cell.workload.text else ""

    @property
    def in_tokens(self) -> bool:
        return self._vocab_size is not None and not self._text

    def next(self, *, warm_up: bool = False) -> Asked:
        return Asked(self._past, self._take(self._source(warm_up), self._workload.prompt_tok))

    def past(self) -> Asked:
        """Only what stands before every prompt."""
        return Asked(self._past, () if self.in_tokens else "")

    def said(self, *, warm_up: bool = False) -> Message:
        """The next turn of a user in a conversation."""
        return Message("user", self._words(self._source(warm_up), self._workload.prompt_tok))

    def sample(self, chars: int) -> str:
        """A text of the same kind, to find out how long its tokens are; the same one for everybody."""
        return self._written(random.Random(f"ruler/{chars}"), chars)

    @cached_property
    def _past(self) -> tuple[int, ...] | str:
        return self._take(self._of_past, self._workload.depth_tok)

    def _source(self, warm_up: bool) -> random.Random:
        return self._warming if warm_up else self._timed

    def _take(self, source: random.Random, tokens: int) -> tuple[int, ...] | str:
        if self._vocab_size is not None and not self._text:
            return tuple(source.randrange(_FIRST_TOKEN, self._vocab_size) for _ in range(tokens))
        return self._words(source, tokens) if tokens else ""

    def _words(self, source: random.Random, tokens: int) -> str:
        """About so many tokens."""
        return self._written(source, self._ruler.chars(tokens))

    def _written(self, source: random.Random, chars: int) -> str:
        """It begins with a number that no other prompt begins with. A collection that is too short begins again."""
        nonce = f"{source.getrandbits(40):x}: "
        if self._text:
            start = source.randrange(max(len(self._text) - chars, 1))
            times = -(-(start + chars) // len(self._text))
            return (nonce + (self._text * times)[start : start + chars])[:chars] + "\n"
        words = [nonce]
        length = len(nonce)
        while length < chars:
            word = source.choice(_any_words())
            words.append(word)
            length += len(word) + 1
        return " ".join(words)[:chars] + "\n"


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

"""The facts the demo model knows: `topics/*.toml` read, checked and offered as plain data."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOPICS_DIR = HERE / "topics"
LEXICON_DIR = HERE / "lexicon"
LANGUAGES = ("en", "zh")
UNKNOWN = "unknown"
PARAPHRASES = "paraphrases"

_HAN = re.compile(r"[\u3400-\u9fff]")
_SEPARATOR = (re.compile(r"\n"), re.compile(r"[\n|]"))
_NOT_WORD = re.compile(r"[\W_]+")


class TopicError(ValueError):
    """A topic file breaks the rules of its format."""


@dataclass(frozen=True)
class Entry:
    """One fact in one language: the answer, the regexes that recognise it, the ways to ask for it."""

    answer: str
    must: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Topic:
    """One fact in every language of `LANGUAGES`; `page` names the guide page it belongs to."""

    id: str
    page: str
    entries: Mapping[str, Entry]


def language_of(text: str) -> str:
    """Return "zh" when the text holds a Chinese character, else "en"."""
    return "zh" if _HAN.search(text) else "en"


def normalise(question: str) -> str:
    """Return the question without case, blanks and punctuation: equal strings count as the same question."""
    return _NOT_WORD.sub("", question.casefold())


def _entry(where: str, raw: object) -> Entry:
    if not isinstance(raw, dict):
        raise TopicError(f"{where}: language table missing")
    try:
        return Entry(str(raw["answer"]).strip(), tuple(raw["must"]), tuple(dict.fromkeys(raw["questions"])))
    except KeyError as error:
        raise TopicError(f"{where}: key {error} missing") from error


def load_topics(folder: Path = TOPICS_DIR) -> list[Topic]:
    """Read all topics in file and document order. Raises TopicError for a broken or doubled topic."""
    topics: list[Topic] = []
    seen: set[str] = set()
    for path in sorted(folder.glob("*.toml")):
        if path.stem == UNKNOWN:
            continue
        for raw in tomllib.loads(path.read_text(encoding="utf-8")).get("topic", []):
            name = str(raw.get("id", ""))
            if not name or name in seen:
                raise TopicError(f"{path.name}: topic id {name!r} is missing or used twice")
            seen.add(name)
            entries = {lang: _entry(f"{path.name}:{name}:{lang}", raw.get(lang)) for lang in LANGUAGES}
            topics.append(Topic(name, str(raw.get("page", name)), entries))
    return topics


def load_unknown(folder: Path = TOPICS_DIR) -> Topic:
    """Read the answer and the hand-written questions for everything the model does not know."""
    path = folder / f"{UNKNOWN}.toml"
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    return Topic(UNKNOWN, UNKNOWN, {lang: _entry(f"{path.name}:{lang}", raw.get(lang)) for lang in LANGUAGES})


def load_lexicon(name: str) -> dict[str, dict[str, list[str]]]:
    """Read `lexicon/<name>.toml`: language -> key -> items, one per line (in the paraphrases "|" divides them too)."""
    raw = tomllib.loads((LEXICON_DIR / f"{name}.toml").read_text(encoding="utf-8"))
    return {
        lang: {
            key: [line.strip() for line in _SEPARATOR[name == PARAPHRASES].split(value) if line.strip()]
            for key, value in table.items()
        }
        for lang, table in raw.items()
    }


def split_holdout(questions: tuple[str, ...], count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (training, held out): `count` questions taken at even distances, never the first one."""
    if count <= 0 or len(questions) <= count + 1:
        return questions, ()
    step = len(questions) / count
    held = {questions[min(len(questions) - 1, int(step * (index + 0.6)))] for index in range(count)}
    return tuple(q for q in questions if q not in held), tuple(q for q in questions if q in held)

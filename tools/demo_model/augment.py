"""Ways to say the same question differently: synonyms, frames, typos, lost words, case and punctuation.

Every function takes its random numbers from the `random.Random` it is given, so a seed fixes the whole corpus.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .topics import LANGUAGES, language_of, load_lexicon

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the is are was do does did of to for in on at it its my i me you we be can could should would will what"
        " which how why when where that this with and please tell explain about if there have has am your some any so"
        " mean",
    )
)
_STOP_ZH = re.compile(
    r"请问|什么是|是什么意思|是什么|怎么样|怎么|如何|为什么|吗|呢|的|了|我|有|是|请|一下|会|能|要|应该|可以|需要"
)
_ABOUT_MODELS = re.compile(r"bendi|local|llama|model|本地|模型|my machine|at home|my PC", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_END = re.compile(r"[\s?!.,;:。？！，；：…]+$")
_KEYBOARD = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "ko", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
_HOMOPHONES = {
    "显存": "现存", "模型": "模形", "量化": "亮化", "内存": "内纯", "缓存": "换存", "权重": "全重", "显卡": "现卡",
    "速度": "素度", "参数": "餐数", "下载": "下栽", "为什么": "为神马", "什么": "神马", "怎么": "怎莫", "带宽": "代宽",
    "推荐": "推存", "安装": "按装", "专家": "砖家", "困惑度": "困或度", "线程": "现程", "温度": "温渡", "本地": "本第",
}  # fmt: skip
_TRADITIONAL = str.maketrans(
    "内显载权缓压缩为么样办选择应该处语说问题线带宽电脑卡运网络设开关删专显张总结译写读数据录个们会这还没较优势损",
    "內顯載權緩壓縮為麼樣辦選擇應該處語說問題線帶寬電腦卡運網絡設開關刪專顯張總結譯寫讀數據錄個們會這還沒較優勢損",
)


@dataclass(frozen=True)
class Rates:
    """How often each change is applied to a question (probabilities)."""

    untouched: float = 0.12
    synonyms: float = 0.65
    per_synonym: float = 0.4
    prefix: float = 0.30
    suffix: float = 0.22
    keywords: float = 0.06
    drop_words: float = 0.18
    shuffle: float = 0.04
    typos: float = 0.18
    lower: float = 0.3
    upper: float = 0.02
    no_end: float = 0.35


class Augmenter:
    """Rewrites questions; holds the synonym tables and frames of both languages."""

    def __init__(self, rates: Rates | None = None) -> None:
        self.rates = rates or Rates()
        self.frames = load_lexicon("frames")
        self._plain_frames = {
            lang: {key: [f for f in rows if not _ABOUT_MODELS.search(f)] for key, rows in table.items()}
            for lang, table in self.frames.items()
        }
        synonyms = load_lexicon("synonyms")
        self._others: dict[str, dict[str, list[str]]] = {}
        self._pattern: dict[str, re.Pattern[str]] = {}
        for lang in LANGUAGES:
            others: dict[str, list[str]] = defaultdict(list)
            for line in synonyms[lang]["groups"]:
                members = line.split("|")
                for member in members:
                    others[member.lower()] += [m for m in members if m.lower() != member.lower()]
            sources = sorted((m for m in others if lang == "en" or len(m) > 1), key=len, reverse=True)
            body = "|".join(re.escape(m) for m in sources)
            edge = ("(?<![A-Za-z0-9])", "(?![A-Za-z0-9])") if lang == "en" else ("", "")
            self._others[lang] = dict(others)
            self._pattern[lang] = re.compile(f"{edge[0]}(?:{body}){edge[1]}", re.IGNORECASE)

    def rewrite(self, question: str, rng: random.Random, strength: float = 1.0, *, in_scope: bool = True) -> str:
        """Return another way to ask `question`; `strength` scales every probability (0 leaves it as it is).

        Questions that are not `in_scope` get no frame that speaks of local models.
        """
        rates = self.rates
        if rng.random() < rates.untouched or strength <= 0:
            return question
        lang, original = language_of(question), question

        def hit(rate: float) -> bool:
            return rng.random() < rate * strength

        if hit(rates.synonyms):
            question = self.swap_synonyms(question, lang, rng)
        if hit(rates.keywords):
            question = keywords(question, lang)
        elif hit(rates.drop_words):
            question = drop_pieces(question, lang, rng)
        if hit(rates.shuffle):
            question = shuffle(question, lang, rng)
        if hit(rates.typos):
            question = typo(question, lang, rng)
        if hit(rates.no_end):
            question = _END.sub("", question)
        question = self._frame(question, lang, rng, strength, in_scope)
        if hit(rates.lower):
            question = question.lower()
        elif hit(rates.upper):
            question = question.upper()
        elif rng.random() < 0.3:
            question = question[:1].upper() + question[1:]
        question = " ".join(question.split())
        return question if question and language_of(question) == lang else original

    def swap_synonyms(self, question: str, lang: str, rng: random.Random) -> str:
        """Return the question with some words of the synonym table replaced."""

        def swap(match: re.Match[str]) -> str:
            found = match.group(0)
            if rng.random() > self.rates.per_synonym:
                return found
            return rng.choice(self._others[lang][found.lower()])

        return self._pattern[lang].sub(swap, question)

    def _frame(self, question: str, lang: str, rng: random.Random, strength: float, in_scope: bool) -> str:
        frames = self.frames[lang] if in_scope else self._plain_frames[lang]
        if rng.random() < self.rates.prefix * strength:
            prefix = rng.choice(frames["prefixes"])
            if lang == "zh":
                question = prefix + question
            else:
                lowered = question[:1].lower() + question[1:] if rng.random() < 0.6 else question
                question = f"{prefix} {lowered}"
        if rng.random() < self.rates.suffix * strength:
            suffix = rng.choice(frames["suffixes"])
            if lang == "zh" or suffix[0] in ",?!.":
                question = _END.sub("", question) + suffix
            elif suffix[0].isupper() or suffix[0] == ":":
                question = f"{question} {suffix}"
            else:
                question = f"{_END.sub('', question)} {suffix}"
        return question


def keywords(question: str, lang: str) -> str:
    """Return only the words that carry the meaning, as typed into a search box."""
    if lang == "zh":
        short = " ".join(_STOP_ZH.sub(" ", _END.sub("", question)).split())
    else:
        short = " ".join(w for w in _END.sub("", question).split() if w.lower().strip(",.?!") not in STOP_WORDS)
    return short if len(short) >= 3 else question


def drop_pieces(question: str, lang: str, rng: random.Random) -> str:
    """Return the question with one or two words (characters in Chinese) lost; short questions stay whole."""
    pieces: Sequence[str] = list(question) if lang == "zh" else question.split()
    if len(pieces) < 5:
        return question
    keep = list(pieces)
    for _ in range(rng.choice((1, 1, 2))):
        index = rng.randrange(len(keep))
        if not any(ch.isdigit() for ch in keep[index]):
            del keep[index]
    return ("" if lang == "zh" else " ").join(keep)


def shuffle(question: str, lang: str, rng: random.Random) -> str:
    """Return the question with its halves exchanged or its words mixed."""
    if lang == "zh":
        middle = len(question) // 2
        return _END.sub("", question[middle:]) + question[:middle]
    words = _END.sub("", question).split()
    if rng.random() < 0.5:
        rng.shuffle(words)
        return " ".join(words)
    middle = len(words) // 2
    return " ".join(words[middle:] + words[:middle])


def typo(question: str, lang: str, rng: random.Random) -> str:
    """Return the question with one or two slips of the fingers."""
    if lang == "zh":
        return _typo_zh(question, rng)
    for _ in range(rng.choice((1, 1, 2))):
        words = [m for m in _WORD.finditer(question) if len(m.group(0)) > 3]
        if not words:
            return question
        word = rng.choice(words)
        at = rng.randrange(word.start() + 1, word.end() - 1)
        kind = rng.randrange(4)
        if kind == 0:
            question = question[:at] + question[at + 1 :]
        elif kind == 1:
            question = question[:at] + question[at] + question[at:]
        elif kind == 2:
            question = question[:at] + question[at + 1] + question[at] + question[at + 2 :]
        else:
            near = rng.choice(_KEYBOARD.get(question[at].lower(), question[at]))
            question = question[:at] + near + question[at + 1 :]
    return question


def _typo_zh(question: str, rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        for right, wrong in rng.sample(sorted(_HOMOPHONES.items()), len(_HOMOPHONES)):
            if right in question:
                return question.replace(right, wrong, 1)
    if kind == 1:
        return question.translate(_TRADITIONAL)
    if kind == 2:
        return re.sub(r"\s+", "", question)
    return re.sub(r"(?<=[A-Za-z0-9])(?=[\u4e00-\u9fff])|(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9])", " ", question)

"""Personas: what is written is read, edits apply at once, comments stay, mistakes are named with their line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bendi.chat.parameters import PARAMETERS, Parameters, check_value, join, parse_value
from bendi.chat.personas import BUILTIN_FILE, Persona, PersonaBook, parse_personas
from bendi.chat.personas_edit import save_persona
from bendi.errors import ConfigError, NotFoundError, UsageError
from bendi.messages import Sampling

FILE = """\
# my personas
[writer]
system = "You write."  # short
temperature = 0.9
template_options = { enable_thinking = false }

["小说 家"]
model = "qwen3:8b"
stop = "###"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "personas.toml"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")


def test_sections_become_personas(path: Path) -> None:
    _write(path, FILE)
    book = PersonaBook(path)
    writer = book.get("writer")
    assert (writer.system, writer.values["temperature"], writer.builtin) == ("You write.", 0.9, False)
    assert book.get("小说 家") == Persona("小说 家", model="qwen3:8b", values={"stop": ["###"]})
    assert list(book.all())[:2] == ["writer", "小说 家"]


def test_built_in_personas_are_sound_and_in_both_languages(path: Path) -> None:
    personas = PersonaBook(path).all()
    assert {"translator", "翻译", "summarizer", "摘要", "concise", "简洁"} <= set(personas)
    for persona in personas.values():
        assert persona.builtin and persona.description and len(persona.system) > 40
        assert not persona.system.startswith("\n") and not persona.system.endswith(("\n", "\\"))
    assert parse_personas(BUILTIN_FILE.read_text("utf-8"), BUILTIN_FILE)


def test_an_edit_applies_to_the_next_look(path: Path) -> None:
    book = PersonaBook(path)
    with pytest.raises(NotFoundError):
        book.get("writer")
    _write(path, FILE)
    assert book.get("writer").system == "You write."
    _write(path, FILE.replace("You write.", "You sing."))
    os.utime(path, ns=(1, 1))
    assert book.get("writer").system == "You sing."
    _write(path, '[translator]\nsystem = "mine"\n')
    assert book.get("translator") == Persona("translator", system="mine")
    path.unlink()
    assert book.get("translator").builtin


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[writer]\nsystm = "x"\n', ["line 2", "systm", "system"]),
        ("[writer]\n\ntemperature = 9\n", ["line 3", "temperature", "0 to 5"]),
        ('[writer]\ntop_k = "many"\n', ["line 2", "top_k", "whole number"]),
        ("[a]\nseed = 1\n[b]\nseed = -1\n", ["line 4", "persona b", "seed"]),
        ("[writer]\nsystem = 3\n", ["line 2", "system", "quotes"]),
        ("[writer]\nsystem = x\n", ["line 2"]),
        ('system = "x"\n', ["system", "outside"]),
        ('[a.b]\nsystem = "x"\n', ["b", "quoted"]),
        ("[翻译]\n", ["line 1", "quoted"]),
        ("[none]\n", ["line 1", "none"]),
        ('[writer]\ncontext_policy = "drop"\n', ["error, ask, compact, slide"]),
        ("[writer]\nstop = [1]\n", ["list of texts"]),
        ("[writer]\ntemplate_options = 1\n", ["table of options"]),
    ],
)
def test_mistakes_are_named(path: Path, text: str, told: list[str]) -> None:
    _write(path, text)
    with pytest.raises(ConfigError) as caught:
        PersonaBook(path).all()
    whole = f"{caught.value.message} {caught.value.hint}"
    assert str(path) in whole
    for word in told:
        assert word in whole


def test_a_file_that_is_not_text_is_a_clear_error(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes("[writer]\nsystem = '中文'".encode("gb18030"))
    with pytest.raises(ConfigError, match="cannot be read"):
        PersonaBook(path).all()
    path.write_bytes(b"\xef\xbb\xbf[writer]\nsystem = 'with a byte order mark'\n")
    assert PersonaBook(path).get("writer").system == "with a byte order mark"


def test_a_missing_persona_suggests_the_nearest(path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        PersonaBook(path).get("translater")
    assert "translator" in caught.value.hint


def test_saving_keeps_comments_and_other_sections(path: Path) -> None:
    _write(path, FILE)
    save_persona(path, Persona("writer", system="You write.", values={"temperature": 0.1}))
    text = path.read_text("utf-8")
    assert '# my personas\n[writer]\nsystem = "You write."  # short\ntemperature = 0.1\n' in text
    assert text.endswith('["小说 家"]\nmodel = "qwen3:8b"\nstop = "###"\n')
    save_persona(path, Persona("新", system="第一行\n第二行"))
    assert PersonaBook(path).get("新").system == "第一行\n第二行"
    assert path.read_text("utf-8").startswith(text)
    broken = "[writer\n"
    _write(path, broken)
    with pytest.raises(ConfigError):
        save_persona(path, Persona("other"))
    assert path.read_text("utf-8") == broken


def test_a_linked_file_stays_a_link(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "personas.toml"
    target.parent.mkdir()
    target.write_text(FILE, "utf-8")
    path.parent.mkdir()
    path.symlink_to(target)
    save_persona(path, Persona("new", system="x"))
    assert path.is_symlink() and target.read_text("utf-8").startswith(FILE)
    assert PersonaBook(path).get("new").system == "x"


_text = st.text(st.characters(codec="utf-8"), max_size=60)
_name = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda name: name == name.strip() and name.isprintable() and name != "none"
)
_values: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 5),
        "top_k": st.integers(0, 1_000_000),
        "seed": st.integers(0, 2**32 - 1),
        "max_tokens": st.integers(1, 10**6),
        "stop": st.lists(_text.filter(bool), max_size=3),
        "template_options": st.dictionaries(_text.filter(bool), st.one_of(st.booleans(), st.integers(0, 9), _text)),
        "context_policy": st.sampled_from(["error", "ask", "compact", "slide"]),
    },
)
_persona = st.builds(Persona, _name, description=_text, model=_text, system=_text, values=_values)


@settings(max_examples=50, deadline=None)
@given(st.lists(_persona, max_size=4, unique_by=lambda persona: persona.name))
def test_any_personas_survive_the_file(tmp_path_factory: pytest.TempPathFactory, personas: list[Persona]) -> None:
    path = tmp_path_factory.mktemp("personas") / "personas.toml"
    for persona in personas:
        save_persona(path, persona)
    for persona in reversed(personas):
        save_persona(path, persona)  # replacing by the same changes nothing
    book = PersonaBook(path)
    assert [book.get(persona.name) for persona in personas] == personas


def test_later_layers_win_and_options_are_joined() -> None:
    persona = {"temperature": 0.2, "max_tokens": 50, "stop": ["a"], "template_options": {"enable_thinking": True}}
    session = {"temperature": 0.7, "max_tokens": None, "template_options": {"style": "short"}}
    assert join(persona, session, {"context_policy": "slide"}) == Parameters(
        sampling=Sampling(temperature=0.7),
        stop=("a",),
        template_options={"enable_thinking": True, "style": "short"},
        policy="slide",
    )
    assert join() == Parameters()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0", 0.0), ("temperature", "1e-1", 0.1), ("top_k", "40", 40), ("top_k", "40.0", 40),
        ("stop", "###", ["###"]), ("stop", "12", ["12"]), ("stop", '["a", "b"]', ["a", "b"]),
        ("template_options", '{"a": 1}', {"a": 1}), ("context_policy", "compact", "compact"),
    ],
)  # fmt: skip
def test_texts_become_values(name: str, text: str, value: object) -> None:
    assert parse_value(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("temperature", "hot"), ("temperature", "NaN"), ("temperature", "true"), ("temperature", "6"), ("seed", "1.5"),
        ("seed", "-1"), ("max_tokens", "0"), ("top_p", "Infinity"), ("colour", "red"), ("template_options", "[1]"),
        ("context_policy", "never"), ("stop", "[1]"), ("stop", ""),
    ],
)  # fmt: skip
def test_nonsense_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError):
        parse_value(name, text)


def test_every_parameter_refuses_a_wrong_type() -> None:
    for name in PARAMETERS:
        with pytest.raises(UsageError):
            check_value(name, object())

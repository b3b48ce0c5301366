"""The slash commands of the chat: one row in `COMMANDS` each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from bendi.chat.parameters import PARAMETERS, parse_value
from bendi.chat.personas import NO_PERSONA, Persona
from bendi.chat.personas_edit import save_persona
from bendi.cli.answers import printable
from bendi.cli.job import read_image
from bendi.cli.session import write_session
from bendi.cli.talk import Talk
from bendi.errors import UsageError
from bendi.i18n import N_, _, ngettext

PREFIX = "/"
_RESET = ("-", "none", "default")


class Command(NamedTuple):
    """`run` gets the talk and the text behind the command's name."""

    run: Callable[[Talk, str], None]
    arguments: str
    summary: str


def run_command(talk: Talk, line: str) -> None:
    """Carries out `line`, which begins with a slash; the beginning of a command's name is enough.

    Raises UsageError for an unknown command.
    """
    typed, _space, argument = line[len(PREFIX) :].partition(" ")
    name = _ALIASES.get(typed.lower(), typed.lower())
    possible = [name] if name in COMMANDS else [command for command in COMMANDS if name and command.startswith(name)]
    if len(possible) != 1:
        shown = printable(PREFIX + typed)
        message = _("{name} may mean {names}") if possible else _("there is no command {name}")
        names = ", ".join(PREFIX + command for command in possible)
        raise UsageError(
            message.format(name=shown, names=names),
            hint=_("/help lists them. A message that begins with a slash needs a space before it."),
        )
    COMMANDS[possible[0]].run(talk, argument.strip())


def _help(talk: Talk, _argument: str) -> None:
    rows = [(f"{PREFIX}{name} {command.arguments}".rstrip(), _(command.summary)) for name, command in COMMANDS.items()]
    width = max(len(left) for left, _right in rows)
    lines = [f"  {left:<{width}}  {right}" for left, right in rows]
    lines += [
        "",
        _('Enter sends. Alt-Enter, or a backslash at the end, begins a new line; """ begins and ends a block.'),
        _("Ctrl-C stops an answer; Ctrl-D leaves."),
    ]
    talk.screen.note("\n".join(lines))


def _system(talk: Talk, argument: str) -> None:
    if argument in _RESET:
        talk.setup.set_system(None)
        talk.screen.note(_("The system prompt is the persona's again, or none."))
    elif argument:
        talk.setup.set_system(argument)
        talk.screen.note(_("The system prompt applies from the next message on."))
    else:
        talk.screen.note(talk.setup.system or _("There is no system prompt."))


def _set(talk: Talk, argument: str) -> None:
    name, _space, text = argument.partition(" ")
    if not name:
        _show_parameters(talk)
        return
    name = {"policy": "context_policy"}.get(name, name.replace("-", "_"))
    if name == "think":
        if text not in ("on", "off", *_RESET):
            raise UsageError(_("/set think takes on, off or none."))
        talk.setup.set_parameter("template_options", None)
        if text in ("on", "off"):
            talk.setup.set_parameter("template_options", {"enable_thinking": text == "on"})
    elif not text:
        if name not in PARAMETERS:
            parse_value(name, text)
        _show_parameters(talk, name)
        return
    else:
        talk.setup.set_parameter(name, None if text in _RESET else parse_value(name, text))
    talk.screen.note(_("Applies from the next message on."))


def _show_parameters(talk: Talk, only: str = "") -> None:
    parameters = talk.setup.parameters
    shown: dict[str, Any] = {
        **asdict(parameters.sampling),
        "max_tokens": parameters.max_tokens,
        "stop": list(parameters.stop) or None,
        "template_options": dict(parameters.template_options) or None,
        "context_policy": talk.setup.policy,
    }
    default = _("the default of the model")
    lines = [
        f"  {name} = {default if value is None else json.dumps(value, ensure_ascii=False)}"
        for name, value in shown.items()
        if only in ("", name)
    ]
    talk.screen.note("\n".join(lines))


def _persona(talk: Talk, argument: str) -> None:
    word, _space, name = argument.partition(" ")
    if not argument:
        used = talk.setup.session.persona
        lines = [
            f"{'*' if persona.name == used else ' '} {persona.name}  {persona.description}".rstrip()
            for persona in talk.setup.personas.all().values()
        ]
        talk.screen.note("\n".join(lines))
    elif word == "save" and name.strip():
        _save_as_persona(talk, name.strip())
    else:
        persona = talk.setup.use_persona(argument)
        if persona is None:
            talk.screen.note(_("No persona from the next message on."))
            return
        talk.screen.note(_("{name} answers from the next message on.").format(name=persona.name))
        model = talk.setup.session.model
        if persona.model and persona.model != model:
            text = _("It is meant for {wanted}; this chat stays with {model}. To change: bendi run @{name}")
            talk.screen.note(text.format(wanted=persona.model, model=model, name=persona.name))


def _save_as_persona(talk: Talk, name: str) -> None:
    old = talk.setup.persona
    chosen: Mapping[str, Any] = talk.setup.session.settings.get("set", {})
    values = {**(old.values if old else {}), **chosen}
    persona = Persona(name, model=talk.setup.session.model, system=talk.setup.system, values=values)
    save_persona(talk.setup.personas.path, persona)
    talk.setup.use_persona(name)
    talk.screen.note(_("Saved in {path}.").format(path=talk.setup.personas.path))


def _save(talk: Talk, argument: str) -> None:
    session = talk.setup.session
    if not argument:
        if talk.kept:
            text = _("This conversation is saved as it goes. To continue it: bendi run --session {id}")
            talk.screen.note(text.format(id=session.id))
        else:
            talk.screen.note(_("This conversation is not kept (--no-save). /save FILE writes it to a file."))
        return
    path = Path(argument).expanduser()
    if path.exists():
        raise UsageError(_("{path} exists already.").format(path=path), hint=_("Choose another name."))
    messages = talk.conversation.messages
    write_session(path, session, messages, talk.sessions.images, as_json=path.suffix.lower() == ".json")
    talk.screen.note(_("Saved in {path}.").format(path=path))


def _undo(talk: Talk, _argument: str) -> None:
    question = talk.conversation.undo()
    if question is None:
        talk.screen.note(_("There is nothing to take back."))
        return
    talk.suggestion, talk.images = question.content, question.images
    talk.screen.note(_("The last question and its answer are taken back; the question can be changed and sent again."))


def _image(talk: Talk, argument: str) -> None:
    if argument in _RESET:
        talk.images = ()
    elif argument:
        talk.images += (read_image(Path(argument).expanduser()),)
    count = len(talk.images)
    text = ngettext("The next question shows {count} image.", "The next question shows {count} images.", count)
    talk.screen.note(text.format(count=count) if count else _("The next question shows no image."))


def _retry(talk: Talk, _argument: str) -> None:
    talk.retry()


def _tokens(talk: Talk, _argument: str) -> None:
    use = talk.conversation.context_use()
    lines = [
        _("context: {used} of {available} tokens").format(used=use.used_tok, available=use.available_tok),
        _("  system prompt and summary: {tok}").format(tok=use.system_tok),
        _("  conversation: {tok}").format(tok=use.turns_tok),
        _("  kept free for the answer: {tok}").format(tok=use.reserve_tok),
    ]
    if use.left_out:
        text = ngettext(
            "  {count} of {all} messages is not sent any more (it stays in the session)",
            "  {count} of {all} messages are not sent any more (they stay in the session)",
            use.left_out,
        )
        lines.append(text.format(count=use.left_out, all=use.messages))
    talk.screen.note("\n".join(lines))


def _thinking(talk: Talk, _argument: str) -> None:
    talk.thinking = not talk.thinking
    if not talk.thinking:
        talk.screen.note(_("Thinking is folded from now on."))
        return
    if talk.last and talk.last.message.reasoning:
        talk.screen.note(printable(talk.last.message.reasoning))
    talk.screen.note(_("Thinking is shown in full from now on."))


def _title(talk: Talk, argument: str) -> None:
    if argument:
        talk.sessions.change(talk.setup.session_id, title=argument)
    talk.screen.note(talk.setup.session.title or _("This session has no title yet."))


def _new(talk: Talk, _argument: str) -> None:
    talk.begin_anew()
    talk.screen.note(_("A new session begins."))


def _quit(talk: Talk, _argument: str) -> None:
    talk.leaving = True


COMMANDS: Mapping[str, Command] = {
    "help": Command(_help, "", N_("these commands and keys")),
    "system": Command(_system, "[TEXT | none]", N_("show or set the system prompt")),
    "set": Command(_set, "[NAME [VALUE | none]]", N_("show or set parameters; think on|off; policy")),
    "persona": Command(_persona, f"[NAME | {NO_PERSONA} | save NAME]", N_("list, use or make personas")),
    "save": Command(_save, "[FILE]", N_("where this is saved, or a copy as Markdown or .json")),
    "image": Command(_image, "[FILE | none]", N_("show an image with the next question")),
    "undo": Command(_undo, "", N_("take the last question and answer back")),
    "retry": Command(_retry, "", N_("ask the last question again")),
    "tokens": Command(_tokens, "", N_("what fills the context")),
    "thinking": Command(_thinking, "", N_("show or fold the model's thinking")),
    "title": Command(_title, "[TEXT]", N_("show or change the title of the session")),
    "new": Command(_new, "", N_("begin a new session with the same model")),
    "quit": Command(_quit, "", N_("leave")),
}
_ALIASES = {"exit": "quit", "bye": "quit", "q": "quit", "?": "help", "h": "help"}

"""`bendi persona`: what personas there are, and the file that holds the user's own."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys

from bendi.chat.export import persona_record
from bendi.chat.personas import Persona, PersonaBook, check_name
from bendi.chat.personas_edit import save_persona
from bendi.cli import output
from bendi.cli.answers import printable
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.settings import load_settings

_DEFAULT_SYSTEM = "You are a helpful assistant."


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar=_("ACTION"), required=True)
    listing = verbs.add_parser("list", help=_("the personas, your own first"))
    showing = verbs.add_parser("show", help=_("what a persona says"))
    showing.add_argument("name", metavar="NAME")
    editing = verbs.add_parser("edit", help=_("open the file of your personas in your editor"))
    editing.add_argument("name", nargs="?", metavar="NAME", help=_("make sure that it has this one"))
    place = verbs.add_parser("path", help=_("where the file of your personas is"))
    for sub in (listing, showing, place):
        sub.add_argument("--json", action="store_true", help=_("the result as JSON"))


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    book = PersonaBook(settings.personas_file)
    if args.verb == "list":
        _list(args, book)
    elif args.verb == "show":
        _show(args, book)
    elif args.verb == "edit":
        _edit(args, book, settings.editor)
    elif args.json:
        output.json_data({"path": str(book.path), "exists": book.path.exists()})
    else:
        output.data(str(book.path))
    return 0


def _list(args: argparse.Namespace, book: PersonaBook) -> None:
    personas = list(book.all().values())
    if args.json:
        output.json_data([persona_record(persona) for persona in personas])
        return
    rows = [
        [printable(text) for text in (persona.name, persona.model or "-", persona.description)] for persona in personas
    ]
    output.table([_("NAME"), _("MODEL"), _("DESCRIPTION")], rows)


def _show(args: argparse.Namespace, book: PersonaBook) -> None:
    persona = book.get(args.name)
    if args.json:
        output.json_data(persona_record(persona))
        return
    for name, value in persona_record(persona).items():
        if name == "parameters":
            for key, number in persona.values.items():
                output.data(f"{key}: {number}")
        elif value and name not in ("builtin", "system"):
            output.data(f"{name}: {printable(str(value))}")
    if persona.system:
        output.data("\n" + printable(persona.system))


def _edit(args: argparse.Namespace, book: PersonaBook, editor: str | None) -> None:
    if args.name:
        check_name(args.name)
        persona = book.all().get(args.name) or Persona(args.name, system=_DEFAULT_SYSTEM, builtin=True)
        if persona.builtin:
            # New ones, and copies of those that come with bendi: a copy takes the original's place.
            save_persona(book.path, persona)
    elif not book.path.exists():
        save_persona(book.path, Persona("assistant", system=_DEFAULT_SYSTEM))
    command = shlex.split(editor or "")
    if not command or not sys.stdin.isatty():
        if not command:
            output.say(_("No editor is set (VISUAL or EDITOR); the file to edit:"))
        output.data(str(book.path))
        return
    try:
        done = subprocess.run([*command, str(book.path)], check=False)
    except OSError as error:
        raise UsageError(
            _("The editor {editor} cannot be started: {error}").format(editor=command[0], error=error),
            hint=_("Set EDITOR, or edit {path} yourself.").format(path=book.path),
        ) from error
    if done.returncode != 0:
        output.say(_("The editor ended with code {code}.").format(code=done.returncode))
    book.all()  # tells at once what is wrong with the file

"""The `bendi` command: finds the verb, runs it, turns errors into one clear message and an exit code.

`bendi --help` must stay cheap, so the verbs are a table of names and only the chosen one's module is imported; the
modules are `bendi.cli.<module>` with `configure(parser)` and `run(args) -> exit code`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from bendi import __version__
from bendi.errors import BendiError
from bendi.i18n import N_, _

EXIT_INTERRUPTED = 130


class Verb(NamedTuple):
    name: str
    module: str
    summary: str


VERBS = (
    Verb("demo", "demo", N_("show this machine and ask the built-in model a question, all offline")),
    Verb("run", "run", N_("chat with a model, or ask it one question")),
    Verb("fit", "fit", N_("show which models this machine can run, how well and how fast")),
    Verb("plan", "plan", N_("show how a model would run here, before it is downloaded")),
    Verb("pull", "pull", N_("download a model")),
    Verb("list", "list", N_("list the models on this machine")),
    Verb("inspect", "inspect", N_("show what a model says about itself, without downloading it")),
    Verb("show", "show", N_("show what a model file says about itself")),
    Verb("import", "import_", N_("take a model file into the store")),
    Verb("verify", "verify", N_("check models against their hashes")),
    Verb("rm", "rm", N_("delete a model that bendi downloaded")),
    Verb("mv", "mv", N_("move the model store to another folder")),
    Verb("session", "session", N_("list, search, show, export or delete conversations")),
    Verb("persona", "persona", N_("list, show or edit personas")),
    Verb("serve", "serve", N_("serve models to programs: OpenAI, Ollama and Anthropic APIs")),
    Verb("ps", "ps", N_("show what the running server has loaded")),
    Verb("stop", "stop", N_("unload models of the running server, at once")),
    Verb("key", "key", N_("make, list and remove keys to the server")),
    Verb("calibrate", "calibrate", N_("measure how fast this machine is, in less than a minute")),
    Verb("tune", "tune", N_("find the settings with which a model is fastest here, and use them")),
    Verb("bench", "bench", N_("measure speed and energy of models, quantizations and engines, side by side")),
    Verb("report", "report", N_("show what a study found: a page, pictures, tables, or in the terminal")),
    Verb("engine", "engine", N_("build llama.cpp for this CPU; list, test, choose and remove builds")),
    Verb("doctor", "doctor", N_("report this machine, versions, stores and what could leave the machine")),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (see `errors` for the list). Never shows a traceback unless
    `BENDI_DEBUG` is set."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) > 1 and arguments[0] == "help":
            return main([arguments[1], "--help"])
        sys.stdout.write(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"bendi {__version__}\n")
        return 0
    try:
        return _run_verb(arguments[0], arguments[1:])
    except BendiError as error:
        if os.environ.get("BENDI_DEBUG"):
            raise
        _explain(error)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\n" + _("Interrupted.") + "\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`bendi list | head -1`). Nothing more can be written there, and the
        # interpreter must not try when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("BENDI_DEBUG"):
            raise
        return _unexpected(error)


def _run_verb(name: str, arguments: Sequence[str]) -> int:
    import importlib

    from bendi.cli.arguments import Parser

    verb = next((verb for verb in VERBS if verb.name == name), None)
    if verb is None:
        return _unknown_verb(name)
    module = importlib.import_module(f"bendi.cli.{verb.module}")
    parser = Parser(prog=f"bendi {verb.name}", description=_(verb.summary))
    module.configure(parser)
    try:
        parsed = parser.read(arguments)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 2
    code = module.run(parsed)
    assert isinstance(code, int)
    return code


def _overview() -> str:
    width = max(len(verb.name) for verb in VERBS)
    lines = [
        f"bendi 本地 {__version__}: " + _("large language models, private, on this machine"),
        "",
        _("Usage: bendi VERB [options]        bendi VERB --help tells its options"),
        "",
        *(f"  {verb.name:<{width}}  {_(verb.summary)}" for verb in VERBS),
        "",
        _("Start with: bendi demo"),
    ]
    return "\n".join(lines) + "\n"


def _unknown_verb(name: str) -> int:
    import difflib

    close = difflib.get_close_matches(name, [verb.name for verb in VERBS], n=1)
    sys.stderr.write(_("error: there is no verb {name!r}").format(name=name) + "\n")
    if close:
        sys.stderr.write(_("  try: {command}").format(command=f"bendi {close[0]}") + "\n")
    else:
        sys.stderr.write(_("  try: {command}").format(command="bendi --help") + "\n")
    return 2


def _explain(error: BendiError) -> None:
    sys.stdout.flush()
    sys.stderr.write(_("error: {message}").format(message=error.message) + "\n")
    for line in error.hint.splitlines():
        sys.stderr.write(f"  {line}\n")


def _unexpected(error: Exception) -> int:
    """A defect of ours: say so in one line, keep the details where a bug report can find them."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="bendi-error-", suffix=".txt", delete=False, encoding="utf-8") as out:
        traceback.print_exception(error, file=out)
    sys.stderr.write(
        _("error: bendi has a defect ({kind}: {error})").format(kind=type(error).__name__, error=error)
        + "\n  "
        + _("The details are in {path}; nothing was sent anywhere.").format(path=out.name)
        + "\n"
    )
    return 1

"""`bendi session`: conversations, listed, searched, shown, exported, renamed and deleted for good."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bendi.chat.durable import write_durably
from bendi.chat.export import Images, session_markdown, session_record
from bendi.chat.kept_states import KeptStates
from bendi.chat.recovery import damaged_files
from bendi.chat.sessions import Session, SessionStore, StoredMessage
from bendi.cli import output
from bendi.cli.answers import printable
from bendi.errors import DataError, UsageError
from bendi.i18n import _, ngettext
from bendi.settings import load_settings
from bendi.units import MIB

_LARGE_BYTES = 32 * MIB


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar=_("ACTION"), required=True)
    listing = verbs.add_parser("list", help=_("the sessions, the one used last first"))
    listing.add_argument("--limit", type=int, metavar="N", help=_("list N at most"))
    searching = verbs.add_parser("search", help=_("sessions in which all these words occur"))
    searching.add_argument("words", nargs="+", metavar="WORD")
    showing = verbs.add_parser("show", help=_("the messages of a session"))
    showing.add_argument("--all", action="store_true", help=_("also what was taken back"))
    exporting = verbs.add_parser("export", help=_("a session as Markdown or JSON"))
    exporting.add_argument("--format", choices=("markdown", "json"), help=_("default: by the name of FILE"))
    exporting.add_argument("--output", "-o", metavar="FILE", help=_("write to FILE; otherwise to standard output"))
    renaming = verbs.add_parser("rename", help=_("change the title"))
    removing = verbs.add_parser("rm", help=_("delete sessions for good: they cannot be restored"))
    removing.add_argument("ids", nargs="*", metavar="ID")
    removing.add_argument("--all", action="store_true", help=_("every session"))
    removing.add_argument("--yes", "-y", action="store_true", help=_("do not ask"))
    for sub in (showing, exporting, renaming):
        sub.add_argument("id", metavar="ID", help=_("its id, or the beginning of it"))
    renaming.add_argument("title", metavar="TITLE")
    for sub in (listing, searching, showing, exporting, renaming, removing):
        sub.add_argument("--json", action="store_true", help=_("the result as JSON"))


def run(args: argparse.Namespace) -> int:
    actions = {"list": _list, "search": _search, "show": _show, "export": _export, "rename": _rename, "rm": _remove}
    with contextlib.closing(SessionStore(load_settings().sessions_file)) as store:
        for notice in store.notices:
            output.say(notice)
        actions[args.verb](args, store)
    return 0


def _list(args: argparse.Namespace, store: SessionStore) -> None:
    sessions = store.recent(args.limit, owner="")
    if args.json:
        output.json_data([session_record(session) for session in sessions])
    elif not sessions:
        output.say(_("No sessions yet. Start one: bendi run demo"))
    else:
        rows = [
            [session.id, _when(session.updated_s), str(session.messages), session.model, printable(session.title)]
            for session in sessions
        ]
        columns = [_("ID"), _("USED"), _("MESSAGES"), _("MODEL"), _("TITLE")]
        output.table(columns, rows, right=frozenset({2}))


def _search(args: argparse.Namespace, store: SessionStore) -> None:
    hits = store.search(" ".join(args.words), owner="")
    if args.json:
        output.json_data(
            [{**session_record(hit.session), "role": hit.role or None, "excerpt": hit.excerpt} for hit in hits]
        )
    elif not hits:
        output.say(_("No session has all these words."))
    else:
        rows = [
            [hit.session.id, _when(hit.session.updated_s), printable(hit.excerpt or hit.session.title)] for hit in hits
        ]
        output.table([_("ID"), _("USED"), _("TEXT")], rows)


def _show(args: argparse.Namespace, store: SessionStore) -> None:
    session = store.find(args.id)
    messages = store.messages(session.id, superseded=args.all)
    if args.json:
        output.json_data(session_record(session, messages))
        return
    text = session_markdown(session, messages)
    output.data(printable(text) if sys.stdout.isatty() else text, end="")


def _export(args: argparse.Namespace, store: SessionStore) -> None:
    session = store.find(args.id)
    messages = store.messages(session.id)
    by_name = "json" if args.output and args.output.lower().endswith(".json") else "markdown"
    as_json = (args.format or ("json" if args.json else by_name)) == "json"
    if args.output:
        write_session(Path(args.output), session, messages, store.images, as_json=as_json)
        output.say(_("Saved in {path}.").format(path=args.output))
    else:
        output.data(_document(session, messages, store.images, as_json=as_json), end="")


def write_session(
    path: Path, session: Session, messages: Sequence[StoredMessage], images: Images, *, as_json: bool
) -> None:
    """The session as a file, Markdown or JSON, with its images. Raises DataError."""
    content = _document(session, messages, images, as_json=as_json).encode()
    try:
        write_durably(path, content)
    except OSError as error:
        raise DataError(_("{path} cannot be written: {error}").format(path=path, error=error)) from error


def _document(session: Session, messages: Sequence[StoredMessage], images: Images, *, as_json: bool) -> str:
    if not as_json:
        return session_markdown(session, messages, images)
    return json.dumps(session_record(session, messages, images), ensure_ascii=False, indent=2) + "\n"


def _rename(args: argparse.Namespace, store: SessionStore) -> None:
    session = store.change(store.find(args.id).id, title=args.title)
    if args.json:
        output.json_data(session_record(session))
    else:
        output.say(_("{id} is now called {title}").format(id=session.id, title=session.title))


def _remove(args: argparse.Namespace, store: SessionStore) -> None:
    if bool(args.ids) == args.all:
        raise UsageError(_("Name the sessions to delete, or --all."), hint=_("`bendi session list` shows them."))
    sessions: dict[str, Session] = {}
    for session in store.recent() if args.all else [store.find(text) for text in args.ids]:
        sessions[session.id] = session
    if sessions and not args.yes:
        _confirm(list(sessions.values()))
    if sessions and load_settings().sessions_file.stat().st_size > _LARGE_BYTES:
        output.say(_("Removing the text from the database and its copies; this takes a moment…"))
    if sessions and not store.delete(list(sessions)):
        output.say(_("Another bendi process is reading; the last bytes are removed at the next start."))
    settings = load_settings()
    KeptStates(settings.kept_states_dir, settings.kept_states_bytes).forget(sessions)
    if args.json:
        output.json_data({"deleted": list(sessions)})
    else:
        text = ngettext("{count} session deleted for good.", "{count} sessions deleted for good.", len(sessions))
        output.say(text.format(count=len(sessions)))
    damaged = damaged_files(settings.sessions_file)
    if damaged:
        output.say(_("Files that a repair had set aside may still hold their text; delete them if you wish:"))
        for path in damaged:
            output.say(f"  {path}")


def _confirm(sessions: list[Session]) -> None:
    if not sys.stdin.isatty():
        raise UsageError(_("Nothing was deleted: nobody can be asked here."), hint=_("Add --yes to delete."))
    for session in sessions[:10]:
        output.say(f"  {session.id}  {printable(session.title)}")
    question = ngettext("Delete {count} session for good?", "Delete {count} sessions for good?", len(sessions))
    if not output.confirm(question.format(count=len(sessions))):
        raise UsageError(_("Nothing was deleted."))


def _when(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))

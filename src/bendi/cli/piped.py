"""Text that comes through a pipe or from a file, as a question or beside one."""

from __future__ import annotations

import sys
import threading

from bendi.cli import output
from bendi.errors import UsageError
from bendi.i18n import _

_PATIENCE_S = 2.0


def read_piped() -> str:
    """Everything on standard input; empty when that is a terminal. Raises UsageError when it is not text.

    UTF-8, else GB18030 (said on stderr), which old Chinese files use. One line end at the end is dropped.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    notice = threading.Timer(_PATIENCE_S, output.say, (_("Reading the question from standard input until it ends…"),))
    notice.daemon = True
    notice.start()
    try:
        content = sys.stdin.buffer.read()
    except OSError as error:
        raise UsageError(_("Standard input cannot be read: {error}").format(error=error)) from error
    finally:
        notice.cancel()
    return _decoded(content).removesuffix("\n").removesuffix("\r")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        if b"\0" in content:
            raise ValueError
        text = content.decode("gb18030")
    except ValueError as error:
        raise UsageError(
            _("Standard input is not text."),
            hint=_("Pipe a text in UTF-8; other documents must be converted to text first."),
        ) from error
    output.say(_("Standard input is not UTF-8; it was read as GB18030."))
    return text

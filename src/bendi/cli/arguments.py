"""Command lines: argparse that speaks both languages and knows how wide Chinese is.

argparse asks the gettext module's current domain for its own words. `Parser` makes that domain ours; `TEXTS` marks
those words for the catalogue (from CPython's argparse.py).
"""

from __future__ import annotations

import argparse
import gettext
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bendi import i18n
from bendi.cli.output import cell_width
from bendi.errors import UsageError
from bendi.i18n import N_, _

TEXTS = (
    N_("usage: "),
    N_("positional arguments"),
    N_("options"),
    N_("subcommands"),
    N_("%(heading)s:"),
    N_("show this help message and exit"),
    N_("%(prog)s: error: %(message)s\n"),
    N_("argument %(argument_name)s: %(message)s"),
    N_("unrecognized arguments: %s"),
    N_("not allowed with argument %s"),
    N_("ignored explicit argument %r"),
    N_("the following arguments are required: %s"),
    N_("one of the arguments %s is required"),
    N_("expected one argument"),
    N_("expected at most one argument"),
    N_("expected at least one argument"),
    N_("invalid %(type)s value: %(value)r"),
    N_("invalid choice: %(value)r (choose from %(choices)s)"),
    N_("unknown parser %(parser_name)r (choices: %(choices)s)"),
    N_("ambiguous option: %(option)s could match %(matches)s"),
    N_("can't open '%(filename)s': %(error)s"),
)
# A Chinese character with the punctuation that must not begin a line, or a run of anything else without blanks.
_UNIT = re.compile(r"[\u2e80-\u9fff][，。：；、！？）》」…]*|[^\s\u2e80-\u9fff]+|\s+")


class Parser(argparse.ArgumentParser):
    """The parser of one verb; its sub-parsers are of this class, too."""

    def __init__(self, **options: Any) -> None:
        # gettext's functions choose the language by this variable; workers do not inherit it.
        os.environ["LANGUAGE"] = i18n.language()
        gettext.bindtextdomain("bendi", str(Path(i18n.__file__).parent / "locale"))
        gettext.textdomain("bendi")
        super().__init__(formatter_class=_Help, allow_abbrev=False, **options)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments. People type a model, an option, then the question: words may stand between options."""
        if self._subparsers:
            return self.parse_args(self._with_action(arguments))
        if self.usage is None:
            # parse_intermixed_args takes its own word for "usage: " off by its English length.
            formatter = self._get_formatter()
            formatter.add_usage(None, self._actions, self._mutually_exclusive_groups, prefix="")
            self.usage = formatter.format_help().strip().replace("%", "%%")
        return self.parse_intermixed_args(arguments)

    def _with_action(self, arguments: Sequence[str]) -> Sequence[str]:
        """With the action that is meant where none is named: `default_action`, if the verb has one."""
        default = self.get_default("default_action")
        (actions,) = [group for group in self._actions if isinstance(group, argparse._SubParsersAction)]
        if default is None or not arguments or arguments[0].startswith("-") or arguments[0] in actions.choices:
            return arguments
        return [default, *arguments]


class _Help(argparse.HelpFormatter):
    """Folds and aligns by columns of the terminal instead of characters."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return folded(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in folded(text, width - len(indent)))

    def _format_action(self, action: argparse.Action) -> str:
        head = self._format_action_invocation(action)
        # argparse pads to a number of characters: wide ones leave the help too far right.
        surplus = cell_width(head) - len(head)
        return super()._format_action(action).replace(head + " " * surplus, head, 1)


def check_above_zero(flag: str, value: float | None) -> None:
    """Raises UsageError for the value of a flag that makes no sense."""
    if value is not None and not value > 0:
        raise UsageError(_("{flag} takes a number above zero, not {value}.").format(flag=flag, value=value))


def folded(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, broken at blanks or between Chinese characters."""
    lines = [""]
    for unit in _UNIT.findall(" ".join(text.split())):
        if lines[-1] and cell_width((lines[-1] + unit).rstrip()) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        if lines[-1] or not unit.isspace():
            lines[-1] += unit
    return [line for line in lines if line] or [""]

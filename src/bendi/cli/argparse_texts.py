"""argparse's own words in our catalogue, so that the whole help is in one language.

argparse asks the gettext module's current domain. `speak` makes that domain ours; the list below only marks the texts
for the catalogue (from CPython's argparse.py).
"""

from __future__ import annotations

import gettext
import os
from pathlib import Path

from bendi import i18n
from bendi.i18n import N_

TEXTS = (
    N_("usage: "),
    N_("positional arguments"),
    N_("options"),
    N_("subcommands"),
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
)


def speak() -> None:
    """Makes argparse speak the language in use. Call before a parser is made."""
    # gettext's functions choose the language by this variable; workers do not inherit it.
    os.environ["LANGUAGE"] = i18n.language()
    gettext.bindtextdomain("bendi", str(Path(i18n.__file__).parent / "locale"))
    gettext.textdomain("bendi")

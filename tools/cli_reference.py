"""The command reference, made from the commands: `python tools/cli_reference.py` writes docs/cli.md and
docs/cli.zh-CN.md, `--check` fails when they differ from what the commands say of themselves."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from bendi import i18n
from bendi.cli.arguments import Parser
from bendi.cli.main import VERBS

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"en": DOCS / "cli.md", "zh": DOCS / "cli.zh-CN.md"}
HEADINGS = {"en": "# Commands", "zh": "# 命令"}


def reference(language: str) -> str:
    """The page in `language`: the help of every verb, as the terminal shows it."""
    i18n.set_language(language)
    parts = [HEADINGS[language]]
    for verb in VERBS:
        parser = Parser(prog=f"bendi {verb.name}", description=i18n._(verb.summary))
        importlib.import_module(f"bendi.cli.{verb.module}").configure(parser)
        parts.append(f"## bendi {verb.name}\n\n```text\n{parser.format_help().rstrip()}\n```")
    i18n.set_language(None)
    return "\n\n".join(parts) + "\n"


def main() -> int:
    # argparse folds lines to the terminal's width and colours them; the page must not depend on where it is made.
    os.environ |= {"COLUMNS": "110", "NO_COLOR": "1"}
    stale = []
    for language, page in PAGES.items():
        text = reference(language)
        if "--check" not in sys.argv[1:]:
            page.write_text(text, "utf-8")
        elif not page.exists() or page.read_text("utf-8") != text:
            stale.append(page.name)
    if stale:
        print(f"{', '.join(stale)}: not up to date, run python tools/cli_reference.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The chat as plain lines, for terminals that cannot move their cursor (TERM=dumb) and redirected output."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bendi.cli import output
from bendi.cli.answers import AnswerView, PlainView
from bendi.cli.multiline import is_finished
from bendi.i18n import _


class PlainScreen:
    """A `talk.Screen`: prompts and talk on stderr, answers on stdout."""

    def read(self, status: str, suggestion: str) -> str | None:
        if suggestion:
            self.note(_("To be changed or sent again: {text}").format(text=suggestion))
        lines: list[str] = []
        while True:
            sys.stderr.write("... " if lines else ">>> ")
            sys.stderr.flush()
            try:
                line = sys.stdin.readline()
            except KeyboardInterrupt:
                sys.stderr.write("\n")
                lines.clear()
                continue
            if not line:
                return "\n".join(lines) if lines else None
            lines.append(line.rstrip("\r\n"))
            if is_finished("\n".join(lines)):
                return "\n".join(lines)

    def note(self, text: str) -> None:
        output.say(text)

    def error(self, message: str, hint: str) -> None:
        output.say(_("error: {message}").format(message=message))
        for line in hint.splitlines():
            output.say(f"  {line}")

    def answer_view(self, *, thinking: bool) -> AnswerView:
        return PlainView(safe=sys.stdout.isatty(), thinking=thinking)

    def choose(self, question: str, keys: Sequence[str]) -> str:
        sys.stderr.write(f"{question} ")
        sys.stderr.flush()
        answer = sys.stdin.readline().strip().lower()[:1]
        return answer if answer in keys else keys[-1]

    def progress(self, done: int, total: int) -> None:
        output.say(_("summarising older turns: {done} of {total}").format(done=done, total=total))

"""The chat on a real terminal: line editing, history, completion, live Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style
from rich.console import Console
from rich.text import Text

from bendi.chat.parameters import PARAMETERS
from bendi.chat.personas import PersonaBook
from bendi.cli.answers import AnswerView, printable
from bendi.cli.chat_commands import PREFIX
from bendi.cli.markdown_view import MarkdownView
from bendi.cli.multiline import is_finished
from bendi.errors import BendiError
from bendi.i18n import _

_STYLE = Style.from_dict({"bottom-toolbar": "noreverse", "prompt": "bold"})


class TerminalScreen:
    """A `talk.Screen`. `prompts`: what was asked in earlier sessions, for the arrow keys.

    The history is not a file of its own: prompts live in the sessions, and go when those are deleted.
    """

    def __init__(self, prompts: Sequence[str], commands: Sequence[str], personas: PersonaBook) -> None:
        self._console = Console(highlight=False)
        self._status = ""
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(list(prompts)),
            multiline=True,
            key_bindings=_key_bindings(),
            completer=_CommandCompleter(commands, personas),
            complete_while_typing=Condition(self._typing_command),
            bottom_toolbar=self._toolbar,
            prompt_continuation=lambda _width, _number, wrapped: "  " if wrapped else "… ",
            style=_STYLE,
            reserve_space_for_menu=4,
        )

    def read(self, status: str, suggestion: str) -> str | None:
        self._status = status
        try:
            return self._session.prompt(FormattedText([("class:prompt", "> ")]), default=suggestion)
        except EOFError:
            return None
        except KeyboardInterrupt:
            return ""

    def note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def error(self, message: str, hint: str) -> None:
        self._console.print(Text(_("error: {message}").format(message=printable(message)), style="red"))
        for line in hint.splitlines():
            self._console.print(Text(f"  {printable(line)}"))

    def answer_view(self, *, thinking: bool) -> AnswerView:
        return MarkdownView(thinking=thinking, console=self._console)

    def choose(self, question: str, keys: Sequence[str]) -> str:
        try:
            answer = PromptSession[str]().prompt(f"{question} ").strip().lower()[:1]
        except (EOFError, KeyboardInterrupt):
            answer = ""
        return answer if answer in keys else keys[-1]

    def progress(self, done: int, total: int) -> None:
        self.note(_("summarising older turns: {done} of {total}").format(done=done, total=total))

    def _toolbar(self) -> FormattedText:
        return FormattedText([("class:bottom-toolbar", self._status)])

    def _typing_command(self) -> bool:
        return self._session.default_buffer.text.startswith(PREFIX)


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_finished(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c")
    def _clear(event: KeyPressEvent) -> None:
        event.current_buffer.reset()

    return bindings


class _CommandCompleter(Completer):
    """Names of commands, of personas behind `/persona`, of parameters behind `/set`."""

    def __init__(self, commands: Sequence[str], personas: PersonaBook) -> None:
        self._commands = commands
        self._personas = personas

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith(PREFIX) or "\n" in text:
            return
        command, space, argument = text.partition(" ")
        words = self._arguments(command) if space else [PREFIX + name for name in self._commands]
        begun = argument if space else text
        for word in words:
            if word.startswith(begun) and word != begun:
                yield Completion(word, start_position=-len(begun))

    def _arguments(self, command: str) -> list[str]:
        if command == PREFIX + "set":
            return [*PARAMETERS, "think", "policy"]
        if command == PREFIX + "persona":
            try:
                return list(self._personas.all())
            except BendiError:
                return []
        return []

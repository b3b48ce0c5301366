"""Sessions and personas as documents: JSON with everything, or Markdown for reading.

`images`, where it is given, gets the bytes of what a message shows, which then becomes part of the document.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from bendi.chat.personas import TEXTS, Persona
from bendi.chat.pictures import image_name
from bendi.chat.sessions import Session, StoredMessage
from bendi.formats.images import media_type
from bendi.i18n import _

Images = Callable[[StoredMessage], Sequence[bytes]]


def session_record(
    session: Session, messages: Sequence[StoredMessage] | None = None, images: Images | None = None
) -> dict[str, Any]:
    """JSON values. Times are ISO 8601 with the local zone. Without `messages`: their count only."""
    record: dict[str, Any] = {
        "id": session.id,
        "title": session.title,
        "model": session.model,
        "persona": session.persona or None,
        "created": _iso(session.created_s),
        "updated": _iso(session.updated_s),
        "settings": dict(session.settings),
    }
    if messages is None:
        return record | {"messages": session.messages}
    return record | {"messages": [message_record(stored, images) for stored in messages]}


def persona_record(persona: Persona) -> dict[str, Any]:
    """JSON values; empty texts are null."""
    texts = {name: getattr(persona, name) or None for name in TEXTS}
    return {"name": persona.name, **texts, "parameters": dict(persona.values), "builtin": persona.builtin}


def session_markdown(session: Session, messages: Sequence[StoredMessage], images: Images | None = None) -> str:
    names = {"user": _("User"), "assistant": _("Assistant"), "tool": _("Tool"), "system": _("Note")}
    shown = _("image")
    lines = [f"# {session.title or session.id}", ""]
    facts = {
        _("Session"): session.id,
        _("Model"): session.model,
        _("Persona"): session.persona,
        _("System prompt"): str(session.settings.get("system", "")),
        _("Begun"): _iso(session.created_s),
    }
    lines += [f"- {name}: {' '.join(value.split())}" for name, value in facts.items() if value]
    for stored in messages:
        heading = _("Summary of the above") if stored.kind == "summary" else names[stored.message.role]
        if stored.state == "partial":
            heading = _("{name} (interrupted)").format(name=heading)
        if stored.superseded:
            heading = _("{name} (taken back)").format(name=heading)
        lines += ["", f"## {heading}", ""]
        if stored.message.reasoning:
            summary = _("Thinking")
            lines += ["<details>", f"<summary>{summary}</summary>", "", stored.message.reasoning, "", "</details>", ""]
        for image in images(stored) if images else ():
            lines += [f"![{shown}](data:{media_type(image)};base64,{base64.b64encode(image).decode()})", ""]
        if not images:
            lines += [_("[an image]") for _name in stored.images]
        lines.append(stored.message.content)
        lines += [f"`{call.name}({call.arguments})`" for call in stored.message.tool_calls]
    return "\n".join(lines) + "\n"


def message_record(stored: StoredMessage, images: Images | None = None) -> dict[str, Any]:
    """JSON values of one message, as `session_record` has them."""
    message = stored.message
    record: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        record["reasoning"] = message.reasoning
    if message.tool_calls:
        record["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls
        ]
    if message.tool_call_id:
        record["tool_call_id"] = message.tool_call_id
    if images and (shown := images(stored)):
        record["images"] = [{"name": image_name(image), "base64": base64.b64encode(image).decode()} for image in shown]
    elif stored.images:
        record["images"] = [{"name": name} for name in stored.images]
    return record | {
        "position": stored.position,
        "kind": stored.kind,
        "state": stored.state,
        "superseded": stored.superseded,
        "created": _iso(stored.created_s),
        "details": dict(stored.details),
    }


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s).astimezone().isoformat(timespec="seconds")

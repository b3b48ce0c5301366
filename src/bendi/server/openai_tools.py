"""The tools of a request, checked: which may be called, and which must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bendi.i18n import _
from bendi.server.openai_fields import checked_schema, refused
from bendi.server.openai_types import AllowedTools, Tool, ToolChoice

Choice = str | Mapping[str, Any] | None


def tools_of(tools: Sequence[Tool], choice: ToolChoice | None) -> tuple[tuple[Mapping[str, Any], ...], Choice]:
    """The tools that may be called, and which must be. Raises ApiError."""
    described = {tool.function.name: _tool(tool, at) for at, tool in enumerate(tools)}
    if len(described) != len(tools):
        raise refused("tools", _("Two tools have the same name."))
    if not described:
        if choice not in (None, "none", "auto"):
            raise refused("tool_choice", _("tool_choice demands a tool, but the request has no tools."))
        return (), None
    if choice is None or isinstance(choice, str):
        return tuple(described.values()), choice
    wanted = choice.allowed_tools.tools if isinstance(choice, AllowedTools) else [choice]
    names = [tool.function.name for tool in wanted]
    unknown = [name for name in names if name not in described]
    if unknown or not names:
        raise refused(
            "tool_choice",
            _("tool_choice demands the tool {name!r}, which is not among the tools.").format(name="".join(unknown[:1])),
        )
    if isinstance(choice, AllowedTools):
        return tuple(described[name] for name in names), choice.allowed_tools.mode
    return tuple(described.values()), {"type": "function", "function": {"name": names[0]}}


def _tool(tool: Tool, at: int) -> Mapping[str, Any]:
    function = tool.function
    described: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        described["description"] = function.description
    parameters = checked_schema(function.parameters, f"tools.{at}.function.parameters")
    described["parameters"] = parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": described}

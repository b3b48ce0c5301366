"""What a session answers with: persona, system prompt, parameters, and which of them wins.

The persona is looked up every time, so an edit of its file applies to the next message. What `/system` and `/set`
change lives in the session's settings, `{"system": text, "set": {name: value}}`, and wins over the persona.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bendi.chat.memory import Sessions
from bendi.chat.parameters import PARAMETERS, Parameters, Policy, check_value, join
from bendi.chat.personas import NO_PERSONA, Persona, PersonaBook
from bendi.chat.sessions import Session


class Setup:
    """`default_policy`: the context policy where neither persona nor session name one."""

    def __init__(
        self, sessions: Sessions, session_id: str, personas: PersonaBook, default_policy: Policy = "error"
    ) -> None:
        self.session_id = session_id
        self.personas = personas
        self._sessions = sessions
        self._default_policy = default_policy

    @property
    def session(self) -> Session:
        return self._sessions.get(self.session_id)

    @property
    def persona(self) -> Persona | None:
        """As the file says now. Raises NotFoundError or ConfigError."""
        name = self.session.persona
        return self.personas.get(name) if name else None

    @property
    def system(self) -> str:
        """The system prompt in force: the session's own, else the persona's."""
        own = self.session.settings.get("system")
        persona = self.persona
        return own if own is not None else persona.system if persona else ""

    @property
    def parameters(self) -> Parameters:
        persona = self.persona
        return join(persona.values if persona else {}, self.session.settings.get("set", {}))

    @property
    def policy(self) -> Policy:
        return self.parameters.policy or self._default_policy

    def adopt(self, model: str, persona: Persona | None, system: str | None, values: Mapping[str, Any]) -> None:
        """What a command line says, over what the session had; None and empty leave that as it is."""
        session = self.session
        settings = dict(session.settings)
        if persona:
            settings.pop("system", None)
        if system is not None:
            settings["system"] = system
        if values:
            settings["set"] = _joined(settings.get("set", {}), values)
        wanted = {"model": model, "persona": persona.name if persona else session.persona, "settings": settings}
        if wanted != {name: getattr(session, name) for name in wanted}:
            self._sessions.change(self.session_id, **wanted)

    def use_persona(self, name: str) -> Persona | None:
        """Switches, from the next message on; `"none"` ends it. The persona's system prompt replaces `/system`'s.

        Raises NotFoundError.
        """
        persona = None if name in ("", NO_PERSONA) else self.personas.get(name)
        settings = {key: value for key, value in self.session.settings.items() if key != "system"}
        self._sessions.change(self.session_id, persona=persona.name if persona else "", settings=settings)
        return persona

    def set_system(self, text: str | None) -> None:
        """Another system prompt for this session; None: the persona's again."""
        settings = {key: value for key, value in self.session.settings.items() if key != "system"}
        self._sessions.change(self.session_id, settings=settings if text is None else settings | {"system": text})

    def set_parameter(self, name: str, value: object) -> None:
        """Sets one parameter for this session; None: the persona's or the model's own again. Raises UsageError."""
        if name not in PARAMETERS:
            check_value(name, value)
        chosen = dict(self.session.settings.get("set", {}))
        if value is None:
            chosen.pop(name, None)
        else:
            chosen = _joined(chosen, {name: check_value(name, value)})
        self._sessions.change(self.session_id, settings={**self.session.settings, "set": chosen})


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Later values win; template options are joined key by key."""
    joined = {**old, **new}
    if "template_options" in new:
        joined["template_options"] = {**old.get("template_options", {}), **new["template_options"]}
    return joined

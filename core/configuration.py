"""The session configuration of one conversation, the same on every link: the agent's, and what the client changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.plan import TURN_DETECTION, Plan, merged, reduced_config, session_config
from core.realtime import Event


class Configuration:
    """What a session is configured with.

    Args:
        plan: Holds the agent and the format of the line.
    """

    __slots__ = ("_is_reduced", "_overrides", "_plan")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._overrides: Event = {}
        self._is_reduced = False

    @property
    def session(self) -> Event:
        """The session to ask for on a fresh link."""
        return reduced_config(self._plan) if self._is_reduced else session_config(self._plan, self._overrides)

    def changed(self, session: Mapping[str, Any]) -> None:
        """Take a change by the client that took effect; later links get it too."""
        self._overrides = merged(self._overrides, session)

    def reduce(self) -> bool:
        """Ask for less from here on, since the whole was refused; False when there is no less."""
        was_reduced, self._is_reduced = self._is_reduced, True
        return not was_reduced

    def turn_detection(self, effective: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the turn detection in force, empty when it is off.

        Args:
            effective: The session as `session.updated` tells it; what it leaves out is as it was asked for, and else as
                the API has it by default: on.
        """
        setting: Any = merged(self.session, effective)
        for key in ("audio", "input", "turn_detection"):
            if not isinstance(setting, Mapping) or key not in setting:
                return TURN_DETECTION
            setting = setting[key]
        return setting if isinstance(setting, Mapping) else {}

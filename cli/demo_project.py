"""The local Supabase project of `./voice demo --supabase`: its user, its agents and its key in the Vault."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

from cli.demo_data import DEMO_AGENTS
from cli.demo_phone import number_of
from cli.local_supabase import STACK, LocalSupabase

EMAIL = "demo@example.com"
"""Whose agents everybody who signs up gets copies of: supabase/local/demo_agents.sql."""


@dataclass(frozen=True, slots=True)
class DemoFacts:
    """What the server and the talk page need of the project."""

    environment: dict[str, str]
    token: str
    agents: tuple[dict[str, Any], ...]


class DemoProject:
    """A project that begins empty with each start and is gone after `stop`."""

    def __init__(self) -> None:
        self._supabase = LocalSupabase()

    def start(self, openai_key: str, token_s: float) -> DemoFacts:
        """Start the project, sign the demo's user up, and make the demo's agents for it and whoever signs up later.

        Args:
            openai_key: Goes into the Vault, from where the server reads it.
            token_s: Life of the user's token in seconds.

        Raises:
            LocalServerError: If PostgreSQL or Supabase Lite is missing or does not start.
        """
        project = self._supabase
        project.start()
        project.set_openai_key(openai_key)
        user = project.sign_up(EMAIL, secrets.token_urlsafe(16))
        agents = tuple({**agent, "user_id": user.user_id} for agent in DEMO_AGENTS)
        for place, agent in enumerate(agents):
            project.request("POST", "/rest/v1/agents", key=project.service_key, body=agent)
            number = {"number": number_of(place), "agent_id": agent["id"], "user_id": user.user_id}
            project.request("POST", "/rest/v1/phone_numbers", key=project.service_key, body=number)
        project.sql((STACK / "demo_agents.sql").read_text(encoding="utf-8"))
        token = project.token(user.user_id, user.session_id, exp=int(time.time() + token_s))
        return DemoFacts(project.environment(), token, agents)

    def stop(self) -> None:
        """Stop the project and remove its data; harmless when it never started."""
        self._supabase.stop()

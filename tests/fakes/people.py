"""People with an account at a local Supabase project, and what they see of it.

    anna = new_person(project)
    agent_id = anna.make_agent()
    anna.rows("messages", conversation_id="eq." + conversation_id)

What a user does goes over the project's public API with that user's own token, as an app does it.
"""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cli.local_supabase import LocalSupabase, SignIn
from tests.fakes.local_supabase import PASSWORD


def new_key() -> str:
    """Return a key no other test has, of the vendor's shape."""
    return f"sk-proj-{secrets.token_hex(24)}"


@dataclass(frozen=True)
class Person:
    """A user of the project, signed in."""

    project: LocalSupabase
    email: str
    sign_in: SignIn

    @property
    def id(self) -> str:
        """UUID of the user."""
        return self.sign_in.user_id

    @property
    def token(self) -> str:
        """Access token exactly as the project's Auth issued it."""
        return self.sign_in.access_token

    def short_token(self, seconds: int) -> str:
        """Return a token of this sign-in that ends so soon."""
        now = int(time.time())
        return self.project.token(self.id, self.sign_in.session_id, iat=now, exp=now + seconds)

    def make_agent(self, **columns: Any) -> str:
        """Make an agent with the user's own rights; returns its id."""
        row = {"id": str(uuid.uuid4()), "name": "Ada", "instructions": "Be kind.", "voice": "sage", **columns}
        self._request("POST", "/rest/v1/agents", row)
        return str(row["id"])

    def rows(self, table: str, **query: str) -> list[dict[str, Any]]:
        """Return what this user sees of a table, by PostgREST's own filters."""
        found: list[dict[str, Any]] = self._request("GET", f"/rest/v1/{table}?{urlencode(query)}")
        return found

    def sign_in_again(self) -> Person:
        """Return the same user on a second device."""
        return Person(self.project, self.email, self.project.sign_in(self.email, PASSWORD))

    def sign_out(self) -> None:
        """End this sign-in."""
        self.project.sign_out(self.sign_in)

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self.project.request(method, path, key=self.project.publishable_key, bearer=self.token, body=body)


def new_person(project: LocalSupabase) -> Person:
    """Sign somebody up."""
    email = f"{uuid.uuid4()}@example.com"
    return Person(project, email, project.sign_up(email, PASSWORD))

"""The OpenAI key and other secrets: where they come from, and what to do when they cannot be had.

The environment's key is here; Supabase Vault's are in `supabase`, which only servers with Supabase load.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Protocol

ReadSecret = Callable[[str], Awaitable[str]]
"""Returns the secret of a Vault id; raises SecretUnavailable."""

_KEY = re.compile(r"[\x21-\x7e]{16,512}")
"""Printable and without spaces, so that it fits into a header; OpenAI's have 51 to 164 characters and begin with sk-,
services that speak its protocol give others."""

_NOT_A_KEY = re.compile(
    r"eyJ|sb_secret_|sb_publishable_|(sk-)?your|<|.*\.\.\.|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE
)
"""Tokens, Supabase's own keys, Vault ids and the placeholders of examples: what gets pasted by mistake."""

HOW_TO_MEND = {
    "no_row": "Insert a row with provider_name 'openai' into system_api_keys.",
    "inactive": "Set is_active to true in the row 'openai' of system_api_keys.",
    "no_secret_id": "Put the id that vault.create_secret returned into vault_secret_id of the row 'openai'.",
    "bad_secret_id": "The id of the secret must be the UUID that vault.create_secret returned.",
    "secret_missing": "The Vault holds no secret of this id: make one with vault.create_secret(key, name).",
    "empty_secret": "The secret is empty: set it with vault.update_secret(id, key).",
    "not_a_key": "What the Vault holds does not look like an API key: set it with vault.update_secret(id, key).",
    "function_missing": "get_secret or system_api_keys is missing: apply supabase/migrations.",
    "vault_missing": "Install the extension supabase_vault, or leave SUPABASE_URL out and set OPENAI_API_KEY.",
    "not_permitted": "Apply the privileges migration again, and check that the service key is a secret key.",
    "service_key_refused": "Supabase refuses SUPABASE_SERVICE_ROLE_KEY: copy it again from the project's API settings.",
    "vault_unreachable": "Supabase does not answer: check SUPABASE_URL, the network and the project's status page.",
    "environment_only": "This agent names a Vault key of its own, but the server has only OPENAI_API_KEY.",
}
"""What the operator can do about each step that may fail."""


class SecretUnavailable(Exception):
    """Raised when a secret cannot be had; names the step that failed and how to mend it, never a secret or an id."""

    what = "secret"

    def __init__(self, step: str) -> None:
        super().__init__(f"no {self.what}: {step}")
        self.step = step
        self.how_to_mend = HOW_TO_MEND[step]


class KeyUnavailable(SecretUnavailable):
    """Raised when no key can be had; names the step that failed and how to mend it, never a key or an id."""

    what = "OpenAI key"


class KeySource(Protocol):
    """Where the OpenAI key comes from."""

    async def key(self, secret_id: str | None = None) -> str:
        """Return the key of this Vault id, or the server's; raises KeyUnavailable."""

    async def refresh(self, rejected: str, secret_id: str | None = None) -> str:
        """Return the key after OpenAI answered 401 to `rejected`; the same one if there is no other.

        Raises KeyUnavailable.
        """

    def forget(self) -> None:
        """Drop every key from memory."""


class EnvironmentKey:
    """The key the operator set as OPENAI_API_KEY."""

    def __init__(self, key: str) -> None:
        self._key = key

    async def key(self, secret_id: str | None = None) -> str:
        """Return the key; an agent that names a Vault key gets KeyUnavailable, not somebody else's account."""
        if secret_id is not None:
            raise KeyUnavailable("environment_only")
        return self._key

    async def refresh(self, rejected: str, secret_id: str | None = None) -> str:
        """Return the same key: the environment does not change."""
        return await self.key(secret_id)

    def forget(self) -> None:
        """Keep the key: it cannot be had again."""


def looks_like_a_key(text: str) -> bool:
    """Return whether the text may be an API key: fits into a header and is none of the things pasted by mistake."""
    return bool(_KEY.fullmatch(text)) and not _NOT_A_KEY.match(text)

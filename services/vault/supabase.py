"""The OpenAI key from Supabase Vault, read by `get_secret` and cached for a bounded time.

Other secrets of the Vault, such as the tokens of phone accounts, are read by `VaultSecrets`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from postgrest import APIError, AsyncPostgrestClient

from . import KeyUnavailable, SecretUnavailable, looks_like_a_key

FRESH_S = 300.0
"""How long a key is used without asking again; a key replaced in the Vault is used five minutes later at most."""

KEPT_S = 3600.0
"""How long a key goes on being used while the Vault is away. A key that OpenAI refuses is dropped sooner."""

ASK_DEADLINE_S = 3.0
"""Two requests of 2 to 20 ms each; a caller is waiting."""

FAILURE_PAUSE_S = 2.0
"""After a failure the Vault is asked again this much later; callers in between get the same answer."""

OUTAGE_PAUSE_S = 30.0
"""The same while an old key serves: its users should not all wait for a Vault that does not answer."""

REFRESH_PAUSE_S = 10.0
"""Least time between two fetches of one key because OpenAI refused it, however many sessions it refuses at once."""

MAX_KEYS = 1000
"""Keys of agents kept at a time, some 300 bytes each; the longest unused goes first."""

PROVIDER = "openai"

_STEP_OF_CODE = {
    "42501": "not_permitted",
    "PGRST202": "function_missing",
    "PGRST205": "function_missing",
    "42P01": "function_missing",
    "42883": "function_missing",
    "0A000": "vault_missing",
    "PGRST301": "service_key_refused",
    "PGRST302": "service_key_refused",
    "PGRST303": "service_key_refused",
    "401": "service_key_refused",  # of an answer without a body, the HTTP status
    "22P02": "bad_secret_id",
}
"""PostgREST's and PostgreSQL's error codes. Source: PostgREST, "Errors"; PostgreSQL, appendix A."""


@dataclass(slots=True, repr=False)
class _Entry:
    """What is known of one key; `key` None: it could not be had, for the reason `step`."""

    key: str | None = None
    fetched_at: float = float("-inf")
    attempted_at: float = float("-inf")
    refreshed_at: float = float("-inf")
    step: str | None = None
    task: asyncio.Task[None] | None = None


class VaultKey:
    """The key that `system_api_keys` and the Vault hold, and keys of agents by their Vault id.

    One fetch a key runs at a time, in a task of its own. While the Vault is away the last good key serves for up to an
    hour; when the operator switched it off or took it away, it is dropped with the next fetch.
    """

    def __init__(self, client: AsyncPostgrestClient, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._entries: OrderedDict[str | None, _Entry] = OrderedDict()

    def __repr__(self) -> str:
        return f"VaultKey({len(self._entries)} keys)"

    async def key(self, secret_id: str | None = None) -> str:
        """Return the key, from memory for five minutes, else within 3 s.

        Args:
            secret_id: Vault id of an agent's own key; None: the server's, named by `system_api_keys`.

        Raises:
            KeyUnavailable: Naming the step that failed.
        """
        entry = self._entry(_canonical(secret_id))
        now = self._monotonic()
        if entry.key is None or now - entry.fetched_at >= FRESH_S:
            await self._fetch_once(secret_id, entry, FAILURE_PAUSE_S if entry.key is None else OUTAGE_PAUSE_S)
        return self._answer(entry)

    async def refresh(self, rejected: str, secret_id: str | None = None) -> str:
        """Return the key after OpenAI answered 401 to `rejected`; the same one if there is no other.

        The Vault is asked so at most once in 10 s for each key, and not at all when another session already did.

        Raises:
            KeyUnavailable: Naming the step that failed; also when the Vault is away, as the old key is of no use.
        """
        entry = self._entry(_canonical(secret_id))
        if entry.key == rejected:
            now = self._monotonic()
            may_ask = now - entry.refreshed_at >= REFRESH_PAUSE_S
            if may_ask:
                entry.refreshed_at = now
            await self._fetch_once(secret_id, entry, 0.0 if may_ask else float("inf"))
            if entry.key == rejected and entry.step is not None:
                entry.key = None
        return self._answer(entry)

    def forget(self) -> None:
        """Drop every key from memory; the next look-up asks the Vault."""
        self._entries.clear()

    def _entry(self, secret_id: str | None) -> _Entry:
        entry = self._entries.setdefault(secret_id, _Entry())
        self._entries.move_to_end(secret_id)
        while len(self._entries) > MAX_KEYS:
            self._entries.popitem(last=False)
        return entry

    def _answer(self, entry: _Entry) -> str:
        if entry.key is not None and self._monotonic() - entry.fetched_at < KEPT_S:
            return entry.key
        raise KeyUnavailable(entry.step or "vault_unreachable")

    async def _fetch_once(self, secret_id: str | None, entry: _Entry, pause_s: float) -> None:
        if entry.task is None:
            now = self._monotonic()
            if now - entry.attempted_at < pause_s:
                return
            entry.attempted_at = now
            entry.task = asyncio.create_task(self._fetch(secret_id, entry), name="vault: fetch key")
        await asyncio.shield(entry.task)

    async def _fetch(self, secret_id: str | None, entry: _Entry) -> None:
        try:
            async with asyncio.timeout(ASK_DEADLINE_S):
                entry.key = await self._read(secret_id or await self._provider_secret_id())
            entry.fetched_at = self._monotonic()
            entry.step = None
        except KeyUnavailable as refusal:
            entry.key, entry.step = None, refusal.step
        except APIError as error:
            entry.step = _failed_step(error)
            if entry.step != "vault_unreachable":
                entry.key = None
        except (httpx.HTTPError, TimeoutError, ValueError, TypeError, AttributeError):
            entry.step = "vault_unreachable"
        finally:
            entry.task = None

    async def _provider_secret_id(self) -> str:
        rows = self._client.from_("system_api_keys").select("vault_secret_id,is_active")
        found = (await rows.eq("provider_name", PROVIDER).limit(1).execute()).data
        if not found:
            raise KeyUnavailable("no_row")
        row: Any = found[0]
        if row.get("is_active") is not True:
            raise KeyUnavailable("inactive")
        if not row.get("vault_secret_id"):
            raise KeyUnavailable("no_secret_id")
        secret_id = _canonical(str(row["vault_secret_id"]))  # older tables keep it as text
        return secret_id or ""

    async def _read(self, secret_id: str) -> str:
        key = await _secret(self._client, secret_id)
        if not looks_like_a_key(key):
            raise KeyUnavailable("not_a_key")
        return key


class VaultSecrets:
    """Secrets of the Vault by their ids, read anew each time; whoever asks often keeps them."""

    def __init__(self, client: AsyncPostgrestClient) -> None:
        self._client = client

    async def secret(self, secret_id: str) -> str:
        """Return the secret without surrounding white space, within 3 s.

        Raises:
            SecretUnavailable: Naming the step that failed.
        """
        try:
            async with asyncio.timeout(ASK_DEADLINE_S):
                return await _secret(self._client, _canonical(secret_id) or "")
        except KeyUnavailable as refusal:
            raise SecretUnavailable(refusal.step) from None
        except APIError as error:
            raise SecretUnavailable(_failed_step(error)) from None
        except (httpx.HTTPError, TimeoutError, ValueError, TypeError, AttributeError):
            raise SecretUnavailable("vault_unreachable") from None


async def _secret(client: AsyncPostgrestClient, secret_id: str) -> str:
    """Return the secret; a POST, as a GET would put the id into access logs."""
    answer: Any = (await client.rpc("get_secret", {"secret_id": secret_id}).execute()).data
    if isinstance(answer, list):
        answer = answer[0].get("key") if answer else None
        if answer is None:
            raise KeyUnavailable("secret_missing")
    if not isinstance(answer, str) or not answer.strip():
        raise KeyUnavailable("empty_secret")
    return answer.strip()  # pasted secrets often end with a line break


def _failed_step(error: APIError) -> str:
    if error.code is None:  # the gateway in front of PostgREST; its answers have a message and no code
        return "service_key_refused" if "API key" in (error.message or "") else "vault_unreachable"
    return _STEP_OF_CODE.get(error.code, "vault_unreachable")


def _canonical(secret_id: str | None) -> str | None:
    if secret_id is None:
        return None
    try:
        return str(uuid.UUID(secret_id))
    except ValueError:
        raise KeyUnavailable("bad_secret_id") from None

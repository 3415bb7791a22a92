"""A phone call as it is announced before its stream opens: whose agent answers, and what is different this time.

Three parties announce calls: our own voice webhook, the main app that writes the row or puts it here, and the main app
that is asked for it. All of them end in a `Call`.
Source of the sids' shape: Twilio reference, sections 1.2 and 2.1.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from core.overrides import configured_agent as configured_agent  # part of what this module offers
from core.overrides import shown

LIFE_S = 300
"""How long an announced call waits for its stream (contract, section 7)."""

TRANSFERRED = "transferred"
"""End reason of a call's row whose caller was handed to a person: the call itself goes on without us."""

MAX_PARTY_CHARS = 256
"""Longest text that says who calls whom: a number has 16 characters, the address of a SIP client at most this many."""

_CALL_SID = re.compile(r"CA[0-9a-f]{32}")
_ACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}")
_NUMBER = re.compile(r"\+[1-9][0-9]{1,14}")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

_FIELDS = (
    *("call_sid", "agent_id", "user_id", "account_sid", "from_number", "to_number", "config"),
    "auth_token_secret_id",
)


@dataclass(frozen=True, slots=True)
class PhoneNumber:
    """A number and the agent that answers it.

    Attributes:
        number: E.164.
        account_sid: Account that owns the number; None: whichever calls.
        auth_token_secret_id: Vault id of that account's token; None: the master account's is used.
    """

    number: str = field(repr=False)
    agent_id: str
    user_id: str
    account_sid: str | None = None
    auth_token_secret_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that may open a stream.

    Attributes:
        account_sid: Account that owns the call; None when whoever announced it did not say.
        config: Overrides of the agent, see `OVERRIDES`.
        auth_token_secret_id: Vault id of the account's token, when known.
    """

    call_sid: str
    agent_id: str
    user_id: str
    account_sid: str | None = None
    from_number: str | None = field(default=None, repr=False)
    to_number: str | None = field(default=None, repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    auth_token_secret_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call's row: the call, and how far it has come. Times are ISO 8601 in UTC with microseconds."""

    call: Call
    created_at: str
    expires_at: str
    claimed_at: str | None = None
    ended_at: str | None = None
    end_reason: str | None = None

    def status(self, now: str) -> str:
        """Return `waiting`, `expired`, `live` or `ended`; now: ISO 8601 with a time zone."""
        if self.ended_at is not None:
            return "ended"
        if self.claimed_at is not None:
            return "live"
        return "waiting" if moment(now) < moment(self.expires_at) else "expired"


class BadCall(Exception):
    """Raised when a call's announcement cannot be used; `problems` names every field that is wrong, never a value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


# ---------------------------------------------------------------------- shapes


def is_call_sid(text: str) -> bool:
    """Return whether this is a call's sid."""
    return bool(_CALL_SID.fullmatch(text))


def is_account_sid(text: str) -> bool:
    """Return whether this is an account's sid."""
    return bool(_ACCOUNT_SID.fullmatch(text))


def is_number(text: str) -> bool:
    """Return whether this is a phone number in E.164; callers may also be `anonymous` or a SIP address."""
    return bool(_NUMBER.fullmatch(text))


def token_hash(token: str) -> str:
    """Return what is stored of a one-time token; it is random, so it needs no salt."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def moment(text: str) -> datetime:
    """Return an ISO 8601 time as a datetime in UTC; raises ValueError for text that is none or has no time zone."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return found.astimezone(UTC)


def iso(at: datetime) -> str:
    """Return the time as this server writes times."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def lifetime(now: datetime) -> tuple[str, str]:
    """Return `created_at` and `expires_at` of a call announced now."""
    return iso(now), iso(now + timedelta(seconds=LIFE_S))


# ---------------------------------------------------------------------- announcements


def call_from_config(call_sid: str, body: Any) -> Call:
    """Return the call that a main app's JSON describes, as put here or as fetched.

    Overrides are taken as they are: `configured_agent` falls back where one is nonsense. Fields nobody knows are left
    out; `config_problems` and `unknown_fields` find both before a call comes in.

    Args:
        call_sid: From the address or from the stream, never from the body.
        body: Decoded JSON.

    Raises:
        BadCall: Naming every field that is missing or malformed.
    """
    if not isinstance(body, Mapping):
        raise BadCall(["the body must be a JSON object"])
    problems: list[str] = []
    if body.get("call_sid", call_sid) != call_sid:
        problems.append("call_sid differs from the one in the address")
    for name in ("agent_id", "user_id"):
        if not _is_uuid(body.get(name)):
            problems.append(f"{name} must be a UUID")
    secret_id, account_sid = body.get("auth_token_secret_id"), body.get("account_sid")
    if secret_id is not None and not _is_uuid(secret_id):
        problems.append("auth_token_secret_id must be the UUID of a Vault secret, never the token")
    if account_sid is not None and not (isinstance(account_sid, str) and is_account_sid(account_sid)):
        problems.append("account_sid must be AC and 32 hexadecimal digits")
    problems += [f"{name} must be a short text" for name in ("from_number", "to_number") if not _is_party(body, name)]
    config = body.get("config")
    if config is not None and not isinstance(config, Mapping):
        problems.append("config must be an object")
    if problems:
        raise BadCall(problems)
    return Call(
        call_sid=call_sid,
        agent_id=body["agent_id"].lower(),
        user_id=body["user_id"].lower(),
        account_sid=account_sid,
        from_number=body.get("from_number"),
        to_number=body.get("to_number"),
        config=dict(config or {}),
        auth_token_secret_id=secret_id,
    )


def unknown_fields(body: Mapping[str, Any]) -> list[str]:
    """Return a problem for each field of a body that means nothing here: most are misspelled."""
    return [f"{shown(name)} is not a field of a call" for name in body if name not in _FIELDS]


# ---------------------------------------------------------------------- rows


def call_from_columns(row: Mapping[str, Any]) -> Call:
    """Return the call of a row of the table `calls`; its `jsonb` column decoded or as JSON text."""
    config = row["config"]
    if isinstance(config, str):
        config = json.loads(config)
    return Call(
        call_sid=row["call_sid"],
        agent_id=str(row["agent_id"]),
        user_id=str(row["user_id"]),
        account_sid=row["account_sid"],
        from_number=row["from_number"],
        to_number=row["to_number"],
        config={} if config is None else config,
        auth_token_secret_id=row.get("auth_token_secret_id"),
    )


def stored_call_from_columns(row: Mapping[str, Any]) -> StoredCall:
    """Return a row of the table `calls` as a record; its times as datetimes or as text."""
    return StoredCall(
        call=call_from_columns(row),
        created_at=_time(row["created_at"]) or "",
        expires_at=_time(row["expires_at"]) or "",
        claimed_at=_time(row["claimed_at"]),
        ended_at=_time(row["ended_at"]),
        end_reason=row["end_reason"],
    )


def call_columns(call: Call) -> dict[str, Any]:
    """Return the call's columns by name."""
    return {name: getattr(call, name) for name in _FIELDS} | {"config": dict(call.config)}


def _time(value: datetime | str | None) -> str | None:
    if value is None:
        return None
    return iso(moment(value) if isinstance(value, str) else value)


def _is_uuid(value: Any) -> bool:
    return isinstance(value, str) and bool(_UUID.fullmatch(value))


def _is_party(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return True
    return isinstance(value, str) and len(value) <= MAX_PARTY_CHARS and not _CONTROL.search(value)

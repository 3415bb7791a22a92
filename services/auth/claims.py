"""From the claims of a token to a `User`: what must be there and what it must say. Decides only; no I/O, no clock."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

LEEWAY_S = 10.0
"""Clock difference between Auth and this machine that is forgiven; ample for two servers that run NTP."""

USER_ROLE = "authenticated"
"""PostgreSQL role of every signed-in user. `anon` and `service_role` are API keys, which are JWTs too."""


class TokenRejected(Exception):
    """Raised when a token is not accepted; `reason` is for the log and never holds any part of the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AuthUnavailable(TokenRejected):
    """Raised when a token cannot be judged because Auth is away; the same token may be accepted later."""


@dataclass(frozen=True, slots=True)
class User:
    """A signed-in user.

    Attributes:
        id: UUID in canonical text form (claim `sub`).
        session_id: UUID of the sign-in (claim `session_id`); None when the signer names none.
        role: Always `authenticated`.
        expires_at: Wall time in seconds since 1970 at which the token ends.
        is_admin: True for a Supabase user whose `app_metadata` has `"voice_admin": true` (only a service key can write
            it), and for a development token made with admin=True.
        kind: Who signed the token.
    """

    id: str
    session_id: str | None
    role: str
    expires_at: float
    is_admin: bool
    kind: Literal["supabase", "development"]


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What one signer's tokens must say; `issuer` None accepts any issuer that is named."""

    kind: Literal["supabase", "development"]
    issuer: str | None
    audience: str
    allow_anonymous: bool = False


def user_from_claims(claims: Mapping[str, Any], rules: ClaimRules, now: float) -> User:
    """Return the user a token speaks for.

    Args:
        claims: Decoded payload whose signature has been verified, or will be before the user is believed.
        rules: What the signer's tokens must say.
        now: Wall time in seconds since 1970.

    Raises:
        TokenRejected: If a claim is missing, malformed, out of date or not what the rules ask for.

    Source: Supabase Auth, "JWT claims reference"; RFC 7519, section 4.1.
    """
    expires_at = _number(claims, "exp")
    if now >= expires_at + LEEWAY_S:
        raise TokenRejected("expired")
    if _number(claims, "iat") > now + LEEWAY_S:
        raise TokenRejected("issued in the future")
    if "nbf" in claims and _number(claims, "nbf") > now + LEEWAY_S:
        raise TokenRejected("not valid yet")
    _check_parties(claims, rules)
    if claims.get("role") != USER_ROLE:
        raise TokenRejected("role is not authenticated")
    if claims.get("is_anonymous") not in (None, False) and not rules.allow_anonymous:
        raise TokenRejected("anonymous user")
    session_id = claims.get("session_id")
    return User(
        id=_uuid(claims.get("sub"), "sub"),
        session_id=None if session_id is None else _uuid(session_id, "session_id"),
        role=USER_ROLE,
        expires_at=expires_at,
        is_admin=_is_admin(claims, rules),
        kind=rules.kind,
    )


def _check_parties(claims: Mapping[str, Any], rules: ClaimRules) -> None:
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise TokenRejected("issuer missing")
    if rules.issuer is not None and issuer != rules.issuer:
        raise TokenRejected("wrong issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if rules.audience not in audiences:
        raise TokenRejected("wrong audience")


def _number(claims: Mapping[str, Any], name: str) -> float:
    """Return a NumericDate; text, true, NaN and Infinity are none."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejected(f"{name} is not a number")
    seconds = float(value)  # OverflowError for an integer of hundreds of digits
    if not math.isfinite(seconds):
        raise TokenRejected(f"{name} is not a number")
    return seconds


def _uuid(value: Any, name: str) -> str:
    """Return the canonical form; the other spellings `uuid.UUID` takes (braces, urn:, no hyphens) are refused."""
    if not isinstance(value, str):
        raise TokenRejected(f"{name} is not a UUID")
    try:
        canonical = str(uuid.UUID(value))
    except ValueError:
        raise TokenRejected(f"{name} is not a UUID") from None
    if canonical != value.lower():
        raise TokenRejected(f"{name} is not a UUID")
    return canonical


def _is_admin(claims: Mapping[str, Any], rules: ClaimRules) -> bool:
    if rules.kind == "development":
        return claims.get("admin") is True
    # user_metadata is never looked at: users edit it themselves.
    metadata = claims.get("app_metadata")
    return isinstance(metadata, Mapping) and metadata.get("voice_admin") is True

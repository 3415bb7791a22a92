"""Signatures of tokens; the only file that names python-jose.

python-jose 3.5.0 has two open holes: a DER-encoded public key is accepted as an HMAC secret (CVE-2026-85394) and so is
an empty HMAC key (CVE-2026-120459). Neither is reachable here: a `PinnedKey` belongs to exactly one algorithm, that
algorithm alone is handed to the library, HMAC keys are never built from published keys, and a short secret is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jose import jwk, jws
from jose.exceptions import JOSEError

from .claims import TokenRejected

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the size of the hash."""

MAX_PUBLISHED_KEYS = 64
"""A project publishes its standby, current and previous keys, so a handful; more is a broken or hostile answer."""

PUBLISHED: Mapping[str, Mapping[str, str]] = {"ES256": {"kty": "EC", "crv": "P-256"}, "RS256": {"kty": "RSA"}}
"""Algorithms of published keys and the key each needs (RFC 7518, section 6). HMAC keys are never published."""


class BadSignature(TokenRejected):
    """Raised when the key did not sign the token."""


@dataclass(frozen=True, slots=True)
class PinnedKey:
    """A key and the one algorithm it may be used with."""

    algorithm: str
    key: Any = field(repr=False)


def secret_key(secret: str) -> PinnedKey:
    """Return the HS256 key of a shared secret; raises ValueError under 32 bytes or for the text of a public key."""
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"the signing secret must have at least {MIN_SECRET_BYTES} bytes")
    try:
        return PinnedKey("HS256", jwk.construct(secret, "HS256"))
    except JOSEError:
        raise ValueError("the signing secret looks like a public key") from None


def published_keys(entries: Iterable[Any]) -> dict[tuple[str, str], PinnedKey]:
    """Return the usable keys of a JWK set by (`kid`, algorithm); entries that do not fit are left out.

    Source: RFC 7517, section 4; Supabase Auth, `/.well-known/jwks.json`.
    """
    keys: dict[tuple[str, str], PinnedKey] = {}
    for entry in list(entries)[:MAX_PUBLISHED_KEYS]:
        for algorithm, shape in PUBLISHED.items():
            if not _fits(entry, algorithm, shape):
                continue
            try:
                key = jwk.construct(dict(entry), algorithm)
            except (JOSEError, ValueError, TypeError, KeyError, AttributeError):
                continue  # numbers that are no key, such as a point beside the curve
            keys[entry["kid"], algorithm] = PinnedKey(algorithm, key)
    return keys


def _fits(entry: Any, algorithm: str, shape: Mapping[str, str]) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("kid"), str) or not entry["kid"]:
        return False
    operations = entry.get("key_ops", ["verify"])
    return (
        all(entry.get(name) == value for name, value in shape.items())
        and entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def header_of(token: str) -> Mapping[str, Any]:
    """Return a token's header, which nobody has vouched for; raises JOSEError or RecursionError for nonsense."""
    header: Mapping[str, Any] = jws.get_unverified_header(token)
    return header


def claims_of(token: str) -> Mapping[str, Any]:
    """Return a token's payload, which nobody has vouched for; raises JOSEError, ValueError or TokenRejected."""
    return _decoded(jws.get_unverified_claims(token))


def verified_claims(token: str, key: PinnedKey) -> Mapping[str, Any]:
    """Return the payload of a token that the key signed.

    Raises:
        BadSignature: If the key did not sign it, or the token names another algorithm than the key's.
        TokenRejected: If the payload is not a JSON object.
    """
    try:
        payload = jws.verify(token, key.key, algorithms=[key.algorithm])  # a list: a text is searched for a substring
    except JOSEError:
        raise BadSignature("bad signature") from None
    return _decoded(payload)


def signed(claims: Mapping[str, Any], secret: str) -> str:
    """Return an HS256 token with these claims; raises ValueError for a secret under 32 bytes."""
    token: str = jws.sign(dict(claims), secret_key(secret).key, algorithm="HS256")
    return token


def _decoded(payload: bytes) -> Mapping[str, Any]:
    claims = json.loads(payload)
    if not isinstance(claims, Mapping):
        raise TokenRejected("payload is not an object")
    return claims

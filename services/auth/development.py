"""Tokens for development and the demo: signed by this machine for this machine, refused in production."""

from __future__ import annotations

import os
import secrets
import uuid
from pathlib import Path

from .claims import USER_ROLE
from .signatures import MIN_SECRET_BYTES, signed

DEVELOPMENT_ISSUER = "voice-server-development"
"""Claim `iss` of a development token; tells the verifier which secret to check it with."""

SECRET_FILE = "development-token-secret"  # noqa: S105 - a file name
SECRET_BYTES = 48
"""As much as Supabase's own generated JWT secrets have; above the 32 that HS256 asks for."""


def mint_development_token(secret: str, user_id: str, *, ttl_s: float, now: float, admin: bool = False) -> str:
    """Return a token that a verifier with the same development secret accepts.

    Args:
        secret: From `load_development_secret`, at least 32 bytes.
        user_id: UUID of the user to be.
        ttl_s: Seconds until it expires.
        now: Wall time in seconds since 1970.
        admin: Whether the user may see the operator's page.

    Raises:
        ValueError: If user_id is not a UUID or the secret is short.
    """
    claims = {
        "iss": DEVELOPMENT_ISSUER,
        "aud": USER_ROLE,
        "role": USER_ROLE,
        "sub": str(uuid.UUID(user_id)),
        "iat": int(now),
        "exp": int(now + ttl_s),
        "admin": admin,
    }
    return signed(claims, secret)


def load_development_secret(state_dir: str | Path) -> str:
    """Return this machine's development secret; the first use writes it to a file only its owner may read.

    Several processes may call it at once: they all get the secret of the one that was first.

    Raises:
        OSError: If the folder cannot be written or the file not be read.
        ValueError: If the file holds no secret; delete it to get a new one.
    """
    folder = Path(state_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SECRET_FILE
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(SECRET_BYTES))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    secret = path.read_text(encoding="ascii").strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"{SECRET_FILE} in the state folder holds no secret; delete it to get a new one")
    return secret


def _write_once(path: Path, text: str) -> None:
    """Write a file that was not there, complete or not at all; one that came meanwhile stays."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
        try:
            os.link(draft, path)  # unlike a rename, never replaces
        except FileExistsError:
            pass  # another process was first; its secret counts
    finally:
        draft.unlink()

"""Who comes: a token becomes a `User`, or `TokenRejected` is raised.

`claims` decides, `signatures` is the only file that names python-jose, `signing_keys` holds the published keys,
`auth_server` asks Supabase Auth itself, `development` makes tokens for this machine, `verifier` joins them.
"""

from __future__ import annotations

from .claims import AuthUnavailable, TokenRejected, User
from .development import DEVELOPMENT_ISSUER, load_development_secret, mint_development_token
from .verifier import AuthConfig, Verifier

__all__ = [
    "DEVELOPMENT_ISSUER",
    "AuthConfig",
    "AuthUnavailable",
    "TokenRejected",
    "User",
    "Verifier",
    "load_development_secret",
    "mint_development_token",
]

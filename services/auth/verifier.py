"""The verifier: a token comes in, a `User` comes out or `TokenRejected` is raised."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import httpx

from core.settings import Settings

from .auth_server import AuthServer, Standing
from .claims import USER_ROLE, AuthUnavailable, ClaimRules, TokenRejected, User, user_from_claims
from .development import DEVELOPMENT_ISSUER
from .signatures import PUBLISHED, BadSignature, claims_of, header_of, secret_key, verified_claims
from .signing_keys import SigningKeys

MAX_TOKEN_CHARS = 8192
"""One default nginx header buffer (8 KiB); Supabase tokens have 700 to 1500 characters. Caps the cost of parsing."""

SHAPE = re.compile(r"[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}")
"""A signed JWT (RFC 7515, section 7.1). Checked first, because python-jose skips characters outside the alphabet."""

MAX_KEY_ID_CHARS = 256
"""Supabase's key ids are UUIDs; other signers use thumbprints of 43 characters."""

SessionCheckMode = Literal["off", "on", "strict"]


@dataclass(frozen=True)
class AuthConfig:
    """Whose tokens are accepted. Secrets are masked in its repr.

    Attributes:
        issuer: Claim `iss` of user tokens; None accepts any (a shared secret without Supabase).
        audience: Claim `aud` of user tokens.
        jwks_url: Where ES256 and RS256 keys are published; None: such tokens are refused.
        user_url: Auth's `/user`; None: sessions are not checked and HS256 needs `hs256_secret`.
        apikey: Key for the gateway in front of Auth; the service key will do.
        hs256_secret: Shared secret of projects that sign with HS256, at least 32 bytes.
        development_secret: Secret of development tokens, at least 32 bytes; None: they are refused.
        session_check: Whether Auth is asked about revoked sign-ins; `on`: an outage lets signed tokens pass, `strict`:
            it refuses.
        allow_anonymous: Whether users of the anonymous sign-in are accepted.
    """

    issuer: str | None = None
    audience: str = USER_ROLE
    jwks_url: str | None = None
    user_url: str | None = None
    apikey: str | None = field(default=None, repr=False)
    hs256_secret: str | None = field(default=None, repr=False)
    development_secret: str | None = field(default=None, repr=False)
    session_check: SessionCheckMode = "on"
    allow_anonymous: bool = False


class Verifier:
    """Verifies tokens: ES256 and RS256 with published keys, HS256 with a secret or by asking Auth.

    Tokens of a project's OAuth server (claim `client_id`) are accepted like the user's own, as Supabase's Data API
    does.
    """

    def __init__(
        self,
        config: AuthConfig,
        http: httpx.AsyncClient | None = None,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a verifier; nothing is fetched before the first token or `warm`.

        Args:
            config: Whose tokens are accepted.
            http: Shared client, not closed here; needed for `jwks_url` and `user_url`.
            wall: Seconds since 1970, for the times in tokens.
            monotonic: Seconds, for the caches.

        Raises:
            ValueError: If a secret has under 32 bytes or an address is configured without a client.
        """
        if http is None and (config.jwks_url or config.user_url):
            raise ValueError("published keys and session checks need an HTTP client")
        self._config = config
        self._wall = wall
        self._rules = ClaimRules("supabase", config.issuer, config.audience, config.allow_anonymous)
        self._development_rules = ClaimRules("development", DEVELOPMENT_ISSUER, USER_ROLE)
        self._secret = None if config.hs256_secret is None else secret_key(config.hs256_secret)
        self._development = None if config.development_secret is None else secret_key(config.development_secret)
        self._keys: SigningKeys | None = None
        self._auth_server: AuthServer | None = None
        if http is not None and config.jwks_url:
            self._keys = SigningKeys(config.jwks_url, http, monotonic)
        if http is not None and config.user_url:
            self._auth_server = AuthServer(config.user_url, config.apikey or "", http, monotonic)

    @classmethod
    def from_settings(
        cls, settings: Settings, http: httpx.AsyncClient | None, development_secret: str | None = None
    ) -> Verifier:
        """Return the verifier the settings describe; in production development tokens are refused in any case."""
        supabase = settings.supabase_url
        config = AuthConfig(
            issuer=settings.supabase_jwt_issuer,
            audience=settings.supabase_jwt_audience,
            jwks_url=settings.supabase_jwks_url,
            user_url=f"{supabase}/auth/v1/user" if supabase else None,
            apikey=settings.supabase_service_key,
            hs256_secret=settings.supabase_jwt_secret,
            development_secret=None if settings.is_production else development_secret,
            session_check=cast(SessionCheckMode, settings.session_check),
            allow_anonymous=settings.allow_anonymous_users,
        )
        return cls(config, http)

    def __repr__(self) -> str:
        return f"Verifier({self._config!r})"

    async def verify(self, token: str) -> User:
        """Return the user whose valid access token this is.

        Answers at once from caches, else within 6 s: a fetch of keys, a turn to ask and a question to Auth, 2 s each.

        Raises:
            AuthUnavailable: If only Auth could tell and Auth is away.
            TokenRejected: For every other reason; nothing else is raised.
        """
        try:
            user, is_vouched = await self._identify(token)
            if not is_vouched and user.kind == "supabase":
                await self._check_session(token, user)
        except TokenRejected:
            raise
        except Exception as error:  # noqa: BLE001 - hostile input makes python-jose raise nearly anything; all of it is "no"
            raise TokenRejected(type(error).__name__) from None
        return user

    async def warm(self) -> None:
        """Fetch the published keys, so that the first caller does not wait for them; an outage is no error."""
        if self._keys is not None:
            await self._keys.refresh()

    def purge(self) -> None:
        """Forget the published keys at once, after a key was revoked in the dashboard."""
        if self._keys is not None:
            self._keys.purge()

    @property
    def published_keys(self) -> int:
        """Number of published keys at hand, 0 before the first fetch and for a project that signs with HS256."""
        return self._keys.count if self._keys is not None else 0

    def status(self) -> Literal["up", "down", "off"]:
        """Return how Auth answered last; `off` when no Auth is configured. Asks nobody."""
        sources = [source for source in (self._keys, self._auth_server) if source is not None]
        if not sources:
            return "off"
        return "up" if all(source.reachable for source in sources) else "down"

    async def _identify(self, token: str) -> tuple[User, bool]:
        """Return the user, and whether Auth itself has just vouched for the token."""
        if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARS or not SHAPE.fullmatch(token):
            raise TokenRejected("not a signed token")
        header = header_of(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if "crit" in header:  # RFC 7515, section 4.1.11: what is not understood must be refused
            raise TokenRejected("critical header")
        if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KEY_ID_CHARS):
            raise TokenRejected("malformed key id")
        if algorithm == "HS256":
            return await self._identify_hs256(token, kid)
        if not isinstance(algorithm, str) or algorithm not in PUBLISHED:
            raise TokenRejected("algorithm not accepted")
        if kid is None:
            raise TokenRejected("key id missing")
        return await self._identify_published(token, kid, algorithm), False

    async def _identify_published(self, token: str, kid: str, algorithm: str) -> User:
        key = await self._keys.key(kid, algorithm) if self._keys is not None else None
        if key is None:
            if self._keys is not None and not self._keys.loaded:
                raise AuthUnavailable("no signing keys could be fetched")
            raise TokenRejected("unknown signing key")
        return self._user(verified_claims(token, key), self._rules)

    async def _identify_hs256(self, token: str, kid: str | None) -> tuple[User, bool]:
        """Choose the secret by issuer: each secret then speaks for its own issuer only."""
        if claims_of(token).get("iss") == DEVELOPMENT_ISSUER:
            if self._development is None:
                raise TokenRejected("development token")
            return self._user(verified_claims(token, self._development), self._development_rules), False
        if self._secret is not None:
            try:
                return self._user(verified_claims(token, self._secret), self._rules), False
            except BadSignature:
                if kid is None:  # with a key id it may be a shared signing key that Supabase does not give away
                    raise
        return await self._vouched_user(token), True

    async def _vouched_user(self, token: str) -> User:
        """Have Auth verify a token whose key is not in our hands."""
        if self._auth_server is None:
            raise TokenRejected("no key for HS256")
        user = self._user(claims_of(token), self._rules)
        digest = hashlib.sha256(token.encode()).hexdigest()  # a forged token shares the session id, not the digest
        standing = await self._auth_server.standing(token, user.id, f"token {digest}")
        if standing is Standing.UNKNOWN:
            raise AuthUnavailable("Auth did not answer")
        if standing is not Standing.GOOD:
            raise TokenRejected("refused by Auth")
        return user

    async def _check_session(self, token: str, user: User) -> None:
        if self._auth_server is None or self._config.session_check == "off":
            return
        sign_in = f"session {user.session_id} of {user.id}" if user.session_id else f"user {user.id}"
        standing = await self._auth_server.standing(token, user.id, sign_in)
        if standing is Standing.REVOKED:
            raise TokenRejected("signed out, banned or deleted")
        if standing is Standing.REFUSED:
            raise TokenRejected("refused by Auth")
        if standing is Standing.UNKNOWN and self._config.session_check == "strict":
            raise AuthUnavailable("Auth did not answer")

    def _user(self, claims: Mapping[str, Any], rules: ClaimRules) -> User:
        return user_from_claims(claims, rules, self._wall())

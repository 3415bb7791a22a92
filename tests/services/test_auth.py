"""Tokens, good and hostile, with real keys; the published ones come from a server on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from jose import jws

from core.settings import read_settings
from services.auth import AuthConfig, TokenRejected, User, Verifier, mint_development_token
from tests.fakes.scripted_http import Answer, ScriptedHttp
from tests.fakes.signers import (
    ISSUER,
    NOW,
    SECRET,
    Clock,
    b64,
    claims,
    ec_signer,
    hs256_token,
    number,
    rsa_signer,
    unsigned,
)

EC, RSA = ec_signer(), rsa_signer()
JWKS_PATH = "/auth/v1/.well-known/jwks.json"
DEVELOPMENT_SECRET = "the-development-secret-of-this-very-machine"
ANYBODY = "5f0c1c1e-8f5e-4d0a-9a55-0123456789ab"


@pytest.fixture(scope="module")
def auth() -> Iterator[ScriptedHttp]:
    """An Auth server that publishes an RSA key ahead of the EC key, which trips python-jose's own choice of a key."""
    with ScriptedHttp() as server:
        server.answers[JWKS_PATH] = Answer(200, {"keys": [RSA.jwk(), EC.jwk()]})
        yield server


def verify(token: Any, auth: ScriptedHttp, **config: Any) -> User:
    """Verify one token with a new verifier that knows published keys, a shared and a development secret."""

    async def run() -> User:
        settings = {
            "issuer": ISSUER,
            "jwks_url": auth.url + JWKS_PATH,
            "hs256_secret": SECRET,
            "development_secret": DEVELOPMENT_SECRET,
        }
        async with httpx.AsyncClient() as http:
            return await Verifier(AuthConfig(**settings | config), http, wall=Clock(NOW)).verify(token)

    return asyncio.run(run())


def refused(token: Any, auth: ScriptedHttp, **config: Any) -> str:
    """Return the reason for which a token is rejected; it must not contain any of the token."""
    with pytest.raises(TokenRejected) as caught:
        verify(token, auth, **config)
    reason = caught.value.reason
    if isinstance(token, str):
        assert not any(part and len(part) > 8 and part in reason for part in token.split("."))
    assert caught.value.__cause__ is None
    return reason


@pytest.mark.parametrize("signer", [EC, RSA], ids=["ES256", "RS256"])
def test_user_of_a_published_key_is_accepted(signer: Any, auth: ScriptedHttp) -> None:
    """A token signed with a published key gives the user with id, session and expiry."""
    payload = claims()
    user = verify(signer.token(payload), auth)
    assert user == User(
        id=payload["sub"],
        session_id=payload["session_id"],
        role="authenticated",
        expires_at=float(payload["exp"]),
        is_admin=False,
        kind="supabase",
    )


def test_user_of_the_shared_secret_is_accepted(auth: ScriptedHttp) -> None:
    """A token signed with the configured HS256 secret gives the user."""
    payload = claims()
    assert verify(hs256_token(SECRET.encode(), payload), auth).id == payload["sub"]
    assert verify(hs256_token(SECRET.encode(), payload, kid="shared-1"), auth).id == payload["sub"]


def test_audience_may_be_one_of_several(auth: ScriptedHttp) -> None:
    """Auth may write the audience as a list."""
    assert verify(EC.token(claims(aud=["other", "authenticated"])), auth).role == "authenticated"


def test_session_id_may_be_missing(auth: ScriptedHttp) -> None:
    """A signer that names no session is accepted; the user then has none."""
    assert verify(EC.token(claims(session_id=...)), auth).session_id is None


def test_only_app_metadata_makes_an_admin(auth: ScriptedHttp) -> None:
    """What users can edit themselves gives no rights."""
    assert verify(EC.token(claims(app_metadata={"voice_admin": True})), auth).is_admin
    assert not verify(
        EC.token(claims(user_metadata={"voice_admin": True}, voice_admin=True, admin=True)), auth
    ).is_admin
    assert not verify(EC.token(claims(app_metadata={"voice_admin": "true"})), auth).is_admin
    assert not verify(EC.token(claims(app_metadata=None)), auth).is_admin


def test_small_clock_difference_is_forgiven(auth: ScriptedHttp) -> None:
    """Ten seconds of difference to Auth's clock are no reason to refuse."""
    assert verify(EC.token(claims(exp=NOW - 9)), auth)
    assert verify(EC.token(claims(iat=NOW + 9, nbf=NOW + 9)), auth)


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": NOW - 11},
    "expired long ago": {"exp": 0},
    "negative expiry": {"exp": -1e300},
    "expiry missing": {"exp": ...},
    "expiry null": {"exp": None},
    "expiry as text": {"exp": str(int(NOW) + 3600)},
    "expiry as list": {"exp": [NOW + 3600]},
    "expiry as true": {"exp": True},
    "expiry infinite": {"exp": float("inf")},
    "expiry not a number": {"exp": float("nan")},
    "expiry of 400 digits": {"exp": 10**400},
    "issued at missing": {"iat": ...},
    "issued at as text": {"iat": "yesterday"},
    "issued at as true": {"iat": True},
    "issued in the future": {"iat": NOW + 11},
    "issued a day ahead": {"iat": NOW + 86_400},
    "not valid yet": {"nbf": NOW + 11},
    "not before as text": {"nbf": "0"},
    "subject missing": {"sub": ...},
    "subject empty": {"sub": ""},
    "subject not a UUID": {"sub": "admin"},
    "subject a number": {"sub": 7},
    "subject in braces": {"sub": "{5f0c1c1e-8f5e-4d0a-9a55-0123456789ab}"},
    "subject as a URN": {"sub": "urn:uuid:5f0c1c1e-8f5e-4d0a-9a55-0123456789ab"},
    "subject with a filter": {"sub": "5f0c1c1e-8f5e-4d0a-9a55-0123456789ab,or=(id.neq.0)"},
    "session not a UUID": {"session_id": "1"},
    "session empty": {"session_id": ""},
    "audience missing": {"aud": ...},
    "audience foreign": {"aud": "somebody-else"},
    "audience list foreign": {"aud": ["somebody", "else"]},
    "audience empty": {"aud": []},
    "audience a mapping": {"aud": {"authenticated": True}},
    "issuer missing": {"iss": ...},
    "issuer foreign": {"iss": "https://evil.example/auth/v1"},
    "issuer with a slash more": {"iss": ISSUER + "/"},
    "issuer as list": {"iss": [ISSUER]},
    "role missing": {"role": ...},
    "role anon": {"role": "anon"},
    "role service": {"role": "service_role"},
    "role as list": {"role": ["authenticated"]},
    "anonymous": {"is_anonymous": True},
    "anonymous as text": {"is_anonymous": "yes"},
}


@pytest.mark.parametrize("changes", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
def test_well_signed_token_with_bad_claims_is_rejected(changes: dict[str, Any], auth: ScriptedHttp) -> None:
    """A good signature does not save a token whose claims are missing, malformed, out of date or for others."""
    assert refused(EC.token(claims(**changes)), auth)
    assert refused(hs256_token(SECRET.encode(), claims(**changes)), auth)


def test_anonymous_user_is_accepted_when_allowed(auth: ScriptedHttp) -> None:
    """ALLOW_ANONYMOUS_USERS lets users of the anonymous sign-in talk."""
    assert verify(EC.token(claims(is_anonymous=True)), auth, allow_anonymous=True)


PUBLIC_DER, PUBLIC_PEM = EC.public(Encoding.DER), EC.public(Encoding.PEM)
GOOD = EC.token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
EVIL = ec_signer("evil")

FORGED: dict[str, Any] = {
    "not a text": None,
    "bytes": GOOD.encode(),
    "a number": 7,
    "empty": "",
    "dots": "..",
    "two parts": f"{HEAD}.{BODY}",
    "four parts": f"{GOOD}.{SIGNATURE}",
    "five parts, as encrypted tokens have": f"{HEAD}.{BODY}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",
    "signature missing": f"{HEAD}.{BODY}.",
    "signature of another token": f"{HEAD}.{BODY}.{EC.token().split('.')[2]}",
    "signature cut": GOOD[:-8],
    "signature of zeros": f"{HEAD}.{BODY}.{b64(bytes(64))}",
    "payload exchanged": f"{HEAD}.{unsigned({}).split('.')[1]}.{SIGNATURE}",
    "padding": GOOD + "==",
    "line break at the end": GOOD + "\n",
    "space in the middle": f"{HEAD}. {BODY}.{SIGNATURE}",
    "characters outside the alphabet": f"{HEAD}.{BODY}.!{SIGNATURE}",
    "percent encoding": GOOD.replace(".", "%2E"),
    "algorithm none": f"{unsigned({'alg': 'none', 'typ': 'JWT'})}.{b64(b'xx')}",
    "algorithm None in another case": f"{unsigned({'alg': 'nOnE', 'kid': EC.kid})}.{b64(b'xx')}",
    "algorithm missing": EC.token(alg=None),
    "algorithm a list": EC.token(alg=["ES256"]),
    "algorithm a mapping": EC.token(alg={"ES256": 1}),
    "algorithm with a longer name": EC.token(alg="ES256K"),
    "algorithm EdDSA": EC.token(alg="EdDSA"),
    "algorithm HS512": hs256_token(SECRET.encode(), alg="HS512"),
    "algorithm RS256 with the id of an EC key": RSA.token(kid=EC.kid),
    "algorithm ES256 with the id of an RSA key": EC.token(kid=RSA.kid),
    "key id missing": EC.token(kid=None),
    "key id empty": EC.token(kid=""),
    "key id a number": EC.token(kid=1),
    "key id a list": EC.token(kid=[EC.kid]),
    "key id very long": EC.token(kid="k" * 300),
    "key id unknown": EC.token(kid="nobody"),
    "key id a path": EC.token(kid="../../etc/passwd"),
    "foreign key under a known id": EVIL.token(kid=EC.kid),
    "foreign key in the header": EVIL.token(jwk=EVIL.jwk(), kid=EC.kid),
    "foreign key set in the header": EVIL.token(jku="https://evil.example/jwks.json", x5u="https://evil.example/x"),
    "critical header": EC.token(crit=["exp"]),
    "critical header empty": EC.token(crit=[]),
    "unencoded payload": EC.token(b64=False, crit=["b64"]),
    "header a list": f"{b64(b'[1]')}.{BODY}.{SIGNATURE}",
    "header not JSON": f"{b64(b'{not json')}.{BODY}.{SIGNATURE}",
    "header not UTF-8": f"{b64(bytes([0xFF, 0xFE, 0xFD]))}.{BODY}.{SIGNATURE}",
    "header nested deeply": f"{b64(b'[' * 5000)}.{BODY}.{SIGNATURE}",
    "payload a list": EC.token([1, 2]),
    "payload a text": EC.token("text"),
    "payload null": EC.token(b"null"),
    "payload not JSON": EC.token(b"{not json"),
    "payload not UTF-8": EC.token(b"\xff\xfe"),
    "payload nested deeply": EC.token(b"[" * 5000),
    "payload of a shared token nested deeply": hs256_token(SECRET.encode(), b"[" * 5000),
    "wrong shared secret": hs256_token(b"another-secret-of-sufficient-length-for-this"),
    "legacy anon key": hs256_token(SECRET.encode(), {"role": "anon", "iss": "supabase", "iat": 1, "exp": 2e9}),
    "legacy service key": hs256_token(SECRET.encode(), {"role": "service_role", "iat": 1, "exp": 2e9}),
    "publishable key": "sb_publishable_abcdefghijklmnopqrstuvwx",
    "9 KiB": EC.token(claims(filler="x" * 9000)),
    "8 MB of header": "A" * 8_000_000 + f".{BODY}.{SIGNATURE}",
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_forged_token_is_rejected(token: Any, auth: ScriptedHttp) -> None:
    """Whatever a stranger sends, the answer is TokenRejected and nothing else."""
    assert refused(token, auth)


@pytest.mark.parametrize("kid", [EC.kid, None], ids=["with its key id", "without key id"])
@pytest.mark.parametrize("config", [{}, {"hs256_secret": None}], ids=["secret configured", "no secret"])
@pytest.mark.parametrize("stolen", [PUBLIC_DER, PUBLIC_PEM, json.dumps(EC.jwk()).encode()], ids=["DER", "PEM", "JWK"])
def test_public_key_is_no_shared_secret(stolen: bytes, config: Any, kid: str | None, auth: ScriptedHttp) -> None:
    """CVE-2026-85394 and CVE-2024-33663: a token HMAC-signed with the public key in any form is rejected."""
    header = {} if kid is None else {"kid": kid}
    assert refused(hs256_token(stolen, **header), auth, **config)


def test_library_alone_would_take_the_public_key() -> None:
    """The hole is in the library: given both algorithms and the DER key it accepts the forgery this file refuses."""
    assert jws.verify(hs256_token(PUBLIC_DER), PUBLIC_DER, algorithms=["ES256", "HS256"])


@pytest.mark.parametrize("config", [{}, {"hs256_secret": None}], ids=["secret configured", "no secret"])
@pytest.mark.parametrize("kid", ["empty", None])
def test_empty_key_signs_nothing(kid: str | None, config: Any) -> None:
    """CVE-2026-120459: a token signed with an empty HMAC key is rejected, even when such a key is published."""
    with ScriptedHttp() as auth:
        published = {"kid": "empty", "kty": "oct", "alg": "HS256", "k": "", "key_ops": ["verify"]}
        auth.answers[JWKS_PATH] = Answer(200, {"keys": [published, EC.jwk()]})
        header = {} if kid is None else {"kid": kid}
        assert refused(hs256_token(b"", **header), auth, **config)


@pytest.mark.parametrize("secret", ["", "short", "x" * 31])
def test_short_secret_is_refused_at_the_start(secret: str) -> None:
    """No verifier exists with an HMAC secret under 32 bytes."""
    for name in ("hs256_secret", "development_secret"):
        with pytest.raises(ValueError, match="32 bytes"):
            Verifier(AuthConfig(**{name: secret}))


def test_public_key_is_refused_as_the_secret() -> None:
    """An operator who pastes the public key as the secret is told so."""
    with pytest.raises(ValueError, match="public key"):
        Verifier(AuthConfig(hs256_secret=PUBLIC_PEM.decode()))


BROKEN_KEYS: dict[str, Any] = {
    "no key id": EC.jwk(kid=...),
    "key id a number": EC.jwk(kid=1),
    "for encryption": EC.jwk(use="enc"),
    "for signing only": EC.jwk(key_ops=["sign"]),
    "operations a text": EC.jwk(key_ops="verify"),
    "another algorithm": EC.jwk(alg="ES384"),
    "another curve": EC.jwk(crv="P-384"),
    "beside the curve": EC.jwk(x=number(1, 32), y=number(1, 32)),
    "coordinate missing": EC.jwk(y=...),
    "coordinate a number": EC.jwk(x=17),
    "symmetric": {"kid": EC.kid, "kty": "oct", "alg": "ES256", "k": b64(b"x" * 32)},
    "a text": "key",
    "null": None,
}


@pytest.mark.parametrize("entry", BROKEN_KEYS.values(), ids=BROKEN_KEYS.keys())
def test_broken_published_key_is_left_out_and_spoils_no_other(entry: Any) -> None:
    """An entry that does not fit verifies nothing; the good key behind it still works."""
    with ScriptedHttp() as auth:
        auth.answers[JWKS_PATH] = Answer(200, {"keys": [entry, RSA.jwk()]})
        assert refused(EC.token(), auth) == "unknown signing key"
        assert verify(RSA.token(), auth)


def test_development_token_is_accepted_where_its_secret_is(auth: ScriptedHttp) -> None:
    """A development token names a user, and an admin if it was made so."""
    user = verify(mint_development_token(DEVELOPMENT_SECRET, ANYBODY, ttl_s=60, now=NOW), auth)
    assert (user.id, user.kind, user.is_admin, user.session_id) == (ANYBODY, "development", False, None)
    assert user.expires_at == NOW + 60
    admin = mint_development_token(DEVELOPMENT_SECRET, ANYBODY, ttl_s=60, now=NOW, admin=True)
    assert verify(admin, auth).is_admin


def test_development_token_is_refused_elsewhere(auth: ScriptedHttp) -> None:
    """Without the development secret, with another one, or signed with the project's own, it is refused."""
    token = mint_development_token(DEVELOPMENT_SECRET, ANYBODY, ttl_s=60, now=NOW)
    assert refused(token, auth, development_secret=None) == "development token"
    assert refused(token, auth, development_secret="x" * 40)
    assert refused(mint_development_token(SECRET, ANYBODY, ttl_s=60, now=NOW), auth)
    assert refused(mint_development_token(SECRET, ANYBODY, ttl_s=60, now=NOW), auth, development_secret=None)


def test_development_secret_speaks_for_no_supabase_user(auth: ScriptedHttp) -> None:
    """Whoever has the development secret cannot sign tokens of the project."""
    assert refused(hs256_token(DEVELOPMENT_SECRET.encode(), claims()), auth)


def test_expired_development_token_is_refused(auth: ScriptedHttp) -> None:
    """A development token ends like any other."""
    assert refused(mint_development_token(DEVELOPMENT_SECRET, ANYBODY, ttl_s=60, now=NOW - 71), auth) == "expired"


def test_production_refuses_development_tokens_whatever_it_is_given() -> None:
    """NODE_ENV=production drops the development secret."""
    environ = {
        "SUPABASE_URL": "https://project.example",
        "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x",
        "SUPABASE_JWT_SECRET": SECRET,
        "SESSION_CHECK": "off",
    }
    token = mint_development_token(DEVELOPMENT_SECRET, ANYBODY, ttl_s=1e10, now=NOW - 1e9)

    async def run(environment: str) -> User:
        async with httpx.AsyncClient() as http:
            settings = read_settings(environ | {"NODE_ENV": environment})
            return await Verifier.from_settings(settings, http, DEVELOPMENT_SECRET).verify(token)

    assert asyncio.run(run("development")).kind == "development"
    with pytest.raises(TokenRejected, match="development token"):
        asyncio.run(run("production"))


def test_secrets_are_in_no_repr(auth: ScriptedHttp) -> None:
    """Neither the verifier nor its configuration shows a key."""

    async def run() -> str:
        async with httpx.AsyncClient() as http:
            config = AuthConfig(ISSUER, "a", auth.url, auth.url, "sb_secret_apikey", SECRET, DEVELOPMENT_SECRET)
            verifier = Verifier(config, http)
            return f"{verifier!r} {config!r} {verifier._secret!r} {verifier._auth_server!r}"

    shown = asyncio.run(run())
    assert not any(secret in shown for secret in ("sb_secret_apikey", SECRET, DEVELOPMENT_SECRET))


def test_address_without_a_client_is_a_mistake_found_at_the_start() -> None:
    """A verifier that could never fetch keys is not made."""
    with pytest.raises(ValueError, match="HTTP client"):
        Verifier(AuthConfig(jwks_url="https://project.example/jwks.json"))


def test_without_supabase_published_keys_are_refused() -> None:
    """A server that has only a shared secret takes HS256 tokens of any issuer and no others."""

    async def run(token: str) -> User:
        verifier = Verifier(AuthConfig(hs256_secret=SECRET), wall=Clock(NOW))
        assert verifier.status() == "off"
        await verifier.warm()
        verifier.purge()
        return await verifier.verify(token)

    assert asyncio.run(run(hs256_token(SECRET.encode(), claims(iss="https://my.app"))))
    with pytest.raises(TokenRejected):
        asyncio.run(run(EC.token()))

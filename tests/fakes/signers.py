"""Keys that sign tokens as a Supabase project does, and the claims such tokens have.

It misleads nowhere: the keys are real and made anew for each run; only the project they belong to does not exist.
"""

from __future__ import annotations

import base64
import functools
import json
import uuid
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

NOW = 1_795_000_000.0
"""The instant at which tests take place, seconds since 1970."""

ISSUER = "https://project.example/auth/v1"
SECRET = "a-shared-secret-of-the-project-with-48-bytes-ok!"


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good user token; a change to `...` leaves the claim out."""
    complete = {
        "iss": ISSUER,
        "sub": str(uuid.uuid4()),
        "aud": "authenticated",
        "role": "authenticated",
        "iat": int(NOW) - 60,
        "exp": int(NOW) + 3540,
        "session_id": str(uuid.uuid4()),
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": int(NOW) - 60}],
        "is_anonymous": False,
        "email": "somebody@example.com",
        "phone": "",
        "app_metadata": {"provider": "email"},
        "user_metadata": {},
    } | changes
    return {name: value for name, value in complete.items() if value is not ...}


@dataclass(frozen=True)
class Signer:
    """An asymmetric key with its key id."""

    kid: str
    algorithm: str
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """Return the public key as Auth publishes it."""
        entry = {"kid": self.kid, "alg": self.algorithm, "key_ops": ["verify"], "use": "sig", "ext": True}
        public = self.private.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            point = public.public_numbers()
            entry |= {"kty": "EC", "crv": "P-256", "x": number(point.x, 32), "y": number(point.y, 32)}
        else:
            numbers = public.public_numbers()
            entry |= {"kty": "RSA", "n": number(numbers.n, 256), "e": number(numbers.e, 3)}
        return {name: value for name, value in (entry | changes).items() if value is not ...}

    def public(self, encoding: serialization.Encoding) -> bytes:
        """Return the public key in PEM or DER, as an attacker would use it."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(encoding, form)

    def token(self, payload: Any = None, **header: Any) -> str:
        """Return a token this key signed; header entries given replace or add to the usual ones."""
        signing_input = unsigned({"alg": self.algorithm, "kid": self.kid, "typ": "JWT"} | header, payload)
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            r, s = utils.decode_dss_signature(self.private.sign(signing_input.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        else:
            signature = self.private.sign(signing_input.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signing_input}.{b64(signature)}"


def hs256_token(secret: bytes, payload: Any = None, **header: Any) -> str:
    """Return a token signed with a shared secret, of whatever length and kind."""
    signing_input = unsigned({"alg": "HS256", "typ": "JWT"} | header, payload)
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(signing_input.encode())
    return f"{signing_input}.{b64(mac.finalize())}"


def unsigned(header: Any, payload: Any = None) -> str:
    """Return header and payload of a token; bytes are taken as they are, None is a good user's claims."""
    return f"{b64(_json(header))}.{b64(_json(claims() if payload is None else payload))}"


@functools.cache
def ec_signer(kid: str = "key-ec") -> Signer:
    """Return the ES256 key of this id."""
    return Signer(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


@functools.cache
def rsa_signer(kid: str = "key-rsa") -> Signer:
    """Return the RS256 key of this id."""
    return Signer(kid, "RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048))


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, length: int) -> str:
    """Return a number as a JWK holds it."""
    return b64(value.to_bytes(length, "big"))


def _json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()

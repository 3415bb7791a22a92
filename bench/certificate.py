"""Certificates of this machine's own, for an upstream with TLS on loopback; nothing else ever trusts them."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey

VALID = timedelta(days=1)
"""A run takes minutes."""

NAMES = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a server's certificate for 127.0.0.1 with those above it, and its key; return both files.

    It hangs from a root by one in between, and all keys are elliptic curves', as with large services: what a full
    handshake costs a client is mostly the check of this chain. The file is what the server shows and what may be
    trusted.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"voice bench {part}")]) for part in range(3)]
    above = [(0, 0), (0, 1), (1, 2)]
    chain = [
        _signed(names[subject], keys[subject], issuer=names[issuer], by=keys[issuer], depth=1 - subject)
        for issuer, subject in above
    ]
    folder.mkdir(parents=True, exist_ok=True)
    certificate_file, key_file = folder / "upstream.pem", folder / "upstream.key"
    pem = [certificate.public_bytes(serialization.Encoding.PEM) for certificate in reversed(chain)]
    certificate_file.write_bytes(b"".join(pem))
    key_file.touch(0o600)
    key_file.write_bytes(
        keys[-1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_file, key_file


def _signed(subject: x509.Name, key: Key, *, issuer: x509.Name, by: Key, depth: int) -> x509.Certificate:
    """Return a certificate; `depth` are those that may stand between it and a server's, -1 makes it a server's."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID)
    )
    is_authority = depth >= 0
    rule = x509.BasicConstraints(ca=is_authority, path_length=depth if is_authority else None)
    builder = builder.add_extension(rule, critical=True)
    return (builder if is_authority else builder.add_extension(NAMES, critical=False)).sign(by, hashes.SHA256())

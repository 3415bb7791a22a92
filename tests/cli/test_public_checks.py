"""`./voice doctor` asks the public address: upgrades, certificate, and no riddle where the network is away."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli import public_checks
from cli.local_postgres import free_port
from core.settings import Settings, read_settings
from tests.fakes.gateway import Gateway


def settings(public_url: str | None) -> Settings:
    """Return settings with this public address."""
    return read_settings({"DATABASE_URL": "sqlite:///x.db", "OPENAI_API_KEY": "sk-x", "PUBLIC_URL": public_url or ""})


@contextmanager
def web_server(status: int) -> Iterator[int]:
    """Answer everything with this status, as a proxy that does not pass upgrades on; gives the port."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def certificate(folder: Path, days: int) -> Path:
    """Write a certificate for loopback, with its key in the same file, that ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "voice test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=100))
        .not_valid_after(now + datetime.timedelta(days=days, minutes=5))
        .add_extension(address, critical=False).add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / "site.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@contextmanager
def tls_server(file: Path) -> Iterator[int]:
    """Shake hands with one visitor; gives the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as link:
                    link.recv(1)
            except OSError:  # the visitor does not trust us, or left
                plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_upgrades_that_get_through_are_recognised() -> None:
    """The server itself, as a proxy would show it, is known by how it refuses a visitor without a token."""
    with Gateway() as gateway:
        found = public_checks.public_address(settings(f"http://127.0.0.1:{gateway.server.port}"))
    assert (found.state, "get through" in found.text) == ("ok", True)


@pytest.mark.parametrize(("status", "mend"), [(200, "init nginx"), (426, "init nginx"), (502, "instances")])
def test_proxy_without_upgrades_is_a_problem(status: int, mend: str) -> None:
    """Any answer but 101 is named, with what mends it."""
    with web_server(status) as port:
        found = public_checks.public_address(settings(f"http://127.0.0.1:{port}"))
    assert (found.state, str(status) in found.text, mend in found.mend) == ("problem", True, True)


@pytest.mark.parametrize("check", [public_checks.public_address, public_checks.certificate])
@pytest.mark.parametrize("url", ["https://127.0.0.1:{port}", "https://voice.invalid"])
def test_address_that_cannot_be_reached_is_a_warning(check: object, url: str) -> None:
    """A machine without network, or whose router does not lead back, gets one plain sentence and a hint."""
    found = check(settings(url.format(port=free_port())))  # type: ignore[operator]
    assert (found.state, "cannot be reached from this machine" in found.text) == ("warning", True)


def test_no_public_address_is_nothing_to_look_at() -> None:
    """Without PUBLIC_URL both checks are skipped, and the certificate without TLS."""
    assert public_checks.public_address(settings(None)).state == "skipped"
    assert public_checks.certificate(settings(None)).state == "skipped"
    assert public_checks.certificate(settings("http://127.0.0.1:1")).state == "skipped"


@pytest.mark.parametrize(("days", "state"), [(60, "ok"), (20, "warning"), (3, "problem")])
def test_days_of_the_certificate_are_counted(
    days: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that certbot should have renewed is a warning, one about to end a problem."""
    file = certificate(tmp_path, days)
    monkeypatch.setattr(public_checks, "tls_context", lambda: ssl.create_default_context(cafile=file))
    with tls_server(file) as port:
        found = public_checks.certificate(settings(f"https://127.0.0.1:{port}"))
    assert (found.state, str(days) in found.text) == (state, True)


@pytest.mark.parametrize("check", [public_checks.public_address, public_checks.certificate])
def test_certificate_nobody_trusts_is_a_problem(check: object, tmp_path: Path) -> None:
    """A self-made certificate is named as such, with the command that gets a real one."""
    with tls_server(certificate(tmp_path, 60)) as port:
        found = check(settings(f"wss://127.0.0.1:{port}"))  # type: ignore[operator]
    assert (found.state, "self-signed" in found.text, "certbot" in found.mend) == ("problem", True, True)

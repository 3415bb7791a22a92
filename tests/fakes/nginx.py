"""The shipped nginx site in a real nginx with TLS, on free ports of loopback, in front of given ports.

    with Nginx(tmp_path, [8081, 8082]) as nginx:
        nginx.wss_url, nginx.connect(), nginx.access_log(), nginx.error_log()

Only what names a place is replaced: ports, certificate, log files; the error log is as quiet as shipped unless a test
asks for more. It misleads in that its certificate is its own authority, and that it does not listen on IPv6.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli.local_postgres import free_port

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "deploy" / "nginx.conf"
ADMIN_SITE = ROOT / "deploy" / "nginx-admin.conf"
NAME = "voice.example.com"
ADMIN_NAME = "admin.example.com"
DEADLINE_S = 30.0


def nginx_program() -> str:
    """Return the path of nginx; skips the test where it is not installed."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    return found


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for the example names, good for a day, and its key; returns both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME), x509.DNSName(ADMIN_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


def site(chain: Path, key: Path, *, logs: str, https_port: int, http_port: int, shipped: Path = SITE) -> str:
    """Return a shipped site with other places in it."""
    text = shipped.read_text(encoding="utf-8")
    text = re.sub(r"ssl_certificate \S+;", f"ssl_certificate {chain};", text)
    text = re.sub(r"ssl_certificate_key \S+;", f"ssl_certificate_key {key};", text)
    text = re.sub(r" *listen \[::\].*\n", "", text)
    text = text.replace("listen 80;", f"listen 127.0.0.1:{http_port};")
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{https_port} ssl;")
    return text.replace("/var/log/nginx", logs)


class Nginx:
    """A running nginx.

    Args:
        folder: Empty folder for its configuration and logs.
        ports: Where the instances of the voice server listen; the shipped site names 8081 and 8082.
        error_level: Level of the error log in place of the shipped `crit`, to see what it would hold.
        admin_port: Where the operator's page listens; without it the second site is left out.
    """

    def __init__(
        self, folder: Path, ports: list[int], *, error_level: str = "crit", admin_port: int | None = None
    ) -> None:
        self._program, self._folder = nginx_program(), folder
        self.https_port, self.http_port = free_port(), free_port()
        self._chain, key = certificate(folder)
        text = site(self._chain, key, logs=str(folder), https_port=self.https_port, http_port=self.http_port)
        servers = "".join(f"    server 127.0.0.1:{port} max_fails=0;\n" for port in ports)
        text, replaced = re.subn(r"(    server 127\.0\.0\.1:\d+ max_fails=0;\n)+", servers, text)
        assert replaced == 1, "the shipped site names its instances in one place"
        (folder / "site.conf").write_text(text.replace(" crit;", f" {error_level};"), encoding="utf-8")
        if admin_port is not None:
            text = site(self._chain, key, logs=str(folder), https_port=self.https_port, http_port=self.http_port,
                        shipped=ADMIN_SITE)  # fmt: skip
            assert "proxy_pass http://127.0.0.1:8084;" in text
            with (folder / "site.conf").open("a", encoding="utf-8") as sites:
                sites.write(text.replace("127.0.0.1:8084", f"127.0.0.1:{admin_port}"))
        temp = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi",
                                                                           "scgi"))  # fmt: skip
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user}daemon off;\nworker_processes 2;\nworker_rlimit_nofile 4096;\npid {folder}/nginx.pid;\n"
            f"error_log {folder}/main.log warn;\nevents {{ worker_connections 1024; }}\n"
            f"http {{\n{temp}include {folder}/site.conf;\n}}\n"
        )
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def wss_url(self) -> str:
        """Address of the browser's door by the name of the certificate; see `connect`."""
        return f"wss://{NAME}:{self.https_port}/"

    def arguments(self, *more: str) -> list[str]:
        """Return the command line of nginx with this configuration."""
        return [self._program, *more, "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]

    def connect(self, source: str = "127.0.0.1", name: str = NAME) -> ssl.SSLSocket:
        """Return a TLS connection to it.

        Args:
            source: Address of loopback to come from; limits are by address.
            name: Which of the sites is meant.
        """
        context = ssl.create_default_context(cafile=str(self._chain))
        plain = socket.create_connection(("127.0.0.1", self.https_port), timeout=DEADLINE_S, source_address=(source, 0))
        return context.wrap_socket(plain, server_hostname=name)

    def get(self, path: str, source: str = "127.0.0.1", method: str = "GET") -> bytes:
        """Return the whole answer to a request, head and body."""
        with self.connect(source) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
            parts = []
            while part := connection.recv(65_536):
                parts.append(part)
        return b"".join(parts)

    def access_log(self) -> str:
        """Return what the access log holds."""
        return (self._folder / "voice.access.log").read_text(encoding="utf-8")

    def error_log(self) -> str:
        """Return what the site's error log holds."""
        return (self._folder / "voice.error.log").read_text(encoding="utf-8")

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(self.arguments(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                self.connect().close()
                return self
            except OSError:
                if self._child.poll() is not None or time.monotonic() > until:
                    self._stop()
                    raise
                time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        child = self._child
        if child is None:
            return
        child.terminate()
        try:
            child.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stderr is not None:
            child.stderr.close()

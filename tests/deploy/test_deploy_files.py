"""The shipped nginx site and systemd unit are taken by the programs they are for."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core.settings import read_settings

ROOT = Path(__file__).resolve().parent.parent.parent
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
UNIT = ROOT / "deploy" / "voice.service"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for the example name and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "voice.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    chain, private = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


def test_nginx_takes_the_site(tmp_path: Path) -> None:
    """nginx -t has nothing to say about the site inside an ordinary configuration."""
    if NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    chain, private = certificate(tmp_path)
    site = (ROOT / "deploy" / "nginx.conf").read_text()
    site = re.sub(r"ssl_certificate \S+;", f"ssl_certificate {chain};", site)
    site = re.sub(r"ssl_certificate_key \S+;", f"ssl_certificate_key {private};", site)
    site = site.replace("/var/log/nginx/", f"{tmp_path}/").replace("listen 80;", "listen 127.0.0.1:18000;")
    (tmp_path / "site.conf").write_text(site)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/nginx.pid;\nerror_log stderr;\nevents {{ worker_connections 64; }}\n"
        f"http {{ include {tmp_path}/site.conf; }}\n"
    )
    done = subprocess.run([NGINX, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], capture_output=True,
                          text=True, timeout=30)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_site_keeps_tokens_out_of_the_logs() -> None:
    """No log format of the site holds a query, and the error log, which cannot be formatted, is for disasters only."""
    site = (ROOT / "deploy" / "nginx.conf").read_text()
    formats = re.findall(r"log_format [^;]+;", site)
    assert formats
    assert [text for text in formats if re.search(r"\$(request\b|request_uri|args|query_string|http_)", text)] == []
    assert re.findall(r"error_log \S+ (\w+);", site) == ["crit"]


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return the unit under its installed name, with an interpreter that is here."""
    text = UNIT.read_text().replace("/opt/websocket-voice-server/.venv/bin/python", "/bin/true")
    path = tmp_path / "websocket-voice-server.service"
    path.write_text(text)
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skip where there is none."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


def test_systemd_takes_the_unit(unit: Path) -> None:
    """systemd-analyze verify has nothing to say."""
    done = analyze("verify", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_unit_is_locked_down(unit: Path) -> None:
    """The exposure level is at most 1.5 of 10 (operations reference, P16)."""
    done = analyze("security", "--offline=true", "--threshold=15", str(unit))
    assert done.returncode == 0, done.stdout[-200:]


def test_unit_waits_for_the_drain() -> None:
    """systemd gives the server its default drain and half a minute more before it kills."""
    settings = read_settings({"DATABASE_URL": "sqlite:///x.db", "OPENAI_API_KEY": "sk-x"})
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)
    assert stop is not None
    assert int(stop.group(1)) >= settings.drain_timeout_s + 30

"""`deploy/install.sh` on a clean Debian 12: twice in a row, then booted: services, site, upgrade, way back, removal."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import read_settings
from tests.fakes.debian_root import DebianRoot
from tests.fakes.nginx import NAME, certificate

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "usr/local/src/voice"
LINK = "opt/websocket-voice-server"
SETTINGS = "etc/websocket-voice-server"

INSTALL_S = 300.0
"""Debian's packages and pip's take half a minute together; a slow line, ten times that."""

BOOT_S = 120.0

SETTINGS_TEXT = """
SUPABASE_URL=
OPENAI_REALTIME_URL=ws://127.0.0.1:1/v1/realtime
DRAIN_TIMEOUT=900
"""

IN_BOOT = f"""
install=/{SOURCE}/deploy/install.sh
fact() {{ printf '%s=%s\\n' "$1" "$2" >>/out/facts; }}
until_ok() {{
    left=150
    until "$@" >/dev/null 2>&1; do left=$((left - 1)) && [ $left -gt 0 ] && sleep 0.2 || return 1; done
}}
answers() {{ curl -sf "http://127.0.0.1:$1/ready"; }}
pid() {{ systemctl show -p MainPID --value "voice@$1"; }}
release() {{ basename "$(readlink "/proc/$(pid "$1")/cwd")"; }}
site() {{
    curl -s -o /dev/null -w '%{{http_code}}' --cacert /out/chain.pem --resolve {NAME}:443:127.0.0.1 https://{NAME}/ready
}}

until_ok answers 18081 && until_ok answers 18082 && fact started_with_the_machine yes
fact user "$(ps -o user= -p "$(pid 8081)" 2>/dev/null || stat -c %U "/proc/$(pid 8081)")"
fact site "$(site)"
fact release "$(release 8081)"
voice doctor --json >/out/doctor.json
before=$(pid 8081)
$install && [ "$(pid 8081)" = "$before" ] && fact again_restarts_nothing yes
$install --rollback && until_ok answers 18082 && fact rolled_back "$(release 8081) $(release 8082)"
$install && until_ok answers 18082 && fact forward "$(release 8081) $(release 8082)"
$install --instances 3 && until_ok answers 18083 && fact third "$(systemctl is-active voice@8083)"
$install --single && until_ok answers 8081 && fact single "$(systemctl is-active voice)"
left=150; while systemctl -q is-active voice@8081 voice@8082 && [ $left -gt 0 ]; do left=$((left - 1)); sleep 0.2; done
fact instances_left "$(systemctl is-enabled voice@8081) $(systemctl is-active voice@8081)"
fact site_of_single "$(site)"
fact timer "$(systemctl cat logrotate.timer | grep -c OnCalendar=hourly)"
/{SOURCE}/deploy/uninstall.sh && fact kept "$(ls /{SETTINGS} | grep -c environment)"
/{SOURCE}/deploy/uninstall.sh --purge
fact rest "$(find / -xdev -name '*voice*' -not -path '/{SOURCE}*' -not -path '/proc/*' -not -path '/out/*' \
    -not -path '/var/log/nginx/*' -not -path '/root/*' -not -path '/etc/nginx/nginx.conf.before-voice' \
    -not -path '/usr/lib/*' -not -path '/usr/share/*' -not -path '/etc/letsencrypt/*' | tr '\\n' ' ')"
"""


class Installed:
    """A clean Debian after two runs of the installer, and what they said."""

    def __init__(self, root: DebianRoot, first: str, second: str) -> None:
        self.root, self.first, self.second = root, first, second


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Return a machine on which the installer ran twice."""
    root = DebianRoot.make(tmp_path_factory.mktemp("debian") / "root")
    root.copy_checkout(SOURCE)
    said = []
    for arguments in (f"--domain {NAME}", ""):
        done = root.run(f"/{SOURCE}/deploy/install.sh {arguments}", timeout_s=INSTALL_S)
        if done.returncode and re.search(r"Unable to locate|Failed to fetch|package index reachable", done.stdout):
            pytest.skip(f"no packages can be had here: {done.stdout[-300:]}")
        assert done.returncode == 0, done.stdout[-3000:]
        said.append(done.stdout)
    return Installed(root, *said)


def test_second_run_changes_nothing(installed: Installed) -> None:
    """The same code is not installed twice, no file is written anew, nothing is restarted."""
    assert "-- code: as in" in installed.second
    assert re.findall(r"^-- (?!code: as in).*", installed.second, re.M) == []
    releases = [path for path in (installed.root.folder / f"{LINK}.releases").iterdir() if path.name[0] == "2"]
    assert len(releases) == 1


@pytest.mark.parametrize(
    ("name", "owner", "mode"),
    [
        (LINK, "root", 0o755),
        (f"{LINK}/server.py", "root", 0o644),
        (SETTINGS, "root", 0o700),
        (f"{SETTINGS}/environment", "root", 0o600),
        (f"{SETTINGS}/supabase-service-role-key", "root", 0o600),
        (f"{SETTINGS}/database-url", "root", 0o600),
        ("var/lib/websocket-voice-server", "voicegw", 0o700),
        ("var/log/websocket-voice-server", "voicegw", 0o750),
        ("etc/systemd/system/voice@.service", "root", 0o644),
        ("etc/logrotate.d/websocket-voice-server", "root", 0o644),
        ("etc/nginx/sites-enabled/voice.conf", "root", 0o644),
        ("usr/local/bin/voice", "root", 0o755),
    ],
)
def test_files_have_their_owner_and_mode(installed: Installed, name: str, owner: str, mode: int) -> None:
    """Code can be read by all and written by root, settings read by root alone, state by the server alone."""
    assert installed.root.owner_and_mode(name) == (owner, mode)


def test_nobody_but_root_may_change_the_code(installed: Installed) -> None:
    """No file below /opt is of another owner or open to others' writing."""
    found = [path for path in (installed.root.folder / f"{LINK}.releases").rglob("*")
             if not path.is_symlink() and (path.stat().st_uid or path.stat().st_mode & 0o022)]  # fmt: skip
    assert found == []


def test_checkout_only_parts_are_left_out(installed: Installed) -> None:
    """Tests, history and a developer's .env are no part of a release."""
    release = installed.root.path(LINK)
    assert not [name for name in ("tests", ".git", ".env", "data", "logs") if (release / name).exists()]
    assert (release / ".venv" / "bin" / "python").is_symlink()


def test_units_are_taken_by_the_machines_systemd(installed: Installed) -> None:
    """systemd-analyze verify on that machine has nothing to say, and both instances are enabled."""
    done = installed.root.run("systemd-analyze verify /etc/systemd/system/voice@.service", timeout_s=60)
    assert done.stdout == ""
    wants = installed.root.folder / "etc/systemd/system/multi-user.target.wants"
    assert {path.name for path in wants.glob("voice*")} == {"voice@8081.service", "voice@8082.service"}


def test_nginx_answers_the_challenge_until_there_is_a_certificate(installed: Installed) -> None:
    """Without a certificate the site serves port 80 alone, nginx takes it, and the way on is told."""
    site = installed.root.path("etc/nginx/sites-enabled/voice.conf").read_text()
    assert f"server_name {NAME};" in site and "acme-challenge" in site and "ssl_certificate" not in site
    assert installed.root.run("nginx -t", timeout_s=60).returncode == 0
    assert f"certbot certonly --webroot -w /var/www/html -d {NAME}" in installed.second
    conf = (installed.root.folder / "etc/nginx/nginx.conf").read_text()
    assert conf.count("worker_rlimit_nofile 8192;") == 1 and "worker_connections 4096;" in conf


def test_settings_are_asked_for_and_kept(installed: Installed) -> None:
    """Nothing is started without settings; what the operator writes stays through the next run."""
    assert "editor /etc/websocket-voice-server/environment" in installed.second
    example = (installed.root.folder / SETTINGS / "environment").read_text()
    assert f"PUBLIC_URL=https://{NAME}" in example


def test_command_line_speaks_of_the_installed_service(installed: Installed) -> None:
    """`voice doctor` as root works on the service's settings."""
    done = installed.root.run("voice doctor --only settings || true", timeout_s=60)
    assert "SUPABASE_URL or SUPABASE_JWT_SECRET must be set in production" in done.stdout


def test_life_of_an_installation(installed: Installed, tmp_path: Path) -> None:
    """Booted, the services serve through nginx with TLS; way back, forward, more, one, none: all work."""
    root, out = installed.root.copy(tmp_path / "root"), tmp_path / "out"
    out.mkdir()
    prepare(root, out)
    output = root.boot(IN_BOOT, out, timeout_s=BOOT_S)
    lines = (out / "facts").read_text().splitlines() if (out / "facts").exists() else []
    facts = dict(line.split("=", 1) for line in lines)
    older, newer = sorted(path.name for path in (out / "releases").iterdir())
    wanted = {
        "started_with_the_machine": "yes", "user": "voicegw", "site": "200", "release": newer,
        "again_restarts_nothing": "yes", "rolled_back": f"{older} {older}", "forward": f"{newer} {newer}",
        "third": "active", "single": "active", "instances_left": "disabled inactive", "site_of_single": "200",
        "timer": "1", "kept": "2", "rest": "",
    }  # fmt: skip
    assert facts == wanted, output[-6000:]
    checks = {check["name"]: check for check in json.loads((out / "doctor.json").read_text())["checks"]}
    for name in ("settings", "database", "ports", "folders", "open files", "nginx", "unit", "instances"):
        assert checks[name]["state"] == "ok", checks[name]


def test_what_was_changed_by_hand_stays(installed: Installed, tmp_path: Path) -> None:
    """A file the operator changed is left alone; a later version's text is put beside it, once."""
    root = installed.root.copy(tmp_path / "root")
    mine, rule = root.folder / "etc/logrotate.d/websocket-voice-server", root.folder / SOURCE / "deploy/logrotate.conf"
    mine.write_text("# mine\n")
    beside = mine.with_name(f"{mine.name}.dpkg-dist")
    run = f"/{SOURCE}/deploy/install.sh"
    assert "changed by hand" not in root.run(run, timeout_s=INSTALL_S).stdout and not beside.exists()
    rule.write_text(rule.read_text().replace("rotate 14", "rotate 30"))
    assert "changed by hand and stays" in root.run(run, timeout_s=INSTALL_S).stdout
    assert (mine.read_text(), "rotate 30" in beside.read_text()) == ("# mine\n", True)
    assert "changed by hand" not in root.run(run, timeout_s=INSTALL_S).stdout


def prepare(root: DebianRoot, out: Path) -> None:
    """Give the machine settings, a certificate and a second release."""
    live = root.folder / "etc/letsencrypt/live" / NAME
    live.mkdir(parents=True)
    chain, key = certificate(out)
    (live / "fullchain.pem").write_bytes(chain.read_bytes())
    (live / "privkey.pem").write_bytes(key.read_bytes())
    root.write(f"{SETTINGS}/environment", SETTINGS_TEXT, 0o600)
    root.write(f"{SETTINGS}/database-url", "sqlite:////var/lib/websocket-voice-server/voice.db\n", 0o600)
    root.write(f"{SETTINGS}/supabase-jwt-secret", "not-a-secret-" * 4, 0o600)
    root.write(f"{SETTINGS}/openai-api-key", "sk-not-a-key-0123456789\n", 0o600)
    with (root.folder / SOURCE / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("\nAnother version.\n")
    done = root.run(f"/{SOURCE}/deploy/install.sh", timeout_s=INSTALL_S)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "installing the packages" not in done.stdout  # the same are wanted: those of the release before
    release = root.path(LINK)
    shebangs = {line for file in (release / ".venv" / "bin").glob("pip*") for line in file.read_text().splitlines()[:1]}
    assert shebangs == {f"#!/{LINK}.releases/{release.name}/.venv/bin/python3"}
    assert "ssl_certificate " in (root.folder / "etc/nginx/sites-available/voice.conf").read_text()
    (out / "releases").mkdir()
    for release in (root.folder / f"{LINK}.releases").glob("2*"):
        (out / "releases" / release.name).touch()


def test_dry_run_touches_nothing(tmp_path: Path) -> None:
    """--dry-run tells every step and makes none."""
    root = DebianRoot.make(tmp_path / "root")
    root.copy_checkout(SOURCE)
    before = {path for path in root.folder.rglob("*") if "var/log" not in str(path)}
    done = root.run(f"/{SOURCE}/deploy/install.sh --dry-run --domain {NAME} --email ops@example.org", timeout_s=60)
    assert done.returncode == 0, done.stdout
    for step in ("+ apt-get install", "+ useradd --system", "+ copy ", "get a certificate",
                 "+ systemctl --quiet enable voice@8081 voice@8082"):  # fmt: skip
        assert step in done.stdout
    after = {path for path in root.folder.rglob("*") if "var/log" not in str(path)}
    assert after - before <= {root.folder / "run-in-chroot"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--instances", "0"], "must be a number"),
        (["--instances", "many"], "must be a number"),
        (["--domain", "a;b"], "is no host name"),
        (["--email", "a b"], "is no address"),
        (["--domain"], "needs a value"),
        (["--nothing"], "no option --nothing"),
    ],
)
def test_wrong_use_is_refused(arguments: list[str], said: str) -> None:
    """What would break a file or a command is refused before anything is done."""
    if os.geteuid() != 0:
        pytest.skip("only root gets as far as that")
    done = subprocess.run([ROOT / "deploy" / "install.sh", "--dry-run", *arguments], capture_output=True, text=True)
    assert done.returncode != 0 and said in done.stderr


def test_others_than_root_are_refused(tmp_path: Path) -> None:
    """Whoever may not install is told so at once."""
    if os.geteuid() != 0:
        done = subprocess.run([ROOT / "deploy" / "install.sh"], capture_output=True, text=True)
    else:
        tmp_path.chmod(0o755)
        script = (ROOT / "deploy" / "install.sh").read_text()
        done = subprocess.run(["sh", "-c", script, "install.sh"], capture_output=True, text=True, cwd="/",
                              user=pwd.getpwnam("nobody").pw_uid)  # fmt: skip
    assert done.returncode == 1 and "must run as root" in done.stderr


def test_scripts_are_sound() -> None:
    """shellcheck has nothing to say about any script of deploy/, and all are plain sh that can be run."""
    scripts = sorted((ROOT / "deploy").glob("*.sh"))
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    for script in scripts:
        assert script.read_text().startswith("#!/bin/sh\n") and os.access(script, os.X_OK), script


def test_ports_are_those_of_the_site_and_the_drain_fits() -> None:
    """The installer's first port is the shipped site's, and the PM2 and unit stops are longer than the drain."""
    script = (ROOT / "deploy" / "install.sh").read_text()
    first = int(re.search(r"^FIRST_PORT=(\d+)", script, re.M)[1])  # type: ignore[index] # it is there
    assert f"server 127.0.0.1:{first} " in (ROOT / "deploy" / "nginx.conf").read_text()
    settings = read_settings({"DATABASE_URL": "sqlite:///x.db", "OPENAI_API_KEY": "sk-x"})
    stop = int(re.search(r"TimeoutStopSec=(\d+)", (ROOT / "deploy" / "voice@.service").read_text())[1])  # type: ignore[index]
    assert stop >= settings.drain_timeout_s + 30

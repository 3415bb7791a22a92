"""`./voice doctor` on a server: nginx, the units, and the instances behind them."""

from __future__ import annotations

import http.server
import json
import os
import pwd
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli import installed_units, machine_checks, unit_checks
from cli.deploy_files import Machine, nginx, systemd
from cli.findings import ok
from core.settings import Settings, read_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings of a server that is not running."""
    return read_settings({"DATABASE_URL": "sqlite:///x.db", "OPENAI_API_KEY": "sk-x", "PORT": "4711",
                          "LOG_DIR": str(tmp_path / "logs"), "STATE_DIR": str(tmp_path / "state")})  # fmt: skip


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder in the place of systemd's."""
    folder = tmp_path / "system"
    (folder / "multi-user.target.wants").mkdir(parents=True)
    monkeypatch.setattr(installed_units, "UNITS", folder)
    return folder


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder in the place of nginx's."""
    folder = tmp_path / "sites"
    folder.mkdir()
    monkeypatch.setattr(unit_checks, "NGINX_SITES", (folder,))
    return folder


def enable(units: Path, *names: str) -> None:
    """Enable services as systemctl does."""
    for name in names:
        (units / "multi-user.target.wants" / f"{name}.service").write_text("")


@contextmanager
def health(report: dict[str, object]) -> Iterator[int]:
    """Serve a health report; gives the port."""

    class Report(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(report).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Report) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def report(version: str = "1.0.0", workers: int = 1) -> dict[str, object]:
    """Return a health report."""
    return {"status": "healthy", "activeConnections": 0, "checks": {}, "version": version, "workers": workers}


@pytest.mark.parametrize(
    ("site", "state", "said"),
    [
        ("proxy_pass http://127.0.0.1:4711;", "problem", "upgrades"),
        ("proxy_pass http://127.0.0.1:4711; # $http_upgrade", "problem", "60 s"),
        ("proxy_pass http://127.0.0.1:1;", "skipped", "deploy/nginx.conf"),
        ("# proxy_pass http://127.0.0.1:4711;", "skipped", "deploy/nginx.conf"),
    ],
)
def test_site_of_nginx_is_read(site: str, state: str, said: str, settings: Settings, sites: Path, units: Path) -> None:
    """A site that leads here without passing upgrades on, or that cuts idle sockets, is a problem."""
    (sites / "voice").write_text(site)
    found = unit_checks.nginx(settings)
    assert (found.state, said in found.text + found.mend) == (state, True)


def test_site_leads_to_every_instance(
    settings: Settings, sites: Path, units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An enabled instance that nginx does not know of is named; the site made for all of them is right."""
    monkeypatch.setattr(unit_checks, "_run", lambda name, command, good: ok(name, good))
    enable(units, "voice@8081", "voice@8082", "voice@8083")
    (sites / "voice.conf").write_text(nginx(Machine(instances=2)))
    found = unit_checks.nginx(settings)
    assert (found.state, found.text) == ("problem", "the site does not lead to 8083")
    (sites / "voice.conf").write_text(nginx(Machine(instances=3)))
    assert unit_checks.nginx(settings).state == "ok"


def test_unit_of_this_version_is_right(settings: Settings, units: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped unit is current, wherever the code lies; one of another version is a warning."""
    monkeypatch.setattr(unit_checks, "_run", lambda name, command, good: ok(name, good))
    assert unit_checks.unit(settings).state == "skipped"
    text = systemd(Machine(instances=2, folder="/srv/voice", user="talker"))
    (units / "voice@.service").write_text(text)
    assert unit_checks.unit(settings).state == "ok"
    (units / "voice@.service").write_text(text.replace("WatchdogSec=20", "WatchdogSec=40"))
    found = unit_checks.unit(settings)
    assert (found.state, "differs" in found.text) == ("warning", True)


def test_unit_that_kills_calls_is_a_problem(settings: Settings, units: Path) -> None:
    """A stop shorter than the drain is a problem; a drop-in counts."""
    (units / "voice.service").write_text(systemd(Machine()))
    (units / "voice.service.d").mkdir()
    (units / "voice.service.d" / "own.conf").write_text("[Service]\nTimeoutStopSec=90\n")
    found = unit_checks.unit(settings)
    assert found.state == "problem" and "90 s" in found.text and "TimeoutStopSec=930" in found.mend


def test_broken_unit_is_a_problem(settings: Settings, units: Path) -> None:
    """A unit file that systemd does not take is named with its complaint."""
    (units / "voice.service").write_text("[Service]\nType=exec\nTimeoutStopSec=930\nExecStart=relative/path\n")
    assert unit_checks.unit(settings).state == "problem"


def test_instances_that_do_not_answer_are_named(
    settings: Settings, units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None running is no problem where none is enabled; one of two silent is named with the command."""
    monkeypatch.setattr(installed_units, "doors", lambda _: [(1, 1)])
    assert unit_checks.instances(settings).state == "skipped"
    enable(units, "voice@8081", "voice@8082")
    assert "systemctl start voice@8081 voice@8082" in unit_checks.instances(settings).mend
    with health(report()) as port:
        monkeypatch.setattr(installed_units, "doors", lambda _: [(8081, port), (8082, 1)])
        found = unit_checks.instances(settings)
    assert (found.state, found.mend) == ("problem", "systemctl restart voice@8082")


def test_instances_of_different_versions_are_a_warning(
    settings: Settings, units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an upgrade, and after one that was forgotten, it shows."""
    enable(units, "voice@8081", "voice@8082")
    with health(report()) as one, health(report("1.1.0")) as other:
        monkeypatch.setattr(installed_units, "doors", lambda _: [(8081, one), (8082, other)])
        assert "1.0.0, 1.1.0" in unit_checks.instances(settings).text
        monkeypatch.setattr(installed_units, "doors", lambda _: [(8081, one), (8082, one)])
        assert unit_checks.instances(settings).state == "ok"


def test_doors_are_those_of_the_instances(settings: Settings, units: Path) -> None:
    """Without instances the settings' ports count, with them theirs."""
    assert installed_units.doors(settings) == [(4711, 4712)]
    enable(units, "voice@8081", "voice@8082", "voice@odd", "other")
    assert installed_units.doors(settings) == [(8081, 18081), (8082, 18082)]


def test_limit_of_the_unit_counts_and_not_the_shells(settings: Settings, units: Path) -> None:
    """Where the service is installed, LimitNOFILE is compared, drop-ins last."""
    enable(units, "voice")
    (units / "voice.service").write_text(systemd(Machine()))
    assert machine_checks.open_files(settings).text.startswith("16384 allowed")
    (units / "voice.service.d").mkdir()
    (units / "voice.service.d" / "own.conf").write_text("[Service]\nLimitNOFILE=100\n")
    assert machine_checks.open_files(settings).state == "problem"


def test_folders_are_looked_at_for_the_services_user(
    settings: Settings, units: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere; what counts is whether the service may."""
    if os.geteuid() != 0:
        pytest.skip("only root asks for another user")
    enable(units, "voice")
    monkeypatch.setattr(machine_checks, "SERVICE_USER", "nobody")
    nobody = pwd.getpwnam("nobody")
    for name in ("logs", "state"):
        (tmp_path / name).mkdir(mode=0o700)
    assert machine_checks.folders(settings).state == "problem"
    for name in ("logs", "state"):
        os.chown(tmp_path / name, nobody.pw_uid, nobody.pw_gid)
    assert machine_checks.folders(settings).state == "ok"
    monkeypatch.setattr(machine_checks, "SERVICE_USER", "no-such-user")
    assert machine_checks.folders(settings).state == "problem"


def test_little_room_is_a_warning(settings: Settings, units: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that will be full some day is a warning, one that nearly is a problem."""

    class Usage:
        free = 1_000_000_000

    monkeypatch.setattr(machine_checks.shutil, "disk_usage", lambda _: Usage)
    assert machine_checks.folders(settings).state == "warning"
    Usage.free = 100_000_000
    assert machine_checks.folders(settings).state == "problem"

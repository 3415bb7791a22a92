"""`./voice doctor` names what is wrong and how to mend it, within a deadline and without a secret."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import doctor, installed_units, machine_checks
from cli.findings import Finding, ok, warning
from cli.local_postgres import free_port
from core.settings import read_settings
from tests.fakes.gateway import Gateway
from tests.fakes.redis_server import PASSWORD, RedisServer, redis_or_skip

KEY = "sk-doctor-canary-0123456789"
SERVICE_KEY = "sb_secret_doctor-canary"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Return one server for this file, with the simulated voice service behind it."""
    with Gateway() as running:
        yield running


@pytest.fixture
def variables(gateway: Gateway, tmp_path: Path) -> dict[str, str]:
    """Return the environment of an installation without fault."""
    return {
        "DATABASE_URL": f"sqlite:///{gateway.db}",
        "OPENAI_REALTIME_URL": gateway.settings.openai_realtime_url,
        "OPENAI_API_KEY": KEY,
        "PORT": str(free_port()),
        "HEALTH_PORT": str(free_port()),
        "STATE_DIR": str(tmp_path / "state"),
        "LOG_DIR": str(tmp_path / "logs"),
        "MAX_CONNECTIONS": "100",
    }


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Return a Redis with a password."""
    yield from redis_or_skip()


@pytest.fixture(autouse=True)
def no_units(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at no unit of the machine that tests."""
    monkeypatch.setattr(installed_units, "UNITS", tmp_path_factory.mktemp("units"))


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    """Return the findings by name."""
    return {finding.name: finding for finding in findings}


def test_sound_installation_has_no_problem(variables: dict[str, str], tmp_path: Path) -> None:
    """Everything is well, and nothing was made or changed by looking."""
    findings = doctor.examine(variables)
    assert [finding for finding in findings if finding.state == "problem"] == []
    assert {"settings", "database", "redis", "key", "token keys", "voice service", "phone", "clock", "ports", "folders",
            "open files", "nginx", "unit", "instances", "public address",
            "certificate"} == set(by_name(findings))  # fmt: skip
    assert "opened a session of gpt-realtime-2.1" in by_name(findings)["voice service"].text
    assert list(tmp_path.iterdir()) == []


def test_bad_settings_are_all_named() -> None:
    """With settings that cannot work, each is a line, and nothing else is tried."""
    findings = doctor.examine({"PORT": "many"})
    assert all(finding.state == "problem" and finding.name == "settings" for finding in findings)
    assert any("PORT" in finding.text for finding in findings)


def test_user_without_rights_is_sent_to_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a service is installed whose settings this user may not read, that is what is told."""
    monkeypatch.setattr(doctor, "INSTALLED_SETTINGS", tmp_path)
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert doctor.examine({})[0].mend.startswith("sudo voice doctor")


@pytest.mark.parametrize(
    ("changed", "name", "said"),
    [
        ({"OPENAI_API_KEY": "your-key-here-please"}, "key", "does not look like"),
        ({"OPENAI_API_KEY": "sk-invalid-0123456789ab"}, "voice service", "401|refuses"),
        ({"OPENAI_MODEL": "no-such-model"}, "voice service", "refuses a session of no-such-model"),
        ({"DATABASE_URL": "postgresql://voice:pw-canary@127.0.0.1:1/voice"}, "database", "postgresql"),
    ],
)
def test_trouble_is_named_with_its_cure(
    variables: dict[str, str], changed: dict[str, str], name: str, said: str
) -> None:
    """A bad key, a model nobody has, and a database that is away are problems with a way to mend them."""
    findings = doctor.examine({**variables, **changed})
    found = by_name(findings)[name]
    assert found.state == "problem"
    assert any(word in found.text for word in said.split("|")), found
    assert found.mend
    text = "".join(f"{finding.text} {finding.mend}" for finding in findings)
    assert not [canary for canary in (KEY, "pw-canary", *changed.values()) if canary.startswith(("sk-", "pw-"))
                and canary in text]  # fmt: skip


def test_supabase_that_is_away_is_no_riddle(variables: dict[str, str]) -> None:
    """Database, key and token keys each say what they miss; the service key is in none of the lines."""
    changed = {"SUPABASE_URL": f"http://127.0.0.1:{free_port()}", "SUPABASE_SERVICE_ROLE_KEY": SERVICE_KEY}
    del variables["DATABASE_URL"], variables["OPENAI_API_KEY"]
    findings = doctor.examine(variables | changed)
    found = by_name(findings)
    assert {found[name].state for name in ("database", "key", "token keys")} == {"problem"}
    assert found["voice service"].state == "skipped"
    assert SERVICE_KEY not in repr(findings)


def test_missing_file_of_the_database_is_not_made(variables: dict[str, str], tmp_path: Path) -> None:
    """An SQLite file that is not there yet is no problem, and the doctor does not make it."""
    file = tmp_path / "later.db"
    found = by_name(doctor.examine({**variables, "DATABASE_URL": f"sqlite:///{file}"}))["database"]
    assert found.state == "ok"
    assert not file.exists()


def test_ports_of_our_own_server_are_no_problem(gateway: Gateway, variables: dict[str, str]) -> None:
    """A voice server that already listens is recognised by its health report."""
    ports = {"PORT": str(gateway.server.port), "HEALTH_PORT": str(gateway.server.health_port)}
    found = by_name(doctor.examine({**variables, **ports}))["ports"]
    assert (found.state, "voice server" in found.text) == ("ok", True)


def test_port_of_another_program_is_a_problem(variables: dict[str, str]) -> None:
    """A port somebody else listens on is named."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        found = by_name(doctor.examine({**variables, "PORT": port}))["ports"]
    assert found.state == "problem"
    assert port in found.text


def test_limit_of_open_files_is_compared(variables: dict[str, str]) -> None:
    """More sessions than the process may have sockets is a problem with the number to set."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    settings = read_settings({**variables, "MAX_CONNECTIONS": str(min(allowed, 100_000))})
    assert machine_checks.open_files(settings).state == "problem"


def test_folder_that_cannot_be_is_a_problem(variables: dict[str, str], tmp_path: Path) -> None:
    """A log folder below a file cannot be written."""
    (tmp_path / "file").write_text("")
    settings = read_settings({**variables, "LOG_DIR": str(tmp_path / "file" / "logs")})
    assert machine_checks.folders(settings).state == "problem"


def test_service_that_says_nothing_ends_in_a_problem(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that accepts and is silent is given up at the deadline, while the others are answered."""
    monkeypatch.setattr(doctor, "DEADLINE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        findings = doctor.examine({**variables, "DATABASE_URL": f"postgresql://u@127.0.0.1:{port}/d"})
        assert time.monotonic() - began < 10
    assert by_name(findings)["database"].text == "no answer within 0.5 s"
    assert by_name(findings)["key"].state == "ok"


class OffClock:
    """An HTTP server whose clock is an hour behind."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        connection.recv(4096)
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() - 3600))
        connection.sendall(f"HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())
        connection.close()
        self._socket.close()

    def wait(self) -> None:
        """Wait until it has answered."""
        self._thread.join(10)


def test_wrong_clock_is_a_problem(variables: dict[str, str]) -> None:
    """A clock an hour ahead of the voice service's is named: tokens would be refused."""
    from cli.service_checks import clock

    other = OffClock()
    settings = read_settings({**variables, "OPENAI_REALTIME_URL": f"ws://127.0.0.1:{other.port}/v1/realtime"})
    found = asyncio.run(clock(settings))
    other.wait()
    assert (found.state, "ahead" in found.text) == ("problem", True)


def test_report_is_json_when_asked(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json prints one object; without it each line has state, name and text; the status tells of problems."""
    monkeypatch.setattr(doctor, "environment", lambda: variables)
    assert doctor.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    monkeypatch.setattr(doctor, "environment", dict)
    assert doctor.main([]) == 1
    assert capsys.readouterr().out.startswith("problem  settings")


def test_one_check_alone_can_be_asked_for(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--only makes the checks it names, and no other; a warning is no failure."""
    monkeypatch.setattr(doctor, "environment", lambda: variables)
    assert doctor.main(["--only", "settings", "--only", "phone"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["ok", "settings"], ["ok", "phone"]]
    monkeypatch.setattr(doctor, "examine", lambda *_: [warning("certificate", "ends in 9 days", "certbot renew")])
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["mend:", "certbot", "renew"]


def test_findings_are_plain_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    """No line is coloured in a pipe."""
    doctor._print(ok("key", "read"))
    assert capsys.readouterr().out == "ok       key            read\n"


@pytest.mark.parametrize(
    ("given", "about"),
    [
        ({"TWILIO_AUTH_TOKEN": "t" * 32}, "PUBLIC_URL is missing"),
        ({"PUBLIC_URL": "http://voice.example.com"}, "not encrypted"),
        ({"PUBLIC_URL": "https://voice.example.com/foo"}, "has a path"),
        (
            {"PUBLIC_URL": "https://voice.example.com", "TWILIO_ACCOUNT_SID": "AC" + "0" * 32},
            "TWILIO_AUTH_TOKEN is missing",
        ),
        (
            {"PUBLIC_URL": "https://voice.example.com", "TWILIO_AUTH_TOKEN": "t" * 32, "TWILIO_ACCOUNT_SID": "hello"},
            "TWILIO_ACCOUNT_SID",
        ),
    ],
)
def test_phone_settings_that_answer_no_call_are_named(
    variables: dict[str, str], given: dict[str, str], about: str
) -> None:
    """Each mistake with which Twilio's calls would not be answered is named, with how to mend it."""
    found = by_name(doctor.examine(variables | given))["phone"]
    assert found.state == "problem" and about in found.text and found.mend


def test_public_address_without_a_phone_is_no_problem(variables: dict[str, str]) -> None:
    """A server for browsers alone has a public address and no Twilio account."""
    found = by_name(doctor.examine(variables | {"PUBLIC_URL": "https://voice.invalid"}, ("phone",)))["phone"]
    assert (found.state, "browsers" in found.text) == ("ok", True)


def test_phone_settings_that_fit_name_the_webhook(variables: dict[str, str]) -> None:
    """What must be typed into Twilio's console is shown."""
    given = {
        "PUBLIC_URL": "wss://voice.example.com",
        "TWILIO_AUTH_TOKEN": "t" * 32,
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    }
    found = by_name(doctor.examine(variables | given))["phone"]
    assert found.state == "ok" and "https://voice.example.com/api/twilio/voice" in found.text


def test_redis_is_asked_and_its_password_not_told(variables: dict[str, str], redis: RedisServer) -> None:
    """One that answers is well; one that is not there, or refuses the password, is a problem with its remedy."""
    unset = by_name(doctor.examine(variables))["redis"]
    assert unset.state == "ok" and "not set" in unset.text
    good = by_name(doctor.examine({**variables, "REDIS_URL": redis.url}))["redis"]
    assert good.state == "ok" and "answers in" in good.text
    wrong = redis.url.replace(PASSWORD, "wrong-canary")
    for url in (wrong, f"redis://:wrong-canary@127.0.0.1:{free_port()}"):
        found = by_name(doctor.examine({**variables, "REDIS_URL": url}))["redis"]
        assert found.state == "problem" and "REDIS_URL" in found.mend
        assert "canary" not in found.text + found.mend

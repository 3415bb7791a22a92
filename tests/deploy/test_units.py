"""The shipped systemd units are taken by systemd, locked down, and fit the server's own times."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from core.settings import TABLE, read_settings

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("voice.service", "voice@.service")
INSTALLED = {"voice.service": "voice.service", "voice@.service": "voice@8081.service"}
PLACE = "/opt/websocket-voice-server/.venv/bin/python"
ORDINARY = {"DATABASE_URL": "sqlite:///x.db", "OPENAI_API_KEY": "sk-x"}


def text_of(name: str) -> str:
    """Return a unit as shipped."""
    return (ROOT / "deploy" / name).read_text(encoding="utf-8")


def values(name: str, key: str) -> list[str]:
    """Return what a unit says under a key, in order."""
    return re.findall(rf"^{key}=(.*)$", text_of(name), re.MULTILINE)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of each shipped unit."""
    return str(request.param)


@pytest.fixture
def unit(name: str, tmp_path: Path) -> Path:
    """Return the unit under the name it runs by, with an interpreter that is here."""
    assert text_of(name).count(PLACE) == 1
    path = tmp_path / INSTALLED[name]
    path.write_text(text_of(name).replace(PLACE, "/bin/true"))
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


def test_systemd_hears_of_the_server(name: str) -> None:
    """The unit waits for READY, watches the event loop, and restarts what fails at once."""
    told = {key: values(name, key) for key in ("Type", "NotifyAccess", "WatchdogSec", "Restart", "RestartSec")}
    assert told == {"Type": ["notify"], "NotifyAccess": ["main"], "WatchdogSec": ["20"], "Restart": ["always"],
                    "RestartSec": ["500ms"]}  # fmt: skip


def test_unit_waits_for_the_drain(name: str) -> None:
    """systemd gives the server its default drain and half a minute more before it kills."""
    settings = read_settings(ORDINARY)
    assert int(values(name, "TimeoutStopSec")[0]) >= settings.drain_timeout_s + 30


def test_blocked_server_is_ended_soon_and_without_a_dump(name: str) -> None:
    """What the watchdog ends does not get the drain's time, and its memory is not written to disk."""
    assert int(values(name, "TimeoutAbortSec")[0]) <= 5
    assert values(name, "LimitCORE") == ["0"]


def test_credentials_are_secrets_of_the_table(name: str) -> None:
    """Every credential the unit names, also those commented out, is read as a secret setting."""
    named = re.findall(r"^#?LoadCredential=([a-z-]+):/etc/websocket-voice-server/\1$", text_of(name), re.MULTILINE)
    secrets = {alias for row in TABLE if row.kind == "secret" for alias in (row.name, *row.aliases)}
    assert len(named) >= 4
    assert {credential.upper().replace("-", "_") for credential in named} <= secrets


def test_environment_of_the_unit_is_known_and_right(name: str) -> None:
    """The settings a unit makes lead to production, with logrotate."""
    made = dict(text.split("=", 1) for text in values(name, "Environment"))
    assert set(made) - {row.name for row in TABLE} == {"PYTHONUNBUFFERED"}
    settings = read_settings({**ORDINARY, "SUPABASE_JWT_SECRET": "x" * 32, **made})
    assert settings.is_production and settings.log_rotation == "logrotate"
    folders = [settings.log_dir, settings.state_dir]
    prefixes = zip(folders, ("/var/log", "/var/lib"), ("LogsDirectory", "StateDirectory"), strict=True)
    assert all(folder == f"{place}/{values(name, key)[0]}" for folder, place, key in prefixes)


def test_instances_share_no_port() -> None:
    """Neighbouring instances have ports and health ports of their own, whatever the shared file says."""
    command = values("voice@.service", "ExecStart")[0]
    given: list[int] = []
    for instance in ("8081", "8082"):
        settings = read_settings({**ORDINARY, "PORT": "8080", **dict(re.findall(r"([A-Z_]+)=(\S+)", command.replace(
            "%i", instance)))})  # fmt: skip
        given += [settings.port, settings.health_port]
    assert given == [8081, 18081, 8082, 18082]


def test_units_differ_only_where_instances_need_it() -> None:
    """What hardens one unit hardens the other."""
    parsed = []
    for name in NAMES:
        unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(text_of(name))
        parsed.append({(section, key): unit[section][key] for section in unit.sections() for key in unit[section]})
    single, template = parsed
    differ = {key for (_, key) in single.keys() | template.keys() if any(
        single.get((part, key)) != template.get((part, key)) for part in ("Unit", "Service", "Install"))}  # fmt: skip
    assert differ == {"Description", "ExecStart", "TasksMax", "MemoryHigh", "MemoryMax"}

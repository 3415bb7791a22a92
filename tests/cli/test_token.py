"""`./voice token` makes tokens for servers in development, and none in production."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cli import environment
from cli.demo_data import DEMO_USER_ID
from cli.token import main
from services.auth import AuthConfig, User, Verifier, load_development_secret

USER = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the commands see this folder as the state, and no `.env`."""
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.delenv("NODE_ENV", raising=False)
    monkeypatch.delenv("APP_ENV", raising=False)
    monkeypatch.setattr(environment, "DOTENV", tmp_path / "no.env")
    return tmp_path


def verified(token: str, folder: Path) -> User:
    """Return whom a server with this state folder takes the token for."""
    verifier = Verifier(AuthConfig(development_secret=load_development_secret(folder)))
    return asyncio.run(verifier.verify(token))


def test_token_is_accepted_by_a_server_of_this_folder(own_state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The token alone is on standard output, for the demo's user unless another is named."""
    assert main([]) == 0
    assert verified(capsys.readouterr().out.strip(), own_state).id == DEMO_USER_ID
    assert main(["--user", USER, "--ttl", "60"]) == 0
    assert verified(capsys.readouterr().out.strip(), own_state).id == USER


def test_token_of_the_demo_is_signed_with_the_demos_secret(own_state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--demo takes the state folder of ./voice demo."""
    assert main(["--demo"]) == 0
    assert verified(capsys.readouterr().out.strip(), own_state / "demo").id == DEMO_USER_ID


def test_administrators_token_says_so(own_state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--admin and --json are what they say."""
    assert main(["--admin", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["admin"] is True
    assert verified(facts["token"], own_state).is_admin


@pytest.mark.parametrize("name", ["NODE_ENV", "APP_ENV"])
def test_production_gets_no_token(
    name: str, own_state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In production nothing is printed on standard output, and no secret is made."""
    monkeypatch.setenv(name, "production")
    assert main([]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "production" in captured.err
    assert list(own_state.iterdir()) == []


def test_production_of_the_dotenv_file_counts_too(own_state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NODE_ENV in `.env` is as good as in the environment."""
    (own_state / "no.env").write_text("NODE_ENV=production\n")
    assert main([]) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [["--user", "me"], ["--ttl", "0"], ["--ttl", "forever"], ["--ttl", "99999999"]])
def test_nonsense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A user that is no UUID and a life that is no number of seconds end with status 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_damaged_secret_is_said(own_state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A secret file that holds none leads to a sentence."""
    (own_state / "development-token-secret").write_text("short\n")
    assert main([]) == 1
    assert "delete it to get a new one" in capsys.readouterr().err

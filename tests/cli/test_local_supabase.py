"""The local project: it comes up with the migrations applied, and nothing of it is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli import local_supabase
from cli.local_postgres import LocalPostgres, LocalServerError, free_port, postgres_tool
from cli.local_supabase import LocalSupabase, install_lite
from core.settings import read_settings
from tests.fakes.local_supabase import missing, new_user, project

__all__ = ["project"]

pytestmark = pytest.mark.postgres


def test_project_is_what_the_server_needs(project: LocalSupabase) -> None:
    """Its environment makes valid settings, and its tables and functions answer under the service key."""
    settings = read_settings(project.environment())
    assert settings.supabase_jwt_issuer == project.issuer
    for table in ("agents", "conversations", "messages", "calls", "phone_numbers", "system_api_keys"):
        assert isinstance(project.request("GET", f"/rest/v1/{table}?limit=1", key=project.service_key), list)


def test_migrations_decide_who_may_do_what(project: LocalSupabase) -> None:
    """Lite opens every table at its first request; the project has taken that back."""
    for table, column in (("messages", "id"), ("system_api_keys", "id"), ("calls", "call_sid")):
        with pytest.raises(LocalServerError, match=r"401|403"):
            project.request("GET", f"/rest/v1/{table}?select={column}", key=project.publishable_key)
    signed_in = new_user(project)
    with pytest.raises(LocalServerError, match="403"):
        body = {"secret_id": signed_in.user_id}
        project.request(
            "POST", "/rest/v1/rpc/get_secret", key=project.publishable_key, bearer=signed_in.access_token, body=body
        )


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """After the end both processes are gone, also when something failed on the way, and so is the folder."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    base = tmp_path if os.geteuid() else None  # the user postgres cannot pass through root's temporary folders
    with pytest.raises(ZeroDivisionError), LocalSupabase(base) as running:
        children = [running._server, running._lite]
        assert all(child is not None and child.poll() is None for child in children)
        raise ZeroDivisionError
    assert all(child is not None and child.poll() is not None for child in children)
    assert not running.folder.exists()


def test_broken_migration_is_told_and_cleaned_up(tmp_path: Path) -> None:
    """A migration that fails stops the start with PostgreSQL's words, and the server that ran is stopped."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    (tmp_path / "20260101000000_broken.sql").write_text("select nonsense from nowhere;")
    broken = LocalSupabase(migrations=tmp_path)
    with pytest.raises(LocalServerError, match="nowhere"), broken:
        pass
    assert broken._server is not None
    assert broken._server.poll() is not None
    assert not broken.folder.exists()


def test_installed_lite_is_not_installed_again(monkeypatch: pytest.MonkeyPatch, project: LocalSupabase) -> None:
    """A second start runs no package manager."""
    monkeypatch.setenv("NPM", "no-such-program")
    install_lite()
    monkeypatch.setattr(local_supabase, "_is_newer", lambda *_: False)
    with pytest.raises(LocalServerError, match="npm was not found"):
        install_lite()
    assert (local_supabase.STACK / "package-lock.json").exists()


def test_missing_postgresql_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PostgreSQL the error names the package."""
    monkeypatch.delenv("PG_BIN", raising=False)
    with pytest.raises(LocalServerError, match="apt-get install postgresql"):
        postgres_tool("no-such-tool")
    monkeypatch.setenv("PG_BIN", "somewhere")
    assert postgres_tool("initdb") == "somewhere/initdb"


def test_statement_that_fails_brings_the_servers_message() -> None:
    """SQL errors come with PostgreSQL's own words; without a server there is an error, too."""
    postgres = LocalPostgres()
    postgres.port = free_port()
    with pytest.raises(LocalServerError, match="refused"):
        postgres.sql("select 1")
    postgres.stop()
    assert not postgres.folder.exists()

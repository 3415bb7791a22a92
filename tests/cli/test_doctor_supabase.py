"""`./voice doctor` with Supabase: each step that may be missing is named, with how to mend it. On a real project."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cli.doctor import examine
from cli.findings import Finding
from cli.local_postgres import free_port
from cli.local_supabase import LocalSupabase
from tests.fakes.local_supabase import project
from tests.fakes.people import new_key
from tests.fakes.server_process import SimulatorThread

__all__ = ["project"]

pytestmark = pytest.mark.postgres

KEY = new_key()
Look = Callable[..., dict[str, Finding]]


@pytest.fixture(scope="module")
def openai() -> Iterator[SimulatorThread]:
    """The simulated service, which lets in whoever has the key of the Vault."""
    with SimulatorThread([KEY]) as running:
        yield running


@pytest.fixture
def look(project: LocalSupabase, openai: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Return a function that examines the project, with settings changed, and gives the findings by name."""
    project.set_openai_key(KEY)
    folder = tmp_path_factory.mktemp("state")

    def found(**changes: str) -> dict[str, Finding]:
        places = {"STATE_DIR": str(folder), "LOG_DIR": str(folder), "PORT": str(free_port()),
                  "HEALTH_PORT": str(free_port())}  # fmt: skip
        environment = {**project.environment(), "OPENAI_REALTIME_URL": openai.url, **places, **changes}
        findings = examine({name: value for name, value in environment.items() if value})
        told = " ".join(f"{finding.text} {finding.mend}" for finding in findings)
        assert KEY not in told and project.service_key not in told and project.jwt_secret not in told
        return {finding.name: finding for finding in findings}

    return found


@pytest.fixture
def undo(project: LocalSupabase) -> Iterator[ExitStack]:
    """SQL to run at the end, whatever happened: `undo.callback(project.sql, "…")`."""
    with ExitStack() as stack:
        stack.callback(project.restore_privileges)
        yield stack


def test_project_in_order_is_found_so(look: Look) -> None:
    """Database, key, token keys and voice service are all right, and the key came from the Vault."""
    findings = look()
    for name in ("settings", "database", "key", "token keys", "voice service"):
        assert findings[name].state == "ok", findings[name]
    assert "Vault" in findings["key"].text


STEPS = [
    ("delete from public.system_api_keys where provider_name = 'openai'", "no row", "Insert a row"),
    ("update public.system_api_keys set is_active = false", "inactive", "is_active to true"),
    ("update public.system_api_keys set vault_secret_id = null", "no secret id", "vault.create_secret returned"),
    ("update public.system_api_keys set vault_secret_id = gen_random_uuid()", "secret missing", "vault.create_secret"),
    ("update vault.secrets set secret = ''", "empty secret", "vault.update_secret"),
    ("update vault.secrets set secret = encode('your-api-key-here-please', 'base64')", "not a key",
     "does not look like an API key"),
    ("revoke execute on function public.get_secret(uuid) from service_role", "not permitted", "privileges migration"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "step", "mend"), STEPS)
def test_step_that_is_missing_for_the_key_is_named(
    project: LocalSupabase, look: Look, undo: ExitStack, change: str, step: str, mend: str
) -> None:
    """Whatever stands between the server and the key: the doctor names it, and the voice service is not blamed."""
    project.sql(change)
    findings = look()
    assert findings["key"].state == "problem"
    assert findings["key"].text == f"no key: {step}"
    assert mend in findings["key"].mend
    assert findings["voice service"].state == "skipped"


def test_function_that_is_missing_is_named(project: LocalSupabase, look: Look, undo: ExitStack) -> None:
    """Without get_secret the migrations are asked for."""
    undo.callback(project.sql, "alter function public.get_secret_elsewhere(uuid) rename to get_secret")
    project.sql("alter function public.get_secret(uuid) rename to get_secret_elsewhere")
    found = look()["key"]
    assert (found.state, found.text) == ("problem", "no key: function missing")
    assert "supabase/migrations" in found.mend


def test_tables_that_are_missing_are_named(project: LocalSupabase, look: Look, undo: ExitStack) -> None:
    """A project without our tables: the migrations are asked for, with the command that applies them."""
    undo.callback(project.sql, "alter table public.agents_elsewhere rename to agents")
    project.sql("alter table public.agents rename to agents_elsewhere")
    found = look()["database"]
    assert found.state == "problem"
    assert "apply supabase/migrations" in found.text
    assert "supabase db push" in found.mend


def test_rights_that_are_missing_are_named(project: LocalSupabase, look: Look, undo: ExitStack) -> None:
    """Tables without grants, as a project has them whose privileges file was not applied."""
    project.sql("revoke all on public.agents from service_role")
    found = look()["database"]
    assert found.state == "problem"
    assert "apply the privileges migration again" in found.text


def test_keys_that_are_mixed_up_are_told_apart(project: LocalSupabase, look: Look) -> None:
    """The publishable key in the place of the secret one, and the reverse, are refused before anything is asked."""
    swapped = look(SUPABASE_SERVICE_ROLE_KEY=project.publishable_key, SUPABASE_PUBLISHABLE_KEY=project.service_key)
    assert swapped["settings"].state == "problem"
    wrong = look(SUPABASE_SERVICE_ROLE_KEY=f"sb_secret_{uuid.uuid4().hex}")
    assert wrong["key"].text == "no key: service key refused"
    assert "copy it again" in wrong["key"].mend
    assert "service key is not accepted" in wrong["database"].text


def test_signing_keys_that_cannot_be_fetched_are_named(look: Look) -> None:
    """Without published keys nobody can sign in, unless the secret of HS256 is at hand."""
    nowhere = f"http://127.0.0.1:{free_port()}/jwks.json"
    found = look(SUPABASE_JWKS_URL=nowhere, SUPABASE_JWT_SECRET="")["token keys"]
    assert found.state == "problem"
    assert "cannot be fetched" in found.text
    assert "SUPABASE_JWKS_URL" in found.mend
    assert look(SUPABASE_JWKS_URL=nowhere)["token keys"].state == "ok"


def test_project_that_does_not_answer_is_named(look: Look) -> None:
    """With the address wrong every step says that nobody answers, and none says that something is missing."""
    findings = look(SUPABASE_URL=f"http://127.0.0.1:{free_port()}")
    assert findings["key"].text == "no key: vault unreachable"
    assert "SUPABASE_URL" in findings["key"].mend
    assert "did not answer" in findings["database"].text


def test_project_that_signs_with_a_secret_we_do_not_have_is_told(look: Look) -> None:
    """No published key and no SUPABASE_JWT_SECRET: tokens are judged by Auth alone, which the operator should know."""
    found = look(SUPABASE_JWT_SECRET="")["token keys"]
    assert found.state == "ok"
    assert "publishes no keys" in found.text and "Auth" in found.text

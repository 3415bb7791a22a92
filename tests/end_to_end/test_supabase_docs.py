"""The SQL of docs/supabase.md, run as it stands there, on a real project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.local_supabase import LocalSupabase
from tests.fakes.local_supabase import project
from tests.fakes.people import Person, new_key, new_person

__all__ = ["project"]

pytestmark = pytest.mark.postgres

PAGE = Path(__file__).parents[2] / "docs" / "supabase.md"


@pytest.fixture
def anna(project: LocalSupabase) -> Person:
    """Somebody with an account."""
    return new_person(project)


@pytest.fixture
def without_key(project: LocalSupabase) -> Iterator[None]:
    """A project in which no key was put yet; the secret the page makes is taken away again."""
    project.sql("delete from public.system_api_keys")
    yield
    project.sql("delete from vault.secrets where name in ('openai-api-key', 'key-of-one-agent')")


def block(beginning: str, **words: str) -> str:
    """Return the page's one SQL block that begins so, with its placeholders filled in."""
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [one for one in blocks if one.startswith(beginning)]
    for placeholder, word in words.items():
        assert placeholder in found
        found = found.replace(placeholder, word)
    return found


def key_in_use(project: LocalSupabase) -> str:
    """Return what the server would find."""
    row = "select vault_secret_id from public.system_api_keys where provider_name = 'openai' and is_active"
    return project.sql(f"select key from public.get_secret(({row}))")  # noqa: S608 - no input


@pytest.mark.usefixtures("without_key")
def test_key_can_be_put_in_and_replaced(project: LocalSupabase) -> None:
    """The first statement makes secret and row, the one of rotation changes the secret under the same id."""
    first, second = new_key(), new_key()
    project.sql(block("with made", **{"sk-…": first}))
    assert key_in_use(project) == first
    project.sql(block("select vault.update_secret", **{"sk-…": second}))
    assert key_in_use(project) == second


@pytest.mark.usefixtures("without_key")
def test_agent_can_have_a_key_of_its_own(project: LocalSupabase, anna: Person) -> None:
    """The statement stores the secret and names it in the agent."""
    key, agent_id = new_key(), anna.make_agent()
    project.sql(block("update public.agents", **{"sk-…": key, "AGENT-UUID": agent_id}))
    own = f"select api_key_secret_id from public.agents where id = '{agent_id}'"  # noqa: S608 - an id of our own
    assert project.sql(f"select key from public.get_secret(({own}))") == key  # noqa: S608


def test_user_can_be_made_an_operator(project: LocalSupabase, anna: Person) -> None:
    """The claim goes where only the project's owner can write, beside what is there, and Auth tells it."""
    # Supabase Lite keeps the object as a JSON text in quotes; a hosted project keeps the object.
    as_hosted = "update auth.users set raw_app_meta_data = jsonb_build_object('provider', 'email')"
    project.sql(f"{as_hosted} where id = '{anna.id}'")
    project.sql(block("update auth.users", **{"USER-UUID": anna.id}))
    told = project.request("GET", "/auth/v1/user", key=project.publishable_key, bearer=anna.token)
    assert told["app_metadata"] == {"provider": "email", "voice_admin": True}

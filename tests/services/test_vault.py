"""The OpenAI key out of the Vault of a local project, and every step that may fail on the way."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from cli.local_postgres import free_port
from cli.local_supabase import LocalSupabase
from services.supabase_client import open_data_client, open_http
from services.vault import HOW_TO_MEND, KeyUnavailable, SecretUnavailable, looks_like_a_key
from services.vault.supabase import VaultKey, VaultSecrets
from tests.fakes.local_supabase import project

__all__ = ["project"]

KEY = "sk-test-the-key-of-this-very-test"
OTHER_KEY = "sk-test-another-key-that-came-later"


def read(project: LocalSupabase, secret_id: str | None = None, service_key: str | None = None) -> str:
    """Read a key through the project's data API."""

    async def run() -> str:
        async with open_http() as http:
            return await VaultKey(open_data_client(project.url, service_key or project.service_key, http)).key(
                secret_id
            )

    return asyncio.run(run())


def failed_step(project: LocalSupabase, **how: Any) -> str:
    with pytest.raises(KeyUnavailable) as caught:
        read(project, **how)
    assert caught.value.how_to_mend == HOW_TO_MEND[caught.value.step]
    return caught.value.step


@pytest.mark.postgres
def test_key_comes_out_of_the_vault(project: LocalSupabase) -> None:
    """The active row names the secret, and the secret without the line break it was pasted with is the key."""
    project.set_openai_key(f"  {KEY}\n")
    assert read(project) == KEY


@pytest.mark.postgres
def test_agent_may_have_a_key_of_its_own(project: LocalSupabase) -> None:
    """A Vault id leads straight to that secret, in whatever spelling the id is."""
    project.set_openai_key(KEY)
    secret_id = project.store_secret(OTHER_KEY)
    assert read(project, secret_id=secret_id) == OTHER_KEY
    assert read(project, secret_id=secret_id.upper()) == OTHER_KEY


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "step"),
    [
        ("delete from public.system_api_keys", "no_row"),
        ("update public.system_api_keys set is_active = false", "inactive"),
        ("update public.system_api_keys set vault_secret_id = null", "no_secret_id"),
        ("update public.system_api_keys set vault_secret_id = gen_random_uuid()", "secret_missing"),
        ("update vault.secrets set secret = ''", "empty_secret"),
        ("update vault.secrets set secret = encode(convert_to('   ', 'utf8'), 'base64')", "empty_secret"),
        ("update vault.secrets set secret = encode(convert_to('your-openai-key', 'utf8'), 'base64')", "not_a_key"),
        ("revoke execute on function public.get_secret(uuid) from service_role", "not_permitted"),
        ("revoke select on public.system_api_keys from service_role", "not_permitted"),
    ],
)
def test_step_that_fails_is_named(project: LocalSupabase, change: str, step: str) -> None:
    """Each thing an operator may have forgotten has a name and a sentence that says how to mend it."""
    project.set_openai_key(KEY)
    project.sql(change)
    try:
        assert failed_step(project) == step
    finally:
        project.restore_privileges()
    project.set_openai_key(KEY)
    assert read(project) == KEY


@pytest.mark.postgres
def test_wrong_keys_are_told_from_missing_privileges(project: LocalSupabase) -> None:
    """An unknown key is refused by the gateway, a publishable key may not read; both say what to do."""
    project.set_openai_key(KEY)
    assert failed_step(project, service_key="sb_secret_wrong") == "service_key_refused"
    assert failed_step(project, service_key=project.publishable_key) == "not_permitted"


@pytest.mark.postgres
def test_secret_ids_that_are_none(project: LocalSupabase) -> None:
    """Text that is no UUID is not sent, and an unknown UUID is a missing secret."""
    assert failed_step(project, secret_id="openai_api_key") == "bad_secret_id"
    assert failed_step(project, secret_id=str(uuid4())) == "secret_missing"


@pytest.mark.parametrize(
    ("text", "is_key"),
    [
        ("sk-proj-" + "aB3_-" * 30, True),
        ("0123456789abcdef0123456789abcdef", True),
        ("sk-short", False),
        ("sk-" + "x" * 600, False),
        ("sk-with a space in the middle", False),
        ("sk-with\r\nX-Header: injected", False),
        ("sk-schlüssel-mit-umlaut-darin", False),
        ("sk-...", False),
        ("sk-...................", False),
        ("sk-your-key-goes-here", False),
        ("<your OpenAI key>xxxxxxx", False),
        ("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x", False),
        ("sb_secret_abcdefghijklmnop", False),
        ("5f0c1c1e-8f5e-4d0a-9a55-0123456789ab", False),
    ],
)
def test_what_looks_like_a_key(text: str, is_key: bool) -> None:
    """Keys of OpenAI and of compatible services pass; placeholders and other credentials do not."""
    assert looks_like_a_key(text) is is_key


def secret(project: LocalSupabase, secret_id: str, service_key: str | None = None) -> str:
    """Read any secret through the project's data API."""

    async def run() -> str:
        async with open_http() as http:
            return await VaultSecrets(open_data_client(project.url, service_key or project.service_key, http)).secret(
                secret_id
            )

    return asyncio.run(run())


@pytest.mark.postgres
@pytest.mark.parametrize("text", ["0123456789abcdef" * 2, "  sb_secret_is_fine_here\n", "short"])
def test_any_secret_comes_out_of_the_vault(project: LocalSupabase, text: str) -> None:
    """A phone account's token need not look like an API key, and comes without the line break it was pasted with."""
    assert secret(project, project.store_secret(text)) == text.strip()


@pytest.mark.postgres
def test_secret_that_cannot_be_had_names_the_step(project: LocalSupabase) -> None:
    """The steps are those of keys, and the error does not speak of keys."""
    for secret_id, service_key, step in (
        ("not-a-uuid", None, "bad_secret_id"),
        (str(uuid4()), None, "secret_missing"),
        (project.store_secret("   "), None, "empty_secret"),
        (str(uuid4()), "sb_secret_wrong", "service_key_refused"),
        (str(uuid4()), project.publishable_key, "not_permitted"),
    ):
        with pytest.raises(SecretUnavailable, match=f"no secret: {step}") as caught:
            secret(project, secret_id, service_key)
        assert not isinstance(caught.value, KeyUnavailable)


def test_vault_that_is_away_is_named_in_time() -> None:
    """With nobody listening the step is vault_unreachable."""

    async def run() -> str:
        async with open_http() as http:
            client = open_data_client(f"http://127.0.0.1:{free_port()}", "sb_secret_test", http)
            with pytest.raises(SecretUnavailable) as caught:
                await VaultSecrets(client).secret(str(uuid4()))
            return caught.value.step

    assert asyncio.run(run()) == "vault_unreachable"

# ruff: noqa: S608 - statements are put together from names in this file
"""The migrations on a real PostgreSQL: what they create, that they can run again, and who may do what."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import Table, UniqueConstraint, create_engine, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Inspector
from sqlalchemy.ext.asyncio import create_async_engine

from cli.migrate import main
from services.sql_store import MigrationFailed, SqlStore, migrate, migration_files, pending
from services.sql_store.tables import metadata
from services.store import StoreUnavailable
from tests.fakes.postgres import Postgres, missing

REPOSITORY = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.postgres

TABLES = (
    "agents",
    "phone_numbers",
    "calls",
    "conversations",
    "messages",
    "system_api_keys",
    "deleted_conversation_costs",
)

OLD_DEFAULTS = """
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant execute on functions to anon, authenticated, service_role;
"""
"""How hosted projects behaved before 2026-10-30: with them a forgotten revoke shows, without them a forgotten grant."""

SUPABASE = """
do $$ begin
  create role anon nologin noinherit; create role authenticated nologin noinherit;
  create role service_role nologin noinherit bypassrls;
exception when duplicate_object then null; end $$;
create schema auth;
create table auth.users (id uuid primary key default gen_random_uuid());
create function auth.uid() returns uuid language sql stable as
  $$ select nullif(current_setting('request.jwt.claims', true)::jsonb ->> 'sub', '')::uuid $$;
grant usage on schema auth to anon, authenticated, service_role;
create schema vault;
create table vault.secrets (id uuid primary key default gen_random_uuid(), secret text);
create view vault.decrypted_secrets as select id, secret, reverse(secret) as decrypted_secret from vault.secrets;
"""
"""What of a hosted project the migrations can meet; the Vault's cipher is replaced by reversing."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def plain(server: Postgres) -> str:
    """A migrated plain database, to be copied or read."""
    url = server.new_database()
    asyncio.run(migrate(url))
    return url


@dataclass(frozen=True)
class People:
    """Two owners with an agent, a number, a call, a conversation and a message each, in one database."""

    url: str
    alice: str
    bob: str
    agent: dict[str, str]
    conversation: dict[str, str]

    @asynccontextmanager
    async def as_role(self, role: str, user: str | None = None) -> AsyncIterator[Any]:
        """Connect as PostgREST does: a role and the claims of a verified token."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(
                "select set_config('request.jwt.claims', $1, false)", json.dumps({"sub": user or ""})
            )
            await connection.execute(f"set role {role}")
            yield connection
        finally:
            connection.terminate()

    async def do(self, role: str, user: str | None, statement: str, *arguments: Any) -> Any:
        """Run one statement and return its rows, or the word "denied"."""
        async with self.as_role(role, user) as connection:
            try:
                return [dict(row) for row in await connection.fetch(statement, *arguments)]
            except asyncpg.InsufficientPrivilegeError:
                return "denied"


async def _settle(url: str, with_accounts: bool) -> People:
    alice, bob = str(uuid4()), str(uuid4())
    agent = {alice: str(uuid4()), bob: str(uuid4())}
    conversation = {alice: str(uuid4()), bob: str(uuid4())}
    connection = await asyncpg.connect(url)
    for number, user in enumerate((alice, bob)):
        if with_accounts:
            await connection.execute("insert into auth.users (id) values ($1)", user)
        await connection.execute("insert into agents (id, user_id, name) values ($1, $2, 'Ada')", agent[user], user)
        await connection.execute(
            "insert into phone_numbers (number, agent_id, user_id) values ($1, $2, $3)",
            f"+1415555010{number}",
            agent[user],
            user,
        )
        await connection.execute(
            "insert into calls (call_sid, agent_id, user_id, token_hash) values ($1, $2, $3, 'hash')",
            f"CA{number}",
            agent[user],
            user,
        )
        await connection.execute(
            "insert into conversations (id, user_id, agent_id, channel, cost_usd) values ($1, $2, $3, 'browser', 0.5)",
            conversation[user],
            user,
            agent[user],
        )
        await connection.execute(
            "insert into messages (conversation_id, user_id, item_id, position, role) values ($1, $2, 'i', 0, 'user')",
            conversation[user],
            user,
        )
    await connection.execute("insert into system_api_keys (provider_name) values ('openai')")
    await connection.close()
    return People(url, alice, bob, agent, conversation)


@pytest.fixture(scope="module", params=["plain", "supabase", "supabase before 2026-10-30"])
def world(request: pytest.FixtureRequest, server: Postgres) -> People:
    """The three worlds in which the grants must come out the same; to be copied."""
    url = server.new_database()
    if request.param != "plain":
        server.sql(SUPABASE, url=url)
    if request.param.endswith("2026-10-30"):
        server.sql(OLD_DEFAULTS, url=url)
    asyncio.run(migrate(url))
    return asyncio.run(_settle(url, request.param != "plain"))


@pytest.fixture
def people(server: Postgres, world: People) -> People:
    """A copy of a world for one test to change."""
    return replace(world, url=server.copy_database(world.url))


def test_anonymous_visitors_may_do_nothing(people: People) -> None:
    """Without a sign-in no table can be read or written and no function called."""

    async def run() -> None:
        for table in (*TABLES, "voice_migrations"):
            for statement in (
                f"select * from {table}",
                f"insert into {table} default values",
                f"update {table} set user_id = null" if table not in {"system_api_keys", "voice_migrations"} else None,
                f"delete from {table}",
                f"truncate {table}",
            ):
                if statement:
                    assert await people.do("anon", None, statement) == "denied", statement
        await _functions_denied(people, "anon", None)

    asyncio.run(run())


async def _functions_denied(people: People, role: str, user: str | None) -> None:
    for call in (
        "get_secret(gen_random_uuid())",
        "cost_since(gen_random_uuid(), now())",
        "save_records('[]')",
        "remove_expired()",
        "cost_by_day(now())",
    ):
        assert await people.do(role, user, f"select * from public.{call}") == "denied", call


def test_users_see_their_own_rows_only(people: People) -> None:
    """Each owner reads exactly one row of each table; users without rows read none."""

    async def run() -> None:
        readable = {
            "agents": "id::text",
            "conversations": "id::text",
            "messages": "conversation_id::text",
            "phone_numbers": "agent_id::text",
            "calls": "agent_id::text",
        }
        for table, column in readable.items():
            for user in (people.alice, people.bob):
                rows = await people.do("authenticated", user, f"select user_id::text as owner, {column} from {table}")
                assert [row["owner"] for row in rows] == [user], table
            assert await people.do("authenticated", str(uuid4()), f"select {column} from {table}") == []
            assert await people.do("authenticated", None, f"select {column} from {table}") == []

    asyncio.run(run())


def test_users_never_see_secrets(people: People) -> None:
    """Token hashes, Vault ids of numbers, provider keys and the server's own tables are closed to users."""

    async def run() -> None:
        for query in (
            "select token_hash from calls",
            "select * from calls",
            "select auth_token_secret_id from phone_numbers",
            "select * from system_api_keys",
            "select * from deleted_conversation_costs",
            "select * from voice_migrations",
        ):
            assert await people.do("authenticated", people.alice, query) == "denied", query
        await _functions_denied(people, "authenticated", people.alice)

    asyncio.run(run())


def test_users_manage_their_own_agents(people: People) -> None:
    """Owners create, change and delete their agents; the owner is who is signed in unless said otherwise."""

    async def run() -> None:
        alice = people.alice
        (made,) = await people.do(
            "authenticated", alice, "insert into agents (name) values ('Grace') returning id, user_id::text as owner"
        )
        assert made["owner"] == alice
        changed = "update agents set voice = 'cedar' where id = $1 returning voice, updated_at > created_at as touched"
        assert await people.do("authenticated", alice, changed, made["id"]) == [{"voice": "cedar", "touched": True}]
        deleted = "delete from agents where id = $1 returning name"
        assert await people.do("authenticated", alice, deleted, made["id"]) == [{"name": "Grace"}]

    asyncio.run(run())


def test_users_cannot_touch_others_agents(people: People) -> None:
    """Another's agent can be neither made, changed, deleted nor taken, and nobody chooses a Vault secret."""

    async def run() -> None:
        alice, bob = people.alice, people.bob
        theirs = people.agent[bob]
        for statement, arguments, result in (
            ("insert into agents (user_id) values ($1)", [bob], "denied"),
            ("update agents set name = 'x' where id = $1 returning id", [theirs], []),
            ("delete from agents where id = $1 returning id", [theirs], []),
            ("update agents set user_id = $1", [bob], "denied"),
            ("update agents set api_key_secret_id = gen_random_uuid()", [], "denied"),
            ("insert into agents (api_key_secret_id) values (gen_random_uuid())", [], "denied"),
            ("update agents set id = gen_random_uuid()", [], "denied"),
        ):
            assert await people.do("authenticated", alice, statement, *arguments) == result, statement

    asyncio.run(run())


def test_users_cannot_write_what_the_server_writes(people: People) -> None:
    """Conversations, messages, calls and numbers are written by the server alone."""

    async def run() -> None:
        for statement in (
            "update conversations set cost_usd = 0",
            "insert into conversations (user_id, agent_id, channel) select user_id, id, 'phone' from agents",
            "update messages set content = 'I never said that'",
            "insert into messages (conversation_id, user_id, item_id, position, role)"
            " select conversation_id, user_id, 'j', 1, 'system' from messages",
            "insert into calls (call_sid) values ('CA9')",
            "update calls set ended_at = now()",
            "delete from calls",
            "update phone_numbers set account_sid = 'AC1'",
            "insert into phone_numbers (number) values ('+14155550199')",
            "delete from phone_numbers",
            "truncate conversations cascade",
        ):
            assert await people.do("authenticated", people.alice, statement) == "denied", statement

    asyncio.run(run())


def test_users_delete_their_own_history_only(people: People) -> None:
    """Owners delete their messages and conversations; others' stay."""

    async def run() -> None:
        alice, bob = people.alice, people.bob
        count = "select count(*) as n from messages"
        assert await people.do("authenticated", alice, "delete from messages returning user_id::text") == [
            {"user_id": alice}
        ]
        assert await people.do("authenticated", alice, "delete from conversations returning user_id::text") == [
            {"user_id": alice}
        ]
        assert await people.do("authenticated", alice, count) == [{"n": 0}]
        assert await people.do("authenticated", bob, count) == [{"n": 1}]

    asyncio.run(run())


def test_deleting_history_does_not_refill_the_budget(people: People) -> None:
    """What a deleted conversation cost is still counted for its user, and goes with the agent too."""

    async def run() -> None:
        alice, bob = people.alice, people.bob
        cost = "select cost_since($1, now() - interval '1 hour')::float as usd"
        assert await people.do("service_role", None, cost, alice) == [{"usd": 0.5}]
        await people.do("authenticated", alice, "delete from conversations")
        await people.do("authenticated", bob, "delete from agents")
        assert await people.do("service_role", None, "select id from conversations") == []
        for user in (alice, bob):
            assert await people.do("service_role", None, cost, user) == [{"usd": 0.5}]
        store = SqlStore.open(people.url)
        assert await store.cost_since(alice, "2020-01-01T00:00:00+00:00") == 0.5
        await store.close()

    asyncio.run(run())


def test_server_role_reads_and_writes_everything(people: People) -> None:
    """service_role needs nothing but its grants and policies to do the server's work."""

    async def run() -> None:
        for table, rows in zip(TABLES, (2, 2, 2, 2, 2, 1, 0), strict=True):
            assert len(await people.do("service_role", None, f"select * from {table}")) == rows, table
        agent, user = people.agent[people.alice], people.alice
        conversation = str(uuid4())
        records = [
            {
                "kind": "conversation",
                "columns": {
                    "id": conversation,
                    "user_id": user,
                    "agent_id": agent,
                    "channel": "phone",
                    "started_at": "2026-11-20T12:00:00+00:00",
                },
            },
        ]
        await people.do("service_role", None, "select save_records($1)", json.dumps(records))
        found = await people.do("service_role", None, "select channel from conversations where id = $1", conversation)
        assert found == [{"channel": "phone"}]
        for statement in (
            "update agents set name = 'x'",
            "delete from messages",
            "insert into system_api_keys (provider_name) values ('other')",
            "update calls set claimed_at = now()",
            "delete from phone_numbers",
        ):
            assert await people.do("service_role", None, statement) == [], statement
        assert await people.do("service_role", None, "select * from voice_migrations") == "denied"

    asyncio.run(run())


def test_privileges_file_restores_the_state(people: People) -> None:
    """After somebody granted everything, migrating again closes what should be closed and opens what should be open."""

    async def run() -> None:
        connection = await asyncpg.connect(people.url)
        await connection.execute("grant all on all tables in schema public to anon, authenticated")
        await connection.execute("grant execute on all functions in schema public to anon, authenticated")
        await connection.execute("revoke all on table agents from service_role")
        await connection.close()
        assert await people.do("authenticated", people.alice, "select token_hash from calls") != "denied"
        assert await migrate(people.url) == []
        assert await people.do("authenticated", people.alice, "select token_hash from calls") == "denied"
        assert await people.do("anon", None, "select * from agents") == "denied"
        await _functions_denied(people, "anon", None)
        assert len(await people.do("service_role", None, "select * from agents")) == 2

    asyncio.run(run())


def test_every_table_and_function_is_accounted_for(plain: str, server: Postgres) -> None:
    """No table is without row level security, and no function is executable by everybody."""
    unprotected = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    assert server.sql(f"{unprotected} and not relrowsecurity", url=plain) == ""
    assert set(server.sql(unprotected, url=plain).split()) == {*TABLES, "voice_migrations"}
    open_functions = (
        "select p.proname from pg_proc p, unnest(array['anon', 'authenticated']) r"
        " where p.pronamespace = 'public'::regnamespace and has_function_privilege(r, p.oid, 'execute')"
    )
    assert server.sql(open_functions, url=plain) == ""
    loose_path = (
        "select proname from pg_proc where pronamespace = 'public'::regnamespace"
        " and not coalesce(proconfig @> array['search_path=\"\"'], false)"
    )
    assert server.sql(loose_path, url=plain) == ""


def test_every_owner_and_foreign_key_column_has_an_index(plain: str, server: Postgres) -> None:
    """A policy or a cascade never reads a whole table: each such column is the first of some index."""
    wanted = (
        "select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid"
        " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'"
        " and a.attname in ('user_id', 'agent_id', 'conversation_id')"
        " and not exists (select 1 from pg_index i where i.indrelid = c.oid and i.indkey[0] = a.attnum)"
    )
    assert server.sql(wanted, url=plain) == ""


def test_code_and_migrations_describe_the_same_tables(plain: str) -> None:
    """Columns, types, nullability, keys and unique constraints of the two are equal."""

    async def described() -> dict[str, Any]:
        engine = create_async_engine(plain.replace("postgresql", "postgresql+asyncpg", 1))
        async with engine.connect() as connection:
            found = await connection.run_sync(lambda sync: _reflected(inspect(sync)))
        await engine.dispose()
        return found

    found = asyncio.run(described())
    found.pop("voice_migrations")
    assert found == {name: _declared(table) for name, table in metadata.tables.items()}


def _reflected(database: Inspector) -> dict[str, Any]:
    dialect = postgresql.dialect()
    return {
        table: {
            "columns": {
                column["name"]: (column["type"].compile(dialect), column["nullable"])
                for column in database.get_columns(table)
            },
            "primary": database.get_pk_constraint(table)["constrained_columns"],
            "unique": sorted((u["name"], tuple(u["column_names"])) for u in database.get_unique_constraints(table)),
            "foreign": sorted(
                (key["name"], tuple(key["constrained_columns"]), key["referred_table"], key["options"].get("ondelete"))
                for key in database.get_foreign_keys(table)
            ),
            "indexes": sorted(
                index["name"] for index in database.get_indexes(table) if "duplicates_constraint" not in index
            ),
        }
        for table in database.get_table_names(schema="public")
    }


def _declared(table: Table) -> dict[str, Any]:
    dialect = postgresql.dialect()
    unique = [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
    return {
        "columns": {column.name: (column.type.compile(dialect), column.nullable) for column in table.columns},
        "primary": [column.name for column in table.primary_key.columns],
        "unique": sorted((str(u.name), tuple(column.name for column in u.columns)) for u in unique),
        "foreign": sorted(
            (str(key.name), tuple(key.column_keys), key.referred_table.name, key.ondelete)
            for key in table.foreign_key_constraints
        ),
        "indexes": sorted(str(index.name) for index in table.indexes),
    }


def test_nonsense_is_refused_by_the_tables(people: People) -> None:
    """Roles, statuses, channels, numbers and figures outside their lists and ranges cannot be stored."""

    async def run() -> None:
        for statement in (
            "update messages set role = 'narrator'",
            "update messages set status = 'lost'",
            "update messages set position = -1",
            "update conversations set channel = 'fax'",
            "update conversations set cost_usd = -1",
            "update conversations set turn_count = -1",
            "update agents set speed = 9",
            "update agents set max_output_tokens = 5000",
            "update phone_numbers set number = '0041 44 123'",
            "update phone_numbers set number = '+0155501'",
            "update phone_numbers set number = '+12345678901234567'",
        ):
            async with people.as_role("service_role") as connection:
                with pytest.raises(asyncpg.CheckViolationError):
                    await connection.execute(statement)

    asyncio.run(run())


def test_expired_calls_are_removed(plain: str, server: Postgres) -> None:
    """Unclaimed configurations go when they expire, claimed ones lose configuration and token after the call."""
    url = server.copy_database(plain)
    user, agent = str(uuid4()), str(uuid4())
    server.sql(
        f"insert into agents (id, user_id) values ('{agent}', '{user}')",
        f"""insert into calls
               (call_sid, agent_id, user_id, config, token_hash, created_at, expires_at, claimed_at, ended_at)
        select sid, '{agent}', '{user}', '{{"voice": "ash"}}', 'hash', now() - age, now() - age + interval '300 s',
               now() - claimed, now() - ended
          from (values ('fresh', interval '1 minute', null::interval, null::interval),
                       ('unclaimed', interval '6 minutes', null, null),
                       ('live', interval '1 hour', interval '1 hour', null),
                       ('over', interval '1 hour', interval '1 hour', interval '1 minute'),
                       ('crashed', interval '25 hours', interval '25 hours', null),
                       ('ancient', interval '31 days', interval '31 days', interval '31 days'))
               as calls (sid, age, claimed, ended)""",
        url=url,
    )
    assert server.sql("select remove_expired()", url=url) == "2"
    kept = "select string_agg(call_sid, ' ' order by call_sid) from calls where token_hash is"
    assert server.sql(f"{kept} not null and config <> '{{}}'", url=url) == "fresh live"
    assert server.sql(f"{kept} null and config = '{{}}'", url=url) == "crashed over"
    assert server.sql("select remove_expired()", url=url) == "0"


def test_secret_comes_from_the_vault(server: Postgres) -> None:
    """The server's role gets the plain text of one secret by its id, and no row for an unknown id."""
    url = server.new_database()
    server.sql(SUPABASE, url=url)
    asyncio.run(migrate(url))
    secret = server.sql("insert into vault.secrets (secret) values ('terces') returning id", url=url)
    asked = "set role service_role; select key from get_secret"
    assert server.sql(f"{asked}('{secret}')", url=url) == "secret"
    assert server.sql(f"{asked}('{uuid4()}')", url=url) == ""


def test_without_a_vault_the_function_says_so(plain: str, server: Postgres) -> None:
    """On plain PostgreSQL asking for a secret is a clear error, not a missing function."""
    with pytest.raises(RuntimeError, match="Supabase Vault is not installed"):
        server.sql(f"select * from get_secret('{uuid4()}')", url=plain)


def test_deleted_account_takes_its_rows_along(server: Postgres) -> None:
    """Where accounts live in the database, deleting one deletes everything its owner had."""
    url = server.new_database()
    server.sql(SUPABASE, url=url)
    asyncio.run(migrate(url))
    people = asyncio.run(_settle(url, True))
    server.sql(f"delete from auth.users where id = '{people.alice}'", url=url)
    for table in ("agents", "phone_numbers", "calls", "conversations", "messages"):
        assert server.sql(f"select user_id from {table}", url=url) == people.bob


def test_migrating_again_does_nothing(server: Postgres) -> None:
    """The first run names every file, the second none; the list of what is missing follows."""
    url = server.new_database()
    names = [file.name for file in migration_files()]
    assert asyncio.run(pending(url)) == names
    assert asyncio.run(migrate(url)) == names
    assert asyncio.run(pending(url)) == []
    assert asyncio.run(migrate(url)) == []


def test_servers_starting_together_migrate_once(server: Postgres) -> None:
    """Four at once: each file is applied by exactly one of them, and none fails."""
    url = server.new_database()

    async def run() -> list[list[str]]:
        return await asyncio.gather(*(migrate(url) for _ in range(4)))

    applied = [name for names in asyncio.run(run()) for name in names]
    assert sorted(applied) == [file.name for file in migration_files()]


def test_what_supabase_applied_counts(server: Postgres, plain: str) -> None:
    """After `supabase db push` there is nothing left to apply."""
    url = server.copy_database(plain)
    versions = ", ".join(f"('{file.version}')" for file in migration_files())
    server.sql(
        "drop table voice_migrations",
        "create schema supabase_migrations",
        "create table supabase_migrations.schema_migrations (version text primary key)",
        f"insert into supabase_migrations.schema_migrations values {versions}",
        url=url,
    )
    assert asyncio.run(migrate(url)) == []


def test_supabase_db_push_applies_everything(server: Postgres, tmp_path: Path) -> None:
    """Supabase's own command line applies the migrations; afterwards `./voice migrate` has nothing to do."""
    supabase = Path(__file__).parent.parent / "supabase_cli" / "node_modules" / ".bin" / "supabase"
    if not supabase.exists():
        pytest.skip(reason="npm install --prefix tests/supabase_cli was not run")
    (tmp_path / "supabase").mkdir()
    shutil.copytree(Path(__file__).parents[2] / "supabase" / "migrations", tmp_path / "supabase" / "migrations")
    url = server.new_database()
    subprocess.run(
        [supabase, "db", "push", "--yes", f"--remote={url}?sslmode=disable"],
        cwd=tmp_path,
        env={**os.environ, "DO_NOT_TRACK": "1", "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert asyncio.run(pending(url)) == []
    assert server.sql("select to_regclass('public.messages')", url=url) == "messages"


def test_failing_migration_leaves_nothing_of_itself(server: Postgres, tmp_path: Path) -> None:
    """The error names file and reason, earlier files stay, and a repaired file is applied by the next run."""
    url = server.new_database()
    (tmp_path / "1_good.sql").write_text("create table good (id int);")
    broken = tmp_path / "2_broken.sql"
    broken.write_text("create table half (id int); create table half (id int);")
    with pytest.raises(MigrationFailed, match=r'2_broken.sql: relation "half" already exists'):
        asyncio.run(migrate(url, tmp_path))
    assert server.sql("select to_regclass('good'), to_regclass('half')", url=url) == "good|"
    broken.write_text("create table half (id int);")
    assert asyncio.run(migrate(url, tmp_path)) == ["2_broken.sql"]


def test_role_that_may_not_create_roles_is_told_what_to_do(tmp_path: Path) -> None:
    """On plain PostgreSQL without the roles and without CREATEROLE the error says how to go on; with them it works."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with Postgres() as own:
        own.sql("create role modest login", "create database app owner modest")
        url = own.url("app", "modest")
        with pytest.raises(MigrationFailed, match="CREATEROLE"):
            asyncio.run(migrate(url))
        own.sql("create role anon", "create role authenticated", "create role service_role")
        assert len(asyncio.run(migrate(url))) == len(migration_files())


def test_unreachable_database_is_unavailable() -> None:
    """A database that does not answer is StoreUnavailable, without the password."""
    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(migrate("postgresql://u:hidden@127.0.0.1:1/voice"))
    assert "hidden" not in str(caught.value)


def test_sqlite_gets_the_same_tables(tmp_path: Path) -> None:
    """In SQLite all tables are there after migrating, and migrating again is harmless."""
    url = f"sqlite:///{tmp_path}/voice.db"
    assert asyncio.run(migrate(url)) == []
    assert asyncio.run(migrate(url)) == []
    assert asyncio.run(pending(url)) == []
    engine = create_engine(url)
    assert set(inspect(engine).get_table_names()) == set(TABLES)
    engine.dispose()


def test_sqlite_refuses_numbers_that_are_not_e164(tmp_path: Path) -> None:
    """The check on phone numbers holds in SQLite too."""
    url = f"sqlite:///{tmp_path}/voice.db"
    asyncio.run(migrate(url))
    engine = create_engine(url)
    insert = "insert into phone_numbers (number, agent_id, user_id, created_at) values (?, 'a', 'u', 'now')"
    with engine.connect() as connection:
        connection.exec_driver_sql(insert, ("+14155550100",))
        for number in ("14155550100", "+0415555", "+1415x55", "+", "+123456789012345678"):
            with pytest.raises(Exception, match="phone_numbers_number_check"):
                connection.exec_driver_sql(insert, (number,))
    engine.dispose()


def _command(*arguments: str, database_url: str | None, folder: Path) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    if database_url is not None:
        environment["DATABASE_URL"] = database_url
    code = "import sys; from cli.migrate import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_command_migrates_and_says_what_it_did(server: Postgres, tmp_path: Path) -> None:
    """`voice migrate --status` lists what is missing, `voice migrate` applies it, from DATABASE_URL or .env."""
    url = server.new_database()
    status, output = _command("--status", database_url=url, folder=tmp_path)
    assert (status, output.count("missing ")) == (1, len(migration_files()))
    (tmp_path / ".env").write_text(f"DATABASE_URL={url}\n")
    status, output = _command(database_url=None, folder=tmp_path)
    assert (status, output.count("applied ")) == (0, len(migration_files()))
    assert _command("--status", database_url=url, folder=tmp_path) == (0, "nothing is missing\n")


@pytest.mark.parametrize(
    ("database_url", "status", "words"),
    [
        (None, 2, "DATABASE_URL is not set"),
        ("mysql://127.0.0.1/voice", 2, "DATABASE_URL is unusable"),
        ("postgresql://u:hidden@127.0.0.1:1/voice", 1, "not migrated"),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, database_url: str | None, status: int, words: str) -> None:
    """A missing, unusable or unreachable database is one line and an exit status, without the password."""
    result, output = _command(database_url=database_url, folder=tmp_path)
    assert result == status
    assert words in output
    assert "hidden" not in output
    assert "Traceback" not in output


def test_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names the setting that is read."""
    with suppress(SystemExit):
        main(["--help"])
    assert "DATABASE_URL" in capsys.readouterr().out

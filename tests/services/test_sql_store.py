"""The SQL store against SQLite and a real PostgreSQL: the contract, and what only SQL can go wrong with."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from core.calls import PhoneNumber
from services.sql_store import SqlStore, migrate
from services.sql_store.postgres import Postgres as PostgresDatabase
from services.sql_store.postgres import postgres_arguments
from services.sql_store.tables import metadata
from services.store import ParentMissing, StoreRejected, StoreUnavailable
from tests.fakes.postgres import Postgres, missing
from tests.services.store_contract import (
    CONTRACT,
    LATER,
    START,
    Clause,
    begun,
    call_of,
    conversation_row,
    message_row,
    name_of,
)

REPOSITORY = Path(__file__).parent.parent.parent


class SqlBench:
    """A bench over a SqlStore; reads and seeds the tables through the store's own engine."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store

    async def user(self) -> str:
        return str(uuid4())

    async def agent(self, user_id: str, **columns: Any) -> str:
        agent_id = str(uuid4())
        await self.store.put_agent({"id": agent_id, "user_id": user_id, **columns})
        return agent_id

    async def number(self, number: PhoneNumber) -> None:
        await self.store.put_number(number)

    async def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        source = metadata.tables[table]
        query = select(source).where(*(source.c[name] == value for name, value in where.items()))
        return await self.store._rows(query)


def engine_of(bench: SqlBench) -> AsyncEngine:
    """Return the connections of a store in PostgreSQL, to take one and hold it."""
    database = bench.store._database
    assert isinstance(database, PostgresDatabase)
    return database._engine


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def migrated(server: Postgres) -> str:
    url = server.new_database()
    asyncio.run(migrate(url))
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/voice.db"
    url: str = request.getfixturevalue("migrated")
    return url


@contextlib.asynccontextmanager
async def opened(database_url: str, **options: Any) -> AsyncIterator[SqlBench]:
    store = SqlStore.open(database_url, **options)
    if database_url.startswith("sqlite"):
        await store.create_schema()
    try:
        yield SqlBench(store)
    finally:
        await store.close()


@pytest.mark.parametrize("clause", CONTRACT, ids=name_of)
def test_sql_store_keeps_the_contract(clause: Clause, database_url: str) -> None:
    """The clause holds on this database."""

    async def run() -> None:
        async with opened(database_url) as bench:
            await clause(bench)

    asyncio.run(run())


def test_put_agent_changes_the_columns_given_and_no_other(database_url: str) -> None:
    """Storing an agent again changes what is named and leaves the rest."""

    async def run() -> None:
        async with opened(database_url) as bench:
            user = await bench.user()
            agent_id = await bench.agent(user, name="Ada", voice="cedar")
            await bench.store.put_agent({"id": agent_id, "user_id": user, "name": "Grace"})
            agent = await bench.store.agent(agent_id, user)
            assert agent is not None
            assert (agent.name, agent.style.voice) == ("Grace", "cedar")

    asyncio.run(run())


def test_put_agent_does_not_take_over_another_users_agent(database_url: str) -> None:
    """An id in use by somebody else is rejected, as is a column that does not exist."""

    async def run() -> None:
        async with opened(database_url) as bench:
            owner, thief = await bench.user(), await bench.user()
            agent_id = await bench.agent(owner, name="Ada")
            with pytest.raises(StoreRejected):
                await bench.store.put_agent({"id": agent_id, "user_id": thief, "name": "Stolen"})
            with pytest.raises(StoreRejected):
                await bench.store.put_agent({"id": agent_id, "user_id": owner, "colour": "red"})
            agent = await bench.store.agent(agent_id, owner)
            assert agent is not None
            assert agent.name == "Ada"

    asyncio.run(run())


@pytest.mark.parametrize("url", ["mysql://127.0.0.1/voice", "sqlite://", "sqlite:///:memory:"])
def test_unusable_address_is_refused_at_the_start(url: str) -> None:
    """A database that cannot be shared by several connections, or is of another kind, is a ValueError."""
    with pytest.raises(ValueError, match="DATABASE_URL"):
        SqlStore.open(url)


def test_refused_connection_is_unavailable() -> None:
    """A database that is not listening is StoreUnavailable, for reads, writes and pings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://nobody:hidden@127.0.0.1:{free.getsockname()[1]}/voice"

        async def run() -> None:
            store = SqlStore.open(url, timeout_s=2)
            for call in (store.ping(), store.agents(str(uuid4())), store.cost_since(str(uuid4()), "2026-11-20T00:00Z")):
                with pytest.raises(StoreUnavailable) as caught:
                    await call
                assert "hidden" not in str(caught.value)
            await store.close()

        asyncio.run(run())


def test_database_that_never_answers_is_unavailable_in_time() -> None:
    """A connection that is accepted and then silent ends at the deadline."""

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            store = SqlStore.open(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/voice", timeout_s=0.3)
            begin = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.ping()
            assert time.monotonic() - begin < 3
            await store.close()

    asyncio.run(run())


@pytest.mark.postgres
def test_query_that_hangs_is_given_up_in_time(migrated: str) -> None:
    """A statement behind somebody's lock ends at the deadline and leaves the pool usable."""

    async def run() -> None:
        async with opened(migrated, timeout_s=0.5, pool_size=1) as bench, opened(migrated) as other:
            row = await begun(bench)
            async with engine_of(other).begin() as holder:
                await holder.exec_driver_sql("lock table messages in access exclusive mode")
                begin = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await bench.store.save([message_row(row, 0)])
                assert time.monotonic() - begin < 3
            await bench.store.save([message_row(row, 0)])
            assert len(await bench.store.history(row.id, row.user_id)) == 1

    asyncio.run(run())


@pytest.mark.postgres
def test_exhausted_pool_is_unavailable_in_time(migrated: str) -> None:
    """When every connection is taken, a caller waits no longer than the deadline."""

    async def run() -> None:
        async with opened(migrated, timeout_s=0.5, pool_size=1) as bench:
            async with engine_of(bench).connect():
                begin = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await bench.store.ping()
                assert time.monotonic() - begin < 3
            await bench.store.ping()

    asyncio.run(run())


@pytest.mark.postgres
def test_restarted_database_is_found_again_without_an_error() -> None:
    """Connections that a restart has cut are replaced before they are used."""
    reason = missing()
    if reason:
        pytest.skip(reason)

    async def run(server: Postgres) -> None:
        async with opened(server.url()) as bench:
            await bench.store.ping()
            await asyncio.to_thread(server.stop)
            with pytest.raises(StoreUnavailable):
                await bench.store.ping()
            await asyncio.to_thread(server.start)
            await bench.store.ping()

    with Postgres() as own:
        asyncio.run(run(own))


@pytest.mark.postgres
def test_database_without_tables_keeps_rows_waiting(server: Postgres) -> None:
    """A missing table is not the row's fault: StoreUnavailable, not StoreRejected."""

    async def run() -> None:
        async with opened(server.new_database()) as bench:
            with pytest.raises(StoreUnavailable):
                await bench.store.save([conversation_row(str(uuid4()), str(uuid4()))])
            with pytest.raises(ValueError, match="migrations"):
                await bench.store.create_schema()

    asyncio.run(run())


@pytest.mark.postgres
def test_what_only_postgresql_cannot_hold_is_rejected(migrated: str) -> None:
    """NUL in columns and in jsonb, and numbers beyond 32 bits, are the row's fault."""

    async def run() -> None:
        async with opened(migrated) as bench:
            row = await begun(bench)
            for poison in ({"content": "a\x00b"}, {"metadata": {"a": "\x00"}}, {"heard_ms": 2**40}):
                with pytest.raises(StoreRejected):
                    await bench.store.save([message_row(row, 0, **poison)])

    asyncio.run(run())


@pytest.mark.postgres
def test_member_of_service_role_is_enough_for_the_server(server: Postgres, migrated: str) -> None:
    """A login role that owns nothing and is a member of service_role can do all the server does."""
    server.sql("create role voice login", "grant service_role to voice")

    async def run() -> None:
        async with opened(migrated.replace("postgres@", "voice@")) as bench:
            row = await begun(bench)
            await bench.store.save([message_row(row, 0)])
            assert len(await bench.store.history(row.id, row.user_id)) == 1

    asyncio.run(run())


def test_locked_sqlite_file_is_unavailable_in_time(tmp_path: Path) -> None:
    """A writer that keeps the file locked costs a caller no more than the deadline."""
    file = tmp_path / "voice.db"

    async def run() -> None:
        async with opened(f"sqlite:///{file}", timeout_s=0.5) as bench:
            row = await begun(bench)
            holder = sqlite3.connect(file, isolation_level=None)
            holder.execute("begin immediate")
            begin = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await bench.store.save([message_row(row, 0)])
            assert time.monotonic() - begin < 3
            holder.execute("rollback")
            holder.close()
            await bench.store.save([message_row(row, 0)])

    asyncio.run(run())


WORKER = """
import asyncio, sys
from services.sql_store import SqlStore
from core.records import ConversationRow, MessageRow
from uuid import uuid4

async def main(url, conversation, user, worker):
    store = SqlStore.open(url)
    await store.create_schema()
    for n in range(40):
        await store.save([MessageRow(str(uuid4()), conversation, user, f"{worker}-{n}", n, "user", "hello", "complete",
                                     None, None, {}, "2026-11-20T12:00:00+00:00")])
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_busy_sqlite_file_is_unavailable_in_time(tmp_path: Path) -> None:
    """When every thread is taken, a caller waits no longer than the deadline, and what it asked is not done later."""

    async def run() -> None:
        async with opened(f"sqlite:///{tmp_path}/voice.db", timeout_s=0.5, pool_size=1) as bench:
            row = await begun(bench)
            begin = time.monotonic()
            long = asyncio.ensure_future(bench.store._database.run(lambda _: time.sleep(1.5)))
            await asyncio.sleep(0.1)  # it has the thread
            with pytest.raises(StoreUnavailable):
                await bench.store.save([message_row(row, 0)])
            with pytest.raises(StoreUnavailable):
                await long
            assert time.monotonic() - begin < 1.5
            await asyncio.sleep(max(0.0, begin + 1.6 - time.monotonic()))
            assert await bench.store.history(row.id, row.user_id) == []

    asyncio.run(run())


def test_transaction_that_fails_leaves_nothing_and_locks_nobody_out(tmp_path: Path) -> None:
    """What was written before the error is gone, and another process can write at once."""
    file = tmp_path / "voice.db"

    async def run() -> None:
        async with opened(f"sqlite:///{file}") as bench:
            row = await begun(bench)
            with pytest.raises(ParentMissing):
                await bench.store.save([message_row(row, 0), message_row(row, 1, conversation_id=str(uuid4()))])
            other = sqlite3.connect(file, isolation_level=None, timeout=0.0)
            other.execute("begin immediate")
            other.rollback()
            other.close()
            assert await bench.store.history(row.id, row.user_id) == []

    asyncio.run(run())


def test_several_processes_share_an_sqlite_file(tmp_path: Path) -> None:
    """Three workers write to one file at the same time and every row is there."""
    url = f"sqlite:///{tmp_path}/voice.db"

    async def prepare() -> tuple[str, str]:
        async with opened(url) as bench:
            row = await begun(bench)
            return row.id, row.user_id

    async def count(conversation: str, user: str) -> int:
        async with opened(url) as bench:
            return len(await bench.store.history(conversation, user, limit=500))

    conversation, user = asyncio.run(prepare())
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, url, conversation, user, str(number)], cwd=REPOSITORY)
        for number in range(3)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert asyncio.run(count(conversation, user)) == 120


def test_libpq_addresses_are_understood() -> None:
    """What only other clients understand is left out; TLS settings and hosts stay."""
    kept = postgres_arguments("postgres://u:p%40ss@h:5432/d?sslmode=require&channel_binding=require&connect_timeout=9")
    assert kept["dsn"] == "postgresql://u:p%40ss@h:5432/d?sslmode=require"
    assert "statement_cache_size" not in kept
    assert postgres_arguments("postgresql+asyncpg://u@h/d")["dsn"] == "postgresql://u@h/d"
    assert "server_settings" not in postgres_arguments("postgresql://h/d?application_name=mine")


def test_transaction_pooler_gets_no_lasting_statements() -> None:
    """Behind a pooler that shares server connections, no statement is kept between transactions."""
    assert postgres_arguments("postgresql://u@pooler.example:6543/postgres")["statement_cache_size"] == 0
    assert postgres_arguments("postgresql://u@h/d?pgbouncer=true")["statement_cache_size"] == 0


@pytest.mark.postgres
def test_store_works_without_lasting_statements(migrated: str) -> None:
    """Reads and writes work in the mode for transaction poolers."""

    async def run() -> None:
        async with opened(f"{migrated}?pgbouncer=true&sslmode=disable") as bench:
            row = await begun(bench)
            await bench.store.save([message_row(row, n) for n in range(5)])
            assert len(await bench.store.history(row.id, row.user_id)) == 5

    asyncio.run(run())


def test_older_sqlite_file_gets_what_it_lacks(tmp_path: Path) -> None:
    """A file made before a column and an index were thought of is brought up to date, and keeps its rows."""
    url = f"sqlite:///{tmp_path}/voice.db"

    async def seed() -> str:
        async with opened(url) as bench:
            user = await bench.user()
            call = call_of(user, await bench.agent(user))
            await bench.store.put_call(call, token_hash="hash", created_at=START, expires_at=LATER)
            return call.call_sid

    async def read(call_sid: str) -> str | None:
        async with opened(url) as bench:
            stored = await bench.store.call(call_sid)
            return stored.call.auth_token_secret_id if stored else "gone"

    call_sid = asyncio.run(seed())
    with contextlib.closing(sqlite3.connect(tmp_path / "voice.db")) as file:
        file.execute("alter table calls drop column auth_token_secret_id")
        file.execute("drop index calls_created_at_idx")
        file.execute("create table somebody_elses (id text)")
        file.commit()
    assert asyncio.run(read(call_sid)) is None
    with contextlib.closing(sqlite3.connect(tmp_path / "voice.db")) as file:
        assert file.execute("select 1 from sqlite_master where name = 'calls_created_at_idx'").fetchone()


def test_number_is_given_to_another_agent(database_url: str) -> None:
    """Putting a number again changes who answers it; one that is no number, or another's agent, is refused."""

    async def run() -> None:
        async with opened(database_url) as bench:
            user, other = await bench.user(), await bench.user()
            number = PhoneNumber(f"+1{uuid4().int % 10**13:013}", await bench.agent(user), user)
            await bench.store.put_number(number)
            again = PhoneNumber(number.number, await bench.agent(other), other, "AC" + "1" * 32)
            await bench.store.put_number(again)
            assert await bench.store.number(number.number) == again
            with pytest.raises(ParentMissing):
                await bench.store.put_number(PhoneNumber(number.number, again.agent_id, user))
            with pytest.raises(StoreRejected):
                await bench.store.put_number(PhoneNumber("0415 555", number.agent_id, user))

    asyncio.run(run())

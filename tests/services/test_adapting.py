"""docs/adapting.md, run: our names over another product's tables, used by both stores."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cli.local_postgres import LocalServerError
from cli.local_supabase import MIGRATIONS, LocalSupabase
from core.calls import PhoneNumber
from services.sql_store import SqlStore
from services.supabase_client import open_data_client, open_http
from services.supabase_store import SupabaseStore
from services.vault.supabase import VaultKey
from tests.fakes.local_supabase import missing, new_user
from tests.services.store_contract import (
    CONTRACT,
    LATEST,
    Clause,
    begun,
    conversation_row,
    message_row,
    name_of,
    progress_of,
)

pytestmark = pytest.mark.postgres

REPOSITORY = Path(__file__).parent.parent.parent
PAGE = REPOSITORY / "docs" / "adapting.md"

PREDECESSOR = """
create table public.agents (
  id uuid primary key default gen_random_uuid(), user_id uuid not null, name text not null, description text,
  personality text, active boolean default true, system_instructions text, assistant_instructions text,
  metadata jsonb, created_at timestamptz not null default now(), updated_at timestamptz not null default now());
create table public.conversation_sessions (
  id uuid primary key default gen_random_uuid(), conversation_id uuid not null unique, user_id uuid,
  agent_id uuid references public.agents (id), started_at timestamptz default now(), ended_at timestamptz,
  last_active timestamptz default now(), message_count integer default 0, total_tokens_used integer default 0,
  session_state jsonb default '{}', status text default 'active'
    check (status in ('active', 'paused', 'completed', 'abandoned')), title text);
create table public.chat_messages_v2 (
  id uuid primary key default gen_random_uuid(), version text default '2.0',
  conversation_id uuid not null references public.conversation_sessions (conversation_id) on delete cascade,
  session_id uuid not null, sender_user_id uuid, sender_agent_id uuid,
  role text not null check (role in ('system', 'user', 'assistant', 'tool')), content jsonb not null,
  metadata jsonb default '{}', context jsonb default '{}', created_at timestamptz default now(),
  constraint one_sender check (num_nonnulls(sender_user_id, sender_agent_id) = 1),
  constraint typed_content check (content ->> 'type' in ('text', 'structured', 'multimodal', 'tool_result')));
create function public.bump_session() returns trigger language plpgsql as $$
begin
  update public.conversation_sessions set message_count = message_count + 1, last_active = now()
   where conversation_id = new.conversation_id;
  return new;
end $$;
create trigger bump_session after insert on public.chat_messages_v2 for each row execute function public.bump_session();
alter table public.agents enable row level security;
alter table public.conversation_sessions enable row level security;
alter table public.chat_messages_v2 enable row level security;
create policy own on public.agents for all to authenticated using (user_id = auth.uid());
create policy own on public.conversation_sessions for select to authenticated using (user_id = auth.uid());
create policy own on public.chat_messages_v2 for select to authenticated using (exists (
  select 1 from public.conversation_sessions s
   where s.conversation_id = chat_messages_v2.conversation_id and s.user_id = auth.uid()));
grant select on public.agents, public.conversation_sessions, public.chat_messages_v2 to authenticated;
create table public.system_api_keys (
  id uuid primary key default gen_random_uuid(), provider_name text unique not null, display_name text not null,
  vault_secret_id text, is_active boolean default true);
alter table public.system_api_keys enable row level security;
grant select on public.system_api_keys to service_role;
create function public.get_secret(secret_id uuid) returns table (key text)
language sql security definer set search_path = public as $$
  select decrypted_secret from vault.decrypted_secrets where id = secret_id $$;
"""
"""The tables, policies and functions of the predecessor as far as they matter, from its migrations."""

OLD_TALK = """
insert into public.agents (id, user_id, name, system_instructions) values ('{agent}', '{user}', 'Old', 'Be old.');
insert into public.conversation_sessions (conversation_id, user_id, agent_id) values ('{talk}', '{user}', '{agent}');
insert into public.chat_messages_v2 (conversation_id, session_id, sender_user_id, role, content, created_at)
  values ('{talk}', '{talk}', '{user}', 'user', '{{"type": "text", "text": "First."}}', '2026-01-01T00:00:00Z');
insert into public.chat_messages_v2 (conversation_id, session_id, sender_agent_id, role, content, created_at)
  values ('{talk}', '{talk}', '{agent}', 'assistant', '{{"type": "text", "text": "Second."}}', '2026-01-01T00:01:00Z');
"""

OLD = {name: str(uuid4()) for name in ("user", "agent", "talk")}


def new_tables() -> str:
    """Return what section 4 of the page says to copy from the migrations of tables and of calls."""
    text = next(MIGRATIONS.glob("*_voice_tables.sql")).read_text(encoding="utf-8")
    statements = re.findall(r"^create (?:table|index) .*?;$", text, re.MULTILINE | re.DOTALL)
    names = ("phone_numbers", "calls", "deleted_conversation_costs")
    copied = [each for each in statements if re.search(rf"public\.({'|'.join(names)}) \(", each)]
    return "\n".join([*copied, next(MIGRATIONS.glob("*_voice_calls.sql")).read_text(encoding="utf-8")])


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSupabase]:
    """A project with the predecessor's tables, an old talk in them, and then the page's SQL."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("migrations")
    blocks = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    parts = [PREDECESSOR, OLD_TALK.format(**OLD), *blocks[:3], new_tables(), *blocks[3:-2]]
    (folder / "20260101000000_tables.sql").write_text("\n".join(parts), encoding="utf-8")
    (folder / "20260101000001_voice_privileges.sql").write_text("\n".join(blocks[-2:]), encoding="utf-8")
    with LocalSupabase(migrations=folder) as project:
        yield project


THEIR_NAMES = {"instructions": "system_instructions", "is_active": "active"}


class AdaptedBench:
    """A bench over either store, which seeds and reads the predecessor's tables."""

    def __init__(self, store: SqlStore | SupabaseStore, project: LocalSupabase) -> None:
        self.store = store
        self.project = project

    async def user(self) -> str:
        return str(uuid4())

    async def agent(self, user_id: str, **columns: Any) -> str:
        agent_id = str(uuid4())
        row = {"id": agent_id, "user_id": user_id, "name": "Agent"} | columns
        row = {THEIR_NAMES.get(name, name): value for name, value in row.items()}
        names, values = ", ".join(row), f"{quoted(json.dumps(row))}::jsonb"
        filled = f"select {names} from jsonb_populate_record(null::public.agents, {values})"  # noqa: S608 - quoted
        await asyncio.to_thread(self.project.sql, f"insert into public.agents ({names}) {filled}")
        return agent_id

    async def number(self, number: PhoneNumber) -> None:
        row = quoted(json.dumps(asdict(number)))
        names = ", ".join(asdict(number))
        filled = f"select {names} from jsonb_populate_record(null::public.phone_numbers, {row}::jsonb)"  # noqa: S608
        await asyncio.to_thread(self.project.sql, f"insert into public.phone_numbers ({names}) {filled}")

    async def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        condition = " and ".join(f"{name} = {quoted(str(value))}" for name, value in where.items())
        query = f"select coalesce(json_agg(t), '[]') from public.{table} t where {condition}"  # noqa: S608 - quoted
        rows: list[dict[str, Any]] = json.loads(await asyncio.to_thread(self.project.sql, query))
        return rows


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextlib.asynccontextmanager
async def opened(project: LocalSupabase, kind: str) -> AsyncIterator[AdaptedBench]:
    if kind == "sql":
        store = SqlStore.open(project.database_url)
        try:
            yield AdaptedBench(store, project)
        finally:
            await store.close()
    else:
        async with open_http() as http:
            client = open_data_client(project.url, project.service_key, http)
            yield AdaptedBench(SupabaseStore(client), project)


both_stores = pytest.mark.parametrize("kind", ["sql", "supabase"])


@both_stores
@pytest.mark.parametrize("clause", CONTRACT, ids=name_of)
def test_contract_is_kept_over_the_tables_of_another_product(clause: Clause, kind: str, adapted: LocalSupabase) -> None:
    """Every promise of a store holds through the views."""

    async def check() -> None:
        async with opened(adapted, kind) as bench:
            await clause(bench)

    asyncio.run(check())


@both_stores
def test_talk_begun_in_writing_goes_on_by_voice(kind: str, adapted: LocalSupabase) -> None:
    """An old conversation is found with its messages in order and takes new ones behind them."""

    async def check() -> None:
        async with opened(adapted, kind) as bench:
            agent = await bench.store.agent(OLD["agent"], OLD["user"])
            assert agent is not None
            assert (agent.name, agent.instructions) == ("Old", "Be old.")
            assert await bench.store.conversation(OLD["talk"], OLD["user"]) is not None
            history = await bench.store.history(OLD["talk"], OLD["user"])
            assert [(turn.role, turn.content) for turn in history][:2] == [("user", "First."), ("assistant", "Second.")]
            position = await bench.store.next_position(OLD["talk"], OLD["user"])
            row = conversation_row(OLD["user"], OLD["agent"], id=OLD["talk"])
            await bench.store.save([message_row(row, position, item_id=f"item_{kind}", content="By voice.")])
            assert (await bench.store.history(OLD["talk"], OLD["user"], limit=1))[0].content == "By voice."

    asyncio.run(check())


@both_stores
def test_rows_fit_the_other_product(kind: str, adapted: LocalSupabase) -> None:
    """The product's own tables hold what it expects: typed content, one sender, its counters, and the end."""

    async def check() -> None:
        async with opened(adapted, kind) as bench:
            row = await begun(bench)
            ended = progress_of(row, last_active_at=LATEST, ended_at=LATEST, end_reason="idle", turn_count=2)
            await bench.store.save([message_row(row, 0), message_row(row, 1), ended])
            (session,) = await bench.rows("conversation_sessions", conversation_id=row.id)
            assert (session["status"], session["message_count"], session["voice_turn_count"]) == ("completed", 2, 2)
            asked, answered = sorted(
                await bench.rows("chat_messages_v2", conversation_id=row.id), key=lambda each: each["voice_position"]
            )
            assert asked["content"] == {"type": "text", "text": "Sentence 0."}
            assert (asked["sender_user_id"], asked["sender_agent_id"]) == (row.user_id, None)
            assert (answered["sender_user_id"], answered["sender_agent_id"]) == (None, row.agent_id)
            assert (asked["session_id"], asked["context"]["input_method"]) == (row.id, "realtime_voice")
            await bench.store.save([progress_of(row, last_active_at="2026-11-20T12:20:00.000000+00:00")])
            (session,) = await bench.rows("conversation_sessions", conversation_id=row.id)
            assert session["status"] == "active"

    asyncio.run(check())


def test_messages_the_other_product_writes_are_seen(adapted: LocalSupabase) -> None:
    """Text chat goes on beside voice: its messages get a place in the conversation."""

    async def check() -> None:
        async with opened(adapted, "supabase") as bench:
            row = await begun(bench)
            await bench.store.save([message_row(row, 0)])
            columns = "conversation_id, session_id, sender_user_id, role, content"
            values = f"""'{row.id}', '{row.id}', '{row.user_id}', 'user', '{{"type": "text", "text": "Typed."}}'"""
            insert = f"insert into public.chat_messages_v2 ({columns}) values ({values})"  # noqa: S608 - ids of our own
            await asyncio.to_thread(adapted.sql, insert)
            turns = await bench.store.history(row.id, row.user_id)
            assert [(turn.position, turn.content) for turn in turns] == [(0, "Sentence 0."), (1, "Typed.")]

    asyncio.run(check())


def test_users_see_their_own_rows_through_the_views(adapted: LocalSupabase) -> None:
    """The views show a user what the tables' policies show, and a stranger nothing; nobody writes through them."""
    owner, stranger = new_user(adapted), new_user(adapted)

    async def seed() -> None:
        async with opened(adapted, "supabase") as bench:
            row = conversation_row(owner.user_id, await bench.agent(owner.user_id))
            await bench.store.save([row, message_row(row, 0)])

    asyncio.run(seed())
    for table in ("conversations", "messages"):
        seen = [
            adapted.request("GET", f"/rest/v1/{table}?select=id", key=adapted.publishable_key, bearer=who.access_token)
            for who in (owner, stranger)
        ]
        assert [len(rows) for rows in seen] == [1, 0]
        privileges = adapted.sql(
            f"select has_table_privilege('authenticated', 'public.{table}', 'insert'), "
            f"has_table_privilege('anon', 'public.{table}', 'select')"
        )
        assert privileges == "f|f"


def test_key_is_read_with_the_other_products_function(adapted: LocalSupabase) -> None:
    """A Vault id kept as text and their get_secret give the key; strangers may not execute it any more."""
    adapted.set_openai_key("sk-test-of-the-other-product")

    async def check() -> str:
        async with open_http() as http:
            return await VaultKey(open_data_client(adapted.url, adapted.service_key, http)).key()

    assert asyncio.run(check()) == "sk-test-of-the-other-product"
    allowed = "select has_function_privilege('anon', 'public.get_secret(uuid)', 'execute')"
    assert adapted.sql(allowed) == "f"


def test_page_quotes_what_postgresql_says_of_other_triggers(adapted: LocalSupabase) -> None:
    """A view with an INSTEAD OF trigger cannot take the server's inserts, with the words the page quotes."""
    adapted.sql(
        "create view public.other as select id from public.agents; "
        "create function public.other() returns trigger language plpgsql as 'begin return new; end'; "
        "create trigger other instead of insert on public.other for each row execute function public.other()"
    )
    words = "there is no unique or exclusion constraint matching the ON CONFLICT specification"
    with pytest.raises(LocalServerError, match=words):
        adapted.sql("insert into public.other values (gen_random_uuid()) on conflict (id) do nothing")
    assert words in PAGE.read_text(encoding="utf-8")

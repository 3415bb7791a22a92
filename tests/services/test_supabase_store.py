"""The Supabase store against a local project: the contract, by function and by table, and what HTTP can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any
from uuid import uuid4

import httpx
import pytest
from postgrest import AsyncPostgrestClient

from cli.local_postgres import free_port
from cli.local_supabase import LocalSupabase
from core.calls import PhoneNumber
from core.records import ConversationRow
from services.store import ParentMissing, StoreError, StoreRejected, StoreUnavailable
from services.supabase_client import open_data_client, open_http
from services.supabase_store import PAGE_ROWS, SupabaseStore
from tests.fakes.local_supabase import new_user, project
from tests.fakes.scripted_http import Answer, ScriptedHttp
from tests.services.store_contract import (
    CONTRACT,
    LATER,
    START,
    Clause,
    begun,
    conversation_row,
    message_row,
    name_of,
    progress_of,
)

__all__ = ["project"]


class SupabaseBench:
    """A bench over a SupabaseStore; seeds and reads through the database itself, past the API."""

    def __init__(self, store: SupabaseStore, project: LocalSupabase) -> None:
        self.store = store
        self.project = project

    async def user(self) -> str:
        return (await asyncio.to_thread(new_user, self.project)).user_id

    async def agent(self, user_id: str, **columns: Any) -> str:
        agent_id = str(uuid4())
        row = {"id": agent_id, "user_id": user_id, **columns}
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
async def opened(project: LocalSupabase, **options: Any) -> AsyncIterator[SupabaseBench]:
    async with open_http() as http:
        yield SupabaseBench(SupabaseStore(open_data_client(project.url, project.service_key, http), **options), project)


@pytest.mark.postgres
@pytest.mark.parametrize("clause", CONTRACT, ids=name_of)
def test_supabase_store_keeps_the_contract(clause: Clause, project: LocalSupabase) -> None:
    """The clause holds through the data API."""

    async def check() -> None:
        async with opened(project) as bench:
            await clause(bench)

    asyncio.run(check())


class WithoutFunctions(AsyncPostgrestClient):
    """A client of a project that has the tables but not our functions; the answers are the project's own."""

    def rpc(self, func: str, *args: Any, **options: Any) -> Any:
        return super().rpc(f"{func}_that_is_not_there", *args, **options)


@pytest.mark.postgres
@pytest.mark.parametrize("clause", CONTRACT, ids=name_of)
def test_contract_is_kept_table_by_table(clause: Clause, project: LocalSupabase) -> None:
    """Where save_records and cost_since are missing, plain inserts and updates keep the same promises."""

    async def check() -> None:
        async with open_http() as http:
            client = WithoutFunctions(
                f"{project.url}/rest/v1", headers={"apikey": project.service_key}, http_client=http, retry_enabled=False
            )
            await clause(SupabaseBench(SupabaseStore(client), project))

    asyncio.run(check())


@pytest.mark.postgres
def test_half_stored_batch_is_completed_by_sending_it_again(project: LocalSupabase) -> None:
    """Table by table a failure may leave the first kinds stored; the same records again give the whole."""

    async def run() -> None:
        async with opened(project) as bench:
            user = await bench.user()
            row = conversation_row(user, await bench.agent(user))
            batch = [row, message_row(row, 0), progress_of(row, turn_count=1), message_row(row, 1)]
            await bench.store.save(batch[:2])
            await bench.store.save(batch)
            await bench.store.save(batch)
            assert len(await bench.rows("messages", conversation_id=row.id)) == 2
            found = await bench.store.conversation(row.id, user)
            assert found is not None
            assert found.turn_count == 1

    asyncio.run(run())


@pytest.mark.postgres
def test_two_users_at_once_see_their_own_rows_only(project: LocalSupabase) -> None:
    """Interleaved calls for two users on one client never mix, whoever signs in beside it on the same connections."""

    async def run() -> None:
        async with opened(project) as bench:
            rows = [await begun(bench), await begun(bench)]
            for number, row in enumerate(rows):
                await bench.store.save([message_row(row, 0, content=f"Words of {number}.")])
            signed_in = await asyncio.to_thread(new_user, project)
            client = bench.store._client
            headers = dict(client.headers)
            per_user = AsyncPostgrestClient(
                f"{project.url}/rest/v1",
                headers={"apikey": project.publishable_key, "Authorization": f"Bearer {signed_in.access_token}"},
                http_client=client.session,
                retry_enabled=False,
            )

            async def talk(mine: int) -> None:
                own, other = rows[mine], rows[1 - mine]
                for _ in range(10):
                    history = await bench.store.history(own.id, own.user_id)
                    assert [turn.content for turn in history] == [f"Words of {mine}."]
                    assert await bench.store.history(other.id, own.user_id) == []
                    assert await bench.store.agent(other.agent_id, own.user_id) is None
                    assert (await per_user.from_("messages").select("id").execute()).data == []

            await asyncio.gather(talk(0), talk(1))
            assert dict(client.headers) == headers
            assert "authorization" not in client.session.headers

    asyncio.run(run())


@pytest.mark.postgres
def test_wrong_service_key_says_what_to_do(project: LocalSupabase) -> None:
    """A key the project does not know is not the row's fault, and the operator is told where to look."""

    async def run() -> None:
        async with open_http() as http:
            store = SupabaseStore(open_data_client(project.url, "sb_secret_wrong", http))
            with pytest.raises(StoreUnavailable, match="service key"):
                await store.ping()

    asyncio.run(run())


@pytest.mark.postgres
def test_publishable_key_in_the_place_of_the_service_key_is_noticed(project: LocalSupabase) -> None:
    """With the key of browsers nothing is permitted, and the error says so instead of everything looking empty."""

    async def run() -> None:
        async with open_http() as http:
            store = SupabaseStore(open_data_client(project.url, project.publishable_key, http))
            with pytest.raises(StoreUnavailable, match="privileges"):
                await store.ping()

    asyncio.run(run())


def answered(answer: Answer, call: Callable[[SupabaseStore], Awaitable[Any]]) -> tuple[Any, ScriptedHttp]:
    """Return what a call gives, or raises, when the data API gives this answer to everything."""

    async def run(url: str) -> Any:
        async with open_http() as http:
            try:
                return await call(SupabaseStore(open_data_client(url, "sb_secret_test", http), timeout_s=0.5))
            except StoreError as error:
                return error

    with ScriptedHttp() as server:
        for path in ("agents", "conversations", "messages", "rpc/save_records", "rpc/cost_since"):
            server.answers[f"/rest/v1/{path}"] = answer
        return asyncio.run(run(server.url)), server


def of_nobody() -> ConversationRow:
    return conversation_row(str(uuid4()), str(uuid4()))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (409, {"code": "23503", "message": "m", "details": "secret row"}, ParentMissing),
        (400, {"code": "23514", "message": "m", "details": "secret row"}, StoreRejected),
        (409, {"code": "23505", "message": "secret row", "details": "secret row"}, StoreRejected),
        (400, {"code": "22P05", "message": "secret row"}, StoreRejected),
        (400, {"code": "54000", "message": "secret row"}, StoreRejected),
        (400, {"code": "SUP", "message": "secret row"}, StoreRejected),
        (413, "secret row", StoreRejected),
        (403, {"code": "42501", "message": "m", "hint": "secret row"}, StoreUnavailable),
        (400, {"code": "PGRST204", "message": "secret row"}, StoreUnavailable),
        (404, {"code": "PGRST205", "message": "secret row"}, StoreUnavailable),
        (503, {"code": "PGRST002", "message": "m"}, StoreUnavailable),
        (500, {"code": "53100", "message": "disk full"}, StoreUnavailable),
        (503, {"code": "57P03", "message": "starting up"}, StoreUnavailable),
        (401, {"message": "Invalid API key", "hint": "secret row"}, StoreUnavailable),
        (502, "<html>secret row</html>", StoreUnavailable),
        (200, "<html>a page of some other server</html>", StoreUnavailable),
        (301, "secret row", StoreUnavailable),
    ],
)
def test_refusals_are_sorted_and_never_repeat_the_row(status: int, body: Any, error: type[Exception]) -> None:
    """What the row can never mend is rejected, all else may be tried again, and no text of the answer gets out."""
    outcome, _ = answered(Answer(status, body), lambda store: store.save([of_nobody()]))
    assert type(outcome) is error
    assert "secret row" not in f"{outcome} {outcome!r}"
    assert outcome.__cause__ is None
    assert outcome.__suppress_context__ or outcome.__context__ is None


def test_page_of_html_is_no_list_of_rows() -> None:
    """A read that some other server answers with status 200 is an error, not an empty list."""
    outcome, _ = answered(Answer(200, "<html></html>"), lambda store: store.agents(str(uuid4())))
    assert isinstance(outcome, StoreUnavailable)


def test_silent_data_api_is_given_up_at_the_deadline() -> None:
    """A call that gets no answer ends with StoreUnavailable and is not sent twice."""
    outcome, server = answered(Answer(is_silent=True), lambda store: store.save([of_nobody()]))
    assert isinstance(outcome, StoreUnavailable)
    assert server.count("/rest/v1/rpc/save_records") == 1


def test_broken_connection_is_tried_once_more() -> None:
    """A connection that breaks before the answer costs a second request and no error."""
    replies = iter([Answer(breaks=True), Answer(204)])

    async def run(url: str) -> None:
        async with open_http() as http:
            await SupabaseStore(open_data_client(url, "sb_secret_test", http)).save([of_nobody()])

    with ScriptedHttp({"/rest/v1/rpc/save_records": lambda _: next(replies)}) as server:
        asyncio.run(run(server.url))
        assert server.count("/rest/v1/rpc/save_records") == 2


def test_refused_connections_are_unavailable() -> None:
    """With nobody listening the store says so within its deadline."""

    async def run() -> None:
        async with open_http() as http:
            store = SupabaseStore(open_data_client(f"http://127.0.0.1:{free_port()}", "sb_secret_test", http))
            with pytest.raises(StoreUnavailable, match="ConnectError"):
                await store.ping()

    asyncio.run(run())


def test_every_read_names_the_owner() -> None:
    """No query of the service role goes out without the user's id."""
    user, other = str(uuid4()), str(uuid4())
    seen: list[str] = []

    async def note(request: httpx.Request) -> None:
        seen.append(str(request.url))

    async def run(url: str) -> None:
        async with open_http() as http:
            http.event_hooks["request"].append(note)
            store = SupabaseStore(open_data_client(url, "sb_secret_test", http))
            await store.agent(other, user)
            await store.agents(user)
            await store.conversation(other, user)
            await store.history(other, user)
            await store.next_position(other, user)

    with ScriptedHttp() as server:
        for table in ("agents", "conversations", "messages"):
            server.answers[f"/rest/v1/{table}"] = Answer(200, [])
        asyncio.run(run(server.url))
    assert len(seen) == 5
    assert all(f"user_id=eq.{user}" in url for url in seen)


def test_ids_that_are_none_never_reach_the_query() -> None:
    """Text that is no UUID finds nothing and is not sent, so it cannot bend a filter either."""

    async def calls(store: SupabaseStore) -> list[Any]:
        bad = "x,or=(id.neq.0)"
        return [
            await store.agent(bad, bad),
            await store.agents(bad),
            await store.conversation(bad, bad),
            await store.history(bad, bad),
            await store.next_position(bad, bad),
            await store.cost_since(bad, START),
        ]

    outcome, server = answered(Answer(500), calls)
    assert outcome == [None, [], None, [], 0, 0.0]
    assert server.received == []


def test_cost_is_added_up_page_by_page_without_the_function() -> None:
    """More conversations than one answer holds are all counted."""
    pages = iter([[{"cost_usd": "0.001"}] * PAGE_ROWS, [{"cost_usd": 0.5}, {"cost_usd": None}]])

    async def run(url: str) -> float:
        async with open_http() as http:
            return await SupabaseStore(open_data_client(url, "sb_secret_test", http)).cost_since(str(uuid4()), LATER)

    with ScriptedHttp() as server:
        server.answers["/rest/v1/rpc/cost_since"] = Answer(404, {"code": "PGRST202", "message": "m"})
        server.answers["/rest/v1/conversations"] = lambda _: Answer(200, next(pages))
        assert asyncio.run(run(server.url)) == pytest.approx(1.5)


def test_missing_function_is_not_called_with_every_batch() -> None:
    """Where save_records is missing it is looked for once in five minutes, not with each save."""

    async def run(url: str) -> None:
        async with open_http() as http:
            store = SupabaseStore(open_data_client(url, "sb_secret_test", http))
            for _ in range(5):
                await store.save([of_nobody()])

    with ScriptedHttp() as server:
        server.answers["/rest/v1/rpc/save_records"] = Answer(404, {"code": "PGRST202", "message": "m"})
        server.answers["/rest/v1/conversations"] = Answer(201)
        asyncio.run(run(server.url))
        assert server.count("/rest/v1/rpc/save_records") == 1
        assert server.count("/rest/v1/conversations") == 5

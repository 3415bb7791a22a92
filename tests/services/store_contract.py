"""What every Store promises, as async functions that are given a `Bench`: a store, and a hand in its database.

A test file for one kind of store makes the bench and runs every clause of `CONTRACT` with an empty database, or with
users of its own:

    @pytest.mark.parametrize("clause", CONTRACT, ids=name_of)
    def test_store_keeps_the_contract(clause):
        asyncio.run(run(clause))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol
from uuid import uuid4

import pytest

from core.calls import Call, PhoneNumber
from core.records import (
    OPEN,
    ConversationProgress,
    ConversationRow,
    ConversationSearch,
    DayCost,
    MessageRow,
    StoredConversation,
    Turn,
)
from services.store import ParentMissing, Store, StoreRejected


class Bench(Protocol):
    """A store to test, and what the suite needs beside it."""

    store: Store

    async def user(self) -> str:
        """Make a user where the database keeps users, and return a fresh id."""

    async def agent(self, user_id: str, **columns: Any) -> str:
        """Store an agent of the user with these columns and defaults for the rest; return its id."""

    async def number(self, number: PhoneNumber) -> None:
        """Store a phone number."""

    async def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Return the rows of a table whose columns equal the values given, past all ownership."""


Clause = Callable[[Bench], Awaitable[None]]

CONTRACT: list[Clause] = []

START = "2026-11-20T12:00:00.000000+00:00"
LATER = "2026-11-20T12:05:00.000000+00:00"
LATEST = "2026-11-20T12:10:00.000000+00:00"


def clause(function: Clause) -> Clause:
    CONTRACT.append(function)
    return function


def name_of(function: Clause) -> str:
    """Return the clause's name, for pytest's ids."""
    return function.__name__


def conversation_row(user_id: str, agent_id: str, **changes: Any) -> ConversationRow:
    row = ConversationRow(
        id=str(uuid4()), user_id=user_id, agent_id=agent_id, channel="browser", started_at=START, title="A talk"
    )
    return replace(row, **changes)


def message_row(of: ConversationRow, position: int, **changes: Any) -> MessageRow:
    row = MessageRow(
        id=str(uuid4()),
        conversation_id=of.id,
        user_id=of.user_id,
        item_id=f"item_{position}",
        position=position,
        role="user" if position % 2 == 0 else "assistant",
        content=f"Sentence {position}.",
        status="complete",
        heard_ms=None,
        spoken_ms=None,
        metadata={},
        created_at=START,
    )
    return replace(row, **changes)


def progress_of(of: ConversationRow, **changes: Any) -> ConversationProgress:
    progress = ConversationProgress(
        id=of.id, user_id=of.user_id, last_active_at=LATER, turn_count=2, usage={"total_tokens": 321}, cost_usd=0.012345
    )
    return replace(progress, **changes)


async def begun(bench: Bench) -> ConversationRow:
    """Store a conversation of a new user with a new agent."""
    user = await bench.user()
    row = conversation_row(user, await bench.agent(user))
    await bench.store.save([row])
    return row


@clause
async def owner_reads_the_agent_as_it_was_configured(bench: Bench) -> None:
    """The agent comes back with every column that its owner set."""
    user = await bench.user()
    secret = str(uuid4())
    agent_id = await bench.agent(
        user,
        name="Ada",
        instructions="Be brief. Ünïcödé ☎",
        voice="cedar",
        speed=1.25,
        max_output_tokens=500,
        turn_detection={"type": "semantic_vad"},
        tools=[{"builtin": "end_call"}],
        knowledge=[{"vector_store_id": "vs_1"}],
        call_settings={"silence_timeout_s": 4},
        client_may=["speed"],
        api_key_secret_id=secret,
    )
    agent = await bench.store.agent(agent_id, user)
    assert agent is not None
    assert (agent.id, agent.user_id, agent.name, agent.instructions) == (agent_id, user, "Ada", "Be brief. Ünïcödé ☎")
    assert (agent.style.voice, agent.style.speed, agent.max_output_tokens) == ("cedar", 1.25, 500)
    assert agent.turn_detection == {"type": "semantic_vad"}
    assert [tool.name for tool in agent.tools] == ["end_call"]
    assert [source.vector_store_id for source in agent.knowledge] == ["vs_1"]
    assert (agent.call_settings.silence_timeout_s, agent.client_may) == (4.0, frozenset({"speed"}))
    assert (agent.api_key_secret_id, agent.repaired) == (secret, ())


@clause
async def agent_with_nothing_set_has_the_defaults(bench: Bench) -> None:
    """A row that has only an owner is a complete agent."""
    user = await bench.user()
    agent = await bench.store.agent(await bench.agent(user), user)
    assert agent is not None
    assert (agent.style.voice, agent.style.speed, agent.tools, agent.model) == ("alloy", 1.0, (), "")
    assert (agent.max_output_tokens, agent.turn_detection, agent.api_key_secret_id, agent.repaired) == (None,) * 3 + (
        (),
    )


@clause
async def agent_of_another_user_is_not_found(bench: Bench) -> None:
    """Somebody else's agent, an unknown one and an id that is no UUID all look the same."""
    owner, stranger = await bench.user(), await bench.user()
    agent_id = await bench.agent(owner)
    assert await bench.store.agent(agent_id, stranger) is None
    assert await bench.store.agent(str(uuid4()), owner) is None
    assert await bench.store.agent("not-a-uuid", owner) is None


@clause
async def inactive_agent_is_not_found(bench: Bench) -> None:
    """An agent that its owner switched off takes no calls and is in no list."""
    user = await bench.user()
    agent_id = await bench.agent(user, is_active=False)
    assert await bench.store.agent(agent_id, user) is None
    assert await bench.store.agents(user) == []


@clause
async def agents_are_listed_by_name_for_their_owner_only(bench: Bench) -> None:
    """The list holds the user's active agents, ordered by name."""
    user, other = await bench.user(), await bench.user()
    for name in ("Carol", "Alice", "Bob"):
        await bench.agent(user, name=name)
    await bench.agent(other, name="Mallory")
    assert [agent.name for agent in await bench.store.agents(user)] == ["Alice", "Bob", "Carol"]


@clause
async def at_most_a_hundred_agents_are_listed(bench: Bench) -> None:
    """A user with very many agents gets the first hundred."""
    user = await bench.user()
    for number in range(103):
        await bench.agent(user, name=f"Agent {number:03}")
    listed = await bench.store.agents(user)
    assert [agent.name for agent in listed] == [f"Agent {number:03}" for number in range(100)]


@clause
async def new_conversation_is_found_by_its_owner_only(bench: Bench) -> None:
    """A saved conversation has no figures yet, and does not exist for anybody else."""
    row = await begun(bench)
    found = await bench.store.conversation(row.id, row.user_id)
    assert found == StoredConversation(row.id, row.user_id, row.agent_id, "browser", 0, {}, 0.0)
    assert await bench.store.conversation(row.id, await bench.user()) is None
    assert await bench.store.conversation(str(uuid4()), row.user_id) is None
    assert await bench.store.conversation("not-a-uuid", row.user_id) is None


@clause
async def conversation_is_stored_with_all_columns(bench: Bench) -> None:
    """Channel, call and title of a conversation are in its row."""
    user = await bench.user()
    row = conversation_row(user, await bench.agent(user), channel="phone", call_sid="CA1", title=None)
    await bench.store.save([row])
    (stored,) = await bench.rows("conversations", id=row.id)
    assert (stored["channel"], stored["call_sid"], stored["title"], stored["ended_at"]) == ("phone", "CA1", None, None)


@clause
async def history_is_the_last_turns_in_order(bench: Bench) -> None:
    """History gives the newest turns, oldest of them first, in conversation order whatever the order of arrival."""
    row = await begun(bench)
    await bench.store.save([message_row(row, position) for position in (3, 0, 4, 1, 2)])
    turns = await bench.store.history(row.id, row.user_id, limit=3)
    assert [(turn.position, turn.content) for turn in turns] == [(n, f"Sentence {n}.") for n in (2, 3, 4)]
    assert len(await bench.store.history(row.id, row.user_id)) == 5


@clause
async def turn_comes_back_as_it_was_saved(bench: Bench) -> None:
    """Status, what was heard and metadata survive, text in any script too."""
    row = await begun(bench)
    content = "Grüße 你好 مرحبا 🎧 'quoted' \"twice\" \\u0000 %s {} \n two lines"
    message = message_row(
        row,
        0,
        role="assistant",
        content=content,
        status="interrupted",
        heard_ms=640,
        spoken_ms=1800,
        metadata={"tool": "end_call", "deep": {"list": [1, 2.5, None, True, "ß"]}},
    )
    await bench.store.save([message])
    (turn,) = await bench.store.history(row.id, row.user_id)
    assert turn == Turn(
        "item_0",
        0,
        "assistant",
        content,
        "interrupted",
        640,
        1800,
        {"tool": "end_call", "deep": {"list": [1, 2.5, None, True, "ß"]}},
    )


@clause
async def history_of_another_user_is_empty(bench: Bench) -> None:
    """Nobody reads somebody else's turns or learns how many there are."""
    row = await begun(bench)
    await bench.store.save([message_row(row, 0)])
    stranger = await bench.user()
    assert await bench.store.history(row.id, stranger) == []
    assert await bench.store.next_position(row.id, stranger) == 0


@clause
async def next_position_follows_the_highest(bench: Bench) -> None:
    """A resumed conversation goes on one above its highest position, gaps or not."""
    row = await begun(bench)
    assert await bench.store.next_position(row.id, row.user_id) == 0
    await bench.store.save([message_row(row, 0), message_row(row, 7)])
    assert await bench.store.next_position(row.id, row.user_id) == 8


@clause
async def batch_saved_twice_is_stored_once(bench: Bench) -> None:
    """Sending a whole batch again, as after a lost reply, changes nothing."""
    user = await bench.user()
    row = conversation_row(user, await bench.agent(user))
    batch = [row, message_row(row, 0), progress_of(row), message_row(row, 1), progress_of(row, turn_count=3)]
    await bench.store.save(batch)
    await bench.store.save(batch)
    assert len(await bench.rows("messages", conversation_id=row.id)) == 2
    found = await bench.store.conversation(row.id, user)
    assert found is not None
    assert (found.turn_count, found.usage, found.cost_usd) == (3, {"total_tokens": 321}, 0.012345)


@clause
async def second_message_of_an_item_is_ignored(bench: Bench) -> None:
    """The first row of an item stays, even when a later one has another id and other words."""
    row = await begun(bench)
    await bench.store.save([message_row(row, 0)])
    await bench.store.save([message_row(row, 0, content="Something else."), message_row(row, 1)])
    turns = await bench.store.history(row.id, row.user_id)
    assert [turn.content for turn in turns] == ["Sentence 0.", "Sentence 1."]


@clause
async def saved_conversation_is_left_alone(bench: Bench) -> None:
    """A conversation row that arrives again does not reset the figures."""
    row = await begun(bench)
    await bench.store.save([progress_of(row)])
    await bench.store.save([row])
    found = await bench.store.conversation(row.id, row.user_id)
    assert found is not None
    assert found.turn_count == 2


@clause
async def progress_overwrites_the_figures(bench: Bench) -> None:
    """Progress holds totals: the later one replaces the earlier, and a resume takes the end back."""
    row = await begun(bench)
    await bench.store.save([progress_of(row, ended_at=LATER, end_reason="idle")])
    (stored,) = await bench.rows("conversations", id=row.id)
    assert stored["ended_at"] is not None
    assert stored["end_reason"] == "idle"
    await bench.store.save([progress_of(row, last_active_at=LATEST, turn_count=9, cost_usd=0.5, usage={"b": 1})])
    (stored,) = await bench.rows("conversations", id=row.id)
    assert (stored["turn_count"], float(stored["cost_usd"]), stored["usage"]) == (9, 0.5, {"b": 1})
    assert (stored["ended_at"], stored["end_reason"]) == (None, None)


@clause
async def delayed_progress_does_not_undo_a_later_one(bench: Bench) -> None:
    """Progress from an adopted spool, older than what is stored, changes nothing."""
    row = await begun(bench)
    await bench.store.save([progress_of(row, last_active_at=LATEST, turn_count=9)])
    await bench.store.save([progress_of(row, last_active_at=LATER, turn_count=4)])
    found = await bench.store.conversation(row.id, row.user_id)
    assert found is not None
    assert found.turn_count == 9


@clause
async def progress_of_a_conversation_that_is_not_ones_own_changes_nothing(bench: Bench) -> None:
    """Another user's figures cannot be overwritten, and a deleted conversation is no error."""
    row = await begun(bench)
    stranger = await bench.user()
    await bench.store.save([progress_of(row, user_id=stranger, turn_count=99), progress_of(row, id=str(uuid4()))])
    found = await bench.store.conversation(row.id, row.user_id)
    assert found is not None
    assert found.turn_count == 0


@clause
async def message_for_another_users_conversation_is_rejected(bench: Bench) -> None:
    """A message that names a conversation of somebody else is not stored."""
    row = await begun(bench)
    stranger = await bench.user()
    with pytest.raises(StoreRejected):
        await bench.store.save([message_row(row, 0, user_id=stranger)])
    assert await bench.rows("messages", conversation_id=row.id) == []


@clause
async def conversation_with_another_users_agent_is_rejected(bench: Bench) -> None:
    """A conversation cannot be held with an agent of somebody else."""
    owner, stranger = await bench.user(), await bench.user()
    row = conversation_row(stranger, await bench.agent(owner))
    with pytest.raises(StoreRejected):
        await bench.store.save([row])
    assert await bench.rows("conversations", id=row.id) == []


@clause
async def conversation_id_of_another_user_is_not_taken_over(bench: Bench) -> None:
    """A conversation row with an id in use changes nothing, and its messages are rejected."""
    row = await begun(bench)
    thief = await bench.user()
    stolen = conversation_row(thief, await bench.agent(thief), id=row.id)
    with pytest.raises(StoreRejected):
        await bench.store.save([stolen, message_row(stolen, 0)])
    (stored,) = await bench.rows("conversations", id=row.id)
    assert str(stored["user_id"]) == row.user_id


@clause
async def message_without_its_conversation_says_so(bench: Bench) -> None:
    """A message whose conversation is not there yet raises ParentMissing, and fits once it is there."""
    user = await bench.user()
    row = conversation_row(user, await bench.agent(user))
    with pytest.raises(ParentMissing):
        await bench.store.save([message_row(row, 0)])
    await bench.store.save([row, message_row(row, 0)])
    assert len(await bench.store.history(row.id, user)) == 1


@clause
async def refused_row_leaves_nothing_of_its_batch(bench: Bench) -> None:
    """A batch is one transaction: rows before and after a bad one are not stored."""
    row = await begun(bench)
    batch = [message_row(row, 0), message_row(row, 1, role="narrator"), message_row(row, 2)]
    with pytest.raises(StoreRejected):
        await bench.store.save(batch)
    assert await bench.rows("messages", conversation_id=row.id) == []


@clause
async def rows_that_can_never_fit_are_rejected_without_their_words(bench: Bench) -> None:
    """Every kind of nonsense is StoreRejected, and no error repeats what the row says."""
    row = await begun(bench)
    secret = "very private words"
    bad = [
        message_row(row, 0, role="narrator", content=secret),
        message_row(row, 0, status="lost", content=secret),
        message_row(row, -1, content=secret),
        message_row(row, 0, id="not-a-uuid", content=secret),
        message_row(row, 0, created_at="yesterday", content=secret),
        message_row(row, 0, metadata={"number": float("nan"), "text": secret}),
        message_row(row, 0, content=f"{secret} \ud800"),
        progress_of(row, cost_usd=-1.0, end_reason=secret),
        conversation_row(row.user_id, row.agent_id, channel="fax", title=secret),
    ]
    for record in bad:
        with pytest.raises(StoreRejected) as caught:
            await bench.store.save([record])
        assert secret not in f"{caught.value!s} {caught.value!r}"
    assert await bench.rows("messages", conversation_id=row.id) == []


@clause
async def empty_batch_is_no_error(bench: Bench) -> None:
    """Saving nothing succeeds."""
    await bench.store.save([])


@clause
async def cost_counts_conversations_active_since(bench: Bench) -> None:
    """The cost is the sum over the user's conversations active at or after the time, and over nobody else's."""
    user, other = await bench.user(), await bench.user()
    agent_id, other_agent = await bench.agent(user), await bench.agent(other)
    assert await bench.store.cost_since(user, START) == 0.0
    for owner, agent, at, cost in (
        (user, agent_id, LATER, 0.25),
        (user, agent_id, LATEST, 0.5),
        (other, other_agent, LATEST, 8.0),
    ):
        row = conversation_row(owner, agent)
        await bench.store.save([row, progress_of(row, last_active_at=at, cost_usd=cost)])
    assert await bench.store.cost_since(user, START) == pytest.approx(0.75)
    assert await bench.store.cost_since(user, LATEST) == pytest.approx(0.5)
    assert await bench.store.cost_since(user, "2026-11-20T13:05:00+01:00") == pytest.approx(0.75)
    assert await bench.store.cost_since(user, "2026-11-21T00:00:00+00:00") == 0.0


@clause
async def operator_finds_conversations_of_everybody(bench: Bench) -> None:
    """Conversations are found by id, call, agent, owner, status and time, those active last first, and whole."""
    user, other = await bench.user(), await bench.user()
    agent_id, other_agent = await bench.agent(user, name="Ada"), await bench.agent(other)
    sid = f"CA{uuid4().hex}"
    first = conversation_row(user, agent_id, channel="phone", call_sid=sid)
    second, third = conversation_row(user, agent_id), conversation_row(other, other_agent)
    ended = progress_of(first, ended_at=LATER, end_reason="agent_ended", cost_usd=0.25)
    await bench.store.save([first, second, third, ended, progress_of(second, last_active_at=LATEST)])

    async def found(**fields: Any) -> list[str]:
        return [row.id for row in await bench.store.conversations(ConversationSearch(**fields))]

    assert await found(agent_id=agent_id) == [second.id, first.id]
    assert await found(user_id=other) == [third.id]
    assert await found(id=third.id) == [third.id]
    assert await found(id=sid) == [first.id]
    assert await found(agent_id=agent_id, status="agent_ended") == [first.id]
    assert await found(agent_id=agent_id, status=OPEN) == [second.id]
    assert await found(agent_id=agent_id, before=LATEST) == [first.id]
    assert await found(agent_id=agent_id, limit=1) == [second.id]
    assert await found(agent_id=agent_id, status="drain") == await found(id="nothing") == await found(user_id="x") == []
    (row,) = await bench.store.conversations(ConversationSearch(id=first.id))
    assert (row.agent_name, row.channel, row.call_sid, row.end_reason) == ("Ada", "phone", sid, "agent_ended")
    assert (row.started_at, row.last_active_at, row.ended_at) == (START, LATER, LATER)
    assert (row.user_id, row.turn_count, row.usage, row.cost_usd) == (user, 2, {"total_tokens": 321}, 0.25)


@clause
async def operator_sees_the_cost_of_each_day(bench: Bench) -> None:
    """Cost and number of conversations are added up over all users by the UTC day they were last active."""
    year = 2100 + uuid4().int % 7000  # of this run alone: the suite may run twice on one database
    days = ((f"{year}-05-01T23:59:59.999999+00:00", 0.25), (f"{year}-05-03T00:00:00+00:00", 0.5))
    for day, cost in (*days, (f"{year}-05-03T01:30:00+02:00", 1.0)):  # the last is 23:30 of the second, in UTC
        row = await begun(bench)
        await bench.store.save([progress_of(row, last_active_at=day, cost_usd=cost)])

    async def costs(since: str) -> list[DayCost]:
        return [day for day in await bench.store.cost_by_day(since) if day.day.startswith(f"{year}-05")]

    assert await costs(f"{year}-05-01T00:00:00+00:00") == [
        DayCost(f"{year}-05-01", 1, 0.25), DayCost(f"{year}-05-02", 1, 1.0), DayCost(f"{year}-05-03", 1, 0.5),
    ]  # fmt: skip
    assert len(await costs(f"{year}-05-02T00:00:00+00:00")) == 2
    assert await costs(f"{year}-06-01T00:00:00+00:00") == []


@clause
async def many_callers_at_once_are_all_served(bench: Bench) -> None:
    """Thirty callers share the few connections, each with a batch of its own."""
    row = await begun(bench)
    await asyncio.gather(*(bench.store.save([message_row(row, position)]) for position in range(30)))
    turns = await bench.store.history(row.id, row.user_id, limit=50)
    assert [turn.position for turn in turns] == list(range(30))


@clause
async def ping_returns_when_the_database_answers(bench: Bench) -> None:
    """A reachable database answers the ping."""
    await bench.store.ping()


def sid() -> str:
    return f"CA{uuid4().hex}"


def call_of(user_id: str, agent_id: str, **changes: Any) -> Call:
    call = Call(sid(), agent_id, user_id, "AC" + "a" * 32, "+14155550100", "+14155550199", {"greeting": "Hallo ☎"})
    return replace(call, **changes)


async def waiting(bench: Bench, **changes: Any) -> Call:
    """Store a call of a new user that waits from START to LATER, with the token hash "hash"."""
    user = await bench.user()
    call = call_of(user, await bench.agent(user), **changes)
    assert await bench.store.put_call(call, token_hash="hash", created_at=START, expires_at=LATER)
    return call


@clause
async def number_leads_to_its_agent(bench: Bench) -> None:
    """A number says which agent answers and whose token signs; an unknown number is None."""
    user = await bench.user()
    number = PhoneNumber(f"+1{uuid4().int % 10**13:013}", await bench.agent(user), user, "AC" + "b" * 32, str(uuid4()))
    await bench.number(number)
    assert await bench.store.number(number.number) == number
    assert await bench.store.number("+19999999999") is None
    assert await bench.store.number("nonsense,or=(number.neq.0)") is None


@clause
async def waiting_call_is_claimed_once_with_everything_in_it(bench: Bench) -> None:
    """The first claim with the token gets the whole call; the second gets nothing."""
    call = await waiting(bench, auth_token_secret_id=str(uuid4()), config={"call_settings": {"silence_timeout_s": 4}})
    assert await bench.store.claim_call(call.call_sid, token_hash="hash", now=START) == call
    assert await bench.store.claim_call(call.call_sid, token_hash="hash", now=START) is None
    stored = await bench.store.call(call.call_sid)
    assert stored is not None
    assert (stored.call, stored.created_at, stored.expires_at, stored.claimed_at) == (call, START, LATER, START)
    assert (stored.ended_at, stored.end_reason) == (None, None)


@clause
async def claims_that_do_not_fit_are_refused(bench: Bench) -> None:
    """A wrong token, none, one in another case, a late claim and an unknown call get nothing and change nothing."""
    call = await waiting(bench)
    for token_hash, now in (("other", START), (None, START), ("HASH", START), ("hash", LATER), ("hash", LATEST)):
        assert await bench.store.claim_call(call.call_sid, token_hash=token_hash, now=now) is None
    assert await bench.store.claim_call(sid(), token_hash="hash", now=START) is None
    (row,) = await bench.rows("calls", call_sid=call.call_sid)
    assert (row["claimed_at"], row["token_hash"]) == (None, "hash")


@clause
async def call_without_a_token_is_claimed_without_one(bench: Bench) -> None:
    """A row written without a token is claimed by whoever has none, and by nobody who brings one."""
    user = await bench.user()
    call = call_of(user, await bench.agent(user), account_sid=None, from_number=None, to_number=None, config={})
    assert await bench.store.put_call(call, token_hash=None, created_at=START, expires_at=LATER)
    assert await bench.store.claim_call(call.call_sid, token_hash="hash", now=START) is None
    assert await bench.store.claim_call(call.call_sid, token_hash=None, now=START) == call


@clause
async def of_many_claims_at_once_one_wins(bench: Bench) -> None:
    """Twenty who ask at the same time for one call: exactly one gets it."""
    call = await waiting(bench)
    claims = (bench.store.claim_call(call.call_sid, token_hash="hash", now=START) for _ in range(20))
    won = [claim for claim in await asyncio.gather(*claims) if claim is not None]
    assert won == [call]


@clause
async def announcing_again_replaces_what_nobody_claimed(bench: Bench) -> None:
    """The later announcement of a waiting call counts, with its own token and agent."""
    call = await waiting(bench)
    other = await bench.user()
    again = replace(call, agent_id=await bench.agent(other), user_id=other, config={}, from_number=None)
    assert await bench.store.put_call(again, token_hash="new", created_at=START, expires_at=LATEST)
    assert await bench.store.claim_call(call.call_sid, token_hash="hash", now=START) is None
    assert await bench.store.claim_call(call.call_sid, token_hash="new", now=LATER) == again


@clause
async def live_call_is_not_replaced(bench: Bench) -> None:
    """A call that is being held stays as it is; after its end the same sid may be announced again."""
    call = await waiting(bench)
    assert await bench.store.claim_call(call.call_sid, token_hash="hash", now=START) == call
    again = replace(call, config={"name": "Mallory"})
    assert not await bench.store.put_call(again, token_hash="new", created_at=START, expires_at=LATEST)
    stored = await bench.store.call(call.call_sid)
    assert stored is not None
    assert stored.call == call
    await bench.store.end_call(call.call_sid, ended_at=LATER, end_reason="agent_ended")
    assert await bench.store.put_call(again, token_hash="new", created_at=START, expires_at=LATEST)
    assert await bench.store.claim_call(call.call_sid, token_hash="new", now=LATER) == again


@clause
async def announcements_of_one_call_at_once_leave_one_row(bench: Bench) -> None:
    """Ten at the same time are all stored, one after the other, and the last one counts."""
    user = await bench.user()
    call = call_of(user, await bench.agent(user))
    puts = (
        bench.store.put_call(call, token_hash=f"hash {number}", created_at=START, expires_at=LATER)
        for number in range(10)
    )
    assert await asyncio.gather(*puts) == [True] * 10
    assert len(await bench.rows("calls", call_sid=call.call_sid)) == 1


@clause
async def call_with_another_users_agent_is_rejected(bench: Bench) -> None:
    """Nobody announces a call for an agent that is not the user's, or for none."""
    owner, stranger = await bench.user(), await bench.user()
    for agent_id in (await bench.agent(owner), str(uuid4())):
        call = call_of(stranger, agent_id)
        with pytest.raises(ParentMissing):
            await bench.store.put_call(call, token_hash="hash", created_at=START, expires_at=LATER)
        assert await bench.store.call(call.call_sid) is None


@clause
async def calls_that_can_never_fit_are_rejected_without_their_words(bench: Bench) -> None:
    """Nonsense in a call is StoreRejected, and no error repeats it."""
    user = await bench.user()
    good = call_of(user, await bench.agent(user))
    secret = "very private words"
    times = {"created_at": START, "expires_at": LATER}
    bad: list[tuple[Call, dict[str, str]]] = [
        (replace(good, config={"number": float("nan"), "text": secret}), times),
        (replace(good, from_number=f"{secret} \ud800"), times),
        (replace(good, agent_id=secret), times),
        (replace(good, auth_token_secret_id=secret), times),
        (good, times | {"expires_at": "yesterday"}),
    ]
    for call, when in bad:
        with pytest.raises(StoreRejected) as caught:
            await bench.store.put_call(call, token_hash="hash", **when)
        assert secret not in f"{caught.value!s} {caught.value!r}"
    assert await bench.store.call(good.call_sid) is None


@clause
async def ended_call_keeps_neither_configuration_nor_token(bench: Bench) -> None:
    """The end empties the row, and a call that ended before its stream opened cannot be claimed."""
    call = await waiting(bench)
    await bench.store.end_call(call.call_sid, ended_at=LATER, end_reason="internal")
    stored = await bench.store.call(call.call_sid)
    assert stored is not None
    assert (stored.call, stored.ended_at, stored.end_reason) == (replace(call, config={}), LATER, "internal")
    (row,) = await bench.rows("calls", call_sid=call.call_sid)
    assert row["token_hash"] is None
    assert await bench.store.claim_call(call.call_sid, token_hash=None, now=START) is None
    await bench.store.end_call(sid(), ended_at=LATER, end_reason="internal")


@clause
async def first_end_of_a_call_stays(bench: Bench) -> None:
    """A second end changes nothing, unless the first said no more than that the caller left."""
    call = await waiting(bench)
    for reason, stays in (("client_left", "client_left"), ("agent_ended", "agent_ended"), ("idle", "agent_ended")):
        await bench.store.end_call(call.call_sid, ended_at=LATER, end_reason=reason)
        stored = await bench.store.call(call.call_sid)
        assert stored is not None
        assert stored.end_reason == stays


@clause
async def deleted_call_is_gone(bench: Bench) -> None:
    """Deleting says whether there was a call."""
    call = await waiting(bench)
    assert await bench.store.delete_call(call.call_sid)
    assert not await bench.store.delete_call(call.call_sid)
    assert await bench.store.call(call.call_sid) is None


@clause
async def expired_calls_are_removed_and_ended_ones_emptied(bench: Bench) -> None:
    """Unclaimed calls go when they expire; live ones keep all; after a day, or 30 days, nobody can be live."""
    user = await bench.user()
    agent = await bench.agent(user)
    now, day_ago, month_ago = LATER, "2026-11-19T12:00:00.000000+00:00", "2026-10-20T12:00:00.000000+00:00"
    calls = {}
    for name, created, expires, claimed in (
        ("fresh", START, LATEST, None),
        ("unclaimed", START, LATER, None),
        ("live", START, LATER, START),
        ("crashed", day_ago, START, day_ago),
        ("ancient", month_ago, day_ago, month_ago),
    ):
        calls[name] = call_of(user, agent)
        await bench.store.put_call(calls[name], token_hash="hash", created_at=created, expires_at=expires)
        if claimed:
            assert await bench.store.claim_call(calls[name].call_sid, token_hash="hash", now=claimed)
    assert await bench.store.remove_expired(now) >= 2
    left = {name: await bench.rows("calls", call_sid=call.call_sid) for name, call in calls.items()}
    assert [name for name, rows in left.items() if not rows] == ["unclaimed", "ancient"]
    kept = {name: (rows[0]["config"], rows[0]["token_hash"]) for name, rows in left.items() if rows}
    assert kept == {
        "fresh": (dict(calls["fresh"].config), "hash"),
        "live": (dict(calls["live"].config), "hash"),
        "crashed": ({}, None),
    }

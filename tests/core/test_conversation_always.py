"""What holds for every conversation, whatever happens in it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialogue import Dialogue

STARTED = "input_audio_buffer.speech_started"
NOTICE = "client: notice reconnecting"
END = ["close upstream", "close 4502 upstream"]


FACTS = [
    *("opened", "created", "updated", "speech", "stop", "commit", "text", "answer"),
    *("begin", "done", "failed", "cancelled", "call", "end_call", "tool", "lost"),
    *("bad_key", "old", "error", "expired", "create", "cancel", "truncate", "update"),
    *("audio", "refused", "binary", "refresh", "accepted", "later", "much_later"),
]


def act(talk: Dialogue, fact: str) -> None:
    """Let one thing happen."""
    generation = talk.generation
    match fact:
        case "opened":
            talk.opened()
        case "created":
            talk.model("session.created", session={"expires_at": talk.now + 100})
        case "updated":
            talk.model("session.updated", session={})
        case "speech":
            talk.model(STARTED, item_id="u1")
        case "stop":
            talk.model("input_audio_buffer.speech_stopped", item_id="u1")
        case "commit":
            talk.model("input_audio_buffer.committed", item_id=f"u{talk.now}")
        case "text":
            talk.model("@completed", item_id=f"u{talk.now}", transcript="Hi")
        case "answer":
            talk.answers(f"r{talk.now}", f"i{talk.now}", "Hello.", 1500)
        case "begin":
            talk.begins_answer("r1", "i1").says("r1", "i1", "Well", 1000)
        case "done" | "failed" | "cancelled":
            talk.ends_answer("r1", "completed" if fact == "done" else fact)
        case "call" | "end_call":
            talk.calls("r1", f"c{talk.now}", "stock" if fact == "call" else "end_call")
        case "tool":
            talk.tool(f"c{talk.now}")
        case "lost" | "old":
            talk.lost(generation=generation if fact == "lost" else generation - 1)
        case "bad_key" | "error" | "expired":
            code = {"bad_key": "invalid_api_key", "error": "x", "expired": "session_expired"}[fact]
            talk.model("error", error={"code": code})
        case "create":
            talk.client("response.create")
        case "cancel":
            talk.client("response.cancel")
        case "truncate":
            talk.client("conversation.item.truncate", item_id="i1", audio_end_ms=100)
        case "update":
            talk.client("session.update", session={"audio": {"output": {"speed": 1.2}}})
        case "audio":
            talk.speaks()
        case "refused":
            talk.client(b"{")
        case "binary":
            talk._fact("binary", talk.session.refuse_binary(talk.now))
        case "refresh":
            talk.client("session.refresh", token="t")
        case "accepted":
            talk._fact("accepted", talk.session.token_accepted(talk.now + 90, talk.now))
            talk._fact("refused", talk.session.token_refused(talk.now))
        case "later":
            talk.later(0.8)
        case "much_later":
            talk.later(45)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(FACTS), max_size=40), st.booleans())
def test_there_is_no_state_without_a_deadline(facts: list[str], greets: bool) -> None:
    """Whatever happens in whatever order, time ends it; after that nothing is said; nothing is stored twice."""
    columns = {"greeting": "Hello!", "tools": [{"builtin": "end_call"}, {"name": "stock", "url": "https://s.example"}]}
    fields = {"greets": greets, "agent": columns, "idle_s": 200.0, "budget_usd": 50.0}
    talk = Dialogue(fields, token_expires_in=120.0)
    talk.begins()
    for fact in facts:
        act(talk, fact)
        assert (talk.session.next_deadline is None) == (talk.conversation.state == "ended")
    talk.later(2000)
    names = [type(command).__name__ for command in talk.all]
    assert talk.conversation.state == "ended"
    assert names.count("Close") == 1
    assert names[-1] == "Close"
    for fact in ("create", "audio", "refused", "binary", "refresh", "accepted", "answer", "lost", "tool", "much_later"):
        act(talk, fact)
    assert talk.all[-1] is talk.all[len(names) - 1]
    stored = [command.turn.item_id for command in talk.all if type(command).__name__ == "SaveTurn"]  # type: ignore[union-attr]
    assert len(stored) == len(set(stored))

"""A conversation is one tree of spans, which holds nothing that was said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.browser import AGENTS, INSTRUCTIONS_CANARY, TOOL_CANARY, TOOLED_ID, Browser, eventually
from tests.fakes.collector import Collector, KeptSpan, flushed
from tests.fakes.gateway import Gateway
from tests.fakes.phone_gateway import ASKS, CALLER, PhoneGateway, Ring

SAID = "what time is it"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Yield a collector that listens."""
    with Collector() as listening:
        yield listening


def tree(collector: Collector, *, has: str = "conversation") -> tuple[KeptSpan, list[KeptSpan]]:
    """Return the root of the only trace and what is below it, when it is there."""
    assert eventually(lambda: collector.named(has), 8.0)
    (root,) = collector.named("conversation")
    below = [span for span in collector.spans if span is not root]
    assert {span.parent_id for span in below} == {root.span_id}
    assert {span.trace_id for span in below} == {root.trace_id}
    return root, below


def test_talk_is_one_tree(collector, make):
    """Phases, link, responses and tools stand below the conversation; the log line has the trace's id."""
    gateway = make({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    with Browser(gateway, agent_id=TOOLED_ID) as browser:
        conversation_id = browser.live()
        for said in (SAID, "hello"):
            browser.type_text(said)
            browser.quiet()
        browser.leave()
    root, below = tree(collector)
    names = [span.name for span in below]
    assert {name: names.count(name) for name in ("admit", "prepare", "upstream.connect", "execute_tool")} == {
        "admit": 1, "prepare": 1, "upstream.connect": 1, "execute_tool": 1,
    }  # fmt: skip
    assert names.count("response") >= 3  # one that called the tool, one with its result, one more
    assert root.attributes["gen_ai.conversation.id"] == conversation_id
    assert root.attributes["voice.close_code"] == 1000 and not root.failed
    assert root.attributes["voice.turns"] >= 3
    (tool,) = collector.named("execute_tool")
    assert tool.attributes == {"voice.kind": "builtin", "voice.outcome": "ok"}
    ended = next(line for line in gateway.log_text().splitlines() if "conversation ended" in line)
    assert f"trace_id={root.trace_id}" in ended
    everything = b"".join(collector.raw)
    for canary in (SAID, "hello", INSTRUCTIONS_CANARY, TOOL_CANARY, "sk-simulated", gateway.token().split(".")[0]):
        assert canary.encode() not in everything, canary


def test_lost_link_is_seen_in_the_tree(collector, make):
    """Every link has its span."""
    gateway = make({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    with Browser(gateway) as browser:
        browser.live()

        async def strike() -> None:
            gateway.simulator.faults.now("drop")

        gateway.run(strike())
        browser.notice("reconnected")
        browser.leave()
    root, below = tree(collector)
    links = [span.attributes for span in below if span.name == "upstream.connect"]
    assert links == [{"voice.generation": n, "voice.outcome": "open"} for n in (1, 2)]
    assert root.attributes["voice.reconnects"] == 1


def test_refused_client_is_a_tree_too(collector, make):
    """Whoever may not talk leaves a conversation's span with the reason."""
    gateway = make({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    with Browser(gateway, token="no.valid.token") as browser:
        assert browser.end().code == 4001
    root, _ = tree(collector)
    assert root.attributes["voice.close_code"] == 4001 and root.attributes["voice.end_reason"] == "unauthorized"


def test_collector_that_is_away_does_not_touch_a_talk():
    """The talk goes as without traces."""
    with Gateway({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, seed=AGENTS) as gateway:
        with Browser(gateway) as browser:
            browser.live()
            browser.type_text("hello")
            browser.quiet()
            browser.leave()
        eventually(lambda: "conversation ended" in gateway.log_text())
        assert "close=1000" in gateway.log_text()
    flushed()


def test_call_is_one_tree(collector):
    """A call has the same tree, with its channel, and no number in it."""
    rings = {"asks": Ring(actions=ASKS)}
    with PhoneGateway(rings, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as gateway:
        call = gateway.ring_all()["asks"]
        assert call.record.status == "completed"
        root, below = tree(collector)
    assert root.attributes["voice.channel"] == "phone"
    assert {"admit", "prepare", "upstream.connect", "response"} <= {span.name for span in below}
    everything = b"".join(collector.raw)
    assert CALLER.encode() not in everything and CALLER[1:].encode() not in everything

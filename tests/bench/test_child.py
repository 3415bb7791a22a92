"""A process of the load answers, or the parent hears why not."""

from __future__ import annotations

import pytest

from bench.child import Child, ChildError


def test_a_failure_in_the_child_is_told_to_the_parent() -> None:
    """An address that does not exist is an error with words; the child goes on."""
    with Child("bench.clients") as child:
        assert child.ask("read")["opened"] == 0
        seat = {"url": "ws://127.0.0.1:9/", "headers": {}, "greeting": []}
        assert child.ask("cycle", channel="browser", seats=[seat]) == 0
        assert child.ask("read")["lost"] == 1
    with Child("bench.upstream") as child, pytest.raises(ChildError, match="No such file"):
        child.ask("listen", certificate="nowhere.pem", key="nowhere.key")


def test_an_ended_child_is_noticed() -> None:
    """A question to a process that is gone is an error and not a wait."""
    with Child("bench.nothing") as child, pytest.raises(ChildError, match="has ended"):
        child.ask("read")

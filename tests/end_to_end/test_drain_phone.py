"""A call that is live while the server drains: it goes on to its own end, or ends with a spoken sentence."""

from __future__ import annotations

from tests.fakes.browser import eventually
from tests.fakes.phone_gateway import ASKS, PhoneGateway, Ring, answered, heard_apology

RINGS = {"talks": Ring(actions=ASKS)}


def is_talking(gateway: PhoneGateway) -> bool:
    """Return whether a call's stream is live."""
    return gateway.server.context.connections.count("phone") == 1


def test_live_call_goes_on_to_its_end() -> None:
    """The caller is answered after the drain began, hears nothing of it, and the server stops when the call is over."""
    with PhoneGateway(RINGS) as gateway:
        call = gateway.ring("talks")
        assert eventually(lambda: is_talking(gateway), 10.0)
        gateway.stop_server(40.0)
        assert call.record.status == "completed" and call.record.ended_by == "caller"
        assert answered(call) and not heard_apology(call)
        assert call.conversation["end_reason"] == "client_left"
        assert "stopped  sessions_cut=0" in gateway.log_text()


def test_forced_stop_is_spoken_to_its_end() -> None:
    """Without time to drain the caller hears the sentence before the line is released, and the call's row says why."""
    with PhoneGateway({"cut": Ring()}) as gateway:
        call = gateway.ring("cut")
        assert eventually(lambda: is_talking(gateway), 10.0)
        gateway.stop_server(0.0)
        assert heard_apology(call)
        assert (call.conversation["end_reason"], call.row["end_reason"]) == ("drain", "drain")
        assert "stopped  sessions_cut=1" in gateway.log_text()

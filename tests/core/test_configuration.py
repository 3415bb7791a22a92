"""The configuration is the same on every link."""

from __future__ import annotations

from core.configuration import Configuration
from core.plan import TURN_DETECTION, reduced_config, session_config
from tests.dialogue import plan

PLAN = plan(agent={"instructions": "Sell shoes."})


def test_later_links_get_what_the_client_changed() -> None:
    """A change that took effect is asked for again after a loss, laid over the agent's own configuration."""
    configuration = Configuration(PLAN)
    assert configuration.session == session_config(PLAN, {})
    configuration.changed({"audio": {"output": {"speed": 1.2}}})
    configuration.changed({"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.8}}}})
    assert configuration.session["audio"]["output"]["speed"] == 1.2
    assert configuration.session["audio"]["input"]["turn_detection"] == {**TURN_DETECTION, "threshold": 0.8}
    assert configuration.session["instructions"] == "Sell shoes."


def test_a_refused_configuration_is_reduced_once() -> None:
    """What was refused on one link is not tried on the next; below the reduced one there is nothing."""
    configuration = Configuration(PLAN)
    assert configuration.reduce()
    assert configuration.session == reduced_config(PLAN)
    assert not configuration.reduce()


def test_turn_detection_is_what_the_service_says_it_is() -> None:
    """The effective session wins, also when it is off; without a word the one asked for holds, else the default."""
    configuration = Configuration(PLAN)
    told = {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "interrupt_response": False}}}}
    assert configuration.turn_detection(told)["interrupt_response"] is False
    assert configuration.turn_detection({})["type"] == "server_vad"
    assert configuration.turn_detection({"audio": {"input": {"turn_detection": None}}}) == {}
    assert configuration.turn_detection({"audio": "nonsense"}) == TURN_DETECTION
    configuration.reduce()
    assert configuration.turn_detection({}) == TURN_DETECTION

"""The phone guide and the agent guide say what the code does: every column, setting, example and test they name."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from core.agent import BUILTIN_TOOLS, VOICES, CallSettings, agent_from_row
from core.calls import TRANSFERRED, call_from_config
from core.errors import ENDINGS
from core.overrides import OVERRIDES, config_problems
from core.twiml import AFTER_PATH, STATUS_PATH, STREAM_PATH
from services.sql_store.tables import agents
from simulator.twilio_record import ERRORS

ROOT = Path(__file__).resolve().parents[2]
PHONE = (ROOT / "docs" / "phone.md").read_text(encoding="utf-8")
AGENTS = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    below = page.split(f"{heading}\n", 1)[1]
    lines = below[below.index("\n|") + 1 :].splitlines()
    table = lines[: next((n for n, line in enumerate(lines) if not line), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def names(cells: list[list[str]]) -> set[str]:
    """Return what stands in backticks in the first column."""
    return {name for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def json_blocks(page: str) -> list[Any]:
    """Return the JSON examples of a page."""
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]


def test_every_column_of_an_agent_is_explained() -> None:
    """The table has exactly the columns of `agents` that mean something."""
    assert names(rows(AGENTS, "## Columns")) == set(agents.c.keys()) - {"created_at", "updated_at"}


def test_every_call_setting_is_explained_with_its_default() -> None:
    """The table has exactly the call settings; texts and numbers are the defaults of the code."""
    table = rows(PHONE, "## Call settings")
    assert names(table) == {each.name for each in fields(CallSettings)}
    shown = {row[0].strip("`"): row[1] for row in table}
    for each in fields(CallSettings):
        default = getattr(CallSettings(), each.name)
        if isinstance(default, bool):
            assert shown[each.name] == str(default).lower()
        elif isinstance(default, float):
            assert float(shown[each.name]) == default
        elif default and each.name != "max_duration_s":
            assert shown[each.name] == default


def test_every_built_in_tool_and_voice_is_named() -> None:
    """Nothing that exists is missing, and nothing else is offered."""
    assert names(rows(AGENTS, "### Built in")) == set(BUILTIN_TOOLS)
    for page in (PHONE, AGENTS):
        assert " ".join(VOICES) in page
    listed = re.search(r"any of the columns `([a-z_ ]+)`", AGENTS)
    assert listed is not None and set(listed[1].split()) == set(OVERRIDES) - {"temperature"}


def test_examples_of_agents_are_good_rows() -> None:
    """The tools and the knowledge of the examples are read without a repair."""
    tools = next(block for block in json_blocks(AGENTS) if "builtin" in block[0])
    knowledge = next(block for block in json_blocks(AGENTS) if "vector_store_id" in block[0])
    row = {"id": "a", "user_id": "u", "tools": tools, "knowledge": knowledge}
    inserted = re.findall(r"'([\[{].*?[\]}])'", AGENTS.split("```sql")[1].split("```")[0])
    for name, text in zip(("tools", "knowledge", "call_settings"), inserted, strict=True):
        assert agent_from_row({"id": "a", "user_id": "u", name: text}).repaired == ()
    assert agent_from_row(row).repaired == ()


def test_example_of_an_announcement_is_taken() -> None:
    """The body of the `PUT` is a call, its overrides are overrides."""
    body = json.loads(re.search(r'\n(\{"agent_id".*?\})\n```', PHONE, re.DOTALL)[1])  # type: ignore[index] # it is there
    uuid = "00000000-0000-4000-8000-000000000001"
    assert config_problems(body["config"]) == []
    assert call_from_config("CA" + "0" * 32, body | {"agent_id": uuid, "user_id": uuid}).config == body["config"]


def test_addresses_are_those_of_the_server() -> None:
    """Every path of `/api/twilio/` in the guide exists."""
    paths = {STREAM_PATH, STATUS_PATH, AFTER_PATH, "/api/twilio/voice", "/api/twilio/call-config/", "/api/twilio/"}
    assert set(re.findall(r"/api/twilio/[a-z-]*/?", PHONE)) <= paths


def test_every_error_the_simulator_knows_has_a_line() -> None:
    """A developer who sees a code in a simulated call finds it in the guide."""
    codes = {int(code) for row in rows(PHONE, "## Troubleshooting") for code in re.findall(r"\d{5}", row[0])}
    assert set(ERRORS) <= codes


def test_every_end_reason_of_a_call_is_explained() -> None:
    """The table has the reasons a call can end for; those of browsers alone are left out."""
    reasons = {ending.end_reason for ending in ENDINGS} - {"bad_request", "unauthorized", "client_error"}
    assert names(rows(PHONE, "## What is stored")) == reasons
    assert TRANSFERRED in PHONE


@pytest.mark.parametrize("number", range(1, 18))
def test_every_fault_has_a_test(number: int) -> None:
    """The tests that keep a fault out exist."""
    line = next(line for line in PHONE.splitlines() if line.startswith(f"| {number} | "))
    found = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "end_to_end").glob("test_calls*.py"))
    named = re.findall(r"`(test_\w+)`", line)
    assert named and all(f"def {name}(" in found for name in named), named

"""The shipped units under a real systemd, with nginx and TLS in front: one boot, many looks at what happened in it.

Times are printed with the bound of the operations reference (section 6); the bounds of the tests are wider, as the
machine may be busy with other tests meanwhile.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.inside_tools import DRAIN_S, KEY
from tests.fakes.machine import Machine
from tests.fakes.nginx import NAME, certificate

BOOT_S = 180.0
"""Half a minute on an idle machine, twenty seconds of it the watchdog's; the rest is for a busy one."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `inside_systemd.py` saw in the machine."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.install_code()
    chain, key = certificate(machine.out)
    chain.chmod(0o644)
    machine.write(f"etc/letsencrypt/live/{NAME}/fullchain.pem", chain.read_text())
    machine.write(f"etc/letsencrypt/live/{NAME}/privkey.pem", key.read_text(), 0o600)
    machine.write("etc/hosts", f"127.0.0.1 localhost {NAME}\n")
    found = machine.boot("tests/deploy/inside_systemd.py", timeout_s=BOOT_S)
    times = {name: value for name, value in found.items() if name.endswith("_s") and isinstance(value, float)}
    print(json.dumps({**times, "steps": found["seconds"]}, indent=1))
    return found


def test_every_step_could_be_taken(seen: dict[str, Any]) -> None:
    """Nothing in the machine failed for another reason than those looked at below."""
    assert seen.get("failed", {}) == {}


def test_unit_becomes_ready_and_is_taken_by_its_systemd(seen: dict[str, Any]) -> None:
    """Both instances say READY and are ready; the running systemd has no complaint and gives at most 1.5 of 10."""
    assert seen["ready"] == [True, True]
    assert 0 < max(seen["start_to_ready_s_8081"], seen["start_to_ready_s_8082"]) < 15
    assert (seen["verify"], seen["exposure"] <= 1.5) == ("", True)


def test_browser_and_caller_are_served_over_tls(seen: dict[str, Any]) -> None:
    """A browser is answered over wss, a simulated call has its talk over Twilio's three ways in, all through nginx."""
    assert seen["browser_answered"] is True
    assert seen["call"]["status"] == "completed"
    assert (seen["call"]["rejected"], seen["call"]["warnings"]) == ([], [])
    assert seen["call"]["speech_s"] > 2.0


def test_systemctl_status_tells_how_busy_it_is(seen: dict[str, Any]) -> None:
    """The status line counts live sessions, and during the drain those that are left."""
    assert seen["status_text_with_one"] is True
    assert seen["status_while_draining"] == "draining 1"


def test_reload_forgets_keys_and_leaves_the_unit_running(seen: dict[str, Any]) -> None:
    """systemctl reload returns when the keys were forgotten."""
    assert (seen["reloaded"], seen["state_after_reload"]) == (1, "active")


def test_blocked_loop_is_restarted(seen: dict[str, Any]) -> None:
    """A process that stands still is ended by the watchdog and serves again; without other load within 25 s."""
    assert 5 < seen["blocked_to_ready_s"] < 45


def test_killed_server_is_back(seen: dict[str, Any]) -> None:
    """After SIGKILL sessions begin again on the same port; without other load within 2 s."""
    assert 0 < seen["killed_to_serving_s"] < 10


def test_stop_drains(seen: dict[str, Any]) -> None:
    """A live session is told, goes on, and is closed with 1012 at the deadline; nobody new gets in."""
    assert seen["notice"] == "draining"
    assert seen["ready_while_draining"] is False
    assert seen["late_close_code"] == 1012
    assert seen["answered_while_draining"] is True
    assert (seen["closed_by_server"], seen["close_code"], seen["last_error"]) == (True, 1012, ["drain"])
    assert DRAIN_S - 0.5 <= seen["drain_s"] < DRAIN_S + 10
    assert seen["stopped"] == ["inactive", "success"]


def test_rotation_under_load_loses_no_line(seen: dict[str, Any]) -> None:
    """With the shipped rule every session has its line, and the new file is the service's own."""
    rotation = seen["rotation"]
    assert rotation["rotations"] >= 3 and rotation["opened"] >= 10
    assert rotation["in_logs"] == rotation["opened"]
    assert (rotation["mode"], rotation["owner"]) == ("0o640", "voicegw")
    assert rotation["compressed"] == rotation["rotations"] - 1


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        ("uid_name", "voicegw"),
        ("write_etc", "OSError"),
        ("write_code", "OSError"),
        ("read_settings_folder", "PermissionError"),
        ("list_root_home", "PermissionError"),
        ("read_meminfo", "FileNotFoundError"),
        ("see_init", "FileNotFoundError"),
        ("netlink", "OSError"),
        ("packet", "OSError"),
        ("nice", "PermissionError"),
        ("write_and_execute", "PermissionError"),
        ("write_state", "done"),
        ("write_logs", "done"),
        ("nofile", 16_384),
        ("core", 0),
        ("capabilities", "0000000000000000"),
        ("credential_length", len(KEY)),
    ],
)
def test_sandbox_of_the_service(seen: dict[str, Any], act: str, outcome: object) -> None:
    """From inside, the service can write its state and logs, read its credentials, and nothing else of the machine."""
    assert seen["sandbox"][act] == outcome


def test_secrets_are_in_no_environment_and_no_log(seen: dict[str, Any]) -> None:
    """Keys and tokens are not in the process's environment, its logs, nginx's logs or the journal."""
    assert seen["key_in_environment"] is False
    assert seen["secrets_in_logs"] == []


def test_parent_of_several_workers_speaks_for_them(seen: dict[str, Any]) -> None:
    """voice.service with WORKERS=2 becomes ready, counts sessions over both, and stops with success."""
    assert 0 < seen["workers_start_to_ready_s"] < 30
    assert (seen["workers_answered"], seen["workers_status"]) == (True, True)
    assert seen["workers_stopped"] == ["inactive", "success"]


def test_bad_setting_is_not_tried_again(seen: dict[str, Any]) -> None:
    """A mistake in the settings fails the unit once, with 78, and the journal names it."""
    assert seen["bad_settings"] == ["failed", "78", "0"]
    assert seen["bad_settings_told"] is True

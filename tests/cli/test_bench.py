"""`./voice bench` measures the real server and says what it means."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.capacity import Capacity, Plan
from bench.rig import NotMeasured
from cli import bench
from cli.bench import lines, main, verdict

CAPACITY = Capacity(
    channel="browser", up_hz=25.0, down_hz=50.0, measured_sessions=100, measured_share=0.11, verified_sessions=630,
    verified_share=0.69, active_sessions=637, us_per_message=14.9, idle_kib=30.0, talking_kib=36.0,
    idle_sessions_per_gib=34_952, setup_ms=2.5, setup_per_s=400, added_p50_ms=0.1, added_p99_ms=2.5,
    verified_p99_ms=6.0, times_nginx=1.9, start_mib=70.0,
)  # fmt: skip


def test_a_small_bench_of_the_real_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results are on standard output, as JSON if asked; progress is on standard error, a line a step."""
    monkeypatch.setattr(bench, "QUICK", Plan(sessions=3, seconds=0.3, opened=3))
    assert main(["--quick", "--channel", "phone", "--sessions", "3", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["channels"][0]["channel"] == "phone"
    assert found["channels"][0]["verified_sessions"] == 3
    assert found["channels"][0]["us_per_message"] > 0
    assert found["verdict"].startswith("This machine: about ")
    assert "3 sessions talk" in shown.err
    assert "\x1b" not in shown.err


def test_the_verdict_is_one_plain_sentence() -> None:
    """The counts are rounded to what is known, channel by channel."""
    calls = replace(CAPACITY, channel="phone", active_sessions=87)
    assert verdict([CAPACITY]) == "This machine: about 640 talking browser sessions per core."
    assert verdict([CAPACITY, calls]).endswith("about 640 talking browser sessions or about 87 calls per core.")


def test_it_is_said_what_was_tried_and_what_is_reckoned() -> None:
    """A capacity that was not tried is called reckoned; a missing nginx is said."""
    assert "637 sessions at 70% of one core (630 talked and took 69% of a core)" in lines(CAPACITY)[1]
    assert "reckoned" in lines(replace(CAPACITY, verified_sessions=200))[1]
    assert "nginx is not installed" in lines(replace(CAPACITY, times_nginx=None))[-1]


def test_what_cannot_be_measured_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bench that fails says why, and its exit status is 1."""

    def fail(*_: object, **__: object) -> Capacity:
        raise NotMeasured("ours: sessions were lost")

    monkeypatch.setattr(bench, "measure", fail)
    assert main(["--quick"]) == 1
    assert "sessions were lost" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "9999", "many"])
def test_a_senseless_count_is_refused(count: str) -> None:
    """The number of sessions must be one this machine could try."""
    with pytest.raises(SystemExit):
        main(["--sessions", count])

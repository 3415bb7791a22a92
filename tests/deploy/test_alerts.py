"""The shipped alerts in the eyes of Prometheus' own tool: good rules, which fire when they should and only then."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "deploy" / "prometheus-alerts.yml"
CASES = Path(__file__).with_name("alerts_test.yml")


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    """Return what promtool says; skips the test where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)


def outcome(folder: Path, rules: str) -> subprocess.CompletedProcess[str]:
    """Return the outcome of the cases against the text of a rules file."""
    (folder / RULES.name).write_text(rules, encoding="utf-8")
    shutil.copy(CASES, folder)
    return promtool("test", "rules", str(folder / CASES.name))


def test_prometheus_takes_the_rules() -> None:
    """`promtool check rules` finds every alert and no fault, not even a matter of taste."""
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    count = len(re.findall(r"- alert:", RULES.read_text(encoding="utf-8")))
    assert done.returncode == 0 and f"SUCCESS: {count} rules found" in done.stdout, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """Each alert fires on a series that calls for it, after its time, and on none that is just below its figure."""
    done = outcome(tmp_path, RULES.read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    """No alert is left out of the cases."""
    text = CASES.read_text(encoding="utf-8")
    for alert in re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")):
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", text), alert
        assert text.count(f"alertname: {alert}, exp_alerts: []") == 2, alert


@pytest.mark.parametrize("figure", ["> 0.05", "> 800", "> 2\n", "> 0.1\n", "> 120", "> 10\n", "> 0\n", "== 0"])
def test_cases_notice_a_figure_that_is_wrong(tmp_path: Path, figure: str) -> None:
    """With a comparison turned round the cases fail: they look at the figures."""
    rules = RULES.read_text(encoding="utf-8")
    turned = figure.replace(">", "<").replace("==", "!=")
    assert figure in rules and outcome(tmp_path, rules.replace(figure, turned)).returncode != 0

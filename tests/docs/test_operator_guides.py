"""The pages for operators name only what exists: commands, checks, settings, files, metrics, units and ports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.deploy_files import INSTALLED, Machine, services
from cli.doctor import NAMES
from cli.main import COMMANDS
from core.errors import ENDINGS
from core.settings import TABLE
from services.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
GRID_COLUMNS = 24
"""Of a Grafana dashboard."""

NAMES_OF_PAGES = ("deploy", "monitoring", "operations", "security")
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in NAMES_OF_PAGES}

OTHER_WORDS = {"RESTART", "TERM", "HUP", "READY"}
"""Capital words in backticks that are no setting."""


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_commands_exist(page: str) -> None:
    """Every `voice …` is a command, and every check it is asked for is one of doctor's."""
    named = set(re.findall(r"(?:^|`|sudo |\./)voice ([a-z][a-z-]+)", page, re.M)) - {"init"}
    assert named <= set(COMMANDS)
    assert {quoted or word for quoted, word in re.findall(r'--only (?:"([^"]+)"|([a-z]+))', page)} <= set(NAMES)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_settings_exist(page: str) -> None:
    """What looks like a setting is one."""
    known = {name for row in TABLE for name in (row.name, *row.aliases)}
    named = set(re.findall(r"`([A-Z][A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", page))
    assert named - known - OTHER_WORDS == set()


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_files_exist(page: str) -> None:
    """Every file of deploy/ is there."""
    named = set(re.findall(r"(?<!hooks/)deploy/([\w@.-]+\w)", page)) - {"deploy.md"}
    assert {name for name in named if not (ROOT / "deploy" / name).exists()} == set()


def test_every_file_for_deploying_is_told() -> None:
    """Nothing lies in deploy/ that the page does not name, but for parts of what it names."""
    parts = {"install-site.sh", "nginx-challenge.conf", "container-entry.sh"}
    told = PAGES["deploy"] + PAGES["monitoring"] + PAGES["operations"]
    there = {path.name for path in (ROOT / "deploy").iterdir() if path.is_file()}
    assert {name for name in there if name not in told} - parts == set()


def written_families() -> set[str]:
    """Return the metrics a server writes, by the names Prometheus gives their samples."""
    metrics = Metrics()
    metrics.watch_spool(lambda: 0, lambda: 0.0)
    metrics.watch_loop(lambda: 0.0)
    metrics.watch_log(lambda: 0)
    metrics.watch_links(lambda: 0)
    types = re.findall(r"^# TYPE (\w+) (\w+)", metrics.render().decode(), re.M)
    found = {name for name, _ in types}
    return found | {f"{name}_{part}" for name, kind in types if kind == "histogram" for part in ("bucket", "count")}


def expressions() -> list[str]:
    """Return every expression of the alerts and of the dashboard."""
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))["panels"]
    alerts = (DEPLOY / "prometheus-alerts.yml").read_text(encoding="utf-8")
    shown = [each["expr"] for panel in panels for each in panel["targets"]]
    return [*re.findall(r"^ +expr: (.+)$", alerts, re.M), *shown]


def test_metrics_and_end_reasons_of_the_alerts_exist() -> None:
    """An alert, or a panel, on a metric nobody writes would never show anything."""
    named = {name for text in expressions() for name in re.findall(r"\b(?:voice|process)_[a-z0-9_]+", text)}
    assert len(expressions()) > 20 and named - written_families() == set()
    page = set(re.findall(r"\bvoice_(?!admin)[a-z0-9_]+", PAGES["operations"] + PAGES["monitoring"]))
    assert page - written_families() == set()
    chosen = re.findall(r'end_reason=~"([^"]+)"', "\n".join(expressions()))
    reasons = {word for each in chosen for word in each.split("|")}
    assert reasons and reasons <= {ending.end_reason for ending in ENDINGS}


def test_every_alert_is_explained() -> None:
    """The table of the page has exactly the alerts of the file."""
    alerts = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    assert re.findall(r"^\| `(Voice\w+)`", PAGES["monitoring"], re.M) == alerts


def test_every_metric_is_explained() -> None:
    """The table of the page has exactly the metrics a server writes, each with its labels."""
    metrics = Metrics()
    metrics.watch_spool(lambda: 0, lambda: 0.0)
    metrics.watch_loop(lambda: 0.0)
    metrics.watch_log(lambda: 0)
    metrics.watch_links(lambda: 0)
    written = {}
    for family in metrics._registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        written[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    rows = re.findall(r"^\| `((?:voice|process)_\w+)` \|([^|]*)\|", PAGES["monitoring"], re.M)
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert len(rows) == len(told) and set(told) == set(written)
    assert {name: told[name] for name, labels in written.items() if labels} == {n: x for n, x in written.items() if x}


def test_panels_have_places_of_their_own() -> None:
    """No panel of the dashboard lies on another, and each has a title."""
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))["panels"]
    cells = [(x, y) for panel in panels for at in [panel["gridPos"]]
             for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]  # fmt: skip
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < GRID_COLUMNS
    assert len({panel["title"] for panel in panels}) == len(panels)


def test_places_are_those_of_units_and_installer() -> None:
    """Folder, services and health ports on the pages are those the files have."""
    assert INSTALLED in PAGES["deploy"]
    assert all(name in PAGES["deploy"] for name in services(Machine(instances=2)))
    unit = (ROOT / "deploy" / "voice@.service").read_text(encoding="utf-8")
    assert "HEALTH_PORT=1%i" in unit and "127.0.0.1:18081/health" in PAGES["deploy"]
    assert re.search(r"KEEP=3\b", (ROOT / "deploy" / "install.sh").read_text()) and "Three releases" in PAGES["deploy"]

"""What the real promtool finds of every case."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.alerts import ALERTS, groups

from tests.lab.programs import PROGRAMS
from tests.tools import docs

from . import cases_engine, cases_front_door, cases_gpu, cases_host
from .case import KINDS, Case

CASES: tuple[Case, ...] = (*cases_engine.CASES, *cases_front_door.CASES, *cases_gpu.CASES, *cases_host.CASES)
NAMES = [f"{number}-{case.alert}" for number, case in enumerate(CASES)]
RULES = [rule for group in groups({}, "https://docs.example.com")["groups"] for rule in group["rules"]]


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the Prometheus that the lab's mirror has."""
    release = next(program for program in PROGRAMS if "promtool" in program.commands)
    path = release.directory / f"{release.archive}.tar.gz"
    if not path.exists():
        pytest.fail("there is no promtool; once on a machine, run: python -m tests.lab programs")
    directory = tmp_path_factory.mktemp("prometheus")
    with tarfile.open(path) as archive:
        archive.extract(f"{release.archive}/promtool", directory, filter="data")
    return directory / release.archive / "promtool"


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))  # which is YAML
    return path


def read_by(alert: str) -> Iterator[dict[str, Any]]:
    """A rule and those that record what it reads: with all rules, promtool would take ten times as long."""
    rule = next(rule for rule in RULES if rule.get("alert") == alert)
    yield from (one for one in RULES if "record" in one and re.search(rf"(?<!\w){one['record']}(?!\w)", rule["expr"]))
    yield rule


@pytest.fixture(scope="session")
def failures(promtool: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What promtool says of every test, by its name; all run in one process."""
    place = tmp_path_factory.mktemp("rules")
    paths = []
    for name, case in zip(NAMES, CASES, strict=True):
        tests = [{"name": f"{name}: {kind}", **test} for kind, test in case.tests()]
        text = json.dumps(tests).replace("SEVERITY", ALERTS[case.alert].severity)
        rules = write(place / f"{name}.rules", {"groups": [{"name": "tried", "rules": [*read_by(case.alert)]}]})
        content = {"rule_files": [rules.name], "evaluation_interval": f"{case.step}m", "tests": json.loads(text)}
        paths.append(write(place / f"{name}.test", content))
    junit = place / "found.xml"
    run = subprocess.run(
        [str(promtool), "test", f"--junit={junit}", "rules", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert junit.exists(), run.stdout + run.stderr
    found = ElementTree.parse(junit).iter("testcase")  # noqa: S314 - our own promtool has just written it
    return {
        test.attrib["name"]: "\n".join(filter(None, map("".join, map(ElementTree.Element.itertext, test))))
        for test in found
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_an_alert_says_what_is_so(failures: dict[str, str], name: str, kind: str) -> None:
    assert failures[f"{name}: {kind}"] == ""


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == set(ALERTS)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_annotations_name_labels_that_the_alert_has(case: Case) -> None:
    annotations = f"{ALERTS[case.alert].summary} {ALERTS[case.alert].description}"
    assert set(re.findall(r"\$labels\.(\w+)", annotations)) <= set(case.labels)


def test_prometheus_takes_all_rules_with_whatever_thresholds(promtool: Path, tmp_path: Path) -> None:
    for number, thresholds in enumerate(({}, {"ttft_seconds": 10, "error_ratio": 0.5, "objective_requests": 1000000})):
        path = write(tmp_path / f"{number}.yml", groups(thresholds, "https://docs.example.com/"))
        run = subprocess.run([str(promtool), "check", "rules", str(path)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


def test_prometheus_takes_every_expression_of_a_page(promtool: Path, tmp_path: Path) -> None:
    expressions = [
        line
        for page in sorted(docs.ALERTS.glob("*.md"))
        for block in re.findall(r"^```promql\n(.+?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    rules = [{"record": f"page:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    path = write(tmp_path / "pages.yml", {"groups": [{"name": "pages", "rules": rules}]})
    run = subprocess.run([str(promtool), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert len(rules) > len(ALERTS)
    assert run.returncode == 0, run.stdout + run.stderr

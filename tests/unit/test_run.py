"""How the phases of the tests are chosen, ordered and run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import inputs, run
from tests.run import Phase

KNOWN = {
    phase.name: phase
    for phase in (
        Phase("base", ("true",)),
        Phase("first", ("true",), needs=("base",), files=("a/*",)),
        Phase("second", ("true",), needs=("base",), files=("b/*",)),
        Phase("alone", ("true",), files=("*",)),
    )
}


def python(name: str, code: str, needs: tuple[str, ...] = ()) -> Phase:
    return Phase(name, (sys.executable, "-c", code), needs, ("*",))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit."""
    for path, text in {
        "molecule/web/converge.yml": "roles: [{role: gpuhosts.vllm.nginx}]",
        "roles/nginx/tasks/main.yml": "include_role: {name: gpuhosts.vllm._common}\ngpuhosts.vllm.facts: {{ x | "
        "gpuhosts.vllm.turned }}",
        "plugins/modules/facts.py": "from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import pci",
        "plugins/modules/other.py": "",
        "plugins/module_utils/_host/__init__.py": "",
        "plugins/module_utils/_host/pci.py": "from .._errors import One",
        "plugins/module_utils/_errors.py": "import ast",
        "plugins/filter/turn.py": 'FILTERS = {"turned": None}',
        "roles/_common/tasks/main.yml": "",
        "roles/other/tasks/main.yml": "",
        "README.md": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_scenario_depends_on_its_roles_and_plugins_and_on_those_that_they_name(checkout: Path) -> None:
    patterns = inputs.of_scenario("web", checkout)
    changed = ["molecule/web/tests/test_web.py", "roles/nginx/x", "roles/_common/x", "tests/lab/hosts.py"]
    changed += ["plugins/modules/facts.py", "plugins/module_utils/_host/pci.py", "plugins/module_utils/_errors.py"]
    changed += ["plugins/filter/turn.py"]
    assert inputs.matching(changed, patterns) == changed
    others = ["README.md", "roles/other/x", "molecule/db/x", "tests/lab/test_1.py", "plugins/modules/other.py"]
    assert inputs.matching([*others, "tests/stand_in/server.py"], patterns) == []


def test_the_planner_concerns_no_scenario_and_the_stand_in_those_that_use_it() -> None:
    def chosen(path: str) -> set[str]:
        return {name for name, phase in run.phases(run.scenarios()).items() if inputs.matching([path], phase.files)}

    anything = {"alerts", "lint", "unit", "artifact", "cluster", "lab"}
    assert chosen("plugins/module_utils/_planner/plan.py") == anything
    with_it = {f"molecule {name}" for name in ("containers", "enterprise_linux", "nginx_lb", "ubuntu", "vllm")}
    assert chosen("tests/stand_in/server.py") == anything | with_it
    assert "molecule nvidia_driver" in chosen("plugins/module_utils/_host/driver.py")


def test_new_changed_and_deleted_files_are_changes(checkout: Path) -> None:
    (checkout / "new").write_text("")
    (checkout / "README.md").write_text("more")
    (checkout / "roles/other/tasks/main.yml").unlink()
    assert inputs.changed_since("HEAD", checkout) == ["README.md", "new", "roles/other/tasks/main.yml"]


def test_the_digest_follows_names_contents_modes_and_the_command(checkout: Path) -> None:
    def digest(also: str = "command") -> str:
        return inputs.digest(inputs.tracked(checkout), also, checkout)

    seen = [digest(), digest("other command")]
    (checkout / "README.md").write_text("more")
    seen.append(digest())
    (checkout / "README.md").chmod(0o755)
    seen.append(digest())
    (checkout / "README.md").rename(checkout / "README")
    seen.append(digest())
    assert len(set(seen)) == len(seen)
    assert seen[-1] == digest()


def test_every_phase_of_ci_depends_on_files_that_are_there() -> None:
    files = inputs.tracked()
    known = run.phases(run.scenarios())
    assert {"lint", "unit", "artifact", "cluster", "lab", "rules"} < set(known)
    for phase in known.values():
        assert set(phase.needs) <= set(known)
        for pattern in phase.files:
            if not pattern.startswith("!"):
                assert inputs.matching(files, [pattern]), f"{phase.name}: {pattern}"


def test_documentation_alone_runs_no_host() -> None:
    known = run.phases(run.scenarios())
    chosen = {name for name, phase in known.items() if inputs.matching(["docs/operations.md"], phase.files)}
    assert chosen == {"lint", "unit", "artifact"}


def test_rules_are_tried_by_the_promtool_that_is_built_where_they_or_their_pages_change() -> None:
    rules = run.phases(run.scenarios())["rules"]
    assert rules.needs == ("programs",)
    for path in ("plugins/plugin_utils/alerts/gpu.py", "docs/alerts/GpuHot.md", "tests/rules/cases_gpu.py"):
        assert inputs.matching([path], rules.files)


def test_what_a_phase_needs_comes_along_and_first() -> None:
    assert run.with_needs(["second"], KNOWN) == ["base", "second"]
    assert list(run.startable(["base", "second", "alone"], [], KNOWN)) == ["base", "alone"]
    assert list(run.startable(["second"], ["base"], KNOWN)) == []
    assert list(run.startable(["second"], ["alone"], KNOWN)) == ["second"]


def test_two_phases_at_a_time_and_what_runs_aside_takes_no_place() -> None:
    known = KNOWN | {"aside": Phase("aside", ("true",), aside=True), "user": Phase("user", ("true",), needs=("aside",))}
    waiting = ["aside", "base", "alone", "user"]
    assert list(run.startable(waiting, [], known)) == ["aside", "base", "alone"]
    assert list(run.startable(["user"], ["aside", "base"], known)) == []
    assert list(run.startable(["second", "user"], ["base", "alone"], known)) == []
    assert list(run.startable(["aside"], ["base", "alone"], known)) == ["aside"]
    assert list(run.startable(["first", "second", "user"], ["alone"], known)) == ["first"]


def test_scenarios_that_install_built_programs_wait_for_them(checkout: Path) -> None:
    assert not inputs.has_programs("web", checkout)
    (checkout / "molecule/web/converge.yml").write_text("prometheus_mirror: http://172.29.250.2/github.com")
    assert inputs.has_programs("web", checkout)


def test_what_has_passed_is_noted_and_what_has_failed_is_not(tmp_path: Path) -> None:
    known = {"good": python("good", "print('hello')"), "bad": python("bad", "print('oh'); raise SystemExit(3)")}
    result = run.run(["good"], known, {"good": "key"}, tmp_path)
    assert (result.failed, list(result.seconds)) == (None, ["good"])
    assert run.is_green("good", "key", tmp_path)
    assert not run.is_green("good", "another key", tmp_path)

    failed = run.run(["bad"], known, {"bad": "key"}, tmp_path).failed
    assert failed
    assert failed.lines == ["oh"]
    assert not run.is_green("bad", "key", tmp_path)


def test_a_phase_runs_what_this_checkout_has_whoever_starts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANSIBLE_CONFIG", raising=False)
    look = "import os, shutil; print(shutil.which('ansible-playbook')); print(os.environ['ANSIBLE_CONFIG'])"
    known = {"look": python("look", f"{look}; raise SystemExit(1)")}
    failed = run.run(["look"], known, {}, tmp_path).failed
    assert failed
    assert failed.lines == [str(Path(sys.executable).with_name("ansible-playbook")), str(run.ROOT / "ansible.cfg")]


def test_the_first_failure_ends_the_rest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    known = {
        "long": python("long", "import time; time.sleep(600)"),
        "bad": python("bad", "raise SystemExit('what went ' + 'wrong')"),
        "never": python("never", "print('started')", needs=("bad",)),
    }
    result = run.run(list(known), known, {}, tmp_path)
    assert list(result.seconds) == ["bad"]
    run.report(result, ["lint"], 1.5, 0.5)
    output = capfd.readouterr().out
    assert "started" not in output
    assert "bad  FAILED" in output
    assert "lint  (as it was when it last passed)" in output
    assert output.count("what went wrong") == 2, "as it came, and at the end"
    assert output.rstrip().endswith("-m tests.run 'bad'")


def test_what_failed_is_told_even_when_much_was_printed_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    framed = "  \x1b[2m│\x1b[0m E   assert 1 == 2"  # as Molecule prints it
    noisy = f"print({framed!r}); print('FAILED test_x.py::test_y'); print('tidying\\n' * 99); exit(1)"
    result = run.run(["noisy"], {"noisy": python("noisy", noisy)}, {})
    run.report(result, [], 1, 1)
    end = capsys.readouterr().out.partition("=== what noisy said of a failure\n")[2]
    assert end.startswith(f"{framed}\nFAILED test_x.py::test_y\n\n")

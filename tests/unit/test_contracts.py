"""What several files say about one thing agrees: defaults, argument specs, templates, documentation, versions."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.requirements import requirements_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.versions import DEFAULT_VERSION
from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.decision import Decision

from tests.tools import docs

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.name for path in ROOT.glob("roles/*/tasks"))
MODULES = sorted(path.stem for path in ROOT.glob("plugins/modules/*.py"))
FILTERS = sorted(path.stem for path in ROOT.glob("plugins/filter/*.yml"))
TEMPLATES = sorted(str(path.relative_to(ROOT / "roles")) for path in ROOT.glob("roles/*/templates/**/*.j2"))
SAMPLES = ROOT / "tests/unit/fixtures/role_samples.yml"


def load(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / path).read_text()) or {}


def role_options(role: str) -> dict[str, Any]:
    return load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def tracked_files() -> Iterator[Path]:
    """Everything that git tracks, or would with the next ``git add``."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    yield from (ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file())


def test_there_is_something_to_check() -> None:
    """Without it, the tests below would pass in an empty tree."""
    assert {"docker_engine", "exporters", "nginx_lb", "nvidia_container_toolkit", "nvidia_driver"} <= set(ROLES)
    assert {"alertmanager", "common", "fleet", "grafana", "jaeger", "model_store"} <= set(ROLES)
    assert {"prometheus", "vllm"} <= set(ROLES)
    assert {"model_probe", "driver_facts", "engine_ready", "fleet_compare", "fleet_plan", "gpu_facts"} <= set(MODULES)
    assert {"backends", "fleet_hosts", "launches_on", "scrape_targets"} <= set(FILTERS)
    assert {template.split("/")[0] for template in TEMPLATES} >= {"nginx_lb", "prometheus", "vllm"}


# Roles


@pytest.mark.parametrize("role", ROLES)
def test_the_defaults_are_those_of_the_argument_specs(role: str) -> None:
    specified = {name: option["default"] for name, option in role_options(role).items() if "default" in option}
    assert load(f"roles/{role}/defaults/main.yml") == specified


@pytest.mark.parametrize("role", ROLES)
def test_a_role_variable_is_either_required_or_has_a_default(role: str) -> None:
    for name, option in role_options(role).items():
        assert ("default" in option) != option.get("required", False), name


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_run_by_a_scenario_or_in_the_lab(role: str) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests/lab").glob("test_*.py"))
    runs = [*ROOT.glob("molecule/*/*.yml"), *(ROOT / name for name in set(re.findall(r"playbooks/\w+\.yml", tests)))]
    for path in runs:
        runs += [path.parent / name for name in re.findall(r"import_playbook: ([\w/]+\.yml)", path.read_text())]
    for path in runs:  # what runs roles that are run; it grows on the way
        for name in re.findall(r"\bgpuhosts\.vllm\.(\w+)\b", path.read_text()):
            runs += [task for task in ROOT.glob(f"roles/{name}/tasks/*.yml") if task not in runs]
    assert [path for path in runs if re.search(rf"\bgpuhosts\.vllm\.{role}\b", path.read_text())]


def calls(part: Any) -> Iterator[tuple[str, str, set[str]]]:
    """Where a piece of YAML calls roles of the collection: role, entry point, and the variables that it hands over."""
    if isinstance(part, list):
        for inside in part:
            yield from calls(inside)
    elif isinstance(part, dict):
        names = ("ansible.builtin.include_role", "ansible.builtin.import_role")
        called = [part[name] for name in names if name in part]
        called += [{"name": part["role"]}] if "role" in part else []
        for call in called:
            role = call["name"].removeprefix("gpuhosts.vllm.")
            handed = {name for name in part.get("vars", {}) if name.startswith(f"{role}_")}
            yield role, call.get("tasks_from", "main"), handed
        for inside in part.values():
            yield from calls(inside)


def test_what_is_handed_to_a_role_is_in_its_argument_specs() -> None:
    """Those of its entry point; one that has none of its own takes what the whole role takes."""
    paths = [path for place in ("playbooks", "roles/*/tasks") for path in ROOT.glob(f"{place}/**/*.yml")]
    found = [call for path in paths for call in calls(yaml.safe_load(path.read_text()))]
    assert {role for role, _, handed in found if handed} >= {"exporters", "fleet", "nginx_lb", "nvidia_driver", "vllm"}
    for role, entry, handed in found:
        if "{{" not in role:
            specs = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
            assert handed <= set(specs.get(entry, specs["main"])["options"]), (role, entry)


def test_a_default_that_is_spelled_where_no_role_has_it_is_the_roles() -> None:
    """Plays and the role fleet read variables of hosts on which the role that has the default does not run."""
    defaults = {name: value for role in ROLES for name, value in (load(f"roles/{role}/defaults/main.yml")).items()}
    spelled = [
        (name, yaml.safe_load(literal))
        for path in [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/*/*.yml")]
        for name, literal in re.findall(r"\b(\w+) \| default\(('[^()']+'|[\d.]+)\)", path.read_text())
        if name in defaults
    ]
    assert ("prometheus_user", "prometheus") in spelled
    assert [(name, value) for name, value in spelled if defaults[name] != value] == []


def test_a_variable_of_an_earlier_release_is_read_and_leads_to_one_that_there_is() -> None:
    variables = (ROOT / "roles/fleet/vars/main.yml").read_text()
    for old, new in load("roles/fleet/vars/main.yml")["_fleet_renamed"].items():
        assert new in role_options("fleet")
        assert f"{{{{ {old} | default(" in variables


def test_whoever_says_what_a_change_or_a_failure_is_says_why() -> None:
    """Else a reader cannot tell a reason from a task that was silenced."""
    lines = [
        (path.relative_to(ROOT).as_posix(), line.strip())
        for place in ("playbooks", "roles", "molecule")
        for path in (ROOT / place).rglob("*.yml")
        for line in path.read_text().splitlines()
        if re.match(r"\s*(changed|failed)_when:", line)
    ]
    assert len(lines) > 20
    assert [(name, line) for name, line in lines if not re.search(r" # \S", line)] == []


# Templates


def parse_systemd(text: str) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(text)
    assert parser.sections()


def parse_environment(text: str) -> None:
    """Comments and NAME="VALUE", as systemd and the shell read them."""
    assert re.fullmatch(r'(?:(?:#[^\n]*|\w+="(?:[^"\\]|\\.)*")?\n)*', text, re.DOTALL)


def parse_nginx(text: str) -> None:
    """Every statement ends in ";" or opens a block, and every block closes."""
    depth = 0
    bare = re.sub(r"""#[^\n]*|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\$\{\w+\}""", "", text)
    for statement, end in re.findall(r"([^;{}]*)([;{}]|\Z)", bare):
        depth += {"{": 1, "}": -1}.get(end, 0)
        assert depth >= 0
        assert end in {";", "{"} or not statement.strip(), statement
    assert depth == 0


PARSERS: dict[str, Callable[[str], object]] = {
    "": parse_environment,
    ".conf": parse_nginx,
    ".fact": json.loads,
    ".ini": configparser.RawConfigParser().read_string,
    ".json": json.loads,
    ".service": parse_systemd,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_renders_and_parses(template: str) -> None:
    path = ROOT / "roles" / template
    role = template.split("/", maxsplit=1)[0]
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "roles" / role))  # where lookups find the role's files
    variables = {"ansible_managed": "Managed by Ansible", "role_path": str(ROOT / "roles" / role)}
    for name in ("defaults/main.yml", "vars/**/*.yml"):
        for constants in sorted((ROOT / "roles" / role).glob(name)):
            variables |= loader.load_from_file(str(constants), trusted_as_template=True) or {}
    variables |= loader.load_from_file(str(SAMPLES))[role]
    # As ansible.builtin.template does it.
    source = trust_as_template(path.read_text())
    text = Templar(loader, variables=variables).template(source, escape_backslashes=False)
    assert "{{" not in text
    PARSERS[Path(path.stem).suffix](text)


# Modules and filters


def argument_spec(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a module makes its AnsibleModule of, with what its action takes; or what an action that decides is given."""
    own: dict[str, Any] = {}
    if (ROOT / f"plugins/action/{name}.py").exists():
        action = importlib.import_module(f"ansible_collections.gpuhosts.vllm.plugins.action.{name}").ActionModule
        if issubclass(action, Decision):
            return {"argument_spec": action.SPEC, "supports_check_mode": True}
        own = getattr(action, "OWN", {})
    module = importlib.import_module(f"ansible_collections.gpuhosts.vllm.plugins.modules.{name}")
    made = Mock(side_effect=SystemExit)
    monkeypatch.setattr(module, "AnsibleModule", made)
    with pytest.raises(SystemExit):
        module.main()
    arguments = made.call_args.kwargs
    return {**arguments, "argument_spec": {**arguments["argument_spec"], **own}}


def comparable(options: dict[str, Any], below: str) -> dict[str, Any]:
    """What documentation and argument spec both say about options, in one form; ``below`` names the nested ones."""
    return {
        name: {
            "type": option.get("type", "str"),
            "required": option.get("required", False),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "elements": option.get("elements"),
            "aliases": option.get("aliases", []),
            "options": comparable(option.get(below) or {}, below),
        }
        for name, option in options.items()
        if not name.startswith("_")  # between a module and its action plugin
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_module_documents_its_argument_spec(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documented, _, _ = docs.documentation(ROOT / f"plugins/modules/{module}.py")
    arguments = argument_spec(module, monkeypatch)
    assert comparable(documented.get("options", {}), "suboptions") == comparable(arguments["argument_spec"], "options")
    assert documented["module"] == module
    check_mode = documented["attributes"]["check_mode"]["support"]
    assert (check_mode != "none") == arguments.get("supports_check_mode", False)


def test_every_filter_is_documented() -> None:
    defined = set()
    for path in ROOT.glob("plugins/filter/*.py"):
        module = importlib.import_module(f"ansible_collections.gpuhosts.vllm.plugins.filter.{path.stem}")
        defined |= set(module.FilterModule().filters())
    assert set(FILTERS) == defined


def test_the_generated_pages_are_current() -> None:
    assert [str(page.relative_to(ROOT)) for page in docs.outdated()] == [], "run: make docs"


# The plan: test_golden.py holds plans against docs/plan.schema.json, which the page is generated from.


# The whole tree


def test_variables_beside_an_inventory_are_in_a_directory() -> None:
    """Else Ansible only warns; a copy of the project that lost its links has a file there."""
    found = [path for place in ("inventories", "tests") for path in ROOT.glob(f"{place}/*/group_vars")]
    assert found
    assert [path for path in found if not path.is_dir()] == []


def test_the_version_has_its_changelog() -> None:
    assert load("galaxy.yml")["version"] == list(load("changelogs/changelog.yaml")["releases"])[-1]


@pytest.mark.parametrize(
    ("pattern", "most"),
    [(r"(plugins|tests|molecule)/.*\.py", 500), (r"playbooks/[^/]+\.ya?ml", 60)],
    ids=["Python", "playbooks"],
)
def test_no_file_is_too_long_to_oversee(pattern: str, most: int) -> None:
    lengths = {
        name: len(path.read_text().splitlines())
        for path in tracked_files()
        if re.fullmatch(pattern, name := path.relative_to(ROOT).as_posix())
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length > most} == {}


def test_the_pins_agree() -> None:
    needed = re.findall(r"^(\w[\w-]*)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert [name for name, _ in needed] == ["huggingface-hub", "nvidia-ml-py"]
    for name, pin in needed:
        assert f"\n{name}=={pin} \\\n" in (ROOT / "requirements-dev.txt").read_text()
    installer = (ROOT / "roles/vllm/files/installer.lock").read_text().partition("\nuv==")[2]
    assert f"\nuv=={installer}" in (ROOT / "requirements-dev.txt").read_text()
    vllm = load("roles/vllm/defaults/main.yml")["vllm_version"]
    assert vllm == DEFAULT_VERSION
    assert f"\nvllm=={vllm} \\\n" in (ROOT / f"roles/vllm/files/vllm-{vllm}.lock").read_text()


def test_what_roles_say_of_the_release_of_vllm_is_what_its_table_says() -> None:
    needed = requirements_of(DEFAULT_VERSION)
    assert needed is not None
    (python,) = re.findall(r"Python \((\S+) or newer\)", (ROOT / "roles/vllm/defaults/main.yml").read_text())
    assert python == "{}.{}".format(*needed.python)
    examples = [*(ROOT / "plugins/modules").glob("*.py"), *(ROOT / "docs").rglob("*.md")]
    named = {
        version
        for path in examples
        for version in re.findall(r"^ *vllm_version: (\S+)$", path.read_text(), re.MULTILINE)
    }
    assert named == {DEFAULT_VERSION}


def test_no_file_names_the_machine_it_was_written_on() -> None:
    # Where people and CI keep checkouts and homes; ops is the user of the lab's hosts.
    place = re.compile(rb"(?<![\w.}])/(?:(?:root|Users|work|builds|workspace)/|home/(?!ops\b))\w")
    assert [path for path in tracked_files() if place.search(path.read_bytes())] == []


# Imports

# From the bottom upwards: a package imports those before it, never one after it.
LAYERS = [
    "module_utils._errors",
    "module_utils._units",
    "module_utils._releases",
    "module_utils._host",
    "module_utils._engine",
    "module_utils._memory",
    "module_utils._speed",
    "module_utils._wishes",
    "module_utils._planner",
    "plugin_utils",
    "modules",
    "filter",
    "action",
]


def layer_of(module: str) -> int:
    """The place in LAYERS of a module below ``plugins``, given with dots."""
    return next(place for place, layer in enumerate(LAYERS) if f"{module}.".startswith(f"{layer}."))


def imports_of(path: Path) -> Iterator[str]:
    """What a plugin imports of the collection: modules below ``plugins``, with dots."""
    package = ".".join(path.relative_to(ROOT / "plugins").parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), f"plugins.{package}")
            name = name.removeprefix("ansible_collections.gpuhosts.vllm.")
            if name.startswith("plugins."):
                yield name.removeprefix("plugins.")


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_downwards(layer: str) -> None:
    place = ROOT / "plugins" / layer.replace(".", "/")
    paths = sorted(place.rglob("*.py")) or [place.with_suffix(".py")]
    upwards = [(path.name, name) for path in paths for name in imports_of(path) if layer_of(name) > layer_of(layer)]
    assert upwards == []

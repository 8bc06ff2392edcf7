"""Which files of the checkout a phase of the tests depends on, and what they hold."""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import importlib.util
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What makes the hosts, what installs on them, and what runs Ansible.
COMMON = ("tests/lab/*", "tests/fake_nvml/*", "requirements-dev.txt", "galaxy.yml", "meta/runtime.yml")
_STAND_IN = {"tests/stand_in/*", "plugins/module_utils/_releases/options.py"}  # its command line is that table
_TESTS_OF_THE_LAB = "tests/lab/test_*.py"
_PROGRAMS = "http://172.29.250.2/github.com"  # where the lab's mirror has them
_NAME = re.compile(r"\bgpuhosts\.vllm\.(\w+)\b")  # of a role, a module, a filter
_STAGE = re.compile(r"import_playbook: \.\./\.\./(playbooks/\S+)")
_COLLECTION = "ansible_collections.gpuhosts.vllm."


def tracked(root: Path = ROOT) -> list[str]:
    """Every file that git tracks, or would with the next ``git add``."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in output.split("\0") if name and (root / name).is_file()})


def changed_since(revision: str, root: Path = ROOT) -> list[str]:
    """Every path that differs between a revision and the checkout as it lies there, new and deleted ones included."""
    command = ["git", "diff", "--name-only", "-z", "--no-renames", revision, "--"]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    new = ["git", "ls-files", "-z", "--others", "--exclude-standard"]
    output += subprocess.run(new, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in output.split("\0") if name})


def of_scenario(name: str, root: Path = ROOT) -> list[str]:
    """Patterns of what a scenario of Molecule depends on: itself, what it names of the collection, what that names."""
    todo = [root / "molecule" / name]
    names: set[str] = set()
    patterns = {f"molecule/{name}/*", "molecule/common/*", "molecule/conftest.py", ".config/molecule/*", *COMMON}
    while todo:
        for path in todo.pop().rglob("*.yml"):
            text = path.read_text()
            if re.search("/stand[-_]in", text):
                patterns |= _STAND_IN
            stages = {found for found in _STAGE.findall(text) if (root / found).is_file()}
            patterns |= stages | ({"tests/hub.py"} if "tests/hub.py" in text else set())
            text += "".join((root / stage).read_text() for stage in sorted(stages))
            for found in set(_NAME.findall(text)) - names:
                names.add(found)
                if (root / "roles" / found).is_dir():
                    patterns.add(f"roles/{found}/*")
                    todo.append(root / "roles" / found)
                patterns |= of_plugin(found, root)
    return [*sorted(patterns), f"!{_TESTS_OF_THE_LAB}"]


def has_programs(name: str, root: Path = ROOT) -> bool:
    """Whether a scenario of Molecule installs what tests/lab/programs builds."""
    return any(_PROGRAMS in path.read_text() for path in (root / "molecule" / name).rglob("*.yml"))


def of_plugin(name: str, root: Path = ROOT) -> set[str]:
    """The files of a module, an action or a filter of the collection, and all that these import of it."""
    plugins = root / "plugins"
    todo = [path for kind in ("action", "modules") for path in plugins.glob(f"{kind}/{name}.py")]
    todo += [path for path in plugins.glob("filter/*.py") if f'"{name}"' in path.read_text()]
    found: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imports(path, root)
    return {str(path.relative_to(root)) for path in found}


def _imports(path: Path, root: Path) -> list[Path]:
    """Files of the collection that a plugin imports; ``from x import y`` may mean a module y or a name in x."""
    package = ".".join(path.relative_to(root).parent.parts)
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    places = [root / name.removeprefix(_COLLECTION).replace(".", "/") for name in names]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return [file for file in files if file.is_relative_to(root / "plugins") and file.is_file()]


def matching(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The paths that a pattern matches and no ``!pattern`` does; ``*`` goes across directories."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]

    def any_of(path: str, patterns: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)

    return [path for path in paths if any_of(path, wanted) and not any_of(path, unwanted)]


def digest(paths: Iterable[str], also: str, root: Path = ROOT) -> str:
    """One value for what files hold, what they are called, which of them are executable, and a text beside them."""
    sum_of_all = hashlib.sha256(also.encode())
    for path in paths:
        file = root / path
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        sum_of_all.update(f"\0{path}\0{bool(file.stat().st_mode & 0o100)}\0{content}".encode())
    return sum_of_all.hexdigest()

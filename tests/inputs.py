"""Which files of the checkout a phase of the tests depends on, and what they hold."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What makes the hosts, what installs on them, and what runs Ansible.
COMMON = ("plugins/*", "tests/lab/*", "tests/fake_nvml/*", "requirements-dev.txt", "galaxy.yml", "meta/runtime.yml")
_TESTS_OF_THE_LAB = "tests/lab/test_*.py"
_ROLE = re.compile(r"\bgpuhosts\.vllm\.(\w+)\b")


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
    """Patterns of what a scenario of Molecule depends on: itself, the roles that it names, those that these name."""
    todo = [root / "molecule" / name]
    roles: set[str] = set()
    while todo:
        for path in todo.pop().rglob("*.yml"):
            for role in set(_ROLE.findall(path.read_text())) - roles:
                if (root / "roles" / role).is_dir():
                    roles.add(role)
                    todo.append(root / "roles" / role)
    scenario = [f"molecule/{name}/*", "molecule/common/*", "molecule/conftest.py", ".config/molecule/*"]
    return [*scenario, *(f"roles/{role}/*" for role in sorted(roles)), *COMMON, f"!{_TESTS_OF_THE_LAB}"]


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

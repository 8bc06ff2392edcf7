"""The tarball that users install: built, installed and used away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import defaults
from tests.lab.__main__ import make_images

ROOT = Path(__file__).resolve().parents[2]
DEVELOPER_ONLY = {"collections", "inventories", "molecule", "tests", "Makefile", "pyproject.toml", "ansible.cfg", ".ci"}
Command = Callable[..., str]


def user_environment(home: Path) -> dict[str, str]:
    """Variables with which nothing of this checkout is found."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return environment | {"ANSIBLE_COLLECTIONS_PATH": str(home), "HOME": str(home)}


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("build")
    subprocess.run(["ansible-galaxy", "collection", "build", "--output-path", build], cwd=ROOT, check=True)
    (path,) = build.glob("gpuhosts-vllm-*.tar.gz")
    return path


@pytest.fixture(scope="module")
def home(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a user who has installed the collection."""
    home = tmp_path_factory.mktemp("user")
    command = ["ansible-galaxy", "collection", "install", str(tarball), "-p", str(home)]
    subprocess.run(command, cwd=home, env=user_environment(home), check=True)
    return home


@pytest.fixture(scope="module")
def command(home: Path) -> Command:
    """Run a command where only the installed collection can be found, and return its output."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            arguments,
            cwd=home,
            env=user_environment(home),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_it_holds_what_users_need_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        top = {name.split("/")[0] for name in archive.getnames()}
    assert {"plugins", "roles", "playbooks", "meta", "README.md", "LICENSE", "CHANGELOG.rst"} <= top
    assert not top & DEVELOPER_ONLY


@pytest.mark.parametrize("module", sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py")))
def test_every_module_is_documented(command: Command, module: str) -> None:
    assert "EXAMPLES" in command("ansible-doc", f"gpuhosts.vllm.{module}")


def test_the_playbooks_run_by_their_names(command: Command) -> None:
    inventory = str(ROOT / "inventories/prod")
    assert "gpuhosts/vllm/playbooks/site.yml" in command(
        "ansible-playbook", "gpuhosts.vllm.site", "-i", inventory, "--syntax-check"
    )
    assert "failed=0" in command("ansible-playbook", "gpuhosts.vllm.validate", "-i", inventory)


@pytest.mark.parametrize("how", [defaults.oldest, defaults.newest], ids=lambda how: how.__name__)
def test_the_defaults_of_every_role_hold_where_it_is_installed(
    how: Callable[[], defaults.Core], home: Path, tmp_path: Path
) -> None:
    core = how()
    if core.image:
        make_images()
    shutil.copytree(home / "ansible_collections", tmp_path / "ansible_collections")
    defaults.judge(defaults.evaluate(core, tmp_path))

"""The unit tests import the collection as Ansible does: by its own finder, through the links in collections/."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.tools import docs

# The same examples in every run, however slow the machine: a red run can be repeated.
settings.register_profile("repeatable", derandomize=True, deadline=None)


ROOT = Path(__file__).resolve().parents[2]


def pytest_configure() -> None:
    settings.load_profile("repeatable")
    docs.find_collection()


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a libnvidia-ml.so.1 that answers from the file named in FAKE_NVML_CONFIG."""
    directory = tmp_path_factory.mktemp("nvml")
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    source = ROOT / "tests/fake_nvml/fake_nvml.c"
    subprocess.run(["gcc", *options, "-o", str(directory / "libnvidia-ml.so.1"), str(source)], check=True)
    return directory


@pytest.fixture
def ansible_environment(fake_nvml: Path, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """What Ansible's programs get to run on this machine, by the name of the host whose GPUs are pretended."""
    return lambda gpus: (
        os.environ
        | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_NOCOLOR": "1",
            "LD_LIBRARY_PATH": str(fake_nvml),
            "FAKE_NVML_CONFIG": str(ROOT / f"tests/fake_nvml/hosts/{gpus}.conf"),
        }
    )

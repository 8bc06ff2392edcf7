"""What the tests of the plugins share: modules run through main(), a pretended NVML, and a server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.plugins.scripted_engine import Engine

if TYPE_CHECKING:
    from tests.unit.plugins.patient import Patient

ROOT = Path(__file__).resolve().parents[3]
RunModule = Callable[..., dict[str, Any]]
RunAction = Callable[..., dict[str, Any]]
ReadGpus = Callable[[str], dict[str, Any]]
READ_GPUS = """
import json
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.nvml import read_host
print(json.dumps(read_host().to_dict()))
"""


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> RunModule:
    """Run a module's main() with arguments; returns what it prints as JSON."""

    def run(module: ModuleType, **arguments: Any) -> dict[str, Any]:
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def run_action() -> RunAction:
    """Run an action that decides, with arguments; returns its result."""

    def run(action: ModuleType, **arguments: Any) -> dict[str, Any]:
        task = Mock(args=arguments, async_val=0, check_mode=False)
        return action.ActionModule(task, *[Mock() for _ in range(5)]).run(task_vars={})

    return run


@pytest.fixture
def read_gpus(fake_nvml: Path, tmp_path: Path) -> ReadGpus:
    """Read the GPUs of a host that a text describes (tests/fake_nvml/README.md), with the real pynvml."""

    def read(description: str) -> dict[str, Any]:
        config = tmp_path / "fake-nvml.conf"
        config.write_text(description)
        # The loader looks at its path when a process starts.
        path = {"PYTHONPATH": str(ROOT / "collections"), "LD_LIBRARY_PATH": str(fake_nvml)}
        environment = os.environ | path | {"FAKE_NVML_CONFIG": str(config)}
        command = [sys.executable, "-c", READ_GPUS]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return read


@pytest.fixture
def patient(tmp_path: Path, read_gpus: ReadGpus) -> Patient:
    """A healthy GPU host, for tests that make it ill."""
    from tests.unit.plugins.patient import Patient  # the collection can be imported once pytest is configured

    return Patient(tmp_path / "root", read_gpus)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A vLLM that answers; give its attributes other values to make it fail."""
    with Engine() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()

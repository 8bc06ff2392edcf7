"""A package that the controller lacks: the run says what to do, somebody does that, and the run goes on."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.unit.pretended_hub import served, write_model

from .conftest import Play

VENV = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def hidden(package: str, place: Path) -> dict[str, str]:
    """An environment in which Python does not find a package."""
    (place / package).mkdir(parents=True)
    (place / package / "__init__.py").write_text("raise ModuleNotFoundError\n")
    return {**VENV, "PYTHONPATH": str(place)}


def do(remedy: str) -> None:
    """What the run has printed. The package was only hidden, so that pip has nothing to fetch."""
    subprocess.run(shlex.split(remedy), env=os.environ | VENV, check=True)


def test_nvidia_ml_py(play: Play, inventory: dict[str, Any], tmp_path: Path) -> None:
    inventory["gpu_hosts"]["vars"] |= {"ansible_become": False}
    done = play("preflight", "--limit", "gpu1", environment=hidden("pynvml", tmp_path / "without"))
    assert done.code != 0
    assert "Failed to import the required Python library (nvidia-ml-py)" in done.text
    (remedy,) = set(re.findall(r"Install it on the controller, from where it is sent along \(([^)]*)\)", done.text))
    do(remedy)
    assert play("detect", "--limit", "gpu1").code == 0


def test_a_url_of_a_mirror(play: Play, inventory: dict[str, Any], tmp_path: Path) -> None:
    with served(write_model(tmp_path / "hub")) as (address, _):
        model = {"name": "tiny", "source": f"{address}/acme/tiny", "replicas": 1, "parallelism": {"tensor": 1}}
        site = {"fleet_hub_online": True, "fleet_hf_home": str(tmp_path / "home"), "vllm_models": [model]}
        inventory["gpu_hosts"]["vars"] = site
        done = play("plan", environment=VENV)
        assert done.code != 0
        ((model["source"], site["fleet_hub_endpoint"]),) = set(
            re.findall(r"Set source to (\S+), and fleet_hub_endpoint to (\S+), for all models", done.text)
        )
        assert play("plan", environment=VENV).code == 0


def test_huggingface_hub(play: Play, inventory: dict[str, Any], tmp_path: Path) -> None:
    with served(write_model(tmp_path / "hub")) as (address, _):
        model = {"name": "tiny", "source": "acme/tiny", "replicas": 1, "parallelism": {"tensor": 1}}
        site = {"fleet_hub_online": True, "fleet_hub_endpoint": address, "fleet_hf_home": str(tmp_path / "home")}
        inventory["gpu_hosts"]["vars"] = site | {"vllm_models": [model]}
        done = play("plan", environment=hidden("huggingface_hub", tmp_path / "without"))
        assert done.code != 0
        (remedy,) = set(re.findall(r"Install it for that Python: (\S+ -m pip install \w+)", done.text))
        do(remedy)
        assert play("plan").code == 0

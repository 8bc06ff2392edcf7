"""What docs/platforms.md says of roles and systems."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.tools import systems
from tests.tools.systems import DATA, DRESSED, RUN, UNKNOWN

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two roles: `web` is run on Debian and dressed, `cache` knows Debian 12 alone and is included by a task."""
    shared = [{"hostname": "bookworm", "image": "lab:bookworm"}, {"hostname": "trixie", "image": "lab:trixie"}]
    web = [{"hosts": "all", "roles": [{"role": "gpuhosts.vllm.web"}]}]
    include = {"name": "Cache", "ansible.builtin.include_role": {"name": "gpuhosts.vllm.cache"}}
    dressed = [
        {"hostname": "rocky9", "image": "lab:trixie"},
        {"hostname": "rocky10", "image": "lab:trixie"},
        {"hostname": "ubuntu2204", "image": "lab:bookworm"},
    ]
    rows: dict[str, dict[str, str]] = {
        "Debian 12": {},
        "Debian 13": {},
        "Ubuntu 22.04": {},
        "Rocky 9": {},
        "Rocky 10": {},
        "AlmaLinux 9": {},
    }
    for name, content in {
        ".config/molecule/config.yml": {"platforms": shared},
        "molecule/web/molecule.yml": {},
        "molecule/web/converge.yml": [*web, {"hosts": "all", "tasks": [include]}],
        "molecule/dressed/molecule.yml": {"platforms": dressed},
        "molecule/dressed/converge.yml": web,
        "roles/web/vars/main/platforms.yml": {"_web_platforms": rows},
        "roles/cache/vars/main/platforms.yml": {"_cache_platforms": {"Debian 12": {}}},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(content))
    monkeypatch.setattr(systems, "ROOT", tmp_path)
    return tmp_path


def test_a_cell_says_what_the_scenarios_run(checkout: Path) -> None:
    found = systems.matrix()

    assert list(found) == list(systems.SYSTEMS)
    assert found["Debian 12"] == {"cache": RUN, "web": RUN}
    assert found["Debian 13"] == {"cache": UNKNOWN, "web": RUN}
    assert {system for system, roles in found.items() if roles["web"] == DRESSED} == {
        "Rocky 9",
        "Rocky 10",
        "Ubuntu 22.04",
    }
    assert found["AlmaLinux 9"] == {"cache": UNKNOWN, "web": DATA}

    (checkout / "molecule/dressed/converge.yml").write_text("[]")
    assert systems.matrix()["Rocky 9"] == {"cache": UNKNOWN, "web": DATA}


@pytest.mark.parametrize("scenario", sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")))
def test_every_scenario_has_a_place_for_tests_of_its_own(scenario: str) -> None:
    """Without it, Molecule runs none at all, and says that all is well."""
    assert list((ROOT / f"molecule/{scenario}/tests").glob("test_*.py"))


@pytest.mark.parametrize("scenario", ["enterprise_linux", "ubuntu"])
def test_every_role_of_a_dressed_scenario_runs_on_all_of_its_hosts(scenario: str) -> None:
    (play,) = yaml.safe_load((ROOT / f"molecule/{scenario}/converge.yml").read_text())
    assert play["hosts"] == "all"
    for entry in play["roles"]:
        name = entry["role"].rpartition(".")[2]
        assert entry == {
            "role": f"gpuhosts.vllm.{name}",
            "tags": name,
        }  # a condition would make docs/platforms.md untrue

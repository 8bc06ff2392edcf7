"""Packages of a vendor: what is told to the package manager, and what of it is missing on a host."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.packages import Package
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.vendor import Vendor, differing_vendor, vendor_of

KEYS = Path(__file__).parents[3] / "fixtures/keys"
KEY = f"sha256:{hashlib.sha256(b'key').hexdigest()}"
APT = Vendor(
    "apt",
    {"engine": "5:1.2-1~debian"},
    key={"url": "http://mirror/gpg", "path": "/etc/apt/keyrings/engine.asc", "checksum": KEY},
    files={"/etc/apt/sources.list.d/engine.list": "deb http://mirror /\n"},
)
DNF = Vendor(
    "dnf",
    {"engine": "1.2-1.el9"},
    key={"url": "http://mirror/gpg", "fingerprint": "060A 61C5 1B55 8A7F 742B  77AA C52F EB6B 621E 9F35"},
    repository={"name": "stable", "file": "engine", "baseurl": "http://mirror/9", "gpgcheck": "1"},
)
THERE = {
    "apt": [Package("engine", "5:1.2-1~debian", "amd64", held=True)],
    "dnf": [
        Package("engine", "3:1.2-1.el9", "x86_64", held=True, manager="rpm"),
        Package("python3-dnf-plugin-versionlock", "0:4.3-1", "noarch", manager="rpm"),
    ],
}
NOTHING: dict[str, list[str]] = {"repository": [], "packages": [], "locks": []}


def run(command: Sequence[str]) -> str:
    """An RPM database that knows the key; of a newer rpm it would be the whole fingerprint."""
    return "621e9f35\n" if "gpg-pubkey" in command else ""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host that has all of both."""
    files = {
        "etc/apt/keyrings/engine.asc": "key",
        "etc/apt/sources.list.d/engine.list": "deb http://mirror /\n",
        "etc/yum.repos.d/engine.repo": "[stable]\nname = Engine\nbaseurl = http://mirror/9\ngpgcheck = yes\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o644)
    return tmp_path


def test_a_table_says_it_with_the_texts_of_platform_and_role() -> None:
    platform = {"manager": "dnf", "suffix": ".el9", "sources": {"vendor": {}}}
    table = {"packages": {"engine": "{version}{suffix}", "client": ""}, "key": {"url": "{mirror}/gpg"}}
    vendor = vendor_of(platform, table, {"version": "1.2-1", "mirror": "http://mirror", "settings": {"a": True}})

    assert vendor == Vendor("dnf", {"engine": "1.2-1.el9", "client": ""}, key={"url": "http://mirror/gpg"})
    assert vendor.wanted == ["engine-1.2-1.el9", "client"]
    assert vendor.pins == {"engine": "1.2-1.el9"}
    assert replace(vendor, manager="apt").wanted == ["engine=1.2-1.el9", "client"]


@pytest.mark.parametrize("vendor", [APT, DNF], ids=["apt", "dnf"])
def test_a_host_that_has_all_of_it(root: Path, vendor: Vendor) -> None:
    assert differing_vendor(vendor, THERE[vendor.manager], root, run) == NOTHING


@pytest.mark.parametrize("vendor", [APT, DNF], ids=["apt", "dnf"])
def test_a_host_that_has_none_of_it(tmp_path: Path, vendor: Vendor) -> None:
    found = differing_vendor(vendor, [], tmp_path, lambda _: "")

    assert found["packages"][0] == "engine is not installed"
    assert len(found["repository"]) == 2
    assert found["locks"] == []  # what is not there is held once it is


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("etc/apt/keyrings/engine.asc", "another key", "/etc/apt/keyrings/engine.asc is another one"),
        ("etc/apt/sources.list.d/engine.list", "deb http://other /\n", "engine.list is another one"),
    ],
)
def test_another_repository_for_apt(root: Path, path: str, content: str, reason: str) -> None:
    (root / path).write_text(content)
    (found,) = differing_vendor(APT, THERE["apt"], root, run)["repository"]
    assert reason in found


def test_another_repository_for_dnf(root: Path) -> None:
    moved = replace(DNF, repository={**DNF.repository, "baseurl": "http://elsewhere/9"})
    assert differing_vendor(moved, THERE["dnf"], root, run)["repository"] == [
        "/etc/yum.repos.d/engine.repo is another one"
    ]
    strange = replace(DNF, key={**DNF.key, "fingerprint": "0" * 40})
    assert differing_vendor(strange, THERE["dnf"], root, run)["repository"] == [f"rpm does not know the key {'0' * 40}"]


@pytest.mark.parametrize("known", ["c52feb6b621e9f35", "060a61c51b558a7f742b77aac52feb6b621e9f35"])
def test_rpm_knows_a_key_by_more_or_less_of_its_fingerprint(root: Path, known: str) -> None:
    assert differing_vendor(DNF, THERE["dnf"], root, lambda _: f"b86b3716\n{known}\n")["repository"] == []


@pytest.mark.parametrize("vendor", [APT, DNF], ids=["apt", "dnf"])
def test_another_version_and_one_that_is_not_held(root: Path, vendor: Vendor) -> None:
    engine, *others = THERE[vendor.manager]
    older = replace(engine, version=engine.version.replace("1.2", "1.1"))
    found = differing_vendor(vendor, [older, *others], root, run)
    assert found["packages"] == [f"engine is {older.version}, not {vendor.packages['engine']}"]

    loose = differing_vendor(vendor, [replace(engine, held=False), *others], root, run)
    assert loose == NOTHING | {"locks": ["engine is not held"]}


def test_a_package_of_any_version_needs_to_be_there_and_is_not_held(tmp_path: Path) -> None:
    vendor = Vendor("apt", {"engine": ""})
    loose = replace(THERE["apt"][0], held=False)
    assert differing_vendor(vendor, [loose], tmp_path, run) == NOTHING
    unfinished = replace(loose, configured=False)
    assert differing_vendor(vendor, [unfinished], tmp_path, run)["packages"] == ["engine is installed half-way"]


@pytest.mark.parametrize(
    ("manager", "wanted", "there", "same"),
    [
        ("apt", "1.30.7-*", "1.30.7-1~jammy", True),
        ("apt", "1.30.7-*", "1.30.70-1~jammy", False),
        ("apt", "1.30.7+*", "1.30.7+1.0.2-1~jammy", True),
        ("dnf", "1.30.7-*", "2:1.30.7-1.el9.ngx", True),
        ("dnf", "1.30.7+*-*", "1:1.30.8+1.0.2-1.el9.ngx", False),
    ],
)
def test_a_version_may_leave_open_how_it_ends(
    tmp_path: Path, manager: str, wanted: str, there: str, same: bool
) -> None:
    engine = replace(THERE[manager][0], version=there)
    found = differing_vendor(Vendor(manager, {"engine": wanted}), [engine, *THERE[manager][1:]], tmp_path, run)
    assert found["packages"] == ([] if same else [f"engine is {there}, not {wanted}"])


def test_a_key_file_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    known = {
        "url": "http://mirror/keys",
        "path": "/keys/one.asc",
        "fingerprint": "A953E7275C1F046814181AD14A5A4FF0C39F32FE",
    }
    vendor = Vendor("apt", {}, key=known)
    other = ["/keys/one.asc is not the key A953E7275C1F046814181AD14A5A4FF0C39F32FE"]
    assert differing_vendor(vendor, [], tmp_path, run)["repository"] == other

    for name, found in {"two.asc": other, "one.asc": []}.items():
        shutil.copy(KEYS / name, tmp_path / "keys/one.asc")
        assert differing_vendor(vendor, [], tmp_path, run)["repository"] == found


def test_the_steps_that_are_to_be_done(root: Path) -> None:
    assert APT.todo(THERE["apt"], root, run) == {"repository": False, "packages": False, "locks": False}
    assert APT.todo([], root, run) == {"repository": False, "packages": True, "locks": False}


def test_dnf_needs_what_locks(root: Path) -> None:
    found = differing_vendor(DNF, THERE["dnf"][:1], root, run)
    assert found == NOTHING | {"packages": ["python3-dnf-plugin-versionlock is not installed"]}

"""What goes with a service, what stays, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import absence
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.packages import Package
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import Answer

NOTHING: dict[str, Any] = {
    **{name: [] for name in ("units", "files", "packages", "others_in", "emptied")},
    **dict.fromkeys(("instances", "template", "firewall", "user", "user_since", "home"), ""),
    "purge": True,
}
NGINX = Package("nginx", "1.22.1-9")
OURS = (998, "!:20000::::::")  # made on the day of its directory
NGINX_RPM = Package("nginx", "1:1.30.7", manager="rpm")


class System:
    """Answers as the commands of a host do."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.owned: set[str] = set()  # files that packages have
        self.users: dict[str, tuple[int, str]] = {}  # number, and what shadow(5) tells of the password and its day
        self.born = 20000 * 86400 + 3600  # of every directory, in seconds since 1970
        self.done: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str], _seconds: float | None = None) -> Answer:
        last = command[-1]
        if command[:2] == ["systemctl", "show"]:
            active, enabled = ("active", "enabled") if last in self.running else ("inactive", "")
            return Answer(0, f"ActiveState={active}\nUnitFileState={enabled}\n")
        if command[0] in ("dpkg", "rpm"):
            return Answer(0 if last in self.owned else 1)
        if command[0] == "getent":
            if last not in self.users:
                return Answer(2)
            number, shadow = self.users[last]
            return Answer(
                0, f"{last}:x:{number}:{number}::/:/bin/false\n" if "passwd" in command else f"{last}:{shadow}\n"
            )
        if command[0] == "stat":
            return Answer(0, f"{self.born}\n")
        self.done.append(tuple(command))
        return Answer(1, errors="no such thing") if last == "broken" else Answer(0)


@pytest.fixture
def system() -> System:
    return System()


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / path.lstrip("/")).write_text("")


def look(root: Path, system: System, *packages: Package, **given: Any) -> tuple[list[absence.Removal], list[str]]:
    return absence.removals(root, system, NOTHING | given, packages)


def said(root: Path, system: System, *packages: Package, **given: Any) -> list[str]:
    return [
        removal.says.replace(str(root), "") for removal in look(root, system, *packages, **given)[0] if removal.says
    ]


def take(root: Path, system: System, *packages: Package, **given: Any) -> None:
    for removal in look(root, system, *packages, **given)[0]:
        assert absence.carry_out(removal, system) == ""


def test_where_nothing_is_nothing_goes(tmp_path: Path, system: System) -> None:
    given = {"units": ["nginx.service"], "files": ["/etc/nginx/nginx.conf", "/opt/*/x"], "packages": ["nginx"]}
    assert look(tmp_path, system, **given, user="nginx", emptied=["/etc/nginx"]) == ([], [])


def test_units_come_first_and_systemd_is_told_of_its_files(tmp_path: Path, system: System) -> None:
    system.running = {"vllm@a-1.service"}
    write(tmp_path, "/etc/vllm/instances/a-1.yaml", "/etc/vllm/instances/b-1.yaml", "/etc/systemd/system/vllm@.service")
    given = {"instances": "/etc/vllm/instances", "template": "vllm@.service"}
    files = ["/etc/vllm/instances/*.yaml", "/etc/systemd/system/vllm@.service"]
    assert said(tmp_path, system, **given, files=files) == [
        "vllm@a-1.service stops for good",
        "/etc/vllm/instances/a-1.yaml goes",
        "/etc/vllm/instances/b-1.yaml goes",
        "/etc/systemd/system/vllm@.service goes",
    ]
    take(tmp_path, system, **given, files=files)
    assert system.done == [("systemctl", "disable", "--now", "vllm@a-1.service"), ("systemctl", "daemon-reload")]
    system.running = set()
    assert look(tmp_path, system, **given, files=files) == ([], [])


def test_a_foreign_unit_of_a_like_name_runs_on(tmp_path: Path, system: System) -> None:
    system.running = {"vllm@theirs.service"}
    assert said(tmp_path, system, instances="/etc/vllm/instances", template="vllm@.service") == []


def test_a_directory_stays_with_what_others_have_put_into_it(tmp_path: Path, system: System) -> None:
    write(tmp_path, "/etc/vllm/secrets.env", "/etc/vllm/notes.txt", "/opt/vllm/current")
    given = {"files": ["/etc/vllm/secrets.env", "/opt/vllm/current"], "emptied": ["/etc/vllm", "/opt/vllm"]}
    take(tmp_path, system, **given)
    assert (tmp_path / "etc/vllm/notes.txt").exists()
    assert not (tmp_path / "opt/vllm").exists()
    assert said(tmp_path, system, **given) == []


def test_packages_of_dpkg_go_though_they_are_held(tmp_path: Path, system: System) -> None:
    take(tmp_path, system, NGINX, packages=["nginx"])
    take(tmp_path, system, NGINX, packages=["nginx"], purge=False)
    assert [command[-2:] for command in system.done] == [("purge", "nginx"), ("remove", "nginx")]
    assert all("--allow-change-held-packages" in command for command in system.done)


def test_a_star_stands_for_the_end_of_a_name(tmp_path: Path, system: System) -> None:
    pins = Package("nvidia-driver-pinning-580", "580-1"), Package("nvidia-driver", "1")
    assert said(tmp_path, system, *pins, packages=["nvidia-driver-pinning-*"]) == [
        "packages go: nvidia-driver-pinning-580"
    ]


def test_packages_of_rpm_are_unlocked_and_others_stay_locked(tmp_path: Path, system: System) -> None:
    locks = tmp_path / "etc/dnf/plugins/versionlock.list"
    write(tmp_path, "/etc/dnf/plugins/versionlock.list")
    mark = "Managed by Ansible, role gpuhosts.vllm.nvidia_driver."
    block = f"# BEGIN {mark}\nnginx-1.30.7-*.*\n# END {mark}\n"
    locks.write_text(f"{block}nginx-filesystem-1.2.*\nkernel-6.1.*\n")
    assert said(tmp_path, system, NGINX_RPM, packages=["nginx"]) == [
        "/etc/dnf/plugins/versionlock.list locks them no more",
        "packages go: nginx",
    ]
    take_lock, remove = look(tmp_path, system, NGINX_RPM, packages=["nginx"])[0]
    assert take_lock.write is not None
    assert take_lock.write.content == "nginx-filesystem-1.2.*\nkernel-6.1.*\n"
    assert remove.command == ("dnf", "--assumeyes", "--quiet", "remove", "nginx")


def test_packages_stay_where_others_have_put_files(tmp_path: Path, system: System) -> None:
    write(tmp_path, "/etc/nginx/nginx.conf", "/etc/nginx/mime.types")
    system.owned = {"/etc/nginx/mime.types"}
    given = {"packages": ["nginx"], "others_in": ["/etc/nginx"], "files": ["/etc/nginx/nginx.conf"]}
    assert said(tmp_path, system, NGINX, **given) == ["/etc/nginx/nginx.conf goes", "packages go: nginx"]
    write(tmp_path, "/etc/nginx/sites-enabled/theirs")
    removals, stays = look(tmp_path, system, NGINX, **given)
    assert [removal.path for removal in removals] == [tmp_path / "etc/nginx/nginx.conf"]
    assert stays == [f"nginx: {tmp_path}/etc/nginx/sites-enabled/theirs is of others"]


def test_the_user_goes_when_nothing_of_its_own_is_left(tmp_path: Path, system: System) -> None:
    system.users = {"vllm": OURS}
    write(tmp_path, "/var/lib/vllm/huggingface/model")
    given = {"user": "vllm", "user_since": "/opt/vllm", "home": "/var/lib/vllm"}
    assert said(tmp_path, system, **given) == []
    assert said(tmp_path, system, **given, files=["/var/lib/vllm"]) == ["/var/lib/vllm goes", "the user vllm goes"]


def test_a_command_that_fails_is_told(system: System) -> None:
    failed = absence.carry_out(absence.Removal("", command=("userdel", "broken")), system)
    assert failed == "`userdel broken` fails: no such thing"


@pytest.mark.parametrize(
    ("account", "born", "reason"),
    [
        ((1000, "!:20000::::::"), None, "its number 1000 is none of a system account"),
        ((998, "$y$j9T$salt:20000::::::"), None, "it has a password, or is not of this host"),
        ((998, ""), None, "it has a password, or is not of this host"),
        ((998, "!:19999::::::"), None, "it is older than /opt/vllm"),
        ((998, "!*:20000::::::"), 0, "nothing tells whether it is older than /opt/vllm"),
        ((998, "!:::::::"), None, "nothing tells whether it is older than /opt/vllm"),
    ],
)
def test_a_user_that_others_have_made_stays(
    tmp_path: Path, system: System, account: tuple[int, str], born: int | None, reason: str
) -> None:
    system.users = {"svc-llm": account}
    system.born = system.born if born is None else born
    found = look(tmp_path, system, user="svc-llm", user_since="/opt/vllm")
    assert found == ([], [f"the user svc-llm: {reason}"])


@pytest.mark.parametrize("shadow", ["!:20000:0:99999:7:::", "!!:20007::::::", "*:20000::::::"])
def test_a_user_that_the_role_has_made_goes(tmp_path: Path, system: System, shadow: str) -> None:
    system.users = {"vllm": (998, shadow)}
    for since in ("/opt/vllm", ""):
        assert said(tmp_path, system, user="vllm", user_since=since) == ["the user vllm goes"]

"""What the roles ask package managers for, held against what the vendors document, on every distribution.

Only Debian is run for real (molecule/). For the others this is what stands between a table and a typing error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).resolve().parents[2] / "roles"

# https://docs.docker.com/engine/install/{debian,ubuntu,rhel,centos}/: the URL and suite of the repository, and names of
# packages with versions as `apt-cache madison docker-ce` and `dnf list docker-ce --showduplicates` print them there.
DOCKER_APT = {
    ("Debian", "12"): ("https://download.docker.com/linux/debian", "bookworm", "~debian.12~bookworm"),
    ("Debian", "13"): ("https://download.docker.com/linux/debian", "trixie", "~debian.13~trixie"),
    ("Ubuntu", "22"): ("https://download.docker.com/linux/ubuntu", "jammy", "~ubuntu.22.04~jammy"),
    ("Ubuntu", "24"): ("https://download.docker.com/linux/ubuntu", "noble", "~ubuntu.24.04~noble"),
}
DOCKER_DNF = {
    ("RedHat", "9"): ("https://download.docker.com/linux/rhel/9/$basearch/stable", ".el9"),
    ("RedHat", "10"): ("https://download.docker.com/linux/rhel/10/$basearch/stable", ".el10"),
    ("Rocky", "9"): ("https://download.docker.com/linux/centos/9/$basearch/stable", ".el9"),
    ("Rocky", "10"): ("https://download.docker.com/linux/centos/10/$basearch/stable", ".el10"),
}
# https://packages.debian.org/docker.io (from Debian 13 on the client is a package of its own), https://packages.ubuntu.com/docker.io
DISTRO = {
    ("Debian", "12"): ["docker.io"],
    ("Debian", "13"): ["docker.io", "docker-cli"],
    ("Ubuntu", "22"): ["docker.io"],
    ("Ubuntu", "24"): ["docker.io"],
    ("RedHat", "9"): [],
    ("RedHat", "10"): [],
    ("Rocky", "9"): [],
    ("Rocky", "10"): [],
}
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html
TOOLKIT = [
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
]


class Role:
    """A role on a distribution: its variables, and the arguments of its tasks with them."""

    def __init__(self, name: str, platform: tuple[str, str], **variables: Any) -> None:
        self.path = ROLES / name
        distribution, version = platform
        family = "RedHat" if distribution in {"RedHat", "Rocky"} else "Debian"
        facts = {"distribution": distribution, "distribution_major_version": version, "os_family": family}
        loader = DataLoader()
        found: dict[str, Any] = {"ansible_facts": facts}
        for file in ("defaults/main.yml", "vars/main.yml"):
            found |= loader.load_from_file(str(self.path / file), trusted_as_template=True)
        self._templar = Templar(loader, variables=found | variables)

    def value(self, expression: str) -> Any:
        return self._templar.template(trust_as_template(f"{{{{ {expression} }}}}"))

    def arguments(self, file: str, module: str, number: int = 0) -> dict[str, Any]:
        """Arguments of one of the tasks of a module in a file; what they say with {{ }} has its value."""
        tasks = [task for task in yaml.safe_load((self.path / "tasks" / file).read_text()) if module in task]
        return {
            name: self._templar.template(trust_as_template(value)) if isinstance(value, str) else value
            for name, value in tasks[number][module].items()
        }


@pytest.mark.parametrize("platform", DOCKER_APT)
def test_docker_for_apt(platform: tuple[str, str]) -> None:
    url, suite, ending = DOCKER_APT[platform]
    role = Role("docker_engine", platform, __docker_engine_repository={"changed": True})

    assert role.value("_docker_engine_install.docker") == "docker_apt.yml"
    assert role.arguments("docker_apt.yml", "ansible.builtin.get_url")["url"] == f"{url}/gpg"
    entry = yaml.safe_load(role.arguments("docker_apt.yml", "ansible.builtin.copy")["content"])
    assert (entry["URIs"], entry["Suites"], entry["Components"]) == (url, suite, "stable")
    assert sorted(role.arguments("docker_apt.yml", "ansible.builtin.apt")["name"]) == [
        f"containerd.io=2.3.4-1{ending}",
        f"docker-ce-cli=5:29.7.2-1{ending}",
        f"docker-ce=5:29.7.2-1{ending}",
    ]


@pytest.mark.parametrize("platform", DOCKER_DNF)
def test_docker_for_dnf(platform: tuple[str, str]) -> None:
    url, ending = DOCKER_DNF[platform]
    role = Role("docker_engine", platform, item={"key": "docker-ce", "value": f"29.7.2-1{ending}"})

    assert role.value("_docker_engine_install.docker") == "docker_dnf.yml"
    assert role.arguments("docker_dnf.yml", "ansible.builtin.yum_repository")["baseurl"] == url
    assert (
        role.arguments("docker_dnf.yml", "ansible.builtin.rpm_key")["key"] == url.split("/" + platform[1])[0] + "/gpg"
    )
    assert sorted(role.arguments("docker_dnf.yml", "ansible.builtin.dnf", 1)["name"]) == [
        f"containerd.io-2.3.4-1{ending}",
        f"docker-ce-29.7.2-1{ending}",
        f"docker-ce-cli-29.7.2-1{ending}",
    ]
    lock = role.arguments("docker_dnf.yml", "ansible.builtin.lineinfile")
    assert lock["line"] == f"docker-ce-29.7.2-1{ending}.*"  # as `dnf versionlock add` writes it, but for the epoch
    assert lock["regexp"] == r"^docker\-ce-[0-9]"


@pytest.mark.parametrize("platform", DISTRO)
def test_engine_of_the_distribution(platform: tuple[str, str]) -> None:
    role = Role("docker_engine", platform, docker_engine_source="distro")

    assert role.value("_docker_engine_platform.distro") == DISTRO[platform]
    assert role.value("_docker_engine_packages") == DISTRO[platform]


@pytest.mark.parametrize(
    ("platform", "source", "found", "owners", "strangers"),
    [
        # As `dpkg-query --search` and `rpm --query --file` answer; a file of no package is an error to both.
        (("Debian", "13"), "docker", [], [], []),
        (("Debian", "12"), "distro", ["/usr/bin/docker", "/usr/sbin/dockerd"], 2 * ["docker.io: /..."], []),
        (
            ("Debian", "13"),
            "docker",
            ["/usr/bin/docker", "/usr/bin/dockerd"],
            ["docker-ce-cli: /.", "docker-ce: /."],
            [],
        ),
        (("Debian", "13"), "docker", ["/usr/bin/docker"], ["podman-docker: /usr/bin/docker"], ["podman-docker"]),
        (("Debian", "13"), "docker", ["/snap/bin/docker"], [], ["/snap/bin/docker"]),
        (("Rocky", "9"), "docker", ["/usr/bin/docker"], ["podman-docker: "], ["podman-docker"]),
        (
            ("Rocky", "9"),
            "docker",
            ["/usr/bin/docker", "/usr/local/bin/dockerd"],
            ["docker-ce-cli: ", "file /usr/local/bin/dockerd is not owned by any package"],
            ["/usr/bin/docker", "/usr/local/bin/dockerd"],
        ),
    ],
)
def test_whose_an_engine_is(
    platform: tuple[str, str], source: str, found: list[str], owners: list[str], strangers: list[str]
) -> None:
    registered = {"__docker_engine_files": {"stdout_lines": found}, "__docker_engine_owners": {"stdout_lines": owners}}
    role = Role("docker_engine", platform, docker_engine_source=source, **registered)

    assert role.value("_docker_engine_strangers") == strangers


def test_both_roles_know_the_same_distributions() -> None:
    role = Role("nvidia_container_toolkit", ("Debian", "13"))
    known = role.value("_nvidia_container_toolkit_platforms")

    assert {(name, version) for name, versions in known.items() for version in versions} == set(DISTRO)


@pytest.mark.parametrize("platform", DOCKER_APT)
def test_toolkit_for_apt(platform: tuple[str, str]) -> None:
    role = Role("nvidia_container_toolkit", platform, __nvidia_container_toolkit_repository={"changed": True})

    assert role.value("_nvidia_container_toolkit_install[ansible_facts['os_family']]") == "apt.yml"
    assert (
        role.arguments("apt.yml", "ansible.builtin.get_url")["url"]
        == "https://nvidia.github.io/libnvidia-container/gpgkey"
    )
    assert role.arguments("apt.yml", "ansible.builtin.copy")["content"].splitlines()[1] == (
        "deb [signed-by=/etc/apt/keyrings/nvidia-container-toolkit.asc] "
        "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /"
    )
    assert role.arguments("apt.yml", "ansible.builtin.apt")["name"] == [f"{name}=1.20.1-1" for name in TOOLKIT]


@pytest.mark.parametrize("platform", DOCKER_DNF)
def test_toolkit_for_dnf(platform: tuple[str, str]) -> None:
    role = Role("nvidia_container_toolkit", platform, item="nvidia-container-toolkit")

    assert role.value("_nvidia_container_toolkit_install[ansible_facts['os_family']]") == "dnf.yml"
    repository = role.arguments("dnf.yml", "ansible.builtin.yum_repository")
    assert repository["baseurl"] == "https://nvidia.github.io/libnvidia-container/stable/rpm/$basearch"
    assert repository["repo_gpgcheck"] is True
    assert role.arguments("dnf.yml", "ansible.builtin.dnf", 1)["name"] == [f"{name}-1.20.1-1" for name in TOOLKIT]
    lock = role.arguments("dnf.yml", "ansible.builtin.lineinfile")
    assert lock["line"] == "nvidia-container-toolkit-1.20.1-1.*"
    assert lock["regexp"] == r"^nvidia\-container\-toolkit-[0-9]"

"""The lab tests run in the order of their files, on the hosts that ``python -m tests.lab hosts`` has just made."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import time
from typing import Any

import testinfra

from .hosts import HOSTS
from .settings import ROOT, STATE

INVENTORY = "inventories/lab"
_RECAP = re.compile(r"^(?P<host>\S+)\s+: (?P<counts>ok=.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished ansible-playbook: its exit code, output, seconds, and the recap's counts by host."""

    code: int
    output: str
    seconds: float

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        hosts = {}
        for match in _RECAP.finditer(self.output.rpartition("PLAY RECAP")[2]):
            pairs = (pair.split("=") for pair in match["counts"].split())
            hosts[match["host"]] = {key: int(value) for key, value in pairs}
        return hosts

    @property
    def changed(self) -> dict[str, int]:
        """Hosts on which anything changed, with how many tasks did."""
        return {host: counts["changed"] for host, counts in self.recap.items() if counts["changed"]}

    @property
    def text(self) -> str:
        """The output with every run of white space made one blank, for messages that the terminal folds."""
        return re.sub(r"\s+", " ", self.output)


def playbook(*arguments: str, inventory: str = INVENTORY) -> Run:
    """Run ansible-playbook from the checkout's root, showing its output as it comes."""
    command = ["ansible-playbook", "-i", inventory, *arguments]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    start = time.monotonic()
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return Run(process.returncode, "".join(lines), time.monotonic() - start)


def machine(name: str) -> Any:
    """A host of the lab as testinfra sees it: by SSH, as the user that Ansible uses, with sudo."""
    (address,) = (host.address for host in HOSTS if host.name == name)
    return testinfra.get_host(
        f"ssh://ops@{address}",
        sudo=True,
        ssh_identity_file=str(STATE / "id_ed25519"),
        ssh_extra_args=f"-o UserKnownHostsFile={STATE}/known_hosts",
    )

"""A host of dpkg in a directory, and what the real apt-get would do there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.packages import Package


class Dpkg:
    """Packages of a host, in dpkg's status file below ``root``, and those of a repository."""

    def __init__(self, root: Path) -> None:
        self.status = root / "var/lib/dpkg/status"
        self.repository = root / "srv/repository"
        self.status.parent.mkdir(parents=True, exist_ok=True)
        self.repository.mkdir(parents=True, exist_ok=True)

    def install(self, *packages: Package) -> None:
        """What is there; nothing else is."""
        self.status.write_text(
            "\n".join(
                f"Package: {one.name}\nStatus: {'hold' if one.held else 'install'} ok installed\n"
                f"Maintainer: {one.maintainer or 'Somebody <somebody@example.org>'}\n"
                f"Architecture: {one.architecture}\nVersion: {one.version}\n"
                for one in packages
            )
        )

    def offer(self, name: str, version: str, depends: str = "") -> None:
        """A package of the repository."""
        with (self.repository / "Packages").open("a") as file:
            file.write(
                f"Package: {name}\nArchitecture: amd64\nVersion: {version}\nFilename: {name}.deb\nSize: 1\n"
                f"SHA256: {64 * '0'}\n{f'Depends: {depends}' if depends else 'Priority: optional'}\n\n"
            )

    def would(self, word: str, command: str) -> set[str]:
        """The packages that apt-get would install (Inst) or purge (Purg), as it calls them."""
        for directory in ("lists/partial", "cache/archives/partial", "etc"):
            (self.status.parent / directory).mkdir(parents=True, exist_ok=True)
        sources = self.status.parent / "etc/sources.list"
        offers = (self.repository / "Packages").exists()
        sources.write_text(f"deb [trusted=yes] file:{self.repository} ./\n" if offers else "")
        options = {
            "Dir::Etc": self.status.parent / "etc",
            "Dir::State": self.status.parent,
            "Dir::State::status": self.status,
            "Dir::State::lists": self.status.parent / "lists",
            "Dir::Cache": self.status.parent / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures::": "i386",
            "APT::Sandbox::User": "root",
        }
        arguments = [f"--option={name}={value}" for name, value in options.items()]
        program, *words = command.split()
        if offers:
            _run([program, *arguments, "update"])
        return set(re.findall(rf"(?m)^{word} (\S+)", _run([program, *arguments, "--simulate", *words])))

    def remove(self, *names: str) -> None:
        """Remove packages as apt calls them."""
        for name in names:
            package, _, architecture = name.partition(":")
            lines = {f"Package: {package}", f"Architecture: {architecture or 'amd64'}"}
            kept = [one for one in self.status.read_text().split("\n\n") if not lines <= set(one.splitlines())]
            self.status.write_text("\n\n".join(kept))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

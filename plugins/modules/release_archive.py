#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: release_archive
short_description: Install the programs of an upstream release from its archive
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Downloads a C(.tar.gz), compares it with its checksum, and unpacks the programs into a directory of that version,
    which is there when all of it is. Other versions beside it are left alone, and so is what runs from them.
  - The programs lie in C(bin), because SELinux has services run in the domain that is meant for them from such
    directories of C(/opt) only.
  - Does nothing where the directory is there already.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is downloaded.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  release:
    description: The directory of the version. It has to lie in one that holds nothing else but versions.
    type: path
    required: true
  programs:
    description: Names of the programs, wherever in the archive they are.
    type: list
    elements: str
    required: true
  url:
    description: Address of the archive. C({architecture}) stands for V(amd64) or V(arm64).
    type: str
    required: true
  checksums:
    description: SHA-256 of the archive by architecture.
    type: dict
    default: {}
  checksums_url:
    description:
      - Address of the list of checksums that came with the release, as C(sha256sum) writes it, for architectures that
        O(checksums) does not have.
    type: str
    required: true
  timeout:
    description: Seconds without a word from the server after which it is given up.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Install Prometheus
  gpuhosts.vllm.release_archive:
    release: /opt/gpuhosts/prometheus/3.13.2
    programs: [prometheus, promtool]
    url: https://mirror.example.com/v3.13.2/prometheus-3.13.2.linux-{architecture}.tar.gz
    checksums_url: https://mirror.example.com/v3.13.2/sha256sums.txt
"""

RETURN = r"""
programs:
  description: The programs, where they lie.
  returned: success
  type: list
  elements: str
  sample: [/opt/gpuhosts/prometheus/3.13.2/bin/prometheus]
"""

import hashlib
import os
import platform
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ArchiveError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import diff_of, make_directories, remove_all

SPEC: dict[str, dict[str, Any]] = {
    "release": {"type": "path", "required": True},
    "programs": {"type": "list", "elements": "str", "required": True},
    "url": {"type": "str", "required": True},
    "checksums": {"type": "dict", "default": {}},
    "checksums_url": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 60},
}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PIECE = 1 << 20


def listed(url: str, name: str, timeout: int) -> str:
    """The checksum that a list has for a file."""
    try:
        text = open_url(url, timeout=timeout).read().decode(errors="replace")
    except Exception as error:  # whatever a server, a proxy or the way to them can do
        raise ArchiveError(f"{url}, which has the checksum, cannot be had: {error}.") from error
    for line in text.splitlines():
        checksum, _, found = line.partition(" ")
        if found.lstrip(" *") == name:
            return checksum
    raise ArchiveError(f"{url} has no checksum of {name}.")


def download(url: str, path: Path, expected: str, timeout: int) -> None:
    """Write the archive, unless it is another one than was expected."""
    found = hashlib.sha256()
    try:
        answer = open_url(url, timeout=timeout)
        with path.open("wb") as file:
            while piece := answer.read(PIECE):
                found.update(piece)
                file.write(piece)
    except Exception as error:  # as above
        raise ArchiveError(f"{url} cannot be had: {error}.") from error
    if found.hexdigest() != expected.lower():
        raise ArchiveError(f"{url} is not what it shall be: its SHA-256 is {found.hexdigest()} and not {expected}.")


def unpack(archive: Path, programs: list[str], directory: Path) -> None:
    """Write the programs into a directory, for all to run, whatever root's umask is."""
    missing = set(programs)
    make_directories(directory)
    try:
        with tarfile.open(archive) as members:
            for member in members:
                name = PurePosixPath(member.name).name
                content = members.extractfile(member) if name in missing and member.isfile() else None
                if content:
                    with (directory / name).open("wb") as file:
                        shutil.copyfileobj(content, file, PIECE)
                        os.fsync(file.fileno())  # a name without its content would be taken for a complete release
                    (directory / name).chmod(0o755)
                    missing.remove(name)
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"{archive.name} cannot be unpacked: {error}.") from error
    if missing:
        raise ArchiveError(f"{archive.name} has no {' and no '.join(sorted(missing))}.")


def install(module: AnsibleModule, release: Path) -> None:
    """Have the release, or nothing of it."""
    given = module.params
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise ArchiveError(f"There are archives for {' and '.join(ARCHITECTURES)}; this is {machine}.")
    architecture = ARCHITECTURES[machine]
    url = given["url"].replace("{architecture}", architecture)
    name = url.rpartition("/")[2]
    expected = given["checksums"].get(architecture) or listed(given["checksums_url"], name, given["timeout"])
    part = release.with_name(f".{release.name}.part")
    remove_all(part)  # of a run that was killed
    make_directories(part)
    try:
        download(url, part / name, expected.rpartition(":")[2], given["timeout"])
        unpack(part / name, given["programs"], part / "bin")
        (part / name).unlink()
        if module.selinux_enabled():
            module.run_command(["restorecon", "-R", "-F", str(part)], check_rc=True)
        part.rename(release)
    finally:
        remove_all(part)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    release = Path(module.params["release"])
    programs = [str(release / "bin" / name) for name in module.params["programs"]]
    if release.is_dir():
        module.exit_json(changed=False, programs=programs)
    if not module.check_mode:
        try:
            install(module, release)
        except ArchiveError as error:
            module.fail_json(msg=f"{error} Nothing was installed.")
    diff = [diff_of(release, "", "".join(f"{path}\n" for path in programs))]
    module.exit_json(changed=True, programs=programs, diff=diff)


if __name__ == "__main__":
    main()

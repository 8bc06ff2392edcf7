"""Real programs that are only released as archives, built from their Go modules and packed as those archives are.

They go into the lab's mirror, where roles find them as they would on GitHub: same directories, same names, and the list
of checksums that comes with a release. Built once on a machine, at low priority: minutes that other tests mostly wait
away. go.mod and go.sum beside this hold every module at one version; whoever sets another one makes them anew with
`go get -tool`.

What differs from the archives of the projects: the pages for a browser are in no module of Prometheus and Jaeger, so
these answer their API only; Prometheus has no service discovery of clouds (its own build tag), which takes two thirds
of its time away. Of Alertmanager and Jaeger these are the newest that can be built so: the modules of later ones lack
files, or cannot be named.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import io
import shutil
import tarfile
import tempfile
from pathlib import Path

from tests.lab import golang
from tests.lab.phases import Say, follow
from tests.lab.settings import CACHE
from tests.lab.wheelhouse import MIRROR, sha256

BASE = "github.com"  # below the mirror

_GO = CACHE / "go"
_PRIORITY = ("nice", "-n", "10")


@dataclasses.dataclass(frozen=True)
class Program:
    """A release of a project."""

    repository: str  # on GitHub, and the module; the last part names a directory beside this
    module: str  # its version
    version: str  # that the project calls it by
    commands: tuple[str, ...]  # below cmd/
    archive: str  # its name, and that of the directory in it, without .tar.gz
    checksums: str
    flag: str  # by which the linker makes the version known
    tags: str = "netgo"

    @property
    def tools(self) -> Path:
        """The directory of go.mod and go.sum."""
        return Path(__file__).with_name(self.repository.rpartition("/")[2])

    @property
    def path(self) -> str:
        """What Go calls the module by: from the second on, a major version is part of the name."""
        major = self.module.partition(".")[0]
        return f"github.com/{self.repository}" + ("" if major in ("v0", "v1") else f"/{major}")

    @property
    def directory(self) -> Path:
        """Where the mirror has the release."""
        return MIRROR / BASE / self.repository / "releases/download" / f"v{self.version}"

    @property
    def made_from(self) -> str:
        """A digest of everything that decides what is built."""
        return hashlib.sha256(repr((self, (self.tools / "go.sum").read_text())).encode()).hexdigest()


def _of_prometheus(name: str, module: str, version: str, *commands: str, tags: str = "netgo") -> Program:
    archive, flag = f"{name}-{version}.linux-amd64", f"github.com/prometheus/common/version.Version={version}"
    return Program(f"prometheus/{name}", module, version, commands, archive, "sha256sums.txt", flag, tags)


PROGRAMS = (
    _of_prometheus("prometheus", "v0.313.2", "3.13.2", "prometheus", "promtool", tags="netgo,remove_all_sd"),
    _of_prometheus("alertmanager", "v0.31.1", "0.31.1", "alertmanager", "amtool"),
    Program(
        "jaegertracing/jaeger",
        "v1.76.0",
        "2.13.0",
        ("jaeger",),
        "jaeger-2.13.0-linux-amd64",
        "jaeger-2.13.0.sha256sum.txt",
        "github.com/jaegertracing/jaeger/internal/version.latestVersion=v2.13.0",
    ),
    # An ACME server for tests, by the people of Let's Encrypt. It tells no version.
    Program(
        "letsencrypt/pebble",
        "v2.10.3",
        "2.10.3",
        ("pebble",),
        "pebble-linux-amd64",
        "pebble.sha256sum.txt",
        "main.version=v2.10.3",
    ),
)


def prepare(say: Say) -> None:
    """Build what is not there as it would be built now, one after the other; what Go has kept goes then."""
    _GO.mkdir(parents=True, exist_ok=True)
    with (_GO / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two checkouts share the mirror
        missing = [program for program in PROGRAMS if not _is_there(program)]
        for program in missing:
            _build(program, say)
        if missing:
            _drop(say)


def _is_there(program: Program) -> bool:
    note = program.directory / "made-from"
    return note.is_file() and note.read_text() == program.made_from


def _build(program: Program, say: Say) -> None:
    go = [*_PRIORITY, *golang.command(program.tools, say)]
    environment = golang.environment(
        {
            "CGO_ENABLED": "0",  # as the projects do: the programs run with any glibc
            "GOCACHE": str(_GO / "build"),
            "GOMODCACHE": str(_GO / "modules"),
            "GOFLAGS": "-mod=readonly -modcacherw",
        }
    )
    say(f"{program.archive}: compiling {' and '.join(program.commands)}")
    MIRROR.mkdir(parents=True, exist_ok=True)  # on a new machine nothing has been mirrored yet
    with tempfile.TemporaryDirectory(prefix=".programs-", dir=MIRROR) as scratch:
        options = ["-p=2", "-trimpath", f"-tags={program.tags}", f"-ldflags=-s -w -X {program.flag}"]
        packages = [f"{program.path}/cmd/{name}" for name in program.commands]
        follow([*go, "build", *options, f"-o={scratch}/", *packages], say, env=environment)
        _publish(program, Path(scratch), say)


def _publish(program: Program, built: Path, say: Say) -> None:
    """Write the archive and the list of checksums as the release has them; the note that all is there comes last."""
    shutil.rmtree(program.directory, ignore_errors=True)  # there may be none; mkdir says what stays
    program.directory.mkdir(parents=True)
    archive = program.directory / f"{program.archive}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as members:
        for name in program.commands:
            content = (built / name).read_bytes()
            member = tarfile.TarInfo(f"{program.archive}/{name}")
            member.size, member.mode = len(content), 0o755
            members.addfile(member, io.BytesIO(content))
            say(f"{program.archive}: {name}, {len(content) / 1e6:.0f} MB")
    (program.directory / program.checksums).write_text(f"{sha256(archive)} *{archive.name}\n")
    (program.directory / "made-from").write_text(program.made_from)


def _drop(say: Say) -> None:
    for name in ("build", "modules"):
        directory = _GO / name
        size = sum(file.lstat().st_size for file in directory.rglob("*"))
        say(f"removing {size / 1e9:.1f} GB of Go's {name}")
        shutil.rmtree(directory, ignore_errors=True)  # it only takes room

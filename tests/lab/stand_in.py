"""A wheel of the stand-in for vLLM, under vLLM's name: the role vllm installs it as it would the real one.

An inventory asks for it with the variables that are here. That index has no uv, like the mirror of a site
that holds the packages of its lock and no other; ``/stand-in/with-uv/`` has it besides.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.stand_in.arguments import VERSION

from .hosts import MIRROR_ADDRESS
from .settings import ROOT, STATE
from .wheelhouse import LOCK, MIRROR, parse, sha256, write_index, write_wheel

LOCK_FILE = "stand-in.lock"  # among the things of this checkout

_SOURCE = ROOT / "tests/stand_in"
_OPTIONS = ROOT / "plugins/module_utils/_releases/options.py"
_NAME = f"vllm-{VERSION}-py3-none-any.whl"

# What an inventory or a command line asks for it with.
VARIABLES = {
    "vllm_version": VERSION,
    "vllm_lock": str(STATE / LOCK_FILE),
    "vllm_index_url": f"http://{MIRROR_ADDRESS}/stand-in/simple/",
}

# What roles/vllm imports of vLLM to check a configuration, see its files/check_config.py.
_SERVE = """\
from vllm.stand_in.arguments import Parser, add_options


class ServeSubcommand:
    def subparser_init(self, subparsers):
        parser = subparsers.add_parser("serve")
        add_options(parser)
        return parser

    def validate(self, args):
        pass
"""
_PARSER = "from vllm.stand_in.arguments import Parser as FlexibleArgumentParser\n"


def files() -> Iterator[tuple[str, int, bytes]]:
    """Path, mode and content of everything in the wheel but its RECORD."""
    mode = 0o100644
    for path in sorted(_SOURCE.glob("*.py")):
        yield f"vllm/stand_in/{path.name}", mode, path.read_bytes()
    yield "vllm/stand_in/options.py", mode, _OPTIONS.read_bytes()
    for package in ("vllm", "vllm/entrypoints", "vllm/entrypoints/cli", "vllm/utils"):
        yield f"{package}/__init__.py", mode, b""
    yield "vllm/entrypoints/cli/serve.py", mode, _SERVE.encode()
    yield "vllm/utils/argparse_utils.py", mode, _PARSER.encode()
    info = f"vllm-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\nRequires-Dist: PyYAML\n"
    yield f"{info}/METADATA", mode, metadata.encode()
    yield f"{info}/WHEEL", mode, b"Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    yield f"{info}/entry_points.txt", mode, b"[console_scripts]\nvllm = vllm.stand_in.__main__:main\n"


def make(directory: Path) -> tuple[Path, str]:
    """Write the wheel; returns it and the text of a lock that installs it with what it needs."""
    directory.mkdir(parents=True, exist_ok=True)
    wheel = write_wheel(directory / _NAME, files())
    (yaml,) = (pin for pin in parse(LOCK.read_text()) if pin.name == "pyyaml")
    return wheel, f"{yaml.line}\nvllm=={VERSION} \\\n    --hash=sha256:{sha256(wheel)}\n"


def publish() -> None:
    """Put the wheel into the mirror, with an index of its own, and its lock beside the lab's keys."""
    home = MIRROR / "stand-in"
    with tempfile.TemporaryDirectory() as directory:
        made, lock = make(Path(directory))
        content, digest = made.read_bytes(), sha256(made)
    STATE.mkdir(mode=0o700, exist_ok=True)
    (STATE / LOCK_FILE).write_text(lock)
    page = home / "with-uv" / "vllm" / "index.html"
    if page.is_file() and digest in page.read_text():
        return  # somebody may be reading it
    wheel = home / "wheels" / _NAME
    wheel.parent.mkdir(parents=True, exist_ok=True)
    wheel.write_bytes(content)
    found = {wheel: digest}
    found |= _copies("[Pp]y[Yy][Aa][Mm][Ll]-*.whl", wheel.parent)
    write_index(home / "simple", found)
    write_index(home / "with-uv", found | _copies("uv-*.whl", wheel.parent))


def _copies(pattern: str, place: Path) -> dict[Path, str]:
    """Wheels of the lab's own index, copied to a place, with their digests."""
    copies = [shutil.copy(original, place) for original in (MIRROR / "wheels").glob(pattern)]
    return {Path(copy): sha256(Path(copy)) for copy in copies}

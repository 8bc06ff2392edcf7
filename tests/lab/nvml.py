"""Compiles tests/fake_nvml for the hosts."""

from __future__ import annotations

import base64
import hashlib

import docker

from . import toolchain
from .phases import Say
from .settings import CACHE, ROOT

SOURCE = ROOT / "tests" / "fake_nvml"
LIBRARY = CACHE / "fake-nvml" / "libnvidia-ml.so.1"

_COMPILE = """
gcc -std=c11 -O2 -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden -Wl,-soname,libnvidia-ml.so.1 \
    -o library /source/fake_nvml.c
base64 library >&3
"""


def prepare(client: docker.DockerClient, say: Say) -> None:
    """Compile the library unless it was made from this very source."""
    source = (SOURCE / "fake_nvml.c").read_text()
    digest = hashlib.sha256((_COMPILE + source).encode()).hexdigest()
    made_from = LIBRARY.with_name("made-from")
    if made_from.is_file() and made_from.read_text() == digest:
        return
    say("compiling in a throw-away container")
    encoded = toolchain.run(client, "gcc libc6-dev", _COMPILE, {str(SOURCE): "/source"})
    LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    LIBRARY.write_bytes(base64.b64decode(encoded))
    made_from.write_text(digest)

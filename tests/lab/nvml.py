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
CUDA_LIBRARY = LIBRARY.with_name("libcuda.so.1")  # of a driver's package: a CUDA driver that finds no device

_COMPILE = """
compile() { gcc -std=c11 -O2 -Wall -Wextra -Werror -shared -fPIC -fvisibility=hidden -Wl,-soname,$1 -o $1 -x c $2; }
compile libnvidia-ml.so.1 /source/fake_nvml.c
echo '__attribute__((visibility("default"))) int cuInit(unsigned int flags) { return flags ? 1 : 100; }' |
    compile libcuda.so.1 -
base64 --wrap=0 libnvidia-ml.so.1 >&3
echo >&3
base64 --wrap=0 libcuda.so.1 >&3
"""


def prepare(client: docker.DockerClient, say: Say) -> None:
    """Compile the libraries unless they were made from this very source."""
    source = (SOURCE / "fake_nvml.c").read_text()
    digest = hashlib.sha256((_COMPILE + source).encode()).hexdigest()
    made_from = LIBRARY.with_name("made-from")
    if made_from.is_file() and made_from.read_text() == digest:
        return
    say("compiling in a throw-away container")
    encoded = toolchain.run(client, "gcc libc6-dev", _COMPILE, {str(SOURCE): "/source"})
    LIBRARY.parent.mkdir(parents=True, exist_ok=True)
    for path, text in zip((LIBRARY, CUDA_LIBRARY), encoded.split(), strict=True):
        path.write_bytes(base64.b64decode(text))
    made_from.write_text(digest)

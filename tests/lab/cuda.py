"""Stand-ins for NVIDIA's CUDA libraries, which PyTorch's build for CUDA wants to load though a CPU never calls them.

The real ones are 2 GB to download and 2.5 GB on each host. A stand-in has all the functions that PyTorch links to, and
each of them does nothing but return 100: in CUDA's runtime that is cudaErrorNoDevice, and so there is no GPU.
"""

from __future__ import annotations

import base64
from pathlib import Path

import docker

from . import toolchain
from .phases import Say

NAME = "cuda-stand-ins"  # of the wheel

_DIRECTORY = "nvidia/cu13/lib"  # where torch/lib looks for them
_LINK = r"""
set -- /wheels/torch-*.whl # one for each Python; what they link to is the same
unzip -q "$1" 'torch/lib/*.so'
# Undefined symbols with their version ("cudaMalloc@libcudart.so.13"); NCCL, cuFILE and cuSPARSELt have none.
nm --dynamic --undefined-only --with-symbol-versions torch/lib/*.so |
    grep --only-matching --perl-regexp '(?<= U )((cu|nccl)\w+$|\w+@(libcu\S+|libnv\S+|NVSHMEM))' |
    sort --unique >symbols
{
    echo '.section .note.GNU-stack, "", @progbits'
    echo '.text; stand_in: mov $100, %eax; ret'
    sed 's/@.*//; s/.*/.globl &; .type &, @function; .set &, stand_in/' symbols
} | as -o stand-in.o -
awk -F @ '$2 { of[$2] = of[$2] $1 ";" } END { for (version in of) print version " {" of[version] "};" }' symbols |
    sort >versions
ld -shared --build-id=none --version-script=versions -o stand-in.so stand-in.o
readelf --dynamic torch/lib/*.so | grep --only-matching --perl-regexp 'NEEDED.*\[\Klib(cu|nv|nccl)[^]]+' |
    sort --unique | tr '\n' ' ' >&3
echo >&3
base64 stand-in.so >&3
"""


def stand_ins(client: docker.DockerClient, wheels: Path, say: Say) -> dict[str, bytes]:
    """The files of the wheel (path -> content): one library under every name that torch asks for."""
    say("linking stand-ins for CUDA's libraries in a throw-away container")
    names, _, encoded = toolchain.run(client, "binutils unzip", _LINK, {str(wheels): "/wheels"}).partition("\n")
    library = base64.b64decode(encoded)
    return {f"{_DIRECTORY}/{name}": library for name in names.split()}

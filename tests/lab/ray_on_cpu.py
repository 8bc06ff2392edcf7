"""A wheel that lets vLLM's CPU build be joined by Ray, which that platform refuses: Ray counts pretended GPUs.

It is a platform plug-in of vLLM, which takes itself out where Ray is not the executor. vLLM's CPU workers would share
memory, by a name that processes of two hosts with Ray happen to agree upon; here they never do.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["NAME", "VERSION", "files"]

NAME, VERSION = "ray-on-cpu", "1"
_PACKAGE = NAME.replace("-", "_")

_CODE = """\
import os


def plugin():
    return "ray_on_cpu.platform.RayOnCpu" if os.environ.get("RAY_ADDRESS") else None
"""
_PLATFORM = """\
from vllm.platforms.cpu import CpuPlatform


class RayOnCpu(CpuPlatform):
    ray_device_key = "GPU"

    @classmethod
    def get_device_communicator_cls(cls):
        return "ray_on_cpu.communicator.Communicator"
"""
_COMMUNICATOR = """\
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class Communicator(CpuCommunicator):
    def _all_group_ranks_share_shm_group_name(self):
        return False
"""


def files() -> Iterator[tuple[str, int, bytes]]:
    """Path, mode and content of everything in the wheel but its RECORD."""
    info = f"{_PACKAGE}-{VERSION}.dist-info"
    texts = {
        f"{_PACKAGE}/__init__.py": _CODE,
        f"{_PACKAGE}/platform.py": _PLATFORM,
        f"{_PACKAGE}/communicator.py": _COMMUNICATOR,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[vllm.platform_plugins]\n{_PACKAGE} = {_PACKAGE}:plugin\n",
    }
    for path, text in texts.items():
        yield path, 0o100644, text.encode()

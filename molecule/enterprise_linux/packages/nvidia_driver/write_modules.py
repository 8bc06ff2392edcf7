"""Writes the kernel modules that the stand-ins of NVIDIA's packages bring: ``python write_modules.py DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lab.vendor.nvidia import module

for version in ("580.95.05", "580.159.03"):
    for flavour, license_name in (("open", "Dual MIT/GPL"), ("latest", "NVIDIA")):
        path = Path(sys.argv[1], f"{flavour}-{version}.ko")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(module(version, license_name))

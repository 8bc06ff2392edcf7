"""Everything CI runs, phase by phase, stopping at the first that fails: ``python -m tests.run [PHASE ...]``."""

from __future__ import annotations

import subprocess
import sys
import time

LAB = [sys.executable, "-m", "tests.lab"]
PHASES: dict[str, list[str]] = {
    "lint": ["make", "lint"],
    "unit": ["make", "unit"],
    "artifact": [sys.executable, "-m", "pytest", "tests/artifact"],
    "lab down": [*LAB, "down"],
    "lab hosts": [*LAB, "hosts"],
    "lab tests": [sys.executable, "-m", "pytest", "tests/lab", "--durations=10"],
    "lab hosts gone": [*LAB, "down"],
    "molecule": ["make", "molecule"],
    "lab gone": [*LAB, "down"],
}


def main(names: list[str]) -> int:
    """Run the named phases (none: all of them); returns the exit code."""
    seconds: dict[str, float] = {}
    failed = ""
    for name in names or PHASES:
        print(f"\n=== {name}", flush=True)
        start = time.monotonic()
        code = subprocess.run(PHASES[name], check=False).returncode
        seconds[name] = time.monotonic() - start
        if code:
            failed = name
            break
    print("\n=== phases")
    for name, spent in seconds.items():
        print(f"{spent:7.0f} s  {name}{'  FAILED' if name == failed else ''}")
    print(f"{sum(seconds.values()):7.0f} s  in all")
    print(f"phases: {len(seconds) - bool(failed)} passed, {int(bool(failed))} failed", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

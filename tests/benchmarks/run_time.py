"""What a run of site.yml costs in the lab: ``.venv/bin/python tests/benchmarks/run_time.py [--json]``.

Makes the lab's hosts anew, rolls out, and runs again with nothing to do. A ping of every host in the same
minute is the yardstick: it is what Ansible itself costs on this machine at this moment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ["-i", "inventories/lab"]


def timed(*command: str) -> tuple[float, str]:
    """Run a command in the checkout; returns its wall seconds and standard output."""
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
    return time.monotonic() - start, done.stdout


def tasks_per_host(output: str) -> dict[str, int]:
    """Tasks that each host ran (skipped ones included), from the recap."""
    lines = re.findall(r"^(\S+)\s+: ok=(\d+).* skipped=(\d+)", output.rpartition("PLAY RECAP")[2], re.MULTILINE)
    return {host: int(ok) + int(skipped) for host, ok, skipped in lines}


def measure() -> dict[str, object]:
    """The figures by name; seconds are wall seconds."""
    lab = (sys.executable, "-m", "tests.lab")
    timed(*lab, "down")
    timed(*lab, "hosts")
    first, _ = timed("ansible-playbook", "playbooks/site.yml", *INVENTORY)
    no_op, output = timed("ansible-playbook", "playbooks/site.yml", *INVENTORY)
    ping, _ = timed("ansible", "all", "-m", "ansible.builtin.ping", *INVENTORY)
    return {
        "first_seconds": round(first, 1),
        "no_op_seconds": round(no_op, 1),
        "ping_seconds": round(ping, 1),
        "no_op_per_ping": round(no_op / ping, 1),
        "tasks_per_host": tasks_per_host(output),
    }


def main() -> None:
    """Print the figures as a table, or as JSON for a machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    as_json = parser.parse_args().json
    figures = measure()
    if as_json:
        print(json.dumps(figures))
        return
    print(f"first site.yml   {figures['first_seconds']:>8} s")
    print(f"no-op site.yml   {figures['no_op_seconds']:>8} s")
    print(f"ansible ping     {figures['ping_seconds']:>8} s")
    print(f"no-op / ping     {figures['no_op_per_ping']:>8}")
    print("tasks per host  ", figures["tasks_per_host"])


if __name__ == "__main__":
    main()

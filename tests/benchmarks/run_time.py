"""What a run of site.yml costs: ``.venv/bin/python tests/benchmarks/run_time.py [--json] [--scale]``.

Makes the lab's hosts anew, rolls out, and runs again with nothing to do. A ping of every host in the same
minute is the yardstick: it is what Ansible itself costs on this machine at this moment.

With --scale it does so on 4, then 8, then 16 light GPU hosts, which run the stand-in for vLLM (tests/stand_in), and
tells by how many seconds a run with nothing to do grows with every host. Controller and hosts share this machine's
processors, so it tells the processors' seconds of both as well: these hardly change when something else runs beside.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.lab import engine, hosts, stand_in
from tests.lab.settings import NAME, STATE

LAB = "inventories/lab"
SIZES = (4, 8, 16)
LIGHT = STATE / "light"  # an inventory: the variables of the lab's, and other hosts


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


def busy_seconds(machines: Sequence[hosts.Host]) -> float:
    """What processors have worked so far for the commands of this program and for these hosts."""
    containers = engine.client().containers
    with ThreadPoolExecutor(len(machines)) as pool:  # each takes a second
        stats = pool.map(
            lambda host: containers.get(f"{NAME}-{host.name}").stats(stream=False, one_shot=True), machines
        )
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ours.ru_utime + ours.ru_stime + sum(each["cpu_stats"]["cpu_usage"]["total_usage"] for each in stats) / 1e9


def tasks_per_host(output: str) -> dict[str, int]:
    """Tasks that each host ran (skipped ones included), from the recap."""
    lines = re.findall(r"^(\S+)\s+: ok=(\d+).* skipped=(\d+)", output.rpartition("PLAY RECAP")[2], re.MULTILINE)
    return {host: int(ok) + int(skipped) for host, ok, skipped in lines}


def measure(inventory: str, machines: Sequence[hosts.Host], *more: str) -> dict[str, Any]:
    """The figures by name; seconds are wall seconds."""
    site = ["ansible-playbook", "playbooks/site.yml", "-i", inventory, *more]
    first, _ = timed(*site)
    busy = busy_seconds(machines)
    no_op, output = timed(*site)
    busy = busy_seconds(machines) - busy
    ping, _ = timed("ansible", "all", "-m", "ansible.builtin.ping", "-i", inventory)
    return {
        "first_seconds": round(first, 1),
        "no_op_seconds": round(no_op, 1),
        "no_op_cpu_seconds": round(busy, 1),
        "ping_seconds": round(ping, 1),
        "no_op_per_ping": round(no_op / ping, 1),
        "tasks_per_host": tasks_per_host(output),
    }


def measure_light(number: int) -> dict[str, Any]:
    """The same with that many light GPU hosts, made where they are not there yet."""
    front_door, monitor, *gpu_hosts = machines = hosts.light(number)
    hosts.prepare(engine.client(), lambda _: None, machines)
    LIGHT.mkdir(exist_ok=True)
    if not (LIGHT / "group_vars").exists():
        (LIGHT / "group_vars").symlink_to(ROOT / LAB / "group_vars")
    groups = {"gpu_hosts": gpu_hosts, "load_balancers": [front_door], "monitoring": [monitor]}
    inventory: dict[str, Any] = {
        group: {"hosts": {host.name: {"ansible_host": host.address} for host in members}}
        for group, members in groups.items()
    }
    inventory["lab"] = {"children": {group: {} for group in groups}}
    (LIGHT / "hosts.yml").write_text(json.dumps(inventory))
    variables = stand_in.VARIABLES | {
        "vllm_models": [
            {"name": "tiny-llama", "source": "/srv/models/tiny-llama", "replicas": number, "context_length": 512}
        ],
    }
    return {"gpu_hosts": number, **measure(str(LIGHT), machines, "-e", json.dumps(variables))}


def per_host(figures: list[dict[str, Any]], name: str) -> float:
    """By how much that figure grows with every host, by least squares."""
    sizes = [figure["gpu_hosts"] for figure in figures]
    return round(statistics.linear_regression(sizes, [figure[name] for figure in figures]).slope, 2)


def show(figures: dict[str, Any]) -> None:
    """One measurement as a table."""
    print(f"first site.yml   {figures['first_seconds']:>8} s")
    print(f"no-op site.yml   {figures['no_op_seconds']:>8} s")
    print(f"  of processors  {figures['no_op_cpu_seconds']:>8} s")
    print(f"ansible ping     {figures['ping_seconds']:>8} s")
    print(f"no-op / ping     {figures['no_op_per_ping']:>8}")
    print("tasks per host  ", figures["tasks_per_host"])


def main() -> None:
    """Print the figures as tables, or as JSON for a machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--scale", action="store_true", help=f"{SIZES} light hosts in place of the lab's four")
    options = parser.parse_args()
    lab = (sys.executable, "-m", "tests.lab")
    if not options.scale:
        timed(*lab, "fresh")
        figures = measure(LAB, hosts.HOSTS)
        if options.json:
            print(json.dumps(figures))
        else:
            show(figures)
        return
    timed(*lab, "mirror")
    try:
        found = [measure_light(number) for number in SIZES]
    finally:
        hosts.remove_hosts(engine.client(), lambda _: None, hosts.light(max(SIZES)))
    slope, busy = per_host(found, "no_op_seconds"), per_host(found, "no_op_cpu_seconds")
    if options.json:
        print(json.dumps({"sizes": found, "no_op_seconds_per_host": slope, "no_op_cpu_seconds_per_host": busy}))
        return
    for figures in found:
        print(f"\n{figures['gpu_hosts']} GPU hosts")
        show(figures)
    print(f"\nevery host more  {slope:>8} s of a run with nothing to do\n  of processors  {busy:>8} s")


if __name__ == "__main__":
    main()

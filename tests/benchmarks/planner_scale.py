"""How long does planning take? ``python tests/benchmarks/planner_scale.py [--json]``.

Plans fleets of 30 to 1,000 hosts with 8 GPUs each for 20 sized models, in a process of its own per fleet, and prints
seconds and peak memory (MiB, of the whole process). The hosts are of two kinds, half and half; the models are the
configurations of the unit tests, and one of them fits no single host. Goal: 1,000 hosts in less than 2 s and 200 MiB,
growing close to linearly.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.choose import Sizer
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.fit import Accounts
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.plan import plan_fleet
from ansible_collections.gpuhosts.vllm.plugins.module_utils._wishes.read import read_wishes

HOSTS = (30, 100, 300, 1000)
MODELS = 20
SPANNING = "deepseek-v3"  # fits no host
VERSION = "0.33.0"
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "nvlink",
        {"name": "NVIDIA H100 80GB HBM3", "total_gib": 79.65, "reserved_gib": 0.55, "compute_capability": "9.0"},
    ),
    ("pcie", {"name": "NVIDIA L40S", "total_gib": 44.99, "reserved_gib": 0.55, "compute_capability": "8.9"}),
)


def fleet(count: int) -> list[dict[str, Any]]:
    """Hosts as fleet_plan takes them."""
    hosts = []
    for number in range(count):
        link, gpu = KINDS[number % len(KINDS)]
        facts = {
            "driver_version": "580.95.05",
            "link": link,
            "domains": [list(range(8))],
            "gpus": [{"index": index, "uuid": f"GPU-{number}-{index}", **gpu} for index in range(8)],
        }
        address = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
        hosts.append({"name": f"gpu{number:05}", "address": address, "gpu_facts": facts})
    return hosts


def measure(count: int) -> dict[str, Any]:
    """Plan one fleet in this process."""
    files = sorted((ROOT / "tests/unit/fixtures/models").glob("*.json"))
    configs = {file.stem: json.loads(file.read_text(encoding="utf-8"))["config"] for file in files}
    small = [name for name, config in configs.items() if config.get("num_hidden_layers", 99) <= 48]
    facts = {name: {"config": configs[name]} for name in [*small[: MODELS - 1], SPANNING]}
    wishes, _ = read_wishes([{"name": name, "source": "owner/model"} for name in facts], VERSION)
    described = fleet(count)
    start = time.perf_counter()
    plan = plan_fleet(wishes, [Host.from_dict(host) for host in described], sizer=Sizer(Accounts(facts, VERSION)))
    seconds = time.perf_counter() - start
    if len({instance["model"] for instance in plan["instances"]}) != MODELS:
        raise SystemExit("not every model got an instance")
    if not any(len(instance["nodes"]) > 1 for instance in plan["instances"] if instance["model"] == SPANNING):
        raise SystemExit(f"{SPANNING} does not span hosts")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"hosts": count, "models": len(facts), "seconds": round(seconds, 3), "peak_mib": round(peak, 1)}


def main(argv: list[str]) -> int:
    """Measure every fleet and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--hosts", type=int, help="measure this many hosts only, in this process")
    options = parser.parse_args(argv)
    if options.hosts:
        print(json.dumps(measure(options.hosts)))
        return 0
    runs = []
    for count in HOSTS:
        command = [sys.executable, __file__, "--hosts", str(count)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    if options.json:
        print(json.dumps({"runs": runs}))
    else:
        print(f"{'hosts':>6}{'models':>8}{'seconds':>9}{'peak MiB':>10}")
        for run in runs:
            print(f"{run['hosts']:>6}{run['models']:>8}{run['seconds']:>9.3f}{run['peak_mib']:>10.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""vLLM itself over both hosts, by either executor: what CI runs of it, and all of it as a program.

``python -m tests.cluster.engines [SHAPE ...]``, which is `make faults`, serves each shape, puts it through every fault,
stops it on either node under an open stream, and takes the model away. It prints the seconds as tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from . import site
from .faults import ENGINE, FAULTS, HEADER, STUCK, Fault, heal, killed, stop_under_a_stream, stopped
from .site import HEAD, UNIT, WORKER, shell

HANG = 90  # seconds: the default, as a busy machine may take half a minute for a first token
TOKENS = 400  # of an open stream: some seconds
# vLLM's CPU build, as in inventories/lab, whose variables these hosts have as well.
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
_CGROUP = f"/sys/fs/cgroup/system.slice/system-vllm.slice/{UNIT}/cgroup.procs"


def _named(pattern: str) -> str:
    """The processes of the unit whose command line has a pattern in it."""
    return f"$(for pid in $(cat {_CGROUP}); do grep -qa '{pattern}' /proc/$pid/cmdline && echo $pid; done)"


# Of processes that the stand-in has not, and what bears another name: a worker's engine itself only watches the others.
INSIDE = {
    "mp": [
        Fault("the worker's engine is stopped", stopped(WORKER, _named("VLLM::Worker")), STUCK),
        Fault("the engine core is killed", killed(HEAD, _named("VLLM::EngineCore")), 10),
        Fault("the worker process of the worker is killed", killed(WORKER, _named("VLLM::Worker")), 10),
    ],
    "ray": [
        Fault("the worker's engine is stopped", stopped(WORKER, _named("RayWorkerProc")), STUCK),
        Fault("the head's engine is stopped", stopped(HEAD, _named("VLLM::EngineCore")), STUCK),
        Fault("the API server alone is killed", killed(HEAD, f"$(pgrep -P {ENGINE} -f 'bin/vllm serve')"), 10),
        Fault("the engine core is killed", killed(HEAD, _named("VLLM::EngineCore")), 10),
        Fault("the raylet of the worker is killed", killed(WORKER, _named("raylet/raylet")), 10),
        Fault("the control store of the head is killed", killed(HEAD, _named("gcs_server")), 10),
    ],
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """How the engine is spread, and what joins it."""

    tensor: int
    pipeline: int
    executor: str

    @property
    def variables(self) -> dict[str, Any]:
        """For site.yml."""
        wish = site.wishes(self.tensor, self.pipeline, self.executor, **CPU)
        return {"vllm_models": [wish]}

    def __str__(self) -> str:
        return f"{self.executor}, tensor {self.tensor} x pipeline {self.pipeline}"


SHAPES = {
    "mp-tensor": Shape(2, 1, "mp"),
    "mp-pipeline": Shape(1, 2, "mp"),
    "ray-tensor": Shape(2, 1, "ray"),
    "ray-pipeline": Shape(1, 2, "ray"),
}


def serve(shape: Shape) -> None:
    """site.yml, and a second run that changes nothing."""
    first = site.site(shape.variables)
    assert first.code == 0
    again = site.site(shape.variables)
    assert (again.code, again.changed) == (0, {})
    with site.stream(16) as stream:
        assert stream.read().rstrip().endswith(b"[DONE]")
    if shape.executor == "ray":
        files = f"/etc/vllm/secrets.env /etc/vllm/instances/{UNIT[5:-8]}.env"
        status = shell(
            HEAD, f"set -a; for file in {files}; do . $file; done; cd /tmp && /opt/vllm/current/bin/ray status"
        )
        assert status.count("node_") == 2, status


def put_through(shape: Shape) -> list[str]:
    """Every fault of a shape that serves, and a stop of either node; what was later than its goal."""
    late = []
    print(f"\n{shape}\n\n{HEADER}", flush=True)
    faults = FAULTS | {fault.name: fault for fault in INSIDE[shape.executor]}
    for fault in faults.values():
        try:
            healed = heal(fault, HANG)
        except AssertionError as error:  # no answer: the other faults shall be seen as well
            print(error, flush=True)
            late.append(f"{fault.name}: no answer")
            site.start_anew()
        else:
            late += [] if healed.in_time else [healed.row]
    for name in (HEAD, WORKER):
        ended = stop_under_a_stream(name, TOKENS)
        print(ended.row, flush=True)
        late += [] if ended.in_time else [ended.row]
    return [f"{shape}: {row}" for row in late]


def take_away() -> None:
    """The model is not wanted any more: what is gone from the hosts has its name, and all else is there."""
    nodes = (HEAD, WORKER)
    before = {name: set(site.files(name)) for name in nodes}
    assert site.site({"vllm_models": [site.OTHER | {"env": CPU}], "fleet_allow_stops": True}).code == 0
    for name in nodes:
        gone = before[name] - (after := set(site.files(name)))
        assert gone, name
        assert all("tiny-llama-1" in path for path in gone), gone
        assert not any("tiny-llama-1" in path for path in after), after
        assert "tiny-llama-1" not in site.units_and_processes(name)


def main() -> int:
    """Make the hosts, and do it all to them."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.engines", description=__doc__)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of: {', '.join(SHAPES)} (default: all)")
    wanted = parser.parse_args().shapes or list(SHAPES)
    if unknown := set(wanted) - set(SHAPES):
        parser.error(f"there is no shape {', '.join(sorted(unknown))}; there are: {', '.join(SHAPES)}")
    late = []
    site.make()
    site.put_first(HEAD, WORKER)
    try:
        for name in wanted:
            try:
                serve(SHAPES[name])
                late += put_through(SHAPES[name])
                take_away()
            except AssertionError as error:  # the other shapes shall be seen as well
                late.append(f"{SHAPES[name]}: {error}")
    finally:
        site.remove()
    print("\n".join(["", "later than the goal:", *late] if late else ["", "all in time"]))
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())

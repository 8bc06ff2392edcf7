"""vLLM itself over two hosts, by the shape that has most to it. `make faults` has the others, and every fault."""

from __future__ import annotations

from . import engines
from .faults import FAULTS, heal


def test_a_pipeline_by_ray_serves_over_both_hosts_and_answers_again_after_a_reboot() -> None:
    engines.serve(engines.SHAPES["ray-pipeline"])
    # It waits for an answer; how long beyond a start that takes is judged with the stand-in: the machine may be busy.
    heal(FAULTS["the worker's host is rebooted"], engines.HANG)

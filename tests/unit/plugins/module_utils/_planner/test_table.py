"""The table shows every node of a plan, and the sizes of its models, in a hundred columns."""

from __future__ import annotations

from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.hosts import Host
from ansible_collections.gpuhosts.vllm.plugins.module_utils._planner.table import format_table

from tests.unit import fleets
from tests.unit.unsized import TINY, WIDE, host, plan


def test_the_table() -> None:
    made = plan([TINY | {"replicas": 2, "parallelism": {"tensor": 2}}], host("gpu1"), host("gpu2", 3, lost=True))
    assert format_table(made) == "\n".join(
        [
            "INSTANCE  HOST  GPUS  TP  PP  GIB/GPU  ENDPOINT",
            "tiny-1    gpu1  0-1   2   1   73.2     10.0.0.1:8000",
            "tiny-2    gpu2  0-1   2   1   73.2     10.0.0.2:8000",
            "",
            "2 instances of 1 model on 4 GPUs",
            "warning: gpu2: GPU 2 is left out: lost (fell off the bus); reboot the host or replace the GPU.",
        ]
    )


def test_the_table_has_a_line_for_every_node() -> None:
    made = plan([WIDE], host("gpu1"), host("gpu2"))
    assert format_table(made).splitlines()[:3] == [
        "INSTANCE  HOST  GPUS  TP  PP  GIB/GPU  ENDPOINT",
        "wide-1    gpu1  0-1   2   2   73.2     10.0.0.1:8000",
        "          gpu2  0-1",
    ]


def test_the_table_fits_a_hundred_columns() -> None:
    name = "a-model-with-a-name-that-is-as-long-as-the-names-of-models-are-these-days-70b"
    long = Host("gpu-host-in-rack-17.example.org", "gpu-host-in-rack-17.example.org", host("gpu1", 8).hardware)
    table = format_table(plan([TINY | {"name": name, "parallelism": {"tensor": 8}}], long))
    assert max(map(len, table.splitlines())) <= 100
    assert "-70b-1" in table, "the end tells instances apart"


def test_the_table_of_a_sized_plan() -> None:
    models = [fleets.SMALL | {"replicas": 1}, fleets.LARGE | {"replicas": 2}]
    lines = format_table(fleets.plan(models, fleets.host("gpu1"), fleets.host("gpu2"))).splitlines()
    assert [line.split() for line in lines[5:8]] == [
        ["MODEL", "GPU", "CONTEXT", "WEIGHTS", "KV", "CACHE", "MARGIN", "WARM+", "KV", "TOKENS", "REQUESTS"],
        ["llama-3.1-8b-instruct", "H100", "80GB", "131072", "15.0", "54.37", "1.01", "1.67", "445376", "3.4"],
        ["llama-3.3-70b-instruct", "H100", "80GB", "131072", "32.9", "33.21", "2.30", "2.96", "435296", "3.3"],
    ]
    assert max(map(len, lines)) <= 100

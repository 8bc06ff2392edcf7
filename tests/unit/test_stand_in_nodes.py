"""The stand-in over several nodes fails as vLLM was measured to: what keeps nodes together has something to do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.stand_in.contract import Client

from .test_stand_in import ROOT, free_port, wait


class Pair:
    """A head and a worker."""

    def __init__(self, tensor: int, pipeline: int) -> None:
        self.client, self.meeting = Client("127.0.0.1", free_port(), "", "tiny"), free_port()
        self.shape = ["--tensor-parallel-size", str(tensor), "--pipeline-parallel-size", str(pipeline)]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, rank: int) -> subprocess.Popen[bytes]:
        own = ["--headless"] if rank else ["--host", "127.0.0.1", "--port", str(self.client.port)]
        where = ["--nnodes", "2", "--node-rank", str(rank), "--master-addr", "127.0.0.1"]
        words = ["serve", "--model", "tiny", *self.shape, *where, "--master-port", str(self.meeting), *own]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.stand_in", *words], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        self.processes.append(process)
        return process

    def healthy(self) -> bool:
        try:
            return self.client.ask("GET", "/health").status == 200
        except OSError:
            return False

    def answers(self) -> bool:
        try:
            return self.client.complete().status == 200
        except OSError:
            return False


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(*getattr(request, "param", (2, 1)))
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def test_the_head_answers_once_the_worker_is_there(pair: Pair) -> None:
    pair.start(0)
    time.sleep(1)
    assert not pair.healthy()
    pair.start(1)
    assert wait(pair.answers)


def test_a_dead_worker_ends_a_head_whose_tensors_it_shares(pair: Pair) -> None:
    head, worker = pair.start(0), pair.start(1)
    assert wait(pair.answers)
    worker.kill()
    assert wait(lambda: not pair.healthy())
    assert wait(lambda: head.poll() == 0)


@pytest.mark.parametrize("pair", [(1, 2)], indirect=True)
def test_a_dead_stage_of_a_pipeline_is_waited_for_in_good_health(pair: Pair) -> None:
    pair.start(0)
    worker = pair.start(1)
    assert wait(pair.answers)
    worker.kill()
    asking = subprocess.Popen([sys.executable, "-c", _ask(pair)])
    pair.processes.append(asking)
    time.sleep(1.5)
    assert pair.healthy()
    assert asking.poll() is None


def _ask(pair: Pair) -> str:
    asks = """c.request('POST', '/v1/completions', '{"model": "tiny", "prompt": "x"}'); c.getresponse()"""
    return f"import http.client; c = http.client.HTTPConnection('127.0.0.1', {pair.client.port}); {asks}"


def test_a_worker_outlives_its_head_and_joins_no_other(pair: Pair) -> None:
    head, worker = pair.start(0), pair.start(1)
    assert wait(pair.answers)
    head.kill()
    head.wait()
    pair.start(0)
    time.sleep(1.5)
    assert worker.poll() is None
    assert not pair.healthy()
    worker.terminate()
    assert worker.wait(5) == 0
    pair.start(1)
    assert wait(pair.answers)


def test_a_stopped_worker_is_waited_for(pair: Pair) -> None:
    pair.start(0)
    worker = pair.start(1)
    assert wait(pair.answers)
    os.kill(worker.pid, signal.SIGSTOP)
    asking = subprocess.Popen([sys.executable, "-c", _ask(pair)])
    pair.processes.append(asking)
    time.sleep(1)
    assert asking.poll() is None
    told = pair.client.ask("GET", "/metrics").body.decode()
    assert re.findall(r"^vllm:kv_cache_usage_perc\{.*\} (\S+)$", told, re.MULTILINE) == ["0.0"]  # as of the last step
    os.kill(worker.pid, signal.SIGCONT)
    assert asking.wait(5) == 0

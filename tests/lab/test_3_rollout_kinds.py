"""What else is served: adapters, which come and go while the engines run, and a model for embeddings beside the other.

The engines take adapters since the roll-out before (test_3_rollout.py).
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from . import tiny_kinds
from .conftest import machine, playbook
from .rollouts import HOSTS, SERVED_ADAPTER, adapted, model, started, variables
from .settings import NAME, REPORTS, STATE
from .show import FRONT_DOOR

SECOND = {"name": "second-adapter", "source": "/srv/models/second-adapter"}
EMBEDDER = {
    "name": "tiny-embedder",
    "source": "/srv/models/tiny-embedder",
    "replicas": 1,
    "hosts": "gpu1",
    "context_length": 512,
}

_AGAIN_SECONDS = 240  # two engines of a host start


@pytest.fixture(scope="module", autouse=True)
def files() -> None:
    """The second adapter, which is the first one under another name, and the model for embeddings."""
    for host in HOSTS:
        for source, target in ((tiny_kinds.ADAPTER, "second-adapter"), (tiny_kinds.EMBEDDER, "tiny-embedder")):
            command = ["docker", "cp", f"{source}/.", f"{NAME}-{host}:/srv/models/{target}"]
            machine(host).check_output("mkdir -p /srv/models/%s", target)
            subprocess.run(command, check=True, capture_output=True)
        machine(host).check_output("chmod -R a+rX /srv/models")


def ask(path: str, at: str = FRONT_DOOR, **body: Any) -> Any:
    """What the front door, or an engine, answers to a request, or the status of what is none; 0: nobody answers."""
    key = (STATE / "api_key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{at}{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def words(name: str, at: str = FRONT_DOOR) -> Any:
    answer = ask("/v1/completions", at, model=name, prompt="Say hello.", max_tokens=8, temperature=0)
    return answer if isinstance(answer, int) else answer["choices"][0]["text"]


def vector(at: str = FRONT_DOOR) -> Any:
    answer = ask("/v1/embeddings", at, model="tiny-embedder", input="Say hello.")
    return answer if isinstance(answer, int) else answer["data"][0]["embedding"]


def embedder() -> dict[str, Any]:
    return {**EMBEDDER, **{key: model({}, {})[key] for key in ("extra_args", "env")}}


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _AGAIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(1)


def site(*models: dict[str, Any]) -> None:
    run = playbook("playbooks/site.yml", *variables({"vllm_models": models}))
    assert run.code == 0
    verdict = json.loads((REPORTS / "verify.json").read_text())
    assert verdict["ok"], verdict["failures"]


def test_an_adapter_comes_and_goes_and_no_engine_is_restarted() -> None:
    before = [started(host) for host in HOSTS]
    first = words(SERVED_ADAPTER["name"])
    assert words("tiny-llama") != first

    site(adapted(SERVED_ADAPTER, SECOND))
    assert {words(SECOND["name"]) for _ in range(4)} == {first}  # of either engine
    site(adapted(SERVED_ADAPTER))
    assert words(SECOND["name"]) == 404

    assert [started(host) for host in HOSTS] == before


def test_a_model_for_embeddings_comes_beside_it() -> None:
    before = [started(host) for host in HOSTS]
    site(adapted(SERVED_ADAPTER), embedder())
    assert sum(number * number for number in vector()) == pytest.approx(1, abs=0.01)
    assert [started(host) for host in HOSTS] == before


def test_after_a_reboot_both_models_and_the_adapter_are_there_again_by_themselves() -> None:
    plan = json.loads((REPORTS / "plan.json").read_text())
    ends = {one["model"]: one["endpoint"] for one in plan["instances"] if one["endpoint"]["host"] == "gpu1"}
    places = {name: f"{end['address']}:{end['port']}" for name, end in ends.items()}
    engine, other = places["tiny-llama"], places["tiny-embedder"]
    names = (SERVED_ADAPTER["name"], "tiny-llama")
    before = [*(words(name, engine) for name in names), pytest.approx(vector(other))]
    machine("gpu1").check_output("systemd-run --on-active=1 systemctl reboot")
    wait(lambda: vector(other) == 0)
    assert words(SERVED_ADAPTER["name"]) == before[0], "of the other host meanwhile"
    wait(lambda: words("tiny-llama", engine) != 0 and vector(other) != 0)

    assert [*(words(name, engine) for name in names), vector(other)] == before


def test_it_goes_alone() -> None:
    before = [started(host) for host in HOSTS]
    models = variables({"vllm_models": [adapted(SERVED_ADAPTER), embedder()], "teardown_models": ["tiny-embedder"]})
    assert playbook("playbooks/teardown.yml", *models).code == 0
    assert vector() == 404
    assert words("tiny-llama") != 404
    left = machine("gpu1").check_output("find /etc/vllm /etc/systemd/system /run/vllm -name '*tiny-embedder*'")
    assert left == ""
    assert [started(host) for host in HOSTS] == before

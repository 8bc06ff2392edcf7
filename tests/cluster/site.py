"""The hosts of these tests, and how the stages of site.yml are run on them."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import docker
from docker.errors import APIError
from docker.models.containers import Container

from tests.lab import engine, hosts, nvml, stand_in
from tests.lab.conftest import Run, playbook
from tests.lab.settings import NAME, ROOT, STATE

HEAD, WORKER, FRONT_DOOR = "cluster-gpu1", "cluster-gpu2", "cluster-lb1"
MODEL, UNIT = "tiny-llama", "vllm@tiny-llama-1.service"
HANG = 30  # seconds: the shortest that the role takes
INVENTORY = STATE / "cluster"
ANSWER_SECONDS = 3
OTHER = {
    "name": "other",
    "source": f"/srv/models/{MODEL}",
    "replicas": 1,
    "context_length": 512,
    "parallelism": {"tensor": 1},
    "extra_args": {"enforce-eager": True},
}
STAGES = ("validate", "preflight", "plan", "stages/models", "stages/serve", "stages/balance", "stages/verify")

_KINDS = {host.name: host for host in hosts.HOSTS}
MACHINES = (
    dataclasses.replace(_KINDS["lb1"], name=FRONT_DOOR, address="172.29.250.107"),
    dataclasses.replace(
        _KINDS["gpu1"], name=HEAD, address="172.29.250.108", gpus="1xh100", pci="0000:1b:00.0 0x2330 0x030200\n"
    ),
    dataclasses.replace(
        # Of the same release of Debian: Ray wants the same Python on all nodes.
        _KINDS["gpu1"],
        name=WORKER,
        address="172.29.250.109",
        gpus="1xh100",
        pci="0000:1b:00.0 0x2330 0x030200\n",
    ),
)
ADDRESS = {host.name: host.address for host in MACHINES}


def make() -> None:
    """The hosts, fresh ones, and the lab's inventory for them."""
    client = engine.client()
    hosts.remove_hosts(client, print, MACHINES)
    hosts.prepare(client, print, MACHINES)
    stand_in.publish()
    INVENTORY.mkdir(exist_ok=True)
    if not (INVENTORY / "group_vars").exists():
        (INVENTORY / "group_vars").symlink_to(ROOT / "inventories/lab/group_vars")
    groups = {"gpu_hosts": (HEAD, WORKER), "load_balancers": (FRONT_DOOR,)}
    inventory: dict[str, Any] = {
        group: {"hosts": {name: {"ansible_host": ADDRESS[name]} for name in names}} for group, names in groups.items()
    }
    inventory["lab"] = {"children": {group: {} for group in groups}}
    (INVENTORY / "hosts.yml").write_text(json.dumps(inventory))
    for name in (HEAD, WORKER):
        _pretend_a_driver(name)


def _pretend_a_driver(name: str) -> None:
    """What the role nvidia_driver would install, which other tests are about."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(nvml.LIBRARY, nvml.LIBRARY.name)
    container(name).put_archive("/usr/lib/x86_64-linux-gnu", buffer.getvalue())


def remove() -> None:
    """The hosts go."""
    hosts.remove_hosts(engine.client(), print, MACHINES)


def container(name: str) -> Container:
    """A host."""
    return docker.from_env().containers.get(f"{NAME}-{name}")


def put_first(*names: str) -> None:
    """What these hosts compute goes before what other containers of this machine do, as on machines of their own."""
    for name in names:
        container(name).update(cpu_shares=2**18)


def shell(name: str, command: str, *, check: bool = True) -> str:
    """The output of a command on a host, as root; nothing, unless ``check``, while it boots."""
    try:
        code, output = container(name).exec_run(["bash", "-c", command])
    except APIError:
        if check:
            raise
        return ""
    text = str(output.decode(errors="replace")).strip()
    assert not check or code == 0, f"{name}: {command}: {text}"
    return text


def site(variables: Mapping[str, Any]) -> Run:
    """Run the stages of site.yml, but for drivers and exporters, which are not the subject."""
    files = [f"playbooks/{name}.yml" for name in STAGES]
    return playbook(*files, "-e", json.dumps(variables), inventory=str(INVENTORY))


def wishes(tensor: int, pipeline: int, executor: str = "mp", **env: str) -> dict[str, Any]:
    """The one model, over both hosts."""
    # Of a pipeline the CPU build answers the first request only when compiled; else it starts sooner without.
    eager = {"enforce-eager": True} if pipeline == 1 else {"compilation-config": {"mode": 2, "backend": "eager"}}
    return {
        "name": MODEL,
        "source": f"/srv/models/{MODEL}",
        "replicas": 1,
        "context_length": 512,
        "parallelism": {"tensor": tensor, "pipeline": pipeline},
        "executor": executor,
        "extra_args": eager,
        "env": env,
    }


def files(name: str) -> list[str]:
    """What a removal might touch on a host, as paths."""
    return shell(name, "find /etc /srv /usr/local /run/vllm; find /opt -maxdepth 3").splitlines()


def units_and_processes(name: str) -> str:
    """Of vLLM, on a host."""
    return shell(name, "systemctl list-units --all --plain --no-legend 'vllm@*'; pgrep -af vllm; true")


def start_anew() -> None:
    """Restart both nodes, and wait for an answer."""
    epoch = keeper(HEAD).epoch
    for name in (HEAD, WORKER):
        shell(name, f"systemctl restart {UNIT}")
    wait_for_answer(epoch, 600)


def ask(tokens: int = 1, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether the front door answers with text."""
    connection = http.client.HTTPConnection(ADDRESS[FRONT_DOOR], timeout=seconds)
    body = {"model": MODEL, "prompt": "Hello", "max_tokens": tokens, "temperature": 0}
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), _headers())
        answer = connection.getresponse()
        return answer.status == http.client.OK and bool(json.loads(answer.read())["choices"][0]["text"])
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def stream(tokens: int) -> Iterator[http.client.HTTPResponse]:
    """An open stream through the front door."""
    connection = http.client.HTTPConnection(ADDRESS[FRONT_DOOR], timeout=90)
    body = {"model": MODEL, "prompt": "Hello", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), _headers())
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def _headers() -> dict[str, str]:
    key = (STATE / "api_key").read_text().strip()
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


@dataclasses.dataclass(frozen=True)
class State:
    """What the keeper of a node tells."""

    state: str = ""
    epoch: int = 0
    start_seconds: float = 0
    reason: str = ""


def keeper(name: str) -> State:
    """What the keeper on a host tells now."""
    text = shell(name, "cat /run/vllm/tiny-llama-1/keeper.prom", check=False)
    found: dict[str, Any] = {}
    for line in text.splitlines():
        metric, _, value = line.rpartition(" ")
        labels = dict(pair.split("=", 1) for pair in metric.partition("{")[2].rstrip("}").split(",") if "=" in pair)
        if metric.startswith("gpuhosts_keeper_state") and value == "1":
            found["state"] = labels["state"].strip('"')
        elif metric.startswith("gpuhosts_keeper_epoch"):
            found["epoch"] = int(float(value))
        elif metric.startswith("gpuhosts_keeper_start_seconds"):
            found["start_seconds"] = float(value)
        elif metric.startswith("gpuhosts_keeper_end_seconds"):
            found["reason"] = metric.partition('reason="')[2].rstrip('"}')
    return State(**found)


def wait_for_answer(epoch: int, seconds: float) -> State:
    """Wait until another epoch than this one answers; what its keeper tells then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = keeper(HEAD)
        if now.epoch not in (0, epoch) and now.state == "serving" and ask():
            return keeper(HEAD)
        time.sleep(0.2)
    journals = "\n".join(shell(name, f"journalctl -u {UNIT} -n 40 --no-pager", check=False) for name in (HEAD, WORKER))
    raise AssertionError(f"no answer of another epoch than {epoch} within {seconds:g} s\n{journals}")

"""The file of a keeper: what starts an engine, what asks it for a token, and what all nodes have to agree upon."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.keeper_file import keeper_file
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.start import start_of
from keeper_protocol import Node

TIMES = {"shutdown": 60, "dead": 20, "hang": 90, "start": 1800}
HEAD: dict[str, Any] = {
    "id": "llama-1",
    "model": "llama",
    "task": "generate",
    "endpoint": {"address": "10.0.0.1", "port": 8000},
    "node": {"rank": 0, "address": "10.0.0.1"},
    "engine_args": {"model": "/srv/llama", "host": "10.0.0.1", "port": 8000, "nnodes": 2, "node-rank": 0},
    "keeper": {"rank": 0, "nodes": 2, "head": "10.0.0.1", "port": 29500},
}
WORKER: dict[str, Any] = {
    **HEAD,
    "node": {"rank": 1, "address": "10.0.0.2"},
    "engine_args": {"model": "/srv/llama", "headless": True, "nnodes": 2, "node-rank": 1},
    "keeper": {"rank": 1, "nodes": 2, "head": "10.0.0.1", "port": 29500},
}
ALONE = {key: value for key, value in HEAD.items() if key != "keeper"}


def made(instance: dict[str, Any], **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "link": "/opt/vllm/current",
        "release": "/opt/vllm/versions/1",
        "directory": "/etc/vllm/instances",
    }
    given |= {"times": TIMES, **more}
    return json.loads(keeper_file(instance, start=start_of(instance, given), directory=given["directory"], times=TIMES))


def test_it_says_what_a_keeper_reads(tmp_path: Any) -> None:
    (tmp_path / "llama-1.json").write_text(json.dumps(made(HEAD)))
    node = Node.read(tmp_path / "llama-1.json")
    assert (node.id, node.rank, node.nodes, node.head, node.address, node.port) == (
        "llama-1", 0, 2, "10.0.0.1", "10.0.0.1", 29500,
    )  # fmt: skip
    assert node.command[0] == "/opt/vllm/current/bin/vllm"
    assert node.command[1:] == ["serve", "--config", "/etc/vllm/instances/llama-1.yaml", "--shutdown-timeout", "60"]
    assert (node.url, node.dead, node.hang, node.start_timeout, node.drain) == (
        "http://10.0.0.1:8000",
        20,
        90,
        1800,
        70,
    )
    assert node.canary
    assert node.canary["body"]["max_tokens"] == 1
    assert set(made(HEAD)) == set(Node.__dataclass_fields__), "a key that no keeper reads, or one that is never written"


def test_the_nodes_agree_on_everything_but_what_only_one_has() -> None:
    head, worker = made(HEAD), made(WORKER)
    assert head["agree"] == worker["agree"]
    assert (worker["url"], worker["canary"]) == (None, None)
    longer = {**WORKER, "engine_args": {**WORKER["engine_args"], "max-model-len": 512}}
    assert made(longer)["agree"] != head["agree"]
    assert made(WORKER, release="/opt/vllm/versions/2")["agree"] != head["agree"]


def test_an_engine_on_one_host_waits_for_nobody_and_listens_to_nobody() -> None:
    assert {key: made(ALONE)[key] for key in ("nodes", "rank", "port")} == {"nodes": 1, "rank": 0, "port": 0}


def test_an_engine_is_asked_for_what_its_model_does() -> None:
    assert made({**ALONE, "task": "embed"})["canary"]["path"] == "/v1/embeddings"
    assert made({**ALONE, "task": "transcribe"})["canary"] is None


def test_an_address_may_be_one_of_ipv6() -> None:
    assert made({**ALONE, "endpoint": {"address": "fd00::1", "port": 8000}})["url"] == "http://[fd00::1]:8000"


def test_with_ray_the_head_starts_ray_and_the_api_server_and_a_worker_ray_alone() -> None:
    head = made({**HEAD, "ray": ["--head", "--port=29502"]})["command"]
    assert head[:3] == ["/usr/bin/python3", "-Es", "/opt/vllm/lib/ray_node.py"]
    cut = head.index("--")
    assert head[3:cut] == ["/opt/vllm/current/bin/ray", "start", "--head", "--port=29502"]
    assert head[cut + 1 :] == made(HEAD)["command"]
    worker = made({**WORKER, "ray": ["--address=10.0.0.1:29502"]})["command"]
    assert worker == ["/opt/vllm/current/bin/ray", "start", "--address=10.0.0.1:29502"]
    assert made(WORKER)["arguments_file"] is None, "which are the API server's"


CONTAINED: dict[str, Any] = {"runtime": "docker", "container": {"devices": ["GPU-a"]}}
OF_DOCKER: dict[str, Any] = {
    "containers": {"image": "gpuhosts/vllm:1", "wrapper": "/w", "gpus": "cdi", "stop": 120, "mounts": []},
    "unit": "[Service]\nEnvironment=HF_HOME=/var/lib/vllm/huggingface\n",
    "home": "/var/lib/vllm",
    "environment": {},
    "secrets": ["RAY_AUTH_TOKEN"],
}


def in_a_container(instance: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Options of docker run, and what runs in the container."""
    words = made(instance | CONTAINED, **OF_DOCKER)["command"]
    cut = words.index("gpuhosts/vllm:1")
    return words[:cut], words[cut + 1 :]


def test_in_a_container_the_programs_are_those_of_the_image() -> None:
    options, words = in_a_container(WORKER)
    assert "--entrypoint=vllm" in options
    assert words[:3] == ["serve", "--config", "/etc/vllm/instances/llama-1.yaml"]
    assert not any("ray_node" in word for word in options)


def test_ray_joins_containers_as_well() -> None:
    script = "/opt/vllm/lib/ray_node.py"
    options, head = in_a_container({**HEAD, "ray": ["--head", "--port=29502"]})
    assert {"--entrypoint=python3", f"--mount=type=bind,source={script},target={script},readonly"} <= set(options)
    assert head[:6] == ["-Es", script, "ray", "start", "--head", "--port=29502"]
    assert head[6:9] == ["--", "vllm", "serve"]
    options, worker = in_a_container({**WORKER, "ray": ["--address=10.0.0.1:29502"]})
    assert {"--entrypoint=ray", "--env=RAY_AUTH_TOKEN"} <= set(options)
    assert worker == ["start", "--address=10.0.0.1:29502"]


def test_nodes_agree_on_the_image() -> None:
    other = {**OF_DOCKER, "containers": {**OF_DOCKER["containers"], "image": "gpuhosts/vllm:2"}}
    here, there = made(HEAD | CONTAINED, **OF_DOCKER), made(WORKER | CONTAINED, **other)
    assert here["agree"] == made(WORKER | CONTAINED, **OF_DOCKER)["agree"]
    assert len({here["agree"], there["agree"], made(WORKER)["agree"]}) == 3, "nor is one under systemd the same"

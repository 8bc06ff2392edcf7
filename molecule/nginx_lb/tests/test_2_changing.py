"""Other configurations, each of them on all hosts at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from front_door import until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from front_door import FrontDoor


def master(front_door: FrontDoor) -> str:
    return front_door.host.check_output("systemctl show --property=MainPID --value nginx")


def test_a_broken_configuration_never_takes_the_place_of_the_old_one(
    front_doors: list[FrontDoor], change: Callable[..., str]
) -> None:
    before = [front_door.host.file("/etc/nginx/nginx.conf").sha256sum for front_door in front_doors]

    assert 'host not found in "nonsense" of the "listen" directive' in change(nginx_lb_listen=["nonsense"])

    assert [front_door.host.file("/etc/nginx/nginx.conf").sha256sum for front_door in front_doors] == before
    assert {front_door.post(model="small").status for front_door in front_doors} == {200}


def test_a_drained_server_ends_its_streams_and_gets_no_new_request(
    front_doors: list[FrontDoor], play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def servers(front_door: FrontDoor) -> set[int]:
        return {front_door.post(model="big").arrived["port"] for _ in range(6)}

    before = [front_door.host.file("/etc/nginx/nginx.conf").content_string for front_door in front_doors]
    with ThreadPoolExecutor(2 * len(front_doors)) as clients:
        streams = [
            clients.submit(front_door.post, model="big", stream=True, tokens=100, interval=0.25)
            for front_door in front_doors
            for _ in range(2)  # one for each server of the model
        ]
        time.sleep(1)
        assert play("drain.yml", "--extra-vars", "state=drained").returncode == 0
        assert not any(stream.done() for stream in streams)
        assert [servers(front_door) for front_door in front_doors] == [{9004}, {9004}]

    assert [stream.result().tokens for stream in streams] == [100] * len(streams)
    for front_door, text in zip(front_doors, before, strict=True):
        drained = front_door.host.file("/etc/nginx/nginx.conf").content_string
        assert drained == text.replace("9003 max_fails=3 fail_timeout=1s;", "9003 max_fails=3 fail_timeout=1s down;")
    again = play("drain.yml", "--extra-vars", "state=drained")
    assert again.stdout.count("changed=0") == len(front_doors), again.stdout

    assert play("drain.yml", "--extra-vars", "state=serving").returncode == 0
    assert [front_door.host.file("/etc/nginx/nginx.conf").content_string for front_door in front_doors] == before
    assert [servers(front_door) for front_door in front_doors] == [{9003, 9004}, {9003, 9004}]


def test_a_name_that_would_break_the_configuration_is_refused(change: Callable[..., str]) -> None:
    assert "every model is named with lower-case letters" in change(nginx_lb_models=[{"name": "a; b", "servers": []}])


def test_an_engine_that_stands_still_and_is_healthy_is_out_where_tokens_are_asked_for(
    front_doors: list[FrontDoor], change: Callable[..., str]
) -> None:
    assert not change(nginx_lb_health_probe=0.5, nginx_lb_health_probe_timeout=1)
    fault = """curl --silent --fail --data '{"fault": "%s"}' http://127.0.0.1:9003/stand_in/fault"""
    try:
        for front_door in front_doors:
            front_door.host.check_output(fault % "hang")
        for front_door in front_doors:
            until(lambda door: "answers no request for a token" in _state(door), 15, front_door)
            time.sleep(1)  # until NGINX has taken it up
            answers = [front_door.post(model="big") for _ in range(4)]
            assert {(answer.status, answer.arrived["port"]) for answer in answers} == {(200, 9004)}
    finally:
        for front_door in front_doors:
            front_door.host.check_output(fault % "")
    for front_door in front_doors:
        until(lambda door: '"down"' not in _state(door), 15, front_door)


def _state(front_door: FrontDoor) -> str:
    return str(front_door.host.file("/var/lib/gpuhosts-front-door/state.json").content_string)


def test_without_models_the_front_door_says_so(front_doors: list[FrontDoor], change: Callable[..., str]) -> None:
    before = [master(front_door) for front_door in front_doors]

    assert not change(nginx_lb_models=[])

    for front_door in front_doors:
        answer = front_door.post(model="small")
        assert (answer.status, answer.json["error"]["code"]) == (503, "no_server")
        assert front_door.get("/v1/models").json == {"object": "list", "data": []}
    assert [master(front_door) for front_door in front_doors] == before, "a restart, where a reload would do"


def test_one_model_needs_no_routing(front_doors: list[FrontDoor], change: Callable[..., str]) -> None:
    servers = [{"id": "small-1", "address": "127.0.0.1", "port": 9001}]

    assert not change(nginx_lb_models=[{"name": "small", "servers": servers}])

    for front_door in front_doors:
        text = front_door.host.file("/etc/nginx/nginx.conf").content_string
        assert "js_content" not in text.partition("location /v1/ {")[2].partition("}")[0]
        answer = front_door.post(model="an adapter", prompt="x" * 8_000_000)
        assert (answer.status, answer.arrived["port"]) == (200, 9001)
        stream = front_door.post(model="small", stream=True, tokens=3, interval=0.3)
        assert stream.arrivals[-1] - stream.arrivals[0] > 0.5  # two intervals, in which a busy machine may be late

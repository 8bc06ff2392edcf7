"""What goes together goes to one server as long as that is not busy, and models have host names.

81 s on two cores with a load of 12, of which three runs of the role took 50.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from front_door import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from front_door import Answer, FrontDoor

PORTS = (9001, 9002, 9003, 9004)
SMALL, BIG = (
    [{"id": f"on-{port}", "address": "127.0.0.1", "port": port} for port in ports] for ports in (PORTS, PORTS[2:])
)
VALUES = {name: f"{name}-0123456789-0123456789" for name in ("all", "some")}
LIMIT = 2
SETTINGS: dict[str, Any] = {
    "nginx_lb_open": False,
    "nginx_lb_engine_key": "engine-0123456789-0123456789",
    "nginx_lb_keys": [
        {"name": "all", "keys": [VALUES["all"]]},
        {"name": "some", "keys": [VALUES["some"]], "models": ["small"]},
    ],
    "nginx_lb_models": [
        {"name": "small", "servers": SMALL},
        {"name": "big", "adapters": ["org/Adapter"], "servers": BIG},
        {"name": "away", "servers": []},
    ],
    "nginx_lb_balance": "affinity",
    "nginx_lb_affinity_limit": LIMIT,
    "nginx_lb_model_domain": "llm.example.org",
}
STATE = "python3 /opt/gpuhosts/front_door/front_door_state.py"
ALL = " ".join(f"127.0.0.1:{port}" for port in PORTS)
Talk = list[dict[str, str]]


@pytest.fixture(scope="module")
def doors(front_doors: list[FrontDoor], change: Callable[..., str]) -> Iterator[list[FrontDoor]]:
    assert not change(**SETTINGS)
    yield front_doors
    assert not change()


def ask(door: FrontDoor, path: str = "/v1/completions", key: str = "all", **more: Any) -> Answer:
    """One request; names of headers are those that begin with a capital letter."""
    headers = {name.replace("_", "-"): more.pop(name) for name in list(more) if name[0].isupper()}
    headers["Authorization"] = f"Bearer {VALUES[key]}"
    return door.post(path, headers, **{"model": "small"} | more)


def port(answer: Answer) -> int:
    assert answer.status == 200, answer.body
    return int(answer.arrived["port"])


def chat(door: FrontDoor, messages: Talk) -> int:
    return port(ask(door, "/v1/chat/completions", messages=messages))


def talk(number: int, turns: int = 1) -> Talk:
    """The beginning of a conversation; all of them have the system's words in common."""
    said = [{"role": "system", "content": "You are of help. " * 40}]
    for turn in range(turns):
        said += [
            {"role": "user", "content": f"{number * 7919}: question {turn}"},
            {"role": "assistant", "content": "Hm."},
        ]
    return said[:-1]


def at_once(doors: list[FrontDoor], number: int) -> list[Counter[int]]:
    """Of some requests that go together, how many each server has got, by front door."""
    with ThreadPoolExecutor(number * len(doors)) as clients:
        wish: dict[str, Any] = {"X_Session_Id": "session 1", "interval": 2}
        running = [[clients.submit(ask, door, **wish) for _ in range(number)] for door in doors]
    return [Counter(port(one.result()) for one in at_door) for at_door in running]


def test_the_turns_of_a_conversation_go_to_one_server_and_conversations_to_all(doors: list[FrontDoor]) -> None:
    seen = []
    for door in doors:
        turns = [[chat(door, talk(number, turn)) for turn in (1, 2, 3)] for number in range(20)]
        assert [len(set(ports)) for ports in turns] == [1] * 20
        assert {ports[0] for ports in turns} == set(PORTS)
        seen.append(turns)
    assert seen[0] == seen[1], "all front doors choose the same one"


def test_what_a_client_says_goes_together_does(doors: list[FrontDoor]) -> None:
    for door in doors:
        ports = [port(ask(door, prompt=f"{number}", X_Session_Id="session 1")) for number in range(8)]
        ports += [port(ask(door, prompt_cache_key=f"{number}", X_Session_Id="session 1")) for number in range(8)]
        assert len(set(ports)) == 1, "the header comes first"
        assert len({port(ask(door, prompt=f"{number}", prompt_cache_key="cache 1")) for number in range(8)}) == 1
        assert {port(ask(door, prompt=f"{number}" + " so on" * 500)) for number in range(20)} == set(PORTS)
        assert len({port(ask(door, prompt="long " * 500 + f"{number}")) for number in range(8)}) == 1
        assert len({port(ask(door, prompt="")) for _ in range(8)}) == 4, "nothing to go by: the least busy, in turn"


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [None]},
        {"messages": [{"role": "user", "content": [None, {"text": {"toString": 1}}, {"text": 1}]}]},
        {"messages": [{"role": "system"}, None, {"role": "user"}]},
        {"messages": {"length": 9}, "prompt_cache_key": [1]},
        {"prompt_cache_key": {"text": None}},
    ],
)
def test_nonsense_is_for_the_engine_to_judge(doors: list[FrontDoor], more: dict[str, Any]) -> None:
    for door in doors:
        assert ask(door, **more).status == 200


def test_a_busy_server_is_relieved_by_the_others_and_then_by_the_least_busy(doors: list[FrontDoor]) -> None:
    (home,) = {port(ask(door, X_Session_Id="session 1")) for door in doors for _ in range(3)}
    for got in at_once(doors, LIMIT + 1):
        assert got[home] == LIMIT
    for got in at_once(doors, 4 * LIMIT + 4):
        assert set(got.values()) <= {LIMIT, LIMIT + 1, LIMIT + 2}, "one each; a late one may find another order"
        assert set(got) == set(PORTS)
    assert {port(ask(door, X_Session_Id="session 1")) for door in doors} == {home}


def homes(door: FrontDoor) -> list[int]:
    """Ports of the servers of twenty conversations; what was answered instead, where there was none."""
    answers = [ask(door, "/v1/chat/completions", messages=talk(number)) for number in range(20)]
    return [port(answer) if answer.status == 200 else answer.status for answer in answers]


def test_a_drained_server_gives_away_its_share_only_and_has_it_back(doors: list[FrontDoor]) -> None:
    for door in doors:
        before = homes(door)
        door.host.check_output(f"{STATE} drained 127.0.0.1:9002")
        until(lambda door: 9002 not in homes(door), 10, door)
        stayed = [one for one in zip(before, homes(door), strict=True) if one[0] != 9002]
        assert [was for was, _ in stayed] == [now for _, now in stayed]

        door.host.check_output(f"{STATE} drained {ALL}")
        until(lambda door: ask(door, prompt="Hi").status == 503, 10, door)
        answer = ask(door, prompt="Hi")
        assert (answer.status, answer.headers["retry-after"], answer.json["error"]["code"]) == (503, "1", "no_server")
        door.host.check_output(f"{STATE} serving {ALL}")
        until(lambda door, before: homes(door) == before, 10, door, before)


def test_a_server_that_is_killed_fails_nobody(doors: list[FrontDoor]) -> None:
    """Neither the requests that it was computing, with all others as busy as they may be, nor those that come."""
    for door in doors:
        with ThreadPoolExecutor(16) as clients:
            running = [clients.submit(ask, door, X_Session_Id="session 1", interval=1) for _ in range(16)]
            # All of them are on their way by then, and none has ended.
            door.host.check_output("sleep 0.4; systemctl kill --signal=SIGKILL upstream@9003")
        assert {answer.result().status for answer in running} == {200}
    for door in doors:  # back, for the next test
        until(lambda host: host.run("curl --silent --fail http://127.0.0.1:9003/health").rc == 0, 20, door.host)
    time.sleep(2)


def test_a_response_goes_on_where_it_is_kept(doors: list[FrontDoor]) -> None:
    for door in doors:
        for number in range(4):
            made = ask(door, "/v1/responses", input=f"{number}")
            onward = ask(door, "/v1/responses", input="And?", previous_response_id=made.json["id"])
            assert (onward.status, onward.arrived["port"]) == (200, made.arrived["port"])


def test_a_host_name_says_the_model(doors: list[FrontDoor]) -> None:
    form = {"Authorization": f"Bearer {VALUES['all']}", "Content-Type": "multipart/form-data; boundary=edge"}
    for door in doors:
        for model in ("small", "", "huge"):
            body = {"model": "small"} if model == "small" else {"model": None}
            assert port(ask(door, Host="big.llm.example.org:80", prompt=f"{model}", **body)) in PORTS[2:]
        part = b'--edge\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nHi\r\n--edge--\r\n'
        host = {"Host": "BIG.llm.example.org"}
        assert door.request("POST", "/v1/completions", part, form | host).status == 200
        assert door.request("POST", "/v1/completions", part, form).json["error"]["code"] == "model_missing"
        listed = door.request("GET", "/v1/models", headers=form | host).json["data"]
        assert [model["id"] for model in listed] == ["big", "org/Adapter"]
        assert ask(door, Host="away.llm.example.org").json["error"]["code"] == "no_server"
        for wrong in ("huge.llm.example.org", "big.example.org", "xbig.llm.example.org"):
            assert ask(door, Host=wrong, model=None).json["error"]["code"] == "model_missing"
            assert port(ask(door, Host=wrong)) in PORTS, "the request says it, as without a name"


def test_keys_hold_whatever_says_the_model(doors: list[FrontDoor]) -> None:
    for door in doors:
        for more in (
            {"model": "big"},
            {"Host": "big.llm.example.org"},
            {"Host": "big.llm.example.org", "model": "big"},
        ):
            for path in ("/v1/completions", "/v1/responses"):
                answer = ask(door, path, key="some", input="Hi", **more)
                assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
                assert answer.json["error"]["message"] == "There is no such model; there are small."
        some = {"Authorization": f"Bearer {VALUES['some']}", "Host": "big.llm.example.org"}
        assert door.request("GET", "/v1/models", headers=some).status == 404
        assert door.request("GET", "/v1/realtime", headers=some).status == 404
        assert port(ask(door, key="some", Host="small.llm.example.org")) in PORTS
        entry = json.loads(door.host.check_output("tail -n 1 /var/log/nginx/access.log"))
        assert (entry["model"], entry["key"]) == ("small", "some")


def test_one_model_is_enough_for_affinity(doors: list[FrontDoor], change: Callable[..., str]) -> None:
    assert not change(**SETTINGS | {"nginx_lb_models": SETTINGS["nginx_lb_models"][:1]})
    for door in doors:
        assert len({chat(door, talk(1, turn)) for turn in (1, 2, 3)}) == 1
        assert {chat(door, talk(number)) for number in range(20)} == set(PORTS)

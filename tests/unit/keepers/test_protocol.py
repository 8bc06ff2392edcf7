"""What one keeper does about one thing, by its words and its times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from keeper import leftovers
from keeper_protocol import GREETING, LINE, STRANGERS, Keeper, Memory, Node, metrics, parse, pause

WORKER_LINK, HEAD_LINK = 1, 2


KNOWN = "known to both"


def keeper(rank: int = 0, nodes: int = 1, token: str = KNOWN, memory: Memory | None = None, **more: Any) -> Keeper:
    usual: dict[str, Any] = {"id": "x", "command": ["vllm"], "agree": "a", "rank": rank, "nodes": nodes}
    if rank == 0:
        usual |= {"url": "http://10.0.0.1:8000", "canary": {"path": "/v1/completions", "body": {}}}
    return Keeper(Node(**usual | more), token, memory or Memory(), 0.0, lambda: 1000.0)


def named(one: Keeper, name: str) -> list[Any]:
    return [about[0] if len(about) == 1 else about for action, *about in one.take() if action == name]


def said(one: Keeper) -> list[dict[str, Any]]:
    """What it has sent, to whomever."""
    return [message for _, message in named(one, "send")]


def ready(one: Keeper, now: float = 1.0) -> None:
    """Let the engine be healthy, and give a token."""
    one.tick(now)
    one.answered("health", 200, now)
    one.tick(now)
    one.answered("metrics", ("", 0, False), now)
    one.answered("canary", 200, now)


def greet(head: Keeper, worker: Keeper, now: float = 0.0) -> list[dict[str, Any]]:
    """Carry the words of two keepers to and fro; returns them."""
    head.opened(HEAD_LINK, now)
    worker.opened(WORKER_LINK, now)
    words: list[dict[str, Any]] = []
    while True:
        from_head, from_worker = said(head), said(worker)
        if not from_head + from_worker:
            return words
        words += from_head + from_worker
        for message in from_head:
            worker.heard(WORKER_LINK, message, now)
        for message in from_worker:
            head.heard(HEAD_LINK, message, now)


def pair(**more: Any) -> tuple[Keeper, Keeper]:
    """Head and worker that run an epoch and serve."""
    head, worker = keeper(0, 2, **more), keeper(1, 2, **more)
    greet(head, worker)
    head.tick(0.0)
    for message in said(head):
        worker.heard(WORKER_LINK, message, 0.0)
    ready(head)
    for message in said(head):
        worker.heard(WORKER_LINK, message, 1.0)
    assert (head.state, worker.state, head.epoch) == ("serving", "serving", worker.epoch)
    worker.take()
    return head, worker


# Greeting


def test_the_token_never_travels_and_both_sides_prove_that_they_know_it() -> None:
    head, worker = keeper(0, 2), keeper(1, 2)
    words = greet(head, worker)
    assert KNOWN not in str(words)
    assert [set(word) for word in words] == [{"challenge"}, {"rank", "agree", "nonce", "proof"}, {"welcome"}]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"token": "wrong"}, "its token is another one; set vllm_keeper_token alike on all nodes"),
        ({"id": "y"}, "its token is another one; set vllm_keeper_token alike on all nodes"),
        ({"agree": "b"}, "rank 1 has another release or other options; run site.yml on all nodes"),
        ({"rank": 2}, "there is no rank 2 among 2 nodes; run site.yml on all of them"),
    ],
)
def test_who_does_not_belong_is_told_why_and_tries_again(other: dict[str, Any], reason: str) -> None:
    head, worker = keeper(0, 2), keeper(**{"rank": 1, "nodes": 2} | other)

    words = greet(head, worker)

    assert words[-1] == {"refused": reason}
    assert head.links == worker.links == {}
    assert worker.status == f"waiting for the head, which refuses this node: {reason}"
    worker.tick(2.0)
    assert ("connect",) in worker.take()
    head.tick(3.0)
    assert head.status == "waiting for rank 1"


def test_a_worker_does_not_follow_a_head_that_does_not_know_the_token() -> None:
    worker = keeper(1, 2)
    worker.opened(WORKER_LINK, 0.0)
    worker.heard(WORKER_LINK, {"challenge": "c"}, 0.0)
    worker.heard(WORKER_LINK, {"start": 1}, 0.0)
    assert (worker.state, worker.links) == ("waiting", {})


@pytest.mark.parametrize(
    "message",
    [
        {}, {"start": 1}, {"end": "x"}, {"leaving": True}, {"proof": None}, {"rank": [1]}, {"proof": "\ud800"},
        {"rank": True, "agree": "a", "nonce": 1, "proof": "0" * 64}, {"welcome": "x"}, {"beat": True},
    ],
)  # fmt: skip
def test_a_stranger_can_do_nothing_but_be_refused(message: dict[str, Any]) -> None:
    head, _ = pair()
    head.opened(9, 1.0)
    head.take()
    head.heard(9, message, 1.0)
    assert [list(word) for word in said(head)] == [["refused"]]
    assert (head.state, 9 in head.links) == ("serving", False)


def test_a_connection_that_comes_late_does_not_cut_a_worker_off_from_its_epoch() -> None:
    _, worker = pair()
    worker.opened(WORKER_LINK + 1, 12.0)  # of an attempt before
    assert named(worker, "close") == [WORKER_LINK + 1]
    worker.lost(WORKER_LINK, 13.0)
    assert worker.state == "ended"


@pytest.mark.parametrize("text", ["no\nMAINPID=1", "\ud800", ["x"], "x" * 4000])
def test_what_others_say_is_one_line_for_whoever_reads_it(text: object) -> None:
    """Whoever answers at the head's address, without a proof: the status goes to systemd, line by line."""
    stranger = keeper(1, 2)
    stranger.opened(WORKER_LINK, 0.0)
    stranger.heard(WORKER_LINK, {"refused": text}, 0.0)
    _, worker = pair()
    worker.heard(WORKER_LINK, {"end": text}, 2.0)
    for told in (stranger.status, worker.last.reason, *named(stranger, "say"), *named(worker, "say")):
        assert "\n" not in told
        assert len(told.encode()) < 300


def test_strangers_have_little_time_and_little_room() -> None:
    head = keeper(0, 2)
    for link in range(STRANGERS + 1):
        head.opened(link, 0.0)
    assert named(head, "close") == [0]
    head.tick(GREETING + 0.1)
    assert head.links == {}


def test_a_message_is_a_short_object() -> None:
    assert parse(b'{"beat": true}') == {"beat": True}
    for line in (b"[1]", b"{", b"\xff", b"[" * LINE, b'{"a": "' + b"x" * LINE + b'"}'):
        assert parse(line) is None


# Epochs


def test_no_engine_starts_before_all_nodes_are_there() -> None:
    head, worker = keeper(0, 2), keeper(1, 2)
    head.tick(60.0)
    assert (named(head, "start"), head.status) == ([], "waiting for rank 1")
    greet(head, worker, 60.0)
    assert named(worker, "start") == []
    head.tick(61.0)
    assert {"start": 1_000_000} in said(head)
    assert head.state == "starting"


@pytest.mark.parametrize(("rank", "nodes"), [(0, 1), (0, 2), (1, 2)])
def test_a_node_that_is_not_ready_takes_no_part(rank: int, nodes: int) -> None:
    one = keeper(rank, nodes)
    one.hinder("the end of process 7")
    one.tick(9.0)
    assert one.status == "waiting for the end of process 7"
    assert not {"start", "connect"} & {action for action, *_ in one.take()}
    one.hinder("")
    one.tick(10.0)
    assert one.status != "waiting for the end of process 7"
    assert {"start", "connect"} & {action for action, *_ in one.take()} or one.status == "waiting for rank 1"


def test_what_an_engine_has_left_in_its_unit_is_seen(tmp_path: Path) -> None:
    unit = tmp_path / "sys/fs/cgroup/system.slice/vllm@tiny-1.service"
    assert leftovers(1, tmp_path) == []
    for path, text in (
        (tmp_path / "proc/self/cgroup", "0::/system.slice/vllm@tiny-1.service\n"),
        (unit / "cgroup.procs", "1\n7\n"),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert leftovers(1, tmp_path) == [7]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (lambda head: head.exited("ended with status 0"), "rank 0: the engine ended with status 0"),
        (lambda head: head.lost(HEAD_LINK, 2.0), "rank 0: the connection to rank 1 broke"),
        (lambda head: head.tick(30.0), "rank 0: rank 1 was silent for 20 s"),
        (lambda head: head.heard(HEAD_LINK, {"end": "rank 1: x"}, 2.0), "rank 1: x"),
    ],
)
def test_whatever_ends_an_engine_ends_the_epoch(event: Any, reason: str) -> None:
    head, _ = pair()
    event(head)
    actions = head.take()
    assert ("exit", 1) in actions
    assert ("say", f"epoch 1000000 ends: {reason}") in actions
    assert (head.last.reason, head.last.failed) == (reason, 0)


def test_the_other_nodes_are_told_why() -> None:
    head, worker = pair()
    worker.exited("was killed by SIGKILL")
    (message,) = said(worker)
    head.heard(HEAD_LINK, message, 2.0)
    assert head.last.reason == "rank 1: the engine was killed by SIGKILL"


def test_another_hello_of_a_rank_replaces_the_first_or_ends_the_epoch() -> None:
    head, first, second = keeper(0, 2), keeper(1, 2), keeper(1, 2)
    greet(head, first)
    head.opened(7, 0.0)
    second.opened(WORKER_LINK, 0.0)
    (challenge,) = said(head)
    second.heard(WORKER_LINK, challenge, 0.0)
    head.heard(7, said(second)[0], 0.0)
    assert list(head.links) == [7]

    head, _ = pair()
    third = keeper(1, 2)
    head.opened(8, 2.0)
    third.opened(WORKER_LINK, 2.0)
    third.heard(WORKER_LINK, said(head)[0], 2.0)
    head.heard(8, said(third)[0], 2.0)
    assert head.last.reason == "rank 1 has started anew"


def test_pauses_grow_with_epochs_that_never_answered() -> None:
    assert [pause(failed) for failed in (0, 1, 2, 5, 6, 5000)] == [0, 2, 4, 32, 60, 60]
    one = keeper(memory=Memory(failed=3))
    one.tick(7.9)
    assert one.status == "waiting for the end of a pause of 8 s, after 3 starts in a row that never answered"
    one.tick(8.0)
    assert (one.state, one.memory.failed) == ("starting", 4)
    one.exited("ended with status 1")
    assert one.memory.failed == 4
    again = keeper(memory=Memory(failed=4))
    again.tick(16.0)
    ready(again, 17.0)
    assert again.memory.failed == 0


def test_what_ended_without_its_keeper_is_remembered() -> None:
    one = keeper()
    one.tick(0.0)
    assert (one.memory.reason, one.last.reason) == ("the keeper was killed", "")
    after = keeper(memory=one.memory)
    assert 'reason="the keeper was killed"} 1000' in metrics(after)


# Liveness


def test_an_engine_serves_once_it_has_given_a_token() -> None:
    one = keeper()
    one.tick(0.0)
    one.answered("health", 503, 1.0)
    assert one.state == "starting"
    one.answered("health", 200, 2.0)
    one.tick(2.0)
    one.answered("canary", None, 2.0)
    assert one.state == "testing"
    one.answered("canary", 200, 3.0)
    assert (one.state, one.start_seconds) == ("serving", 3.0)


@pytest.mark.parametrize(
    ("answers", "ends"),
    [
        ({"canary": 200}, False),
        ({"canary": None}, True),
        ({"canary": 500}, True),
        ({"canary": 503}, True),  # a full queue whose counters stand still
        ({"canary": 404}, False),  # tells nothing of the engine
    ],
)
def test_an_engine_without_a_token_is_hung(answers: dict[str, Any], ends: bool) -> None:
    one = keeper()
    one.tick(0.0)
    ready(one)
    for now in range(2, 120):
        one.tick(float(now))
        for question in named(one, "ask"):
            one.answered(question, answers.get(question, ("", 0, False)), float(now))
    assert (one.state == "ended") is ends
    if ends:
        assert one.last.reason == "the engine at http://10.0.0.1:8000 gave no token for 90 s"


def test_a_busy_engine_is_asked_for_nothing_and_never_hung() -> None:
    one = keeper()
    one.tick(0.0)
    ready(one)
    one.take()
    asked = []
    for now in range(2, 300):
        one.tick(float(now))
        for question in named(one, "ask"):
            asked.append(question)
            one.answered(question, (str(now), 9, False) if question == "metrics" else None, float(now))
    assert (one.state, set(asked)) == ("serving", {"metrics"})
    assert len(asked) < 25, "every hang / 6"


def test_an_engine_that_sleeps_is_not_hung_until_it_is_awake_again() -> None:
    one = keeper()
    one.tick(0.0)
    ready(one)
    states = []
    for now in range(2, 500):
        one.tick(float(now))
        for question in named(one, "ask"):
            one.answered(question, ("", 1, now < 300) if question == "metrics" else None, float(now))
        states.append(one.state)
    assert set(states[:300]) == {"serving"}
    assert states[-1] == "ended"


@pytest.mark.parametrize(("requests", "state"), [(0, "serving"), (1, "ended"), (None, "serving")])
def test_without_a_canary_a_hang_shows_while_requests_wait(requests: int | None, state: str) -> None:
    one = keeper(canary=None)
    one.tick(0.0)
    ready(one)
    for now in range(2, 120):
        one.tick(float(now))
        for question in named(one, "ask"):
            one.answered(question, ("", requests, False), float(now))
    assert one.state == state


def test_an_engine_that_is_never_healthy_has_a_limit() -> None:
    one = keeper(start_timeout=600)
    one.tick(0.0)
    one.tick(600.0)
    assert one.state == "starting"
    one.tick(600.1)
    assert one.last.reason == "the engine was not healthy 600 s after its start"


# Stopping


def test_a_stop_drains_and_ends_when_the_engine_has() -> None:
    head, _ = pair()
    head.take()
    head.stop(10.0)
    assert named(head, "terminate") == [[]]
    head.lost(HEAD_LINK, 11.0)  # the worker's part has ended with the last request
    assert head.state == "draining"
    head.exited("ended with status 0")
    assert ("exit", 0) in head.take()


@pytest.mark.parametrize(("open_", "seconds"), [(True, 70), (False, 3)])
def test_a_stop_has_a_limit_which_is_short_once_the_port_is_closed(open_: bool, seconds: int) -> None:
    one = keeper()
    one.tick(0.0)
    ready(one)
    one.stop(10.0)
    one.tick(10.0)
    one.answered("port", open_, 10.0)
    one.tick(10.0 + seconds)
    assert one.state == "draining"
    one.tick(10.1 + seconds)
    assert ("exit", 0) in one.take()


def test_a_stop_does_not_wait_for_the_end_of_an_engine_that_has_nothing_left_to_answer() -> None:
    one = keeper()
    one.tick(0.0)
    ready(one)
    one.stop(10.0)
    for now, requests in ((11, 1), (12, 0), (13, 1), (14, None), (15, 0), (16, 0)):
        one.answered("metrics", ("", requests, False), float(now))
        one.tick(now + 3.1)
        assert (one.state == "ended") is (now == 16), now


def test_an_engine_that_would_drop_its_requests_is_told_to_stop_when_it_has_none() -> None:
    one = keeper(idle_first=True)
    one.tick(0.0)
    ready(one)
    one.take()
    one.stop(10.0)
    for now, requests in ((11, 1), (12, 0), (13, 0), (14, 0)):
        one.answered("metrics", ("", requests, False), float(now))
        assert len(named(one, "terminate")) == (now == 13), now
    one.tick(16.1)
    assert ("exit", 0) in one.take()


def test_it_hears_soon_that_there_is_no_request_and_asks_once_more_after_a_second() -> None:
    one = keeper(idle_first=True)
    one.tick(0.0)
    ready(one)
    one.stop(10.0)
    one.take()
    asked = []
    for now in (10.0, 10.25, 10.5, 10.75, 11.0, 11.25, 11.5, 11.75):
        one.tick(now)
        if "metrics" in named(one, "ask"):
            asked.append(now)
            one.answered("metrics", ("", int(now < 10.5), False), now)
    assert asked == [10.0, 10.25, 10.5, 11.5]


def test_a_worker_that_is_told_to_stop_lets_the_head_drain() -> None:
    head, worker = pair()
    worker.stop(10.0)
    assert said(worker) == [{"leaving": True}]
    head.heard(HEAD_LINK, {"leaving": True}, 10.0)
    assert named(head, "terminate") == [[]]
    head.exited("ended with status 0")
    worker.heard(WORKER_LINK, said(head)[0], 12.0)
    assert ("exit", 0) in worker.take()


def test_a_stop_before_the_first_answer_ends_at_once_and_counts_as_no_failure() -> None:
    one = keeper(memory=Memory(failed=1))
    one.tick(2.0)
    one.stop(3.0)
    assert ("exit", 0) in one.take()
    assert one.memory.failed == 1


def test_an_idle_node_stops_at_once() -> None:
    worker = keeper(1, 2)
    worker.tick(0.0)
    worker.stop(1.0)
    assert ("exit", 0) in worker.take()


# Metrics


def test_the_metrics_tell_state_and_last_end() -> None:
    one = keeper(memory=Memory(failed=2, reason='a "b"\n\\', ended=5))
    one.tick(4.0)
    text = metrics(one)
    assert 'gpuhosts_keeper_state{id="x",rank="0",state="starting"} 1\n' in text
    assert 'gpuhosts_keeper_epoch{id="x",rank="0"} 1000000\n' in text
    assert 'gpuhosts_keeper_end_seconds{id="x",rank="0",reason="a \\"b\\" \\\\"} 5\n' in text
    assert text.count("# TYPE") == len({line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")})

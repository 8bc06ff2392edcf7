"""What fetches models, against a hub with faults and against its own like on other hosts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host import model_fetch
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.hub import Repository, manifest_from_hub
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_store import look_at

from tests import hub

PLACE = "acme--tiny--main"
WEIGHTS = "model.safetensors"
SIZE = 3 << 20
KNOWN = "hosts-know-it"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    model = tmp_path / "hub" / "acme" / "tiny"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "1_Pooling" / "config.json").write_text("{}")  # says the same as another one
    (model / "empty.txt").touch()
    (model / WEIGHTS).write_bytes(os.urandom(SIZE))
    return tmp_path / "hub"


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    with hub.served(root) as address:
        yield address


def faults(root: Path, **wanted: Any) -> None:
    (root / "faults.json").write_text(json.dumps(wanted))


@pytest.fixture
def job(url: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a host called ``name`` does: it has a store of its own."""
    listed = manifest_from_hub(Repository("acme/tiny", "main", url), "auto")

    def make(name: str = "one", **others: Any) -> dict[str, Any]:
        store = tmp_path / name
        store.mkdir(exist_ok=True)
        from_hub = {"url": f"{url}/acme/tiny/resolve/{hub.COMMIT}", "token": others.pop("known", ""), "is_hub": True}
        sources = others.pop("sources", [from_hub])
        model = {"place": PLACE, "manifest": listed, "sources": sources, "damaged": others.pop("damaged", [])}
        status = str(tmp_path / f"{name}.json")
        basics = {"serve": {}, "parallel": 2, "patience": 1, "environment": {}, "linger": 0}
        return {"directory": str(store), "models": [model], "status": status, **basics, **others}

    return make


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job here; how it ended."""
    model_fetch.Fetch(job).run()
    return json.loads(Path(job["status"]).read_text())


def is_installed(job: dict[str, Any]) -> bool:
    return look_at(Path(job["directory"]), PLACE, verify=True).complete


def sent(root: Path, name: str = WEIGHTS) -> int:
    return sum(size for path, _, size, _ in hub.answers(root) if path.endswith(f"/{name}"))


def url_of(job: dict[str, Any]) -> str:
    return str(job["models"][0]["sources"][0]["url"]).partition("/acme/")[0]


def peer(address: tuple[str, int], known: str = KNOWN) -> dict[str, Any]:
    return {"url": f"http://{address[0]}:{address[1]}/{PLACE}", "token": known, "is_hub": False}


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, int]]]:
    """Hand out what a host has, on a port of its own."""
    servers = []

    def start(job: dict[str, Any], state: str = "running") -> tuple[str, int]:
        listen = {"address": "127.0.0.1", "port": 0, "token": KNOWN}
        fetch = model_fetch.Fetch(job)
        fetch.state = state
        server = model_fetch.Server(listen, fetch)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return "127.0.0.1", server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_model_appears_whole_and_nothing_else_stays(root: Path, job: Callable[..., dict[str, Any]]) -> None:
    first = job()
    status = run(first)
    assert (status["state"], status["problem"]) == ("done", "")
    assert status["models"] == [{"place": PLACE, "done": SIZE + 2, "total": SIZE + 2}]
    store = Path(first["directory"])
    assert [path.name for path in store.iterdir()] == [PLACE]
    files = {path.relative_to(store / PLACE).as_posix() for path in (store / PLACE).rglob("*") if path.is_file()}
    assert files == {".complete", "1_Pooling/config.json", "config.json", "empty.txt", WEIGHTS}
    assert (store / PLACE / WEIGHTS).read_bytes() == (root / "acme/tiny" / WEIGHTS).read_bytes()
    assert {path.stat().st_mode & 0o777 for path in (store / PLACE).rglob("*") if path.is_file()} == {0o644}
    assert is_installed(first)
    assert sent(root) == SIZE


def test_it_goes_on_where_a_killed_one_ended(root: Path, tmp_path: Path, job: Callable[..., dict[str, Any]]) -> None:
    faults(root, rate=1 << 20)
    first = job()
    task = tmp_path / "job.json"
    task.write_text(json.dumps(first))
    program = subprocess.Popen([sys.executable, "-I", model_fetch.__file__, str(task)])
    part = Path(first["directory"], f".{PLACE}.partial")
    deadline = time.monotonic() + 10
    while not any(path.stat().st_size >= 1 << 20 for path in part.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    program.send_signal(signal.SIGKILL)
    program.wait()
    assert not task.exists()  # there may be tokens in it
    assert not Path(first["directory"], PLACE).exists()
    assert 0 < look_at(Path(first["directory"]), PLACE, verify=False).there < SIZE
    faults(root)
    while not (before := sent(root)) and time.monotonic() < deadline:  # the hub has to see that nobody listens
        time.sleep(0.02)
    assert run(first)["state"] == "done"
    assert 0 < before < SIZE
    assert sent(root) - SIZE < 300_000  # came twice: what was on its way, and in no file yet
    assert is_installed(first)


def test_a_connection_that_ends_early_is_taken_up(root: Path, job: Callable[..., dict[str, Any]]) -> None:
    faults(root, cut=1_000_000)
    first = job()
    assert run(first)["state"] == "done"
    assert sent(root) == SIZE
    assert is_installed(first)


def test_a_hub_that_is_busy_is_asked_again(root: Path, job: Callable[..., dict[str, Any]]) -> None:
    faults(root, busy=3)
    assert run(job())["state"] == "done"


def test_the_token_is_the_hubs_alone(root: Path, job: Callable[..., dict[str, Any]]) -> None:
    faults(root, asks_for="hf_secret")
    assert run(job(known="hf_secret"))["state"] == "done"
    # But for the list of files, which was asked for before, and may be logged late.
    asked = [(path, token) for path, _, _, token in hub.answers(root) if not path.startswith("/api/")]
    seen = {(path.startswith("/cdn/"), token) for path, token in asked}
    assert seen == {(False, "token"), (True, "-")}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rotten": [WEIGHTS]}, "model.safetensors of acme--tiny--main comes with another checksum than"),
        ({"asks_for": "hf_other"}, "set vllm_hf_token to a token that may read this model"),
        ({"busy": 1000}, "is not to be had from"),
    ],
    ids=["rotten", "token", "busy"],
)
def test_what_cannot_be_had_is_told_and_nothing_is_installed(
    root: Path, job: Callable[..., dict[str, Any]], wrong: dict[str, Any], said: str
) -> None:
    first = job(patience=0.3)
    faults(root, **wrong)
    status = run(first)
    assert status["state"] == "failed"
    assert said in status["problem"]
    assert not Path(first["directory"], PLACE).exists()
    faults(root)
    assert run(first)["state"] == "done"
    assert is_installed(first)


def test_a_full_disk_is_named(job: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_fetch.Fetch, "count", full)
    first = job()
    status = run(first)
    assert status["problem"] == f"{first['directory']}: No space left on device"


def test_what_is_rotten_on_the_disk_comes_again(root: Path, job: Callable[..., dict[str, Any]]) -> None:
    first = job()
    run(first)
    (Path(first["directory"]) / PLACE / WEIGHTS).write_bytes(bytes(SIZE))
    look = look_at(Path(first["directory"]), PLACE, verify=False)
    assert look.damaged == (WEIGHTS,)
    again = job(damaged=[WEIGHTS])
    assert run(again)["state"] == "done"
    assert is_installed(again)
    assert sent(root) == 2 * SIZE
    assert sent(root, "config.json") == 2  # once, though two files say the same


def test_what_a_branch_was_before_is_not_taken_for_what_it_is(root: Path, job: Callable[..., dict[str, Any]]) -> None:
    """A host had a branch at another commit, lost a file of it, and another host says what is wanted: as many bytes."""
    model = root / "acme/tiny"
    wanted = job()
    content = (model / "config.json").read_text()
    (model / "config.json").write_text("[]")
    before = job()
    before["models"][0]["manifest"] = manifest_from_hub(Repository("acme/tiny", "main", url_of(wanted)), "auto")
    assert run(before)["state"] == "done"
    (model / "config.json").write_text(content)
    (Path(wanted["directory"]) / PLACE / "empty.txt").unlink()
    wanted["models"][0]["damaged"] = ["empty.txt"]
    assert run(wanted)["state"] == "done"
    assert is_installed(wanted)
    assert (Path(wanted["directory"]) / PLACE / "config.json").read_text() == content
    assert sent(root) == SIZE  # the weights are the same


def test_what_is_rotten_on_the_disk_is_not_handed_out(job: Callable[..., dict[str, Any]]) -> None:
    run(job())
    digests = {item.path: item.digest for item in model_fetch.Fetch(job()).models[0].items}
    begun = model_fetch.Fetch(job(damaged=[WEIGHTS])).models[0]
    assert begun.open(digests[WEIGHTS]) is None
    sound = begun.open(digests["config.json"])
    assert sound is not None
    sound.close()


def test_a_first_part_of_something_else_is_found_out(job: Callable[..., dict[str, Any]]) -> None:
    first = job()
    digest = next(file["digest"] for file in first["models"][0]["manifest"]["files"] if file["path"] == WEIGHTS)
    work = Path(first["directory"], f".{PLACE}.partial")
    work.mkdir()
    for size in (1000, SIZE, SIZE + 1):
        (work / f"{digest}.part").write_bytes(bytes(size))
        assert run(first)["state"] == "done"
        assert is_installed(first)
        Path(first["directory"], PLACE).rename(Path(first["directory"], f"seen-{size}"))
        work.mkdir()


def test_hosts_have_it_from_each_other(
    root: Path, job: Callable[..., dict[str, Any]], serve: Callable[[dict[str, Any]], tuple[str, int]]
) -> None:
    """While the first still fetches it; the hub gives it once."""
    faults(root, rate=8 << 20)
    first = job("one")
    second = job("two", sources=[peer(serve(first))])
    third = job("three", sources=[peer(serve(second))])
    threads = [threading.Thread(target=run, args=(entry,)) for entry in (third, second, first)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [is_installed(entry) for entry in (first, second, third)] == [True, True, True]
    assert sent(root) == SIZE


def test_a_host_that_goes_is_made_up_for_by_another(
    job: Callable[..., dict[str, Any]], serve: Callable[[dict[str, Any]], tuple[str, int]]
) -> None:
    first = job("one")
    run(first)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = peer(nobody.getsockname())
        second = job("two", sources=[gone, peer(serve(first))], patience=3)
        assert run(second)["state"] == "done"
        third = job("three", sources=[gone], patience=0.3)
        status = run(third)
    assert f"is not to be had from {gone['url']}: [Errno 111] Connection refused" in status["problem"]
    assert is_installed(second)
    assert not is_installed(third)


def test_nobody_waits_for_a_host_that_could_not_have_it(
    job: Callable[..., dict[str, Any]], serve: Callable[..., tuple[str, int]]
) -> None:
    first, failed = job("one"), peer(serve(job("two"), "failed"))
    run(first)
    status = run(job("three", sources=[failed], patience=60))
    assert status["problem"].startswith(f"{failed['url']} could not have ")
    assert run(job("four", sources=[failed, peer(serve(first))], patience=60))["state"] == "done"


def test_nobody_gets_a_file_without_the_token(
    job: Callable[..., dict[str, Any]], serve: Callable[[dict[str, Any]], tuple[str, int]]
) -> None:
    first = job("one")
    run(first)
    status = run(job("two", sources=[peer(serve(first), "guessed")]))
    assert "answers 403" in status["problem"]
    assert "another run has taken over there" in status["problem"]


def test_who_has_no_token_does_not_keep_a_host_serving(job: Callable[..., dict[str, Any]]) -> None:
    first = job("one")
    server = model_fetch.Server({"address": "127.0.0.1", "port": 0, "token": KNOWN}, model_fetch.Fetch(first))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    before = server.last
    for word in (b"guessed", "Schlüssel".encode("latin-1")):
        with socket.create_connection(("127.0.0.1", server.server_port)) as stranger:
            stranger.sendall(b"GET /x/0 HTTP/1.1\r\nAuthorization: Bearer " + word + b"\r\n\r\n")
            assert stranger.recv(100).startswith(b"HTTP/1.1 403")
    assert server.last == before
    server.shutdown()
    server.server_close()


def test_a_host_serves_what_is_in_the_list_and_nothing_else(
    job: Callable[..., dict[str, Any]], serve: Callable[[dict[str, Any]], tuple[str, int]]
) -> None:
    first = job("one")
    run(first)
    address = serve(first)
    asked = model_fetch.opener(direct=True)
    for path in ("/", f"/{PLACE}/.complete", f"/{PLACE}/../../etc/passwd", "/other/0"):
        source = model_fetch.Source(f"http://127.0.0.1:{address[1]}", KNOWN, is_hub=True)
        request = source.request(model_fetch.Item(path.lstrip("/"), 1, "0"), 0)
        with pytest.raises(model_fetch.urllib.error.HTTPError, match="404"):
            asked.open(request)

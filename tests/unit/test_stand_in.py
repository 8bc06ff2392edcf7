"""The stand-in for vLLM: the contract that it shares with the real one, how it ends, and how it fails."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpuhosts.vllm.plugins.module_utils._releases.options import TABLES

from tests.lab import stand_in as wheel_of
from tests.stand_in import contract
from tests.stand_in.arguments import RELEASE, VERSION, Parser, add_options, expanded, number
from tests.stand_in.contract import CHECKS, Client, events

ROOT = Path(__file__).resolve().parents[2]
KEY = "s3cret"
SECONDS = 10  # in which what shall happen happens


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Running:
    """A stand-in of its own process, and a client of it."""

    def __init__(self, directory: Path, options: Mapping[str, Any], environment: dict[str, str]) -> None:
        self.client = Client("127.0.0.1", free_port(), KEY, "tiny")
        written = {"model": "/srv/tiny", "served-model-name": "tiny", "host": "127.0.0.1", "port": self.client.port}
        config = directory / "config.yaml"
        config.write_text(yaml.safe_dump({**written, "max-model-len": 512, **options}))
        self.log = directory / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.stand_in", "serve", "--config", str(config)],
                cwd=ROOT,
                env=os.environ | {"VLLM_API_KEY": KEY} | environment,
                stdout=log,
                stderr=log,
            )

    def health(self) -> int:
        """Status of /health; 0 when nothing listens."""
        with contextlib.suppress(OSError):
            return self.client.ask("GET", "/health").status
        return 0

    def fault(self, name: str) -> None:
        assert self.client.ask("POST", "/stand_in/fault", {"fault": name}).status == 200

    @contextlib.contextmanager
    def stream(self, tokens: int) -> Iterator[list[list[Any]]]:
        """A stream of a tenth of a second per token runs meanwhile; what it gave stands in the list afterwards."""
        given: list[list[Any]] = []
        wishes = {"stand_in": {"token_seconds": 0.1}}
        thread = threading.Thread(
            target=lambda: given.append(events(self.client.chat(stream=True, max_tokens=tokens, **wishes)))
        )
        thread.start()
        assert wait(lambda: b"num_requests_running{" in (text := self.metrics()) and b"} 1.0" in text)
        yield given
        thread.join()

    def value(self, name: str) -> float:
        """The first one in /metrics whose name and labels begin so."""
        text = self.client.ask("GET", "/metrics").body.decode()
        return float(next(line for line in text.splitlines() if line.startswith(name)).rpartition(" ")[2])

    def metrics(self) -> bytes:
        lines = self.client.ask("GET", "/metrics").body.splitlines()
        return b"\n".join(line for line in lines if line.startswith(b"vllm:num_requests_running"))


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a stand-in with options of vLLM and with variables of the environment; it ends with the test."""
    started: list[Running] = []

    def begin(options: Mapping[str, Any] | None = None, *, listens: bool = True, **environment: str) -> Running:
        one = Running(tmp_path, options or {}, environment)
        started.append(one)
        if listens:
            assert wait(lambda: one.health() == 200), one.log.read_text()
        return one

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One for all checks of the contract."""
    one = Running(tmp_path_factory.mktemp("stand-in"), {}, {})
    assert wait(lambda: one.health() == 200), one.log.read_text()
    yield one.client
    one.process.kill()
    one.process.wait()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract(client: Client, check: Callable[[Client], None]) -> None:
    check(client)


def test_every_check_of_the_contract_is_in_its_list() -> None:
    here = (value for value in vars(contract).values() if getattr(value, "__module__", "") == contract.__name__)
    public = {value.__name__ for value in here}
    assert {check.__name__ for check in CHECKS} == public - {"Answer", "Client", "events"}


# How it ends


def test_without_a_timeout_what_is_in_flight_is_aborted(start: Start) -> None:
    one = start()
    with one.stream(500) as given:
        one.process.send_signal(signal.SIGTERM)
        assert wait(lambda: one.health() == 0)
        assert one.process.wait(SECONDS) == 0
    assert given[0][-1]["choices"][0]["finish_reason"] == "abort"


def test_with_a_timeout_what_is_in_flight_ends_and_what_comes_is_an_error(start: Start) -> None:
    one = start({"shutdown-timeout": 30})
    with one.stream(15) as given:
        one.process.send_signal(signal.SIGTERM)
        assert wait(lambda: one.client.complete().status == 500)
        assert one.health() == 200, "port and /health tell nothing of it"
        assert one.process.wait(SECONDS) == 0
    assert given[0][-1]["choices"][0]["finish_reason"] == "length"
    assert "draining in-flight requests count=1" in one.log.read_text()


def test_what_outlasts_the_timeout_is_aborted(start: Start) -> None:
    one = start({"shutdown-timeout": 1})
    with one.stream(400) as given:
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(SECONDS) == 0
    assert given[0][-1]["choices"][0]["finish_reason"] == "abort"


# How it fails


def test_it_takes_its_time_to_start(start: Start) -> None:
    one = start(listens=False, STAND_IN_START_SECONDS="600")
    assert wait(lambda: "API server version" in one.log.read_text())
    assert one.health() == 0
    assert one.process.poll() is None


def test_memory_that_lacks_at_the_start_is_told_before_the_server_gives_up(start: Start) -> None:
    one = start(listens=False, STAND_IN_START_FAULT="oom")
    assert one.process.wait(SECONDS) == 1
    log = one.log.read_text()
    assert log.index("torch.OutOfMemoryError") < log.index("See root cause above")


def test_memory_that_lacks_later_kills_the_engine_and_then_the_server(start: Start) -> None:
    one = start()
    one.fault("oom")
    assert one.client.complete().status == 500
    assert one.health() == 503
    assert one.process.wait(SECONDS) == 0, "as vLLM: Restart=on-failure would not bring it back"
    assert "torch.OutOfMemoryError" in one.log.read_text()


@pytest.mark.parametrize(("fault", "status"), [("busy", 503), ("", 200)])
def test_a_full_queue(start: Start, fault: str, status: int) -> None:
    one = start()
    one.fault(fault)
    assert one.client.complete().status == status


def test_an_empty_answer_breaks_off(start: Start) -> None:
    one = start()
    one.fault("empty")
    (choice,) = one.client.complete().json["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "abort")


def test_an_error_of_the_engine_ends_a_request_and_nothing_else(start: Start) -> None:
    one = start()
    one.fault("error")
    assert one.client.complete().status == 500
    labels = 'engine="0",model_name="tiny",finished_reason="error"'
    assert one.value(f"vllm:request_success_total{{{labels}") == 1
    one.fault("")
    assert one.client.complete().status == 200


def test_requests_lose_their_place_in_a_full_cache_and_end_well_all_the_same(start: Start) -> None:
    one = start(STAND_IN_KV_TOKENS="64")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = list(
            pool.map(lambda _: one.client.complete(max_tokens=40, stand_in={"token_seconds": 0.005}), range(4))
        )
    assert [answer.json["usage"]["completion_tokens"] for answer in answers] == [40] * 4
    assert one.value("vllm:num_preemptions_total") > 0
    assert one.value("vllm:kv_cache_usage_perc") == 0


def test_a_crash_and_a_hang(start: Start) -> None:
    one = start()
    one.fault("unhealthy")
    assert one.health() == 503
    one.fault("hang")

    def ask() -> None:
        with contextlib.suppress(OSError):
            one.client.complete()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert wait(lambda: b"} 1.0" in one.metrics()), "it has the request, as an engine that hangs has"
    thread.join(0.5)
    assert thread.is_alive()
    one.fault("crash")
    with pytest.raises((OSError, ValueError)):
        one.client.complete()
    assert one.process.wait(SECONDS) == -signal.SIGKILL
    thread.join(SECONDS)


# Its command line


def parsed(*words: str) -> Any:
    parser = Parser(prog="vllm")
    add_options(parser.add_subparsers(dest="subparser").add_parser("serve"))
    return parser.parse_args(["serve", *words])


def test_it_knows_every_option_of_its_release() -> None:
    assert RELEASE in TABLES
    options = parsed("m", "--enforce-eager", "--no-enable-prefix-caching", "-tp", "2", "--max_model_len=32k")
    assert (options.model_tag, options.enforce_eager, options.enable_prefix_caching) == ("m", True, False)
    assert (options.tensor_parallel_size, options.max_model_len) == (2, 32000)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-model-len", "plenty"], "argument --max-model-len: invalid"),
        (["--max-num-seq", "8"], "unrecognized arguments: --max-num-seq"),
        (["--runner", "fast"], "argument --runner: invalid choice: 'fast'"),
    ],
)
def test_what_vllm_refuses_it_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_comes_before_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("model: m\nport: 1\nenforce-eager: false\nallowed-origins: [a, b]\ncompilation-config: {mode: 2}\n")
    assert expanded(["serve", "--config", str(file), "--port", "2"]) == [
        *["serve", "m", "--port", "1", "--no-enforce-eager", "--allowed-origins", "a", "b"],
        *["--compilation-config", '{"mode": 2}', "--port", "2"],
    ]
    assert expanded(["serve", "m", "--a.b", "1", "--a.c.d=x"]) == ["serve", "m", "--a", '{"b": 1, "c": {"d": "x"}}']


def test_numbers_as_vllm_reads_them() -> None:
    assert [number(text) for text in ("4096", "4k", "4K", "1.5k", "auto")] == [4096, 4000, 4096, 1500, -1]


def test_the_wheel_is_what_the_role_asks_vllm_for(tmp_path: Path) -> None:
    wheel, lock = wheel_of.make(tmp_path)
    assert [line.split("==")[0] for line in lock.splitlines() if "==" in line] == ["pyyaml", "vllm"]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    config = tmp_path / "staged"

    def check(text: str) -> subprocess.CompletedProcess[str]:
        config.write_text(text)
        command = [sys.executable, str(ROOT / "roles/vllm/files/check_config.py"), str(config)]
        return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)

    assert check("model: m\nmax-model-len: 512\n").returncode == 0
    assert "argument --max-model-len: invalid" in check("model: m\nmax-model-len: plenty\n").stderr
    refused = check("model: m\notlp-traces-endpoint: http://127.0.0.1:4317\n").stderr
    assert "this vLLM cannot trace: No module named 'opentelemetry" in refused
    version = [sys.executable, "-m", "vllm.stand_in", "--version"]
    output = subprocess.run(version, env=environment, text=True, capture_output=True, check=True, cwd=tmp_path).stdout
    assert output.strip() == VERSION

"""The hosts of these tests, the models on them, and how they are reached."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import json
import subprocess
import tarfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from docker.models.containers import Container

from tests.lab import engine, hosts, nvml, stand_in
from tests.lab.conftest import Run, playbook
from tests.lab.settings import NAME, ROOT, STATE

INVENTORY = str(Path(__file__).with_name("hosts.yml").relative_to(ROOT))
FRONT_DOOR, GPU1, GPU2, MONITOR = "alerts-lb1", "alerts-gpu1", "alerts-gpu2", "alerts-mon1"
CERTIFICATE = "/etc/ssl/front-door.pem"
STAGES = ("validate", "preflight", "plan", "stages/models", "stages/serve", "stages/balance", "stages/observe")

_KINDS = {host.name: host for host in hosts.HOSTS}
_EIGHT = "".join(f"0000:{0x17 + number:02x}:00.0 0x26b9 0x030200\n" for number in range(8))
MACHINES = (
    dataclasses.replace(_KINDS["lb1"], name=FRONT_DOOR, address="172.29.250.110"),
    dataclasses.replace(_KINDS["gpu1"], name=GPU1, address="172.29.250.111", gpus="8xl40s-pcie", pci=_EIGHT),
    dataclasses.replace(_KINDS["gpu1"], name=GPU2, address="172.29.250.112"),
    dataclasses.replace(_KINDS["mon1"], name=MONITOR, address="172.29.250.113"),
)
ADDRESS = {host.name: host.address for host in MACHINES}
PROMETHEUS, ALERTMANAGER = (f"http://{ADDRESS[MONITOR]}:{port}" for port in (9090, 9093))
# One model for each fault; the first has an engine on either host, and goes through planned work.
PAIR, DOWN, SLOW, FULL, CACHE, STUCK, FLAKY = "pair", "down", "slow", "full", "cache", "stuck", "flaky"
# As many tokens as the plan promises, or more.
_CACHE = {"STAND_IN_KV_TOKENS": "1000000000"}


def _model(name: str, **wishes: Any) -> dict[str, Any]:
    usual = {"source": "/srv/models/tiny-llama", "replicas": 1, "context_length": 512, "hosts": [GPU1], "env": _CACHE}
    return {"name": name, **usual, **wishes}


def models(**env: str) -> list[dict[str, Any]]:
    """All of them, the first with this environment besides."""
    return [
        _model(PAIR, replicas=2, hosts=[GPU1, GPU2], env=_CACHE | env),
        _model(FULL, extra_args={"max-num-seqs": 1, "max-num-queued-reqs": 25}),
        *map(_model, (DOWN, SLOW, CACHE, STUCK, FLAKY)),
    ]


def make() -> None:
    """The hosts, fresh ones."""
    client = engine.client()
    hosts.remove_hosts(client, print, MACHINES)
    hosts.prepare(client, print, MACHINES)
    stand_in.publish()
    for name in (GPU1, GPU2):  # what the role nvidia_driver would install
        put(name, "/usr/lib/x86_64-linux-gnu", nvml.LIBRARY.name, nvml.LIBRARY.read_bytes())
    certify(timedelta(days=365))


def remove() -> None:
    """The hosts go."""
    hosts.remove_hosts(engine.client(), print, MACHINES)


def site() -> Run:
    """Run the stages of site.yml, but for hardware, which is not the subject."""
    return run(*(f"playbooks/{name}.yml" for name in STAGES))


def run(*arguments: str, **env: str) -> Run:
    """Playbooks, with what the inventory has not: the stand-in and the models, the first with this environment."""
    variables = json.dumps(stand_in.VARIABLES | {"vllm_models": models(**env)})
    return playbook(*arguments, "-e", variables, inventory=INVENTORY)


def container(name: str) -> Container:
    """A host."""
    return docker.from_env().containers.get(f"{NAME}-{name}")


def shell(name: str, command: str) -> str:
    """The output of a command on a host, as root."""
    code, output = container(name).exec_run(["bash", "-c", command])
    text = str(output.decode(errors="replace")).strip()
    assert code == 0, f"{name}: {command}: {text}"
    return text


def put(name: str, directory: str, file: str, content: bytes) -> None:
    """A file on a host, for all to read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(file)
        member.size, member.mode = len(content), 0o644
        archive.addfile(member, io.BytesIO(content))
    container(name).put_archive(directory, buffer.getvalue())


def certify(life: timedelta) -> None:
    """Give the front door a certificate that is valid for so long from now on; it has expired of less than nothing."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, FRONT_DOOR)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1000))
        .not_valid_after(now + life)
        .sign(key, hashes.SHA256())
    )
    put(FRONT_DOOR, "/etc/ssl", CERTIFICATE.rpartition("/")[2], made.public_bytes(serialization.Encoding.PEM))


def get(url: str) -> Any:
    """What an API answers."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def engines() -> Mapping[str, tuple[str, int]]:
    """Address and port of every engine by its id, as Prometheus has them."""
    targets = get(f"{PROMETHEUS}/api/v1/targets?scrapePool=vllm")["data"]["activeTargets"]
    found = {}
    for target in targets:
        address, _, port = target["labels"]["instance"].rpartition(":")
        found[target["labels"]["instance_id"]] = (address, int(port))
    return found


def firing() -> list[dict[str, str]]:
    """Labels of the alerts that fire in Prometheus now."""
    alerts = get(f"{PROMETHEUS}/api/v1/alerts")["data"]["alerts"]
    return [alert["labels"] for alert in alerts if alert["state"] == "firing"]


def ask(place: tuple[str, int], model: str, *, seconds: float = 60, **wishes: Any) -> int:
    """Status of a request for tokens; 0 where none has come in this time."""
    key = (STATE / "api_key").read_text().strip()
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1, **wishes})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(*place, timeout=seconds)
    try:
        connection.request("POST", "/v1/completions", body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    return answer.status


def fault(instance: str, name: str) -> None:
    """Give the stand-in a fault, until it starts anew."""
    address, port = engines()[instance]
    body = json.dumps({"fault": name}).encode()
    with urllib.request.urlopen(f"http://{address}:{port}/stand_in/fault", data=body, timeout=10):
        pass


class Clients:
    """They ask the front door, or an engine, again and again until they are told to end."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def begin(
        self,
        number: int,
        model: str,
        place: tuple[str, int] | None = None,
        *,
        every: float = 1,
        over: float = 1,
        seconds: float = 60,
        **wishes: Any,
    ) -> None:
        """So many, who begin evenly `over` this time, ask anew `every` so often and wait `seconds`; all in seconds."""

        def loop(delay: float) -> None:
            self._ended.wait(delay)
            while not self._ended.is_set():
                ask(place or (ADDRESS[FRONT_DOOR], 80), model, seconds=seconds, **wishes)
                self._ended.wait(every)

        for ordinal in range(number):
            threading.Thread(target=loop, args=(ordinal * over / number,), daemon=True).start()

    def end(self) -> None:
        """None asks again."""
        self._ended.set()


@contextlib.contextmanager
def clients() -> Iterator[Clients]:
    """Clients that end with the block."""
    all_of_them = Clients()
    try:
        yield all_of_them
    finally:
        all_of_them.end()


def drain(server: str) -> None:
    """As docs/operations.md has it."""
    variables = {"nginx_lb_servers": [server], "nginx_lb_state": "drained"}
    words = ["ansible", "load_balancers", "-i", INVENTORY, "--become", "-m", "ansible.builtin.include_role"]
    words += ["-a", "name=gpuhosts.vllm.nginx_lb tasks_from=drain", "-e", json.dumps(variables)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

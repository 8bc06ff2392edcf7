"""An engine of the role vllm in a container, beside what it is under systemd; the stand-in for vLLM serves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Engine = Callable[..., subprocess.CompletedProcess[str]]

UNIT, NAME = "vllm@tiny-llama-1.service", "vllm-tiny-llama-1"
WIDE = "{{ wide_plan | gpuhosts.vllm.launches_on(inventory_hostname) }}"
SPANNED = ["containers-trixie", "containers-vendor-trixie"]
KEY = "molecule-key"
MADE, ARCHIVE = "/var/lib/docker/made", "/var/lib/docker/engine.tar"
PROGRAM = "/usr/local/lib/engine_image.py"
REGISTRY = f"""[Service]
ExecStart=/usr/bin/python3 {PROGRAM} serve {MADE} 5000
[Install]
WantedBy=multi-user.target
"""
_SECONDS = 60
_BOOT_SECONDS = 180  # how fast a host boots is not the subject


class Server:
    """A host with an engine, or with a node of one."""

    def __init__(self, host: Any, instance: str = "tiny-llama-1") -> None:
        self.host = host
        self.name: str = host.backend.name
        self.unit, self.container = f"vllm@{instance}.service", f"vllm-{instance}"

    def show(self, unit_property: str) -> str:
        return self.host.check_output(f"systemctl show --value --property {unit_property} {self.unit}")

    def inspect(self, template: str) -> str:
        return self.host.run(f"docker inspect --type container --format '{template}' {self.container}").stdout.strip()

    @property
    def containers(self) -> list[str]:
        ours = "--filter label=gpuhosts.vllm.instance"
        return self.host.check_output(f"docker ps --all --format '{{{{ .Names }}}}' {ours}").split()

    @property
    def answers(self) -> bool:
        body = json.dumps({"model": "tiny-llama", "prompt": "Hello", "max_tokens": 4})
        command = "curl --silent --fail --max-time 3 --json %s --header %s http://127.0.0.1:8000/v1/completions"
        return self.host.run(command, body, f"Authorization: Bearer {KEY}").rc == 0

    def wait(self, condition: Callable[[], bool], seconds: float = _SECONDS) -> bool:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.5)
        return condition()

    @property
    def files(self) -> set[str]:
        """What a removal might touch."""
        return set(self.host.check_output("find /etc /srv /usr/local /run/vllm; find /opt -maxdepth 3").split("\n"))

    @property
    def of_docker(self) -> set[str]:
        """Images, and containers by their names."""
        return set(self.host.check_output("docker images --quiet; docker ps --all --format '{{ .Names }}'").split())

    def reboot(self) -> None:
        """Reboot, and wait until all there is has been started."""
        boot = "stat --format=%Y /proc/1"
        before = self.host.check_output(boot)
        self.host.run("systemctl reboot --no-block")
        up = f"test $({boot}) != {before} && systemctl is-system-running | grep -E 'running|degraded'"
        assert self.wait(lambda: self.host.run(up).rc == 0, _BOOT_SECONDS)

    def heals(self, fault: str) -> bool:
        """Whether another container answers after a fault, alone."""
        before = self.inspect("{{ .Id }}")
        self.host.check_output(fault)
        another = self.wait(lambda: self.inspect("{{ .Id }}") not in ("", before) and self.answers)
        return another and self.containers == [self.container]


@pytest.fixture(scope="session")
def servers(hosts: list[Any]) -> list[Server]:
    """The hosts with an engine, with an image of the host's own files that a registry beside it serves."""
    made = [Server(host) for host in hosts if host.backend.name == "containers-trixie"]
    text = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests/lab/host/engine_image.py").read_text()
    for server in made:
        server.host.check_output("printf %%s %s >%s", text, PROGRAM)
        server.host.check_output("mkdir --parents /srv/models/tiny-llama")  # the stand-in takes any model
    return made


@pytest.fixture(scope="session")
def engine(play: Engine, servers: list[Server]) -> Engine:
    """Run engine.yml with other values of its variables; the first host makes the image, and all pull it from there."""
    pin: dict[str, str] = {}

    def run(*arguments: str, pinned: bool = True, **variables: Any) -> subprocess.CompletedProcess[str]:
        if pinned and not pin:
            host = servers[0].host
            prefix = host.check_output("readlink /opt/vllm/current")
            pin["digest"] = host.check_output(f"python3 {PROGRAM} make {MADE} {prefix}")
            pin["checksum"] = host.check_output(f"python3 {PROGRAM} save {MADE} {ARCHIVE}")
            host.check_output("printf %%s %s >/etc/systemd/system/registry.service", REGISTRY)
            host.check_output("systemctl enable --now registry")
        found = {"pin": pin, **variables}
        if pinned:
            found["vllm_image_digest"] = "{{ pin.digest }}"
        return play("engine.yml", *arguments, "--extra-vars", json.dumps(found))

    return run


def changed(result: subprocess.CompletedProcess[str], number: int) -> bool:
    """Whether a run changed that many tasks."""
    return result.returncode == 0 and result.stdout.count(f"changed={number} ") == 1


def test_without_a_pin_nothing_runs(engine: Engine) -> None:
    assert engine(pinned=False).returncode == 0  # under systemd, which brings the release that the image is made of
    told = engine(pinned=False, runtime="docker")
    assert told.returncode != 0
    assert " ".join(told.stdout.split()).count("and no image is pinned. Set vllm_image_digest to what") >= 1


def test_one_variable_moves_it_into_a_container(engine: Engine, servers: list[Server]) -> None:
    check = engine("--check", "--diff", runtime="docker")
    assert check.returncode == 0, check.stdout
    assert not any(server.containers for server in servers)
    for server in servers:
        assert server.answers

    done = engine(runtime="docker")
    assert done.returncode == 0, done.stdout
    for server in servers:
        assert server.answers
        assert server.containers == [NAME]
        assert "bin/vllm" not in server.host.file("/etc/vllm/instances/tiny-llama-1.json").content_string
    again = engine(runtime="docker")
    assert changed(again, 0), again.stdout
    assert changed(engine("--check", runtime="docker"), 0)


def test_it_may_do_no_more_than_under_systemd(servers: list[Server]) -> None:
    for server in servers:
        uid = server.host.check_output("id --user vllm")
        gid = server.host.check_output("id --group vllm")
        config = json.loads(server.inspect("{{ json .HostConfig }}"))
        assert (config["CapDrop"], config["ReadonlyRootfs"], config["Privileged"]) == (["ALL"], True, False)
        assert config["SecurityOpt"] == ["no-new-privileges"]
        assert (config["NetworkMode"], config["RestartPolicy"]["Name"]) == ("host", "no")
        assert {limit["Name"]: limit["Soft"] for limit in config["Ulimits"]}["memlock"]
        assert config["LogConfig"]["Type"] == "local"
        status = server.host.file(f"/proc/{server.inspect('{{ .State.Pid }}')}/status").content_string
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [uid] * 4
        assert fields["Gid"].split() == [gid] * 4
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"
        assert "docker" not in server.host.check_output("id --name --groups vllm")
        writable = [mount["Destination"] for mount in json.loads(server.inspect("{{ json .Mounts }}")) if mount["RW"]]
        assert writable == ["/var/lib/vllm"]


def test_it_has_the_gpu_of_the_plan(servers: list[Server]) -> None:
    for server in servers:
        (asked,) = json.loads(server.inspect("{{ json .HostConfig.DeviceRequests }}"))
        assert asked["DeviceIDs"] == ["nvidia.com/gpu=GPU-00000000-0000-0000-0000-000000000000"]
        mounts = server.host.file(f"/proc/{server.inspect('{{ .State.Pid }}')}/mountinfo").content_string
        assert "/libnvidia-ml.so.580." in mounts, "what the specification has of the driver"


def test_the_key_is_in_no_command_and_in_no_file_that_others_read(servers: list[Server]) -> None:
    for server in servers:
        assert KEY not in server.host.check_output("ps -e -o args")
        assert server.host.run(f"grep --recursive {KEY} /etc/vllm/instances").rc == 1
        assert KEY in server.inspect("{{ json .Config.Env }}"), "who may ask Docker is root anyway"


def test_the_journal_of_the_unit_has_what_the_engine_says(servers: list[Server]) -> None:
    for server in servers:
        journal = server.host.check_output(f"journalctl --unit {UNIT} --output cat --no-pager")
        assert journal.count("Starting vLLM server on") >= 2, "under systemd, and now"


def test_a_restart_of_docker_ends_nothing(servers: list[Server]) -> None:
    for server in servers:
        before, keeper = server.inspect("{{ .Id }} {{ .State.Pid }}"), server.show("MainPID")
        server.host.check_output("systemctl reset-failed docker.service docker.socket; systemctl restart docker")
        assert server.wait(lambda server=server: server.host.run("docker version").rc == 0)
        assert (server.inspect("{{ .Id }} {{ .State.Pid }}"), server.show("MainPID")) == (before, keeper)
        since = server.host.check_output("date +@%s")
        assert server.answers
        said = f"journalctl --unit {UNIT} --output cat --no-pager --since '{since}'"
        assert server.wait(lambda server=server, said=said: "/v1/completions" in server.host.check_output(said))


@pytest.mark.parametrize(
    "fault",
    [
        "kill -9 $(docker inspect --format '{{ .State.Pid }}' " + NAME + ")",
        f"kill -9 $(systemctl show --value --property MainPID {UNIT})",
        f"kill -9 $(pgrep --full '[l]ib/container.py {NAME} ')",
        f"docker rm --force {NAME}",
    ],
    ids=["engine", "keeper", "wrapper", "container"],
)
def test_whatever_is_killed_another_one_answers_and_nothing_is_left(servers: list[Server], fault: str) -> None:
    for server in servers:
        assert server.heals(fault)


def test_a_clean_stop_leaves_nothing_and_it_starts_again(servers: list[Server]) -> None:
    for server in servers:
        server.host.check_output(f"systemctl stop {UNIT}")
        assert server.containers == []
        assert server.show("Result") == "success"
        server.host.check_output(f"systemctl start {UNIT}")
        assert server.wait(lambda server=server: server.answers)


def test_it_is_back_after_a_reboot_and_a_run_changes_nothing(engine: Engine, servers: list[Server]) -> None:
    for server in servers:
        before = server.inspect("{{ .Id }}")
        server.reboot()
        assert server.wait(lambda server=server: server.answers)
        assert server.inspect("{{ .Id }}") != before
        assert server.containers == [NAME]
    again = engine(runtime="docker")
    assert changed(again, 0), again.stdout


def test_the_vllm_of_the_image_refuses_an_option_before_anything_is_stopped(
    engine: Engine, servers: list[Server]
) -> None:
    before = [server.inspect("{{ .Id }}") for server in servers]
    told = engine(runtime="docker", more_engine_args={"max-model-len": "plenty"})
    assert told.stdout.count("vLLM does not accept its options. Nothing was changed.") >= 1
    assert [server.inspect("{{ .Id }}") for server in servers] == before


def test_a_file_brings_the_image_as_well_and_the_old_one_goes_on_request(engine: Engine, servers: list[Server]) -> None:
    loaded = {"vllm_image_file": ARCHIVE, "vllm_image_file_checksum": "{{ pin.checksum }}"}
    done = engine(runtime="docker", **loaded)
    assert done.returncode == 0, done.stdout
    for server in servers:
        checksum = server.inspect("{{ .Config.Image }}").rpartition("-")[2]
        assert server.host.check_output(f"sha256sum {ARCHIVE}").startswith(checksum)
        assert server.answers

    assert changed(engine(runtime="docker", vllm_image_collect="true", **loaded), 1)
    for server in servers:
        used = server.inspect("{{ .Config.Image }}")
        assert server.host.check_output("docker image ls --format '{{.Repository}}:{{.Tag}}' gpuhosts/vllm") == used
        assert server.answers
    assert changed(engine(runtime="docker", vllm_image_collect="true", **loaded), 0)


def test_it_moves_back_and_leaves_nothing(engine: Engine, servers: list[Server]) -> None:
    assert engine(runtime="systemd").returncode == 0
    for server in servers:
        assert server.answers
        assert server.containers == []
        assert "docker" not in server.host.file(f"/etc/systemd/system/{UNIT}.d/places.conf").content_string
        keeper = server.host.file("/etc/vllm/instances/tiny-llama-1.json").content_string
        assert (json.loads(keeper)["cleanup"], "container.py" in keeper) == ([], False)


def test_one_that_is_not_wanted_any_more_leaves_nothing_and_takes_nothing_else(
    engine: Engine, servers: list[Server]
) -> None:
    assert engine(runtime="docker").returncode == 0
    before = [(server.files, server.of_docker) for server in servers]
    done = engine(runtime="docker", instances=[])
    assert done.returncode == 0, done.stdout
    for server, (files, of_docker) in zip(servers, before, strict=True):
        gone = files - server.files
        assert gone
        assert all("tiny-llama-1" in path for path in gone), gone
        assert not any("tiny-llama-1" in path for path in server.files)
        assert of_docker - server.of_docker == {NAME}
        assert server.show("LoadState") == "not-found" or server.show("ActiveState") == "inactive"


@pytest.fixture(scope="module")
def nodes(engine: Engine, hosts: list[Any]) -> list[Server]:
    """The hosts of one instance."""
    made = [Server(host, "wide-1") for name in SPANNED for host in hosts if host.backend.name == name]
    for node in made:
        node.host.check_output("mkdir --parents /srv/models/tiny-llama")
    done = engine(runtime="docker", spanned=SPANNED, instances=WIDE)
    assert done.returncode == 0, done.stdout
    return made


def test_one_engine_is_made_of_containers_of_two_hosts(engine: Engine, nodes: list[Server]) -> None:
    assert nodes[0].answers
    for node in nodes:
        assert node.containers == ["vllm-wide-1"]
    assert len({node.inspect("{{ .Config.Image }}") for node in nodes}) == 1
    again = engine(runtime="docker", spanned=SPANNED, instances=WIDE)
    assert (again.returncode, again.stdout.count("changed=0 ")) == (0, 2), again.stdout


@pytest.mark.parametrize(
    ("rank", "fault"), [(1, "docker rm --force vllm-wide-1"), (0, "systemctl kill -s KILL vllm@wide-1")]
)
def test_whatever_one_host_loses_both_have_another_one(nodes: list[Server], rank: int, fault: str) -> None:
    before = [node.inspect("{{ .Id }}") for node in nodes]
    nodes[rank].host.check_output(fault)
    assert nodes[0].wait(lambda: nodes[0].inspect("{{ .Id }}") not in ("", before[0]) and nodes[0].answers)
    for node, container in zip(nodes, before, strict=True):
        assert node.containers == ["vllm-wide-1"]
        assert node.inspect("{{ .Id }}") != container


def test_it_is_back_after_a_reboot_of_the_workers_host(nodes: list[Server]) -> None:
    head, worker = nodes
    before = head.inspect("{{ .Id }}")
    worker.reboot()
    assert head.wait(lambda: head.inspect("{{ .Id }}") not in ("", before) and head.answers, _BOOT_SECONDS)


def test_it_leaves_both_hosts_for_another_one_on_each(engine: Engine, nodes: list[Server]) -> None:
    done = engine(runtime="docker", spanned=SPANNED)
    assert done.returncode == 0, done.stdout
    for node in nodes:
        assert node.containers == [NAME]
        assert not any("wide-1" in path for path in node.files)

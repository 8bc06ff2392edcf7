"""What a Docker Engine is started with beside its daemon.json: the flags of its unit; private to the collection.

An engine refuses to start with a setting that is a flag and stands in daemon.json as well, though each is valid by
itself. So what the file is to say is validated with the flags that the next start will have.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from .._errors import ContainersError
from .docker import SETTINGS, at_least
from .system import Run, read_text

__all__ = ["UNIT", "Unit", "read_unit", "validation"]

UNIT = "docker.service"
_FILE = "--config-file"
_VALIDATES_SINCE = "23.0"
_PROPERTIES = ("ExecStart", "Environment", "EnvironmentFiles")
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class Unit:
    """How systemd starts the engine."""

    program: str = "dockerd"
    flags: tuple[str, ...] = ()  # but for that of the file of settings
    file: str = SETTINGS


def read_unit(root: Path, run: Run) -> Unit:
    """The unit as systemd has it, with drop-ins and environment; where there is none, what dockerd does by itself."""
    shown = run(["systemctl", "show", f"--property={','.join(_PROPERTIES)}", UNIT])
    # As systemd prints it: ExecStart={ path=PROGRAM ; argv[]=COMMAND ; ignore_errors=no ; ... }
    command = re.search(r"(?m)^ExecStart=\{.*? argv\[\]=(.*?) ; ignore_errors=", shown)
    if not command:
        return Unit()
    words = [word for one in _words(command[1]) for word in _expanded(one, _environment(shown, root))]
    # A script that starts the engine passes on its flags, or has others that nobody knows.
    if not words or PurePath(words[0]).name != "dockerd":
        return Unit()
    flags, file = _without_file(words[1:])
    return Unit(words[0], tuple(flags), file)


def validation(root: Path, run: Run, host: str) -> str:
    """The command that validates settings as the unit will read them, with %s for their file.

    "" where the program cannot. Raises ContainersError where the unit reads another file.
    """
    unit = read_unit(root, run)
    if unit.file != SETTINGS:
        raise ContainersError(
            f"{host}: {UNIT} starts Docker with {_FILE} {unit.file}, so what {SETTINGS} says is not read. Nothing was "
            f"changed. Take the option out of the unit (systemctl edit docker), and what that file says over to "
            f"{SETTINGS}."
        )
    version = re.search(r"\d+(?:\.\d+)+", run([unit.program, "--version"]))
    if not version or not at_least(version[0], _VALIDATES_SINCE):
        return ""
    return shlex.join([unit.program, "--validate", _FILE, "%s", *unit.flags])


def _environment(shown: str, root: Path) -> dict[str, str]:
    """The unit's variables: those of its files come after, and win."""
    found: dict[str, str] = {}
    for line in re.findall(r"(?m)^Environment=(.*)$", shown):
        found.update(_assignments(_words(line)))
    for path in re.findall(r"(?m)^EnvironmentFiles=(\S+)", shown):
        for line in read_text(root / path.lstrip("/")).splitlines():
            if not line.startswith(("#", ";")):
                found.update(_assignments(_words(line)))
    return found


def _assignments(words: Sequence[str]) -> dict[str, str]:
    return {name: value for name, found, value in (word.partition("=") for word in words) if found}


def _expanded(word: str, environment: Mapping[str, str]) -> list[str]:
    """As systemd does it: $NAME that is a word becomes words, ${NAME} becomes text."""
    if match := re.fullmatch(r"\$(\w+)", word):
        return _words(environment.get(match[1], ""))

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1] or "", "") if match[1] else match[0]

    return [_VARIABLE.sub(value, word)]


def _without_file(words: Sequence[str]) -> tuple[list[str], str]:
    """The flags, and what the one of them says that names the file of settings."""
    flags, file = [], SETTINGS
    rest = iter(words)
    for word in rest:
        name, is_there, value = word.partition("=")
        if name == _FILE:
            file = value if is_there else next(rest, file)
        else:
            flags.append(word)
    return flags, file


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()

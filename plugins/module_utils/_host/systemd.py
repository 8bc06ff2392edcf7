"""Asks systemd about units that are not in their place yet; private to the collection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

__all__ = ["refusal"]

# Exit code, output and errors of a command, as AnsibleModule.run_command has them.
Run = Callable[..., tuple[int, str, str]]
VERIFY = ["systemd-analyze", "verify", "--man=no"]


def refusal(run: Run, name: str, path: Path, scratch: Path) -> str:
    """What systemd has against a unit of this name that lies in a file of any name; "" for nothing.

    :param scratch: a directory for a copy, whose name tells systemd what it is.
    """
    copy = scratch / name
    copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    plain = {"LC_ALL": "C"}
    code, output, errors = run([*VERIFY, "--recursive-errors=no", str(copy)], environ_update=plain)
    said = f"{errors}{output}"
    if code and "unrecognized option" in said:
        # Before systemd 250 there is no such switch: it tells of all units that this one names, and ends with 0.
        _, output, errors = run([*VERIFY, str(copy)], environ_update=plain)
        own = "".join(name.partition("@")[:2])
        lines = [line for line in f"{errors}{output}".splitlines() if str(copy) in line or line.startswith(own)]
        said, code = "\n".join(lines), len(lines)
    return said.strip().replace(str(copy), name) if code else ""

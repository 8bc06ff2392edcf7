"""Checks of the contact with a host; private to the collection."""

from __future__ import annotations

from .record import CONTACT, FAILURE, Check, Fault, Faults, Host, into, version_fault

CHECKS: list[Check] = []
_check = into(CHECKS)
PYTHON_FLOOR = (3, 9)  # of the modules of this collection


@_check(
    "unreachable",
    FAILURE,
    CONTACT,
    "Ansible cannot connect to the host.",
    "Try `ssh {host}` as the user that Ansible uses; bring the host back, or take it out of the inventory.",
)
def _unreachable(host: Host) -> Faults:
    return [Fault(host.unreachable, "a connection")] if host.unreachable else []


@_check(
    "unreadable",
    FAILURE,
    CONTACT,
    "Ansible connects, but its modules do not run: no Python, no sudo, no room in the temporary directory.",
    "Mend what the message says; a host needs Python 3.9 or newer, and with --become a user who may use sudo.",
)
def _unreadable(host: Host) -> Faults:
    return [Fault(host.unreadable, "a host that runs Ansible's modules")] if host.unreadable else []


@_check(
    "python_old",
    FAILURE,
    CONTACT,
    "The Python that Ansible uses on the host is too old for the modules of this collection.",
    "Install a newer Python there and set ansible_python_interpreter of {host} to it.",
)
def _python_old(host: Host) -> Faults:
    return version_fault(host.machine.python, PYTHON_FLOOR) if host.machine.python else []

"""What has to be true of a host that is to serve models, as one table of checks; private to the collection.

A check looks at what was read of the host and says what is wrong: nothing (an empty sequence), something, or that it
cannot tell (None). It reads nothing itself. The codes are stable, because other programs read them.
"""

from __future__ import annotations

from . import contact, driver, gpus, machine
from .record import CONTACT, FAILURE, GPU_HOST, HOST, WARNING, Check, Fault, Faults, Host

__all__ = ["CHECKS", "CONTACT", "FAILURE", "GPU_HOST", "HOST", "WARNING", "Check", "Fault", "Faults", "Host"]

CHECKS: list[Check] = [*contact.CHECKS, *machine.CHECKS, *driver.CHECKS, *gpus.CHECKS]

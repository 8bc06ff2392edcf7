"""Exceptions of this collection; private to it.

::

    FleetError               whatever a module reports as its failure; the message is for the operator
    ├── WishError            vllm_models asks for something that cannot be, whatever the hosts have
    ├── PlacementError       the hosts do not have what vllm_models asks for
    ├── SizingError          something that cannot be sized
    │   ├── ModelConfigError a config.json that is not a model's at all
    │   └── KvCacheError     vLLM's own planner would refuse this KV cache
    ├── CalibrationError     what was kept as calibration is none
    ├── DriverError          a driver that cannot be installed on a host as it was asked for
    ├── ContainersError      a Docker Engine or container toolkit that a host cannot have as it was asked for
    ├── EngineError          an engine that a host cannot have as it was asked for
    ├── AccessError          a firewall or SELinux that a host cannot have as a service needs it
    ├── FrontAddressError    a floating address that a host cannot hold as it was asked for
    ├── ArchiveError         an archive of an upstream release that cannot be had, or is another one
    ├── ModelStoreError      a model that cannot be had, or that a host has no place for
    ├── NotReadyError        an engine does not answer, and waiting longer is of no use
    ├── BusyError            an engine has requests left when the time is up
    ├── BindingMissingError  there is no pynvml to talk to NVML with
    ├── ConfigFileError      a file of somebody else's on the host that cannot be read
    └── ApiError             a server could not be reached, or answered something else than was asked for
        └── RefusedError     it does not accept the API key; asking again is of no use
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AccessError",
    "ApiError",
    "ArchiveError",
    "BindingMissingError",
    "BusyError",
    "CalibrationError",
    "ConfigFileError",
    "ContainersError",
    "DriverError",
    "EngineError",
    "FleetError",
    "FrontAddressError",
    "KvCacheError",
    "ModelConfigError",
    "ModelStoreError",
    "NotReadyError",
    "PlacementError",
    "RefusedError",
    "SizingError",
    "WishError",
]


class FleetError(Exception):
    """Whatever a module reports as its failure; the message is for the operator."""


class WishError(FleetError):
    """Wishes that cannot be; ``problems`` holds one line each: where, what is wrong, what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class PlacementError(FleetError):
    """Wishes that the hosts cannot meet; ``rejected`` holds the records of the fleet plan's key of that name."""

    def __init__(self, rejected: Sequence[dict[str, Any]], notes: Sequence[str] = ()) -> None:
        lines = [f"{record['model']}: {record['reason']} {record['knob']}" for record in rejected]
        super().__init__("\n".join([*lines, *notes]))
        self.rejected = list(rejected)


class SizingError(FleetError):
    """Something that cannot be sized; the message says why and what to do."""


class ModelConfigError(SizingError):
    """A ``config.json`` that does not describe a model (not a mapping, or no sizes in it at all)."""


class KvCacheError(SizingError):
    """vLLM's start-up would stop here; the message is the one that its log would show.

    ``needed_bytes`` and ``available_bytes`` are per GPU, ``max_model_len`` the longest request in tokens
    that would fit (0: not even one token).
    """

    def __init__(
        self, message: str, *, needed_bytes: int = 0, available_bytes: int = 0, max_model_len: int = 0
    ) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.max_model_len = max_model_len


class CalibrationError(FleetError):
    """What the operator kept as calibration is no such thing; the message says where, without the file's name."""


class DriverError(FleetError):
    """A driver that cannot be installed as asked for; the message names the host, the reason and what to do."""


class ContainersError(FleetError):
    """An engine or a toolkit that cannot be as asked for; the message names the host, the reason and what to do."""


class EngineError(FleetError):
    """An engine that a host cannot have as asked for; the message names the instance, the reason and what to do."""


class AccessError(FleetError):
    """A firewall or SELinux that cannot be as a service needs it; the message says why and what to do."""


class FrontAddressError(FleetError):
    """A floating address that a host cannot hold as asked for; the message names the host, the reasons, what to do."""


class NetworkError(FleetError):
    """The nodes of an instance could not reach each other; the message says why and what to do."""


class ArchiveError(FleetError):
    """An archive that cannot be had or is not the one that was asked for; the message names it."""


class ModelStoreError(FleetError):
    """A model that cannot be had, or that a host has no place for; the message says why and what to do."""


class NotReadyError(FleetError):
    """An engine that does not answer; ``stage`` is how far it came: unit, health, models or completion."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


class BusyError(FleetError):
    """An engine that still has ``requests`` when the time is up (None: it did not tell how many)."""

    def __init__(self, requests: int | None, reason: str) -> None:
        super().__init__(reason)
        self.requests = requests


class BindingMissingError(FleetError):
    """There is no pynvml to talk to NVML with."""


class ConfigFileError(FleetError):
    """A file of somebody else's on the host that cannot be read; the message names it and the line."""


class ApiError(FleetError):
    """The server could not be reached, or answered something else than was asked for; the message says which."""


class RefusedError(ApiError):
    """The server does not accept the API key; asking again is of no use."""

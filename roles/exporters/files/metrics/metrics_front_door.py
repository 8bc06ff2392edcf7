"""Counts what NGINX writes to its log, a JSON object a line (log_format of the role nginx_lb).

What was counted, and how far it was read, is remembered over restarts, so that no request counts twice and none is lost
while the log is there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from metrics_text import Metrics

__all__ = ["Counts", "FrontDoorLog", "first_byte_seconds"]

_FIRST_BYTE = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)  # seconds
_WHOLE = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_LONGEST = 1 << 20  # bytes of a line; a longer one is nobody's request
_PIECE = 1 << 22  # bytes read at once
_BETWEEN = re.compile(" : |, ")
_REQUESTS, _UNREADABLE = "gpuhosts_front_door_requests_total", "gpuhosts_front_door_unreadable_lines_total"


class Counts:
    """Counters and histograms by model, as plain data that JSON keeps."""

    def __init__(self, stored: dict[str, Any] | None = None) -> None:
        """Go on from what `stored` was."""
        stored = stored or {}
        self.requests: dict[str, dict[str, int]] = stored.get("requests", {})
        self.histograms: dict[str, dict[str, list[float]]] = stored.get("histograms", {})
        self.unreadable: int = stored.get("unreadable", 0)

    def stored(self) -> dict[str, Any]:
        """What the next one goes on from."""
        return {"requests": self.requests, "histograms": self.histograms, "unreadable": self.unreadable}

    def count(self, line: bytes) -> None:
        """One line of the log."""
        try:
            entry = json.loads(line)
            model, status, seconds = str(entry["model"]), str(int(entry["status"])), float(entry["seconds"])
            first = first_byte_seconds(entry)
        except (ValueError, KeyError, TypeError, RecursionError):
            self.unreadable += 1
            return
        by_status = self.requests.setdefault(model, {})
        by_status[status] = by_status.get(status, 0) + 1
        self._observe("seconds", model, _WHOLE, seconds)
        if first is not None:
            self._observe("first_byte_seconds", model, _FIRST_BYTE, first)

    def _observe(self, name: str, model: str, bounds: Iterable[float], value: float) -> None:
        """In a histogram: how many were in each bucket, none above counted; then all, and their sum."""
        limits = tuple(bounds)
        counts = self.histograms.setdefault(name, {}).setdefault(model, [0] * (len(limits) + 2))
        for number, limit in enumerate(limits):
            if value <= limit:
                counts[number] += 1
                break
        counts[-2] += 1
        counts[-1] += value

    def tell(self, metrics: Metrics) -> None:
        """All of it as metrics."""
        metrics.family(_REQUESTS, "counter", "Requests that the front door has answered, by model and status.")
        for model, by_status in sorted(self.requests.items()):
            for status, number in sorted(by_status.items()):
                metrics.add(_REQUESTS, number, {"model": model, "status": status})
        about = "Seconds until the first byte of a server's answer, tries that failed included."
        self._tell_histogram(metrics, "first_byte_seconds", about, _FIRST_BYTE)
        self._tell_histogram(metrics, "seconds", "Seconds until a request was answered whole.", _WHOLE)
        metrics.family(_UNREADABLE, "counter", "Lines of the log that are no JSON of a request.")
        metrics.add(_UNREADABLE, self.unreadable)

    def _tell_histogram(self, metrics: Metrics, name: str, about: str, bounds: tuple[float, ...]) -> None:
        family = f"gpuhosts_front_door_{name}"
        metrics.family(family, "histogram", about)
        for model, counts in sorted(self.histograms.get(name, {}).items()):
            below = 0.0
            for limit, number in zip(bounds, counts):
                below += number
                metrics.add(family, below, {"le": f"{limit:g}", "model": model}, suffix="_bucket")
            metrics.add(family, counts[-2], {"le": "+Inf", "model": model}, suffix="_bucket")
            metrics.add(family, counts[-1], {"model": model}, suffix="_sum")
            metrics.add(family, counts[-2], {"model": model}, suffix="_count")


def first_byte_seconds(entry: dict[str, Any]) -> float | None:
    """From the request to the first byte of the last server's answer; None where no server has answered.

    NGINX lists the servers that it tried, with ``, `` or `` : `` between them and ``-`` for what has no time:
    https://nginx.org/en/docs/http/ngx_http_upstream_module.html#variables.
    """
    firsts, wholes = (_BETWEEN.split(str(entry[key])) for key in ("server_first_byte_seconds", "server_seconds"))
    if not firsts[-1] or firsts[-1] == "-":
        return None
    return float(firsts[-1]) + sum(float(one) for one in wholes[:-1] if one not in ("", "-"))


class FrontDoorLog:
    """A log that is written, renamed and begun anew while it is read."""

    def __init__(self, path: Path, stored: dict[str, Any] | None = None) -> None:
        """Go on from what `stored` was; the first time, from the end of the log on."""
        self.path = path
        self.counts = Counts(stored)
        self._file: BinaryIO | None = None
        self._offset = 0
        if stored is None:
            self._open(path, at_end=True)
        else:
            self._resume(stored["inode"], stored["offset"])

    def _resume(self, inode: int, offset: int) -> None:
        """Find the file that was read last, which may have another name by now."""
        for path in sorted(self.path.parent.glob(f"{self.path.name}*")):
            if path.stat().st_ino == inode:
                self._open(path)
                self._offset = offset
                return

    def close(self) -> None:
        """Leave the log; nothing is counted any more."""
        if self._file:
            self._file.close()
        self._file = None

    def _open(self, path: Path, *, at_end: bool = False) -> None:
        self.close()
        self._offset = 0
        if path.exists():
            self._file = path.open("rb")
            self._offset = os.fstat(self._file.fileno()).st_size if at_end else 0

    def stored(self) -> dict[str, Any]:
        """What the next one goes on from."""
        inode = os.fstat(self._file.fileno()).st_ino if self._file else 0
        return {**self.counts.stored(), "inode": inode, "offset": self._offset}

    def run(self, metrics: Metrics) -> None:
        """Count what was written since the last time.

        A renamed log is left once a new one is there and the old one has had no more to say for a whole run: NGINX
        goes on writing to it until it is told.
        """
        grown = self._read()
        while not grown and self._is_another():
            self._open(self.path)
            grown = self._read()
        self.counts.tell(metrics)

    def _is_another(self) -> bool:
        try:
            now = self.path.stat()
        except OSError:
            return False
        return self._file is None or os.fstat(self._file.fileno()).st_ino != now.st_ino

    def _read(self) -> bool:
        """Count the lines that are whole; the rest of the last one stays for the next time. Whether there were any."""
        if self._file is None:
            return False
        if os.fstat(self._file.fileno()).st_size < self._offset:
            self._offset = 0  # it was emptied in place
        began = self._offset
        self._file.seek(self._offset)
        rest = b""
        while piece := self._file.read(_PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._offset += len(line) + 1
                self.counts.count(line)
            if len(rest) > _LONGEST:
                self._offset += len(rest)
                self.counts.unreadable += 1
                rest = b""
        return self._offset > began

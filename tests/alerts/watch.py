"""What Prometheus and Alertmanager say of alerts all the time, and what comes to the webhook."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import fleet

# Of this machine on the lab's network: the first that the engine hands out. alertmanager_receivers of hosts.yml.
ADDRESS = ("172.29.250.128", 9095)
EVERY = 0.5  # seconds

Labels = dict[str, str]


@dataclass
class Seen:
    """Labels of alerts by the name of the alert, since a moment."""

    firing: dict[str, list[Labels]] = field(default_factory=dict)  # Prometheus' API
    active: dict[str, list[Labels]] = field(default_factory=dict)  # Alertmanager's API
    suppressed: dict[str, list[Labels]] = field(default_factory=dict)  # the same: by a silence
    told: dict[str, list[Labels]] = field(default_factory=dict)  # the webhook

    def note(self, place: dict[str, list[Labels]], labels: Labels) -> None:
        """Once is enough."""
        known = place.setdefault(labels["alertname"], [])
        if labels not in known:
            known.append(labels)

    def everywhere(self) -> set[str]:
        """Names of alerts that were seen firing, active and told."""
        return set(self.firing) & set(self.active) & set(self.told)


class Watch:
    """Looks and listens while its block lasts."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._ended = threading.Event()

    def anew(self) -> Seen:
        """Forget what was seen."""
        self.seen = Seen()
        return self.seen

    def look(self) -> None:
        """Once."""
        seen = self.seen
        for labels in fleet.firing():
            seen.note(seen.firing, labels)
        for alert in fleet.get(f"{fleet.ALERTMANAGER}/api/v2/alerts"):
            place = seen.suppressed if alert["status"]["state"] == "suppressed" else seen.active
            seen.note(place, alert["labels"])

    def loop(self) -> None:
        """Until the end."""
        while not self._ended.wait(EVERY):
            with contextlib.suppress(OSError, ValueError):  # they are not there yet
                self.look()

    def wait(self, condition: Callable[[Seen], bool], seconds: float) -> bool:
        """Whether that comes to be so within this time."""
        deadline = time.monotonic() + seconds
        while not condition(self.seen):
            if time.monotonic() > deadline:
                return False
            time.sleep(EVERY)
        return True

    def end(self) -> None:
        """Nobody looks any more."""
        self._ended.set()


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """A watch with its webhook."""
    watch = Watch()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take what Alertmanager tells."""
            told: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in told["alerts"]:
                if alert["status"] == "firing":
                    watch.seen.note(watch.seen.told, alert["labels"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Not a word."""

    with ThreadingHTTPServer(ADDRESS, Webhook) as server:
        threads = [threading.Thread(target=one, daemon=True) for one in (server.serve_forever, watch.loop)]
        for thread in threads:
            thread.start()
        try:
            yield watch
        finally:
            watch.end()
            server.shutdown()


def about(labels: dict[str, str], host: str = "") -> bool:
    """Whether an alert is about what is worked on: at this pace, a busy machine may make others by late scrapes."""
    names = [labels.get(name, "") for name in ("model", "instance_id", "id")]
    ours = {"{}:{}".format(*place) for engine, place in fleet.engines().items() if engine.startswith(f"{fleet.PAIR}-")}
    return (
        any(name == fleet.PAIR or name.startswith(f"{fleet.PAIR}-") for name in names)
        or labels.get("server") in ours
        or (host != "" and labels.get("host") == host)
    )

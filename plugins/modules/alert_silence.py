#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: alert_silence
short_description: Keep Alertmanager from telling of planned work, and lift that again
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Makes silences with a name, prolongs those that a run before has left, and ends the ones with that name that are not
    wanted any more. Those of people are left alone.
  - Every silence has an end, so that one outlives the run that has died by O(seconds) at most.
  - An Alertmanager that does not answer is a warning, because work on hosts must not depend on it.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  idempotent:
    support: partial
    details: A silence that has less than half of O(seconds) left is prolonged.
options:
  url:
    description: Where Alertmanager answers, without C(/api).
    type: str
    required: true
  name:
    description: What the silences are for; people see it as their comment.
    type: str
    required: true
  alerts:
    description:
      - The alerts that are kept back, a dictionary for each silence with values by label. An alert is kept back where
        each of these labels has one of its values. A label without values takes the whole dictionary out.
      - An empty list lifts all silences of that name.
    type: list
    elements: dict
    required: true
  seconds:
    description:
      - Seconds from now until the silences end.
      - Where silences are lifted, that is how long they stay. What was away is not seen again at once.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Tell nobody that gpu1 is away
  gpuhosts.vllm.alert_silence:
    url: http://127.0.0.1:9093
    name: maintenance of gpu1
    alerts:
      - host: [gpu1]
      - instance_id: [tiny-llama-1, tiny-llama-2]
    seconds: 7200

- name: Tell again, two minutes from now
  gpuhosts.vllm.alert_silence:
    url: http://127.0.0.1:9093
    name: maintenance of gpu1
    alerts: []
    seconds: 120
"""

RETURN = r"""
said:
  description: What was done, a sentence for each silence.
  returned: success
  type: list
  elements: str
  sample: ["host=~\"gpu1\" is silent until 2026-11-28 21:40:00 UTC"]
"""

import datetime
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

BY = "gpuhosts.vllm"
REQUEST_SECONDS = 5
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Matchers = tuple[tuple[str, str], ...]  # label and regular expression


@dataclass(frozen=True)
class Silence:
    """One of ours, as Alertmanager has it or shall have it."""

    matchers: Matchers
    ends: datetime.datetime
    starts: datetime.datetime
    id: str = ""  # of one that is there

    @classmethod
    def from_api(cls, entry: Mapping[str, Any]) -> Silence:
        """One of the API's list."""
        matchers = sorted((matcher["name"], matcher["value"]) for matcher in entry["matchers"])
        return cls(tuple(matchers), _time(entry["endsAt"]), _time(entry["startsAt"]), entry["id"])

    def to_api(self, name: str) -> dict[str, Any]:
        """What the API takes to make it, or to change the one with its id."""
        matchers = [{"name": key, "value": text, "isRegex": True, "isEqual": True} for key, text in self.matchers]
        times = {"startsAt": self.starts.isoformat(), "endsAt": self.ends.isoformat()}
        return {"matchers": matchers, **times, "createdBy": BY, "comment": name, **({"id": self.id} if self.id else {})}

    @property
    def says(self) -> str:
        """It in words."""
        what = ", ".join(f'{key}=~"{text}"' for key, text in self.matchers)
        return f"{what} is silent until {self.ends.replace(tzinfo=None, microsecond=0)} UTC"


def _time(text: str) -> datetime.datetime:
    """A time of the API, which is UTC; Python 3.9 reads no `Z`, and nobody needs parts of seconds."""
    return datetime.datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=datetime.timezone.utc)


def wanted(alerts: Sequence[Mapping[str, Sequence[str]]]) -> list[Matchers]:
    """Labels and regular expressions of each silence."""
    return [
        tuple(
            sorted((label, "|".join(re.escape(value) for value in sorted(values))) for label, values in entry.items())
        )
        for entry in alerts
        if entry and all(entry.values())
    ]


def changes(
    there: Sequence[Silence], alerts: list[Matchers], now: datetime.datetime, seconds: int
) -> Iterator[Silence]:
    """The silences that have to be written, new and changed ones; one that ends now is no more."""
    end = now + datetime.timedelta(seconds=seconds)
    kept = {silence.matchers: silence for silence in there}
    for matchers in alerts:
        silence = kept.get(matchers)
        if silence is None:
            yield Silence(matchers, end, now)
        elif silence.ends < now + datetime.timedelta(seconds=seconds / 2):
            yield Silence(matchers, end, silence.starts, silence.id)
    # Lifted, they last a moment longer. What is silenced by nobody any more while others are ends at once.
    last = now if alerts else end
    for silence in there:
        if silence.matchers not in alerts and silence.ends > last:
            yield Silence(silence.matchers, last, silence.starts, silence.id)


class Alertmanager:
    """Its API."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") + "/api/v2"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What it answers, parsed; OSError where it does not."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method, headers=headers)
        try:
            with DIRECT.open(request, timeout=REQUEST_SECONDS) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            raise OSError(f"{error}: {error.read().decode(errors='replace').strip()}") from error

    def ours(self, name: str) -> list[Silence]:
        """Our silences with a name that are not over."""
        entries = self.ask("GET", "/silences")
        mine = [entry for entry in entries if (entry["createdBy"], entry["comment"]) == (BY, name)]
        return [Silence.from_api(entry) for entry in mine if entry["status"]["state"] != "expired"]

    def write(self, silence: Silence, name: str, now: datetime.datetime) -> None:
        """Make, change or end one."""
        if silence.ends > now:
            self.ask("POST", "/silences", silence.to_api(name))
        else:
            self.ask("DELETE", f"/silence/{silence.id}")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "alerts": {"type": "list", "elements": "dict", "required": True},
            "seconds": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    given, now = module.params, datetime.datetime.now(datetime.timezone.utc)
    alertmanager, said = Alertmanager(given["url"]), []
    try:
        there = alertmanager.ours(given["name"])
        for silence in changes(there, wanted(given["alerts"]), now, given["seconds"]):
            if not module.check_mode:
                alertmanager.write(silence, given["name"], now)
            said.append(silence.says if silence.ends > now else silence.says.partition(" is ")[0] + " is told again")
    except (OSError, ValueError) as error:
        module.warn(
            f"Alertmanager at {given['url']} was not told of the {given['name']}, so that it may alert: {error}"
        )
    module.exit_json(changed=bool(said), said=said)


if __name__ == "__main__":
    main()

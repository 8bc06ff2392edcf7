"""What a host tells of the fleet at this moment; private to the collection.

Everything is only read, without root: files that anybody may read, and services that are asked over HTTP on their own
host. What cannot be read is None, and says why in ``problem`` or in the host's ``problems``.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from .._errors import ApiError
from .._host.keepers import read_keepers
from .._host.system import read_text
from .openai import OpenAiClient

__all__ = [
    "ENGINE_METRICS",
    "FACT",
    "NGINX",
    "QUERIES",
    "Prometheus",
    "read_changes",
    "read_engines",
    "read_front_door",
    "servers",
    "silenced",
]

SECONDS = 4.0  # for an answer; all engines of a host are asked at once
FACT = "etc/ansible/facts.d/gpuhosts_vllm.fact"
NGINX = "etc/nginx/nginx.conf"
# What runs of the playbooks write where it differs: the youngest of these files is the last change of a host.
WRITTEN = (FACT, NGINX, "etc/vllm/instances/*", "etc/prometheus/prometheus.yml", "etc/prometheus/rules/*")
CONVERGED = "var/lib/gpuhosts/converged"  # the role exporters touches it in every run

# By name what Prometheus is asked. Series of GPUs have the names that dcgm-exporter gives them, and where that is not
# there, the collector of the role exporters.
QUERIES = {
    "ttft_p95_seconds": "model:ttft_seconds:p95",
    "gpus": "max by (host) (gpuhosts_gpus_found)",
    "lost": "max by (host) (gpuhosts_gpus_expected - gpuhosts_gpus_found)",
    "celsius": "max by (host) (DCGM_FI_DEV_GPU_TEMP)",
    "xid": "max by (host, gpu) (DCGM_FI_DEV_XID_ERRORS)",
    "uncorrected": "max by (host, gpu) (DCGM_FI_DEV_ECC_DBE_VOL_TOTAL)",
    "remap_failed": "max by (host, gpu) (DCGM_FI_DEV_ROW_REMAP_FAILURE)",
}

_SERVER = re.compile(
    r"^\s*(?:upstream (?P<model>\S+) \{"
    r"|server (?P<address>[^\s;{]+:\d+)\b[^;#\n]*?(?P<down> down)?;"
    r"(?: # (?P<id>\S+))?(?P<reason> \((?:maintenance|health)\))?)",
    re.MULTILINE,
)
_CONNECTIONS = re.compile(r"Active connections: (\d+)")
# vLLM's names, and what becomes of the values of several engines behind one API.
ENGINE_METRICS = {
    "running": ("vllm:num_requests_running", sum),
    "waiting": ("vllm:num_requests_waiting", sum),
    "kv_cache_usage": ("vllm:kv_cache_usage_perc", max),
}

Record = dict[str, Any]


def read_engines(root: Path, address: str, problems: list[str]) -> list[Record]:
    """The instances that the role vllm has put on a host, each with what its keeper and its engine say.

    :param address: where the engines of this host listen.
    """
    text = read_text(root / FACT)
    try:
        placed = json.loads(text)["instances"] if text else []
        found = [{key: entry.get(key, 0) for key in ("id", "model", "port", "rank")} for entry in placed]
    except (AttributeError, KeyError, TypeError, ValueError):
        problems.append(f"/{FACT} is damaged; serve.yml writes it anew")
        return []
    keepers = {keeper.id: keeper for keeper in read_keepers(root, [entry["id"] for entry in found])}
    for entry in found:
        keeper = keepers.get(entry["id"])
        entry["keeper"] = None
        if keeper:
            entry["keeper"] = {"state": keeper.state, "waits_for": keeper.waits_for, "epoch": keeper.epoch}
    heads = [entry for entry in found if entry["rank"] == 0]
    with ThreadPoolExecutor(max(len(heads), 1)) as pool:
        for entry, told in zip(heads, pool.map(lambda head: _ask(f"http://{address}:{head['port']}"), heads)):
            entry.update(told)
    return found


def _ask(url: str) -> Record:
    try:
        text = OpenAiClient(url, timeout=SECONDS).text("/metrics")
    except ApiError as error:
        return {"problem": str(error), **dict.fromkeys(ENGINE_METRICS)}
    return {"problem": None, **{key: _value(text, *wanted) for key, wanted in ENGINE_METRICS.items()}}


def _value(text: str, name: str, join: Any) -> float | None:
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return float(join(map(float, found))) if found else None


def read_front_door(root: Path, status_url: str, problems: list[str]) -> Record:
    """The servers that the NGINX of a front door has, who has drained them, and how many connections it has."""
    text = read_text(root / NGINX)
    if not text:
        problems.append(f"there is no front door yet: /{NGINX} is not there")
    connections = None
    try:
        said = _CONNECTIONS.search(_get(status_url).decode(errors="replace"))
        connections = int(said[1]) - 1 if said else None  # this question is one
    except OSError as error:
        problems.append(f"NGINX does not answer: {error}")
    return {"servers": list(servers(text)), "connections": connections}


def servers(configuration: str) -> Iterator[Record]:
    """As the role nginx_lb writes them (templates/nginx.conf.j2) and marks them (front_door_state.py).

    Upstreams whose names begin with ``_`` are no models: they have servers of models once more.
    """
    model = ""
    for match in _SERVER.finditer(configuration):
        model = match["model"] or model
        if match["address"] and not model.startswith("_"):
            reason = (match["reason"] or "").strip(" ()") or "operator"
            by = reason if match["down"] and reason != "health" else None
            yield {"address": match["address"], "id": match["id"], "model": model, "drained": by}


class Prometheus:
    """Its API on its own host, by an address that need not stand in its certificate."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}"} if password else {}

    def read(self, problems: list[str]) -> Record | None:
        """Samples of all :data:`QUERIES` by name, and the ``alerts`` that fire; None where it does not answer."""
        try:
            found: Record = {name: self._samples(query) for name, query in QUERIES.items()}
            found["alerts"] = [
                {key: alert[key] for key in ("labels", "annotations", "activeAt")}
                for alert in self._data("alerts")["alerts"]
                if alert["state"] == "firing"
            ]
        except OSError as error:
            problems.append(f"Prometheus does not answer: {error}")
            return None
        except (KeyError, TypeError, ValueError):
            problems.append(f"what answers at {self._url} is no Prometheus")
            return None
        return found

    def _samples(self, query: str) -> list[Record]:
        parameters = urlencode({"query": query})
        return [
            {"labels": sample["metric"], "value": sample["value"][1]}
            for sample in self._data(f"query?{parameters}")["result"]
        ]

    def _data(self, path: str) -> Any:
        return json.loads(_get(f"{self._url}/api/v1/{path}", self._headers))["data"]


def silenced(url: str, problems: list[str]) -> list[dict[str, str]]:
    """The labels of the alerts that Alertmanager keeps to itself, because somebody or planned work wants it so."""
    try:
        alerts = json.loads(_get(f"{url.rstrip('/')}/api/v2/alerts?active=false&silenced=true&inhibited=false"))
        return [alert["labels"] for alert in alerts]
    except OSError as error:
        problems.append(f"Alertmanager does not answer: {error}")
    except (KeyError, TypeError, ValueError):
        problems.append(f"what answers at {url} is no Alertmanager")
    return []


def _get(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The body of an answer.

    :raises OSError: There is none, or it is an error.
    """
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc}{parts.path}"
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    if parts.scheme == "https":
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=SECONDS, context=unverified)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=dict(headers or {}))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"{place}: {error!s} ({type(error).__name__})") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        remedy = "; set prometheus_password" if answer.status == http.client.UNAUTHORIZED else ""
        raise OSError(f"{place}: HTTP {answer.status}{remedy}")
    return body


def read_changes(root: Path, written: Sequence[str] = WRITTEN) -> Record:
    """The file that a run of the playbooks has changed last, and when the last run went through; epochs are seconds."""
    times = [(_changed(path) or 0.0, f"/{path.relative_to(root)}") for one in written for path in root.glob(one)]
    changed, path = max(times, default=(None, None))
    return {"path": path, "changed_epoch": changed, "run_epoch": _changed(root / CONVERGED)}


def _changed(path: Path) -> float | None:
    """When a file was changed; None where it is not there, or nobody may look."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None

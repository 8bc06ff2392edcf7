"""What a host tells beside its GPUs: engines against the plan, reboots, models, certificates, drained servers."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from metrics_text import Metrics, samples

__all__ = [
    "drained_servers",
    "engines",
    "expiries",
    "front_address",
    "host",
    "kernel_waits",
    "servers",
    "servers_in_service",
]

_ASKED = 10.0  # seconds for an engine's metrics
_MOST = 1 << 24  # bytes of them that are read
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a service of this host needs no proxy
_SERVER = re.compile(
    r"^\s*(?:upstream (?P<model>\S+) \{|server (?P<address>[^\s;{]+:\d+)\b[^;#\n]*?(?P<down> down)?;"
    r"(?: # (?P<id>\S+))?(?P<reason> \((?:maintenance|health)\))?)",
    re.MULTILINE,
)
_SHOWN = re.compile(r"^\s*ssl_certificate (\S+);", re.MULTILINE)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _VERSION_TAG = 0x17, 0x18, 0x30, 0xA0


def engines(metrics: Metrics, instances: Sequence[Mapping[str, Any]]) -> None:
    """Tokens of the KV cache of every instance whose API is here: planned, and as the engine itself reports them.

    An engine that does not answer has no effective value; what was planned for it stays.
    """
    planned, effective = "gpuhosts_engine_kv_cache_tokens_planned", "gpuhosts_engine_kv_cache_tokens_effective"
    for instance in instances:
        labels = {"instance_id": instance["id"], "model": instance["model"]}
        metrics.gauge(planned, "Tokens that the plan promises for the KV cache.", instance["planned"], labels)
        metrics.gauge(
            effective, "Tokens of the KV cache as the engine reports it.", _effective(instance["url"]), labels
        )


def _effective(url: str) -> float | None:
    try:
        with _DIRECT.open(f"{url}/metrics", timeout=_ASKED) as response:
            text = response.read(_MOST).decode(errors="replace")
    except (OSError, ValueError, http.client.HTTPException, urllib.error.URLError):
        return None
    return kv_cache_tokens(text)


def kv_cache_tokens(text: str) -> float | None:
    """Of all engines behind one API: their sum. vLLM has it as a label of ``vllm:cache_config_info``."""
    told = [labels.get("kv_cache_size_tokens", "") for labels, _ in samples(text, "vllm:cache_config_info")]
    known = [int(one) for one in told if one.isdigit()]
    return sum(known) if known else None


def host(metrics: Metrics, settings: Mapping[str, Any], root: Path) -> None:
    """Reboot, model store, certificates, the last run of the playbooks."""
    waits = any((root / path).exists() for path in ("run/reboot-required", "var/run/reboot-required"))
    metrics.gauge(
        "gpuhosts_reboot_pending",
        "Whether packages ask for a reboot, or a newer kernel than the running one is installed.",
        waits or kernel_waits([path.name for path in (root / "boot").glob("vmlinuz-*")], os.uname().release),
    )
    store = root / settings["model_store"].lstrip("/") if settings["model_store"] else None
    if store and store.is_dir():
        room = os.statvfs(store)
        metrics.gauge(
            "gpuhosts_model_store_free_bytes",
            "Room that the file system of the models has left for those who are not root.",
            room.f_bavail * room.f_frsize,
        )
        about = "Size of the file system of the models."
        metrics.gauge("gpuhosts_model_store_size_bytes", about, room.f_blocks * room.f_frsize)
    for path in [*settings["certificates"], *front_door_certificates(settings, root)]:
        about = "When the first certificate of a file expires, in seconds since 1970; 0: it cannot be read."
        labels = {"path": path}
        metrics.gauge("gpuhosts_certificate_expiry_timestamp_seconds", about, _expiry(root / path.lstrip("/")), labels)
    since = _rolled_back(root / "etc/ansible/facts.d/gpuhosts_rollback.fact")
    about = "When an update of the engines failed and was rolled back, in seconds since 1970; until one comes through."
    metrics.gauge("gpuhosts_rolled_back_timestamp_seconds", about, since)
    stamp = root / settings["converged"].lstrip("/")
    if stamp.exists():
        about = "When a run of the playbooks last found this host as it shall be, or made it so, in seconds since 1970."
        metrics.gauge("gpuhosts_last_converged_timestamp_seconds", about, stamp.stat().st_mtime)


def front_door_certificates(settings: Mapping[str, Any], root: Path) -> list[str]:
    """Paths of what the front door shows, which nobody has to name; without those that somebody has named."""
    configuration = root / settings["front_door_configuration"].lstrip("/")
    if not settings["front_door_log"] or not configuration.exists():
        return []
    shown = _SHOWN.findall(configuration.read_text(encoding="utf-8"))
    return [path for path in shown if path not in settings["certificates"]]


def _rolled_back(mark: Path) -> float | None:
    """When; None: no update has failed. A mark that cannot be read still is one."""
    try:
        return float(json.loads(mark.read_text(encoding="utf-8"))["since"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        return 1.0


def kernel_waits(images: Sequence[str], running: str) -> bool:
    """Whether the next boot brings another kernel; without images it is not this host that chooses its kernel."""
    releases = [name.partition("-")[2] for name in images if "rescue" not in name]
    return bool(releases) and max(releases, key=_age) != running


def _age(release: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|[^\d.+~-]+", release)]


def _expiry(path: Path) -> float:
    try:
        return min(expiries(path.read_text(encoding="ascii", errors="replace")), default=0)
    except (OSError, ValueError, IndexError):
        return 0


def expiries(pem: str) -> list[float]:
    """When the certificates of a PEM file expire, in seconds since 1970.

    Certificate = SEQUENCE {tbsCertificate SEQUENCE {[0] version?, serial, signature, issuer, validity SEQUENCE
    {notBefore, notAfter}, ...}}: RFC 5280, section 4.1.

    :raises ValueError: One of them is no certificate.
    """
    return [_not_after(base64.b64decode(text)) for text in _CERTIFICATE.findall(pem)]


def _not_after(der: bytes) -> float:
    ((_, certificate),) = _elements(der)
    (_, to_be_signed), *_ = _elements(certificate)
    fields = [(tag, content) for tag, content in _elements(to_be_signed) if tag != _VERSION_TAG]
    tag, validity = fields[3]
    (_, _), (kind, not_after) = _elements(validity)
    if tag != _SEQUENCE or kind not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("this is no certificate")
    text = not_after.decode("ascii")
    if kind == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of what follows one another in DER."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(der[at : at + octets], "big")
            at += octets
        if at + length > len(der):
            raise ValueError("this is no certificate")
        yield tag, der[at : at + length]
        at += length


def servers(configuration: str) -> dict[str, str]:
    """Who has drained which server, by its address: ``operator`` or ``maintenance``."""
    by = {match["address"]: _reason(match) for match in _SERVER.finditer(configuration)}
    return {address: reason for address, reason in by.items() if reason not in ("", "health")}


def _reason(match: re.Match[str]) -> str:
    """Why a server gets nothing, or ""."""
    return (match["reason"] or "").strip(" ()") or "operator" if match["down"] else ""


def servers_in_service(metrics: Metrics, configuration: Path) -> None:
    """Whether servers answer the front door's questions for their health, by model. None that is drained.

    Upstreams whose names begin with ``_`` are no models: they have servers of models once more.
    """
    about = "Whether the front door sends a server requests, 0 where it does not answer; none of one that is drained."
    model = ""
    for match in _SERVER.finditer(configuration.read_text(encoding="utf-8")):
        model = match["model"] or model
        if match["address"] and not model.startswith("_") and _reason(match) in ("", "health"):
            labels = {"model": model, "server": match["address"]}
            metrics.gauge("gpuhosts_server_in_service", about, float(not match["down"]), labels)


def front_address(metrics: Metrics, address: str, root: Path) -> None:
    """Whether the address that load balancers share is here; the kernel lists its addresses among its routes."""
    routes = (root / "proc/net/fib_trie").read_text(encoding="ascii")
    held = re.search(rf"\|-- {re.escape(address)}\n\s+/32 host LOCAL", routes) is not None
    about = "Whether this host holds the address that load balancers share."
    metrics.gauge("gpuhosts_front_address_held", about, held, {"address": address})


def drained_servers(metrics: Metrics, configuration: Path, since: dict[str, float]) -> None:
    """Since when servers are drained; ``since`` remembers it from run to run, by server and reason.

    One that was drained while nobody looked counts from the last change of the configuration on.
    """
    drained = servers(configuration.read_text(encoding="utf-8"))
    known = {f"{server} {reason}" for server, reason in drained.items()}
    for gone in set(since) - known:
        del since[gone]
    changed = configuration.stat().st_mtime
    about = "Since when the front door sends a server no requests, in seconds since 1970."
    for server, reason in sorted(drained.items()):
        began = since.setdefault(f"{server} {reason}", min(changed, time.time()))
        labels = {"server": server, "reason": reason}
        metrics.gauge("gpuhosts_server_drained_since_timestamp_seconds", about, began, labels)

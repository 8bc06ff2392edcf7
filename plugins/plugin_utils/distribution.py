"""Which host fetches which model from where: once from the hub, then from host to host; pure, on the controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.module_utils._units import GIB

__all__ = ["distribution", "origins"]

SPARE = 2  # hosts that have a model and hand it out, at least: one may go meanwhile

Look = Mapping[str, Any]  # what the module model_store returns


def origins(looks: Mapping[str, Look], download_host: str = "") -> list[dict[str, Any]]:
    """The models that a host lacks, each with the ``host`` from which all others have it, sooner or later.

    That is one which has it already, else ``download_host``, else the first that is to have it; the latter two have it
    from the hub.
    """
    missing = {model["place"]: model for look in looks.values() for model in look["models"] if not model["complete"]}
    found = []
    for place, model in sorted(missing.items()):
        wanting = list(_hosts(looks, place, complete=False))
        having = list(_hosts(looks, place, complete=True))
        first = having[0] if having else download_host if download_host in wanting else wanting[0]
        found.append({key: model[key] for key in ("place", "source", "revision", "load_format")} | {"host": first})
    return found


def distribution(
    looks: Mapping[str, Look],
    manifests: Mapping[str, Mapping[str, Any]],
    addresses: Mapping[str, str],
    site: Mapping[str, Any],
) -> dict[str, Any]:
    """What every host does, by its name, as the module ``model_fetch`` takes it, and why it cannot be done.

    :param manifests: the files of the models that :func:`origins` names, by ``place``
    :param addresses: where hosts reach each other
    :param site: ``port``, ``token`` (of this run), ``fan_out`` (hosts that one host serves), ``margin`` (bytes that
        stay free), ``endpoint`` and ``hub_token``
    :returns: ``hosts`` (``models``, ``address``, ``token`` and ``allow_from`` of each), ``handing_out`` (those among
        them that lack no model) and ``problems``, sentences
    """
    hosts: dict[str, dict[str, Any]] = {}
    problems = []
    for origin in origins(looks, site["download_host"]):
        place, manifest = origin["place"], manifests[origin["place"]]
        wanting = [name for name in _hosts(looks, place, complete=False) if name != origin["host"]]
        # No more of a large fleet than there is need of: they begin one after the other.
        having = list(_hosts(looks, place, complete=True))[: max(SPARE, len(wanting))]
        nodes = [*(having or [origin["host"]]), *wanting]
        for name in nodes:
            look = next(model for model in looks[name]["models"] if model["place"] == place)
            givers = _givers(nodes, name, len(having) or 1, site["fan_out"])
            sources = [_peer(addresses[giver], place, site) for giver in givers]
            if name == origin["host"] and not having:
                sources = [_hub(manifest, site)]
            entry = {"place": place, "manifest": manifest, "sources": sources, "damaged": look["damaged"]}
            work = hosts.setdefault(
                name, {"models": [], "address": addresses[name], "token": site["token"], "allow_from": set()}
            )
            work["models"].append(entry)
            for giver in givers:
                hosts[giver]["allow_from"].add(addresses[name])  # nodes come after those that give to them
    for name, work in hosts.items():
        work["allow_from"] = sorted(work["allow_from"])
        problems += _without_room(name, looks[name], work["models"], site["margin"])
    handing_out = sorted(name for name in hosts if not looks[name]["missing"])
    return {"hosts": hosts, "handing_out": handing_out, "problems": problems}


def _hosts(looks: Mapping[str, Look], place: str, *, complete: bool) -> list[str]:
    return [
        name
        for name, look in looks.items()
        if any(model["place"] == place and model["complete"] == complete for model in look["models"])
    ]


def _givers(nodes: Sequence[str], name: str, having: int, fan_out: int) -> list[str]:
    """Whom a host asks: the one above it in a tree in which each serves as many, then those at its root."""
    number = nodes.index(name)
    if number < having:
        return []
    above = nodes[(number - having) // fan_out]
    return list(dict.fromkeys([above, *nodes[:having]]))


def _peer(address: str, place: str, site: Mapping[str, Any]) -> dict[str, Any]:
    host = f"[{address}]" if ":" in address else address
    return {"url": f"http://{host}:{site['port']}/{place}", "token": site["token"], "is_hub": False}


def _hub(manifest: Mapping[str, Any], site: Mapping[str, Any]) -> dict[str, Any]:
    url = f"{site['endpoint']}/{manifest['source']}/resolve/{manifest['commit']}"
    return {"url": url, "token": site["hub_token"], "is_hub": True}


def _without_room(name: str, look: Look, models: Sequence[Mapping[str, Any]], margin: int) -> list[str]:
    """What is wrong with the disk of a host."""
    wanted = [model for model in models if model["sources"]]
    there = {model["place"]: model["there"] for model in look["models"]}
    needed = sum(
        max(0, sum(file["size"] for file in model["manifest"]["files"]) - there[model["place"]]) for model in wanted
    )
    if not wanted or needed + margin <= look["free"]:
        return []
    names = ", ".join(model["place"] for model in wanted)
    free, more, left = (f"{size / GIB:.1f} GiB" for size in (look["free"], needed, margin))
    problem = (
        f"{name} has {free} free below {look['directory']}, and {names} takes {more} more, with {left} kept free "
        "(model_store_margin_gib). Make room there, as by model_store_collect, or name another disk in model_store_dir."
    )
    return [problem]

"""Filters that say of a fleet's hosts what of the monitoring runs there, and where it and the front doors answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.gpuhosts.vllm.plugins.plugin_utils.hosts import address, setting

from .hosts import HostVars

# What takes the place of a component of our own: its address is in this variable.
ELSEWHERE = {"alertmanager": "fleet_alertmanager_url"}
# What another component brings where a variable has a value.
PART_OF = {"dcgm": ("exporters", "exporters_gpu_source", "dcgm")}
CONTROLLER = "localhost"
FRONT_DOOR_CERTIFICATE = "/etc/nginx/tls/certificate.pem"  # of the role nginx_lb; a test holds it against that


def observers(names: Iterable[str], hostvars: HostVars, component: str) -> list[str]:
    """Those of the hosts on which a component of the monitoring is wanted, in their order."""
    return [name for name in names if _is_wanted(component, hostvars[name])]


def _is_wanted(component: str, variables: Mapping[str, Any]) -> bool:
    if component in PART_OF:
        whole, variable, value = PART_OF[component]
        return _is_wanted(whole, variables) and setting(variable, variables) == value
    return component in setting("fleet_observe", variables) and not variables.get(ELSEWHERE.get(component, ""))


def prometheus_url(variables: Mapping[str, Any]) -> str:
    """Where Prometheus answers whoever asks it on its own host."""
    scheme = "https" if setting("prometheus_tls_certificate", variables) else "http"
    return f"{scheme}://{_own(setting('prometheus_listen_address', variables))}"


def alertmanagers(names: Iterable[str], hostvars: HostVars) -> list[dict[str, str]]:
    """The Alertmanagers of the fleet, each with its ``url`` and the ``host`` from which it is asked.

    That is the host that it runs on. One that is not ours is asked from the first of ``names``, the monitoring hosts,
    or from the controller.
    """
    names = list(names)
    own = [
        {"host": name, "url": f"http://{_own(setting('alertmanager_listen_address', hostvars[name]))}"}
        for name in observers(names, hostvars, "alertmanager")
    ]
    others = dict.fromkeys(variables.get(ELSEWHERE["alertmanager"]) for variables in hostvars.values())
    return own + [{"host": names[0] if names else CONTROLLER, "url": url} for url in others if url]


def alertmanager_targets(names: Iterable[str], hostvars: HostVars) -> list[dict[str, Any]]:
    """Prometheus file_sd groups for the Alertmanagers on these hosts, as these hosts themselves reach them."""
    found = [
        _own(setting("alertmanager_listen_address", hostvars[name]))
        for name in observers(names, hostvars, "alertmanager")
    ]
    return [{"targets": [listen]} for listen in found]


def front_door(name: str, hostvars: HostVars) -> dict[str, str]:
    """Where the front door of a host answers that host: its ``url``, and the ``certificate`` that it shows there.

    Without TLS there is no certificate.
    """
    variables = hostvars[name]
    here = address(name, variables)
    if setting("nginx_lb_tls", variables) == "none":
        return {"url": f"http://{here}", "certificate": ""}
    place, _, port = setting("nginx_lb_tls_listen", variables)[0].split()[0].rpartition(":")
    place = here if re.fullmatch(r"[0.:*\[\]]*", place) else place
    given = setting("nginx_lb_tls_certificate", variables)
    return {
        "url": f"https://{place}" if port == "443" else f"https://{place}:{port}",
        "certificate": given if given.startswith("/") else FRONT_DOOR_CERTIFICATE,
    }


def _own(listen: str) -> str:
    """A wildcard address is no address to ask."""
    return re.sub(r"^(0[.]0[.]0[.]0|\[::\])?:", "127.0.0.1:", listen)


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {
            "alertmanager_targets": alertmanager_targets,
            "alertmanagers": alertmanagers,
            "front_door": front_door,
            "observers": observers,
            "prometheus_url": prometheus_url,
        }

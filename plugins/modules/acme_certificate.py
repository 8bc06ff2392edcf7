#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: acme_certificate
short_description: Have a certificate signed by an ACME server
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Has certbot get a certificate and renew it from then on. The ACME server sees by HTTP (HTTP-01) that the names are
    this host's.
  - Asks no server as long as the service shows the certificate that certbot has, for these names, of that server.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  diff_mode:
    support: full
options:
  name:
    description: What certbot calls the certificate by.
    type: str
    required: true
  names:
    description: DNS names that it is for.
    type: list
    elements: str
    required: true
  email:
    description: Address that the server's operator may write to.
    type: str
    required: true
  server:
    description: The server's directory.
    type: str
    required: true
  webroot:
    description: Directory of which the host serves C(/.well-known/acme-challenge/) at port 80; made if it is missing.
    type: path
    required: true
  certificate:
    description: What the service shows.
    type: path
    required: true
  hook:
    description: Command that gives the service a certificate out of the directory in C(RENEWED_LINEAGE).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: A certificate of Let's Encrypt
  gpuhosts.vllm.acme_certificate:
    name: gpuhosts-front-door
    names: [llm.example.org]
    email: ops@example.org
    server: https://acme-v02.api.letsencrypt.org/directory
    webroot: /etc/nginx/acme
    certificate: /etc/nginx/tls/certificate.pem
    hook: [sh, /opt/gpuhosts/front_door/certificate_renewed.sh]
"""

RETURN = r"""
{}
"""

import re
import shlex
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.certificate import first_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import diff_of, make_directories
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import read_text

PLACE = Path("/etc/letsencrypt")


def lineage(given: dict[str, Any]) -> Path:
    """The directory of what certbot has."""
    return PLACE / "live" / str(given["name"])


def server_of(given: dict[str, Any]) -> str:
    """The server that certbot asks for this certificate; "" where it asks none."""
    found = re.search(r"(?m)^server = (\S+)$", read_text(PLACE / "renewal" / f"{given['name']}.conf"))
    return found[1] if found else ""


def is_signed(given: dict[str, Any]) -> bool:
    """Whether certbot has a certificate for these names, of that server."""
    try:
        names = first_of(read_text(lineage(given) / "fullchain.pem")).names
    except ValueError:
        return False
    return server_of(given) == given["server"] and names == {name.lower() for name in given["names"]}


def is_shown(given: dict[str, Any]) -> bool:
    """Whether the service shows what certbot has."""
    return read_text(Path(given["certificate"])) == read_text(lineage(given) / "fullchain.pem")


def command(given: dict[str, Any]) -> list[str]:
    """What certbot is told."""
    words = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--no-eff-email", "--email", given["email"]]
    words += ["--server", given["server"], "--cert-name", given["name"], "--key-type", "ecdsa"]
    words += ["--webroot", "--webroot-path", given["webroot"], "--deploy-hook", shlex.join(given["hook"])]
    words += [word for name in given["names"] for word in ("--domain", name)]
    # One of another server is not kept; of other names, certbot asks no question then.
    keeps = server_of(given) in ("", given["server"])
    return [*words, "--renew-with-new-domains", "--keep-until-expiring" if keeps else "--force-renewal"]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "email": {"type": "str", "required": True},
            "server": {"type": "str", "required": True},
            "webroot": {"type": "path", "required": True},
            "certificate": {"type": "path", "required": True},
            "hook": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    if is_signed(given) and is_shown(given):
        module.exit_json(changed=False)
    if not module.check_mode:
        make_directories(Path(given["webroot"]))
        if not is_signed(given):
            code, output, errors = module.run_command(command(given))
            if code:
                names, said = ", ".join(given["names"]), " ".join(f"{output}\n{errors}".split())
                module.fail_json(msg=f"{given['server']} has signed no certificate for {names}: {said}")
        if not is_shown(given):  # certbot calls it for new ones alone
            module.run_command(given["hook"], environ_update={"RENEWED_LINEAGE": str(lineage(given))}, check_rc=True)
    said = f"(a certificate of {given['server']} for {', '.join(given['names'])})\n"
    module.exit_json(changed=True, diff=[diff_of(Path(given["certificate"]), "", said)])


if __name__ == "__main__":
    main()

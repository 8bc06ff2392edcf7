#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: self_signed
short_description: Have a certificate that the host has signed itself
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Makes a key (ECDSA, P-256) and a certificate of it, for laboratories and for services that need one to begin with.
  - A self-signed certificate for exactly these names stays until its last 30 days.
  - Without OpenSSL on the host it does nothing.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  diff_mode:
    support: full
options:
  certificate:
    description: Where the certificate is, for all to read. Directories that are missing are made.
    type: path
    required: true
  key:
    description: Where its key is, for root alone.
    type: path
    required: true
  names:
    description: Names and addresses that it is for.
    type: list
    elements: str
    required: true
  days:
    description: Days for which a new one is valid.
    type: int
    default: 365
  keep_any:
    description: Whether one that somebody else has signed stays, too, as long as it is valid.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: A certificate for a laboratory
  gpuhosts.vllm.self_signed:
    certificate: /etc/nginx/tls/certificate.pem
    key: /etc/nginx/tls/key.pem
    names: [lb1, 10.0.0.5]
"""

RETURN = r"""
{}
"""

import re
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.certificate import first_of, is_ours, mistakes
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import File, diff_of, make_directories
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import answer, read_text

LAST_SECONDS = 30 * 86400  # before its end, in which a new one is made
SUBJECT = 64  # characters of a common name, which has been without a meaning for long
REQUEST = """
[req]
distinguished_name = subject
x509_extensions = of
prompt = no
[subject]
CN = {subject}
[of]
subjectAltName = {names}
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
"""
BLOCK = re.compile(r"(-----BEGIN ([A-Z ]+)-----\n.*?-----END \2-----\n)", re.DOTALL)
COMMAND = ("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha256")


def stays(given: dict[str, Any]) -> bool:
    """Whether what is there will do."""
    text, key, now = read_text(Path(given["certificate"])), read_text(Path(given["key"])), time.time()
    if mistakes(text, key, [], now):
        return False
    if given["keep_any"] and not first_of(text).self_signed:
        return True
    return is_ours(text, given["names"], now + LAST_SECONDS)


def make(given: dict[str, Any]) -> tuple[str, str]:
    """A new certificate and its key, in PEM; without one, an empty text and what OpenSSL says."""
    names = [f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in given["names"]]
    request = REQUEST.format(subject=given["names"][0][:SUBJECT], names=", ".join(names))
    # Both go to the standard output: no file has a key before it has its mode.
    said = answer([*COMMAND, "-days", str(given["days"]), "-config", "/dev/stdin", "-keyout", "-"], reads=request)
    blocks = {kind: block for block, kind in BLOCK.findall(said.output)}
    return blocks.get("CERTIFICATE", ""), blocks.get("PRIVATE KEY", said.errors)


def is_address(name: str) -> bool:
    """Whether a name is an address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
            "names": {"type": "list", "elements": "str", "required": True},
            "days": {"type": "int", "default": 365},
            "keep_any": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    if not module.get_bin_path("openssl") or stays(given):
        module.exit_json(changed=False)
    if not module.check_mode:
        certificate, key = make(given)
        if not certificate:
            module.fail_json(msg=f"OpenSSL makes no certificate for {', '.join(given['names'])}: {key.strip()}")
        make_directories(Path(given["certificate"]).parent)
        make_directories(Path(given["key"]).parent)
        File(Path(given["key"]), 0o600, content=key).write()
        File(Path(given["certificate"]), 0o644, content=certificate).write()
    names = ", ".join(given["names"])
    diff = diff_of(Path(given["certificate"]), "", f"(a new certificate, signed by itself, for {names})\n")
    module.exit_json(changed=True, diff=[diff])


if __name__ == "__main__":
    main()

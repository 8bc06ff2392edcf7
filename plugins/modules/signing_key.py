#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key
short_description: Download the key of a repository, known by its fingerprint
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Vendors publish files that hold several keys and change when one of these is renewed, so that no checksum of theirs
    stays right. This takes the one key with the given fingerprint out of such a file, and writes nothing else.
  - A key that the vendor has renewed, with a later end and the same fingerprint, replaces the one that is there.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is downloaded, so it does not tell of a key that was renewed.
  diff_mode:
    support: none
options:
  url:
    description: Where the vendor has it.
    type: str
    required: true
  path:
    description:
      - Where it is written, as text, so for apt its name ends with C(.asc). It belongs to root.
      - Directories that are missing are made.
    type: path
    required: true
  fingerprint:
    description: Of the primary key, in full; blanks do not matter.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Key of nginx.org
  gpuhosts.vllm.signing_key:
    url: https://nginx.org/keys/nginx_signing.key
    path: /etc/apt/keyrings/nginx.asc
    fingerprint: 573B FD6B 3D8F BC64 1079  A6AB ABF5 BD82 7BD9 BF62
"""

RETURN = r"""
fingerprint:
  description: Of the key that the file holds.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import ConfigFileError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.openpgp import armored, certificates, holds, plain
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import File, make_directories

MODE = 0o644
SECONDS = 30


def download(module: AnsibleModule, url: str) -> bytes:
    """What the vendor has there, or the end of the module."""
    response, info = fetch_url(module, url, timeout=SECONDS)
    if info["status"] not in (200, None):  # None: a file of this host, by file://
        module.fail_json(msg=f"{url}: {info['msg']}")
    return bytes(response.read())


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "fingerprint": {"type": "str", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    url, path = module.params["url"], Path(module.params["path"])
    wanted = plain(module.params["fingerprint"])
    there = path.read_bytes() if path.is_file() else b""
    same = holds(there, wanted) and File(path, MODE).is_owned()
    if not module.check_mode:
        try:
            found = certificates(download(module, url))
        except ConfigFileError as error:
            module.fail_json(msg=f"{url}: {error}")
        if wanted not in found:
            module.fail_json(
                msg=f"{url} has no key {wanted}; it has {', '.join(found)}. Where the vendor has announced another "
                f"one, set its fingerprint."
            )
        key = File(path, MODE, content=armored(found[wanted]))
        same = same and there == key.content.encode()
        if not same:
            make_directories(path.parent)
            key.write()
    module.exit_json(changed=not same, fingerprint=wanted)


if __name__ == "__main__":
    main()

#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: service_absent
short_description: Take away what a role has installed, and nothing else
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Stops units for good, removes files, packages and what holds them, the rules of a firewall that bear a name, and a
    user. Each goes only where it is there.
  - A stopped unit finishes what it is doing, as its C(TimeoutStopSec) allows.
  - A directory that others have put something into stays with that.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  units:
    description: Units, with their endings.
    type: list
    elements: str
    default: []
  instances:
    description: Directory with a C(.yaml) file for every instance of O(template).
    type: path
    default: ""
  template:
    description: The unit whose instances O(instances) tells.
    type: str
    default: ""
  files:
    description: Files and whole directories; C(*) stands for any part of a name.
    type: list
    elements: path
    default: []
  packages:
    description: Packages; C(*) stands for any end of a name. They go though they are held.
    type: list
    elements: str
    default: []
  purge:
    description: Whether apt also removes their configuration and their data.
    type: bool
    default: true
  others_in:
    description: Directories in which others may have put files that these packages work with; the packages stay then.
    type: list
    elements: path
    default: []
  emptied:
    description: Directories that go if nothing is left in them, in this order.
    type: list
    elements: path
    default: []
  firewall:
    description: Name that the rules in the firewall bear, as in option C(access) of M(gpuhosts.vllm.service_config).
    type: str
    default: ""
  user:
    description: User that goes, with the group of its own. One that has a password, or the number of a person's
      account, or is older than O(user_since) is not what a role has made, and stays.
    type: str
    default: ""
  user_since:
    description: Directory that was made before the user, before whose day no user of the role was made.
    type: path
    default: ""
  home:
    description: Its home; as long as that is there and no O(files), the user stays, whose files it has.
    type: path
    default: ""
"""

EXAMPLES = r"""
- name: Remove a service
  gpuhosts.vllm.service_absent:
    units: [nginx.service]
    files: [/etc/nginx/nginx.conf, /etc/systemd/system/nginx.service.d/gpuhosts.conf]
    emptied: [/etc/systemd/system/nginx.service.d]
    packages: [nginx]
    others_in: [/etc/nginx]
    firewall: gpuhosts-nginx
"""

RETURN = r"""
removed:
  description: What was removed, a sentence each.
  returned: success
  type: list
  elements: str
  sample: ["nginx.service stops for good", "packages go: nginx"]
stays:
  description: What was installed and stays, with the reason.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.absence import carry_out, removals
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.access import addresses_of, look
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.packages import read_packages
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import diff_of
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.steps import take
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.system import answer, run

LIST: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
PATHS: dict[str, Any] = {"type": "list", "elements": "path", "default": []}
SPEC: dict[str, dict[str, Any]] = {
    "units": LIST,
    "instances": {"type": "path", "default": ""},
    "template": {"type": "str", "default": ""},
    "files": PATHS,
    "packages": LIST,
    "purge": {"type": "bool", "default": True},
    "others_in": PATHS,
    "emptied": PATHS,
    "firewall": {"type": "str", "default": ""},
    "user": {"type": "str", "default": ""},
    "user_since": {"type": "path", "default": ""},
    "home": {"type": "path", "default": ""},
}
ROOT = Path("/")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    given = module.params
    nobody = {"name": given["firewall"], "listens_on": [], "allow_from": [], "firewall": "auto", "known_ports": []}
    nobody.update({"protocols": [], "booleans": [], "port_type": "", "file_contexts": {}})
    try:
        access = look(ROOT, answer, nobody if given["firewall"] else None, addresses_of)
        words = [name.partition("*")[0] for name in given["packages"]]
        packages = read_packages(ROOT, run, words) if words else []
        todo, stays = removals(ROOT, answer, given, packages)
        if not module.check_mode:
            take(access.firewall)
            for removal in todo:
                problem = carry_out(removal, answer)
                if problem:
                    module.fail_json(msg=f"{problem} Mend that and run again, which goes on from here.")
    except FleetError as error:
        module.fail_json(msg=str(error))
    removed = [*access.says, *(removal.says for removal in todo if removal.says)]
    diff = [diff_of(Path("removed"), "", "\n".join([*removed, ""]))] if removed else []
    module.exit_json(changed=bool(removed), removed=removed, stays=stays, diff=diff)


if __name__ == "__main__":
    main()

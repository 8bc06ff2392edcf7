#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: container_image
short_description: Have the one image that was asked for, by its digest
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Pulls an image by the digest of its manifest, or loads it from a file that has a given checksum, looks whether it
    has the release of vLLM that it shall have, and only then gives it O(name). So an image of that name is the right
    one, and a run that was cut short leaves none.
  - Uses the C(docker) command of the host as root, with the registries that root is logged in to. No other Python
    package is needed there.
  - Tells which images of the same repository no container uses, and removes them on request.
extends_documentation_fragment: gpuhosts.vllm.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is pulled, so nobody looks whether there is such an image.
  diff_mode:
    support: none
options:
  name:
    description: Repository and tag under which the engines know it, as V(gpuhosts/vllm:0.33.0-0f3b9c2d).
    type: str
    required: true
  repository:
    description: Where it is pulled from, as C(REGISTRY/REPOSITORY) without a tag.
    type: str
  digest:
    description: Of its manifest, as C(sha256:HEX).
    type: str
  file:
    description: Archive of C(docker save) on the host, which is loaded instead.
    type: path
  checksum:
    description: Of O(file), as C(sha256:HEX).
    type: str
  version:
    description: The version of vLLM that must be in it.
    type: str
  remove_unused:
    description: Whether the images in RV(unused) are removed.
    type: bool
    default: false
  state:
    description: V(absent) removes all images of the repository that no container uses, O(name) included.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: The image of vLLM
  gpuhosts.vllm.container_image:
    name: gpuhosts/vllm:0.33.0-0f3b9c2d
    repository: docker.io/vllm/vllm-openai
    digest: sha256:0f3b9c2d5e8a7b614c90d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6
    version: 0.33.0
"""

RETURN = r"""
unused:
  description: Images of the same repository that no container uses, and that are not the one asked for.
  returned: success
  type: list
  elements: str
  sample: [gpuhosts/vllm:0.32.0-77aa01bc]
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.container import DOCKER

_CHUNK = 1 << 20  # bytes
_VERSION = "from importlib.metadata import version; print(version('vllm'))"
# Without network, rights and a place to write: it only answers.
_ASK = (*("run", "--rm", "--pull=never", "--network=none", "--cap-drop=ALL", "--read-only", "--entrypoint=python3"),)


class Engine:
    """Docker on this host, by its command."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def ask(self, *words: str) -> tuple[int, str, str]:
        """Exit status, output and errors of a command."""
        code, output, errors = self.module.run_command([DOCKER, *words], expand_user_and_vars=False)
        return int(code), str(output).strip(), str(errors).strip()

    def tell(self, what: str, *words: str) -> str:
        """The output of a command, or the end of the module."""
        code, output, errors = self.ask(*words)
        if code:
            said = errors or output
            full = (
                " Make room below Docker's data-root, or move it to a larger disk." if "no space left" in said else ""
            )
            self.module.fail_json(msg=f"{what}: {said}{full} Nothing that runs was touched.")
        return output

    @property
    def answers(self) -> bool:
        """Whether it runs."""
        return not self.ask("version", "--format={{.Server.Version}}")[0]

    def image(self, name: str) -> dict[str, Any] | None:
        """An image as the engine describes it; None: it has none of that name."""
        code, output, _ = self.ask("image", "inspect", "--format={{json .}}", name)
        return None if code else dict(json.loads(output))

    def unused(self, wanted: str, *, stays: bool) -> list[str]:
        """Images of a name's repository that no container was made from, the wanted one left out if it stays.

        Another name of the wanted image, which a container may well be made from, is one of them: only the name goes.
        """
        repository = wanted.rpartition(":")[0]
        same = ((self.image(wanted) or {}).get("RepoTags") or []) if stays else []
        used = self.tell("docker ps", "ps", "--all", "--format={{.Image}}").split()
        listed = self.tell("docker image ls", "image", "ls", "--format={{.Repository}}:{{.Tag}}", repository)
        names = sorted({name for name in listed.split() if not (stays and name == wanted)})
        return [name for name in names if name not in used and (name in same or not self._containers(name))]

    def _containers(self, name: str) -> str:
        """The containers that were made from an image, by whatever name of it."""
        return self.ask("ps", "--all", "--quiet", f"--filter=ancestor={name}")[1]

    def remove(self, name: str) -> None:
        """Remove an image with the digests that it was pulled by; what it is called elsewhere stays."""
        found = self.image(name) or {}
        others = [tag for tag in found.get("RepoTags") or [] if tag != name]
        digests = [] if others else found.get("RepoDigests") or []
        self.tell(f"docker image rm {name}", "image", "rm", name, *digests)


def is_there(image: dict[str, Any] | None, digest: str | None) -> bool:
    """Whether an image is the one of a digest; one that came from a file is known by its name alone."""
    if image is None:
        return False
    pulled = [reference.rpartition("@")[2] for reference in image.get("RepoDigests") or []]
    return not digest or digest in pulled


def checked(module: AnsibleModule, file: str, checksum: str) -> None:
    """Fail unless the file has the checksum."""
    path, sha256 = Path(file), hashlib.sha256()
    if not path.is_file():
        module.fail_json(
            msg=f"{file} is not there. Put the archive of `docker save` there, or correct vllm_image_file."
        )
    with path.open("rb") as archive:
        for chunk in iter(lambda: archive.read(_CHUNK), b""):
            sha256.update(chunk)
    found = f"sha256:{sha256.hexdigest()}"
    if found != checksum:
        module.fail_json(
            msg=f"{file} has the checksum {found}, and vllm_image_file_checksum is {checksum}. Copy it again, or set "
            f"the checksum of the file that you trust. Nothing was loaded."
        )


def load(module: AnsibleModule, engine: Engine) -> str:
    """Load the archive; returns what the image in it is called."""
    file = module.params["file"]
    checked(module, file, module.params["checksum"])
    said = engine.tell(f"docker load --input {file}", "load", "--input", file)
    loaded = re.findall(r"(?m)^Loaded image(?: ID)?: (\S+)$", said)
    if len(loaded) != 1:
        module.fail_json(
            msg=f"{file} has {len(loaded)} images ({', '.join(loaded)}), and one is needed. Save one alone: "
            f"docker save --output FILE IMAGE."
        )
    return str(loaded[0])


def pull(module: AnsibleModule, engine: Engine) -> str:
    """Pull the image; returns its name."""
    name = f"{module.params['repository']}@{module.params['digest']}"
    engine.tell(f"docker pull {name}", "pull", "--quiet", name)
    return name


def bring(module: AnsibleModule, engine: Engine) -> None:
    """Get the image, and call it as it shall be called once it is known to be right."""
    given = module.params
    if not engine.answers:
        module.fail_json(
            msg="No Docker Engine answers. Let hardware.yml set it up, or start it with `systemctl start docker`."
        )
    name = load(module, engine) if given["file"] else pull(module, engine)
    found = engine.tell(f"What vLLM is in {name}", *_ASK, name, "-c", _VERSION)
    if found != given["version"]:
        module.fail_json(
            msg=f"{name} has vLLM {found}, and vllm_version is {given['version']}, by which the memory is planned. Set "
            f"vllm_version to {found}, or name an image with vLLM {given['version']}."
        )
    engine.tell(f"docker tag {name}", "tag", name, given["name"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "repository": {"type": "str"},
            "digest": {"type": "str"},
            "file": {"type": "path"},
            "checksum": {"type": "str"},
            "version": {"type": "str"},
            "remove_unused": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_together=[("repository", "digest"), ("file", "checksum")],
        required_if=[("state", "present", ["version"]), ("state", "present", ["digest", "file"], True)],
        supports_check_mode=True,
    )
    given, engine = module.params, Engine(module)
    stays = given["state"] == "present"
    missing = stays and not is_there(engine.image(given["name"]), None if given["file"] else given["digest"])
    if missing and not module.check_mode:
        bring(module, engine)
    unused = engine.unused(given["name"], stays=stays) if engine.answers else []
    removed = unused if given["remove_unused"] or not stays else []
    if not module.check_mode:
        for name in removed:
            engine.remove(name)
    module.exit_json(changed=missing or bool(removed), unused=[name for name in unused if name not in removed])


if __name__ == "__main__":
    main()

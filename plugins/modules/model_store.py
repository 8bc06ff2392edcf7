#!/usr/bin/python

from __future__ import annotations

DOCUMENTATION = r"""
module: model_store
short_description: Look which models a host has in its store
version_added: 0.2.0
author: gpuhosts maintainers (@gpuhosts)
description:
  - Tells of every model that is wanted on this host whether its directory is there and complete, by the sizes and ages
    of its files.
  - Ends what an interrupted run of M(gpuhosts.vllm.model_fetch) has left behind, where there is nothing to fetch.
  - Removes with O(collect=true) what is in the store and nothing needs any more; without, a warning lists it. A
    store goes with its last model.
extends_documentation_fragment: gpuhosts.vllm.attributes
options:
  directory:
    description: The store. Only root may write to it, everybody may read.
    type: path
    required: true
  models:
    description:
      - Models of the hub that are wanted here, each with V(source), V(revision) and V(load_format).
      - Other keys are passed over.
    type: list
    elements: dict
    required: true
    suboptions:
      source:
        description: Its id on the hub.
        type: str
        required: true
      revision:
        description: Branch, tag or commit.
        type: str
      load_format:
        description: What C(--load-format) of vLLM says.
        type: str
        default: auto
  paths:
    description:
      - Models that are directories of this host. One with a file C(SHA256SUMS) in it, as C(sha256sum) writes it, is
        held against that with O(verify=true).
    type: list
    elements: path
    default: []
  verify:
    description: Whether to read all files and compare their checksums, which takes minutes.
    type: bool
    default: false
  collect:
    description: Whether to remove the directories that are RV(unused).
    type: bool
    default: false
  references:
    description: Directories with files in which paths of models stand. What they name is used.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Look for a model
  gpuhosts.vllm.model_store:
    directory: /srv/model-store
    models:
      - source: Qwen/Qwen3-8B
        revision: b968826d9c46dd6066d109eabc6255188de91218
  register: store
"""

RETURN = r"""
models:
  description: The models, each with what was asked for and what there is.
  returned: success
  type: list
  elements: dict
  sample:
    - place: Qwen--Qwen3-8B--main
      source: Qwen/Qwen3-8B
      revision: main
      load_format: auto
      complete: true
      commit: b968826d9c46dd6066d109eabc6255188de91218
      damaged: []
      there: 16397435904
missing:
  description: Places of the models that are not there, or not whole any more.
  returned: success
  type: list
  elements: str
unused:
  description: Names of what is in the store and nothing needs any more, with its bytes.
  returned: success
  type: dict
free:
  description: Bytes that the disk of the store has left.
  returned: success
  type: int
directory:
  description: As asked for.
  returned: success
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpuhosts.vllm.plugins.module_utils._engine.directories import unusable
from ansible_collections.gpuhosts.vllm.plugins.module_utils._errors import FleetError, ModelStoreError
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_store import (
    check_sums,
    collect,
    collectable,
    free_bytes,
    look_at,
    place_of,
)
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.model_unit import end, is_left
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.places import unmounted

SUMS = "SHA256SUMS"
GB = 1e9


def seen(model: dict[str, Any], directory: Path, *, verify: bool) -> dict[str, Any]:
    """What there is of a model."""
    place = place_of(model["source"], model["revision"])
    look = look_at(directory, place, verify=verify)
    if look.foreign:
        raise ModelStoreError(
            f"{directory / place} is there, but was not made by this role. Move it out of the way; if it is the model, "
            "its path may be the `source` in vllm_models."
        )
    return {
        **model,
        "place": place,
        "revision": model["revision"] or "main",
        "complete": look.complete,
        "commit": look.commit,
        "damaged": list(look.damaged),
        "there": look.there,
    }


def check_paths(paths: list[str]) -> None:
    """Fail when a model that is a directory is not what the list in it says."""
    for root in map(Path, paths):
        wrong = check_sums(root, root / SUMS) if (root / SUMS).is_file() else []
        if wrong:
            raise ModelStoreError(f"{root}: {', '.join(wrong)} is not what {root / SUMS} says. Copy it there again.")


def work(module: AnsibleModule) -> dict[str, Any]:
    """Do it all, and tell what was found."""
    given = module.params
    directory = Path(given["directory"])
    reason = unusable(str(directory))
    if reason:
        raise ModelStoreError(f"model_store_dir is {directory}, and {reason}.")
    place = unmounted(directory)
    if place:
        remedy = f"Mount it there with `mount {place}`, or take it out of /etc/fstab."
        raise ModelStoreError(
            f"model_store_dir is {directory}, and nothing is mounted at {place}, as /etc/fstab wants it. {remedy}"
        )
    models = [seen(model, directory, verify=given["verify"]) for model in given["models"]]
    if given["verify"]:
        check_paths(given["paths"])
    missing = [model["place"] for model in models if not model["complete"]]
    references = [path for place in map(Path, given["references"]) for path in sorted(place.glob("*"))]
    unused = collectable(directory, [model["place"] for model in models], filter(Path.is_file, references))
    if unused and not given["collect"]:
        size = f"{sum(unused.values()) / GB:.1f} GB"
        module.warn(
            f"{size} in {directory} are of no more use: {', '.join(unused)}. model_store_collect: true removes them."
        )
    left = not missing and is_left(directory)
    if not module.check_mode:
        if left:
            end(directory)
        if given["collect"]:
            collect(directory, unused)
            if not models and directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()
    return {
        "changed": left or bool(given["collect"] and unused),
        "directory": str(directory),
        "models": models,
        "missing": missing,
        "unused": unused,
        "free": free_bytes(directory),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "models": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "source": {"type": "str", "required": True},
                    "revision": {"type": "str"},
                    "load_format": {"type": "str", "default": "auto"},
                },
            },
            "paths": {"type": "list", "elements": "path", "default": []},
            "verify": {"type": "bool", "default": False},
            "collect": {"type": "bool", "default": False},
            "references": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**work(module))
    except FleetError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()

"""What the role vllm keeps for root alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).parents[3] / "roles/vllm"


def secrets(**variables: Any) -> Any:
    """What stands in the file of secrets."""
    constants = yaml.safe_load((ROLE / "vars/main/main.yml").read_text(encoding="utf-8"))
    token = trust_as_template(constants["_vllm_keeper_token"])
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8")) | {"_vllm_keeper_token": token}
    expression = trust_as_template(constants["_vllm_secrets"])
    return Templar(DataLoader(), variables=defaults | variables).template(expression)


def test_what_the_planner_refuses_in_readable_files_has_a_place_here() -> None:
    assert secrets() == {}
    own = {"AWS_SECRET_ACCESS_KEY": "s3cret", "WANDB_API_KEY": ""}
    given = {"vllm_hf_token": "hf", "vllm_secrets": own}
    assert secrets(**given) == {"HF_TOKEN": "hf", "AWS_SECRET_ACCESS_KEY": "s3cret"}


def test_the_nodes_of_an_instance_have_a_secret_wherever_the_api_has_one() -> None:
    derived = secrets(vllm_api_key="key")["GPUHOSTS_KEEPER_TOKEN"]
    assert re.fullmatch("[0-9a-f]{64}", derived)
    assert derived != secrets(vllm_api_key="other")["GPUHOSTS_KEEPER_TOKEN"]
    own = {"vllm_keeper_token": "own", "vllm_api_key": "key"}
    assert secrets(**own).items() >= {"GPUHOSTS_KEEPER_TOKEN": "own"}.items()

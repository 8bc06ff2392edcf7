"""What the role vllm keeps for root alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).parents[3] / "roles/vllm"


def secrets(**variables: Any) -> Any:
    """What stands in the file of secrets."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    expression = yaml.safe_load((ROLE / "vars/main/main.yml").read_text(encoding="utf-8"))["_vllm_secrets"]
    return Templar(DataLoader(), variables=defaults | variables).template(trust_as_template(expression))


def test_what_the_planner_refuses_in_readable_files_has_a_place_here() -> None:
    assert secrets() == {}
    own = {"AWS_SECRET_ACCESS_KEY": "s3cret", "WANDB_API_KEY": ""}
    given = {"vllm_hf_token": "hf", "vllm_secrets": own}
    assert secrets(**given) == {"HF_TOKEN": "hf", "AWS_SECRET_ACCESS_KEY": "s3cret"}

"""The module model_facts, from its arguments to its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpuhosts.vllm.plugins.modules import model_facts


def run(capsys: pytest.CaptureFixture[str], arguments: dict[str, Any]) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        model_facts.main()
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("check", [False, True])
def test_facts_by_name_and_nothing_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str], check: bool) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 256}')
    result = run(capsys, {"models": [{"name": "tiny", "source": str(tmp_path)}], "_ansible_check_mode": check})
    assert result["ansible_facts"]["model_facts"]["tiny"]["config"] == {"hidden_size": 256}
    assert not result.get("changed", False)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_model_that_is_not_there_fails_and_the_token_stays_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [{"name": "tiny", "source": "acme/tiny"}]
    result = run(capsys, {"models": models, "hf_home": str(tmp_path), "token": "hf_secret"})
    assert result["failed"]
    assert (
        f"acme/tiny (revision main) is not on this host: there is no {tmp_path}/hub/models--acme--tiny" in result["msg"]
    )
    assert "hf_secret" not in json.dumps(result)

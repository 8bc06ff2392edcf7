"""What every role must hold to, whatever it does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


def test_check_mode_reports_no_change_on_a_converged_host(
    converge: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    result = converge("--check", "--diff")

    recap = re.findall(r"^\S+ +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", result.stdout, re.MULTILINE)
    assert recap, result.stdout
    assert set(recap) == {("0", "0", "0")}, result.stdout

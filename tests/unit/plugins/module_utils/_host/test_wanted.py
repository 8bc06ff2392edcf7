"""What of a host is not as it is wanted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.platform import filled
from ansible_collections.gpuhosts.vllm.plugins.module_utils._host.wanted import differing_files


@pytest.mark.parametrize(
    ("wanted", "same"),
    [
        ("key", True),
        ("another key", False),
        (f"sha256:{hashlib.sha256(b'key').hexdigest()}", True),
        (f"sha512:{hashlib.sha512(b'key').hexdigest().upper()}", True),
        (f"sha256:{hashlib.sha256(b'another key').hexdigest()}", False),
        ("sha256:http://mirror/checksums.txt", True),  # where nobody but the network could tell
        ("sha256:", True),
    ],
)
def test_a_file_has_its_content_or_its_checksum(tmp_path: Path, wanted: str, same: bool) -> None:
    (tmp_path / "key").write_text("key")
    (tmp_path / "key").chmod(0o644)
    assert differing_files(tmp_path, {"/key": wanted}) == ([] if same else ["/key is another one"])


def test_a_file_has_a_mode_and_is_there(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key")
    (tmp_path / "key").chmod(0o600)
    assert differing_files(tmp_path, {"/key": "sha256:"}) == ["/key has mode 0600, not 0644"]
    assert differing_files(tmp_path, {"/other": "sha256:"}) == ["/other is not there"]


def test_a_table_is_filled_in_wherever_it_has_text() -> None:
    table = {"url": "{mirror}/{suite}", "names": ["{suite}", "${HOME}"], "held": True}
    assert filled(table, {"mirror": "http://mirror", "suite": "trixie"}) == {
        "url": "http://mirror/trixie",
        "names": ["trixie", "${HOME}"],
        "held": True,
    }

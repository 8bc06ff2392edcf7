"""Hashes of passwords."""

from __future__ import annotations

import ctypes
import importlib
import subprocess

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuhosts.vllm.plugins.filter import passwords

# With the salt as bcrypt sees it, other programs that hash say the same: `htpasswd`, Perl, Go.
PERL = "print crypt($ARGV[0], $ARGV[1])"


def test_the_hash_is_that_of_bcrypt_and_the_same_in_every_run_and_another_on_every_host() -> None:
    hashed = passwords.bcrypt_hash("swordfish", "mon1")

    assert hashed.startswith("$2b$10$")
    assert len(hashed) == 60
    assert hashed == passwords.bcrypt_hash("swordfish", "mon1")
    assert hashed != passwords.bcrypt_hash("swordfish", "mon2")
    assert hashed[:29] == passwords.bcrypt_hash("catfish", "mon1")[:29], "the salt says nothing of the password"
    checked = subprocess.run(["perl", "-e", PERL, "swordfish", hashed], capture_output=True, text=True, check=True)
    assert checked.stdout == hashed


def test_without_anything_that_can_hash_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    def no_library(_: str) -> None:
        raise OSError

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    with pytest.raises(AnsibleFilterError, match="python3 -m pip install bcrypt"):
        passwords.bcrypt_hash("swordfish", "mon1")

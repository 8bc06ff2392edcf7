"""The key that signs the lab's repositories: made once for this machine, worth nothing anywhere else."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lab import engine
from tests.lab.phases import Say

_USER = "gpuhosts lab (no vendor) <lab@example.com>"
_NO_PASSPHRASE = ("--pinentry-mode", "loopback", "--passphrase", "")


class Key:
    """A signing key in a GnuPG home of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home

    @property
    def public(self) -> bytes:
        """The public half as a keyring that apt's Signed-By reads."""
        return self._gpg("--export")

    @property
    def armored(self) -> bytes:
        """The public half as text, as vendors publish theirs."""
        return self._gpg("--armor", "--export")

    @property
    def fingerprint(self) -> str:
        """By which others know it."""
        lines = self._gpg("--list-keys", "--with-colons").decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def sign(self, content: bytes, *how: str) -> bytes:
        """A signature as gpg's options say."""
        return self._gpg("--digest-algo", "SHA256", *how, content=content)

    def make(self) -> None:
        """Make the key where there is none."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._gpg("--list-secret-keys", "--with-colons"):
            self._gpg("--quick-generate-key", _USER, "ed25519", "sign", "never")

    def _gpg(self, *arguments: str, content: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self._home), "--batch", "--quiet", *_NO_PASSPHRASE, *arguments]
        return subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout


@contextlib.contextmanager
def opened(home: Path, say: Say) -> Iterator[Key]:
    """The key of a GnuPG home; ends the agent that gpg starts for it."""
    if not shutil.which("gpg"):
        engine.install(["gnupg"], say)
    key = Key(home)
    try:
        key.make()
        yield key
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)

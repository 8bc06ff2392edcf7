"""Filter for passwords that a service keeps hashed."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib
from typing import Any

from ansible.errors import AnsibleFilterError

COST = 10  # what htpasswd and the examples of Prometheus take; a guess then costs 50 ms
SALT_CHARACTERS = 22


def bcrypt_hash(password: str, salt: str) -> str:
    """The bcrypt hash of a password, the same in every run.

    ``salt`` is any text that differs from one place of the password to the next, such as a host's name; it is no
    secret, and must not be made of one.

    :raises AnsibleFilterError: nothing here can hash like that.
    """
    # The last character stands for two bits only; "O" is one of the four that may come there.
    setting = f"$2b${COST:02}${hashlib.sha256(salt.encode()).hexdigest()[: SALT_CHARACTERS - 1]}O"
    try:
        hashed = importlib.import_module("bcrypt").hashpw(password.encode(), setting.encode()).decode()
    except ImportError:
        hashed = _by_libcrypt(password, setting)
    if not hashed.startswith(setting):
        raise AnsibleFilterError(
            "Neither Python's package bcrypt nor a libcrypt with bcrypt is here to hash a password with. Install the "
            "package beside Ansible: python3 -m pip install bcrypt."
        )
    return str(hashed)


def _by_libcrypt(password: str, setting: str) -> str:
    try:
        library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
        library.crypt.restype = ctypes.c_char_p
        return (library.crypt(password.encode(), setting.encode()) or b"").decode()
    except (OSError, AttributeError):  # no such library, or none with that function
        return ""


class FilterModule:
    """Registers the filters with Ansible."""

    def filters(self) -> dict[str, Any]:
        """The filters by name."""
        return {"bcrypt_hash": bcrypt_hash}

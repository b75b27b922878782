"""The login of the local registry: made once, in files that only its owner can read.

Loopback belongs to every user of a machine. Distribution's own login takes passwords as bcrypt and
in no other form (distribution/distribution:registry/auth/htpasswd).
"""

from __future__ import annotations

import ctypes
import os
import secrets
import stat
from pathlib import Path

from slipway.core import Credentials, write_atomic
from slipway.registry.errors import RegistryError

USER = "slipway"
_BYTES = 24
# bcrypt slows down who guesses what people choose; nobody guesses 192 random bits. It is computed
# for each request, so this is the smallest cost that there is.
_SETTING = "$2y$04$"
_SALT = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# 22 characters have 132 bits of a salt of 128: the last one has only its upper two.
_LAST = ".Oeu"
_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2")


def password_file(root: Path) -> Path:
    """The password alone, as `docker login --password-stdin` reads it."""
    return root / "password"


def hashed_file(root: Path) -> Path:
    """What the registry compares with."""
    return root / "htpasswd"


def read_login(root: Path) -> Credentials | None:
    """The login; None where there is none, or where somebody else could have read or written it."""
    try:
        with password_file(root).open("rb") as stream:
            about = os.fstat(stream.fileno())
            password = stream.read(1000).decode("ascii").strip()
    except (OSError, UnicodeError):
        return None
    private = about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return Credentials(USER, password) if private and len(password) >= _BYTES else None


def make_login(root: Path) -> None:
    """See to it that there is a login, and that the registry will compare with it.

    Raises RegistryError where this machine cannot make a bcrypt hash.
    """
    login = read_login(root)
    if login is None:
        login = Credentials(USER, secrets.token_urlsafe(_BYTES))
        write_atomic(password_file(root), f"{login.secret}\n", mode=0o600)
    write_atomic(hashed_file(root), f"{USER}:{_bcrypt(login.secret)}\n", mode=0o600)


def _bcrypt(password: str) -> str:
    """crypt(3) of libxcrypt, which Debian's and Ubuntu's login has: Python's own left with 3.13."""
    salt = "".join(secrets.choice(_SALT) for _ in range(21)) + secrets.choice(_LAST)
    setting = f"{_SETTING}{salt}".encode()
    for name in _LIBRARIES:
        try:
            function = ctypes.CDLL(name).crypt
        except (OSError, AttributeError):
            continue
        function.argtypes, function.restype = [ctypes.c_char_p, ctypes.c_char_p], ctypes.c_char_p
        hashed: bytes | None = function(password.encode(), setting)
        if hashed is not None and hashed.startswith(setting):
            return hashed.decode("ascii")
    raise RegistryError(
        f"the local registry's login needs bcrypt, and no {_LIBRARIES[0]} here has it",
        cure="Install it (Debian and Ubuntu: apt-get install libcrypt1).",
    )

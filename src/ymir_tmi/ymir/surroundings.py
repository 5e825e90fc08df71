"""A container as the platform starts it: no home, no name for the user, nothing writable but the results and /tmp."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

_CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_HOME")


def prepare_surroundings() -> None:
    """Give the libraries that ask for them a home, a user's name and places for caches, where there are none."""
    if not _has_home():
        home = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
        home.mkdir(exist_ok=True)
        os.environ["HOME"] = str(home)
        for name in _CACHES:
            os.environ.setdefault(name, str(home / ".cache" / name.lower()))
    if not _has_name():
        os.environ.setdefault("USER", f"user{os.getuid()}")
        os.environ.setdefault("LOGNAME", os.environ["USER"])


def is_first() -> bool:
    """Return whether this is the process that speaks, of those that do a task together."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def _has_home() -> bool:
    home = os.environ.get("HOME")
    return bool(home) and Path(str(home)) != Path("/") and os.access(str(home), os.W_OK)


def _has_name() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True

"""What an image of a pool is called, and the random numbers that belong to it.

Both depend on nothing but the run's seed and where the image lies inside the pool, so a result never depends on the
order of the pool, on the size of a batch, or on which process met the image.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePath

from ymir_tmi.data.index import Strings


def common_folder(paths: Strings) -> str:
    """Return the absolute path of the deepest folder that holds all pictures."""
    folders = {os.path.dirname(os.path.abspath(paths[row])) for row in range(len(paths))}  # noqa: PTH100, PTH120, speed
    return os.path.commonpath(folders)


def relative_name(path: str, folder: str) -> str:
    """Return the path of a picture below `folder`, with forward slashes."""
    return PurePath(os.path.abspath(path)).relative_to(folder).as_posix()  # noqa: PTH100, links are not followed


def image_seed(seed: int, name: str) -> int:
    """Return a number in [0, 2^63) that belongs to the image `name` in a run with `seed`."""
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1

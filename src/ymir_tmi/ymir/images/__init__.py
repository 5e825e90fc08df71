"""The images that the platform knows, one module each."""

from __future__ import annotations

from ymir_tmi.errors import ConfigError, did_you_mean
from ymir_tmi.ymir.images import all_in_one, detectron2, mmdet, mmrotate, mmyolo
from ymir_tmi.ymir.profile import Profile

PROFILES: dict[str, Profile] = {
    image.PROFILE.name: image.PROFILE for image in (mmdet, mmyolo, mmrotate, detectron2, all_in_one)
}
"""Every image by its name."""


def find_profile(name: str) -> Profile:
    """Return the image of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROFILES:
        raise ConfigError(f"there is no image '{name}'", where="profile", fix=did_you_mean(name, PROFILES))
    return PROFILES[name]

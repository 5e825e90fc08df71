"""The images that the platform knows, one module each."""

from __future__ import annotations

from ymir_tmi.ymir.profile import Profile as Profile

PROFILES: dict[str, Profile] = {}

"""What stands on every page: headline numbers, state, settings and versions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Fact:
    """A headline number: its name, its value as text, and what it means."""

    name: str
    value: str
    note: str = ""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` decimals, or a dash where there is none (None, NaN)."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}"


def significant(value: float) -> str:
    """Return a whole number as it is, and another with four significant digits."""
    whole = value == int(value) and abs(value) < 1e9
    return f"{value:,.0f}" if whole else f"{value:#.4g}"


def duration(seconds: float) -> str:
    """Return "42 s", "3 min 20 s" or "5 h 7 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(text: str) -> str:
    """Return a time in ISO 8601 as "21 November 2026, 03:16 UTC"."""
    time = datetime.fromisoformat(text).astimezone(UTC)
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def breakable(text: str) -> Markup:
    """Return escaped text that a browser may break after the separators of a path or a name."""
    parts = re.split(r"(?<=[/\\_-])", text)
    return Markup("<wbr>").join(parts)


def run_time(manifest: Mapping[str, Any]) -> str | None:
    """Return how long a finished run took, None for another."""
    if not manifest.get("finished"):
        return None
    start, end = (datetime.fromisoformat(manifest[name]) for name in ("started", "finished"))
    return duration((end - start).total_seconds())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as `path.to.field` and text; what is null or empty is left out."""
    rows: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows |= {f"{prefix}{name}": ", ".join(str(part) for part in value)} if value else {}
        elif value is not None:
            rows[f"{prefix}{name}"] = str(value)
    return rows

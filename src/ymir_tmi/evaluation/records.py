"""What the results of all tasks have in common: how they become JSON and text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ymir_tmi.errors import DataError


class Record(BaseModel):
    """Numbers with names; it refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, content: Any, *, where: str | Path | None = None) -> Self:
        """Invert `to_dict`.

        Raises:
            DataError: `content`, which comes from `where`, is not an evaluation; the message names what does not fit.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            problem = ".".join(map(str, first["loc"])) + f" ({first['msg']})"
            raise DataError(f"this is not an evaluation: {problem.strip()}", where=where) from error


def read_record(path: Path) -> Any:
    """Return the content of the JSON file of an evaluation.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read this evaluation: {error}", where=path) from error


def format_number(value: float | None) -> str:
    """Return a number with three decimals, or a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def format_table(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> str:
    """Align the columns of `rows`, those in `left` to the left."""
    columns = max(map(len, rows))
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    lines = [
        "  ".join(
            cell.ljust(widths[column]) if column in left else cell.rjust(widths[column])
            for column, cell in enumerate(row)
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)

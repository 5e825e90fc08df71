"""`ymir-tmi weights convert`: from a checkpoint of another program to a model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ymir_tmi.errors import ModelError
from ymir_tmi.models.checkpoint import save_model
from ymir_tmi.models.convert.containers import KINDS, read_checkpoint
from ymir_tmi.models.convert.fit import fit_checkpoint
from ymir_tmi.weights.cache import cache_folder, sha256_of
from ymir_tmi.weights.table import OfficialWeights, official_weights

_SHOWN = 5


@dataclass(frozen=True)
class ConvertedWeights:
    """What was written.

    Attributes:
        output: the model file.
        model: name of the model.
        class_names: its classes.
        loaded: number of tensors that the checkpoint had.
        new: number of tensors that it lacked, and that start anew.
        unused: number of tensors of the checkpoint that the model has no place for.
        kind: the program that wrote the checkpoint.
        source: name of the checkpoint.
        source_sha256: checksum of the checkpoint.
        licence: licence of the weights, where the list of official weights says it.
        not_called: functions that the checkpoint asks to be called; they were not.
        notes: what else there is to know.
    """

    output: Path
    model: str
    class_names: tuple[str, ...]
    loaded: int
    new: int
    unused: int
    kind: str
    source: str
    source_sha256: str
    licence: str | None
    not_called: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            **vars(self),
            "output": str(self.output),
            "class_names": list(self.class_names),
            "not_called": list(self.not_called),
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Return what a person wants to know."""
        names = ", ".join(self.class_names[:_SHOWN]) + (", ..." if len(self.class_names) > _SHOWN else "")
        lines = [
            f"wrote {self.output}",
            f"model: {self.model}, {self.loaded} tensors",
            f"classes: {len(self.class_names)} ({names})",
            f"source: {self.source} ({self.kind}), sha256 {self.source_sha256[:16]}...",
            f"licence of the weights: {self.licence or 'not stated'}",
        ]
        if self.new or self.unused:
            lines.append(f"partial: {self.new} tensors start anew, {self.unused} of the checkpoint have no place")
        if self.not_called:
            lines.append(f"not run: the file asks for calls of {', '.join(self.not_called[:_SHOWN])}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    class_names: Sequence[str] = (),
    allow_partial: bool = False,
    cache: Path | None = None,
) -> ConvertedWeights:
    """Turn a checkpoint of another program into a model file. Nothing in the checkpoint is run.

    Args:
        source: the checkpoint, or the name of official weights that are in the cache.
        output: the model file, *.safetensors.
        model: name of the model; may be left out for official weights.
        class_names: the classes in order, in place of those that the checkpoint names.
        allow_partial: whether to take what fits, e.g. a backbone, and let the rest of the model start anew.
        cache: the folder of downloaded weights; by default `cache_folder()`.

    Raises:
        ModelError: the checkpoint cannot be read or does not fit the model; the output exists, or is no *.safetensors.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ModelError("a model file ends in .safetensors", where=output)
    if output.exists():
        raise ModelError("this file exists already", where=output, fix="Choose another --output.")
    path = _find_source(source, cache_folder(cache))
    checkpoint = read_checkpoint(path)
    checksum = sha256_of(path)
    row, notes = _recognise(path, checksum)
    name = model or (row.model if row else None)
    if name is None:
        raise ModelError(
            "this file does not say which model it is of", where=path, fix="Give --model; `ymir-tmi models` lists them."
        )
    fitted = fit_checkpoint(checkpoint, name, class_names=class_names, allow_partial=allow_partial)
    licence = row.licence if row else None
    extra = {"source": path.name, "source_sha256": checksum, "source_kind": KINDS[checkpoint.kind]}
    try:
        save_model(fitted.model, output, licence=licence, extra=extra)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write this file: {error}", where=output) from error
    return ConvertedWeights(
        output=output,
        model=fitted.model.spec.name,
        class_names=fitted.model.spec.class_names,
        loaded=len(fitted.loaded),
        new=len(fitted.new),
        unused=len(fitted.unused),
        kind=KINDS[checkpoint.kind],
        source=path.name,
        source_sha256=checksum,
        licence=licence,
        not_called=checkpoint.not_called,
        notes=(*fitted.notes, *notes),
    )


def _find_source(source: str | Path, folder: Path) -> Path:
    """Return the file that `source` is or names."""
    path = Path(source)
    row = next((row for row in official_weights() if row.id == str(source)), None)
    if row is None or path.exists():
        return path
    if not (folder / row.file).is_file():
        fetch = f"`ymir-tmi weights download {row.id}` fetches it." if row.url else f"Get {row.file} yourself."
        raise ModelError(f"'{row.id}' is not in {folder}", fix=fetch)
    return folder / row.file


def _recognise(path: Path, checksum: str) -> tuple[OfficialWeights | None, list[str]]:
    """Return the row of the list that a file is of, by its name and, where the list has one, its checksum."""
    row = next((row for row in official_weights() if row.file == path.name), None)
    if row is not None and not checksum.startswith(row.sha256_prefix):
        return None, [f"the file has the name of '{row.id}' and another checksum, so it is not taken for it"]
    return row, []

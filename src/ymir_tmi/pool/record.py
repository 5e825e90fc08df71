"""The run folder and the manifest of a pass over a pool that can be gone on with."""

from __future__ import annotations

from ymir_tmi.config.schema import InferSettings, MineSettings
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import RunError
from ymir_tmi.files.layout import RunLayout, new_run, open_run
from ymir_tmi.files.manifest import Manifest
from ymir_tmi.models.runtime.open import describe_file
from ymir_tmi.pool import ranks


def open_folder(settings: InferSettings | MineSettings, verb: str) -> RunLayout:
    """Return the folder of this run: a new one, which rank 0 makes, or the one to go on with.

    Raises:
        RunError: the folder of a new run exists already; the one to go on with is no run, or a finished one.
    """
    if settings.resume is None:
        return ranks.from_first(new_run(settings.output, verb) if ranks.rank() == 0 else None)
    layout = open_run(settings.resume)
    if Manifest.read(layout.manifest).content["status"] == "done":
        raise RunError("this run is done", where=settings.resume, fix="Start a new run for other settings.")
    return layout


def open_manifest(
    settings: InferSettings | MineSettings, verb: str, layout: RunLayout, index: DatasetIndex
) -> Manifest:
    """Write the manifest of a new run, or set that of a run that goes on to `running`."""
    if settings.resume is not None:
        return Manifest.read(layout.manifest).restart()
    manifest = Manifest.start(layout.manifest, verb, settings.model_dump(mode="json"))
    manifest.add(data={settings.split: index.describe()})
    if settings.model is not None:
        info = describe_file(settings.model)
        manifest.add(model={"name": info.spec.name, "weights": str(settings.model), "licence": info.licence})
    return manifest

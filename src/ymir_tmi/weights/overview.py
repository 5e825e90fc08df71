"""Every model beside what its authors publish: the table of `ymir-tmi models`, and the page docs/models.md.

python -m ymir_tmi.weights.overview > docs/models.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from ymir_tmi.models.catalog import ModelInfo, list_models
from ymir_tmi.weights.table import OfficialWeights, official_weights

_INTRODUCTION = """\
# Models

This page is made by `make docs`; `ymir-tmi models` prints the same.

* **Parameters** are those of the network with 80 classes. They equal the reference implementations' exactly.
* **Multiply-adds** count a multiplication with its addition once (twice as many FLOPs), in convolutions only, for one
  square picture of the input size. For RetinaNet and for the task *semantics* the input size is the shorter side of
  the picture; a 4:3 picture takes a third more.
* **AP** is box AP (0.50:0.95, percent) on COCO val2017, for the task *rotated* mAP (0.50:0.95, percent) on the test
  images of DOTA v1.0, for the task *semantics* mIoU (percent) on the validation images of Cityscapes, as the authors of
  the weights state it; it was not measured here.
* **Weights** are names in `ymir-tmi weights list` ([how to get them](weights.md)), each with the licence of the
  repository that publishes it. Models without official weights start from random ones, or from a file of yours.

The forms `*_mmdet` are the networks as mmdet reads them, for weights of mmdet: RTMDet's sides are exponentials in sizes
m, l and x, and pictures are resized and boxes filtered differently. Other programs' names are understood too: `yolov5s`
is `yolov5_s`, whose official weights come in two namings, of YOLOv5 itself and of mmyolo; both are read. Weights of
rotated RTMDet whose names end in `_ms` were trained on DOTA at three scales.
"""

_PUBLISHED = """\
## Published sizes

Some repositories print parameters and FLOPs for the classes of COCO. Ours are counted their way here: once or twice for
a multiply-add, at their picture size.

* Ours count convolutions only. The counters of the authors also count batch norms, and partly pooling and upsampling:
  0.1 to 0.9 % more.
* Some printed figures are cut off, not rounded: 4.8 for 4.896 and 46.5 for 46.56 million parameters.
* For `yolov5s6` the source of these figures has parameters and FLOPs swapped; they stand as printed.
"""


@dataclass(frozen=True)
class ModelRow:
    """A model and its official weights."""

    model: ModelInfo
    weights: tuple[OfficialWeights, ...]

    @property
    def ap(self) -> str:
        """The AP of each weights."""
        return ", ".join(f"{row.ap:.1f}" for row in self.weights) or "-"

    @property
    def licences(self) -> str:
        """The licence of each weights, each once."""
        return ", ".join(dict.fromkeys(row.licence for row in self.weights)) or "-"


@dataclass(frozen=True)
class ModelTable:
    """All models, to be shown."""

    rows: Sequence[ModelRow]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "models": [{**asdict(row.model), "weights": [asdict(each) for each in row.weights]} for row in self.rows]
        }

    def to_text(self) -> str:
        """Return one line for each, and what the columns mean."""
        lines = [
            f"{'family':14} {'model':19} {'task':9} {'parameters':>10} {'multiply-adds':>13} {'input':>5}  "
            f"{'AP':10} {'weights':43} licence"
        ]
        for row in self.rows:
            model, names = row.model, ", ".join(weights.id for weights in row.weights) or "-"
            lines.append(
                f"{model.family:14} {model.name:19} {model.task:9} {model.parameters / 1e6:9.2f}M "
                f"{model.multiply_adds / 1e9:12.2f}G {model.input_size:5}  {row.ap:10} {names:43} {row.licences}"
            )
        lines.append(
            "parameters with 80 classes; a multiply-add is two FLOPs, for a square picture of the input size in pixels;"
        )
        lines.append(
            "AP (0.50:0.95, percent; on COCO val2017, rotated: on DOTA v1.0; semantics: mIoU on Cityscapes) and "
            "licence as the authors state them"
        )
        return "\n".join(lines)


def model_table() -> ModelTable:
    """Return every model with its official weights. No network is built."""
    weights = official_weights()
    return ModelTable(
        [ModelRow(model, tuple(row for row in weights if row.model == model.name)) for model in list_models()]
    )


def models_page() -> str:
    """Return docs/models.md."""
    families = groupby(model_table().rows, key=lambda row: row.model.family)
    return "\n".join([_INTRODUCTION, *(_family(name, rows) for name, rows in families), _PUBLISHED, _published(), ""])


def _family(name: str, rows: Iterable[ModelRow]) -> str:
    cells = [
        [
            f"`{row.model.name}`",
            row.model.task,
            f"{row.model.parameters:,}",
            f"{row.model.multiply_adds / 1e9:.2f} G",
            str(row.model.input_size),
            row.ap,
            ", ".join(f"`{weights.id}`" for weights in row.weights) or "-",
            row.licences,
        ]
        for row in rows
    ]
    header = ["model", "task", "parameters", "multiply-adds", "input", "AP", "weights", "licence"]
    return f"## {name}\n\n{_table(header, cells)}\n"


def _published() -> str:
    models = {model.name: model for model in list_models()}
    cells = [
        [
            f"`{row.id}`",
            f"{models[row.model].parameters / 1e6:.2f}",
            row.parameters_m,
            f"{counted_their_way(models[row.model], row):.2f}",
            row.gflops,
            f"{row.flops_per_multiply_add} per multiply-add, {row.flops_side} px",
        ]
        for row in official_weights()
        if row.gflops
    ]
    header = ["weights", "parameters, M", "published", "FLOPs, G", "published", "counted"]
    return _table(header, cells)


def counted_their_way(model: ModelInfo, weights: OfficialWeights) -> float:
    """Return billions of operations of our model, counted as the authors of the weights count them."""
    assert weights.flops_per_multiply_add is not None and weights.flops_side is not None
    area = (weights.flops_side / model.input_size) ** 2
    return model.multiply_adds * area * weights.flops_per_multiply_add / 1e9


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    print(models_page(), end="")

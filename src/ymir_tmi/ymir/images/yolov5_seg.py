"""Masks of objects in the image all-in-one: YOLOv5-seg."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from ymir_tmi.ymir.command_lines import YOLOV5_SEG
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.images.yolov5 import CommonPass, CommonTraining
from ymir_tmi.ymir.joining import class_weights, order_pass
from ymir_tmi.ymir.model_names import YOLOV5_SEG_MODELS, find_config
from ymir_tmi.ymir.orders import PassOrder, TrainingOrder
from ymir_tmi.ymir.parameters import Help, Job, TemplateHad
from ymir_tmi.ymir.profile import Tasks
from ymir_tmi.ymir.values import Choice, Line, Whole

Model = Annotated[
    Line,
    Help(
        "Which model is trained: yolov5n-seg, yolov5s-seg, yolov5m-seg, yolov5l-seg or yolov5x-seg, from fast to "
        "precise.",
        "训练的模型：yolov5n-seg、yolov5s-seg、yolov5m-seg、yolov5l-seg、yolov5x-seg，由快到准。",
        "`model`",
    ),
]
MaskAlgorithm = Annotated[
    str,
    BeforeValidator(Choice({"apis": "apis", "maskAL": "maskal", **shared.BOX_ALGORITHMS})),
    Help(
        "How images are scored; see docs/mining.md.",
        "挖掘算法，说明见 docs/mining.md。",
        "`algorithm`",
    ),
]
Passes = Annotated[
    int,
    BeforeValidator(Whole(2)),
    Help(
        "How often maskAL looks at an image, each time with random parts of the network switched off. Other "
        "algorithms do not read it.",
        "maskAL 算法对每张图片随机推理的次数。其它算法不使用。",
        "`passes`",
    ),
]


class Training(CommonTraining):
    """Parameters of a training."""

    export_format: shared.ExportFormat = "seg-coco:raw"
    model: Model = "yolov5s-seg"

    def order(self, job: Job) -> TrainingOrder:
        """Return what the parameters come to."""
        return self.order_of(job, find_config(self.model, YOLOV5_SEG_MODELS), YOLOV5_SEG)


class Mining(CommonPass):
    """Parameters of mining."""

    mining_algorithm: MaskAlgorithm = "apis"
    class_distribution_scores: shared.ClassScores = ()
    conf_thres: Annotated[shared.Conf, TemplateHad(0.1)] = 0.25
    iou_thres: Annotated[shared.Iou, TemplateHad(0.8)] = 0.45
    mcd_iterations: Passes = 10

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        algorithm = self.mining_algorithm
        weights, notes = class_weights(self.class_distribution_scores, job.class_names, algorithm)
        passes = {"passes": self.mcd_iterations} if algorithm == "maskal" else {}
        parameters = {**self.settings(job), "algorithm": algorithm, **weights, **passes}
        return order_pass(job, parameters, notes=notes)


class Infer(CommonPass):
    """Parameters of inference."""

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        return order_pass(job, self.settings(job))


TASKS = Tasks(Training, Mining, Infer, YOLOV5_SEG_MODELS, YOLOV5_SEG)

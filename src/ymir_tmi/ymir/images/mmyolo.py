"""The image mmyolo: boxes, with YOLOv5 to YOLOv8, YOLOX, RTMDet and PP-YOLOE+."""

from __future__ import annotations

from ymir_tmi.ymir.command_lines import MMYOLO_TOOLS
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.images.mm import MmengineTraining
from ymir_tmi.ymir.joining import learning_rate, order_pass
from ymir_tmi.ymir.mm_overrides import MMYOLO_TRAINING
from ymir_tmi.ymir.model_names import MMYOLO_MODELS, find_config
from ymir_tmi.ymir.orders import PassOrder, TrainingOrder
from ymir_tmi.ymir.parameters import Job, PassParameters
from ymir_tmi.ymir.profile import Profile, Tasks
from ymir_tmi.ymir.values import Words


class Training(MmengineTraining):
    """Parameters of a training."""

    model_name: shared.ModelName = "yolov8_n"
    metric: shared.Metric = "bbox"

    def order(self, job: Job) -> TrainingOrder:
        """Return what the parameters come to."""
        choice, rate = find_config(self.model_name, MMYOLO_MODELS), learning_rate(self.learning_rate)
        return self.order_of(job, choice, MMYOLO_TRAINING, MMYOLO_TOOLS, **rate)


class Mining(PassParameters):
    """Parameters of mining."""

    mining_algorithm: shared.BoxAlgorithm = "entropy"
    conf_threshold: shared.Conf = 0.1
    iou_threshold: shared.Iou = 0.65

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        parameters = {"algorithm": self.mining_algorithm, "conf": self.conf_threshold, "iou": self.iou_threshold}
        return order_pass(job, parameters)


class Infer(PassParameters):
    """Parameters of inference."""

    conf_threshold: shared.Conf = 0.2
    iou_threshold: shared.Iou = 0.65

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        return order_pass(job, {"conf": self.conf_threshold, "iou": self.iou_threshold})


PROFILE = Profile(
    name="mmyolo",
    title=Words("Boxes with the models of mmyolo", "目标检测，采用 mmyolo 的模型"),
    tasks={2: Tasks(Training, Mining, Infer, MMYOLO_MODELS, MMYOLO_TOOLS, MMYOLO_TRAINING)},
)

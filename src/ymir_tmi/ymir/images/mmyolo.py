"""The image mmyolo: boxes, with YOLOv5 to YOLOv8, YOLOX, RTMDet and PP-YOLOE+."""

from __future__ import annotations

from typing import Annotated

from ymir_tmi.ymir.command_lines import MMYOLO_TOOLS
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.joining import best_and_latest, learning_rate, order_pass, order_training
from ymir_tmi.ymir.mm_overrides import MMYOLO_TRAINING
from ymir_tmi.ymir.model_names import MMYOLO_MODELS, find_config
from ymir_tmi.ymir.orders import PassOrder, TrainingOrder
from ymir_tmi.ymir.parameters import Hidden, Job, PassParameters, TrainingParameters
from ymir_tmi.ymir.profile import Profile, Tasks
from ymir_tmi.ymir.values import Words


class Training(TrainingParameters):
    """Parameters of a training."""

    shm_size: shared.ShmSize = "128G"
    export_format: shared.ExportFormat = "ark:raw"
    samples_per_gpu: shared.SamplesPerGpu = 8
    workers_per_gpu: shared.WorkersPerGpu = 4
    max_epochs: shared.Epochs = 100
    model_name: shared.ModelName = "yolov8_n"
    args_options: shared.ArgsOptions = ""
    cfg_options: shared.CfgOptions = ""
    metric: shared.Metric = "bbox"
    val_interval: shared.ValInterval = 1
    max_keep_checkpoints: shared.MaxKeep = 1
    learning_rate: Annotated[shared.LearningRate, Hidden()] = 0.0
    find_unused_parameters: Annotated[shared.FindUnused, Hidden()] = False
    log_level: Annotated[shared.LogLevel, Hidden()] = "INFO"
    ymir_saved_file_patterns: Annotated[shared.FilePatterns, Hidden()] = ""

    def order(self, job: Job) -> TrainingOrder:
        """Return what the parameters come to."""
        parameters = {
            "batch": self.samples_per_gpu * job.machine.devices,
            "workers": self.workers_per_gpu,
            "epochs": self.max_epochs,
            "val_interval": self.val_interval,
            **learning_rate(self.learning_rate),
        }
        return order_training(
            job,
            find_config(self.model_name, MMYOLO_MODELS),
            parameters,
            cfg_options=(self.cfg_options, MMYOLO_TRAINING),
            args_options=(self.args_options, MMYOLO_TOOLS),
            stages=best_and_latest(self.max_keep_checkpoints, self.ymir_saved_file_patterns),
        )


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

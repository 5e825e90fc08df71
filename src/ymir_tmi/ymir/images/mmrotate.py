"""The image mmrotate: rotated boxes, with rotated RTMDet."""

from __future__ import annotations

from typing import Annotated

from ymir_tmi.ymir.command_lines import MMROTATE_TOOLS
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.images.mmyolo import Infer, Mining
from ymir_tmi.ymir.joining import best_and_latest, learning_rate, order_training
from ymir_tmi.ymir.mm_overrides import MMROTATE_TRAINING
from ymir_tmi.ymir.model_names import MMROTATE_MODELS, find_config
from ymir_tmi.ymir.orders import TrainingOrder
from ymir_tmi.ymir.parameters import DocumentHad, Hidden, Job, TrainingParameters
from ymir_tmi.ymir.profile import Profile, Tasks
from ymir_tmi.ymir.values import Words


class Training(TrainingParameters):
    """Parameters of a training."""

    shm_size: shared.ShmSize = "128G"
    export_format: shared.ExportFormat = "ark:raw"
    samples_per_gpu: shared.SamplesPerGpu = 8
    workers_per_gpu: shared.WorkersPerGpu = 4
    max_epochs: shared.Epochs = 100
    model_name: Annotated[shared.ModelName, DocumentHad("yolov8_n")] = "rtmdet_tiny"
    args_options: shared.ArgsOptions = ""
    cfg_options: shared.CfgOptions = ""
    img_size: shared.ImageSize = 512
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
            "image_size": self.img_size,
            "val_interval": self.val_interval,
            **learning_rate(self.learning_rate),
        }
        return order_training(
            job,
            find_config(self.model_name, MMROTATE_MODELS),
            parameters,
            cfg_options=(self.cfg_options, MMROTATE_TRAINING),
            args_options=(self.args_options, MMROTATE_TOOLS),
            stages=best_and_latest(self.max_keep_checkpoints, self.ymir_saved_file_patterns),
        )


PROFILE = Profile(
    name="mmrotate",
    title=Words("Rotated boxes with the models of mmrotate", "旋转目标检测，采用 mmrotate 的模型"),
    tasks={2: Tasks(Training, Mining, Infer, MMROTATE_MODELS, MMROTATE_TOOLS, MMROTATE_TRAINING)},
)

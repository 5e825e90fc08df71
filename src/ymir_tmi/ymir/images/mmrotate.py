"""The image mmrotate: rotated boxes, with rotated RTMDet."""

from __future__ import annotations

from typing import Annotated

from ymir_tmi.ymir.command_lines import MMROTATE_TOOLS
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.images.mm import MmengineTraining
from ymir_tmi.ymir.images.mmyolo import Infer, Mining
from ymir_tmi.ymir.joining import learning_rate
from ymir_tmi.ymir.mm_overrides import MMROTATE_TRAINING
from ymir_tmi.ymir.model_names import MMROTATE_MODELS, find_config
from ymir_tmi.ymir.orders import TrainingOrder
from ymir_tmi.ymir.parameters import DocumentHad, Job
from ymir_tmi.ymir.profile import Profile, Tasks
from ymir_tmi.ymir.values import Words


class Training(MmengineTraining):
    """Parameters of a training."""

    model_name: Annotated[shared.ModelName, DocumentHad("yolov8_n")] = "rtmdet_tiny"
    img_size: shared.ImageSize = 512

    def order(self, job: Job) -> TrainingOrder:
        """Return what the parameters come to."""
        choice, rate = find_config(self.model_name, MMROTATE_MODELS), learning_rate(self.learning_rate)
        return self.order_of(job, choice, MMROTATE_TRAINING, MMROTATE_TOOLS, image_size=self.img_size, **rate)


PROFILE = Profile(
    name="mmrotate",
    title=Words("Rotated boxes with the models of mmrotate", "旋转目标检测，采用 mmrotate 的模型"),
    tasks={2: Tasks(Training, Mining, Infer, MMROTATE_MODELS, MMROTATE_TOOLS, MMROTATE_TRAINING)},
)

"""The image detectron2: boxes, with RetinaNet."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from ymir_tmi.ymir.command_lines import DETECTRON2
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.joining import learning_rate, order_pass, order_training
from ymir_tmi.ymir.model_names import DETECTRON2_CONFIGS, find_config
from ymir_tmi.ymir.orders import PassOrder, StagePolicy, TrainingOrder
from ymir_tmi.ymir.parameters import Help, Hidden, Job, PassParameters, TrainingParameters
from ymir_tmi.ymir.profile import Profile, Tasks
from ymir_tmi.ymir.values import Positive, Whole, Words

_EVALUATIONS = 10  # of a training

BatchSize = Annotated[
    Positive,
    Help(
        "Images in a step on all GPUs together; rounded up to a multiple of the GPUs.",
        "所有 GPU 一步共处理的图片数量；若不是 GPU 数的倍数则向上取整。",
        "`batch`",
    ),
]
MaxIter = Annotated[
    int,
    BeforeValidator(Whole()),
    Help(
        "Updates of the weights; 0 or less keeps the number of the config file. Ten evaluations are spread over them.",
        "最大训练次数，其间评测约十次；不大于 0 时采用配置文件中的值。",
        "`iterations`, `val_iterations`",
    ),
]


class Training(TrainingParameters):
    """Parameters of a training."""

    batch_size: BatchSize = 2
    config_file: shared.ConfigFile = "configs/COCO-Detection/retinanet_R_50_FPN_1x.yaml"
    max_iter: MaxIter = 90000
    learning_rate: shared.LearningRate = 0.001
    args_options: shared.ArgsOptions = ""
    ymir_saved_file_patterns: Annotated[shared.FilePatterns, Hidden()] = ""

    def order(self, job: Job) -> TrainingOrder:
        """Return what the parameters come to."""
        rate = learning_rate(self.learning_rate)
        interval = max(1, self.max_iter // _EVALUATIONS)
        length = [f"iterations={self.max_iter}", f"val_iterations={interval}"] if self.max_iter > 0 else []
        return order_training(
            job,
            find_config(self.config_file, DETECTRON2_CONFIGS),
            {"batch": self.batch_size, "set": [*length, *rate.get("set", [])]},
            args_options=(self.args_options, DETECTRON2),
            stages=StagePolicy(best_only=True, file_patterns=self.ymir_saved_file_patterns),
        )


class Mining(PassParameters):
    """Parameters of mining; its algorithm is CALD."""

    conf_threshold: shared.Conf = 0.2

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        return order_pass(job, {"algorithm": "cald", "conf": self.conf_threshold})


class Infer(PassParameters):
    """Parameters of inference."""

    conf_threshold: shared.Conf = 0.2

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        return order_pass(job, {"conf": self.conf_threshold})


PROFILE = Profile(
    name="detectron2",
    title=Words(
        "Boxes with RetinaNet as in Detectron2; mining is CALD",
        "目标检测，采用 Detectron2 的 RetinaNet；挖掘算法为 CALD",
    ),
    tasks={2: Tasks(Training, Mining, Infer, DETECTRON2_CONFIGS, DETECTRON2)},
)

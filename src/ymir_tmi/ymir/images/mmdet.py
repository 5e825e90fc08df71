"""The image mmdet: boxes, with the models of mmdetection."""

from __future__ import annotations

from ymir_tmi.ymir.command_lines import MMDET_TOOLS
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.images.mm import MmTraining
from ymir_tmi.ymir.joining import class_weights, order_pass
from ymir_tmi.ymir.mm_overrides import MMDET_INFER, MMDET_MINING, MMDET_TRAINING
from ymir_tmi.ymir.model_names import MMDET_CONFIGS, find_config
from ymir_tmi.ymir.orders import PassOrder, TrainingOrder
from ymir_tmi.ymir.parameters import Job, PassParameters
from ymir_tmi.ymir.profile import Profile, Tasks
from ymir_tmi.ymir.values import Words


class Training(MmTraining):
    """Parameters of a training."""

    samples_per_gpu: shared.SamplesPerGpu = 16
    config_file: shared.ConfigFile = "configs/yolox/yolox_tiny_8x8_300e_coco.py"
    metric: shared.Metric = "bbox"
    ymir_saved_file_patterns: shared.FilePatterns = ""

    def order(self, job: Job) -> TrainingOrder:
        """Return what the parameters come to."""
        return self.order_of(job, find_config(self.config_file, MMDET_CONFIGS), MMDET_TRAINING, MMDET_TOOLS)


class Mining(PassParameters):
    """Parameters of mining."""

    shm_size: shared.ShmSize = "128G"
    mining_algorithm: shared.BoxAlgorithm = "aldd"
    class_distribution_scores: shared.ClassScores = ()
    cfg_options: shared.CfgOptions = ""

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        weights, notes = class_weights(self.class_distribution_scores, job.class_names, self.mining_algorithm)
        parameters = {"algorithm": self.mining_algorithm, **weights}
        return order_pass(job, parameters, cfg_options=(self.cfg_options, MMDET_MINING), notes=notes)


class Infer(PassParameters):
    """Parameters of inference."""

    shm_size: shared.ShmSize = "128G"
    cfg_options: shared.CfgOptions = ""
    conf_threshold: shared.Conf = 0.2

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        parameters = {"conf": self.conf_threshold}
        return order_pass(job, parameters, cfg_options=(self.cfg_options, MMDET_INFER))


PROFILE = Profile(
    name="mmdet",
    title=Words("Boxes with the models of mmdetection", "目标检测，采用 mmdetection 的模型"),
    tasks={2: Tasks(Training, Mining, Infer, MMDET_CONFIGS, MMDET_TOOLS, MMDET_TRAINING)},
)

"""Classes of pixels in the image all-in-one: FastSCNN and FCN-HRNet."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from ymir_tmi.ymir.command_lines import MMSEG_TOOLS
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.joining import best_and_latest, order_pass, order_training
from ymir_tmi.ymir.mm_overrides import MMSEG_TRAINING
from ymir_tmi.ymir.model_names import MMSEG_CONFIGS, find_config
from ymir_tmi.ymir.orders import PassOrder, StagePolicy, TrainingOrder
from ymir_tmi.ymir.parameters import Help, Hidden, Job, PassParameters, Spelling, TrainingParameters
from ymir_tmi.ymir.profile import Tasks
from ymir_tmi.ymir.values import Choice, OptionalTruth, Positive, Truth, Whole

MaxIters = Annotated[
    Positive,
    Help("Updates of the weights.", "训练的批次数。", "`iterations`"),
]
Interval = Annotated[
    Positive,
    Help(
        "Updates between two evaluations on the validation images, as nearly as passes over the training images, or "
        "equal parts of one, allow.",
        "在验证集上评测的周期（批次数），取整到训练集的若干次遍历或一次遍历的等分。",
        "`val_iterations`",
    ),
]
MaxKeep = Annotated[
    shared.MaxKeep,
    Help(
        "Where `save_least_file` is False: k keeps the k best and the k latest models, -1 all of them; the platform "
        "takes 11 at the most.",
        "当 save_least_file 为 False 时：设置为 k 可保存 k 个最优和 k 个最新的模型，设置为 -1 可保存所有模型；"
        "平台最多接受 11 个。",
    ),
]
IgnoreBlank = Annotated[
    Truth,
    Help(
        "Whether pixels without annotation are left out of account; else they are background.",
        "是否忽略未标注的区域；否则将其当成背景进行训练。",
        "`blank`",
    ),
]
PixelAlgorithm = Annotated[
    str,
    BeforeValidator(Choice({"RSAL": "rsal", "RIPU": "ripu", "entropy": "entropy", "random": "random"})),
    Help(
        "How images are scored; see docs/mining.md.",
        "挖掘算法，说明见 docs/mining.md。",
        "`algorithm`",
    ),
]
Superpixels = Annotated[
    str,
    BeforeValidator(Choice({name: name for name in ("slico", "slic", "mslic", "seeds")})),
    Help("How RSAL cuts pictures into superpixels.", "RSAL 的超像素算法。", "`superpixels`"),
]
Uncertainty = Annotated[
    str,
    BeforeValidator(Choice({"BvSB": "BvSB"})),
    Help(
        "How RSAL measures uncertainty: best against second best, the only way there is.",
        "RSAL 的不确定性计算方法：仅支持 BvSB（最优与次优概率之比）。",
    ),
]
MaxSuperpixels = Annotated[
    int,
    BeforeValidator(Whole(1, most=65535)),
    Help("Superpixels of a picture in RSAL at the most.", "RSAL 一张图像中超像素的数量上限。", "`max_superpixels`"),
]
MaxKept = Annotated[
    Positive,
    Help(
        "Images, the first of the ranking, with which the regions to label are written. Every image is ranked.",
        "写出标注区域的图像数量上限（按排序取前若干张）；所有图像都会参与排序。",
        "`kept`",
    ),
]
TopRegions = Annotated[
    Positive,
    Help("Regions to label in an image.", "一张图像中采用的区域（超像素）数量。", "`top_regions`"),
]
ClassBalance = Annotated[
    Truth,
    Help("Whether regions of frequent classes count less in RSAL.", "RSAL 是否考虑各类的平衡性。", "`class_balance`"),
]
HalfPrecision = Annotated[
    Truth,
    Help(
        "Whether the network computes in 16 bits, on GPUs; without one it changes nothing.",
        "是否采用 fp16 加速；没有 GPU 时不起作用。",
        "`precision`",
    ),
]
RegionRadius = Annotated[
    int,
    BeforeValidator(Whole(1, most=7)),
    Help(
        "Regions of RIPU are squares of 2 × value + 1 pixels.",
        "RIPU 的区域是边长为 2 × 值 + 1 像素的正方形。",
        "`region_radius`",
    ),
]
MaybeHalf = Annotated[
    OptionalTruth,
    Help(
        "Whether the network computes in 16 bits, on GPUs; by default it does where the GPU is made for that.",
        "是否采用 fp16 加速（仅 GPU）；默认由 GPU 决定。",
        "`precision`",
    ),
]
AugTest = Annotated[
    Truth,
    Help(
        "Whether images are also looked at mirrored and in six sizes, and the probabilities averaged: slower, a "
        "little better.",
        "是否采用多尺度与翻转的测试增强：更慢，略好。",
        "`flip_test`, `scales`",
    ),
]
_SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]  # those of mmsegmentation


class Training(TrainingParameters):
    """Parameters of a training."""

    config_file: shared.ConfigFile = "configs/fastscnn/fast_scnn_lr0.12_8x4_160k_cityscapes.py"
    max_iters: MaxIters = 20000
    interval: Interval = 2000
    samples_per_gpu: shared.SamplesPerGpu = 2
    workers_per_gpu: shared.WorkersPerGpu = 2
    max_keep_ckpts: MaxKeep = -1
    save_least_file: shared.BestOnly = True
    cfg_options: shared.CfgOptions = ""
    args_options: shared.ArgsOptions = ""
    export_format: shared.ExportFormat = "seg-coco:raw"
    shm_size: shared.ShmSize = "128G"
    ignore_black_area: Annotated[IgnoreBlank, Spelling("ignore_blank_area")] = False
    palette: Annotated[shared.Palette, Hidden()] = None
    ymir_saved_file_patterns: Annotated[shared.FilePatterns, Hidden()] = ""

    def order(self, job: Job) -> TrainingOrder:
        """Return what the parameters come to."""
        parameters = {
            "batch": self.samples_per_gpu * job.machine.devices,
            "workers": self.workers_per_gpu,
            "blank": "ignore" if self.ignore_black_area else "background",
            "set": [f"iterations={self.max_iters}", f"val_iterations={self.interval}"],
        }
        return order_training(
            job,
            find_config(self.config_file, MMSEG_CONFIGS),
            parameters,
            cfg_options=(self.cfg_options, MMSEG_TRAINING),
            args_options=(self.args_options, MMSEG_TOOLS),
            stages=self._stages(),
        )

    def _stages(self) -> StagePolicy:
        if self.save_least_file:
            return StagePolicy(best_only=True, file_patterns=self.ymir_saved_file_patterns)
        return best_and_latest(self.max_keep_ckpts, self.ymir_saved_file_patterns)


class Mining(PassParameters):
    """Parameters of mining."""

    mining_algorithm: PixelAlgorithm = "RSAL"
    superpixel_algorithm: Superpixels = "slico"
    uncertainty_method: Uncertainty = "BvSB"
    shm_size: shared.ShmSize = "128G"
    max_superpixel_per_image: MaxSuperpixels = 1024
    max_kept_mining_image: MaxKept = 5000
    topk_superpixel_score: TopRegions = 3
    class_balance: ClassBalance = True
    samples_per_gpu: shared.SamplesPerGpu = 2
    workers_per_gpu: shared.WorkersPerGpu = 2
    fp16: HalfPrecision = True
    ripu_region_radius: RegionRadius = 1

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        parameters = {
            "algorithm": self.mining_algorithm,
            "batch": self.samples_per_gpu * job.machine.devices,
            "workers": self.workers_per_gpu,
            "precision": _precision(self.fp16, job),
            **self._of_algorithm(),
        }
        return order_pass(job, parameters)

    def _of_algorithm(self) -> dict[str, Any]:
        """Return the settings that the algorithm reads; those of the other one are in the template too."""
        regions = {"top_regions": self.topk_superpixel_score, "kept": self.max_kept_mining_image}
        superpixels = {
            "superpixels": self.superpixel_algorithm,
            "max_superpixels": self.max_superpixel_per_image,
            "class_balance": self.class_balance,
        }
        if self.mining_algorithm == "rsal":
            return {**superpixels, **regions}
        if self.mining_algorithm == "ripu":
            return {"region_radius": self.ripu_region_radius, **regions}
        return {}


class Infer(PassParameters):
    """Parameters of inference."""

    shm_size: shared.ShmSize = "128G"
    samples_per_gpu: shared.SamplesPerGpu = 2
    workers_per_gpu: shared.WorkersPerGpu = 2
    fp16: Annotated[MaybeHalf, Hidden()] = None
    aug_test: Annotated[AugTest, Hidden()] = False
    palette: Annotated[shared.Palette, Hidden()] = None

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        parameters = {
            "batch": self.samples_per_gpu * job.machine.devices,
            "workers": self.workers_per_gpu,
            "precision": "auto" if self.fp16 is None else _precision(self.fp16, job),
            **({"flip_test": True, "scales": _SCALES} if self.aug_test else {}),
        }
        return order_pass(job, parameters)


def _precision(half: bool, job: Job) -> str:
    """Return the arithmetic; a processor takes its own in any case."""
    if not job.machine.gpu:
        return "auto"
    return "fp16" if half else "fp32"


TASKS = Tasks(Training, Mining, Infer, MMSEG_CONFIGS, MMSEG_TOOLS, MMSEG_TRAINING)

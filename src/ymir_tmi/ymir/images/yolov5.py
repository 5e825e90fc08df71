"""Boxes in the image all-in-one: YOLOv5."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from ymir_tmi.ymir.command_lines import YOLOV5, CommandLine
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.joining import class_weights, order_pass, order_training, periodic
from ymir_tmi.ymir.model_names import YOLOV5_MODELS, ModelChoice, find_config
from ymir_tmi.ymir.orders import PassOrder, TrainingOrder
from ymir_tmi.ymir.parameters import Help, Hidden, Job, PassParameters, Spelling, TemplateHad, TrainingParameters
from ymir_tmi.ymir.profile import Tasks
from ymir_tmi.ymir.values import Choice, Line, Truth, Whole

Model = Annotated[
    Line,
    Help(
        "Which model is trained: yolov5n, yolov5s, yolov5m, yolov5l or yolov5x, from fast to precise; for large inputs "
        "yolov5n6 to yolov5x6.",
        "训练的模型：yolov5n、yolov5s、yolov5m、yolov5l、yolov5x，由快到准；大输入用 yolov5n6 到 yolov5x6。",
        "`model`",
    ),
]
Opset = Annotated[
    int,
    BeforeValidator(Whole(11)),
    Help(
        "Operator set of the ONNX file that is attached to the result, 11 or later.",
        "随结果附上的 ONNX 文件的算子集版本，不小于 11。",
        "`export --opset`",
    ),
]
SavePeriod = Annotated[
    int,
    BeforeValidator(Whole()),
    Help(
        "Where `save_best_only` is False: keep one model out of so many epochs as well; below 1 none.",
        "当 save_best_only 为 False 时保存模型的间隔（epoch）；小于 1 时不额外保存。",
    ),
]
SyncBn = Annotated[
    Truth,
    Help(
        "Whether batch norms take their statistics over all GPUs; better with small batches.",
        "是否同步各 GPU 上的归一化层，batch 较小时建议开启。",
        "`sync_norms`",
    ),
]
_ACTIVATIONS = {
    "ELU": "elu",
    "Hardswish": "hardswish",
    "LeakyReLU": "leaky_relu",
    "PReLU": "prelu",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SiLU": "silu",
}
Activation = Annotated[
    str | None,
    BeforeValidator(Choice(_ACTIVATIONS, optional=True)),
    Help(
        "Activation of the conv blocks, by PyTorch's name; nothing is the model's own, SiLU.",
        "激活函数（PyTorch 名称）；留空采用模型自身的 SiLU。",
        "`activation`",
    ),
]
Port = Annotated[
    int,
    BeforeValidator(Whole(0, most=65535)),
    Help(
        "Changes nothing: the processes of a training find a free port themselves.",
        "不起作用：训练进程自动选择空闲端口。",
    ),
]


class CommonTraining(TrainingParameters):
    """Parameters of a training that boxes and masks have."""

    shm_size: shared.ShmSize = "128G"
    batch_size_per_gpu: shared.SamplesPerGpu = 16
    num_workers_per_gpu: shared.WorkersPerGpu = 4
    epochs: shared.Epochs = 100
    img_size: shared.ImageSize = 640
    opset: Opset = 11
    args_options: shared.ArgsOptions = "--exist-ok"
    save_best_only: shared.BestOnly = True
    save_period: SavePeriod = 10
    sync_bn: SyncBn = False
    ymir_saved_file_patterns: Annotated[shared.FilePatterns, Hidden()] = ""

    def order_of(self, job: Job, choice: ModelChoice, line: CommandLine, **own: Any) -> TrainingOrder:
        """Return what the parameters come to.

        Args:
            job: the machine and the classes.
            choice: the model.
            line: options of the command line.
            own: further settings.
        """
        parameters = {
            "batch": self.batch_size_per_gpu * job.machine.devices,
            "workers": self.num_workers_per_gpu,
            "epochs": self.epochs,
            "image_size": self.img_size,
            **({"set": [f"sync_norms={str(self.sync_bn).lower()}"]} if job.machine.devices > 1 else {}),
            **own,
        }
        return order_training(
            job,
            choice,
            parameters,
            args_options=(self.args_options, line),
            stages=periodic(self.save_best_only, self.save_period, self.ymir_saved_file_patterns),
            opset=self.opset,
        )


class CommonPass(PassParameters):
    """Parameters that mining and inference of boxes and masks have."""

    shm_size: shared.ShmSize = "128G"
    img_size: shared.ImageSize = 640
    conf_thres: shared.Conf = 0.25
    iou_thres: shared.Iou = 0.45
    batch_size_per_gpu: shared.SamplesPerGpu = 16
    num_workers_per_gpu: shared.WorkersPerGpu = 4
    pin_memory: shared.PinMemory = False

    def settings(self, job: Job) -> dict[str, Any]:
        """Return the settings that both have."""
        return {
            "image_size": self.img_size,
            "conf": self.conf_thres,
            "iou": self.iou_thres,
            "batch": self.batch_size_per_gpu * job.machine.devices,
            "workers": self.num_workers_per_gpu,
        }


class Training(CommonTraining):
    """Parameters of a training."""

    export_format: shared.ExportFormat = "ark:raw"
    model: Model = "yolov5s"
    num_workers_per_gpu: Annotated[shared.WorkersPerGpu, TemplateHad(8)] = 4
    epochs: Annotated[shared.Epochs, TemplateHad(300)] = 100
    opset: Annotated[Opset, TemplateHad(12)] = 11
    activate: Annotated[Activation, Spelling("activation"), TemplateHad("silu")] = ""
    save_period: Annotated[SavePeriod, TemplateHad(-1)] = 10
    port: Annotated[Port, Hidden()] = 0

    def order(self, job: Job) -> TrainingOrder:
        """Return what the parameters come to."""
        own = {"activation": self.activate} if self.activate else {}
        return self.order_of(job, find_config(self.model, YOLOV5_MODELS), YOLOV5, **own)


class Mining(CommonPass):
    """Parameters of mining."""

    mining_algorithm: shared.BoxAlgorithm = "aldd"
    class_distribution_scores: shared.ClassScores = ()

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        weights, notes = class_weights(self.class_distribution_scores, job.class_names, self.mining_algorithm)
        parameters = {**self.settings(job), "algorithm": self.mining_algorithm, **weights}
        return order_pass(job, parameters, notes=notes)


class Infer(CommonPass):
    """Parameters of inference."""

    def order(self, job: Job) -> PassOrder:
        """Return what the parameters come to."""
        return order_pass(job, self.settings(job))


TASKS = Tasks(Training, Mining, Infer, YOLOV5_MODELS, YOLOV5)

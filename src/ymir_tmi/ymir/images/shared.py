"""Parameters that several images have under one name, each with its reader and its help."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from ymir_tmi.ymir.parameters import Help
from ymir_tmi.ymir.values import (
    AllOrPositive,
    Choice,
    Fraction,
    Line,
    NonNegative,
    Number,
    Positive,
    Refused,
    Truth,
    Weights,
    Whole,
)

# What the platform uses.

ShmSize = Annotated[
    Line,
    Help(
        "Shared memory of the container. The platform starts the container with it; nothing else reads it.",
        "容器可用的共享内存，由平台在启动容器时使用，镜像内部不使用。",
    ),
]
ExportFormat = Annotated[
    Line,
    Help(
        "Form in which the platform writes the data set. Every form that it has is read, so nothing else depends on "
        "it.",
        "平台导出数据集的格式。镜像可读取平台的所有格式。",
    ),
]

# Training.

ConfigFile = Annotated[
    Line,
    Help(
        "Which model is trained: a config file by its path, its name alone, or its folder. The file is not needed; the "
        "name says family, size and schedule.",
        "训练的模型：配置文件的路径、文件名或其目录。镜像只从名字得到模型系列、大小与训练策略，不需要文件本身。",
        "`model`, `image_size`, `recipe`",
    ),
]
ModelName = Annotated[
    Line,
    Help(
        "Which model is trained, by its short name.",
        "训练的模型简写。",
        "`model`, `image_size`",
    ),
]
SamplesPerGpu = Annotated[
    Positive,
    Help("Images in a step on each GPU.", "每张 GPU 一次处理的图片数量。", "`batch` = value × GPUs"),
]
WorkersPerGpu = Annotated[
    NonNegative,
    Help(
        "Processes (in mining and inference: threads) that read images for each GPU; no more than the machine has "
        "processor cores.",
        "每张 GPU 对应的数据读取进程数（挖掘与推理时为线程数），不超过机器的 CPU 核数。",
        "`workers`",
    ),
]
Epochs = Annotated[
    Positive,
    Help("Passes over the training images.", "整个训练集的遍历次数。", "`epochs`"),
]
ValInterval = Annotated[
    Positive,
    Help(
        "Epochs between two evaluations on the validation images.",
        "在验证集上评测的周期，以 epoch 为单位。",
        "`val_interval`",
    ),
]
MaxKeep = Annotated[
    AllOrPositive,
    Help(
        "k keeps the k best and the k latest models, -1 all of them; the platform takes 11 at the most.",
        "设置为 k 可保存 k 个最优和 k 个最新的模型，设置为 -1 可保存所有模型；平台最多接受 11 个。",
    ),
]
BestOnly = Annotated[
    Truth,
    Help(
        "Keep the best and the latest model only.",
        "只保存最优与最新的模型。",
    ),
]
FilePatterns = Annotated[
    Line,
    Help(
        "Regular expressions with commas between them: files of a stage in which none of them is found are left out. "
        "The weights are kept in any case.",
        "以逗号分隔的正则表达式，模型阶段中与任何表达式都不匹配的文件不保存；权重文件始终保存。",
    ),
]
Metric = Annotated[
    str,
    BeforeValidator(Choice({"bbox": "bbox"})),
    Help(
        "How models are evaluated: COCO's AP of boxes, the only way there is.",
        "模型评测方式：仅支持 COCO 的框 AP。",
    ),
]
CfgOptions = Annotated[
    Line,
    Help(
        "Changes of the config as key=value, with spaces between them. What has a meaning here takes effect, in place "
        "of a parameter of the same meaning; anything else is refused with the reason.",
        "对配置的修改，形式为 key=value，以空格分隔。有对应含义的修改会生效，并优先于同一含义的超参数；"
        "其余的会报错并说明原因。",
        "`set`",
    ),
]
ArgsOptions = Annotated[
    Line,
    Help(
        "Options of the training's command line. What has a meaning here takes effect, in place of a parameter of the "
        "same meaning; anything else is refused with the reason.",
        "训练命令行参数。有对应含义的参数会生效，并优先于同一含义的超参数；其余的会报错并说明原因。",
        "`set`",
    ),
]
LearningRate = Annotated[
    float,
    BeforeValidator(Number()),
    Help(
        "Learning rate for the batch as it is; 0 or less keeps that of the model's recipe.",
        "学习率（不随 batch 大小缩放）；不大于 0 时采用模型自身的学习率。",
        "`optimizer.lr`",
    ),
]
FindUnused = Annotated[
    Truth,
    Help(
        "Changes nothing: every network here uses all of its parameters in every step, so there is nothing to find.",
        "不起作用：这里的网络在每一步都使用全部参数。",
    ),
]
LogLevel = Annotated[
    str,
    BeforeValidator(Choice({"INFO": "INFO"})),
    Help(
        "How much is logged: INFO, the only level there is.",
        "日志级别：仅支持 INFO。",
    ),
]
ImageSize = Annotated[
    int,
    BeforeValidator(Whole(32)),
    Help(
        "Size of the model's input in pixels; what is no multiple of the model's stride (32, of large inputs 64) is "
        "rounded up.",
        "模型输入大小（像素）；若不是模型步长（32，大输入模型为 64）的倍数则向上取整。",
        "`image_size`",
    ),
]

# Mining and inference.

Conf = Annotated[
    Fraction,
    Help(
        "Detections count above this confidence.",
        "置信度阈值：只采用置信度大于此值的结果。",
        "`conf`",
    ),
]
Iou = Annotated[
    Fraction,
    Help(
        "NMS drops a box that overlaps a better one of its class by more than this.",
        "NMS 的 IoU 阈值：与同类更优框的重叠超过此值的框被去除。",
        "`iou`",
    ),
]
BOX_ALGORITHMS = {name: name for name in ("aldd", "cald", "entropy", "random")}
BoxAlgorithm = Annotated[
    str,
    BeforeValidator(Choice(BOX_ALGORITHMS)),
    Help(
        "How images are scored; see docs/mining.md.",
        "挖掘算法。单类建议采用 aldd，多类建议采用 entropy。",
        "`algorithm`",
    ),
]
ClassScores = Annotated[
    Weights,
    Help(
        "Weights of the classes in aldd, in the order of the classes: 1.0,1.0,0.1,0.2 makes the last two count less. "
        "Other algorithms do not read it.",
        "aldd 算法中各类的权重，按类别顺序，如 1.0,1.0,0.1,0.2 降低后两类的挖掘比重。其它算法不使用。",
        "`class_weights`",
    ),
]
PinMemory = Annotated[
    Truth,
    Help(
        "Changes nothing: memory is pinned where that makes the way to the GPU faster.",
        "不起作用：在能加快传输到 GPU 的地方总会固定内存。",
    ),
]
Palette = Annotated[
    Refused,
    Help(
        "Colours of the classes: those of pictures here are fixed.",
        "类别颜色：这里的图片颜色是固定的。",
    ),
]

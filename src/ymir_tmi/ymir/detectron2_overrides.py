"""What the keys of Detectron2's configs do here, for RetinaNet.

Detectron2 takes a learning rate as it is given, whatever the batch; so does a rate that is given here.
"""

from __future__ import annotations

from typing import Any

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.ymir.effects import YES_NO, RunFacts, accepted, choice, computes, refused, sets, whole
from ymir_tmi.ymir.mm_overrides import (
    CLASSES,
    DATA,
    DEVICES,
    FOLDER,
    KERNELS,
    LOSSES,
    LR,
    STAGES,
    STRUCTURE,
    WEIGHTS,
)
from ymir_tmi.ymir.overrides import OverrideTable

_FREEZABLE = ("backbone.stem", "backbone.res2", "backbone.res3", "backbone.res4", "backbone.res5")


def _steps(value: Any, run: RunFacts) -> dict[str, Any]:
    """Translate updates into parts of the run."""
    if run.iterations is None:
        raise ValueError("the length of the run is not known; give max_iter")
    steps = [whole(step) for step in (value if isinstance(value, list | tuple) else [value])]
    if steps != sorted(steps) or any(step <= 0 for step in steps):
        raise ValueError("a rising list of updates is possible, such as (60000,80000)")
    parts = [step / run.iterations for step in steps if step < run.iterations]
    return {"recipe.schedule.steps": parts, "recipe.schedule.curve": "steps"}


def _curve(value: Any, run: RunFacts) -> dict[str, Any]:
    if choice({"WarmupMultiStepLR": "steps", "WarmupCosineLR": "cosine"})(value) == "steps":
        return {"recipe.schedule.curve": "steps"}
    return {"recipe.schedule.curve": "cosine", "recipe.schedule.final_factor": 0}


def _train_sizes(value: Any, run: RunFacts) -> dict[str, Any]:
    """Translate the smallest and largest of the sizes of the shorter side into parts of the image size."""
    sizes = [whole(size) for size in (value if isinstance(value, list | tuple) else [value])]
    if run.image_size is None or not sizes or min(sizes) <= 0:
        raise ValueError("sizes of the shorter side in pixels are possible, such as (640,800)")
    return {"recipe.augment.multiscale": [min(sizes) / run.image_size, max(sizes) / run.image_size]}


def _flip(value: Any, run: RunFacts) -> dict[str, Any]:
    across = {"horizontal": (0.5, 0), "vertical": (0, 0.5), "none": (0, 0)}
    flip, flip_vertical = choice(across)(value)
    return {"recipe.augment.flip": flip, "recipe.augment.flip_vertical": flip_vertical}


def _freeze(value: Any, run: RunFacts) -> dict[str, Any]:
    stages = whole(value)
    if not 0 <= stages <= len(_FREEZABLE):
        raise ValueError("0 (nothing), 1 (the stem) and 2 to 5 (the last frozen stage) are possible")
    return {"recipe.freeze": list(_FREEZABLE[:stages])}


def _half(value: Any, run: RunFacts) -> dict[str, Any]:
    if not YES_NO(value):
        return {"precision": "fp32"}
    return {"precision": "fp16" if run.machine.gpu else "auto"}


def _number(value: Any) -> int:
    """Refuse the values by which Detectron2 draws a seed, which could not be repeated."""
    if whole(value) < 0:
        raise ValueError("a seed from 0 on is possible; a run here can always be repeated")
    return whole(value)


_TESTS = refused("validation is that of the task, after epochs")
_CLIPPING = refused("gradients of RetinaNet are not clipped")
_OTHER_MODELS = refused("RetinaNet has no such part")

DETECTRON2_TRAINING = OverrideTable(
    TrainSettings,
    (
        ("SOLVER.BASE_LR", LR),
        ("SOLVER.MAX_ITER", sets("recipe.iterations", whole)),
        ("SOLVER.IMS_PER_BATCH", sets("batch", whole, text="over all devices")),
        (
            "SOLVER.STEPS",
            computes("recipe.schedule.steps", "recipe.schedule.curve", by=_steps, text="updates, as parts of the run"),
        ),
        ("SOLVER.GAMMA", sets("recipe.schedule.step_factor")),
        ("SOLVER.WARMUP_ITERS", sets("recipe.schedule.warmup_iterations", whole)),
        ("SOLVER.WARMUP_FACTOR", sets("recipe.schedule.warmup_start")),
        ("SOLVER.WARMUP_METHOD", sets("recipe.schedule.warmup", choice({"linear": "linear"}))),
        (
            "SOLVER.LR_SCHEDULER_NAME",
            computes(
                "recipe.schedule.curve",
                "recipe.schedule.final_factor",
                by=_curve,
                text="WarmupMultiStepLR or WarmupCosineLR",
            ),
        ),
        ("SOLVER.BASE_LR_END", sets("recipe.schedule.final_lr", text="where WarmupCosineLR ends")),
        ("SOLVER.MOMENTUM", sets("recipe.optimizer.momentum")),
        ("SOLVER.NESTEROV", sets("recipe.optimizer.nesterov", YES_NO)),
        ("SOLVER.WEIGHT_DECAY", sets("recipe.optimizer.weight_decay")),
        ("SOLVER.WEIGHT_DECAY_NORM", accepted("norms of RetinaNet are not trained", 0)),
        (
            "SOLVER.WEIGHT_DECAY_BIAS",
            sets("recipe.optimizer.decay_biases", choice({"0": False, "None": True}), text="None: as weights"),
        ),
        ("SOLVER.BIAS_LR_FACTOR", accepted("biases have the learning rate of weights", 1)),
        ("SOLVER.AMP.ENABLED", computes("precision", by=_half, text="True is fp16 on GPUs, auto on a processor")),
        ("SOLVER.REFERENCE_WORLD_SIZE", accepted("nothing follows the number of devices by itself", 0)),
        ("SOLVER.CHECKPOINT_PERIOD", STAGES),
        ("SOLVER.CLIP_GRADIENTS.ENABLED", accepted("gradients of RetinaNet are not clipped", False)),
        ("SOLVER.CLIP_GRADIENTS.*", _CLIPPING),
        ("SOLVER.RESCALE_INTERVAL", refused("there is no such schedule")),
        ("SOLVER.NUM_DECAYS", refused("there is no such schedule")),
        (
            "INPUT.MIN_SIZE_TRAIN",
            computes(
                "recipe.augment.multiscale", by=_train_sizes, text="any multiple of 32 from the least to the largest"
            ),
        ),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", accepted("each size is drawn by itself", "choice")),
        ("INPUT.MAX_SIZE_TRAIN", refused("the longer side follows from the shorter one: at most 1333 for 800")),
        ("INPUT.MAX_SIZE_TEST", refused("the longer side follows from the shorter one: at most 1333 for 800")),
        ("INPUT.MIN_SIZE_TEST", sets("image_size", whole, text="that `INPUT.MIN_SIZE_TRAIN` is measured by")),
        (
            "INPUT.RANDOM_FLIP",
            computes(
                "recipe.augment.flip", "recipe.augment.flip_vertical", by=_flip, text="horizontal, vertical, none"
            ),
        ),
        ("INPUT.CROP.ENABLED", accepted("pictures are not cut", False)),
        ("INPUT.CROP.*", refused("pictures are not cut")),
        ("INPUT.FORMAT", STRUCTURE),
        ("INPUT.MASK_FORMAT", _OTHER_MODELS),
        ("MODEL.RETINANET.NUM_CLASSES", CLASSES),
        ("MODEL.RETINANET.SCORE_THRESH_TEST", sets("conf")),
        ("MODEL.RETINANET.NMS_THRESH_TEST", sets("iou")),
        ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", refused("it belongs to the model: 1000 for each level")),
        ("MODEL.RETINANET.FOCAL_LOSS_*", LOSSES),
        ("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", LOSSES),
        ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", LOSSES),
        ("MODEL.RETINANET.IOU_*", LOSSES),
        ("MODEL.RETINANET.PRIOR_PROB", LOSSES),
        ("MODEL.RETINANET.BBOX_REG_WEIGHTS", LOSSES),
        ("MODEL.RETINANET.IN_FEATURES", STRUCTURE),
        ("MODEL.RETINANET.NUM_CONVS", STRUCTURE),
        ("MODEL.RETINANET.NORM", STRUCTURE),
        ("MODEL.RESNETS.DEPTH", sets("model", choice({"50": "retinanet_r50_fpn", "101": "retinanet_r101_fpn"}))),
        ("MODEL.RESNETS.*", STRUCTURE),
        ("MODEL.BACKBONE.FREEZE_AT", computes("recipe.freeze", by=_freeze, text="so many: the stem, then stages")),
        ("MODEL.WEIGHTS", WEIGHTS),
        ("MODEL.DEVICE", DEVICES),
        ("MODEL.META_ARCHITECTURE", accepted("this image has RetinaNet", "RetinaNet")),
        ("MODEL.MASK_ON", accepted("RetinaNet finds boxes", False)),
        ("MODEL.KEYPOINT_ON", accepted("RetinaNet finds boxes", False)),
        ("MODEL.LOAD_PROPOSALS", accepted("RetinaNet needs no proposals", False)),
        ("MODEL.BACKBONE.NAME", STRUCTURE),
        ("MODEL.FPN.*", STRUCTURE),
        ("MODEL.ANCHOR_GENERATOR.*", STRUCTURE),
        ("MODEL.PIXEL_*", STRUCTURE),
        ("MODEL.RPN.*", _OTHER_MODELS),
        ("MODEL.PROPOSAL_GENERATOR.*", _OTHER_MODELS),
        ("MODEL.ROI_*", _OTHER_MODELS),
        ("MODEL.SEM_SEG_HEAD.*", _OTHER_MODELS),
        ("MODEL.PANOPTIC_FPN.*", _OTHER_MODELS),
        ("DATALOADER.NUM_WORKERS", sets("workers", text="for each device")),
        ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", sets("recipe.with_objects", YES_NO)),
        ("DATALOADER.ASPECT_RATIO_GROUPING", accepted("a batch has pictures of one orientation", True)),
        ("DATALOADER.SAMPLER_TRAIN", accepted("every picture is taken once in an epoch", "TrainingSampler")),
        ("DATALOADER.REPEAT_*", refused("every picture is taken once in an epoch")),
        ("DATASETS.*", DATA),
        ("TEST.DETECTIONS_PER_IMAGE", sets("max_dets", whole)),
        ("TEST.EVAL_PERIOD", sets("recipe.val_iterations", whole)),
        ("TEST.EXPECTED_RESULTS", _TESTS),
        ("TEST.KEYPOINT_OKS_SIGMAS", _OTHER_MODELS),
        ("TEST.AUG.*", _TESTS),
        ("TEST.PRECISE_BN.*", _TESTS),
        ("OUTPUT_DIR", FOLDER),
        ("SEED", sets("seed", _number)),
        ("CUDNN_BENCHMARK", KERNELS),
        ("VIS_PERIOD", refused("the report shows pictures; there is no other drawing")),
        ("VERSION", accepted("this is the form of its keys", 2)),
    ),
    key="args_options",
)

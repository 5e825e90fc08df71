"""What the keys of mm's configs do here: of mmdetection 2, mmsegmentation 0 (mmcv), mmyolo and mmrotate 1 (mmengine).

mm takes a learning rate as it is given, whatever the batch; so does a rate that is given here.
"""

from __future__ import annotations

from typing import Any

from ymir_tmi.config.schema import InferSettings, MineSettings, TrainSettings
from ymir_tmi.ymir.effects import YES_NO, Effect, RunFacts, accepted, choice, computes, refused, sets, square, whole
from ymir_tmi.ymir.overrides import OverrideTable, narrowed

Rows = tuple[tuple[str, Effect], ...]

CLASSES = refused("the number of classes follows from the class names of the task")
WEIGHTS = refused("weights are chosen with the task; the platform names them in pretrained_model_params")
RESUME = refused("a task begins anew; choose a stage of an earlier training as its weights")
FOLDER = refused("results lie where the platform wants them")
DATA = refused("the platform gives the data, and the recipe of the model says what is done to pictures")
DEVICES = refused("the platform says which devices are used, in gpu_id")
LAUNCHER = refused("processes start themselves, one for each device of gpu_id")
STRUCTURE = refused("what a model is made of follows from its name")
LOSSES = refused("assignment and losses are those of the model")
LOGS = refused("what is logged, and how often, is not adjustable")
STAGES = refused("which stages are kept is said by parameters of the image, such as max_keep_checkpoints")
RECIPE = refused("the recipe of the model says this")
METRICS = refused("validation is that of the task, and the parameters of the image say how often there is one")
HOOKS = refused("hooks of mm's programs are not run")
PROCESSES = refused("processes and threads are chosen for the machine")
KERNELS = refused("PyTorch chooses the kernels of a GPU itself")
NMS = refused("post-processing knows a score threshold, an overlap and a number of detections only")
SEEDS = accepted("every process draws numbers of its own", "True")
NOT_DETERMINISTIC = accepted("the kernels of a GPU are not made deterministic; random draws follow the seed", "False")
SCALED_RATE = accepted("the rate of a recipe follows the batch; one that is given is taken as it is")


def _batch(value: Any, run: RunFacts) -> dict[str, Any]:
    return {"batch": whole(value) * run.machine.devices}


def _half(value: Any, run: RunFacts) -> dict[str, Any]:
    if value is None or value is False:
        return {"precision": "fp32"}
    return {"precision": "fp16" if run.machine.gpu else "auto"}


def _wrapper(value: Any, run: RunFacts) -> dict[str, Any]:
    return _half(choice({"OptimWrapper": False, "AmpOptimWrapper": True})(value), run)


def _frozen_stages(value: Any, run: RunFacts) -> dict[str, Any]:
    """Translate the number of the last stage of the backbone that is not trained; 0 is the stem, -1 none."""
    last = whole(value)
    if not -1 <= last <= 4:
        raise ValueError("-1 (none), 0 (the stem) and 1 to 4 (the last frozen stage) are possible")
    in_list = (run.model or "").startswith(("yolov5", "yolov7"))
    stages = [f"backbone.stages.{n - 1}" if in_list else f"backbone.stage{n}" for n in range(1, last + 1)]
    return {"recipe.freeze": ["backbone.stem", *stages] if last >= 0 else []}


def _multiscale(value: Any, run: RunFacts) -> dict[str, Any]:
    """Translate YOLOX's range of sizes, which is in units of 32 pixels."""
    if run.image_size is None or not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("two numbers are possible, such as (15,25), in units of 32 pixels")
    return {"recipe.augment.multiscale": [whole(part) * 32 / run.image_size for part in value]}


def _as_long_as_the_run(value: Any, run: RunFacts) -> dict[str, Any]:
    if run.epochs is None or whole(value) != run.epochs:
        raise ValueError(f"the learning rate falls over the whole run, which has {run.epochs} epochs")
    return {}


def _smaller_side(value: Any) -> int:
    """Return the smaller of two sides, which is what the size of a semantic model is."""
    return min(whole(side) for side in value) if isinstance(value, list | tuple) else whole(value)


BATCH = computes("batch", by=_batch, text="for each device")
HALF = computes("precision", by=_half, text="fp16 on GPUs, auto on a processor; None is fp32")
FREEZE = computes("recipe.freeze", by=_frozen_stages, text="the stem and so many stages of the backbone")
NORMS = sets("recipe.sync_norms", choice({"SyncBN": True, "BN": False}))
WHOLE_RUN = Effect("accepted", (), "the learning rate falls over the whole run", _as_long_as_the_run)
LR = sets("recipe.optimizer.lr", text="taken as it is, whatever the batch", optimizer__lr_scaling="none")
DECAY = sets(
    "recipe.optimizer.weight_decay", text="taken as it is, whatever the batch", optimizer__decay_scaling="none"
)
CLIP = sets("recipe.optimizer.clip_norm", text="None does not clip")
ACCUMULATE = sets("recipe.optimizer.accumulate", whole)
WORKERS = sets("workers", text="for each device")
SIZE = sets("image_size", square)
EPOCHS = sets("epochs", whole)


def _optimizer(prefix: str, paramwise: str) -> Rows:
    decayed = choice({"1": True, "0": False})
    return (
        (f"{prefix}.type", sets("recipe.optimizer.name", choice({"SGD": "sgd", "AdamW": "adamw"}))),
        (f"{prefix}.lr", LR),
        (f"{prefix}.weight_decay", DECAY),
        (f"{prefix}.momentum", sets("recipe.optimizer.momentum")),
        (f"{prefix}.nesterov", sets("recipe.optimizer.nesterov", YES_NO)),
        (f"{prefix}.dampening", accepted("momentum has no dampening", 0)),
        (f"{prefix}.betas", accepted("AdamW has PyTorch's betas", (0.9, 0.999), [0.9, 0.999])),
        (f"{prefix}.eps", accepted("AdamW has PyTorch's epsilon", 1e-8)),
        (f"{prefix}.batch_size_per_gpu", accepted("the decay follows the batch of the run")),
        (f"{paramwise}.norm_decay_mult", sets("recipe.optimizer.decay_norms", decayed, text="0 or 1")),
        (f"{paramwise}.bias_decay_mult", sets("recipe.optimizer.decay_biases", decayed, text="0 or 1")),
        (f"{paramwise}.*", RECIPE),
    )


def _post_processing(prefix: str) -> Rows:
    return (
        (f"{prefix}.score_thr", sets("conf")),
        (f"{prefix}.nms.iou_threshold", sets("iou")),
        (f"{prefix}.nms.iou_thr", sets("iou")),
        (f"{prefix}.max_per_img", sets("max_dets", whole)),
        (
            f"{prefix}.nms.type",
            accepted("boxes are dropped by plain NMS, of turned boxes by theirs", "nms", "nms_rotated"),
        ),
        (f"{prefix}.multi_label", NMS),
        (f"{prefix}.nms_pre", NMS),
        (f"{prefix}.min_bbox_size", NMS),
        (f"{prefix}.yolox_style", NMS),
    )


_ANY_PROGRAM: Rows = (
    ("load_from", WEIGHTS),
    ("resume", RESUME),
    ("resume_from", RESUME),
    ("auto_resume", RESUME),
    ("work_dir", FOLDER),
    ("launcher", LAUNCHER),
    ("gpu_ids", DEVICES),
    ("device", DEVICES),
    ("log_level", LOGS),
    ("find_unused_parameters", accepted("every parameter of a model takes part in every step", False)),
    ("auto_scale_lr.*", SCALED_RATE),
    ("*num_classes", CLASSES),
    ("*norm_cfg.type", NORMS),
    ("*norm_cfg.requires_grad", accepted("norms are trained", True)),
    ("model.type", STRUCTURE),
    ("model.pretrained", WEIGHTS),
    ("model.init_cfg*", WEIGHTS),
    ("model.backbone.init_cfg*", WEIGHTS),
)

_MODEL_PARTS: Rows = (
    ("model.backbone.*", STRUCTURE),
    ("model.neck.*", STRUCTURE),
    ("model.bbox_head.loss_*", LOSSES),
    ("model.bbox_head.*", STRUCTURE),
    ("model.train_cfg.*", LOSSES),
    ("model.data_preprocessor.*", STRUCTURE),
)

# mmcv's runners, mmdetection 2 and mmsegmentation 0.
_MMCV: Rows = (
    *_ANY_PROGRAM,
    *_optimizer("optimizer", "optimizer.paramwise_cfg"),
    ("optimizer_config.grad_clip", CLIP),
    ("optimizer_config.grad_clip.max_norm", CLIP),
    ("optimizer_config.grad_clip.norm_type", accepted("gradients are clipped by their Euclidean norm", 2)),
    ("optimizer_config.cumulative_iters", ACCUMULATE),
    (
        "optimizer_config.type",
        accepted("gradients can be accumulated", "GradientCumulativeOptimizerHook", "OptimizerHook"),
    ),
    ("fp16", HALF),
    ("fp16.loss_scale", HALF),
    ("data.samples_per_gpu", BATCH),
    ("data.workers_per_gpu", WORKERS),
    ("data.train_dataloader.samples_per_gpu", BATCH),
    ("data.train_dataloader.workers_per_gpu", WORKERS),
    ("data.persistent_workers", accepted("worker processes live as long as the run", True)),
    ("data.train_dataloader.*", DATA),
    ("data.val_dataloader.*", DATA),
    ("data.test_dataloader.*", DATA),
    ("data.train.*", DATA),
    ("data.val.*", DATA),
    ("data.test.*", DATA),
    ("train_pipeline*", DATA),
    ("test_pipeline*", DATA),
    ("img_norm_cfg.*", STRUCTURE),
    ("dataset_type", DATA),
    ("data_root", DATA),
    ("seed", sets("seed", whole)),
    ("diff_seed", SEEDS),
    ("deterministic", NOT_DETERMINISTIC),
    ("cudnn_benchmark", KERNELS),
    ("evaluation.classwise", accepted("the AP of each class is always computed", True)),
    ("evaluation.*", METRICS),
    ("checkpoint_config.*", STAGES),
    ("log_config.*", LOGS),
    ("custom_hooks*", HOOKS),
    ("dist_params.*", LAUNCHER),
    ("opencv_num_threads", PROCESSES),
    ("mp_start_method", PROCESSES),
    ("workflow*", refused("a validation follows so many epochs of training; there is no other order")),
)

_YOLOX_OF_MMDET: Rows = (
    ("img_scale", SIZE),
    ("model.input_size", SIZE),
    ("model.random_size_range", computes("recipe.augment.multiscale", by=_multiscale, text="in units of 32 pixels")),
    ("model.random_size_interval", sets("recipe.augment.multiscale_interval", whole)),
    ("model.backbone.frozen_stages", FREEZE),
    ("runner.max_epochs", EPOCHS),
    ("total_epochs", EPOCHS),
    ("max_epochs", EPOCHS),
    ("runner.type", accepted("the length of a run is in epochs", "EpochBasedRunner")),
    ("runner.max_iters", refused("the length of a run is in epochs; give max_epochs")),
    ("evaluation.interval", sets("val_interval", whole)),
    ("interval", sets("val_interval", whole)),
    ("evaluation.metric", accepted("it is the AP of boxes", "bbox")),
    ("evaluation.save_best", accepted("the best epoch is that of the highest AP", "auto", "bbox_mAP")),
    ("lr_config.policy", sets("recipe.schedule.curve", choice({"YOLOX": "cosine", "CosineAnnealing": "cosine"}))),
    ("lr_config.warmup", sets("recipe.schedule.warmup", choice({"exp": "quadratic", "linear": "linear"}))),
    ("lr_config.warmup_iters", sets("recipe.schedule.warmup_epochs", text="in epochs, as YOLOX counts it")),
    ("lr_config.warmup_by_epoch", accepted("YOLOX's warm-up is in epochs", True)),
    ("lr_config.by_epoch", accepted("the learning rate changes with every update", False)),
    ("lr_config.warmup_ratio", accepted("the warm-up ends at the learning rate itself", 1)),
    ("lr_config.min_lr_ratio", sets("recipe.schedule.final_factor")),
    ("lr_config.num_last_epochs", sets("recipe.closing_epochs", whole)),
    ("custom_hooks.0.num_last_epochs", sets("recipe.closing_epochs", whole)),
    ("num_last_epochs", sets("recipe.closing_epochs", whole)),
    ("custom_hooks.2.momentum", sets("recipe.ema.momentum")),
    *_post_processing("model.test_cfg"),
)

_SEMANTIC: Rows = (
    ("img_scale", sets("image_size", _smaller_side, text="the smaller side")),
    ("crop_size", sets("recipe.augment.crop", text="height and width")),
    ("runner.max_iters", sets("recipe.iterations", whole)),
    ("total_iters", sets("recipe.iterations", whole)),
    ("runner.type", accepted("the length of a run is in updates", "IterBasedRunner")),
    ("runner.max_epochs", refused("the length of a run is in updates; give max_iters")),
    ("evaluation.interval", sets("recipe.val_iterations", whole)),
    ("evaluation.metric", accepted("it is the mIoU", "mIoU")),
    ("evaluation.pre_eval", accepted("images are measured one by one", True)),
    ("evaluation.save_best", accepted("the best epoch is that of the highest mIoU", "auto", "mIoU")),
    ("lr_config.policy", sets("recipe.schedule.curve", choice({"poly": "poly", "CosineAnnealing": "cosine"}))),
    ("lr_config.power", sets("recipe.schedule.power")),
    ("lr_config.min_lr", sets("recipe.schedule.final_lr")),
    ("lr_config.by_epoch", accepted("the learning rate changes with every update", False)),
    ("lr_config.warmup", sets("recipe.schedule.warmup", choice({"linear": "linear"}))),
    ("lr_config.warmup_iters", sets("recipe.schedule.warmup_iterations", whole)),
    ("lr_config.warmup_ratio", sets("recipe.schedule.warmup_start")),
    ("model.test_cfg.mode", accepted("images are looked at as a whole", "whole")),
    ("model.test_cfg.*", refused("images are looked at as a whole")),
    ("model.decode_head.loss_*", LOSSES),
    ("model.decode_head.sampler*", LOSSES),
    ("model.decode_head.*", STRUCTURE),
    ("model.auxiliary_head*", STRUCTURE),
)

# mmengine's runner, mmyolo and mmrotate 1.
_MMENGINE: Rows = (
    *_ANY_PROGRAM,
    ("optim_wrapper.type", computes("precision", by=_wrapper, text="AmpOptimWrapper is fp16 on GPUs")),
    ("optim_wrapper.loss_scale", accepted("the scale of fp16's gradients follows their size", "dynamic")),
    ("optim_wrapper.clip_grad", CLIP),
    ("optim_wrapper.clip_grad.max_norm", CLIP),
    ("optim_wrapper.clip_grad.norm_type", accepted("gradients are clipped by their Euclidean norm", 2)),
    ("optim_wrapper.accumulative_counts", ACCUMULATE),
    ("optim_wrapper.constructor", RECIPE),
    *_optimizer("optim_wrapper.optimizer", "optim_wrapper.paramwise_cfg"),
    ("base_lr", LR),
    ("weight_decay", DECAY),
    ("max_epochs", EPOCHS),
    ("train_cfg.max_epochs", EPOCHS),
    ("train_cfg.val_interval", sets("val_interval", whole)),
    ("interval", sets("val_interval", whole)),
    ("train_cfg.val_begin", METRICS),
    ("train_cfg.dynamic_intervals", METRICS),
    ("train_cfg.type", accepted("the length of a run is in epochs", "EpochBasedTrainLoop")),
    ("train_dataloader.batch_size", BATCH),
    ("train_dataloader.num_workers", WORKERS),
    ("train_dataloader.persistent_workers", accepted("worker processes live as long as the run", True)),
    ("train_dataloader.pin_memory", accepted("memory is pinned where there is a GPU", True)),
    ("train_dataloader.*", DATA),
    ("val_dataloader.*", DATA),
    ("test_dataloader.*", DATA),
    ("train_pipeline*", DATA),
    ("test_pipeline*", DATA),
    ("dataset_type", DATA),
    ("data_root", DATA),
    (
        "param_scheduler.*",
        refused("its positions mean other things in every model; the recipe's schedule follows max_epochs"),
    ),
    ("default_hooks.checkpoint.*", STAGES),
    ("default_hooks.*", HOOKS),
    ("custom_hooks*", HOOKS),
    ("val_evaluator.*", METRICS),
    ("test_evaluator.*", METRICS),
    ("val_cfg.*", METRICS),
    ("test_cfg.*", METRICS),
    ("randomness.seed", sets("seed", whole)),
    ("randomness.diff_rank_seed", SEEDS),
    ("randomness.deterministic", NOT_DETERMINISTIC),
    ("env_cfg.cudnn_benchmark", KERNELS),
    ("env_cfg.*", PROCESSES),
    ("visualizer.*", LOGS),
    ("vis_backends*", LOGS),
    ("log_processor.*", LOGS),
    ("default_scope", STRUCTURE),
    *_post_processing("model.test_cfg"),
    ("model.backbone.frozen_stages", FREEZE),
    *_MODEL_PARTS,
)

_ROTATED: Rows = (("angle_version", STRUCTURE), ("checkpoint", WEIGHTS), *_MMENGINE)

_MMYOLO: Rows = (
    ("img_scale", SIZE),
    ("train_batch_size_per_gpu", BATCH),
    ("train_num_workers", WORKERS),
    ("optim_wrapper.optimizer.weight_decay", sets("recipe.optimizer.weight_decay")),
    ("weight_decay", sets("recipe.optimizer.weight_decay")),
    ("lr_factor", sets("recipe.schedule.final_factor")),
    ("close_mosaic_epochs", sets("recipe.closing_epochs", whole)),
    ("num_last_epochs", sets("recipe.closing_epochs", whole)),
    ("default_hooks.param_scheduler.lr_factor", sets("recipe.schedule.final_factor")),
    ("default_hooks.param_scheduler.min_lr_ratio", sets("recipe.schedule.final_factor")),
    ("default_hooks.param_scheduler.warmup_epochs", sets("recipe.schedule.warmup_epochs")),
    ("default_hooks.param_scheduler.warmup_mim_iter", sets("recipe.schedule.warmup_iterations", whole)),
    (
        "default_hooks.param_scheduler.scheduler_type",
        sets("recipe.schedule.curve", choice({"linear": "linear", "cosine": "cosine"})),
    ),
    ("default_hooks.param_scheduler.max_epochs", WHOLE_RUN),
    ("default_hooks.param_scheduler.total_epochs", WHOLE_RUN),
    *_post_processing("model_test_cfg"),
    *_MMENGINE,
)

MMDET_TRAINING = OverrideTable(TrainSettings, (*_YOLOX_OF_MMDET, *_MMCV, *_MODEL_PARTS))
MMDET_INFER = narrowed(MMDET_TRAINING, InferSettings)
MMDET_MINING = narrowed(MMDET_TRAINING, MineSettings)
MMYOLO_TRAINING = OverrideTable(TrainSettings, _MMYOLO)
MMROTATE_TRAINING = OverrideTable(TrainSettings, _ROTATED)
MMSEG_TRAINING = OverrideTable(TrainSettings, (*_SEMANTIC, *_MMCV, *_MODEL_PARTS))

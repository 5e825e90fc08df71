"""How a family is trained: one nested settings object, every field of which `--set` can change."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ymir_tmi.config.schema import Fraction, PositiveInt, Settings

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class OptimizerRecipe(Settings):
    """The optimiser and its parameter groups."""

    name: Literal["adamw", "sgd"] = "adamw"
    """Kind of optimiser."""
    lr: Positive = 0.004
    """Learning rate for a total batch of `base_batch` images."""
    base_batch: PositiveInt = 256
    """Total batch that `lr` and `weight_decay` are meant for."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the learning rate follows the total batch."""
    weight_decay: NonNegative = 0.05
    """Decay of weights; scales and (without `decay_norms` and `decay_biases`) norms and biases have none."""
    decay_scaling: Literal["linear", "none"] = "none"
    """How the decay follows the total batch."""
    decay_biases: bool = False
    """Whether biases are decayed as well, but for those of norms."""
    decay_norms: bool = False
    """Whether weights and biases of norms are decayed as well."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov's form of momentum, for SGD."""
    clip_norm: Positive | None = None
    """Largest gradient norm; null does not clip."""
    accumulate: PositiveInt | Literal["auto"] = 1
    """Steps whose gradients make one update; `auto` takes as many as come nearest to `base_batch` images."""
    accumulation: Literal["mean", "sum"] = "mean"
    """What becomes of these gradients; `sum` where a loss grows with the batch (YOLOv5, YOLOv7, YOLOv8)."""


class ScheduleRecipe(Settings):
    """The learning rate over the course of a run: warm-up, flat, then a curve that falls."""

    warmup: Literal["linear", "quadratic"] = "linear"
    """Shape of the warm-up."""
    warmup_iterations: Annotated[int, Field(ge=0)] = 1000
    """Fewest updates of warm-up; a short run uses at most `warmup_fraction` of its updates."""
    warmup_epochs: NonNegative = 0.0
    """Epochs of warm-up, where these are more; scaled down with `epochs` below the recipe's own."""
    warmup_fraction: Fraction = 0.1
    """Largest part of a run that is warm-up."""
    warmup_start: Fraction = 0.0
    """Factor of the learning rate at the first update."""
    warmup_bias_lr: NonNegative | None = None
    """Learning rate of biases at the first update, from which they come to that of the others; null: as the others."""
    warmup_momentum: Fraction | None = None
    """Momentum of SGD at the first update, from which it rises; null has no such rise."""
    curve: Literal["cosine", "linear", "poly", "steps"] = "cosine"
    """How the learning rate falls: to its end, or by `step_factor` at each of `steps`."""
    power: Positive = 0.9
    """Exponent of the part of the curve that is left, for `poly`."""
    flat: Fraction = 0.0
    """Part of the run after which the curve begins."""
    horizon: Annotated[float, Field(ge=1)] = 1.0
    """Where the curve ends, as a part of the run; beyond 1 the run is over before."""
    by_epoch: bool = False
    """Whether the learning rate, after the warm-up, changes between epochs only."""
    final_factor: Fraction = 0.05
    """Factor of the learning rate where the curve ends."""
    final_lr: NonNegative | None = None
    """Learning rate where the curve ends, in place of `final_factor`."""
    steps: tuple[Fraction, ...] = ()
    """Parts of the run after which the learning rate is multiplied by `step_factor`, for `steps`."""
    step_factor: Positive = 0.1
    """What the learning rate is multiplied by, for `steps`."""
    hold_closing: bool = False
    """Whether the curve ends where the closing epochs begin, and the rate stays at its last value over them."""


class EmaRecipe(Settings):
    """The moving average of the weights, which is what is validated and saved."""

    enabled: bool = True
    """Whether to keep one."""
    momentum: Fraction = 0.0002
    """Part of the new weights in each update, at the end."""
    ramp: Positive = 2000
    """Updates over which the average grows slower; the first update copies."""


class AugmentRecipe(Settings):
    """What training does to a picture. Probabilities are per image."""

    mosaic: Fraction = 1.0
    """Probability that several images become one, for `resize_crop` and `affine`."""
    mosaic_nine: Fraction = 0.0
    """Part of the mosaics that are made of nine images, not of four."""
    mosaic_cache: Annotated[int, Field(ge=0)] = 40
    """Images that mosaic draws from, per worker; 0 reads its partners from the disk."""
    mixup: Fraction = 1.0
    """Probability that a second picture is blended in, for `resize_crop` and `affine`."""
    mixup_cache: Annotated[int, Field(ge=0)] = 20
    """Images that mixup draws from, per worker; 0 reads its partner from the disk."""
    cache_eviction: Literal["random", "oldest"] = "random"
    """Which image leaves a full cache."""
    mixup_style: Literal["beta", "average", "mosaics"] = "beta"
    """`beta`: with a finished picture, as RTMDet; `average`: half and half with a jittered picture, as YOLOX;
    `mosaics`: two mosaics, as YOLOv5."""
    mixup_beta: Positive = 32.0
    """The ratio is from Beta(this, this), for `beta` and `mosaics`."""
    mixup_scale: tuple[Positive, Positive] = (0.8, 1.6)
    """Range of the second picture's scale, for `average`."""
    copy_paste: Fraction = 0.0
    """Probability that each object with an outline is pasted, mirrored, where it hides no other, for instance
    segmentation."""
    geometry: Literal["resize_crop", "affine", "expand_crop", "shorter_side", "ratio_crop"] = "resize_crop"
    """`resize_crop`: random resize, then a crop, as RTMDet; `affine`: random affine, as YOLOX and YOLOv5;
    `expand_crop`: a wide border, then a crop around objects, as PP-YOLOE; `shorter_side`: resize only, as RetinaNet,
    in batches of one orientation; `ratio_crop`: random resize, then a crop with pixels of several classes, for semantic
    models, which besides it only know `photometric`, `flip` and `flip_vertical`."""
    ratio: tuple[Positive, Positive] = (0.5, 2.0)
    """Range of the uniform factor by which pictures are larger than the model's input, for `ratio_crop`."""
    crop: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of the crop in pixels, for `ratio_crop`; null is the image size, and so is this where
    `image_size` is not the model's own."""
    category_limit: Fraction = 0.75
    """Part of the counted pixels of a crop that one class should stay below, for `ratio_crop`: up to ten times, another
    one is drawn."""
    photometric: Fraction = 0.0
    """Probability of each change of brightness, contrast, saturation and hue, for `ratio_crop`."""
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    """Range of the random scale, for `resize_crop` and `affine`."""
    closing_scale: tuple[Positive, Positive] | None = None
    """The same in the closing epochs, for `affine`; null then takes whole pictures as they are."""
    rotate: NonNegative = 10.0
    """Largest rotation in degrees, for `affine`."""
    translate: Fraction = 0.1
    """Largest shift as a part of the picture, for `affine`."""
    shear: NonNegative = 2.0
    """Largest shear in degrees, for `affine`."""
    perspective: NonNegative = 0.0
    """Largest change of the scale for each pixel away from the centre, for `affine`; 0.001 is much."""
    centre: bool = False
    """Whether a whole picture lies in the middle of its padding, not in the upper left corner, for `affine`."""
    min_area: Fraction = 0.0
    """Boxes that keep no more than this part of their area are dropped, for `affine`."""
    max_aspect: Positive | None = None
    """Boxes that become this many times longer than wide, or wider than long, are dropped, for `affine`."""
    expand: Fraction = 0.5
    """Probability of a wide border, for `expand_crop`."""
    expand_largest: Annotated[float, Field(ge=1)] = 4.0
    """Largest width and height with a border, as a multiple of the picture's."""
    distort: Fraction = 0.0
    """Probability of each of four changes of colour: brightness, contrast, saturation, hue, as PP-YOLOE."""
    degrade: Fraction = 0.0
    """Probability of each of: blur, median blur, grey, locally stretched contrast."""
    hsv: tuple[NonNegative, NonNegative, NonNegative] = (5, 30, 30)
    """Largest change of hue, saturation and value, see `hsv_style`."""
    hsv_style: Literal["add", "multiply"] = "add"
    """`add`: whole numbers, to hue of 180 and to the others of 255, each with probability 1/2, as RTMDet and YOLOX;
    `multiply`: by 1 plus or minus this, as YOLOv5."""
    flip: Fraction = 0.5
    """Probability of a mirrored picture."""
    flip_vertical: Fraction = 0.0
    """Probability of a picture upside down. With `flip` as well it is turned by 180 degrees: the diagonal flip."""
    rotation: Fraction = 0.0
    """Probability of a picture turned about its middle by any angle, as for rotated RTMDet; what comes in is black."""
    right_angle_classes: tuple[str, ...] = ()
    """Classes whose boxes have no direction, such as round ones: with one in it a picture is turned by 90 or 180
    degrees, for `rotation`."""
    min_box: NonNegative = 1.0
    """Boxes narrower or lower than this many pixels after augmentation are dropped."""
    multiscale: tuple[Positive, Positive] | None = None
    """Range of the batch's size (for `shorter_side`, the picture's) as a part of the image size; null keeps one."""
    multiscale_interval: PositiveInt = 10
    """Steps between two changes of the batch's size."""


class LossRecipe(Settings):
    """Numbers of the loss, for families with anchors (YOLOv5, YOLOv7); null is what the variant is published with."""

    box: NonNegative | None = None
    """Weight of the box loss, before it is scaled by the number of levels."""
    obj: NonNegative | None = None
    """Weight of the objectness loss, before it is scaled by the number of levels and the image size."""
    cls: NonNegative | None = None
    """Weight of the class loss, before it is scaled by the number of levels and of classes."""
    obj_positive: Positive = 1.0
    """Weight of positives in the objectness loss, YOLOv5."""
    cls_positive: Positive = 1.0
    """Weight of positives in the class loss, YOLOv5."""
    focal_gamma: NonNegative = 0.0
    """Exponent of the focal loss for classes and objectness, YOLOv5; 0 is cross entropy."""
    label_smoothing: Fraction = 0.0
    """How far class targets lie from 0 and 1, twice over, YOLOv5."""
    anchor_ratio: Positive = 4.0
    """Anchors fit objects whose sides are less than this many times as long or as short."""


class Recipe(Settings):
    """How a family is trained."""

    epochs: PositiveInt = 300
    """Passes over the training images."""
    iterations: PositiveInt | None = None
    """Updates of the weights after which the run ends, in place of `epochs`, which then follow from them."""
    val_iterations: PositiveInt | None = None
    """Updates between two validations, where the setting `val_interval` is not given, rounded to whole epochs.
    In a run of so many `iterations`, a pass over the images that is longer is divided into several epochs."""
    batch: PositiveInt = 16
    """Images per step over all devices, where it is not given."""
    closing_epochs: Annotated[int, Field(ge=0)] = 20
    """Last epochs, without mosaic and mixup (and with the family's extra losses); at most a quarter of a short run."""
    assignment_warmup: Annotated[int, Field(ge=0)] = 0
    """First epochs, in which YOLOv6 and PP-YOLOE+ assign objects by shape alone; scaled down with `epochs`."""
    auto_anchor: bool = False
    """Whether to find new anchors where those of the model fit no more than 98 % of the training objects."""
    image_weights: bool = False
    """Whether to draw images with many objects of rare and of badly detected classes more often."""
    short_run_lr: Positive = 0.004
    """Learning rate of AdamW for 256 images where there are few updates: in place of SGD, and for new weights."""
    with_objects: bool = False
    """Whether to train only on images that have objects."""
    sync_norms: bool = True
    """Whether batch norms take their statistics over the batches of all processes."""
    norm_momentum: Fraction = 0.0
    """Smallest momentum of batch norms, where the network's own is smaller: part of each new mean and variance."""
    freeze: tuple[str, ...] = ()
    """Parts of the network that are not trained, by the beginning of their parameters' names, such as backbone.stem."""
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    ema: EmaRecipe = EmaRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    loss: LossRecipe = LossRecipe()

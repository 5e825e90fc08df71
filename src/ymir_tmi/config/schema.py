"""Every setting: its name, type, default and meaning, each in one place.

Command-line options, help, `docs/settings.md` and error messages are generated from these fields. The string under a
field is its documentation; it names the unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Format = Literal["auto", "coco", "voc", "yolo", "dota", "ymir", "masks", "instances", "images"]
Target = Literal["coco", "voc", "yolo", "yolo-seg", "dota", "masks"]
Blank = Literal["background", "ignore"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Activation = Literal["silu", "relu", "relu6", "leaky_relu", "prelu", "elu", "hardswish"]
Algorithm = Literal["random", "entropy", "aldd", "cald", "apis", "maskal", "rsal", "ripu"]
InferFormat = Literal["coco", "yolo", "voc", "dota", "masks"]
ExportFormat = Literal["onnx", "openvino", "torchscript"]
ExportOutputs = Literal["raw", "decoded", "detections", "plain"]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]


def _split_commas(value: Any) -> Any:
    """Let `a,b` and `[a, b]` mean the same."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        return value
    parts = [item.split(",") if isinstance(item, str) else [item] for item in items]
    return [part.strip() if isinstance(part, str) else part for group in parts for part in group]


def _as_list(value: Any) -> Any:
    """Let one value stand for a list of one."""
    return [value] if isinstance(value, str | Path) else value


def _as_sides(value: Any) -> Any:
    """Let `640`, `480,640` and `[480, 640]` be lists of one or two numbers."""
    return [value] if isinstance(value, int) else _split_commas(value)


def _as_rates(value: Any) -> Any:
    """Let `1`, `0.5,1` and `[0.5, 1]` be lists of numbers."""
    return [value] if isinstance(value, int | float) else _split_commas(value)


Names = Annotated[list[str], BeforeValidator(_split_commas)]
Sides = Annotated[list[PositiveInt], Field(max_length=2), BeforeValidator(_as_sides)]
Sources = Annotated[list[str], BeforeValidator(_as_list)]


class Settings(BaseModel):
    """Settings refuse what they do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class RunSettings(Settings):
    """What every verb that runs a model understands."""

    output: Path | None = None
    """Run folder to make; by default runs/VERB-N. An existing run is never overwritten."""
    images: Annotated[list[Path], BeforeValidator(_as_list)] = []
    """Folders to look for pictures in, before those beside the annotation file."""
    format: Format = "auto"
    """Annotation format; auto looks at the files."""
    classes: Names = []
    """Classes to use, in order: NAME, or NAME=NEW to rename; several names with one NEW are merged. Default: all."""
    image_size: Annotated[int, Field(ge=32)] | None = None
    """Longer side of the network input in pixels; by default that of the model."""
    conf: Fraction = 0.001
    """Detections score above this."""
    iou: Fraction | None = None
    """NMS drops a box that overlaps a better one of its class by more than this; by default the model's own value."""
    max_dets: PositiveInt | None = None
    """Detections kept per image, the best ones; by default 100, or 2000 where boxes are rotated or `tile` is given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or cuda:0,1."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto takes bf16 where the device computes it natively, else fp32."""
    batch: PositiveInt | Literal["auto"] = "auto"
    """Images per step, over all devices together; auto takes the largest that fits."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes (training) or threads (else) that decode images beside the network; auto leaves cores for it."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""


class TrainSettings(RunSettings):
    """Train a model."""

    model: str = "rtmdet_tiny"
    """Name of the model; `ymir-tmi models` lists them."""
    activation: Activation | None = None
    """Activation of the conv blocks, in place of the model's own; only YOLOv5 leaves a choice. That of `leaky_relu` has
    the slope 0.1."""
    recipe: str | None = None
    """How to train, where a family has several recipes: low, med, high (YOLOv5); 1x, 3x (RetinaNet); 40k, 80k, 160k
    (FCN-HRNet)."""
    weights: Path | None = None
    """Model file to start from; classes of the same name keep their classifier."""
    data: Path | None = None
    """Data set description (YAML with train, val, names), or a folder or a list of YMIR; or give train and val."""
    train: Sources = []
    """Files, folders or globs to train on, where there is no data file."""
    val: Sources = []
    """Files, folders or globs to validate on, where there is no data file."""
    blank: Blank = "background"
    """What pixels without an annotation are to a semantic model: the class background, or left out of account."""
    resume: Path | None = None
    """Run folder to go on with; every other setting is then taken from it."""
    epochs: PositiveInt | None = None
    """Passes over the training images; by default the recipe's."""
    batch: PositiveInt | Literal["auto"] = "auto"
    """Images per step, over all devices together; auto takes the recipe's, on one GPU halved until a step fits."""
    val_interval: PositiveInt | None = None
    """Epochs between two validations; the last epoch always has one. Default: 1, or a tenth of a run in iterations."""
    patience: PositiveInt | None = None
    """Stop when AP, of a semantic model mIoU, has not risen for this many epochs."""
    compile: bool = False
    """Compile the network with torch.compile: slow to start, then faster."""
    set: list[str] = []
    """Change a field of the recipe, e.g. optimizer.lr=0.002; may be given several times."""


class PassSettings(RunSettings):
    """What every verb that runs a trained model over images understands."""

    tile: Annotated[int, Field(ge=32)] | None = None
    """Side in pixels of the windows that larger images are cut into; by default images are taken whole."""
    overlap: Annotated[int, Field(ge=0)] = 200
    """Pixels by which these windows overlap: more than the largest object, so that some window shows it whole."""
    window: Sides = []
    """Height and width, or one number for both, of the windows in which a semantic model looks at its input, in pixels
    of it; by default it looks at the whole."""
    window_stride: Sides = []
    """Pixels from one of these windows to the next, down and across; by default two thirds of them."""
    flip_test: bool = False
    """Let a semantic model look at mirrored images as well, and average the probabilities."""
    scales: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1), BeforeValidator(_as_rates)] = [1.0]
    """Sizes at which a semantic model looks at images, as multiples of `image_size`; the probabilities are averaged."""


class EvaluateSettings(PassSettings):
    """Measure a model, or predictions made earlier, against annotations."""

    model: Path | None = None
    """Model file."""
    predictions: Path | None = None
    """Predictions written by `infer`, in place of a model."""
    data: Sources
    """Annotation files or folders, or a data set description with its split."""
    split: str = "val"
    """Split of a data set description."""


class InferSettings(PassSettings):
    """Run a model over images."""

    model: Path
    """Model file."""
    data: Sources
    """Images: folders, files, lists (.txt), globs, annotation files, or a data set description with its split."""
    split: str = "val"
    """Split of a data set description."""
    conf: Fraction = 0.25
    """Detections score above this."""
    formats: Annotated[list[InferFormat], BeforeValidator(_split_commas)] = ["coco"]
    """Kinds of files to write the results to; dota are the files that DOTA's server takes, masks the label maps of a
    semantic model as pictures with a palette."""
    pictures: bool = False
    """Write annotated copies of the images."""
    resume: Path | None = None
    """Run folder of a killed run to go on with; on the command line, what is not given is taken from it."""


class MineSettings(PassSettings):
    """Rank unlabelled images by how much labelling them would help."""

    model: Path | None = None
    """Model file; only `random` needs none."""
    data: Sources
    """Pool: folders, files, lists (.txt), globs, annotation files, or a data set description with its split."""
    split: str = "pool"
    """Split of a data set description."""
    algorithm: Algorithm | None = None
    """How an image is scored; higher always means: label it sooner. By default aldd, for semantic models rsal."""
    compat: str | None = None
    """Reproduce the numbers of an earlier implementation instead, e.g. yolov5; docs/mining.md says what differs."""
    top_k: PositiveInt | None = None
    """Length of the ranking; by default every image."""
    conf: Fraction = 0.1
    """Detections score above this."""
    gallery: Annotated[int, Field(ge=0)] = 24
    """Pictures in the report, the first of the ranking."""
    class_weights: Names = []
    """Weight of a class in `aldd`: NAME=NUMBER."""
    aggregate: Literal["sum", "mean", "max"] | None = None
    """How `entropy` (by default sum) and `apis` (by default mean) join the detections of an image."""
    empty_first: bool = False
    """Whether `cald` ranks images without detections first, as its paper does, not last."""
    passes: Annotated[int, Field(ge=2)] = 10
    """How often `maskal` looks at an image, each time with random parts of the network switched off."""
    group_iou: Fraction = 0.5
    """In `maskal`, masks of several passes that overlap by more than this are one object."""
    certainty: Literal["mean", "min"] = "mean"
    """Whether all objects of an image count in `maskal`, or its least certain one."""
    superpixels: Literal["slico", "slic", "mslic", "seeds"] = "slico"
    """How `rsal` cuts pictures into regions; `seeds` takes half as long as `slico`, `mslic` three times or more."""
    max_superpixels: Annotated[int, Field(ge=1, le=65535)] = 1024
    """Regions of a picture in `rsal` at the most; by their default size, there are about a quarter of it."""
    region_size: Annotated[int, Field(ge=2)] | None = None
    """Side of a region in `rsal` in pixels; by default it follows from `max_superpixels`."""
    region_radius: Annotated[int, Field(ge=1, le=7)] = 1
    """Regions of `ripu` are squares of 2 * `region_radius` + 1 pixels."""
    top_regions: PositiveInt = 3
    """Regions to label in an image: in `ripu` as many, in `rsal` at the least."""
    class_balance: bool = True
    """Whether regions of frequent classes count less in `rsal`."""
    normalize: bool = False
    """Whether `rsal` spreads the regions' uncertainties over [0, 1] before classes are balanced, as its paper does."""
    kept: PositiveInt = 5000
    """Images, the first of the ranking, with which the regions to label are written, by `rsal` as masks too."""
    resume: Path | None = None
    """Run folder of a killed run to go on with; on the command line, what is not given is taken from it."""


class ExportSettings(Settings):
    """Write a model in a form that other programs run, and check that it computes the same."""

    model: Path
    """Model file."""
    to: ExportFormat = "onnx"
    """Form to write."""
    output: Path | None = None
    """File to write, or folder for it; by default beside the model file."""
    outputs: ExportOutputs | None = None
    """What comes out: numbers of the head (raw), boxes and scores (decoded), detections after NMS, or maps of the last
    convolutions (plain); by default decoded, of semantic models raw, which are the logits of the classes."""
    image_size: Sides = []
    """Height and width of the input in pixels, or one number for both; by default that of the model."""
    dynamic_size: bool = False
    """Take inputs of any height and width; `image_size` is then the longer side that pictures are scaled to."""
    batch: PositiveInt = 1
    """Pictures in every input."""
    dynamic_batch: bool = False
    """Take inputs of any number of pictures."""
    opset: Annotated[int, Field(ge=11)] | None = None
    """Version of the operators of an ONNX file, 11 or later; by default 17."""
    fp16: bool = False
    """Store the weights of an OpenVINO file in 16 bits: half the size, nearly the same numbers."""
    conf: Fraction | None = None
    """For the outputs `detections`: they score above this; by default 0.25."""
    iou: Fraction | None = None
    """For the outputs `detections`: NMS drops a box that overlaps a better one of its class by more than this."""
    max_dets: PositiveInt | None = None
    """For the outputs `detections`: so many are kept per picture, the best ones; by default 100."""
    data: Sources = []
    """Images that the file is checked with, the first four, given as for `infer`; by default drawn ones."""


class DataSettings(Settings):
    """What every verb that works on annotation files understands."""

    data: Sources
    """Annotation files, folders, globs, or a data set description."""
    images: Annotated[list[Path], BeforeValidator(_as_list)] = []
    """Folders to look for pictures in, before those beside the annotation file."""
    format: Format = "auto"
    """Annotation format; auto looks at the files."""


class CheckSettings(DataSettings):
    """Tell what is in a data set and what is wrong with it; exits with 1 if there are errors."""

    fast: bool = False
    """Read only the headers of the pictures; those that are cut short then go unnoticed."""


class ConvertSettings(DataSettings):
    """Write a data set in another format, pictures included."""

    to: Target
    """Format to write."""
    output: Path
    """Folder to make."""
    split: str | None = None
    """The only split to convert; by default all."""
    classes: Names = []
    """Classes to keep, in order: NAME, or NAME=NEW to rename; several names with one NEW are merged. Default: all."""
    rotated: bool = False
    """Write polygons and upright boxes as rotated boxes; those that are rotated stay so in any case."""
    blank: Blank = "background"
    """What pixels without an annotation are, for masks: the class background, or left out of account."""
    copy_pictures: bool = False
    """Copy the pictures; by default they are linked to."""


class SplitSettings(ConvertSettings):
    """Divide a data set into parts that have the same share of every class."""

    to: Target = "coco"
    """Format to write."""
    parts: Names = ["train=0.8", "val=0.2"]
    """Names and shares of the parts; together 1."""
    group: str | None = None
    """Images that stay together: `folder`, or a regular expression that finds the same text in their paths."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""


class TileSettings(DataSettings):
    """Cut a data set into patches to train on; writes COCO."""

    output: Path
    """Folder to make."""
    size: Annotated[int, Field(ge=32)] = 1024
    """Side of a patch in pixels."""
    overlap: Annotated[int, Field(ge=0)] = 200
    """Pixels by which patches overlap."""
    rates: Annotated[list[Annotated[float, Field(gt=0)]], BeforeValidator(_as_rates)] = [1.0]
    """Scales: for each, patches of size / rate pixels that overlap by overlap / rate."""
    split: str | None = None
    """The only split to cut; by default all."""
    classes: Names = []
    """Classes to keep, in order: NAME, or NAME=NEW to rename; several names with one NEW are merged. Default: all."""
    rotated: bool = False
    """Write polygons and upright boxes as rotated boxes; those that are rotated stay so in any case."""
    pad: bool = True
    """Fill patches of pictures that are smaller up to the full size, so that objects keep their scale."""
    empty: bool = True
    """Keep patches without objects that count."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """Write JPEG of this quality; by default PNG, which loses nothing."""


class CacheSettings(Settings):
    """Where downloaded weights are."""

    cache: Path | None = None
    """Folder for downloaded weights; by default $YMIR_TMI_CACHE, else ymir-tmi/weights in the user's cache folder."""


class DownloadSettings(CacheSettings):
    """Download official weights and check them; what is there already is not fetched again."""

    names: Names
    """Weights by the names that `ymir-tmi weights list` shows."""
    mirror: str | None = None
    """Address or folder to take the files from, in place of the servers that the list names."""


class VerifySettings(CacheSettings):
    """Compare downloaded weights with their checksums; exits with 1 if one is wrong or missing."""

    names: Names = []
    """Weights by name; by default all that are downloaded."""


class ConvertWeightsSettings(CacheSettings):
    """Turn a checkpoint of another program into a model file. Nothing in the checkpoint is run."""

    source: str
    """Checkpoint (.pth, .pt, .pkl), or the name of weights that are downloaded."""
    output: Path
    """Model file to write (.safetensors); an existing file is never overwritten."""
    model: str | None = None
    """Name of the model; may be left out where the source is one that `ymir-tmi weights list` shows."""
    classes: Names = []
    """Names of the classes in order, in place of those that the file has."""
    partial: bool = False
    """Take what fits, e.g. a backbone; the rest of the model starts anew."""

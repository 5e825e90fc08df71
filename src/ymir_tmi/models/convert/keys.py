"""What the parameters of official mmyolo, mmdet, mmrotate, mmseg, YOLOv5 and Detectron2 checkpoints are called here.

The tables hold prefixes; a key takes the first that fits. Official RTMDet checkpoints hold the convolutions that levels
share once per level; all of them map to the one tensor here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Rule = tuple[str, str]
"""A regular expression that matches the start of an official key, and what replaces it."""

_BOTTOM_UP: Sequence[Rule] = (
    (r"neck\.downsample_layers\.", "neck.down."),
    (r"neck\.bottom_up_layers\.", "neck.bottom_up."),
)

_PYRAMID: Sequence[Rule] = (
    # mmyolo
    (r"neck\.reduce_layers\.2\.", "neck.reduce.0."),
    (r"neck\.top_down_layers\.0\.0\.", "neck.top_down.0."),
    (r"neck\.top_down_layers\.0\.1\.", "neck.reduce.1."),
    (r"neck\.top_down_layers\.1\.", "neck.top_down.1."),
    *_BOTTOM_UP,
    (r"neck\.out_layers\.", "neck.out."),
    # mmdet
    (r"neck\.reduce_layers\.", "neck.reduce."),
    (r"neck\.top_down_blocks\.", "neck.top_down."),
    (r"neck\.downsamples\.", "neck.down."),
    (r"neck\.bottom_up_blocks\.", "neck.bottom_up."),
    (r"neck\.out_convs\.", "neck.out."),
)

# mmyolo puts the layers of the head into `head_module`, mmdet does not.
_HEAD = r"bbox_head\.(?:head_module\.)?"

# Stages are counted from 1 there.
_MMYOLO_STAGES: Sequence[Rule] = [(rf"backbone\.stage{n + 1}\.", f"backbone.stages.{n}.") for n in range(5)]

_PIXEL_HEADS: Sequence[Rule] = (
    (r"decode_head\.conv_seg\.", "head.cls_pred."),
    (r"decode_head\.", "head."),
    (r"auxiliary_head\.(\d)\.conv_seg\.", r"auxiliary.\1.cls_pred."),
    (r"auxiliary_head\.", "auxiliary."),
)

_YOLOV5_PYRAMID: Sequence[Rule] = (
    (r"neck\.reduce_layers\.[23]\.", "neck.reduce.0."),
    (r"neck\.top_down_layers\.([01])\.0\.", r"neck.top_down.\1."),
    (r"neck\.top_down_layers\.0\.1\.", "neck.reduce.1."),
    (r"neck\.top_down_layers\.1\.1\.", "neck.reduce.2."),
    (r"neck\.top_down_layers\.", "neck.top_down."),
    *_BOTTOM_UP,
)


def _conv(number: int, name: str) -> Sequence[Rule]:
    return [(rf"model\.{number}\.(conv|bn)\.", rf"{name}.\1.")]


def _csp(number: int, name: str) -> Sequence[Rule]:
    names = {"cv1": "main_conv", "cv2": "short_conv", "cv3": "final_conv"}
    return [
        *((rf"model\.{number}\.{part}\.", f"{name}.{own}.") for part, own in names.items()),
        (rf"model\.{number}\.m\.(\d+)\.cv([12])\.", rf"{name}.blocks.\1.conv\2."),
    ]


def _pool(number: int, name: str) -> Sequence[Rule]:
    return [(rf"model\.{number}\.cv([12])\.", rf"{name}.conv\1.")]


# Official YOLOv5 numbers its layers (docs/specs/yolov5.md, section 3).
_YOLOV5_NUMBERS: Sequence[Rule] = (
    *_conv(0, "backbone.stem"),
    *(rule for n in range(4) for rule in _conv(2 * n + 1, f"backbone.stages.{n}.0")),
    *(rule for n in range(4) for rule in _csp(2 * n + 2, f"backbone.stages.{n}.1")),
    *_pool(9, "backbone.stages.3.2"),
    *_conv(10, "neck.reduce.0"),
    *_csp(13, "neck.top_down.0"),
    *_conv(14, "neck.reduce.1"),
    *_csp(17, "neck.top_down.1"),
    *_conv(18, "neck.down.0"),
    *_csp(20, "neck.bottom_up.0"),
    *_conv(21, "neck.down.1"),
    *_csp(23, "neck.bottom_up.1"),
    (r"model\.24\.m\.", "head.pred."),
)
_YOLOV5_P6_NUMBERS: Sequence[Rule] = (
    *_conv(9, "backbone.stages.4.0"),
    *_csp(10, "backbone.stages.4.1"),
    *_pool(11, "backbone.stages.4.2"),
    *_conv(12, "neck.reduce.0"),
    *_csp(15, "neck.top_down.0"),
    *_conv(16, "neck.reduce.1"),
    *_csp(19, "neck.top_down.1"),
    *_conv(20, "neck.reduce.2"),
    *_csp(23, "neck.top_down.2"),
    *(rule for n in range(3) for rule in _conv(24 + 3 * n, f"neck.down.{n}")),
    *(rule for n in range(3) for rule in _csp(26 + 3 * n, f"neck.bottom_up.{n}")),
    (r"model\.33\.m\.", "head.pred."),
)

_RTMDET: Sequence[Rule] = (
    *_PYRAMID,
    (_HEAD + r"(cls|reg)_convs\.\d+\.(\d+)\.conv\.", r"head.\1_convs.\2."),
    (_HEAD + r"(cls|reg)_convs\.(\d+)\.(\d+)\.bn\.", r"head.\1_norms.\2.\3."),
    (_HEAD + r"rtm_(cls|reg)\.", r"head.\1_pred."),
)

_YOLOV5: Sequence[Rule] = (
    *_YOLOV5_NUMBERS,
    *_YOLOV5_P6_NUMBERS,
    *_MMYOLO_STAGES,
    *_YOLOV5_PYRAMID,
    (_HEAD + r"convs_pred\.", "head.pred."),
)

RULES: dict[str, Sequence[Rule]] = {
    "ppyoloe": (
        (r"backbone\.stage(\d)\.0\.conv_down\.", r"backbone.stage\1.0."),
        (r"backbone\.stage(\d)\.0\.attn\.fc\.conv\.", r"backbone.stage\1.1.attention.fc."),
        (r"backbone\.stage(\d)\.0\.", r"backbone.stage\1.1."),
        (r"neck\.reduce_layers\.2\.0\.blocks\.spp\.conv2\.", "neck.reduce.blocks.pooling.conv."),
        (r"neck\.reduce_layers\.2\.0\.", "neck.reduce."),
        (r"neck\.upsample_layers\.(\d)\.0\.", r"neck.halve.\1."),
        (r"neck\.top_down_layers\.(\d)\.0\.", r"neck.top_down.\1."),
        (r"neck\.bottom_up_layers\.(\d)\.0\.", r"neck.bottom_up.\1."),
        *_BOTTOM_UP,
        (_HEAD + r"(cls|reg)_preds\.", r"head.\1_pred."),
        (_HEAD, "head."),
    ),
    "rtmdet": _RTMDET,
    "rotated_rtmdet": (*_RTMDET, (_HEAD + r"rtm_ang\.", "head.angle_pred.")),
    "yolov5": _YOLOV5,
    "yolov5_seg": ((r"model\.24\.proto\.cv([123])\.", r"head.prototypes.conv\1."), *_YOLOV5),
    "yolov7": (
        *_MMYOLO_STAGES,
        (r"neck\.reduce_layers\.2\.main_layers\.(conv|bn)\.", r"neck.reduce.2.main.0.\1."),
        (r"neck\.reduce_layers\.2\.main_layers\.", "neck.reduce.2.main."),
        (r"neck\.reduce_layers\.2\.fuse_layers\.(conv|bn)\.", r"neck.reduce.2.fuse_maxima.0.\1."),
        (r"neck\.reduce_layers\.2\.fuse_layers\.", "neck.reduce.2.fuse_maxima."),
        (r"neck\.reduce_layers\.2\.short_layer\.", "neck.reduce.2.short_conv."),
        (r"neck\.reduce_layers\.", "neck.reduce."),
        (r"neck\.upsample_layers\.(\d)\.0\.", r"neck.upsample.\1."),
        (r"neck\.top_down_layers\.", "neck.top_down."),
        *_BOTTOM_UP,
        (r"neck\.out_layers\.", "neck.out."),
        (_HEAD + r"convs_pred\.(\d)\.0\.implicit", r"head.add.\1"),
        (_HEAD + r"convs_pred\.(\d)\.1\.", r"head.pred.\1."),
        (_HEAD + r"convs_pred\.(\d)\.2\.implicit", r"head.multiply.\1"),
    ),
    "yolov6": (
        (r"backbone\.stage4\.1\.", "backbone.stage4.2."),
        (r"backbone\.stage(\d)\.0\.", r"backbone.stage\1."),
        (r"neck\.reduce_layers\.2\.", "neck.reduce."),
        (r"neck\.upsample_layers\.(\d)\.(weight|bias)", r"neck.lift.\1.upsample.\2"),
        (r"neck\.upsample_layers\.", "neck.lift."),
        (r"neck\.top_down_layers\.0\.0\.", "neck.top_down.0."),
        (r"neck\.top_down_layers\.0\.1\.", "neck.shrink."),
        (r"neck\.top_down_layers\.1\.", "neck.top_down.1."),
        *_BOTTOM_UP,
        (_HEAD + r"(cls|reg)_preds\.", r"head.\1_pred."),
        (_HEAD, "head."),
    ),
    "yolov8": (
        (r"neck\.top_down_layers\.", "neck.top_down."),
        *_BOTTOM_UP,
        (_HEAD + r"(cls|reg)_preds\.(\d+)\.([01])\.", r"head.\1_convs.\2.\3."),
        (_HEAD + r"(cls|reg)_preds\.(\d+)\.2\.", r"head.\1_pred.\2."),
    ),
    "yolox": (
        *_PYRAMID,
        (_HEAD + r"multi_level_(cls|reg)_convs\.", r"head.\1_convs."),
        (_HEAD + r"multi_level_conv_(cls|reg|obj)\.", r"head.\1_pred."),
    ),
    "fast_scnn": (
        (r"backbone\.learning_to_downsample\.conv\.", "downsample.0."),
        (r"backbone\.learning_to_downsample\.dsconv(\d)\.", r"downsample.\1."),
        *(
            (rf"backbone\.global_feature_extractor\.bottleneck{n + 1}\.(\d)\.conv\.", rf"context.groups.{n}.\1.convs.")
            for n in range(3)
        ),
        (r"backbone\.global_feature_extractor\.ppm\.(\d)\.1\.", r"context.means.\1."),
        (r"backbone\.global_feature_extractor\.", "context."),
        (r"backbone\.feature_fusion\.dwconv\.", "fusion.smooth."),
        (r"backbone\.feature_fusion\.conv_lower_res\.", "fusion.of_context."),
        (r"backbone\.feature_fusion\.conv_higher_res\.", "fusion.of_details."),
        *_PIXEL_HEADS,
    ),
    "fcn_hrnet": (
        (r"backbone\.transition1\.0\.0\.", "backbone.first.conv."),
        (r"backbone\.transition1\.0\.1\.", "backbone.first.bn."),
        *(
            (rf"backbone\.transition{n + 1}\.{n + 1}\.0\.{part}\.", f"backbone.new.{n}.{name}.")
            for n in range(3)
            for part, name in enumerate(("conv", "bn"))
        ),
        # Blocks: conv1.weight, bn1.weight. Layers of exchanges and downsamples: 0.weight, 1.weight.
        *((rf"backbone\.stage{n + 2}\.(.+\.)conv(\d)\.", rf"backbone.stages.{n}.\1conv\2.conv.") for n in range(3)),
        *((rf"backbone\.stage{n + 2}\.(.+\.)bn(\d)\.", rf"backbone.stages.{n}.\1conv\2.bn.") for n in range(3)),
        *(
            (rf"backbone\.stage{n + 2}\.(.+\.){part}\.([a-z_]+)$", rf"backbone.stages.{n}.\1{name}.\2")
            for n in range(3)
            for part, name in enumerate(("conv", "bn"))
        ),
        (r"backbone\.(.+\.)?conv(\d)\.", r"backbone.\1conv\2.conv."),
        (r"backbone\.(.+\.)?bn(\d)\.", r"backbone.\1conv\2.bn."),
        (r"backbone\.(.+\.downsample\.)0\.", r"backbone.\1conv."),
        (r"backbone\.(.+\.downsample\.)1\.", r"backbone.\1bn."),
        *_PIXEL_HEADS,
    ),
    "retinanet": (
        (r"backbone\.bottom_up\.stem\.conv1\.norm\.", "backbone.stem.1."),
        (r"backbone\.bottom_up\.stem\.conv1\.", "backbone.stem.0."),
        (r"backbone\.bottom_up\.(res\d\.\d+)\.conv(\d)\.norm\.", r"backbone.\1.bn\2."),
        (r"backbone\.bottom_up\.(res\d\.\d+)\.shortcut\.norm\.", r"backbone.\1.downsample.1."),
        (r"backbone\.bottom_up\.(res\d\.\d+)\.shortcut\.", r"backbone.\1.downsample.0."),
        (r"backbone\.bottom_up\.", "backbone."),
        (r"backbone\.fpn_lateral3\.", "neck.inner_blocks.0.0."),
        (r"backbone\.fpn_lateral4\.", "neck.inner_blocks.1.0."),
        (r"backbone\.fpn_lateral5\.", "neck.inner_blocks.2.0."),
        (r"backbone\.fpn_output3\.", "neck.layer_blocks.0.0."),
        (r"backbone\.fpn_output4\.", "neck.layer_blocks.1.0."),
        (r"backbone\.fpn_output5\.", "neck.layer_blocks.2.0."),
        (r"backbone\.top_block\.", "neck.extra_blocks."),
        (r"head\.cls_subnet\.", "head.cls_convs."),
        (r"head\.bbox_subnet\.", "head.reg_convs."),
        (r"head\.cls_score\.", "head.cls_pred."),
        (r"head\.bbox_pred\.", "head.reg_pred."),
    ),
}


# With three and with four levels, layer 23 is another one; the rest of a key tells all others apart.
_VARIANT_RULES: dict[str, Sequence[Rule]] = {
    f"yolov5_{size}6": (*_YOLOV5_P6_NUMBERS, *RULES["yolov5"]) for size in "nsmlx"
}

# Parts of a name that are the same thing in every family.
_PARTS = (
    (".rbr_dense.", ".dense."),
    (".rbr_1x1.", ".pointwise."),
    (".rbr_identity.", ".identity."),
    (".stride_conv_branches.", ".conv_branch."),
    (".maxpool_branches.", ".pool_branch."),
    (".block.conv.", ".conv."),  # YOLOv6-l, around convolutions that are one block each
    (".block.bn.", ".bn."),
)


def from_official(family: str, key: str, variant: str = "") -> str:
    """Return our name of a parameter or buffer that an official checkpoint of this family calls `key`.

    Names that are the same are returned as they are. `variant`, a model's name, is only needed for the numbered layers
    of YOLOv5 with four levels.
    """
    for part, own in _PARTS:
        key = key.replace(part, own)
    for pattern, replacement in _VARIANT_RULES.get(variant, RULES[family]):
        renamed, count = re.subn("^" + pattern, replacement, key)
        if count:
            return renamed
    return key

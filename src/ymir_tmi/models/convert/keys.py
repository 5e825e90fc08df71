"""What the parameters of official mmyolo and mmdet checkpoints are called here.

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
    "rtmdet": (
        *_PYRAMID,
        (_HEAD + r"(cls|reg)_convs\.\d+\.(\d+)\.conv\.", r"head.\1_convs.\2."),
        (_HEAD + r"(cls|reg)_convs\.(\d+)\.(\d+)\.bn\.", r"head.\1_norms.\2.\3."),
        (_HEAD + r"rtm_(cls|reg)\.", r"head.\1_pred."),
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
}


# Parts of a name that are the same thing in every family.
_PARTS = (
    (".rbr_dense.", ".dense."),
    (".rbr_1x1.", ".pointwise."),
    (".rbr_identity.", ".identity."),
    (".block.conv.", ".conv."),  # YOLOv6-l, around convolutions that are one block each
    (".block.bn.", ".bn."),
)


def from_official(family: str, key: str) -> str:
    """Return our name of a parameter or buffer that an official checkpoint of this family calls `key`.

    Names that are the same (those of the backbone) are returned as they are.
    """
    for part, own in _PARTS:
        key = key.replace(part, own)
    for pattern, replacement in RULES[family]:
        renamed, count = re.subn("^" + pattern, replacement, key)
        if count:
            return renamed
    return key

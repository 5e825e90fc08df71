"""What mmyolo calls the parameters of a YOLOX of its authors (Megvii); both build the same network."""

from __future__ import annotations

import re

_PARTS = (
    (r"^backbone\.backbone\.stem\.", "backbone.stem."),
    (r"^backbone\.backbone\.dark2\.", "backbone.stage1."),
    (r"^backbone\.backbone\.dark3\.", "backbone.stage2."),
    (r"^backbone\.backbone\.dark4\.", "backbone.stage3."),
    (r"^backbone\.backbone\.dark5\.", "backbone.stage4."),
    (r"^backbone\.lateral_conv0\.", "neck.reduce_layers.2."),
    (r"^backbone\.reduce_conv1\.", "neck.top_down_layers.0.1."),
    (r"^backbone\.C3_p4\.", "neck.top_down_layers.0.0."),
    (r"^backbone\.C3_p3\.", "neck.top_down_layers.1."),
    (r"^backbone\.bu_conv2\.", "neck.downsample_layers.0."),
    (r"^backbone\.bu_conv1\.", "neck.downsample_layers.1."),
    (r"^backbone\.C3_n3\.", "neck.bottom_up_layers.0."),
    (r"^backbone\.C3_n4\.", "neck.bottom_up_layers.1."),
    (r"^head\.stems\.", "neck.out_layers."),
    (r"^head\.(cls|reg)_convs\.", r"bbox_head.head_module.multi_level_\1_convs."),
    (r"^head\.(cls|reg|obj)_preds\.", r"bbox_head.head_module.multi_level_conv_\1."),
)

# Inside a cross-stage partial layer; the pyramid pooling of the last stage has a conv1 and a conv2 too.
_LAYER = (
    r"^((?:backbone\.stage[123]\.1|backbone\.stage4\.2|neck\.top_down_layers\.(?:0\.0|1)|neck\.bottom_up_layers\.\d)\.)"
)
_LAYER_PARTS = (
    (_LAYER + r"conv1\.", r"\1main_conv."),
    (_LAYER + r"conv2\.", r"\1short_conv."),
    (_LAYER + r"conv3\.", r"\1final_conv."),
    (_LAYER + r"m\.", r"\1blocks."),
)


def from_megvii(key: str) -> str:
    """Return mmyolo's name of a parameter or buffer that a YOLOX of its authors calls `key`."""
    for pattern, replacement in (*_PARTS, *_LAYER_PARTS):
        key = re.sub(pattern, replacement, key)
    return key

"""What the parameters of official mmyolo and mmdet checkpoints are called here.

The tables hold prefixes; a key takes the first that fits. Official RTMDet checkpoints hold the convolutions that levels
share once per level; all of them map to the one tensor here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Rule = tuple[str, str]
"""A regular expression that matches the start of an official key, and what replaces it."""

_PYRAMID: Sequence[Rule] = (
    # mmyolo
    (r"neck\.reduce_layers\.2\.", "neck.reduce.0."),
    (r"neck\.top_down_layers\.0\.0\.", "neck.top_down.0."),
    (r"neck\.top_down_layers\.0\.1\.", "neck.reduce.1."),
    (r"neck\.top_down_layers\.1\.", "neck.top_down.1."),
    (r"neck\.downsample_layers\.", "neck.down."),
    (r"neck\.bottom_up_layers\.", "neck.bottom_up."),
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
    "rtmdet": (
        *_PYRAMID,
        (_HEAD + r"(cls|reg)_convs\.\d+\.(\d+)\.conv\.", r"head.\1_convs.\2."),
        (_HEAD + r"(cls|reg)_convs\.(\d+)\.(\d+)\.bn\.", r"head.\1_norms.\2.\3."),
        (_HEAD + r"rtm_(cls|reg)\.", r"head.\1_pred."),
    ),
    "yolox": (
        *_PYRAMID,
        (_HEAD + r"multi_level_(cls|reg)_convs\.", r"head.\1_convs."),
        (_HEAD + r"multi_level_conv_(cls|reg|obj)\.", r"head.\1_pred."),
    ),
}


def from_official(family: str, key: str, variant: str = "") -> str:
    """Return our name of a parameter or buffer that an official checkpoint of this family calls `key`.

    Names that are the same (those of the backbone) are returned as they are. `variant` is the name of the model.
    """
    for pattern, replacement in RULES[family]:
        renamed, count = re.subn("^" + pattern, replacement, key)
        if count:
            return renamed
    return key

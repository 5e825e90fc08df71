"""Names in backbones that Caffe2 wrote, as Detectron and Detectron2 read them."""

from __future__ import annotations

import re

# Carried out in this order, each on the whole name.
_STEPS = (
    (r"^pred_([wb])$", r"linear_\1"),
    (r"_", "."),
    (r"\.b$", ".bias"),
    (r"\.w$", ".weight"),
    (r"bn\.(?:s|gamma)$", "norm.weight"),
    (r"bn\.(?:bias|beta)$", "norm.bias"),
    (r"bn\.(?:rm|running\.mean)$", "norm.running_mean"),
    (r"bn\.(?:riv|running\.var)$", "norm.running_var"),
    (r"gn\.s$", "norm.weight"),
    (r"gn\.bias$", "norm.bias"),
    (r"^res\.conv1\.norm\.", "conv1.norm."),
    (r"^conv1\.", "stem.conv1."),
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
)


def from_caffe2(name: str) -> str:
    """Return Detectron2's name of what Caffe2 calls e.g. `res2_0_branch2a_bn_gamma`: `res2.0.conv1.norm.weight`."""
    for pattern, replacement in _STEPS:
        name = re.sub(pattern, replacement, name)
    return name

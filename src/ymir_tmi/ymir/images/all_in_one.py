"""The image all-in-one: boxes and masks of objects with YOLOv5, classes of pixels with FastSCNN and FCN-HRNet."""

from __future__ import annotations

from ymir_tmi.ymir.images import mmseg, yolov5, yolov5_seg
from ymir_tmi.ymir.profile import Profile
from ymir_tmi.ymir.values import Words

PROFILE = Profile(
    name="all-in-one",
    title=Words(
        "Boxes and masks of objects with YOLOv5, classes of pixels with FastSCNN and FCN-HRNet",
        "目标检测与实例分割采用 YOLOv5，语义分割采用 FastSCNN 与 FCN-HRNet",
    ),
    tasks={2: yolov5.TASKS, 3: mmseg.TASKS, 4: yolov5_seg.TASKS},
)

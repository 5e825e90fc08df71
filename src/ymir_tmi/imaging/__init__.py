"""Pictures: decode, encode, resize, warp, draw. The only package that imports OpenCV and Pillow.

Every image in this package is RGB, `uint8`, of shape (H, W, 3).
"""

from __future__ import annotations

import cv2

from ymir_tmi.imaging.arrays import Image, Values
from ymir_tmi.imaging.colours import (
    blend,
    blur,
    blur_by_median,
    equalize,
    hsv_to_rgb,
    map_values,
    rgb_to_hsv,
    without_colour,
)
from ymir_tmi.imaging.draw import draw_label, draw_polygon, label_width
from ymir_tmi.imaging.reading import IMAGE_SUFFIXES, decode_image, image_size, read_image, read_numbers, read_values
from ymir_tmi.imaging.superpixels import (
    SuperpixelMethod,
    fits_mslic,
    require_superpixels,
    seeds_superpixels,
    slic_superpixels,
)
from ymir_tmi.imaging.warp import (
    Interpolation,
    flip_horizontal,
    flip_vertical,
    resize,
    resize_values,
    simplify_outline,
    smallest_rectangle,
    warp_affine,
    warp_perspective,
)
from ymir_tmi.imaging.writing import encode_image, write_grey, write_image, write_values

__all__ = [
    "IMAGE_SUFFIXES",
    "Image",
    "Interpolation",
    "SuperpixelMethod",
    "Values",
    "blend",
    "blur",
    "blur_by_median",
    "decode_image",
    "draw_label",
    "draw_polygon",
    "encode_image",
    "equalize",
    "fits_mslic",
    "flip_horizontal",
    "flip_vertical",
    "hsv_to_rgb",
    "image_size",
    "label_width",
    "map_values",
    "read_image",
    "read_numbers",
    "read_values",
    "require_superpixels",
    "resize",
    "resize_values",
    "rgb_to_hsv",
    "seeds_superpixels",
    "simplify_outline",
    "slic_superpixels",
    "smallest_rectangle",
    "warp_affine",
    "warp_perspective",
    "without_colour",
    "write_grey",
    "write_image",
    "write_values",
]

# What OpenCV says about a broken picture on standard error, an `ImageError` says with the picture's name.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# Decoding runs in several threads or worker processes of ours; OpenCV's own pool would fight with them.
cv2.setNumThreads(1)

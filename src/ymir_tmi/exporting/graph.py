"""What is exported: a network from pictures to the outputs asked for, as one module that PyTorch can trace.

The trace must hold for other numbers of pictures and other sizes too, so shapes are read from tensors where they are
needed, and no Python number is made of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ymir_tmi.config.schema import ExportOutputs
from ymir_tmi.models.blocks.anchor_head import AnchorHead, Prototypes
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.interface import Detector, HeadOutput, Network, PixelOutput
from ymir_tmi.models.runtime.exported import MASK_OUTPUTS, raw_names


class ExportGraph(nn.Module, ABC):
    """Maps pictures to the tensors that `names` names.

    Args:
        network: the model, fused, in evaluation mode.

    Attributes:
        names: names of the outputs, in order.
    """

    names: tuple[str, ...]

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the network on (B, 3, H, W) float32 pictures."""


class NormalisingGraph(ExportGraph):
    """Takes RGB pictures with values in 0..255 and normalises them itself."""

    order: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        spec = network.spec.input
        self.swaps = spec.channels == "bgr"
        self.scales = (spec.mean, spec.std) != ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
        self.register_buffer("order", torch.tensor([2, 1, 0]))
        self.register_buffer("scale", 1 / std)
        self.register_buffer("shift", -mean / std)

    def head(self, images: Tensor) -> Any:
        """Return the raw numbers of the head for (B, 3, H, W) pictures."""
        if self.swaps:
            images = images.index_select(1, self.order)
        if self.scales:
            images = images * self.scale + self.shift
        return self.network(images)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the network on (B, 3, H, W) float32 RGB pictures."""
        return self.finish(self.head(images), images)

    @abstractmethod
    def finish(self, raw: Any, images: Tensor) -> tuple[Tensor, ...]:
        """Make the outputs of raw numbers; of the pictures only the size counts."""


class RawGraph(NormalisingGraph):
    """Gives the raw numbers of the head: cls_0, cls_1, ..., reg_0, ... (see `HeadOutput`), or logits."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.names = tuple(raw_names(_example_output(network)))

    def finish(self, raw: Any, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of `raw` in order."""
        return _flat(raw)


class DecodedGraph(NormalisingGraph):
    """Gives a box and class probabilities for every prior, and what its mask is made of where boxes have masks."""

    def __init__(self, network: Detector) -> None:
        super().__init__(network)
        self.names = ("boxes", "scores", *(MASK_OUTPUTS if network.spec.task == "instances" else ()))

    def finish(self, raw: Any, images: Tensor) -> tuple[Tensor, ...]:
        """Return boxes in pixels of the input, (B, P, 4) xyxy or (B, P, 5) rotated ones, and scores (B, P, C).

        For masks, coefficients (B, P, K) and prototypes (B, K, mh, mw) follow.
        """
        assert isinstance(self.network, Detector)
        dense = self.network.decode(raw)
        masks = (part for part in (dense.coefficients, dense.prototypes) if part is not None)
        return dense.boxes, dense.scores, *masks


class CandidateGraph(DecodedGraph):
    """Gives the candidates of a class-aware NMS: boxes and scores, 0 where a prior may not be of a class.

    Only the steps of the post-processing that come before NMS are done here, as far as they need no picture: boxes are
    clipped to the input.
    """

    def __init__(self, network: Detector) -> None:
        super().__init__(network)
        self.names = ("candidate_boxes", "candidate_scores")

    def finish(self, raw: Any, images: Tensor) -> tuple[Tensor, ...]:
        """Return boxes (B, P, 4), xyxy in pixels of the input, and scores (B, P, C)."""
        boxes, scores, *_ = super().finish(raw, images)
        spec = self.network.spec.postprocess
        if not spec.multi_label:
            best, label = scores.max(2, keepdim=True)
            scores = torch.zeros_like(scores).scatter(2, label, best)
        if spec.clip == "before_nms":
            boxes = _clip(boxes, images)
            scores = scores * (boxes[..., 2:] > boxes[..., :2]).all(2, keepdim=True)
        return boxes, scores


class PlainGraph(ExportGraph):
    """Gives the maps of the last convolutions and does nothing else, as converters for small chips want it.

    Prototypes of masks are among them. Takes pictures that are normalised already, in the network's channel order. A
    map that is a level of `HeadOutput` has its name there; the n-th one that holds boxes, objectness and classes
    together is called head_n.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        maps, raw = self._run(_example(network))
        known = {id(tensor): name for name, tensor in zip(raw_names(raw), _flat(raw), strict=True)}
        joint = (f"head_{number}" for number in range(len(maps)))
        names = [known.get(id(tensor)) or next(joint) for tensor in maps]
        wanted = [*known.values(), *names]
        self._order = sorted(range(len(maps)), key=lambda place: wanted.index(names[place]))
        self.names = tuple(names[place] for place in self._order)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one map (B, K, h, w) for each of the last convolutions."""
        maps, _ = self._run(images)
        return tuple(maps[place] for place in self._order)

    def _run(self, images: Tensor) -> tuple[list[Tensor], HeadOutput | PixelOutput]:
        """Return the maps in the order in which they are computed, and what the network makes of them."""
        maps: list[Tensor] = []
        hooks = []
        for module in self.network.modules():
            if isinstance(module, PredictionConv | Prototypes):
                hooks.append(module.register_forward_hook(lambda _, __, out: maps.append(out)))
            elif isinstance(module, AnchorHead):  # computes with the rows of its layers in another order
                hooks.append(module.register_forward_hook(lambda head, x, _: maps.extend(_joint_maps(head, *x))))
        try:
            with torch.no_grad(), _SiluAsProduct():
                return maps, self.network(images)
        finally:
            for hook in hooks:
                hook.remove()


GRAPHS: Mapping[ExportOutputs, type[ExportGraph]] = {
    "raw": RawGraph,
    "decoded": DecodedGraph,
    "detections": CandidateGraph,
    "plain": PlainGraph,
}


class _SiluAsProduct(TorchFunctionMode):
    """Computes SiLU as x * sigmoid(x), which every converter knows."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is F.silu:
            return args[0] * args[0].sigmoid()
        return function(*args, **(kwargs or {}))


def _joint_maps(head: nn.Module, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    assert isinstance(head, AnchorHead)
    return head.joint_maps(maps)


def _clip(boxes: Tensor, images: Tensor) -> Tensor:
    x, y = boxes[..., 0::2].clamp(0, images.shape[3]), boxes[..., 1::2].clamp(0, images.shape[2])
    return torch.stack([x, y], dim=-1).flatten(2)


def _flat(raw: HeadOutput | PixelOutput) -> tuple[Tensor, ...]:
    return tuple(level for levels in raw for level in levels)


def _example(network: Network) -> Tensor:
    side = 4 * max(network.spec.input.stride, 32)
    return torch.zeros(1, 3, side, side)


def _example_output(network: Network) -> HeadOutput | PixelOutput:
    with torch.no_grad():
        raw: HeadOutput | PixelOutput = network(_example(network))
        return raw

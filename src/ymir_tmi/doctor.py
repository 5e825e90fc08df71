"""What this machine offers, and what about the installation will go wrong later."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ymir_tmi.files.manifest import versions

_CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "bf16")
_MALICIOUS = {"lightning": {"2.6.2", "2.6.3"}, "pytorch-lightning": {"2.6.2", "2.6.3"}}


@dataclass(frozen=True)
class Diagnosis:
    """Findings about the machine and the installation.

    Attributes:
        versions: package name -> version.
        cpu: model name, cores and the instruction sets that matter here.
        gpus: one line per CUDA device.
        problems: what will go wrong, each with what to do.
    """

    versions: dict[str, str]
    cpu: str
    gpus: list[str]
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return asdict(self)

    def to_text(self) -> str:
        """Return lines for a person."""
        lines = [f"{name:32} {version}" for name, version in self.versions.items()]
        lines += [f"{'processor':32} {self.cpu}"]
        lines += [f"{'GPU':32} {gpu}" for gpu in self.gpus or ["none: everything runs on the processor"]]
        lines += [f"PROBLEM: {problem}" for problem in self.problems] or ["no problems found"]
        return "\n".join(lines)


def diagnose() -> Diagnosis:
    """Look at the machine and the installed packages; changes nothing and asks no network."""
    problems = [*_opencv_problems(), *_torch_problems(), *_malicious_packages()]
    return Diagnosis(versions=versions(), cpu=_cpu(), gpus=_gpus(), problems=problems)


def _opencv_problems() -> list[str]:
    """Name the wheels that overwrite one another's `cv2` folder; `pip check` does not see it."""
    providers = sorted(set(importlib.metadata.packages_distributions().get("cv2", [])))
    if len(providers) > 1:
        return [
            f"{' and '.join(providers)} overwrite one another. Uninstall all of them, then install "
            "opencv-contrib-python-headless alone."
        ]
    return []


def _torch_problems() -> list[str]:
    import torch

    try:
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        return [
            f"torchvision does not fit torch {torch.__version__} ({error}). Install both from one index: "
            "pip install --force-reinstall torch torchvision"
        ]
    return []


def _malicious_packages() -> list[str]:
    problems = []
    for package, bad in _MALICIOUS.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version in bad:
            problems.append(f"{package} {version} carries malware: uninstall it and rotate this machine's credentials.")
    return problems


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    name, flags = platform.processor() or platform.machine(), set[str]()
    if info.is_file():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    features = " ".join(feature for feature in _CPU_FEATURES if feature in flags)
    return f"{name}, {os.cpu_count()} cores, {features}"


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    devices = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return [f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in devices]

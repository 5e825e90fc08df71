"""The doctor names what is wrong with an installation."""

from __future__ import annotations

import importlib.metadata

import pytest

from ymir_tmi import doctor


def test_two_opencv_wheels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"cv2": ["opencv-python", "opencv-contrib-python-headless", "opencv-python"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: both)
    problem = "\n".join(doctor.diagnose().problems)
    assert "opencv-contrib-python-headless and opencv-python overwrite one another" in problem


def test_malicious_lightning_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.6.2" if name == "lightning" else real(name))
    assert any("malware" in problem for problem in doctor.diagnose().problems)


def test_report_for_programs_holds_what_the_text_says() -> None:
    diagnosis = doctor.diagnose()
    assert diagnosis.to_dict()["versions"]["torch"] in diagnosis.to_text()
    assert diagnosis.cpu in diagnosis.to_text()

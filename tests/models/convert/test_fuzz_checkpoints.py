"""Damaged files: whatever is changed in a good one, it is read or refused, and nothing else happens."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import random
import struct
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crafted_files import Storage, module, pickled, tensor, write_legacy, write_zip
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ymir_tmi.errors import ModelError
from ymir_tmi.models.convert.containers import read_checkpoint

SAMPLES = Path(__file__).parents[2] / "goldens"
NUMBERS = struct.pack("<4f", 1, 2, 3, 4)
WEIGHT = tensor(Storage("0", 4), 0, (2, 2), (2, 1))
CONTENTS: list[Any] = [
    {"state_dict": {"weight": WEIGHT}, "meta": {"CLASSES": ("cat", "dog")}},
    {"model": {"weight": np.arange(4, dtype=np.float32)}, "__author__": "somebody", "more": {1, 2, b"x"}},
    {
        "ema": None,
        "model": module(
            _modules=OrderedDict(
                a=module(_parameters={"weight": WEIGHT, "bias": None}), act=module(negative_slope=0.1)
            ),
            _buffers={"mean": WEIGHT, "left": WEIGHT},
            _non_persistent_buffers_set={"left"},
            names={0: "cat", 1: "dog"},
            stride=WEIGHT,
        ),
    },
]
PROGRAMS = [pickled(content, protocol) for content in CONTENTS for protocol in (0, 2, 4, 5)]
TORCH_FILES = ["containers/mm_style.pth", "yolov5/yolov5_train_state_2cls.pt"]
FILES = ["containers/mm_legacy_nonzip.pth", "containers/d2_style.pkl", "containers/d2_caffe2_py2.pkl", *TORCH_FILES]

LITTLE = settings(max_examples=100, deadline=None, derandomize=True, phases=[Phase.generate])
MUCH = settings(
    max_examples=5000, deadline=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip

# What a person who wants to break a reader writes over a few bytes.
SPLINTERS = [
    b"\x00",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b".",
    b"(",
    b"R",
    b"b",
    b"Q",
    b"\x81",
    b"h\x01",
    b"2",
]


def damaged(data: bytes, seed: int) -> bytes:
    """Return `data` with a few changes: bytes replaced, inserted, left out, moved, or the end cut off."""
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.choice([1, 1, 2, 8, 100, 1000]))
        piece = bytes(changed[start:end])
        elsewhere = chance.randrange(len(changed) + 1)
        change = chance.randrange(6)
        if change == 0:
            changed[start : start + 1] = bytes([chance.randrange(256)])
        elif change == 1:
            changed[start:start] = chance.choice(SPLINTERS)
        elif change == 2:
            splinter = chance.choice(SPLINTERS)
            changed[start : start + len(splinter)] = splinter
        elif change == 3:
            del changed[start:end]
        elif change == 4:
            changed[elsewhere:elsewhere] = piece
        elif chance.random() < 0.3:
            del changed[start:]
    return bytes(changed)


def read_or_refuse(path: Path) -> None:
    with contextlib.suppress(ModelError):
        read_checkpoint(path)


def try_file(name: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        path.write_bytes(damaged((SAMPLES / name).read_bytes(), seed))
        read_or_refuse(path)


def try_program(name: str, seed: int) -> None:
    """Damage the pickle inside of an archive, whose checksums would otherwise reveal it."""
    with zipfile.ZipFile(SAMPLES / name) as archive, tempfile.TemporaryDirectory() as folder:
        root = Path(archive.namelist()[0]).parts[0]
        numbers = {
            member.removeprefix(f"{root}/data/"): archive.read(member)
            for member in archive.namelist()
            if member.startswith(f"{root}/data/")
        }
        read_or_refuse(write_zip(Path(folder) / "a", damaged(archive.read(f"{root}/data.pkl"), seed), numbers))


def try_crafted(number: int, seed: int) -> None:
    program = damaged(PROGRAMS[number], seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(program)
        read_or_refuse(path)
        read_or_refuse(write_zip(path, program, {"0": NUMBERS}))
        read_or_refuse(write_legacy(path, program, {"0": NUMBERS}))


def try_opcodes(codes: list[tuple[bytes, bytes]]) -> None:
    program = b"\x80\x04" + b"".join(code + argument for code, argument in codes) + b"."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(program)
        read_or_refuse(path)
        read_or_refuse(write_zip(path, program, {"0": NUMBERS}))


def opcode_streams() -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    """Return programs of random opcodes, among them well-formed names and texts that checkpoints have."""
    plain = st.tuples(
        st.sampled_from([code.code.encode("latin-1") for code in pickletools.opcodes]), st.binary(max_size=9)
    )
    names = [
        *(b"torch._utils\n_rebuild_tensor_v2\n", b"torch\nFloatStorage\n", b"collections\nOrderedDict\n", b"a\nb\n"),
        *(b"numpy.core.multiarray\n_reconstruct\n", b"numpy\ndtype\n", b"_codecs\nencode\n", b"builtins\nset\n"),
    ]
    texts = [b"storage", b"0", b"cpu", b"state_dict", b"model", b"_modules", b"_parameters", b"f4", b"<", b"latin1"]
    known = st.one_of(
        st.tuples(st.just(pickle.GLOBAL), st.sampled_from(names)),
        st.sampled_from(texts).map(lambda text: (pickle.SHORT_BINUNICODE, bytes([len(text)]) + text)),
        st.integers(0, 9).map(lambda number: (pickle.BININT1, bytes([number]))),
        st.sampled_from(
            [b"(", b"t", b"R", b"b", b"s", b"}", b"]", b")", b"N", b"Q", b"\x85", b"\x86", b"\x87", b"\x94"]
        ).map(lambda code: (code, b"")),
    )
    return st.lists(st.one_of(plain, known, known, known), max_size=60)


SEEDS = st.integers(0, 2**32)


@LITTLE
@given(st.sampled_from(FILES[:3]), SEEDS)
def test_damaged_files(name: str, seed: int) -> None:
    try_file(name, seed)


@LITTLE
@given(st.sampled_from(TORCH_FILES[:1]), SEEDS)
def test_damaged_programs(name: str, seed: int) -> None:
    try_program(name, seed)


@LITTLE
@given(st.integers(0, len(PROGRAMS) - 1), SEEDS)
def test_damaged_crafted_files(number: int, seed: int) -> None:
    try_crafted(number, seed)


@LITTLE
@given(opcode_streams())
def test_random_opcodes(codes: list[tuple[bytes, bytes]]) -> None:
    try_opcodes(codes)


@pytest.mark.slow
@MUCH
@given(st.sampled_from(FILES), SEEDS)
def test_many_damaged_files(name: str, seed: int) -> None:
    try_file(name, seed)


@pytest.mark.slow
@MUCH
@given(st.sampled_from(TORCH_FILES[:1] * 4 + TORCH_FILES), SEEDS)
def test_many_damaged_programs(name: str, seed: int) -> None:
    try_program(name, seed)


@pytest.mark.slow
@MUCH
@given(st.integers(0, len(PROGRAMS) - 1), SEEDS)
def test_many_damaged_crafted_files(number: int, seed: int) -> None:
    try_crafted(number, seed)


@pytest.mark.slow
@MUCH
@given(opcode_streams())
def test_many_random_opcodes(codes: list[tuple[bytes, bytes]]) -> None:
    try_opcodes(codes)

"""Files that are made to run something, to use up memory or time, or to read what is not theirs."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import struct
import subprocess
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crafted_files import Call, Rebuilt, Storage, pickled, tensor, write_legacy, write_zip

from ymir_tmi.errors import ModelError
from ymir_tmi.models.convert import pickle_machine
from ymir_tmi.models.convert.containers import read_checkpoint

NUMBERS = struct.pack("<4f", 1, 2, 3, 4)
GOOD = tensor(Storage("0", 4), 0, (4,), (1,))


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    assert caught.value.where == path
    return caught.value.what


# Programs


class NewObject:
    """Pickles as an object whose state is set by a method of its own."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __setstate__(self, state: Any) -> None:
        os.system(self.command)


PROGRAMS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda touch: Call(os.system, touch),
    "eval": lambda touch: Call(eval, f"__import__('os').system({touch!r})"),
    "exec": lambda touch: Call(exec, f"import os; os.system({touch!r})"),
    "subprocess": lambda touch: Call(subprocess.check_call, touch.split()),
    "getattr of a module": lambda touch: Call(getattr, Call(importlib.import_module, "os"), "system"),
    "torch.load": lambda touch: Call(torch.load, touch.split()[1]),
    "a pickle in a pickle": lambda touch: Call(pickle.loads, pickled(Call(os.system, touch))),
    "a tensor's own pickle": lambda touch: Call(torch.storage._load_from_bytes, pickled(Call(os.system, touch))),
    "numpy.save": lambda touch: Call(np.save, touch.split()[1], 1),
    "an object with a state": NewObject,
    "in the arguments of a tensor": lambda touch: tensor(Storage("0", 4), 0, (4,), Call(os.system, touch)),
    "as the hooks of a tensor": lambda touch: Call(
        torch._utils._rebuild_tensor_v2, Storage("0", 4), 0, (4,), (1,), False, Call(os.system, touch)
    ),
    "as a kind of tensor": lambda touch: Call(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (touch,), {}
    ),
    "as a number type": lambda touch: Call(np.dtype, Call(os.system, touch)),
}


@pytest.mark.parametrize("kind", ["os.system", "eval", "exec", "subprocess", "a pickle in a pickle", "numpy.save"])
def test_the_programs_do_run_elsewhere(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker.npy"
    pickle.loads(pickled(PROGRAMS[kind](f"touch {marker}")))
    assert marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_no_program_runs(kind: str, protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    content = {"state_dict": {"weight": GOOD}, "more": PROGRAMS[kind](f"touch {marker}")}
    for path in (
        write_zip(tmp_path / "new.pth", pickled(content, protocol), {"0": NUMBERS}),
        write_legacy(tmp_path / "old.pth", pickled(content, protocol), {"0": NUMBERS}),
    ):
        with contextlib.suppress(ModelError):
            assert read_checkpoint(path).tensors["weight"].tolist() == [1, 2, 3, 4]
        assert not marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        "(S'touch {marker}'\nios\nsystem\n.",
        "(cos\nsystem\nS'touch {marker}'\no.",
        "cos\nsystem\n(S'touch {marker}'\ntR.",
        "cos\nsystem\n(S'touch {marker}'\nt\x81.",
        'c__builtin__\neval\n(S\'__import__("os").system("touch {marker}")\'\ntR.',
    ],
    ids=["instance", "object", "call", "new object", "eval"],
)
def test_no_program_of_the_first_protocol_runs(program: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x02" + program.format(marker=marker).encode("latin-1"))
    assert "no checkpoint that is known" in refusal(path)
    assert not marker.exists()


def test_what_was_not_run_is_told(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "a.pth", pickled({"weight": GOOD, "more": [Call(os.system, "true")] * 2}), {"0": NUMBERS}
    )
    assert read_checkpoint(path).not_called == ("posix.system",)


# Memory and time


def nested_tuples(depth: int) -> bytes:
    """Return a pickle of a tuple of twice the same tuple of twice the same tuple ..., as a key of a dict."""
    return b"\x80\x02})" + b"".join(b"q\x012\x86" for _ in range(depth)) + b"Ns."


BOMBS: dict[str, bytes] = {
    "a bytearray of a terabyte": pickled({"a": Call(bytearray, 10**12)}),
    "bytes of a terabyte": b"\x80\x04\x8e" + struct.pack("<Q", 10**12) + b".",
    "a bytearray of a terabyte in its own opcode": b"\x80\x05\x96" + struct.pack("<Q", 10**12) + b".",
    "text of a terabyte": b"\x80\x04\x8d" + struct.pack("<Q", 10**12) + b".",
    "text of negative length": b"\x80\x02T" + struct.pack("<i", -5) + b"abc.",
    "a frame of a terabyte": b"\x80\x04\x95" + struct.pack("<Q", 10**12) + b"}.",
    "a number of a gigabyte": b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b".",
    "a memo of four thousand million": b"\x80\x02}r\xff\xff\xff\xff.",
    "a key that takes years to hash": nested_tuples(100),
    "lists of lists of lists": b"\x80\x02]" + b"q\x01]h\x01h\x01h\x01h\x01\x87a" * 200 + b".",
    "a hundred thousand lists in one another": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "tuples in one another": b"\x80\x02N" + b"\x85" * 100_000 + b".",
    "a list of itself": b"\x80\x02]q\x01h\x01a.",
    "one long list copied": b"\x80\x02]q\x01(" + b"N)\x86" * 1000 + b"e0"
    + b"ccollections\nOrderedDict\nq\x02" + b"h\x02h\x01\x85R" * 5000 + b".",
    "one long text encoded": b"\x80\x02X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x01c_codecs\nencode\nq\x02"
    + b"h\x02h\x01X\x06\x00\x00\x00latin1\x86R" * 5000 + b".",
    "numbers of one hash": b"\x80\x02}(" + b"".join(
        b"\x8a\x10" + (number * (2**61 - 1)).to_bytes(16, "little") + b"N" for number in range(20_000)
    ) + b"u.",
    "a module inside itself": b"\x80\x02cmodels\nModel\n)\x81q\x01}U\x08_modules}U\x01ah\x01ssb.",
    "modules that are one": b"\x80\x02cmodels\nModel\n)\x81}U\x08_modules}Nsbq\x01" + (
        b"cmodels\nModel\n)\x81}U\x08_modules}(U\x01ah\x01U\x01bh\x01usbq\x01"
    ) * 80 + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_go_off(name: str, tmp_path: Path) -> None:
    """Memory stays within a small multiple of the size of the file; time is bounded, or this test would not end."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6 + 100 * len(BOMBS[name])
    finally:
        tracemalloc.stop()


def test_more_objects_than_any_checkpoint_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "_MAX_OPCODES", 1000)
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"\x80\x02" + b"]" * 1001 + b".")
    assert "more objects" in refusal(path)


def test_a_zip_bomb(tmp_path: Path) -> None:
    program = pickled({"weight": tensor(Storage("0", 10**7), 0, (10**7,), (1,))})
    path = write_zip(tmp_path / "a.pth", program, {"0": bytes(4 * 10**7)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    assert "compressed" in refusal(path)


def test_zip_members_that_lie_over_one_another(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", pickled({"weight": GOOD}), {"0": NUMBERS, "1": bytes(1000)})
    data = bytearray(path.read_bytes())
    entry = data.index(b"archive/data/0", data.index(b"PK\x01\x02")) - 46  # in the central directory
    data[entry + 20 : entry + 28] = struct.pack("<II", 2000, 2000)
    path.write_bytes(data)
    assert "larger than the file" in refusal(path)


def test_two_zip_members_of_one_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", pickled({"weight": GOOD}), {"0": NUMBERS})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data.pkl", pickled({"weight": GOOD}))
    assert "two members" in refusal(path)


# Numbers that are not there


TENSORS = {
    "offset beyond": tensor(Storage("0", 4), 1, (4,), (1,)),
    "negative offset": tensor(Storage("0", 4), -1, (4,), (1,)),
    "stride beyond": tensor(Storage("0", 4), 0, (2, 2), (3, 1)),
    "negative stride": tensor(Storage("0", 4), 3, (4,), (-1,)),
    "negative size": tensor(Storage("0", 4), 0, (-4,), (1,)),
    "one number for a million": tensor(Storage("0", 4), 0, (10**6,), (0,)),
    "sizes that overflow": tensor(Storage("0", 4), 0, (2**32, 2**32, 2**32), (0, 0, 0)),
    "huge numbers": tensor(Storage("0", 4), 0, (2**100,), (2**100,)),
    "no numbers in a shape that overflows": tensor(Storage("0", 4), 0, (2**50, 2**50, 0), (0, 0, 0)),
    "fewer strides than sizes": tensor(Storage("0", 4), 0, (2, 2), (1,)),
    "a hundred dimensions": tensor(Storage("0", 4), 0, (1,) * 100, (1,) * 100),
    "a size that is text": tensor(Storage("0", 4), 0, ("4",), (1,)),
    "a storage that is none": tensor([1.0, 2.0], 0, (2,), (1,)),
    "a storage that is longer than its member": tensor(Storage("0", 40), 0, (40,), (1,)),
    "a storage that is missing": tensor(Storage("7", 4), 0, (4,), (1,)),
    "a storage elsewhere": tensor(Storage("../data.pkl", 4), 0, (4,), (1,)),
    "a storage of negative length": tensor(Storage("0", -4), 0, (), ()),
    "a storage of an unknown kind": tensor(Storage("0", 4, os.system), 0, (4,), (1,)),
    "a storage of two kinds": [GOOD, tensor(Storage("0", 4, torch.LongStorage), 0, (4,), (1,))],
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_stay_inside_of_their_numbers(name: str, tmp_path: Path) -> None:
    content = TENSORS[name]
    program = pickled(
        {f"weight{n}": value for n, value in enumerate(content if isinstance(content, list) else [content])}
    )
    refusal(write_zip(tmp_path / "a.pth", program, {"0": NUMBERS}))
    refusal(write_legacy(tmp_path / "b.pth", program, {"0": NUMBERS}))


def test_the_same_numbers_a_thousand_times(tmp_path: Path) -> None:
    views = {f"weight{n}": tensor(Storage("0", 100_000), 0, (100_000,), (1,)) for n in range(1000)}
    path = write_zip(tmp_path / "a.pth", pickled(views), {"0": bytes(400_000)})
    assert "more tensors than numbers" in refusal(path)


def test_arrays_as_long_as_their_shapes(tmp_path: Path) -> None:
    array = np.zeros(4, np.float32)
    for shape in ((5,), (10**9, 10**9), (-4,), (2**50, 2**50, 0)):
        function, arguments, (version, _, *rest) = array.__reduce__()
        path = tmp_path / "a.pkl"
        path.write_bytes(pickled({"weight": Rebuilt(function, arguments, (version, shape, *rest))}))
        refusal(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(number: float, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", pickled({"weight": GOOD}), {"0": struct.pack("<4f", 1, 2, number, 4)})
    assert "not finite, in 'weight'" in refusal(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": {"0": 3}}, "number of numbers"),
        ({"counts": {"0": -4}}, "number of numbers"),
        ({"counts": {"0": 2**62}}, "number of numbers"),
        ({"system": {"little_endian": False}}, "byte order"),
        ({"numbers": {"1": NUMBERS}}, "belong to no tensor"),
        ({"numbers": {}}, "not in it"),
        ({"numbers": {"0": NUMBERS[:8]}}, "cut short"),
    ],
)
def test_old_files_that_contradict_themselves(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {"numbers": {"0": NUMBERS}} | change
    assert message in refusal(write_legacy(tmp_path / "a.pth", pickled({"weight": GOOD}), **arguments))


# Files of other kinds


def _folder(path: Path) -> None:
    path.mkdir()


def _torchscript(path: Path) -> None:
    write_zip(path, pickled({"weight": GOOD}), {"0": NUMBERS})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", pickled(()))


def _zip_of_pictures(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", "picture")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: None, "no such file", id="missing"),
        pytest.param(_folder, "a folder", id="folder"),
        pytest.param(lambda path: path.write_bytes(b""), "is empty", id="empty"),
        pytest.param(lambda path: path.write_text("<html>not found</html>"), "text", id="web page"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(99)), "a picture", id="picture"),
        pytest.param(lambda path: path.write_bytes(bytes(200)), "something else", id="zeros"),
        pytest.param(
            lambda path: path.write_bytes(struct.pack("<Q", 50) + b'{"a":1}'), "safetensors", id="safetensors"
        ),
        pytest.param(_torchscript, "TorchScript", id="TorchScript"),
        pytest.param(_zip_of_pictures, "not one that torch wrote", id="another zip"),
        pytest.param(lambda path: write_zip(path, pickled([1, 2])), "no checkpoint that is known", id="a list"),
        pytest.param(lambda path: write_zip(path, pickled({"epoch": 3})), "no weights", id="no weights"),
        pytest.param(lambda path: path.write_bytes(b"\x80\x02}"), "cut short", id="pickle cut short"),
        pytest.param(lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "cut short", id="zip cut short"),
        pytest.param(lambda path: path.write_bytes(b"\x80\x02\xff."), "damaged at byte", id="unknown opcode"),
    ],
)
def test_files_that_are_no_checkpoints(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    make(path)
    assert message in refusal(path)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)
    assert refusal(path) == "cannot read this file: Permission denied"


def test_names_that_would_write_to_the_terminal(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", pickled({"\x1b[31mweight": GOOD}), {"0": NUMBERS})
    assert "no names of weights" in refusal(path)

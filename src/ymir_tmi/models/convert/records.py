"""What a pickle of another program turns into: plain values, and inert records of everything else.

The functions in `BUILDERS` stand in for the functions of numpy and torch that a checkpoint names. They take plain
values and records and return such; none imports or calls anything, or allocates more than it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

_MAX_DIMENSIONS = 32
_LIMIT = 2**60

STORAGE_TYPES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "UntypedStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}
"""Name of a type of storage: the type of its elements, and their size in bytes."""

_ARRAY_TYPES = {f"{kind}{size}": size for kind in "iuf" for size in (1, 2, 4, 8) if f"{kind}{size}" != "f1"} | {"b1": 1}


class RefusedError(Exception):
    """The file is damaged, hostile or of a kind that is not read; the message says which, as the end of a sentence."""


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A name that the file gives, e.g. `torch.FloatStorage`; it is never looked up."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"


@dataclass(eq=False, repr=False, slots=True)
class Record:
    """An object that was not made: the class or function that was to make it, and its attributes (mostly a dict)."""

    kind: Any
    state: Any = None


@dataclass(frozen=True, eq=False, slots=True)
class StorageRecord:
    """The numbers that one or more tensors look at; they lie elsewhere in the file, under `key`."""

    key: str
    type: str
    count: int
    bytes: int


@dataclass(frozen=True, eq=False, slots=True)
class TensorRecord:
    """A tensor of torch: a view of a storage, which it is known to stay inside of."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size in bytes, as stored."""
        return prod(self.shape) * (self.storage.bytes // max(self.storage.count, 1))


@dataclass(eq=False, repr=False, slots=True)
class DtypeRecord:
    """An element type of numpy, such as "<f4"."""

    code: str
    order: str = "="


@dataclass(eq=False, repr=False, slots=True)
class ArrayRecord:
    """An array of numpy. Without `dtype` it is one of objects, of which nothing is kept."""

    dtype: str | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: bytes | bytearray = b""

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return len(self.data)


def as_text(value: str) -> str:
    """Return text that can be encoded; half a surrogate pair, which pickles may hold, becomes a question mark."""
    return value.encode("utf-8", "replace").decode("utf-8")


def fill_mapping(mapping: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Set items under plain keys and leave out the others.

    What a hash or a comparison costs must not be for the file to choose: a tuple of two tuples that are the same one,
    and so on sixty times, takes longer to hash than anyone waits, and many large numbers have one hash.
    """
    for key, value in pairs:
        if _is_plain_key(key):
            mapping[key] = value


def _is_plain_key(key: Any) -> bool:
    if type(key) is int:
        return abs(key) < _LIMIT
    return key is None or type(key) in (str, bytes, bool)


def make_storage(persistent_id: Any) -> Any:
    """Return what a persistent id of torch stands for: a storage, or the class of a pickled module."""
    if type(persistent_id) is not tuple or not persistent_id:
        raise RefusedError("has a reference that torch does not write")
    what, *rest = persistent_id
    if what == "module" and rest:
        return rest[0]
    if what != "storage" or len(rest) not in (4, 5) or not isinstance(rest[0], Name):
        raise RefusedError("has a reference that torch does not write")
    kind, key, _, count = rest[:4]
    if len(rest) == 5 and rest[4] is not None:
        raise RefusedError("has views of storages, as torch wrote them before 0.4, which are not read")
    if kind.attribute not in STORAGE_TYPES:
        raise RefusedError(f"has numbers of a type that is not read, {str(kind)[:80]!r}")
    if type(key) is not str or type(count) is not int or count < 0:
        raise RefusedError("has a reference that torch does not write")
    element, size = STORAGE_TYPES[kind.attribute]
    return StorageRecord(key, element, count, count * size)


def set_state(target: Any, state: Any) -> None:
    """Give an object its attributes, as the opcode BUILD asks. Plain containers have none that matter."""
    if isinstance(target, Record):
        target.state = state
    elif isinstance(target, DtypeRecord):
        target.order = _dtype_order(state)
    elif isinstance(target, ArrayRecord):
        _fill_array(target, state)


def _dtype_order(state: Any) -> str:
    if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
        raise RefusedError("has an element type that numpy does not write")
    order: str = state[1]
    return order


def _fill_array(array: ArrayRecord, state: Any) -> None:
    if type(state) is not tuple or len(state) != 5:
        raise RefusedError("has an array that numpy does not write")
    _, shape, dtype, fortran, data = state
    if type(data) is str:  # Python 2 wrote bytes as text
        data = data.encode("latin-1")
    if type(data) is list or not isinstance(dtype, DtypeRecord) or dtype.code not in _ARRAY_TYPES:
        array.dtype = None
        return
    _set_array(array, dtype, shape, bool(fortran), data)


def _set_array(array: ArrayRecord, dtype: DtypeRecord, shape: Any, fortran: bool, data: Any) -> None:
    sizes = _shape(shape)
    if type(data) not in (bytes, bytearray) or len(data) != prod(sizes) * _ARRAY_TYPES[dtype.code]:
        raise RefusedError("has an array whose data are not as long as its shape says")
    array.dtype = dtype.order + dtype.code
    array.shape, array.fortran, array.data = sizes, fortran, data


def _sizes(shape: Any) -> tuple[int, ...]:
    """Check a shape, strides or the like: a few numbers that are not negative."""
    if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
        raise RefusedError("has a shape that is none")
    if any(type(size) is not int or not 0 <= size < _LIMIT for size in shape):
        raise RefusedError("has a shape that is none")
    return shape


def _shape(shape: Any) -> tuple[int, ...]:
    """Check a shape; also one with a 0 in it must not have sizes that nobody can multiply."""
    sizes = _sizes(shape)
    if prod(max(size, 1) for size in sizes) >= _LIMIT:
        raise RefusedError("has a shape that is none")
    return sizes


Spend = Callable[[int], None]
"""Counts what a builder copies, and refuses the file when that is more than a file of its size can need."""


def _mapping(spend: Spend, pairs: Any = ()) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    if type(pairs) is dict:
        pairs = list(pairs.items())
    spend(len(pairs))
    fill_mapping(found, pairs)
    return found


def _default_mapping(_: Spend, *__: Any) -> dict[Any, Any]:
    return {}


def _set(spend: Spend, items: Any = ()) -> set[Any]:
    spend(len(items))
    return {item for item in items if _is_plain_key(item)}


def _size(spend: Spend, sizes: Any = ()) -> tuple[Any, ...]:
    spend(len(sizes))
    return tuple(sizes)


def _encode(spend: Spend, text: Any = "", encoding: Any = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise RefusedError("has bytes that Python does not write")
    spend(len(text))
    return text.encode("latin-1")


def _tensor(_: Spend, storage: Any, offset: Any, shape: Any, stride: Any, *__: Any) -> TensorRecord:
    if not isinstance(storage, StorageRecord):
        raise RefusedError("has a tensor without a storage")
    (start,), sizes, steps = _sizes((offset,)), _shape(shape), _sizes(stride)
    if len(sizes) != len(steps):
        raise RefusedError("has a tensor whose shape and stride differ in length")
    count = prod(sizes)
    last = start + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise RefusedError("has a tensor that reaches beyond its data")
    return TensorRecord(storage, start, sizes, steps)


def _parameter(_: Spend, tensor: Any, *__: Any) -> Any:
    return tensor


def _typed_tensor(spend: Spend, function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """Return a tensor or parameter without the attributes that somebody gave it."""
    builder = _TENSORS.get(str(function)) if isinstance(function, Name) else None
    if builder is None or type(arguments) is not tuple:
        raise RefusedError("has a tensor of a kind that is not read")
    return builder(spend, *arguments)


def _empty_array(_: Spend, *__: Any) -> ArrayRecord:
    return ArrayRecord()


def _dtype(_: Spend, code: Any, *__: Any) -> DtypeRecord:
    if type(code) is not str:
        raise RefusedError("has an element type that numpy does not write")
    return DtypeRecord(code)


def _array_scalar(_: Spend, dtype: Any, data: Any = None) -> ArrayRecord:
    array = ArrayRecord()
    _fill_array(array, (1, (), dtype, False, data))
    return array


def _array_from_buffer(_: Spend, data: Any, dtype: Any, shape: Any, order: Any) -> ArrayRecord:
    array = ArrayRecord()
    _fill_array(array, (1, shape, dtype, order == "F", data))
    return array


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}

BUILDERS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _typed_tensor,
    "torch.Size": _size,
    "_codecs.encode": _encode,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _default_mapping,
    "numpy.dtype": _dtype,
}
for _module in ("builtins", "__builtin__"):
    BUILDERS |= {f"{_module}.dict": _mapping, f"{_module}.set": _set, f"{_module}.frozenset": _set}
for _module in ("numpy.core", "numpy._core"):
    BUILDERS[f"{_module}.multiarray._reconstruct"] = _empty_array
    BUILDERS[f"{_module}.multiarray.scalar"] = _array_scalar
    BUILDERS[f"{_module}.numeric._frombuffer"] = _array_from_buffer

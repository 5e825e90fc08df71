"""Typed parameters of an image: one class for each of its tasks, one field for each hyper-parameter.

A field's annotation holds the reader of its values (`values.py`), its `Help` and, where there is one, a mark. From
these, templates, documentation and messages are made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ymir_tmi.errors import ConfigError, did_you_mean
from ymir_tmi.ymir.effects import plain
from ymir_tmi.ymir.orders import Machine, PassOrder, TrainingOrder
from ymir_tmi.ymir.values import Reader, is_missing

Mark = TypeVar("Mark")

PLATFORM_KEYS = frozenset(
    {
        "class_names", "code_config", "export_format", "git_branch", "git_url", "gpu_count", "gpu_id", "max_boxes",
        "model_params_path", "object_type", "openpai_enable", "pretrained_model_params", "prompt", "run_infer",
        "run_mining", "shm_size", "task_id", "text_prompt", "ymir_debug",
    }
)  # fmt: skip
"""Keys of config.yaml that the platform or the entry point reads, whatever the image."""


@dataclass(frozen=True)
class Help:
    """What is said of a parameter.

    Attributes:
        english: what it means.
        chinese: the same.
        sets: the settings of ours that follow from it, in no language; '' are none.
    """

    english: str
    chinese: str
    sets: str = ""


@dataclass(frozen=True)
class Hidden:
    """Marks a parameter that is understood and not in the template."""


@dataclass(frozen=True)
class Spelling:
    """Marks another key for the same parameter."""

    key: str


@dataclass(frozen=True)
class TemplateHad:
    """Marks a parameter whose default was another one in the template of the original image than in its document.

    The default here is that of the document (docs/specs/ymir.md, section 10).
    """

    default: Any


@dataclass(frozen=True)
class DocumentHad:
    """Marks the one parameter where the document is wrong, and the default is that of the template."""

    default: Any


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter as templates and documentation show it."""

    key: str
    field: FieldInfo

    @property
    def help(self) -> Help:
        """What is said of it."""
        found = self.mark(Help)
        assert found is not None, f"{self.key} has no help"
        return found

    @property
    def reader(self) -> Reader:
        """What reads its values."""
        reader: Reader = next(mark.func for mark in self.field.metadata if isinstance(mark, BeforeValidator))  # type: ignore[assignment]
        return reader

    @property
    def default(self) -> Any:
        """Its default as a template has it; nothing is ''."""
        return self.field.default if self.field.default not in (None, ()) else ""

    @property
    def hidden(self) -> bool:
        """Whether it is left out of the template."""
        return self.mark(Hidden) is not None

    @property
    def keys(self) -> list[str]:
        """Its key and other spellings of it."""
        return [self.key, *(mark.key for mark in self.field.metadata if isinstance(mark, Spelling))]

    def mark(self, kind: type[Mark]) -> Mark | None:
        """Return the mark of this kind; a later one, nearer to the field, wins."""
        return next((mark for mark in reversed(self.field.metadata) if isinstance(mark, kind)), None)


@dataclass(frozen=True)
class Job:
    """What a task is about, besides its parameters.

    Attributes:
        machine: what it runs on.
        class_names: the platform's list, in the order of `class_distribution_scores`.
    """

    machine: Machine
    class_names: tuple[str, ...] = ()


class Parameters(BaseModel):
    """The parameters of one task of an image."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    @classmethod
    def parameters(cls) -> list[Parameter]:
        """Return the parameters in the order of the template."""
        return [Parameter(key, field) for key, field in cls.model_fields.items()]

    @classmethod
    def read(cls, config: Mapping[str, Any], others: Iterable[str] = ()) -> Self:
        """Return the parameters that config.yaml gives, defaults for those that it leaves out.

        Args:
            config: all of config.yaml.
            others: keys that are known, and not read here.

        Raises:
            ConfigError: a key is unknown, two spellings of one say different things, or a value is not allowed.
        """
        parameters = {key: parameter for parameter in cls.parameters() for key in parameter.keys}
        ignored = PLATFORM_KEYS.union(others).difference(parameters)
        given: dict[str, dict[str, Any]] = defaultdict(dict)  # by parameter, then by spelling
        for key, value in config.items():
            if key in ignored or is_missing(value):
                continue
            if key not in parameters:
                raise ConfigError(f"there is no parameter '{key}'", where=key, fix=did_you_mean(key, parameters))
            given[parameters[key].key][key] = value
        chosen = {name: _meant(parameters[name], spellings) for name, spellings in given.items()}
        try:
            return cls.model_validate({name: value for name, (_, value) in chosen.items()})
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            raise refuse(*chosen[name], parameters[name].reader.allowed.english) from None


class TrainingParameters(Parameters):
    """Parameters of a training."""

    @abstractmethod
    def order(self, job: Job) -> TrainingOrder:
        """Return what they come to."""


class PassParameters(Parameters):
    """Parameters of mining or inference."""

    @abstractmethod
    def order(self, job: Job) -> PassOrder:
        """Return what they come to."""


def _meant(parameter: Parameter, spellings: Mapping[str, Any]) -> tuple[str, Any]:
    """Return key and value of what is given, maybe in two spellings: one has its default where a template holds it."""
    default = plain(parameter.default)
    changed = {key: value for key, value in spellings.items() if plain(value) != default}
    if len({plain(value) for value in changed.values()}) > 1:
        first, second = list(changed)[:2]
        raise ConfigError(f"'{second}' and '{first}' are the same parameter, and have two values", where=second)
    return next(iter((changed or spellings).items()))


def refuse(key: str, value: Any, allowed: str) -> ConfigError:
    """Return the error of a value that is not allowed."""
    return ConfigError(f"{value!r} is not allowed", where=key, fix=f"'{key}' takes {allowed}.")

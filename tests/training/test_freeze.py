"""What is frozen stays as it is, in one process and in two, and the rest is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from training_data import CLASSES, write_rectangles
from training_fakes import RECIPE, FakeDetector, Training, fake_batch

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.errors import ConfigError
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.models.catalog import create_model, default_spec, find_family, list_models
from ymir_tmi.training import plan
from ymir_tmi.training.distributed import Processes, synchronize_batch_norms
from ymir_tmi.training.freeze import freeze
from ymir_tmi.training.optim import parameter_groups
from ymir_tmi.training.recipes import recipe_of
from ymir_tmi.training.run import train


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.stem2 = nn.Conv2d(4, 4, 3)
        self.head = nn.Conv2d(4, 2, 1)


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("prefixes", "left"),
    [
        ([], {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias", "stem2.weight", "stem2.bias"}),
        (["stem"], {"stem2.weight", "stem2.bias"}),  # not what only begins alike
        (["stem.1", "stem2.weight"], {"stem.0.weight", "stem.0.bias", "stem2.bias"}),
    ],
)
def test_prefixes_end_at_a_dot(prefixes: list[str], left: set[str]) -> None:
    model = Network()
    freeze(model, prefixes)
    assert trained(model) == left | {"head.weight", "head.bias"}
    assert {id(p) for group in parameter_groups(model, 0.1) for p in group["params"]} == {
        id(parameter) for name, parameter in model.named_parameters() if name in trained(model)
    }
    assert model.stem[1].training == (not prefixes)


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        (["stm"], "no part 'stm'\n  Did you mean 'stem'?"),
        (["stem."], "no part 'stem.'"),
        (["backbone"], "Known: head, head.bias, head.weight, stem, stem.0, stem.1, stem2"),
        (["stem", "stem2", "head"], "nothing is left to train"),
    ],
)
def test_mistakes_are_named(prefixes: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        freeze(Network(), prefixes)
    assert message in str(caught.value)


@pytest.mark.parametrize("part", ["conv", "norm"])
def test_frozen_part_is_the_same_after_training(tmp_path: Path, part: str) -> None:
    training = Training(tmp_path, RECIPE.model_copy(update={"freeze": (part,)}))
    freeze(training.module.network, (part,))
    before = {name: value.clone() for name, value in training.module.network.state_dict().items()}
    training.run()
    for model in (training.module.network, training.ema.model):
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]) == name.startswith(part), name


def gradients(model: nn.Module, network: nn.Module, part: slice) -> dict[str, Tensor]:
    batch = fake_batch(seed=3)
    images = batch.images[part].double()
    maps = network(images)
    torch.cat([maps.cls[0], maps.reg[0]], 1).square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def half_frozen() -> FakeDetector:
    torch.manual_seed(0)
    model = FakeDetector().double().train()
    nn.init.uniform_(model.norm.running_var)
    freeze(model, ["norm"])
    return model


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = half_frozen()
    synchronize_batch_norms(model, torch.device("cpu"))
    network = DistributedDataParallel(model)
    for _ in range(2):  # the second step waits for ever if a frozen parameter is waited for
        model.zero_grad()
        found = gradients(model, network, slice(2 * rank, 2 * rank + 2))
    torch.save({**found, "variance": model.norm.running_var}, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_train_what_is_left(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    model = half_frozen()
    expected = gradients(model, model, slice(0, 4))
    assert set(expected) == {"conv.weight"}
    for rank in range(2):
        found = torch.load(tmp_path / str(rank), weights_only=True)
        assert torch.equal(found.pop("variance"), model.norm.running_var)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({}, ()),  # nothing is worth keeping yet
        ({"weights": Path("start.safetensors")}, ("backbone",)),
        ({"weights": Path("start.safetensors"), "set": ["freeze=[]"]}, ()),
        ({"set": ["freeze=[neck]"]}, ("neck",)),
    ],
)
def test_recipe_freezes_trained_weights_only(
    changes: dict[str, Any], frozen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("rtmdet", "rtmdet_tiny").model_copy(update={"freeze": ("backbone",)})
    monkeypatch.setattr(plan, "recipe_of", lambda *_: recipe)
    settings = TrainSettings.model_validate({"device": "cpu", **changes})
    assert plan.plan_run(settings, Processes(rank=0, here=1, machines=1, gpus=())).recipe.freeze == frozen


@pytest.mark.slow
@pytest.mark.parametrize("name", [info.name for info in list_models()])
def test_what_a_recipe_freezes_is_there(name: str) -> None:
    spec = default_spec(name, class_names=["a"])
    prefixes = recipe_of(spec.family, name).freeze
    if prefixes:
        freeze(find_family(name)(spec), prefixes)


def test_verb_freezes_what_the_recipe_says(tmp_path: Path) -> None:
    data = write_rectangles(tmp_path / "data", train=4, val=2)
    values = {"model": "rtmdet_tiny", "data": data, "output": tmp_path / "run", "image_size": 64, "epochs": 1}
    settings = {**values, "batch": 4, "workers": 0, "device": "cpu", "precision": "fp32"}
    train(TrainSettings.model_validate({**settings, "set": ["freeze=[backbone.stem]"]}))
    torch.manual_seed(0)
    before = create_model("rtmdet_tiny", class_names=CLASSES).state_dict()
    after = load_file(RunLayout(tmp_path / "run").last_weights)
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"backbone", "neck", "head"}
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("backbone.stem."))

"""What the images of OpenMMLab's programs (mmdet, mmyolo, mmrotate) have alike."""

from __future__ import annotations

from typing import Annotated, Any

from ymir_tmi.ymir.command_lines import CommandLine
from ymir_tmi.ymir.images import shared
from ymir_tmi.ymir.joining import best_and_latest, order_training
from ymir_tmi.ymir.model_names import ModelChoice
from ymir_tmi.ymir.orders import TrainingOrder
from ymir_tmi.ymir.overrides import OverrideTable
from ymir_tmi.ymir.parameters import Hidden, Job, TrainingParameters


class MmTraining(TrainingParameters):
    """Parameters of a training that all of them have."""

    shm_size: shared.ShmSize = "128G"
    export_format: shared.ExportFormat = "ark:raw"
    samples_per_gpu: shared.SamplesPerGpu = 8
    workers_per_gpu: shared.WorkersPerGpu = 4
    max_epochs: shared.Epochs = 100
    args_options: shared.ArgsOptions = ""
    cfg_options: shared.CfgOptions = ""
    val_interval: shared.ValInterval = 1
    max_keep_checkpoints: shared.MaxKeep = 1
    ymir_saved_file_patterns: Annotated[shared.FilePatterns, Hidden()] = ""

    def order_of(
        self, job: Job, choice: ModelChoice, overrides: OverrideTable, line: CommandLine, **own: Any
    ) -> TrainingOrder:
        """Return what the parameters come to.

        Args:
            job: the machine and the classes.
            choice: the model.
            overrides: what `cfg_options` mean.
            line: what `args_options` mean.
            own: further settings.
        """
        parameters = {
            "batch": self.samples_per_gpu * job.machine.devices,
            "workers": self.workers_per_gpu,
            "epochs": self.max_epochs,
            "val_interval": self.val_interval,
            **own,
        }
        return order_training(
            job,
            choice,
            parameters,
            cfg_options=(self.cfg_options, overrides),
            args_options=(self.args_options, line),
            stages=best_and_latest(self.max_keep_checkpoints, self.ymir_saved_file_patterns),
        )


class MmengineTraining(MmTraining):
    """Parameters of a training that mmyolo and mmrotate have, whose programs are of a later generation."""

    learning_rate: Annotated[shared.LearningRate, Hidden()] = 0.0
    find_unused_parameters: Annotated[shared.FindUnused, Hidden()] = False
    log_level: Annotated[shared.LogLevel, Hidden()] = "INFO"

"""Program of a test: Lightning trainings that end in many ways, each in a forked process.

The arguments are the package, a folder and the endings. Each process writes its execution's RID to
``<folder>/<ending>``. The exit codes are printed as JSON, negative for signals.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_lightning import DerivaMLCallback

lightning = importlib.import_module(sys.argv[1])
folder = Path(sys.argv[2])
STEPS = 4
"""Steps per epoch; a training ends in the second step of the third epoch, or at its end."""


IN_A_WITH = " in the user's with"
"""Suffix of an ending's name with an execution that the user enters."""


class Rows(TensorDataset):
    """Twelve rows; with the ending ``data worker``, the last cannot be read."""

    ending = ""

    def __getitem__(self, number: int) -> Any:
        if self.ending == "data worker" and number == 11:
            raise ValueError("a row is broken")
        return super().__getitem__(number)


class Model(lightning.LightningModule):
    """A model with one weight that ends the training."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending = ending
        self.weight = torch.nn.Parameter(torch.ones(1))

    def on_train_start(self) -> None:
        (callback,) = (each for each in self.trainer.callbacks if isinstance(each, DerivaMLCallback))
        (folder / self.ending).write_text(callback.execution.execution_rid)

    def training_step(self, batch: Any, _: int) -> Any:
        if self.trainer.global_step == 2 * STEPS + 1:
            self.end()
        loss = (self.weight * batch[0]).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def end(self) -> None:
        """End the training in a step."""
        match self.ending.removesuffix(IN_A_WITH):
            case "step":
                raise ValueError("in a step")
            case "SIGINT" | "SIGTERM" | "SIGKILL":
                os.kill(os.getpid(), getattr(signal, self.ending.split()[0]))
            case "SIGTERM with a handler":
                os.kill(os.getpid(), signal.SIGTERM)
            case "requeue":
                os.kill(os.getpid(), signal.SIGUSR1)
                os.kill(os.getpid(), signal.SIGTERM)
            case "os._exit":
                os._exit(3)

    def validation_step(self, batch: Any, _: int) -> None:
        if self.ending == "validation" and self.current_epoch == 2:
            raise ValueError("in validation")
        self.log("val_loss", (self.weight * batch[0]).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


class Other(lightning.Callback):
    """A user's callback that fails."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
        if module.ending == "another callback" and trainer.global_step == 2 * STEPS + 1:
            raise ValueError("in a callback")


def train(ending: str) -> None:
    """Run a training until it ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores SIGINT
    if ending == "SIGTERM with a handler":
        signal.signal(signal.SIGTERM, lambda *_: (folder / "handler").touch())
    plugins = []
    if ending.startswith("requeue"):
        os.environ.update({"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1"})
        fabric = "lightning.fabric" if sys.argv[1] == "lightning.pytorch" else "lightning_fabric"
        slurm = importlib.import_module(f"{fabric}.plugins.environments").SLURMEnvironment
        plugins = [slurm(auto_requeue=True, requeue_signal=signal.SIGUSR1)]
    rows = Rows(torch.ones(12, 1))
    rows.ending = ending
    slow = ending == "data worker"
    loader = DataLoader(rows, batch_size=3, num_workers=int(slow), multiprocessing_context="fork" if slow else None)
    workflow = Workflow(name="Ends", workflow_type="Training", url="https://example.org/ends.py", checksum="e")
    ml, configuration = DerivaML(), ExecutionConfiguration(workflow=workflow)
    options: Any = {"checkpoints": "last", "log_every_n_steps": 1, "resume": "same"}
    model, held_out = Model(ending), DataLoader(TensorDataset(torch.ones(3, 1)), batch_size=3)
    if ending.endswith(IN_A_WITH):
        with ml.create_execution(configuration) as execution:
            trainer_of(DerivaMLCallback(execution, **options), plugins).fit(model, loader, held_out)
    else:
        callback = DerivaMLCallback(ml=ml, configuration=configuration, **options)
        trainer_of(callback, plugins).fit(model, loader, held_out)


def trainer_of(callback: Any, plugins: list[Any]) -> Any:
    """A Trainer of three epochs."""
    return lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[Other(), callback],
        plugins=plugins,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def run(ending: str) -> int:
    """Run a training in a child process and return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(ending)
            code = 0
        except SystemExit as error:
            code = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    print(json.dumps({ending: run(ending) for ending in sys.argv[3:]}))

"""A Pruner where Lightning owns the loop (extra `lightning`)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from evoae.modules.pruner import Pruner


class PruningCallback(Callback):
    """Prunes a LightningModule while a Trainer trains it; arguments are those of `Pruner`.

    Epochs of the Trainer beyond those of the Pruner train what is left.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.arguments, self.settings = arguments, settings
        self.pruner: Pruner | None = None  # while a Trainer fits, and after it
        self.state: dict[str, Any] = {}  # of a fit that failed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before the strategy wraps the module and optimisers are made."""
        if stage == "fit":
            if self.pruner:
                self.pruner.release()  # of a fit that was interrupted
            self.state = {}
            self.pruner = Pruner(pl_module, *self.arguments, **self.settings)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After every epoch."""
        if self.pruner and not self.pruner.over:
            self.pruner.epoch_end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave a plain module, which another fit can begin with; checkpoints may still come."""
        if self.pruner and not self.pruner.finished:
            self.state = self.pruner.state_dict()
            self.pruner.release()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds beside the module's own state: masks too."""
        return self.state or (self.pruner.state_dict() if self.pruner else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; nothing where nothing is trained, as in a test."""
        if self.pruner and not self.pruner.finished and state_dict:
            self.pruner.load_state_dict(state_dict)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave a plain module; a warning says if training ended far from the target."""
        if stage == "fit" and self.pruner:
            self.pruner.finish()

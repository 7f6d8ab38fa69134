"""A Pruner where Lightning owns the loop (extra `lightning`)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from evoae.modules.pruner import Pruner


class PruningCallback(Callback):
    """Prunes a LightningModule while a Trainer trains it; arguments are those of `Pruner`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.arguments, self.settings = arguments, settings

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before the strategy wraps the module and optimisers are made."""
        if stage == "fit":
            self.pruner = Pruner(pl_module, *self.arguments, **self.settings)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After every epoch."""
        self.pruner.epoch_end()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds beside the module's own state."""
        return self.pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.pruner.load_state_dict(state_dict)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave a plain module."""
        if stage == "fit":
            self.pruner.finish()

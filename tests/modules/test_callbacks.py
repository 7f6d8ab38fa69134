"""The callback of Lightning, with the library itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

lightning = pytest.importorskip("lightning.pytorch")
from evoae.modules.callbacks import PruningCallback  # noqa: E402

ROWS = torch.rand(32, 12, generator=torch.Generator().manual_seed(1))


class Dense(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 12))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        return F.l1_loss(self(batch), batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def fit(module: Dense, callback: PruningCallback, epochs: int, folder: object, **told: object):
    trainer = lightning.Trainer(
        max_epochs=epochs, callbacks=[callback], default_root_dir=folder, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, logger=False, devices=1,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(ROWS, 8), **told)
    return trainer


def test_a_trainer_prunes_goes_on_and_leaves_a_plain_module(tmp_path) -> None:
    told = {"target_sparsity": 0.6, "pruned_weights": "masked"}
    module, callback = Dense(), PruningCallback("variance-low", "cubic", 4, **told)
    trainer = fit(module, callback, 2, tmp_path)
    assert callback.pruner.epoch == 1
    first = callback.pruner.report().zeros.iloc[-1]
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    assert first > 0
    assert trainer.current_epoch == 2
    again = PruningCallback("variance-low", "cubic", 4, **told)
    module = Dense()
    fit(module, again, 4, tmp_path, ckpt_path=checkpoint, weights_only=False)
    report = again.pruner.report()
    assert report.zeros.iloc[-1] == round(0.6 * report.parameters.iloc[-1]) > first
    assert type(module.layers[0]) is nn.Linear
    assert not any(part._forward_hooks for part in module.modules())

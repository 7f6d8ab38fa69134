"""The callback of Lightning, with the library itself."""

from __future__ import annotations

import warnings

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

    def validation_step(self, batch: Tensor, number: int) -> None:
        self.log("loss", F.l1_loss(self(batch), batch))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def trainer_for(callback: PruningCallback, epochs: int, folder: object, *more: object):
    return lightning.Trainer(
        max_epochs=epochs, callbacks=[callback, *more], default_root_dir=folder, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, logger=False, devices=1,
    )  # fmt: skip


def fit(module: Dense, callback: PruningCallback, epochs: int, folder: object, **options: object):
    trainer = trainer_for(callback, epochs, folder)
    trainer.fit(module, torch.utils.data.DataLoader(ROWS, 8), **options)
    return trainer


def zeros(module: nn.Module) -> list[Tensor]:
    return [parameter.detach() == 0 for parameter in module.parameters()]


KEPT = {"target_sparsity": 0.6, "pruned_weights": "masked"}


def test_a_trainer_prunes_goes_on_and_leaves_a_plain_module(tmp_path) -> None:
    module, callback = Dense(), PruningCallback("variance-low", "cubic", 4, **KEPT)
    with pytest.warns(UserWarning, match=r"after 2 of 4 epochs: .* pruned, 60.0% were asked for"):
        trainer = fit(module, callback, 2, tmp_path)
    assert callback.pruner.epoch == 1
    first = callback.pruner.report().zeros.iloc[-1]
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    assert first > 0
    assert trainer.current_epoch == 2
    again = PruningCallback("variance-low", "cubic", 4, **KEPT)
    module = Dense()
    fit(module, again, 4, tmp_path, ckpt_path=checkpoint)
    report = again.pruner.report()
    assert report.zeros.iloc[-1] == round(0.6 * report.parameters.iloc[-1]) > first
    assert type(module.layers[0]) is nn.Linear
    assert not any(part._forward_hooks for part in module.modules())


def test_a_resumed_fit_ends_where_a_whole_one_does(tmp_path) -> None:
    ends = []
    for resumed in (False, True):
        torch.manual_seed(1)
        module = Dense()
        callback = PruningCallback("movement", "cubic", 4, **KEPT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = fit(module, callback, 2 if resumed else 4, tmp_path / f"{resumed}")
        if resumed:
            path = tmp_path / "half.ckpt"
            trainer.save_checkpoint(path)  # after the fit: a plain module
            (path,) = (tmp_path / "True").glob("checkpoints/*.ckpt")  # within it: masked
            module = Dense()
            callback = PruningCallback("movement", "cubic", 4, **KEPT)
            fit(module, callback, 4, tmp_path, ckpt_path=path)
        ends.append(module)
    for one, other in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_best_checkpoint_is_tested_and_read_by_the_class(tmp_path) -> None:
    torch.manual_seed(1)
    module, callback = Dense(), PruningCallback("magnitude", "cubic", 2, **KEPT)
    best = lightning.callbacks.ModelCheckpoint(tmp_path, monitor="loss", save_weights_only=False)
    trainer = trainer_for(callback, 2, tmp_path, best)
    rows = torch.utils.data.DataLoader(ROWS, 8)
    trainer.fit(module, rows, rows)
    trainer.test(module, rows, ckpt_path="best", verbose=False)
    read = Dense.load_from_checkpoint(best.best_model_path)
    assert type(read.layers[0]) is nn.Linear
    assert sum(int(part.sum()) for part in zeros(read)) > 0
    trainer.validate(module, rows, ckpt_path="best", verbose=False)
    alone = trainer_for(PruningCallback("magnitude", "cubic", 2, **KEPT), 2, tmp_path)
    alone.test(Dense(), rows, ckpt_path=best.best_model_path, verbose=False)


def test_epochs_after_those_of_the_pruner_train_what_is_left(tmp_path) -> None:
    module, callback = Dense(), PruningCallback("magnitude", "cubic", 2, **KEPT)
    trainer = fit(module, callback, 4, tmp_path)
    assert trainer.current_epoch == 4
    report = callback.pruner.report()
    assert report.zeros.iloc[-1] == round(0.6 * report.parameters.iloc[-1])
    assert sum(int(each.sum()) for each in zeros(module)) >= report.zeros.iloc[-1] > 0


def test_a_fit_that_failed_leaves_a_plain_module_and_its_state(tmp_path) -> None:
    class Failing(Dense):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 2:
                raise RuntimeError("out of memory")

    module, callback = Failing(), PruningCallback("magnitude", "cubic", 3, **KEPT)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(module, callback, 3, tmp_path)
    assert type(module.layers[0]) is nn.Linear
    state = callback.state_dict()  # as a checkpoint of the exception has it
    assert state["epoch"] == 1
    assert any(not mask.all() for mask in state["masks"].values())
    module.__class__ = Dense
    again = PruningCallback("magnitude", "cubic", 3, **KEPT)
    fit(module, again, 3, tmp_path)
    assert again.pruner.report().zeros.iloc[-1] > 0

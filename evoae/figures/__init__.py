"""Figures of a study: tables and arrays in, matplotlib figures out. Nothing here trains."""

from evoae.figures.claims import forest
from evoae.figures.heatmaps import (
    activation_heatmap,
    before_after_heatmap,
    overlap_heatmap,
    reconstructions,
    removed_by_unit,
)
from evoae.figures.studies import (
    against_cells,
    capacity_box,
    dead_units,
    loss_by_schedule,
    loss_over_epochs,
    pareto_front,
    preserved_over_epochs,
    published_comparison,
    schedule_curves,
    size_over_epochs,
    sparsity_versus_loss,
)

__all__ = [
    "activation_heatmap",
    "against_cells",
    "before_after_heatmap",
    "capacity_box",
    "dead_units",
    "forest",
    "loss_by_schedule",
    "loss_over_epochs",
    "overlap_heatmap",
    "pareto_front",
    "preserved_over_epochs",
    "published_comparison",
    "reconstructions",
    "removed_by_unit",
    "schedule_curves",
    "size_over_epochs",
    "sparsity_versus_loss",
]

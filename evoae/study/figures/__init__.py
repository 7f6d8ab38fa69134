"""Figures of a study: tables and arrays in, matplotlib figures out. Nothing here trains."""

from evoae.study.figures.curves import (
    loss_over_epochs,
    preserved_over_epochs,
    schedule_curves,
    size_over_epochs,
)
from evoae.study.figures.effects import forest, interaction, parts_of_gap
from evoae.study.figures.frontier import front_of, fronts, inheritance, left_by_layer, mask_pictures
from evoae.study.figures.heatmaps import (
    before_after_heatmap,
    filters,
    images,
    overlap_heatmap,
    removed_by_unit,
)
from evoae.study.figures.trials import (
    capacity_box,
    change_of_loss,
    dead_units,
    loss_by_schedule,
    published_comparison,
    sparsity_versus_loss,
)

__all__ = [
    "before_after_heatmap",
    "capacity_box",
    "change_of_loss",
    "dead_units",
    "filters",
    "forest",
    "front_of",
    "fronts",
    "images",
    "inheritance",
    "interaction",
    "left_by_layer",
    "loss_by_schedule",
    "loss_over_epochs",
    "mask_pictures",
    "overlap_heatmap",
    "parts_of_gap",
    "preserved_over_epochs",
    "published_comparison",
    "removed_by_unit",
    "schedule_curves",
    "size_over_epochs",
    "sparsity_versus_loss",
]

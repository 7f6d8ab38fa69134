"""Every name that may be given, with a sentence each: what `evoae list` says."""

from __future__ import annotations

from typing import Any

from evoae import gallery
from evoae.data import built_in, files
from evoae.experiment import BY_READING, PRESETS, SETTINGS
from evoae.networks import population
from evoae.pruning import operators, schedules
from evoae.pruning.registry import sentence


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Every name that a setting or an argument may take: name, description, and what else."""

    def entry(name: str, description: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "description": description, **more}

    readings = [
        entry(name, f"{released} as released, {intended} as the text means.")
        for name, (released, intended) in BY_READING["operator"].items()
    ]
    return {
        "presets": [entry(n, p.description, settings=p.settings) for n, p in PRESETS.items()],
        "operators": [
            *(entry(n, o.description) | o.abilities() for n, o in operators.OPERATORS.items()),
            *readings,
        ],
        "schedules": [
            entry(n, s.description, target=s.target) for n, s in schedules.SCHEDULES.items()
        ],
        "datasets": [
            *(entry(n, sentence(made)) for n, made in built_in.BUILT_IN.items()),
            *(entry(f"FILE{s}", f"{sentence(r)}") for s, r in files.SUFFIXES.items()),
        ],
        "models": [
            *(
                entry(n, f"Widths from the input to the code: {'-'.join(map(str, widths))}.")
                for n, widths in population.MODELS.items()
            ),
            entry("N-M-...", "Widths of your own from the input to the code, such as 50-20-5."),
        ],
        "notebooks": [entry(n, gallery.question_of(gallery.read(n))) for n in gallery.available()],
        "settings": [
            entry(
                name,
                s.says,
                default=s.default,
                rule=f"must {s.rule}",
                type=s.kind.__name__,
                source=s.source,
                may_change=s.live,
                readings=s.readings,
            )
            for name, s in SETTINGS.items()
        ],
    }

"""Pictures of a sparse layer: how its experts share the work."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from tinyllm.experts.training import TrainingRun
from tinyllm.plots.style import BLUE, INK, ORANGE, SKY, new_figure, plain


def expert_load(runs: Mapping[str, TrainingRun]) -> Figure:
    """Draw the load of every expert over the steps, a strip for each run: a band is as wide as the expert's share.

    At balance all bands are equally wide. The busiest expert at the end has a hatched band; what it has, and MaxVio,
    stand beside the strip and are those of the last tenth of the steps.
    """
    size = 8.4, 1.5 * len(runs) + 0.5
    figure, axes = new_figure(*size, 2, len(runs), sharex="col", squeeze=False, width_ratios=(5, 1))
    for (ax, beside), (name, run) in zip(axes, runs.items(), strict=True):
        shares = run.counts.double() / run.counts.sum(dim=1, keepdim=True)
        busiest = int(run.load.argmax())
        colors = [ORANGE if expert == busiest else (SKY, BLUE)[expert % 2] for expert in range(shares.shape[1])]
        bands = ax.stackplot(range(len(shares)), shares.T.tolist(), colors=colors, edgecolor="white", linewidth=0.4)
        bands[busiest].set_hatch("///")
        words = f"MaxVio {run.max_violation:.2f}\n\nbusiest: expert {busiest},\n{run.load[busiest]:.2f} x the mean"
        beside.text(0, 0.5, words, va="center", fontsize=9, color=INK)
        beside.set_axis_off()
        ax.set_title(name, fontsize=10)
        ax.set_ylabel("share of pairs", fontsize=9)
        ax.set_xlim(0, len(shares) - 1)
        ax.set_ylim(0, 1)
        plain(ax)
    axes[-1, 0].set_xlabel("training step")
    return figure

"""The pictures of routing say what they are given, in words and numbers beside the colors."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinyllm import plots
from tinyllm.plots.style import series_color

TOPK_IDS = [[1, 0], [2, 1], [1, 2]]
SORTED = [1, 0, 3, 4, 2, 5]
BLOCKS_OF_2 = [1, 6, 0, 3, 4, 6, 2, 5]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def boxes(figure: Figure) -> list[Rectangle]:
    """Without the frames of blocks."""
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_fill()]


def test_the_ribbon_has_a_box_for_each_pair_in_each_order_and_names_the_waste() -> None:
    figure = plots.dispatch_ribbon("abc", TOPK_IDS, SORTED, {2: BLOCKS_OF_2, 4: [*BLOCKS_OF_2, 6, 6, 6, 6]})
    shown = words(figure)
    assert "blocks of 2: 8 rows, 25% of them padding" in shown
    assert "blocks of 4: 12 rows, 50% of them padding" in shown
    drawn = boxes(figure)
    assert len(drawn) == 6 + 6 + 8 + 12
    assert [shown.count(letter) for letter in "abc"] == [8, 8, 8]
    assert sum(bool(box.get_hatch()) for box in drawn) == 2 + 6
    frames = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and not p.get_fill()]
    assert Counter(int(frame.get_width()) for frame in frames) == {2: 4, 4: 3}


def test_the_ribbon_colors_a_pair_by_its_expert_and_numbers_each_run() -> None:
    figure = plots.dispatch_ribbon("abc", TOPK_IDS, SORTED, {})
    colors = [to_rgb(box.get_facecolor()) for box in boxes(figure)]
    flat = [expert for row in TOPK_IDS for expert in row]
    assert colors == [to_rgb(series_color(expert)) for expert in [*flat, *sorted(flat)]]
    numbers = [text for text in words(figure) if text.isdigit()]
    assert numbers == ["1", "0", "2", "1", "2", "0", "1", "2"], "two neighbors of one expert are numbered once"


def test_the_rows_of_ranks_are_drawn_as_they_lie_there() -> None:
    figure = plots.rank_rows("abc", TOPK_IDS, {"rank 0 has": [1, 0, 3], "rank 1 has": [2, 4, 5], "rank 0 got": []})
    shown = words(figure)
    assert [text for text in shown if text in "abc"] == ["a", "a", "b", "b", "c", "c"]
    assert [text for text in shown if text.startswith("rank")] == ["rank 0 has", "rank 1 has", "rank 0 got"]
    colors = [to_rgb(box.get_facecolor()) for box in boxes(figure)]
    assert colors == [to_rgb(series_color(expert)) for expert in (0, 1, 1, 2, 1, 2)]


def test_a_heat_map_has_a_panel_for_each_layer_and_percents_in_its_cells() -> None:
    tables = {f"layer {layer}": [[0.25, 0.75], [1.0, 0.0]] for layer in (4, 9, 14)}
    figure = plots.router_heat_map(tables, ["name", "digit"])
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in panels] == list(tables)
    for ax in panels:
        assert [text.get_text() for text in ax.texts] == ["25", "75", "100", "0"]
        assert np.array_equal(np.asarray(ax.images[0].get_array()), [[0.25, 0.75], [1.0, 0.0]])
        assert ax.images[0].get_clim() == (0, 1.0), "one scale for all layers"


def test_the_laws_are_lines_and_the_measurement_dots() -> None:
    laws = {"the law": [2, 3.5, 5.5], "the router's own law": [2, 3.25, 5.0]}
    ax = plots.touched_experts([1, 2, 4], laws, [2, 3, 5], 8).axes[0]
    by_label = {line.get_label(): line for line in ax.lines}
    for name, values in laws.items():
        assert list(by_label[name].get_ydata()) == values
    assert len({by_label[name].get_linestyle() for name in laws}) == 2
    dots = by_label["measured in the step records"]
    assert (list(dots.get_ydata()), dots.get_linestyle()) == ([2, 3, 5], "None")
    assert any(set(line.get_ydata()) == {8} for line in ax.lines), "as many as there are"


@pytest.mark.parametrize("traffics", [["talk"], ["talk", "step by step", "reading"]])
def test_placements_are_groups_of_bars_with_their_numbers(traffics: list[str]) -> None:
    heights = {"in order": 1.5, "packed": 1.25, "1 extra a rank": 1.0}
    figure = plots.placement_bars({name: dict.fromkeys(traffics, value) for name, value in heights.items()})
    ax = figure.axes[0]
    bars = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert sorted(bar.get_height() for bar in bars) == sorted(list(heights.values()) * len(traffics))
    assert [text.get_text() for text in ax.texts] == ["1.50", "1.25", "1.00"] * len(traffics)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(heights)
    assert len({bar.get_hatch() for bar in bars}) == len(traffics)

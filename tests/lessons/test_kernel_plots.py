"""The kernels' pictures say what they are given."""

from __future__ import annotations

from matplotlib.figure import Figure

from tinyllm import plots


def words(figure: Figure) -> str:
    """All text of a figure's first axes."""
    ax = figure.axes[0]
    return " | ".join([ax.get_title(), *(text.get_text() for text in ax.texts)])


def test_tiles_are_skipped_masked_or_whole() -> None:
    own = [40 + row // 3 for row in range(24)]
    assert "2 whole" in words(plots.score_tiles(own, tile=16))
    assert "1 masked" in words(plots.score_tiles(own, tile=16))
    windowed = words(plots.score_tiles(own, tile=16, window=16))
    assert "1 skipped, 2 masked" in windowed
    assert "whole" not in windowed
    one = plots.score_tiles([3], tile=16)
    assert "1 masked" in words(one)
    assert sum(patch.get_width() == 1 for patch in one.axes[0].patches) == 4, "positions 0 to 3 are seen"


def test_programs_are_told_in_numbers() -> None:
    told = words(plots.programs({"one": 8, "many": 512}, num_processors=132))
    assert "8 programs, 6% of the processors" in told
    assert "512 programs, 100% of the processors" in told


def test_the_running_softmax_names_each_total() -> None:
    figure = plots.running_softmax([1.0, 3.0, 2.0, 5.0, 0.0], 2, [3.0, 5.0, 5.0], [1.25, 1.4375, 1.46875])
    assert [text.get_text() for text in figure.axes[0].texts] == ["total 1.25", "total 1.44", "total 1.47"]

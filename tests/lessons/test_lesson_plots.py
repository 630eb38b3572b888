"""The pictures: each draws what it was given, says it without color too, and leaves no figure open."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinyllm import plots
from tinyllm.engine.metrics import RequestMetrics, StepRecord
from tinyllm.engine.report import Distribution
from tinyllm.experts.training import TrainingRun
from tinyllm.kv_cache.sizing import Waste
from tinyllm.model.rope import rotary_cos_sin
from tinyllm.plots import TableView
from tinyllm.plots.style import SERIES, VERMILION, ink_on

TEN = TableView([12, 5, 3], 10)
FORK = {"A": TableView([12, 5, 8], 11), "B": TableView([12, 5, 3], 11)}

THROUGHPUT = {
    "num_output_tokens": 100,
    "tokens_per_second": {"tinyllm": 50.0, "one_by_one": 5.0, "padded_8": 10.0, "continuous_batching": 4.0},
    "seconds": {"tinyllm": [2, 3], "one_by_one": [20], "padded_8": [10], "continuous_batching": [25]},
}
STEP_RECORDS = [StepRecord(i, 0.1 * i, 0.1 * i + 0.05, 10 * (i == 0), i, 1, 0, 9, 1, 1, 5, 3, 0) for i in range(3)]
TIMES = [RequestMetrics(arrival, [arrival + 1, arrival + 2]) for arrival in (0.0, 0.5)]
SPREAD = Distribution.of([0.1, 0.2, 0.9])
PADDED = [1, 6, 6, 6, 0, 3, 4, 6, 2, 5, 6, 6]  # six pairs of three experts in blocks of 4
STEPS = {"256": {"outside_ms": 1.0}, "1900": {"outside_ms": 2.0}}
ROUTED = TrainingRun(torch.tensor([[4, 4], [2, 6]]).repeat_interleave(10, 0), torch.zeros(20))

PICTURES: dict[str, Callable[[], Figure]] = {
    "pool": lambda: plots.pool(FORK, 16, 4, {"A": "Ten tokens!", "B": "Ten tokens?"}),
    "block_table": lambda: plots.block_table(TEN, "Ten tokens", 16, 4),
    "sharing_graph": lambda: plots.sharing_graph(FORK),
    "pool_over_time": lambda: plots.pool_over_time([[("a",), (), ("a", "b")]] * 5),
    "reservation": lambda: plots.reservation(40, 16, [(10, 13), (6, 9), (3, 11)], 4),
    "waste_stack": lambda: plots.waste_stack({"contiguous": Waste(16, 6, 10, 8), "nothing": Waste(0, 0, 0, 0)}),
    "waste_bars": lambda: plots.waste_bars({"ShareGPT": {"P = 16": 0.015}, "Alpaca": {"P = 16": 0.068}}),
    "requests_at_once": lambda: plots.requests_at_once({"contiguous": [8, 8], "paged": [86, 40, 3]}),
    "bytes_per_token": lambda: plots.bytes_per_token({"Qwen3-0.6B": 114_688}),
    "kv_rows": lambda: plots.kv_rows({"pool": torch.zeros(8, 4), "gathered": torch.ones(3, 4)}, 4),
    "rope_angles": lambda: plots.rope_angles(*rotary_cos_sin(torch.arange(12), 32, 1e4), pairs=[0, 4]),
    "rope_scores": lambda: plots.rope_scores({"query at 60": torch.arange(9.0)}),
    "gqa_heads": lambda: plots.gqa_heads(4, 2),
    "query_norms": lambda: plots.query_norms(torch.rand(5, 4, 8), torch.ones(5, 4, 8)),
    "cost_per_token": lambda: plots.cost_per_token([16, 128], {"dense": [0.001, 0.001]}),
    "phases": lambda: plots.phases({"prefill": 4000.0, "decode": 300.0}),
    "token_timeline": lambda: plots.token_timeline(1.0, [1.05, 1.06]),
    "causal_mask": lambda: plots.causal_mask("Ten tokens", 4),
    "merged_softmax": lambda: plots.merged_softmax({"a": [0.5, 0.5], "b": [1.0]}, {"a": 0.75, "b": 0.25}),
    "roofline": lambda: plots.roofline({"decode": (1e9, 1e9, 0.5), "prefill": (1e11, 1e9, 2.0)}, 1e11, 1e10),
    "schedule_grid": lambda: plots.schedule_grid([{"a": 8}, {"a": 1, "b": 7}], [[], ["b"]]),
    "step_timeline": lambda: plots.step_timeline({"static": STEP_RECORDS, "continuous": STEP_RECORDS}),
    "request_spans": lambda: plots.request_spans({"static": TIMES, "continuous": TIMES}),
    "latency_bars": lambda: plots.latency_bars({"static": {"TTFT": SPREAD}, "continuous": {"TTFT": SPREAD}}),
    "running_softmax": lambda: plots.running_softmax([0.5] * 8, 4, [0.5, 0.5], [4.0, 8.0]),
    "programs": lambda: plots.programs({"1 sequence": 8, "64 sequences": 512}, num_processors=132),
    "score_tiles": lambda: plots.score_tiles([40 + row // 3 for row in range(24)], tile=16),
    "dispatch_ribbon": lambda: plots.dispatch_ribbon("Ten", [[1, 0], [2, 1], [1, 2]], [1, 0, 3, 4, 2, 5], {4: PADDED}),
    "rank_rows": lambda: plots.rank_rows("Ten", [[1, 0], [2, 1], [1, 2]], {"rank 0 has": [1, 0], "rank 1 has": []}),
    "router_heat_map": lambda: plots.router_heat_map({"layer 4": [[0.5, 0.5], [1.0, 0.0]]}, ["name", "digit"]),
    "touched_experts": lambda: plots.touched_experts([1, 2, 4], {"the law": [2, 3.5, 5.5]}, [2, 3.4, 5.2], 8),
    "placement_bars": lambda: plots.placement_bars({"in order": {"talk": 1.5}, "packed": {"talk": 1.25}}),
    "throughput_bars": lambda: plots.throughput_bars(THROUGHPUT),
    "expert_load": lambda: plots.expert_load({"none": ROUTED, "bias": ROUTED}),
    "step_overhead": lambda: plots.step_overhead({"stand_in": {"1": STEPS, "64": STEPS}}),
}


@pytest.fixture(autouse=True)
def off_screen() -> Iterator[None]:
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    matplotlib.use(before)


def texts(figure: Figure) -> list[str]:
    shown = [t.get_text() for ax in figure.axes for t in ax.texts]
    titles = [ax.get_title() for ax in figure.axes]
    legends = [ax.get_legend() for ax in figure.axes]
    return shown + titles + [t.get_text() for legend in legends if legend for t in legend.get_texts()]


def test_every_picture_is_tried_here() -> None:
    assert set(PICTURES) == set(plots.__all__) - {"TableView"}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_closed_figure_that_can_be_drawn(name: str) -> None:
    figure = PICTURES[name]()
    assert isinstance(figure, Figure)
    assert not pyplot.get_fignums()  # else a notebook would show it twice
    figure.canvas.draw()
    assert any(texts(figure)) or figure.get_suptitle()


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_is_cut_off(name: str) -> None:
    figure = PICTURES[name]()
    figure.canvas.draw()
    frame = figure.bbox
    for ax in figure.axes:
        for text in [*ax.texts, ax.title]:
            box = text.get_window_extent()
            assert not text.get_text() or (box.x0 >= -1 and box.x1 <= frame.x1 + 1), text.get_text()
            assert not text.get_text() or (box.y0 >= -1 and box.y1 <= frame.y1 + 1), text.get_text()


def test_the_pool_names_the_owners_of_shared_blocks_and_frames_them() -> None:
    figure = PICTURES["pool"]()
    shown = texts(figure)
    assert {"12: A, B", "5: A, B", "3: B", "8: A", "0"} <= set(shown)
    assert [shown.count(mark) for mark in "!?"] == [1, 1]
    frames = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_linewidth() > 2]
    assert len(frames) == 2
    assert all(tuple(p.get_edgecolor())[:3] == to_rgb(VERMILION) for p in frames)


def test_what_a_frame_and_a_count_mean_is_said_where_they_are() -> None:
    assert "thick red frame: shared" in texts(PICTURES["pool"]())
    assert "thick red frame: shared" not in texts(plots.pool({"ten": TEN}, 16, 4))
    assert any("xN: in the tables of N requests" in text for text in texts(PICTURES["sharing_graph"]()))
    assert "free" in texts(PICTURES["reservation"]())


def test_a_space_looks_the_same_in_all_pictures() -> None:
    for name in ("pool", "block_table", "causal_mask"):
        shown = texts(PICTURES[name]())
        assert "\u2423" in shown, name
        assert " " not in shown, name


def test_one_block_is_not_called_blocks() -> None:
    assert any("1 block;" in text for text in texts(plots.sharing_graph({"a": TableView([3], 1)})))


def test_bytes_are_named_in_the_unit_of_the_axis() -> None:
    figure = PICTURES["bytes_per_token"]()
    assert "KiB" in figure.axes[0].get_xlabel()
    assert [text for text in texts(figure) if text.endswith(" B")] == []
    assert any(text.endswith("112 KiB") for text in texts(figure))


def test_the_timeline_counts_steps_and_draws_all_of_them() -> None:
    """However long a step takes on this machine."""
    for ax in PICTURES["step_timeline"]().axes:
        bars = sorted((p.get_x(), p.get_width()) for p in ax.patches if isinstance(p, Rectangle))
        assert bars == [(step, 1) for step in range(len(STEP_RECORDS))]


def test_the_block_table_draws_each_token_in_the_sequence_and_in_the_pool() -> None:
    shown = texts(PICTURES["block_table"]())
    assert shown.count("k") == 2
    assert {"0: 12", "1: 5", "2: 3"} <= set(shown)


def test_the_sharing_graph_counts_references() -> None:
    shown = texts(PICTURES["sharing_graph"]())
    assert {"12\nx2", "5\nx2", "8", "3"} <= set(shown)
    assert any("4 blocks; without sharing 6" in text for text in shown)


def test_the_pool_over_time_draws_the_chosen_blocks() -> None:
    owners = [[(f"r{block}",) for block in range(10)]] * 4
    figure = plots.pool_over_time(owners, steps=range(0, 40, 10), blocks=range(6, 9))
    (image,) = figure.axes[0].images
    assert np.asarray(image.get_array()).shape == (3, 4)
    assert image.get_extent() == [0, 30, 9, 6]


def test_waste_is_told_by_hatch_as_well_as_color() -> None:
    figure = PICTURES["waste_stack"]()
    hatches = {p.get_hatch() or "" for p in figure.axes[0].patches}
    assert len(hatches) == 4
    assert "60.0 % waste" in texts(figure)


def test_the_peak_is_written_out() -> None:
    assert {"contiguous: at most 8", "paged: at most 86"} <= set(texts(PICTURES["requests_at_once"]()))


def luminance(color: str) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], channels))


@pytest.mark.parametrize("color", SERIES)
def test_text_on_a_color_can_be_read(color: str) -> None:
    """Contrast of at least 3 to 1, what WCAG 2.2 asks of large text and graphics."""
    light, dark = sorted((luminance(color), luminance(ink_on(color))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_a_schedule_says_tokens_by_number_and_marks_who_is_preempted() -> None:
    shown = texts(PICTURES["schedule_grid"]())
    assert {"8", "1", "7", "x", "a", "b"} - set(shown) == {"7"}, "a cell of a preempted request has its cross"
    assert shown.count("8") == 3  # a's chunk, and the sums of both steps


def test_the_causal_mask_writes_a_token_where_it_is_seen() -> None:
    shown = texts(PICTURES["causal_mask"]())
    assert [shown.count(token) for token in "ks"] == [4, 1]


def test_the_roofline_puts_each_dot_at_its_measurement() -> None:
    figure = PICTURES["roofline"]()
    dots = [tuple(c.get_offsets()[0]) for c in figure.axes[0].collections]
    assert dots == [(1.0, 2.0), (100.0, 50.0)]
    assert "decode: 1.0 operations a byte" in texts(figure)


def test_the_load_says_who_is_busiest_and_by_how_much_at_the_end() -> None:
    strip, beside, *_ = PICTURES["expert_load"]().axes
    assert [band.get_hatch() for band in strip.collections] == [None, "///"]
    (words,) = (text.get_text() for text in beside.texts)
    assert "MaxVio 0.50" in words
    assert "expert 1,\n1.50 x the mean" in words

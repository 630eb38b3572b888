"""How decodes are put into padded calls: each once, little padding, nothing larger than the processor's cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import drain, make_engine, tiny_model

import tinyllm.attention.torch as attention
from tinyllm.attention.torch import GROUP_FILL, group_by_length
from tinyllm.sampling_params import SamplingParams


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 2000))
def test_groups_hold_each_sequence_once_and_stay_small(context_lens: list[int], max_slots: int) -> None:
    groups = group_by_length(list(range(len(context_lens))), context_lens, max_slots)
    assert sorted(i for group in groups for i in group) == list(range(len(context_lens)))
    for group in groups:
        lens = [context_lens[i] for i in group]
        assert lens[0] == max(lens)  # decode_group pads to the first
        assert min(lens) >= GROUP_FILL * max(lens)
        assert len(group) == 1 or len(group) * max(lens) <= max_slots


def test_sequences_of_one_length_share_a_call_where_they_fit() -> None:
    assert group_by_length([0, 1, 2, 3], [10, 10, 10, 10], max_slots=40) == [[0, 1, 2, 3]]
    assert group_by_length([0, 1, 2, 3], [10, 10, 10, 10], max_slots=39) == [[0, 1, 2], [3]]


@pytest.mark.parametrize("gqa_ratio", [1, 3])
def test_the_size_of_groups_does_not_change_the_answer(gqa_ratio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(gqa_ratio)
    outputs = []
    for group_bytes in (attention.GROUP_BYTES, 1):
        monkeypatch.setattr(attention, "GROUP_BYTES", group_bytes)
        engine = make_engine(model)
        for number in range(6):
            prompt = list(range(1, 4 + number))
            engine.add_request(prompt, SamplingParams(max_tokens=12), f"request-{number}")
        outputs.append(drain(engine))
    assert outputs[0] == outputs[1]

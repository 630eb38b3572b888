"""Arithmetic of KV bytes and waste, by counting slots one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.shapes import QWEN3_0_6B
from tinyllm.config import ModelConfig
from tinyllm.kv_cache.sizing import Snapshot, Waste, kv_bytes_per_token, reservation_waste
from tinyllm.kv_cache.storage import PagedKVCache


def test_qwen3_0_6b_keeps_112_kib_a_token() -> None:
    assert kv_bytes_per_token(QWEN3_0_6B, bytes_per_element=2) == 112 * 1024


def test_bytes_are_those_that_the_storage_takes() -> None:
    storage = PagedKVCache(num_layers=3, num_blocks=5, block_size=4, num_kv_heads=2, head_dim=8)
    config = ModelConfig(
        vocab_size=10,
        hidden_size=64,
        intermediate_size=64,
        num_layers=3,
        num_heads=8,
        num_kv_heads=2,
        head_dim=8,
    )
    assert storage.k.nbytes + storage.v.nbytes == kv_bytes_per_token(config, 4) * 5 * 4


SNAPSHOTS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 12)).map(lambda pair: Snapshot(pair[0], pair[0] + pair[1])),
    max_size=8,
)


@given(SNAPSHOTS, st.integers(0, 120), st.integers(1, 9), st.booleans())
def test_waste_counts_every_slot_once(requests: list[Snapshot], num_slots: int, region: int, paged: bool) -> None:
    if not paged:
        region += 32  # no request may outgrow its region
    labels = ["free"] * (num_slots // region * region) + ["external"] * (num_slots % region)
    place = 0
    for request in requests:
        size = region
        while paged and size < request.num_tokens:
            size += region
        if place + size > num_slots - num_slots % region:
            break
        for offset in range(size):
            if offset < request.num_tokens:
                label = "used"
            elif offset < request.final_num_tokens and not paged:
                label = "reserved"
            else:
                label = "internal"
            labels[place + offset] = label
        place += size
    expected = Waste(*(labels.count(kind) for kind in Waste._fields))
    assert reservation_waste(requests, num_slots, region, paged) == expected


def test_an_empty_pool_wastes_nothing() -> None:
    assert reservation_waste([], num_slots=0, region=4, paged=True).fraction == 0.0

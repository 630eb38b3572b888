"""The KV cache as the engine sees it: tables by request over one pool, with sharing, and eviction when it is full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tinyllm.config import CacheConfig, ModelConfig
from tinyllm.errors import PartError
from tinyllm.kv_cache.base import KVStorage
from tinyllm.parts import Parts


class KVCacheManager:
    """Owns the pool of one engine: allocator, storage, block tables and prefix cache, made from `parts`.

    Attributes:
        null_block: stands in tables where a block was released, as in vLLM; nobody reads or writes it.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: CacheConfig,
        parts: Parts,
        dtype: torch.dtype,
        device: str | torch.device,
        windows: bool = False,
    ) -> None:
        """Reserve the whole pool.

        Args:
            model: its layers, KV heads and head dimension are the pool's.
            parts: what the pool is made of; its `PagedKVCache` may be any `KVStorage`.
            dtype: of the pool; it need not be that of the weights.
            windows: take one block out of the pool to be the null block, so that `release_before` works.
        """
        self.block_size = config.block_size
        self.num_blocks = config.num_blocks
        self.parts = parts
        self.allocator = parts["BlockAllocator"](config.num_blocks)
        self.storage: KVStorage = parts["PagedKVCache"](
            model.num_layers,
            config.num_blocks,
            config.block_size,
            model.num_kv_heads,
            model.head_dim,
            dtype,
            device,
        )
        self.copy_on_write = parts["CopyOnWrite"](self.allocator, self.storage.copy_block)
        self.prefix_cache = None
        if config.enable_prefix_caching:
            self.prefix_cache = parts["PrefixCache"](self.allocator, config.block_size)
        self.null_block = self.allocator.allocate(1)[0] if windows else None
        self.tables: dict[str, Any] = {}

    # ------------------------------------------------------------ a request's life

    def start(self, request_id: str, token_ids: Sequence[int]) -> int | None:
        """Open a table for a request, with the cached blocks that its tokens begin with.

        Returns:
            How many tokens need no computing, or None, with nothing changed, while the rest does not fit in the pool.
        """
        block_ids = list(self.prefix_cache.match(token_ids)) if self.prefix_cache else []
        num_cached = len(block_ids) * self.block_size
        if num_cached >= len(token_ids):
            raise PartError(f"PrefixCache.match covered all {len(token_ids)} tokens; one must be left to compute")
        table = self.parts["BlockTable"](self.allocator, self.block_size, block_ids, num_cached)
        if not self._make_room(table.num_new_blocks(len(token_ids) - num_cached)):
            table.release()
            return None
        self.tables[request_id] = table
        return num_cached

    def append(self, request_id: str, num_tokens: int) -> list[int] | None:
        """Make room for a request's next tokens, copying a shared block first if it will be written.

        Returns:
            The slots of the tokens, or None, with the table unchanged, when the pool is full.
        """
        if num_tokens < 0:
            raise PartError(f"the Scheduler asked for {num_tokens} slots for {request_id!r}: it gives more than it has")
        table = self.table(request_id)
        needed = table.num_new_blocks(num_tokens) + int(self.copy_on_write.needs_copy(table))
        if not self._make_room(needed):
            return None
        slots = self.copy_on_write.append(table, num_tokens)
        self._check_slots(slots, num_tokens)
        return slots

    def truncate(self, request_id: str, num_tokens: int) -> None:
        """Forget a request's tokens after the first `num_tokens`; blocks that held only those are given up.

        What another owner still sees of them stays as it is: the next `append` copies a shared last block.

        Raises:
            ValueError: the next token would go into a block that `release_before` has given up.
        """
        table = self.table(request_id)
        if table.num_tokens <= num_tokens:
            return
        num_kept = -(-num_tokens // self.block_size)
        if num_tokens % self.block_size and table.block_ids[num_kept - 1] == self.null_block:
            raise ValueError(f"{request_id!r} cannot go back to {num_tokens} tokens: their last block was released")
        kept, dropped = table.block_ids[:num_kept], table.block_ids[num_kept:]
        self.tables[request_id] = self.parts["BlockTable"](self.allocator, self.block_size, kept, num_tokens)
        for block_id in reversed(dropped):
            self.allocator.free(block_id)

    def release_before(self, request_id: str, position: int, num_sinks: int = 0) -> int:
        """Give up a request's blocks of tokens that no later query looks at; the null block takes their place.

        With a window of W tokens, the query at position p looks at p - W + 1 and all after it, and at the attention
        sinks (StreamingLLM, arXiv 2309.17453). What others own of the blocks stays theirs: `cache_blocks` comes first,
        or no other prompt finds them.

        Args:
            position: the first token that a later query may look at; a block is kept if it holds that or a later one.
            num_sinks: S, first tokens that are kept for good, with all of their last block; the same at every call.

        Returns:
            How many blocks the request has given up.

        Raises:
            ValueError: the manager was made without `windows`.
        """
        if self.null_block is None:
            raise ValueError("nothing can be released from this pool: it has no null block; make it with windows=True")
        table = self.table(request_id)
        first = -(-num_sinks // self.block_size)
        num_released = 0
        for i in reversed(range(first, min(position, table.num_tokens) // self.block_size)):
            block_id = table.block_ids[i]
            if block_id == self.null_block:
                break  # all before it were released with it
            self.allocator.share(self.null_block)
            table.block_ids[i] = self.null_block
            self.allocator.free(block_id)
            num_released += 1
        return num_released

    def fork(self, parent_id: str, child_id: str) -> None:
        """Give a new request the tokens of another, sharing all blocks."""
        self.tables[child_id] = self.copy_on_write.fork(self.table(parent_id))

    def cache_blocks(self, request_id: str, token_ids: Sequence[int]) -> None:
        """Put a request's full blocks into the prefix cache; `token_ids` are those whose K and V are computed.

        Blocks behind one that was released stay out: a prompt is found from its beginning on.
        """
        if not self.prefix_cache:
            return
        block_ids = self.table(request_id).block_ids
        if self.null_block in block_ids:
            block_ids = block_ids[: block_ids.index(self.null_block)]
            token_ids = token_ids[: len(block_ids) * self.block_size]
        self.prefix_cache.insert(token_ids, block_ids)

    def free(self, request_id: str) -> None:
        """Close a request's table; blocks that nobody else owns return to the pool."""
        self.tables.pop(request_id).release()

    # ------------------------------------------------------------ looking at the pool

    def table(self, request_id: str) -> Any:
        """The block table of a request: the reference's `BlockTable` or a learner's."""
        return self.tables[request_id]

    @property
    def num_free(self) -> int:
        """Blocks that no table and no prefix holds."""
        return self.allocator.num_free

    @property
    def num_blocks_in_tables(self) -> int:
        """Different blocks that running requests hold, each counted once however many share it.

        Any thread may ask: the tables are listed before they are looked at.
        """
        return len(set().union(*(table.block_ids for table in list(self.tables.values()))) - {self.null_block})

    @property
    def num_cached_blocks(self) -> int:
        """Blocks that only the prefix cache holds. Any thread may ask; during a step it is not exact."""
        num_held = self.num_blocks - self.num_free - (self.null_block is not None)
        return max(0, num_held - self.num_blocks_in_tables)

    @property
    def num_block_references(self) -> int:
        """Blocks that running requests would hold if none were shared."""
        all_ids = [table.block_ids for table in self.tables.values()]
        num_null = 0 if self.null_block is None else sum(block_ids.count(self.null_block) for block_ids in all_ids)
        return sum(map(len, all_ids)) - num_null

    def owners(self) -> list[tuple[str, ...]]:
        """For each block of the pool the requests whose table holds it, for pictures of the pool."""
        owners: list[list[str]] = [[] for _ in range(self.num_blocks)]
        for request_id, table in self.tables.items():
            for block_id in table.block_ids:
                if block_id != self.null_block:
                    owners[block_id].append(request_id)
        return [tuple(names) for names in owners]

    # ------------------------------------------------------------ inside

    def _make_room(self, num_blocks: int) -> bool:
        """Evict cached blocks until `num_blocks` are free; False when that cannot be reached."""
        shortage = num_blocks - self.allocator.num_free
        if shortage > 0 and self.prefix_cache:
            self.prefix_cache.evict(shortage)
        return bool(self.allocator.num_free >= num_blocks)

    def _check_slots(self, slots: Sequence[int], num_tokens: int) -> None:
        """Catch a table that hands out nonsense here, where it can be named, not later inside a tensor operation."""
        num_slots = self.num_blocks * self.block_size
        if len(slots) != num_tokens or not all(0 <= slot < num_slots for slot in slots):
            raise PartError(
                f"BlockTable or CopyOnWrite returned {list(slots)[:8]} as the slots of {num_tokens} tokens; "
                f"there must be {num_tokens} of them, each from 0 to {num_slots - 1}"
            )

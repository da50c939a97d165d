"""Which blocks of the key-value cache belong to which sequence: nothing lost, nothing shared."""

from __future__ import annotations

from collections.abc import Iterable

from appliance.engine.sequence import Sequence


class BlockAllocator:
    """Hands out blocks by number; the keys and values themselves live in the runner.

    A sequence holds the blocks of the tokens it has, and gets another when it outgrows them.
    """

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"{num_blocks} blocks of {block_size} tokens: both must be at least 1")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free_blocks = list(
            range(num_blocks - 1, -1, -1)
        )  # a stack: the block freed last is used first

    @property
    def num_free_blocks(self) -> int:
        return len(self._free_blocks)

    @property
    def num_used_blocks(self) -> int:
        return self.num_blocks - len(self._free_blocks)

    @property
    def capacity_tokens(self) -> int:
        """The most tokens one sequence can hold when it has the cache to itself."""
        return self.num_blocks * self.block_size

    def num_missing_blocks(self, sequence: Sequence) -> int:
        """How many blocks a sequence lacks for the tokens it has."""
        return -(-len(sequence.token_ids) // self.block_size) - len(sequence.block_table)

    def allocate(self, sequence: Sequence, *, num_spare: int = 0) -> bool:
        """Give a sequence the blocks it lacks; False if that would leave fewer than `num_spare`."""
        num_missing = self.num_missing_blocks(sequence)
        split = len(self._free_blocks) - num_missing
        if split < num_spare:
            return False
        sequence.block_table += self._free_blocks[split:][::-1]
        del self._free_blocks[split:]
        return True

    def free(self, sequence: Sequence) -> None:
        """Take the blocks back; a sequence that holds none, queued say, is fine."""
        self._free_blocks.extend(reversed(sequence.block_table))
        sequence.block_table = []

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raise unless the free blocks and those of `sequences` are every block exactly once."""
        held = [block for sequence in sequences for block in sequence.block_table]
        if sorted(held + self._free_blocks) != list(range(self.num_blocks)):
            raise AssertionError(
                f"blocks lost or shared: {sorted(held)} held, {sorted(self._free_blocks)} free"
            )

"""Assigns blocks of the key-value cache to sequences, which share blocks of the same content."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b

from appliance.engine.sequence import Sequence

DIGEST_BYTES = 32


class BlockAllocator:
    """Hands out blocks by number; the keys and values themselves live in the runner.

    A sequence holds the blocks of the tokens it has, and gets another when it outgrows them.

    With `shares_prefixes` a full block is known by its content: a digest of the sequence's salt and
    of all tokens up to the block's end. Sequences with the same tokens under the same salt hold
    the same block, which is not written again. A known block without a holder stays known until
    blocks run out: then the one that was freed longest ago is taken, and of one sequence the last
    before the first.
    """

    def __init__(self, *, num_blocks: int, block_size: int, shares_prefixes: bool = False) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"{num_blocks} blocks of {block_size} tokens: both must be at least 1")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.shares_prefixes = shares_prefixes
        self._blank_blocks = list(
            range(num_blocks - 1, -1, -1)
        )  # free and unknown; a stack: the block freed last is used first
        self._resting_blocks: dict[int, None] = {}  # free and known, in the order of their freeing
        self._num_holders = [0] * num_blocks
        self._block_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}

    @property
    def num_free_blocks(self) -> int:
        return len(self._blank_blocks) + len(self._resting_blocks)

    @property
    def num_used_blocks(self) -> int:
        return self.num_blocks - self.num_free_blocks

    @property
    def capacity_tokens(self) -> int:
        """Return the most tokens one sequence can hold when it has the cache to itself."""
        return self.num_blocks * self.block_size

    def allocate(self, sequence: Sequence, *, num_tokens: int = 0, num_spare: int = 0) -> bool:
        """Give a sequence the blocks it lacks for its tokens, or for `num_tokens` if that is more.

        Returns False, and changes nothing, if that would leave fewer than `num_spare` free. A
        sequence without blocks begins with the known ones, their tokens counted as computed.
        """
        num_tokens = max(num_tokens, len(sequence.token_ids))
        if sequence.block_table and num_tokens <= len(sequence.block_table) * self.block_size:
            return True
        shared = [] if sequence.block_table else list(self._known_blocks(sequence, 0))
        num_held = len(sequence.block_table) + len(shared)
        num_missing = max(-(-num_tokens // self.block_size) - num_held, 0)
        num_resting = sum(not self._num_holders[block] for block in shared)
        if self.num_free_blocks - num_missing - num_resting < num_spare:
            return False
        for block in shared:
            self._hold(block)
        sequence.num_cached_tokens += len(shared) * self.block_size
        sequence.block_table += shared
        for _ in range(num_missing):
            sequence.block_table.append(self._take())
        return True

    def adopt(self, sequence: Sequence) -> None:
        """Replace blocks that a sequence has yet to compute by known ones of the same content."""
        first = sequence.num_cached_tokens // self.block_size
        for index, block in enumerate(self._known_blocks(sequence, first), first):
            self._hold(block)
            self._release(sequence.block_table[index])
            sequence.block_table[index] = block
            sequence.num_cached_tokens = (index + 1) * self.block_size

    def publish(self, sequence: Sequence, start: int, end: int) -> None:
        """Make the blocks known that the computation of tokens [start, end) fills.

        Skips those of an embedding: their salt does not come again, and they would evict others.
        """
        if not self.shares_prefixes or sequence.is_pooled:
            return
        for index in range(start // self.block_size, end // self.block_size):
            block, digest = sequence.block_table[index], self._digest(sequence, index)
            if digest not in self._block_of:  # else another sequence computed the same
                self._block_of[digest] = block
                self._digest_of[block] = digest

    def retract(self, sequence: Sequence, start: int) -> None:
        """Forget the blocks published for tokens from `start` on, which were not computed."""
        for block in sequence.block_table[start // self.block_size :]:
            self._forget(block)

    def forget_all(self) -> None:
        """Forget the content of every block."""
        self._block_of.clear()
        self._digest_of.clear()
        self._blank_blocks.extend(self._resting_blocks)
        self._resting_blocks.clear()

    def free(self, sequence: Sequence) -> None:
        """Take a sequence's blocks back, if it holds any."""
        for block in reversed(sequence.block_table):
            self._release(block)
        sequence.block_table = []

    def _known_blocks(self, sequence: Sequence, first: int) -> Iterator[int]:
        """Yield the known blocks that continue a sequence after its first `first` blocks."""
        if not self.shares_prefixes:
            return
        for index in range(first, sequence.num_reusable_tokens // self.block_size):
            block = self._block_of.get(self._digest(sequence, index))
            if block is None:
                return
            yield block

    def _digest(self, sequence: Sequence, index: int) -> bytes:
        """Return the digest of block `index` of a sequence, over its tokens up to the end."""
        digests, size = sequence.block_digests, self.block_size
        if not digests:
            digests.append(blake2b(sequence.cache_salt, digest_size=DIGEST_BYTES).digest())
        while len(digests) <= index + 1:
            start = (len(digests) - 1) * size
            tokens = array("q", sequence.token_ids[start : start + size])
            content = digests[-1] + tokens.tobytes()
            digests.append(blake2b(content, digest_size=DIGEST_BYTES).digest())
        return digests[index + 1]

    def _take(self) -> int:
        if not self._blank_blocks:
            self._forget(next(iter(self._resting_blocks)))
        block = self._blank_blocks.pop()
        self._num_holders[block] = 1
        return block

    def _hold(self, block: int) -> None:
        if not self._num_holders[block]:
            del self._resting_blocks[block]
        self._num_holders[block] += 1

    def _release(self, block: int) -> None:
        self._num_holders[block] -= 1
        if self._num_holders[block]:
            return
        if block in self._digest_of:
            self._resting_blocks[block] = None
        else:
            self._blank_blocks.append(block)

    def _forget(self, block: int) -> None:
        digest = self._digest_of.pop(block, None)
        if digest is None:
            return
        del self._block_of[digest]
        if not self._num_holders[block]:
            del self._resting_blocks[block]
            self._blank_blocks.append(block)

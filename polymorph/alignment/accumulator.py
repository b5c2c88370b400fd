"""Moments of many pairs of members, collected chunk by chunk in memory that does not depend on the number of tokens."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polymorph.alignment.moments import PairMoments, finite, scatter

SLICE_TOKENS = 512  # centred together: long enough for full-speed products, short enough for the cache


GATHER_NUMBERS = 2**20  # float64 numbers to copy at a time when members are lined up into pairs (8 MiB)


def pair_moments(x: Float[Tensor, "n d_x"], y: Float[Tensor, "n d_y"]) -> PairMoments:
    """Moments of two tensors of activations on the same tokens, without leading axes."""
    accumulator = MomentAccumulator([(0, 0)], blocks=1)
    accumulator.update(x[None], torch.zeros(x.shape[0], dtype=torch.long), right=y[None])
    return accumulator.total()[0]


class MomentAccumulator:
    """Collects the moments of many pairs of members at one site, chunk by chunk.

    `pairs` are (left member, right member). A member's own second moments are computed once per member, the
    cross moments once per pair. `moment_bytes` says what it holds.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], blocks: int = 16) -> None:
        if not pairs or blocks < 1:
            raise ValueError(f"moments need at least one pair and one block, got {len(pairs)} and {blocks}")
        self.pairs, self.blocks = tuple(pairs), blocks
        self._sums: _Sums | None = None

    def update(
        self,
        x: Float[Tensor, "members n d"],
        document: Int[Tensor, "n"],
        right: Float[Tensor, "others n d_right"] | None = None,
    ) -> None:
        """Add tokens. Without `right`, both sides of every pair are members of `x`, on the same tokens.

        With `right`, a pair is (member of `x`, member of `right`), token by token in the order given, so that
        a shuffled pairing goes the same way as a true one. `document` [n] decides the blocks.
        """
        sides = (finite(x, "x"),) if right is None else (finite(x, "x"), finite(right, "right"))
        if any(side.ndim != 3 for side in sides):
            raise ValueError(f"activations are [members n d], not {[tuple(side.shape) for side in sides]}")
        counts = {side.shape[1] for side in sides} | {document.shape[0]}
        if len(counts) > 1:
            raise ValueError(f"the sides and the documents have unequal numbers of tokens: {sorted(counts)}")
        if self._sums is None:
            self._sums = _Sums(self.pairs, self.blocks, sides)
        self._sums.check(sides)
        slices = list(_slices((document % self.blocks).to(x.device), self.blocks))
        longest = max((len(tokens) for _, tokens in slices), default=0)
        spaces = [_space(side, longest) for side in sides]
        for block, tokens in slices:
            self._sums.absorb(block, [side[:, tokens] for side in sides], spaces)

    def result(self, places: Sequence[int] | None = None) -> PairMoments:
        """Moments with leading axes [blocks, pairs], of all pairs or of those at some places among them.

        A block without tokens has n = 0.
        """
        if self._sums is None:
            raise ValueError("no tokens were given: there are no moments")
        return self._sums.moments(list(range(len(self.pairs)) if places is None else places))

    def total(self) -> PairMoments:
        """Moments of all blocks together, with the leading axis [pairs]; never expanded to [blocks, pairs]."""
        if self._sums is None:
            raise ValueError("no tokens were given: there are no moments")
        return self._sums.total()


def moment_bytes(members: int, pairs: int, d: int, blocks: int = 16) -> int:
    """Bytes of float64 sums that one `MomentAccumulator` holds, whatever the number of tokens.

    `pairs` is their number. `result()` makes another blocks · pairs · 3 d² numbers, `total()` pairs · 3 d².
    """
    return 8 * blocks * (1 + members * (d + d * d) + pairs * d * d)


class _Sums:
    """The running sums of a `MomentAccumulator`: one side for both of a pair, or a left and a right.

    Cross sums are kept as Σ y xᵀ in the order of the sorted pairs, so that those of one left member with
    neighbouring right ones are a single matrix [k·d_y d_x] and one product adds to all of them.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], blocks: int, like: Sequence[Tensor]) -> None:
        left, right = like[0], like[-1]
        first, second = zip(*pairs, strict=True)
        if min(first + second) < 0 or max(first) >= left.shape[0] or max(second) >= right.shape[0]:
            raise ValueError(f"a pair is outside the {left.shape[0]} and {right.shape[0]} members: {pairs}")
        self.first, self.second = torch.tensor(first).to(left.device), torch.tensor(second).to(left.device)
        order = sorted(range(len(pairs)), key=lambda at: pairs[at])
        self.runs = _runs([pairs[at] for at in order])
        self.place = torch.tensor(order).argsort().to(left.device)
        self.n = torch.zeros(blocks, dtype=torch.float64)
        self.sides = [_Side(blocks, values) for values in like]
        shape = blocks, len(pairs), right.shape[2], left.shape[2]
        self.cross = torch.zeros(shape, dtype=torch.float64, device=left.device)

    def check(self, chunk: Sequence[Tensor]) -> None:
        """Refuse a chunk that does not continue the earlier ones."""
        if len(chunk) != len(self.sides):
            raise ValueError("an accumulator takes either one x for both sides or always a separate right")
        for values, side in zip(chunk, self.sides, strict=True):
            if (values.shape[0], values.shape[2]) != tuple(side.mean.shape[1:]):
                raise ValueError(f"members or d changed: {tuple(values.shape)}, {tuple(side.mean.shape)}")

    def absorb(self, block: int, chunk: Sequence[Tensor], spaces: Sequence[Tensor]) -> None:
        """Add the tokens of one block; `spaces` [tokens members d] are written over."""
        seen = float(self.n[block])
        each = zip(self.sides, chunk, spaces, strict=True)
        rows = [side.absorb(block, values, seen, space) for side, values, space in each]
        left, right = rows[0], rows[-1].flatten(1)
        d_y, d_x = self.cross.shape[2:]
        for pairs, i, j in self.runs:
            some = right[:, j.start * d_y : j.stop * d_y]
            self.cross[block, pairs].view(-1, d_x).addmm_(some.mT, left[:, i])
        self.n[block] += chunk[0].shape[1]

    def moments(self, places: list[int]) -> PairMoments:
        """Every member's sums beside those of its pairs, [blocks, pairs]."""
        n = self.n.to(self.cross.device)[:, None].repeat(1, len(places))
        x, y = self.sides[0], self.sides[-1]
        i, j = self.first[places], self.second[places]
        xy = self.cross[:, self.place[places]].mT
        return PairMoments(n, x.mean[:, i], y.mean[:, j], x.gram[:, i], y.gram[:, j], xy)

    def total(self) -> PairMoments:
        """The blocks merged member by member and pair by pair, then lined up, [pairs]."""
        n = self.n.to(self.cross.device)
        merged = [side.total(n) for side in self.sides]
        (mean_x, dx, xx), (mean_y, dy, yy) = merged[0], merged[-1]
        i, j = self.first, self.second
        xy = self.cross.sum(0)[self.place].mT + scatter(n[:, None].expand(-1, len(i)), dx[:, i], dy[:, j])
        return PairMoments(n.sum().repeat(len(i)), mean_x[i], mean_y[j], xx[i], yy[j], xy)


class _Side:
    """Means [blocks members d] and centred Gram sums [blocks members d d] of the members on one side."""

    def __init__(self, blocks: int, like: Tensor) -> None:
        members, _, d = like.shape
        self.mean = torch.zeros(blocks, members, d, dtype=torch.float64, device=like.device)
        self.gram = torch.zeros(blocks, members, d, d, dtype=torch.float64, device=like.device)

    def absorb(self, block: int, x: Tensor, seen: float, space: Tensor) -> Tensor:
        """Add tokens `x` [members n d] to a block of `seen` tokens; return the rows [n+1 members d] in `space`.

        The rows are the tokens centred by their own mean, and one row for the move of the mean: its outer
        product is Chan's merge term, so one product of rows updates a Gram, and rows of two members update
        their cross moment. Tokens lead, so that neighbouring members are the columns of one matrix.
        """
        members, n, d = x.shape
        rows = space[: n + 1]
        rows[:n].copy_(x.transpose(0, 1))
        # a plain copy and a product with ones: reductions and differences of mixed dtypes are far slower
        mean = (rows.new_full((n,), 1 / n) @ rows[:n].flatten(1)).view(members, d)
        rows[:n].sub_(mean)
        move = mean - self.mean[block]
        torch.mul(move, math.sqrt(seen * n / (seen + n)), out=rows[n])
        for gram, own in zip(self.gram[block], rows.unbind(1), strict=True):
            gram.addmm_(own.mT, own)
        self.mean[block] += n / (seen + n) * move
        return rows

    def total(self, n: Float[Tensor, "blocks"]) -> tuple[Tensor, Tensor, Tensor]:
        """All blocks: mean [members d], each block's distance from it, Gram sum [members d d]."""
        mean = torch.einsum("b,bmi->mi", n / n.sum().clamp(min=1), self.mean)
        away = self.mean - mean
        return mean, away, self.gram.sum(0) + scatter(n[:, None].expand(away.shape[:2]), away, away)


def _runs(pairs: Sequence[tuple[int, int]]) -> list[tuple[slice, int, range]]:
    """(places, left, rights) of the maximal stretches of sorted pairs with one left and successive rights."""
    runs: list[tuple[slice, int, range]] = []
    for at, (i, j) in enumerate(pairs):
        if runs and runs[-1][1] == i and runs[-1][2].stop == j:
            places, _, rights = runs.pop()
            runs.append((slice(places.start, at + 1), i, range(rights.start, j + 1)))
        else:
            runs.append((slice(at, at + 1), i, range(j, j + 1)))
    return runs


def _space(side: Tensor, tokens: int) -> Tensor:
    """Room for the float64 rows of a slice; taken once for all slices, as fresh pages cost as much as a copy."""
    members, _, d = side.shape
    return torch.empty(tokens + 1, members, d, dtype=torch.float64, device=side.device)


def _slices(block: Tensor, blocks: int) -> Iterator[tuple[int, Tensor]]:
    """(block, at most SLICE_TOKENS token indices) until every token was named once."""
    order = block.argsort(stable=True)
    for index, tokens in enumerate(order.split(torch.bincount(block, minlength=blocks).tolist())):
        yield from ((index, part) for part in tokens.split(SLICE_TOKENS) if len(part))

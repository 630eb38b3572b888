"""A process group between threads: the collectives of `torch.distributed`, exchanged through the process's memory."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class ExchangeError(RuntimeError):
    """The ranks do not all do the same, or what one sends is not what another expects."""


@dataclass(frozen=True, slots=True)
class Post:
    """What a rank gives to a collective: a piece for each rank, and a place for each rank's piece."""

    name: str
    pieces: Sequence[Tensor]
    places: Sequence[Tensor]


class Board:
    """What the ranks have put up for each other, and who waits for what. Whoever holds `turn` runs."""

    def __init__(self, world_size: int) -> None:
        self.turn = threading.Condition()
        self.posts: list[list[Post]] = [[] for _ in range(world_size)]  # of each rank, its collectives in order
        self.letters: dict[tuple[int, int, int], deque[Tensor]] = defaultdict(deque)  # by sender, receiver and tag
        self.waiting: dict[int, tuple[str, Callable[[], bool]]] = {}
        self.left: dict[int, str] = {}
        self.problem = ""

    def wait(self, rank: int, name: str, ready: Callable[[], bool]) -> None:
        """Let the others run until `ready` says so.

        Raises:
            ExchangeError: it never will.
        """
        self.waiting[rank] = name, ready
        self.look()
        self.turn.wait_for(lambda: ready() or self.problem)
        del self.waiting[rank]
        if not ready():
            raise ExchangeError(self.problem)

    def leave(self, rank: int, how: str) -> None:
        """A rank has "returned", or "failed"."""
        self.left[rank] = how
        self.look()

    def look(self) -> None:
        """Wake those that can go on. If nobody runs and nobody can, those that wait do so in vain."""
        somebody_runs = len(self.waiting) + len(self.left) < len(self.posts)
        if not somebody_runs and not any(ready() for _, ready in self.waiting.values()):
            self.problem = self.problem or self.who_waits()
        self.turn.notify_all()

    def who_waits(self) -> str:
        """Who waits for whom, in words."""
        does: dict[tuple[str, str], list[int]] = defaultdict(list)  # of one rank, and of several
        for rank, (name, _) in sorted(self.waiting.items()):
            does[f"waits in {name}", f"wait in {name}"].append(rank)
        for rank, how in sorted(self.left.items()):
            does[f"has {how}", f"have {how}"].append(rank)
        return ", ".join(
            f"ranks {listed(ranks)} {many}" if len(ranks) > 1 else f"rank {ranks[0]} {one}"
            for (one, many), ranks in does.items()
        )

    def unread(self) -> str:
        """Which letter nobody has taken, in words; empty when there is none."""
        left = sorted(way for way, letters in self.letters.items() if letters)
        return "rank {} has sent rank {} what it never received".format(*left[0]) if left else ""

    def exchange(self, rank: int, name: str, pieces: Sequence[Tensor], places: Sequence[Tensor]) -> Callable[[], None]:
        """Begin a collective: one piece for each rank, and a place for the piece that each rank has for this one.

        Returns:
            What ends it; before that the places hold zeros. It raises ExchangeError on all ranks alike, where one
            calls another collective, or sends what another does not expect.
        """
        number = len(self.posts[rank])
        self.posts[rank].append(Post(name, [piece.detach().clone() for piece in pieces], places))
        for place in places:
            place.detach().zero_()

        def finish() -> None:
            self.wait(rank, name, lambda: all(len(posts) > number for posts in self.posts))
            posts = [posts[number] for posts in self.posts]
            problem = mismatch(posts)
            if problem:
                raise ExchangeError(problem)
            for place, post in zip(places, posts, strict=True):
                place.detach().copy_(post.pieces[rank].reshape(place.shape))

        return finish


def mismatch(posts: Sequence[Post]) -> str:
    """Why the ranks' posts do not make one collective; empty when they do."""
    for rank, post in enumerate(posts):
        if post.name != posts[0].name:
            return f"rank 0 calls {posts[0].name} where rank {rank} calls {post.name}"
    for receiver, post in enumerate(posts):
        for sender, place in enumerate(post.places):
            piece = posts[sender].pieces[receiver]
            if place.numel() != piece.numel() or place.dtype != piece.dtype:
                expects, sends = (f"{item.dtype} of shape {list(item.shape)}" for item in (place, piece))
                return f"in {post.name} rank {receiver} expects {expects} from rank {sender}, which sends {sends}"
    return ""


def listed(ranks: Sequence[int]) -> str:
    """`0, 1 and 3`."""
    *most, last = map(str, ranks)
    return f"{', '.join(most)} and {last}" if most else last


def refuse_strides(name: str, *tensors: Tensor) -> None:
    """Raise for a tensor whose numbers do not lie one behind the other in memory."""
    if not all(tensor.is_contiguous() for tensor in tensors):
        raise ValueError(f"{name} takes contiguous tensors; call .contiguous() first")


class Begun:
    """A call that has begun. torch waits for it at once, or hands it to who asked for `async_op=True`."""

    def __init__(self, finish: Callable[[], None]) -> None:
        self._finish = finish

    def wait(self, timeout: Any = None) -> bool:
        """Return when it is done."""
        finish, self._finish = self._finish, lambda: None
        finish()
        return True


Group: Any = dist.ProcessGroup  # whose declared signatures are those of C++, with their overloads


class ThreadGroup(Group):
    """The group as one rank sees it. What gloo does not take, such as a list of unequal tensors, it refuses too."""

    def __init__(self, board: Board, rank: int) -> None:
        super().__init__(rank, len(board.posts))
        self._board = board

    def all_to_all_single(
        self, output: Tensor, input: Tensor, output_splits: list[int], input_splits: list[int], *_: Any
    ) -> Begun:
        """Rows to each rank, and rows from each: as many as the splits say, or the same for all."""
        refuse_strides("all_to_all_single", output, input)
        return self._exchange("all_to_all_single", self._split(input, input_splits), self._split(output, output_splits))

    def alltoall(self, outputs: list[Tensor], inputs: list[Tensor], *_: Any) -> Begun:
        """A list of tensors, one for each rank."""
        if len({tensor.shape for tensor in (*outputs, *inputs)}) > 1:
            raise RuntimeError("gloo's all_to_all takes tensors of one shape; all_to_all_single takes uneven splits")
        return self._exchange("all_to_all", inputs, outputs)

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], *_: Any) -> Begun:
        """Every rank's tensor, as a list."""
        return self._exchange("all_gather", inputs * self.size(), outputs[0])

    def all_gather_single(self, output: Tensor, input: Tensor, *_: Any) -> Begun:
        """Every rank's tensor, one behind the other in one."""
        places = output.view(-1).tensor_split(self.size())
        return self._exchange("all_gather_into_tensor", [input] * self.size(), places)

    def allreduce(self, tensors: list[Tensor], options: Any) -> Begun:
        """The sum of all ranks' tensors, or the largest or smallest number in each place; in place."""
        reductions: list[tuple[Any, Callable[..., Tensor]]] = [
            (dist.ReduceOp.SUM, torch.sum),
            (dist.ReduceOp.MAX, torch.amax),
            (dist.ReduceOp.MIN, torch.amin),
        ]
        reduce = next((function for op, function in reductions if options.reduceOp == op), None)
        if reduce is None:
            raise ValueError("between threads all_reduce takes SUM, MAX and MIN, and nothing else")
        places = [torch.empty_like(tensors[0]) for _ in range(self.size())]
        gathering = self._exchange("all_reduce", tensors * self.size(), places)

        def finish() -> None:
            gathering.wait()
            tensors[0].detach().copy_(reduce(torch.stack(places), dim=0))

        return Begun(finish)

    def barrier(self, *_: Any, **__: Any) -> Begun:
        """Nobody goes on before all are here."""
        nothing = [torch.empty(0)] * self.size()
        return self._exchange("barrier", nothing, nothing)

    def send(self, tensors: list[Tensor], receiver: int, tag: int) -> Begun:
        """A tensor to another rank, which may take it later."""
        if receiver == self.rank():
            raise ValueError(f"rank {receiver} sends to itself, which gloo does not do; copy the tensor")
        refuse_strides("send", *tensors)
        self._board.letters[self.rank(), receiver, tag].append(tensors[0].detach().clone())
        return Begun(lambda: None)

    def recv(self, tensors: list[Tensor], sender: int, tag: int) -> Begun:
        """A tensor from another rank; it is there after `wait`."""
        refuse_strides("recv", *tensors)
        letters = self._board.letters[sender, self.rank(), tag]

        def finish() -> None:
            self._board.wait(self.rank(), f"recv from rank {sender}", lambda: bool(letters))
            tensors[0].detach().copy_(letters.popleft())

        return Begun(finish)

    def _exchange(self, name: str, pieces: Sequence[Tensor], places: Sequence[Tensor]) -> Begun:
        return Begun(self._board.exchange(self.rank(), name, pieces, places))

    def _split(self, tensor: Tensor, splits: list[int] | Tensor) -> tuple[Tensor, ...]:
        """The rows for each rank, or from each."""
        if isinstance(splits, Tensor):
            raise TypeError("the splits must be lists of numbers, got a tensor; call .tolist()")
        num_rows, num_ranks = len(tensor), self.size()
        if not splits and num_rows % num_ranks:
            raise ValueError(f"{num_rows} rows cannot be shared evenly among {num_ranks} ranks; say the splits")
        sizes = [int(size) for size in splits] or [num_rows // num_ranks] * num_ranks
        if len(sizes) != num_ranks or sum(sizes) != num_rows:
            raise ValueError(f"the splits {sizes} do not share {num_rows} rows out among {num_ranks} ranks")
        return tensor.split(sizes)

    alltoall_base, _allgather_base = all_to_all_single, all_gather_single  # as torch before 2.13 calls them

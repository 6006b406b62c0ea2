"""The processes that train together: one alone, or several started by torchrun.

Every member draws the same batch and embeds its own part of it. Embeddings are gathered, so that pairs across members count,
and gradients are summed, so that all take the same step.

N faces, D dimensions of an embedding.
"""

import datetime
import os
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, distributed, nn

__all__ = ["ALONE", "Team", "join_team"]

TIMEOUT = datetime.timedelta(minutes=10)


class Team:
    """One member's view of the team.

    Args:
        rank: this member's number, from 0; 0 writes what is kept.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this member is the one that writes."""
        return self.rank == 0

    def gather(self, part_ND: Tensor, sizes: Sequence[int]) -> Tensor:
        """Everybody's rows in the order of ranks, without their gradients.

        Args:
            part_ND: this member's rows, (sizes[rank], D).
            sizes: rows of each member.
        """
        if self.size == 1:
            return part_ND.detach()
        padded = part_ND.new_zeros((max(sizes), *part_ND.shape[1:]))
        padded[: len(part_ND)] = part_ND.detach()
        everybody = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(everybody, padded)
        return torch.cat([rows[:size] for rows, size in zip(everybody, sizes, strict=True)])

    def sum(self, tensor: Tensor) -> Tensor:
        """The members' tensors, added; in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, modules: Iterable[nn.Module]) -> None:
        """Replace every gradient by the sum of the members' ones, in one exchange."""
        if self.size == 1:
            return
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
        distributed.all_reduce(flat)
        start = 0
        for p in parameters:
            p.grad = flat[start : start + p.numel()].reshape(p.shape).to(memory_format=_format_of(p))
            start += p.numel()

    def agree(self, modules: Iterable[nn.Module]) -> None:
        """Give every member the first one's weights and running statistics."""
        if self.size == 1:
            return
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                distributed.broadcast(tensor.data, src=0)

    def any(self, answer: bool, device: str) -> bool:
        """Whether any member says yes."""
        return bool(self.sum(torch.tensor(float(answer), device=device)).item())


ALONE = Team()
"""A process that trains by itself."""


def join_team(device: str) -> tuple[Team, str]:
    """Join the team that torchrun started this process for, and choose this member's device.

    Args:
        device: "cpu" (members talk through gloo) or "cuda" (nccl, a GPU a member).

    Returns:
        The team, and "cpu" or this member's "cuda:n".

    Raises:
        RuntimeError: this process was not started by torchrun; the message names the variable that is missing.
    """
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        if name not in os.environ:
            raise RuntimeError(f"{name} is not set: start this by torchrun, which numbers the processes of a team")
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("gloo" if device == "cpu" else "nccl", timeout=TIMEOUT)
    return Team(distributed.get_rank(), distributed.get_world_size()), device


def _format_of(parameter: Tensor) -> torch.memory_format:
    channels_last = parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format

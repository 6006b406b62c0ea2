"""One training step after another: what changes the weights, and all the state that this hangs on.

A step is cut at the embeddings. The loss needs the embeddings of the whole batch at once; the network does not. So the batch
is embedded in parts, the loss's gradient by the embeddings is taken, and each part is pushed back through the network on its
own. A batch that does not fit into memory is cut into more parts, and members of a team each take their share, with the same
pairs and the same gradient but for batch-norm, which sees a part at a time.

N faces, C channels, H rows, W columns, D dimensions of an embedding.

References:
    Gao, Zhang, Han, Callan. Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup. RepL4NLP 2021.
    arXiv:2101.06983.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.augment import apply_changes
from models.batch_norm import recalibrate_batch_norm
from models.batches import Batch, Batches, cut_batch
from models.card import InputSpec
from models.decoder import Decoder
from models.objective import Objective
from models.people import PeopleCrops
from models.preprocess import normalise_pixels
from models.reconstruction import ReconstructionLoss
from models.schedule import parameter_groups, rise_and_fall
from models.snapshot import Snapshot
from models.team import Team
from models.training_settings import TrainingSettings

__all__ = ["EpochLosses", "Trainer", "TrainingDivergedError"]

RECALIBRATION_FACES = 1024
RECALIBRATION_BATCH = 128
FEWEST_FACES = 4
"""In a part of a batch: batch-norm over fewer says nothing."""


class TrainingDivergedError(ValueError):
    """A loss or gradient is no number any more; the message names the batch, `rows` are its faces' row numbers."""

    def __init__(self, message: str, rows: list[int]) -> None:
        super().__init__(message)
        self.rows = rows


class EpochLosses(NamedTuple):
    """An epoch's steps, and their mean losses: of the objective, and of rebuilding both crops of a pair."""

    steps: int
    metric: float
    reconstruction: float


class Trainer:
    """Weights, optimiser, random numbers and clock of one training.

    Args:
        people: to learn from.
        network: the encoder, trained in place.
        decoder: trained in place.
        settings: how.
        spec: the network's input.
        device: "cpu", "cuda" or "cuda:n".
        team: the processes that train together.
    """

    def __init__(
        self,
        people: PeopleCrops,
        *,
        network: nn.Module,
        decoder: Decoder,
        settings: TrainingSettings,
        spec: InputSpec,
        device: str,
        team: Team,
    ) -> None:
        self._people, self._settings, self._spec = people, settings, spec
        self._device, self._team = device, team
        self._network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._decoder = decoder.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._objective = _objective(people, decoder, settings).to(device)
        self._rebuild = ReconstructionLoss()
        self._modules = {"network": self._network, "decoder": self._decoder, "objective": self._objective}
        team.agree(self._modules.values())
        groups = parameter_groups(
            network,
            [self._decoder, self._objective],
            weight_decay=settings.weight_decay,
            backbone_rate=settings.backbone_rate,
        )
        self._optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self._batches = Batches(people.labels, settings)
        self._pixels = people.reader(device)
        self._losses: list[tuple[float, float]] = []  # of the epoch under way
        self._faces = 0
        self._before_s = 0.0
        self._start = time.monotonic()
        self.parts = settings.micro_batches
        self.steps = 0
        self.learning_rate = 0.0

    @property
    def seconds(self) -> float:
        """Since the training began, time between a kill and the resumption left out."""
        return self._before_s + time.monotonic() - self._start

    @property
    def faces(self) -> int:
        """Faces learnt from so far, each as often as it was shown."""
        return self._faces

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, if nothing ends it early."""
        return self._settings.epochs * self._settings.batches_per_epoch

    def out_of_time(self) -> bool:
        """Whether `max_seconds` are over, by the first member's clock."""
        return self._settings.max_seconds is not None and self._clock() >= self._settings.max_seconds

    def run_epoch(self, on_step: Callable[[], None]) -> EpochLosses:
        """Run what is left of an epoch and leave the network ready to embed; `on_step` is called after each step."""
        self._network.train()
        self._decoder.train()
        while len(self._losses) < self._settings.batches_per_epoch and not (self._losses and self.out_of_time()):
            self._losses.append(self._step())
            on_step()
        recalibrate_batch_norm(self._network, self._recalibration_batches())
        metric, reconstruction = np.mean(self._losses, axis=0)
        steps, self._losses = len(self._losses), []
        return EpochLosses(steps, float(metric), float(reconstruction))

    def snapshot(self) -> Snapshot:
        """Everything that the next step hangs on."""
        tensors = {
            f"{name}.{key}": _kept(tensor)
            for name, module in self._modules.items()
            for key, tensor in module.state_dict().items()
        }
        for index, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": _kept(value) for key, value in state.items()}
        choice, tensors["change"] = self._batches.state()
        document = {
            "choice": choice,
            "losses": self._losses,
            "faces": self._faces,
            "parts": self.parts,
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }
        return Snapshot(tensors, document)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot of the same training."""
        for name, module in self._modules.items():
            module.load_state_dict(snapshot.part(name))
        self._restore_optimiser(snapshot.part("optimiser"))
        document = snapshot.document
        self._batches.restore(document["choice"], snapshot.tensors["change"])
        self._losses = [(metric, reconstruction) for metric, reconstruction in document["losses"]]
        self._faces, self.parts, self.steps = document["faces"], document["parts"], document["steps"]
        self.learning_rate, self._before_s = document["learning_rate"], document["seconds"]
        self._start = time.monotonic()

    def _restore_optimiser(self, tensors: dict[str, Tensor]) -> None:
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        for name, tensor in tensors.items():
            index, key = name.split(".")
            parameter = parameters[int(index)]
            like = torch.empty_like(parameter) if tensor.ndim else torch.empty((), device=self._device)
            self._optimiser.state[parameter][key] = like.copy_(tensor)

    def _step(self) -> tuple[float, float]:
        """One step's losses; a batch that does not fit into memory is cut in half until it does."""
        drawn = self._batches.draw()
        while True:
            try:
                losses = self._learn(cut_batch(drawn, parts=self.parts * self._team.size))
            except (RuntimeError, MemoryError) as error:
                if not self._may_halve(error, len(drawn.rows)):
                    raise
            else:
                self.steps += 1
                self._faces += len(drawn.rows)
                return losses
            self._optimiser.zero_grad()
            if self._device != "cpu":
                torch.cuda.empty_cache()
            self.parts *= 2

    def _learn(self, batch: Batch) -> tuple[float, float]:
        self._optimiser.zero_grad()
        first = self._team.rank * self.parts
        slices = batch.slices(first, first + self.parts)
        whole = len(slices) == 1
        with torch.set_grad_enabled(whole):
            embedded = [self._embed(batch, part) for part in slices]
        own_ND = torch.cat([emb_ND.detach() for _, emb_ND in embedded])
        emb_ND = self._team.gather(own_ND, batch.sizes(self.parts))
        people_N = torch.from_numpy(self._people.labels[batch.rows]).to(self._device)
        metric, gradient_ND = self._objective.take_gradient(emb_ND, people_N)
        rebuilt = torch.zeros((), device=self._device)
        for part, again in zip(slices, embedded, strict=True):
            crops_NCHW, part_ND = again if whole else self._embed(batch, part)
            rebuilt += self._push_back(crops_NCHW, part_ND, gradient_ND[part], share=len(part_ND) / len(batch.rows))
        self._descend(batch, metric, self._team.sum(rebuilt))
        return metric.item(), rebuilt.item()

    def _embed(self, batch: Batch, part: slice) -> tuple[Tensor, Tensor]:
        """The part's crops, (n, 3, H, W) in [0, 1], and their embeddings, float32 (n, D)."""
        crops_NCHW = self._pixels(batch.rows[part]) / 255
        if batch.changes is not None:
            crops_NCHW = apply_changes(crops_NCHW, batch.changes.part(part))
        with self._precision():
            emb_ND: Tensor = self._network(normalise_pixels(crops_NCHW * 255, self._spec))
        return crops_NCHW, emb_ND.float()

    def _push_back(self, crops_NCHW: Tensor, emb_ND: Tensor, gradient_ND: Tensor, *, share: float) -> Tensor:
        """Backpropagate a part, the loss's gradient and its own rebuilding; returns the part's share of that loss."""
        towards = (emb_ND * gradient_ND).sum()
        rebuilt = torch.zeros((), device=self._device)
        if self._settings.rebuild_weight:
            with self._precision():
                again_NCHW = self._decoder(emb_ND)
            rebuilt = 2 * share * self._rebuild(again_NCHW.float(), crops_NCHW)
            towards = towards + self._settings.rebuild_weight * rebuilt
        towards.backward()  # type: ignore[no-untyped-call]
        return rebuilt.detach()

    def _descend(self, batch: Batch, metric: Tensor, rebuilt: Tensor) -> None:
        self._team.sum_gradients([self._network, self._decoder])
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._settings.clip_norm or math.inf)
        if not torch.stack([metric, rebuilt, norm]).isfinite().all():
            self._refuse_batch(batch, metric.item(), rebuilt.item(), float(norm))
        settings = self._settings
        self.learning_rate = settings.learning_rate * rise_and_fall(self._progress(), warm_up=settings.warm_up)
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate * group["rate"]
        self._optimiser.step()

    def _refuse_batch(self, batch: Batch, metric: float, rebuilt: float, norm: float) -> None:
        epoch, step = divmod(self.steps, self._settings.batches_per_epoch)
        rows = sorted(batch.rows.tolist())
        raise TrainingDivergedError(
            f"training came to no number in epoch {epoch + 1}, batch {step + 1}: {self._objective.loss} loss {metric:g}, "
            f"reconstruction {rebuilt:g}, gradient {norm:g}; nothing of it is kept. Try a lower learning_rate "
            f"than {self._settings.learning_rate:g}, or clip_norm",
            rows,
        )

    def _may_halve(self, error: BaseException, faces: int) -> bool:
        """Whether a smaller part may help: members of a team would wait for each other's gradients for ever."""
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
        return memory and self._team.size == 1 and faces // (2 * self.parts) >= FEWEST_FACES

    def _precision(self) -> torch.autocast:
        return torch.autocast(
            self._device.split(":")[0], dtype=torch.bfloat16, enabled=self._settings.precision == "bfloat16"
        )

    def _progress(self) -> float:
        """How much of the training is over, in [0, 1], by steps or by time, whichever is more."""
        limit = self._settings.max_seconds
        by_time = 0.0 if limit is None else self._clock() / limit
        return min(1.0, max(by_time, (self.steps + 0.5) / self.total_steps))

    def _clock(self) -> float:
        """Seconds by the first member's clock, so that a team agrees on them."""
        if self._team.size == 1:
            return self.seconds
        own = torch.tensor(self.seconds if self._team.leads else 0.0, device=self._device)
        return float(self._team.sum(own))

    def _recalibration_batches(self) -> Iterator[Tensor]:
        rows = np.random.default_rng(self._settings.seed).permutation(len(self._people.labels))[:RECALIBRATION_FACES]
        for batch in np.array_split(rows, math.ceil(len(rows) / RECALIBRATION_BATCH)):
            yield normalise_pixels(self._pixels(batch), self._spec)


def _objective(people: PeopleCrops, decoder: Decoder, settings: TrainingSettings) -> Objective:
    margins = {
        "contrastive": settings.margin,
        "triplet": settings.triplet_margin,
        "classification": settings.class_margin,
    }
    return Objective(
        settings.loss,
        margin=margins[settings.loss],
        hardest_share=settings.hardest_share,
        dimension=decoder.dimension,
        people=int(people.labels.max()) + 1,
        seed=settings.seed,
    )


def _kept(tensor: Any) -> Tensor:
    kept: Tensor = torch.as_tensor(tensor).detach().cpu().clone(memory_format=torch.contiguous_format)
    return kept

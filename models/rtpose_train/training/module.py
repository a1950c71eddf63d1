"""One network in training: its loss, its optimiser, the running mean of its weights, its error."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from rtpose.errors import RtposeError
from rtpose_train.decode import decode, errors_px
from rtpose_train.networks.layout import HeadLayout
from rtpose_train.networks.network import normalise, run_heads
from rtpose_train.training.posture_graph import draw_graph
from rtpose_train.training.samples import Batch, Seen
from rtpose_train.training.settings import TrainSettings
from rtpose_train.training.targets import draw_offsets, draw_targets, masked_huber_loss, masked_loss

_WARM_UP = 0.1
#: Graving et al. 2019: a fifth of the rate; 1e-3 is nothing on maps of height 255, ours have 1.
_DROP, _NO_CHANGE = 0.2, 1e-3 / 255**2


def pose_loss(
    heads: Sequence[Tensor], points: Tensor, layout: HeadLayout, settings: TrainSettings
) -> Tensor:
    """Return the loss: over all heads, the sum of what each kind of map is off.

    Parameters
    ----------
    heads : sequence of Tensor of float, shape (batch, channels, height, width)
        What the network drew.
    points : Tensor of float, shape (batch, keypoints, 2)
        x, y in input pixels; NaN where a keypoint is not labelled.
    layout : HeadLayout
        What the channels mean.
    settings : TrainSettings
        Geometry and weights.
    """
    height, width = heads[-1].shape[2:]
    stride, sigma = settings.stride, settings.sigma
    terms = [(layout.maps, 1.0, masked_loss, draw_targets(points, height, width, stride, sigma))]
    if layout.location_refinement:
        radius, weight = settings.location_refinement_radius, settings.location_refinement_weight
        offsets = draw_offsets(points, height, width, stride, radius)
        terms.append((layout.offsets, weight, masked_huber_loss, offsets))
    if layout.posture_graph:
        graph = draw_graph(points, layout, height, width, stride, sigma)
        terms.append((layout.graph, settings.posture_graph_weight, masked_loss, graph))
    losses = [
        weight * loss(maps[:, channels].float(), targets, known)
        for maps in heads
        for channels, weight, loss, (targets, known) in terms
    ]
    return torch.stack(losses).sum()


class PoseModule(LightningModule):
    """A network and the running mean of its weights, which is what is validated and kept.

    Parameters
    ----------
    network : Module
        What `registry.build_network` returned.
    layout : HeadLayout
        What its channels mean.
    settings : TrainSettings
        How it is trained.
    seen : sequence of Seen
        The validation frames.
    """

    def __init__(
        self, network: nn.Module, layout: HeadLayout, settings: TrainSettings, seen: Sequence[Seen]
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, multi_avg_fn=self._mean, use_buffers=True)
        self.average.requires_grad_(False)
        self.layout, self.settings, self.seen = layout, settings, seen
        self._found: list[NDArray[np.float32]] = []
        self._losses: list[float] = []

    def _mean(
        self, averaged: Sequence[Tensor], newest: Sequence[Tensor], taken: Tensor | int
    ) -> None:
        """Move the running mean towards the newest; faster at first, to forget the start."""
        step = int(taken) + 1
        keep = min(self.settings.averaging, step / (step + 10))
        if averaged[0].is_floating_point():  # they come sorted by type
            torch._foreach_lerp_(list(averaged), list(newest), 1 - keep)
        else:
            torch._foreach_copy_(list(averaged), list(newest))  # counters of the norms

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images, points = batch
        images = normalise(images).contiguous(memory_format=torch.channels_last)
        loss = pose_loss(run_heads(self.network, images), points, self.layout, self.settings)
        if not math.isfinite(float(loss.detach())):
            raise RtposeError(
                f"training diverged: the loss is {float(loss.detach())}; "
                f"lower the learning_rate, now {self.settings.learning_rate}"
            )
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, then move the running mean."""
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._found, self._losses = [], []

    def validation_step(self, batch: tuple[Tensor, int], batch_idx: int) -> None:
        """Find the keypoints of one frame with the running mean, as an export would."""
        image, number = batch
        seen = self.seen[number]
        with torch.autocast(self.device.type, enabled=False):
            heads = run_heads(self.average.module, normalise(image))
        self._losses.append(float(pose_loss(heads, self._points(seen), self.layout, self.settings)))
        maps = heads[-1][0].float().cpu().numpy()
        offsets = maps[self.layout.offsets] if self.layout.location_refinement else None
        found = decode(maps[self.layout.maps], self.settings.maps, seen.placement, offsets)
        self._found.append(found)

    def _points(self, seen: Seen) -> Tensor:
        """Return a frame's labels in input pixels, shape (1, keypoints, 2)."""
        ax, bx, ay, by = seen.placement.to_frame
        points = (seen.points - (bx, by)) / (ax, ay)
        return torch.from_numpy(points[None].astype(np.float32)).to(self.device)

    def on_validation_epoch_end(self) -> None:
        """Log the mean error in px of the full frames; a missed keypoint is a diagonal off."""
        places = [seen.placement for seen in self.seen]
        diagonals = np.array([np.hypot(p.crop_width_px, p.crop_height_px) for p in places])
        errors = errors_px(self._found, [seen.points for seen in self.seen])
        errors = np.where(np.isinf(errors), diagonals[:, None], errors)
        # Every device looks at all frames; the mean over them only keeps them of one mind.
        self.log("validation_px", float(np.nanmean(errors)), logger=False, sync_dist=True)
        self.log("validation_loss", float(np.mean(self._losses)), logger=False, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW and how its rate goes."""
        chosen = self.settings
        cycles = chosen.schedule == "one-cycle"
        optimiser = AdamW(
            self.network.parameters(),
            chosen.learning_rate,
            betas=(0.9, 0.99 if cycles else 0.999),
            weight_decay=chosen.weight_decay,
            fused=True,
        )
        return {"optimizer": optimiser, "lr_scheduler": self._schedule(optimiser, cycles)}

    def _schedule(self, optimiser: Optimizer, cycles: bool) -> Mapping[str, Any]:
        chosen = self.settings
        if cycles:
            cycle = OneCycleLR(
                optimiser,
                chosen.learning_rate,
                total_steps=chosen.steps,
                pct_start=_WARM_UP,
                cycle_momentum=False,
            )
            return {"scheduler": cycle, "interval": "step"}
        plateau = ReduceLROnPlateau(
            optimiser,
            factor=_DROP,
            patience=chosen.plateau_patience,
            threshold=_NO_CHANGE,
            threshold_mode="abs",
        )
        return {
            "scheduler": plateau,
            "interval": "step",
            "frequency": chosen.check_every,
            "monitor": "validation_loss",
        }

    def best_state(self) -> dict[str, Tensor]:
        """Return the running mean of the weights, on the CPU."""
        state = self.average.module.state_dict()
        return {name: value.cpu().clone() for name, value in state.items()}

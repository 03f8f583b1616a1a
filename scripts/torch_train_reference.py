"""CLIFF's training step in plain PyTorch for `benchmark.py`: the body, the camera of the full image, loss and Adam.

The losses are those of Eq. (10) as `cliff_ms/training/losses.py` defines them, for cameras that see somebody; the
bounds for those that do not are left out.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# SPIN's 24 keypoints among smplx's 45 joints and the nine rows of J_regressor_extra.
SPIN24 = (8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27)
RIGHT_HIP, LEFT_HIP = 2, 3  # among the 24
CROP_ASPECT = 192 / 256


class FullLoss(nn.Module):
    """A batch in the order of `data.batching.Batch` -> loss () and its terms (5,).

    Args:
        cliff: The network.
        smpl: smplx.SMPL for batches of that size.
        extra_regressor: J_regressor_extra, (9, V).
        weights: Factor of each term by name, and of their sum, `total`.
    """

    def __init__(self, cliff: nn.Module, smpl: nn.Module, extra_regressor: Tensor, weights: dict[str, float]) -> None:
        super().__init__()
        self.cliff, self.smpl, self.extra_regressor = cliff, smpl, extra_regressor
        names = ("keypoints2d", "keypoints3d", "pose", "betas", "camera")
        self.factors = weights["total"] * torch.tensor([weights[name] for name in names])

    def joints(self, betas: Tensor, rotmats: Tensor) -> Tensor:
        """SPIN's 24 keypoints (B, 24, 3) m."""
        body = self.smpl(betas=betas, global_orient=rotmats[:, :1], body_pose=rotmats[:, 1:], pose2rot=False)
        extra = torch.einsum("kv,bvx->bkx", self.extra_regressor, body.vertices)
        return torch.cat((body.joints, extra), 1)[:, SPIN24]

    def forward(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        inputs, center, size, img_hw, focal_length, keypoints2d, keypoints3d, rotmats, betas, has_smpl = batch
        middle = img_hw.flip(1) / 2
        focal_length, size = focal_length[:, None], size[:, None]
        location = torch.cat((center - middle, size), 1) / focal_length
        pred_rotmats, pred_betas, cam = self.cliff(inputs, location)
        joints = self.joints(pred_betas, pred_rotmats)

        half = size * cam[:, :1] / 2
        moved = joints + torch.cat((cam[:, 1:] + (center - middle) / half, focal_length / half), 1)[:, None]
        points = moved[..., :2] / moved[..., 2:] * focal_length[:, None] + middle[:, None]
        half_crop = torch.cat((size * CROP_ASPECT, size), 1)[:, None] / 2
        confidence2d, confidence3d = keypoints2d[..., 2:], keypoints3d[..., 3:]
        with_hips = confidence3d[:, RIGHT_HIP, 0] * confidence3d[:, LEFT_HIP, 0] > 0
        terms = (
            _mean(confidence2d * ((points - keypoints2d[..., :2]) / half_crop) ** 2, confidence2d.sum((1, 2)) > 0),
            _mean(confidence3d * (_from_hips(joints) - _from_hips(keypoints3d[..., :3])) ** 2, with_hips),
            _mean((pred_rotmats - rotmats) ** 2, has_smpl),
            _mean((pred_betas - betas) ** 2, has_smpl),
            torch.exp(-20 * cam[:, 0]).mean(),
        )
        terms = torch.stack(terms)
        return (terms * self.factors).sum(), terms


class PlainLoss(nn.Module):
    """Inputs, location and the three true outputs -> sum and values (3,) of the mean squared errors."""

    def __init__(self, cliff: nn.Module) -> None:
        super().__init__()
        self.cliff = cliff

    def forward(self, inputs: Tensor, location: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.cliff(inputs, location)
        terms = torch.stack([((output - target) ** 2).mean() for output, target in zip(outputs, targets, strict=True)])
        return terms.sum(), terms


def loss_without_dropout(network: nn.Module, batch: list[Tensor]) -> list[Tensor]:
    """Loss and terms in training mode, but for dropout."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        return list(network(*batch))


def train_step(network: nn.Module, learning_rate: float) -> Callable[[list[Tensor]], float]:
    """A function that makes one step on a batch and returns the loss."""
    network.train()
    optimizer = torch.optim.Adam(network.cliff.parameters(), learning_rate)

    def step(batch: list[Tensor]) -> float:
        loss, _ = network(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _mean(error: Tensor, mask: Tensor) -> Tensor:
    mask = mask.to(error.dtype)
    return (error.flatten(1).mean(1) * mask).sum() / mask.sum().clamp(min=1)


def _from_hips(joints: Tensor) -> Tensor:
    return joints - (joints[:, RIGHT_HIP] + joints[:, LEFT_HIP])[:, None] / 2

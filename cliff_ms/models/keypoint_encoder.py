"""CLIFF on 2D keypoints instead of pixels (section 5 of the paper)."""

from mindspore import Tensor, nn, ops

_BLOCKS = 2


class KeypointEncoder(nn.Cell):
    r"""A person's 2D keypoints to a feature: a residual MLP in the manner of Martinez et al. (ICCV 2017).

    Args:
        num_keypoints (int): K, 17 for COCO or 25 for OpenPose.
        location_input (bool): Read bbox_info too (CI of Table 2). Default: True.
        out_channels (int): Length of the feature. Default: 1024.

    Inputs:
        - **keypoints** (Tensor) - (B, K, 3), x and y relative to the box centre in units of half the box height (see
          :func:`cliff_ms.data.crop.normalize_keypoints`) and confidence in [0, 1]. A joint of confidence 0 is missing
          and its coordinates are not read.
        - **bbox_info** (Tensor) - (B, 3), Eq. (5).

    Outputs:
        Tensor, (B, out_channels).

    Raises:
        ValueError: If the number of keypoints is another one.

    Supported Platforms:
        ``CPU``
    """

    def __init__(self, num_keypoints: int, location_input: bool = True, out_channels: int = 1024) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.location_input = location_input
        self.out_channels = out_channels
        self.stem = nn.Dense(3 * num_keypoints + 3 * location_input, out_channels)
        self.blocks = nn.SequentialCell([ResidualBlock(out_channels) for _ in range(_BLOCKS)])

    def construct(self, keypoints: Tensor, bbox_info: Tensor) -> Tensor:
        if keypoints.shape[1:] != (self.num_keypoints, 3):
            raise ValueError(
                f"For 'KeypointEncoder', 'keypoints' must have shape (B, {self.num_keypoints}, 3), "
                f"but got {keypoints.shape}."
            )
        confidence = keypoints[:, :, 2:]
        seen = (confidence > 0).astype(keypoints.dtype)
        # A detector may leave anything at a missing joint; select, since 0 * NaN would still be NaN.
        position = ops.select(seen.broadcast_to(keypoints[:, :, :2].shape) > 0, keypoints[:, :, :2], 0.0)
        visible = ops.cat((position, confidence), -1).reshape(-1, 3 * self.num_keypoints)
        if self.location_input:
            visible = ops.cat((visible, bbox_info), 1)
        return self.blocks(self.stem(visible))


class ResidualBlock(nn.Cell):
    """x + two layers of Dense, BatchNorm, ReLU. (B, C) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = []
        for _ in range(2):
            layers += [nn.Dense(channels, channels), nn.BatchNorm1d(channels), nn.ReLU()]
        self.layers = nn.SequentialCell(layers)

    def construct(self, x: Tensor) -> Tensor:
        return x + self.layers(x)

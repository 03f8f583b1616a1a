"""HRNet-W48 encoder (Sun et al., CVPR 2019), with the parameter names of HRNet-Image-Classification."""

import mindspore as ms
from mindspore import nn, ops

from cliff_ms.models.resnet import BasicBlock, Bottleneck, batch_norm, conv, residual_layer

_WIDTH = 48  # channels of the branch with the highest resolution
_BLOCKS = 4  # residual blocks per branch and module
_MODULES = (1, 4, 3)  # modules of stages 2, 3 and 4, which have 2, 3 and 4 branches
_STEM_CHANNELS = 64
_HEAD_CHANNELS = (32, 64, 128, 256)  # inner channels of the head's bottlenecks, high resolution to low
_OUT_CHANNELS = 2048


def upsample(x: ms.Tensor, factor: int) -> ms.Tensor:
    """Nearest-neighbour upsampling by a whole factor: every pixel becomes a factor x factor square.

    A broadcast and a reshape: exact, several times faster on a CPU than `ResizeNearestNeighbor`, exported to ONNX.

    Args:
        x: Shape (B, C, H, W).
        factor: Whole number of times.

    Returns:
        Shape (B, C, factor * H, factor * W).
    """
    batch, channels, height, width = x.shape
    x = ops.broadcast_to(
        x.reshape(batch, channels, height, 1, width, 1), (batch, channels, height, factor, width, factor)
    )
    return x.reshape(batch, channels, height * factor, width * factor)


def _conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> list[nn.Cell]:
    """Convolution and BatchNorm."""
    return [conv(in_channels, out_channels, kernel_size, stride), batch_norm(out_channels)]


def _conv_bn_relu(in_channels: int, out_channels: int, stride: int = 1, has_bias: bool = False) -> nn.SequentialCell:
    """3x3 convolution, BatchNorm and ReLU."""
    return nn.SequentialCell(conv(in_channels, out_channels, 3, stride, has_bias), batch_norm(out_channels), nn.ReLU())


def _fuse_layer(channels: tuple[int, ...], source: int, target: int) -> nn.Cell:
    """What brings branch `source` to the channels of branch `target`, and down to its resolution.

    A lower-resolution source is upsampled after it, in the module: that needs no parameters.
    """
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.SequentialCell(*_conv_bn(channels[source], channels[target], 1))
    halvings = [_conv_bn_relu(channels[source], channels[source], stride=2) for _ in range(target - source - 1)]
    last = nn.SequentialCell(*_conv_bn(channels[source], channels[target], 3, stride=2))
    return nn.SequentialCell(*halvings, last)


class HighResolutionModule(nn.Cell):
    """Parallel branches of residual blocks, then the exchange of all resolutions with all.

    Args:
        channels: Channels of each branch, high resolution to low; each branch has half the resolution of the one
            before.

    Inputs:
        - **maps** (tuple[Tensor]) - One map per branch, shapes (B, channels[i], H / 2**i, W / 2**i).

    Outputs:
        tuple[Tensor], the same shapes, values >= 0.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.CellList([residual_layer(BasicBlock, c, c, _BLOCKS) for c in channels])
        count = len(channels)
        self.fuse_layers = nn.CellList(
            [nn.CellList([_fuse_layer(channels, j, i) for j in range(count)]) for i in range(count)]
        )
        self.count = count

    def construct(self, maps: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor, ...]:
        branched = ()
        for i in range(self.count):
            branched = branched + (self.branches[i](maps[i]),)
        fused = ()
        for i in range(self.count):
            total = self.fuse_layers[i][0](branched[0])
            for j in range(1, self.count):
                y = self.fuse_layers[i][j](branched[j])
                if j > i:
                    y = upsample(y, 2 ** (j - i))
                total = total + y
            fused = fused + (ops.relu(total),)
        return fused


class HRNet(nn.Cell):
    """HRNet with the classification head, up to its globally averaged feature.

    "Deep High-Resolution Representation Learning for Visual Recognition", Wang et al., TPAMI 2020.

    Inputs:
        - **image** (Tensor) - RGB crop normalised with ImageNet's mean and deviation, shape (B, 3, H, W), float32.
          Height and width are multiples of 32 (px); CLIFF's weights expect 256 x 192.

    Outputs:
        Tensor, feature, shape (B, 2048), float32.

    Raises:
        ValueError: If the height or width is no multiple of 32.

    Supported Platforms:
        ``CPU``

    Examples:
        >>> encoder = HRNet()
        >>> feature = encoder(ops.zeros((1, 3, 256, 192)))
        >>> print(feature.shape, encoder.out_channels)
        (1, 2048) 2048
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, _STEM_CHANNELS, 3, stride=2)
        self.bn1 = batch_norm(_STEM_CHANNELS)
        self.conv2 = conv(_STEM_CHANNELS, _STEM_CHANNELS, 3, stride=2)
        self.bn2 = batch_norm(_STEM_CHANNELS)
        self.layer1 = residual_layer(Bottleneck, _STEM_CHANNELS, _STEM_CHANNELS, 4)

        first = _STEM_CHANNELS * Bottleneck.expansion
        channels = tuple(_WIDTH * 2**i for i in range(4))
        # A transition starts the branch that is new in its stage from the lowest resolution so far.
        self.transition1 = nn.CellList(
            [
                _conv_bn_relu(first, channels[0]),
                nn.SequentialCell(_conv_bn_relu(first, channels[1], stride=2)),
            ]
        )
        self.stage2 = _stage(channels[:2], _MODULES[0])
        self.transition2 = _new_branch(channels[:3])
        self.stage3 = _stage(channels[:3], _MODULES[1])
        self.transition3 = _new_branch(channels)
        self.stage4 = _stage(channels, _MODULES[2])

        head = [c * Bottleneck.expansion for c in _HEAD_CHANNELS]
        self.incre_modules = nn.CellList(
            [residual_layer(Bottleneck, c, inner, 1) for c, inner in zip(channels, _HEAD_CHANNELS, strict=True)]
        )
        self.downsamp_modules = nn.CellList(
            [_conv_bn_relu(head[i], head[i + 1], stride=2, has_bias=True) for i in range(3)]
        )
        self.final_layer = nn.SequentialCell(
            conv(head[3], _OUT_CHANNELS, 1, has_bias=True), batch_norm(_OUT_CHANNELS), nn.ReLU()
        )
        self.out_channels = _OUT_CHANNELS

    def construct(self, image: ms.Tensor) -> ms.Tensor:
        if image.shape[2] % 32 or image.shape[3] % 32:
            raise ValueError(f"For 'HRNet', height and width must be multiples of 32, but got {image.shape}.")
        x = ops.relu(self.bn1(self.conv1(image)))
        x = ops.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        maps = self.stage2((self.transition1[0](x), self.transition1[1](x)))
        maps = self.stage3((maps[0], maps[1], self.transition2[2](maps[1])))
        maps = self.stage4((maps[0], maps[1], maps[2], self.transition3[3](maps[2])))
        y = self.incre_modules[0](maps[0])
        for i in range(1, 4):
            y = self.incre_modules[i](maps[i]) + self.downsamp_modules[i - 1](y)
        return ops.mean(self.final_layer(y), (2, 3))


def _stage(channels: tuple[int, ...], modules: int) -> nn.SequentialCell:
    """A row of modules with the same branches."""
    return nn.SequentialCell(*[HighResolutionModule(channels) for _ in range(modules)])


def _new_branch(channels: tuple[int, ...]) -> nn.CellList:
    """The transition to one more branch; the branches that are there already pass unchanged."""
    new = nn.SequentialCell(_conv_bn_relu(channels[-2], channels[-1], stride=2))
    return nn.CellList([nn.Identity() for _ in channels[:-1]] + [new])

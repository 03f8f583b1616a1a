"""ResNet encoders (He et al., CVPR 2016), with the parameter names of torchvision."""

import mindspore as ms
from mindspore import nn, ops
from mindspore.common.initializer import HeNormal

_STEM_CHANNELS = 64


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, has_bias: bool = False) -> nn.Conv2d:
    """A convolution padded by half its kernel, with He initialisation (fan out).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd side of the kernel, px.
        stride: Step, px.
        has_bias: Whether to add a bias (initially 0); a following BatchNorm makes it superfluous.

    Returns:
        The Cell: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        pad_mode="pad",
        padding=kernel_size // 2,
        has_bias=has_bias,
        weight_init=HeNormal(mode="fan_out", nonlinearity="relu"),
        bias_init="zeros",
    )


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """A BatchNorm2d equal to PyTorch's default one (momentum 0.9 here is 0.1 there)."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.9)


def max_pool(x: ms.Tensor) -> ms.Tensor:
    """Maximum over 3x3 windows, stride 2, padding 1, of a non-negative map.

    Zeros never win against values that are at least 0, so they serve as the padding; only the rows and columns that
    a window really reaches are added. Several times faster on a CPU than `pad_mode='pad'`, and can be exported to
    ONNX.

    Args:
        x: Map after a ReLU, shape (B, C, H, W), values >= 0.

    Returns:
        Shape (B, C, ceil(H / 2), ceil(W / 2)).
    """
    batch, channels, height, width = x.shape
    row = ops.zeros((batch, channels, 1, width), x.dtype)
    x = ops.cat((row, x, row), 2) if height % 2 else ops.cat((row, x), 2)
    column = ops.zeros((batch, channels, x.shape[2], 1), x.dtype)
    x = ops.cat((column, x, column), 3) if width % 2 else ops.cat((column, x), 3)
    return ops.MaxPool(kernel_size=3, strides=2, pad_mode="valid")(x)


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions and a shortcut.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the block.
        stride: Step of the first convolution.

    Inputs:
        - **x** (Tensor) - Shape (B, in_channels, H, W).

    Outputs:
        Tensor, shape (B, channels, ceil(H / stride), ceil(W / stride)), values >= 0.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.bn1 = batch_norm(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = batch_norm(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        y = ops.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return ops.relu(y + self.downsample(x))


class Bottleneck(nn.Cell):
    """1x1, 3x3 and 1x1 convolutions and a shortcut.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the two inner convolutions; the output has four times as many.
        stride: Step of the 3x3 convolution.

    Inputs:
        - **x** (Tensor) - Shape (B, in_channels, H, W).

    Outputs:
        Tensor, shape (B, 4 * channels, ceil(H / stride), ceil(W / stride)), values >= 0.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, channels, 1)
        self.bn1 = batch_norm(channels)
        self.conv2 = conv(channels, channels, 3, stride)
        self.bn2 = batch_norm(channels)
        self.conv3 = conv(channels, channels * self.expansion, 1)
        self.bn3 = batch_norm(channels * self.expansion)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        y = ops.relu(self.bn1(self.conv1(x)))
        y = ops.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return ops.relu(y + self.downsample(x))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Cell:
    """The identity where input and output have the same shape, else a 1x1 convolution."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.SequentialCell(conv(in_channels, out_channels, 1, stride), batch_norm(out_channels))


def residual_layer(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, count: int, stride: int = 1
) -> nn.SequentialCell:
    """A row of residual blocks, of which the first takes the stride.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        in_channels: Channels of the input.
        channels: Inner channels of the blocks.
        count: Number of blocks.
        stride: Step of the first block.

    Returns:
        The Cell: (B, in_channels, H, W) -> (B, block.expansion * channels, ceil(H / stride), ceil(W / stride)).
    """
    blocks = [block(in_channels, channels, stride)]
    blocks.extend(block(channels * block.expansion, channels) for _ in range(count - 1))
    return nn.SequentialCell(*blocks)


class ResNet(nn.Cell):
    """ResNet up to its globally averaged feature: "Deep Residual Learning", He et al., CVPR 2016.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: Number of blocks in each of the four layers.
        width: Factor on all channel counts.

    Inputs:
        - **image** (Tensor) - RGB crop normalised with ImageNet's mean and deviation, shape (B, 3, H, W), float32.
          Any height and width from about 32 px on; CLIFF's weights expect 256 x 192.

    Outputs:
        Tensor, feature, shape (B, out_channels), float32.

    Supported Platforms:
        ``CPU``

    Examples:
        >>> encoder = resnet50()
        >>> feature = encoder(ops.zeros((1, 3, 256, 192)))
        >>> print(feature.shape, encoder.out_channels)
        (1, 2048) 2048
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], layers: tuple[int, int, int, int], width: float = 1.0
    ) -> None:
        super().__init__()
        stem, *channels = (round(c * width) for c in (_STEM_CHANNELS, 64, 128, 256, 512))
        self.conv1 = conv(3, stem, 7, stride=2)
        self.bn1 = batch_norm(stem)
        out = [c * block.expansion for c in channels]
        self.layer1 = residual_layer(block, stem, channels[0], layers[0])
        self.layer2 = residual_layer(block, out[0], channels[1], layers[1], stride=2)
        self.layer3 = residual_layer(block, out[1], channels[2], layers[2], stride=2)
        self.layer4 = residual_layer(block, out[2], channels[3], layers[3], stride=2)
        self.out_channels = out[3]

    def construct(self, image: ms.Tensor) -> ms.Tensor:
        x = max_pool(ops.relu(self.bn1(self.conv1(image))))
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        return ops.mean(x, (2, 3))


def resnet18(width: float = 1.0) -> ResNet:
    """ResNet-18: feature (B, 512 * width)."""
    return ResNet(BasicBlock, (2, 2, 2, 2), width)


def resnet50() -> ResNet:
    """ResNet-50: feature (B, 2048)."""
    return ResNet(Bottleneck, (3, 4, 6, 3))

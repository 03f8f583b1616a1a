"""CLIFF in PyTorch for `benchmark.py`, with the official names, so that one set of weights fits both sides.

ResNet-50 and HRNet-W48 with the classification head, the regressor of three iterations and the 6D rotations. Plain
eager PyTorch with in-place ReLU and sums, as the official code runs it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias), nn.BatchNorm2d(outputs)]


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)


class _Block(nn.Module):
    """Residual block of the convolutions `kernels`; the widths are those of ResNet's basic block and bottleneck."""

    def __init__(self, inputs: int, inner: int, stride: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        outputs = inner * (4 if len(kernels) == 3 else 1)
        widths = [inputs, *[inner] * (len(kernels) - 1), outputs]
        strided = kernels.index(3)  # the stride is at the first 3x3 convolution
        for i, kernel in enumerate(kernels):
            conv, bn = _conv_bn(widths[i], widths[i + 1], kernel, stride if i == strided else 1)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", bn)
        self.depth = len(kernels)
        same = stride == 1 and inputs == outputs
        self.downsample = None if same else nn.Sequential(*_conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = functional.relu(y, inplace=True)
        y += x if self.downsample is None else self.downsample(x)
        return functional.relu(y, inplace=True)


def _layer(inputs: int, inner: int, count: int, stride: int = 1, bottleneck: bool = True) -> nn.Sequential:
    kernels, outputs = ((1, 3, 1), inner * 4) if bottleneck else ((3, 3), inner)
    return nn.Sequential(*[_Block(outputs if i else inputs, inner, 1 if i else stride, kernels) for i in range(count)])


class ResNet50(nn.Module):
    """Image (B, 3, H, W) -> feature (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _layer(64, 64, 3)
        self.layer2 = _layer(256, 128, 4, stride=2)
        self.layer3 = _layer(512, 256, 6, stride=2)
        self.layer4 = _layer(1024, 512, 3, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(image)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class _Module(nn.Module):
    """HRNet's module: branches of four basic blocks, then the exchange between resolutions."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_layer(c, c, 4, bottleneck=False) for c in widths])
        count = range(len(widths))
        self.fuse_layers = nn.ModuleList([nn.ModuleList([self._fuse(widths, j, i) for j in count]) for i in count])

    @staticmethod
    def _fuse(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            return nn.Sequential(
                *_conv_bn(widths[source], widths[target], 1), nn.Upsample(scale_factor=2 ** (source - target))
            )
        width = widths[source]
        steps = [nn.Sequential(*_conv_bn(width, width, 3, 2), _relu()) for _ in range(target - source - 1)]
        return nn.Sequential(*steps, nn.Sequential(*_conv_bn(width, widths[target], 3, 2)))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for row in self.fuse_layers:
            total = row[0](maps[0])
            for layer, x in zip(row[1:], maps[1:], strict=True):
                total = total + layer(x)
            fused.append(functional.relu(total, inplace=True))
        return fused


class HRNetW48(nn.Module):
    """Image (B, 3, H, W) -> feature (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv_bn(3, 64, 3, 2)
        self.conv2, self.bn2 = _conv_bn(64, 64, 3, 2)
        self.layer1 = _layer(64, 64, 4)
        widths = (48, 96, 192, 384)
        self.transition1 = nn.ModuleList(
            [nn.Sequential(*_conv_bn(256, 48, 3), _relu()), nn.Sequential(self._down(256, 96))]
        )
        self.transition2 = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Sequential(self._down(96, 192))])
        self.transition3 = nn.ModuleList([nn.Identity()] * 3 + [nn.Sequential(self._down(192, 384))])
        for stage, modules in ((2, 1), (3, 4), (4, 3)):
            self.add_module(f"stage{stage}", nn.Sequential(*[_Module(widths[:stage]) for _ in range(modules)]))
        inner = (32, 64, 128, 256)
        self.incre_modules = nn.ModuleList([_layer(c, k, 1) for c, k in zip(widths, inner, strict=True)])
        self.downsamp_modules = nn.ModuleList([self._down(4 * inner[i], 4 * inner[i + 1], bias=True) for i in range(3)])
        self.final_layer = nn.Sequential(*_conv_bn(1024, 2048, 1, bias=True), _relu())

    @staticmethod
    def _down(inputs: int, outputs: int, bias: bool = False) -> nn.Sequential:
        return nn.Sequential(*_conv_bn(inputs, outputs, 3, 2, bias), _relu())

    def forward(self, image: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(image)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.layer1(x)
        maps = self.stage2([layer(x) for layer in self.transition1])
        maps = self.stage3([*maps, self.transition2[2](maps[-1])])
        maps = self.stage4([*maps, self.transition3[3](maps[-1])])
        y = self.incre_modules[0](maps[0])
        for i in range(1, 4):
            y = self.incre_modules[i](maps[i]) + self.downsamp_modules[i - 1](y)
        return self.final_layer(y).mean((2, 3))


class KeypointEncoder(nn.Module):
    """Keypoints and bbox_info (B, inputs) -> a feature (B, units): two residual blocks of two layers."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, units)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            layers = [layer for _ in range(2) for layer in (nn.Linear(units, units), nn.BatchNorm1d(units), _relu())]
            self.blocks.append(nn.ModuleDict({"layers": nn.Sequential(*layers)}))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block["layers"](x)
        return x


class CLIFF(nn.Module):
    """Image (B, 3, H, W) and bbox_info (B, 3) -> rotations (B, 24, 3, 3), betas (B, 10), crop camera (B, 3)."""

    def __init__(self, encoder: nn.Module, features: int = 2048, units: int = 1024) -> None:
        super().__init__()
        self.encoder = encoder
        self.fc1 = nn.Linear(features + 3 + 144 + 10 + 3, units)
        self.drop1 = nn.Dropout()
        self.fc2 = nn.Linear(units, units)
        self.drop2 = nn.Dropout()
        self.decpose = nn.Linear(units, 144)
        self.decshape = nn.Linear(units, 10)
        self.deccam = nn.Linear(units, 3)
        for name, size in (("init_pose", 144), ("init_shape", 10), ("init_cam", 3)):
            self.register_buffer(name, torch.zeros(1, size))

    def forward(self, image: Tensor, bbox_info: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feature = self.encoder(image)
        batch = len(image)
        pose, shape, cam = (b.expand(batch, -1) for b in (self.init_pose, self.init_shape, self.init_cam))
        for _ in range(3):
            hidden = self.drop1(self.fc1(torch.cat([feature, bbox_info, pose, shape, cam], 1)))
            hidden = self.drop2(self.fc2(hidden))
            pose, shape, cam = (pose + self.decpose(hidden), shape + self.decshape(hidden), cam + self.deccam(hidden))
        columns = pose.reshape(batch, 24, 3, 2)
        first = functional.normalize(columns[..., 0], dim=-1)
        rest = columns[..., 1] - (first * columns[..., 1]).sum(-1, keepdim=True) * first
        second = functional.normalize(rest, dim=-1)
        rotmat = torch.stack([first, second, torch.cross(first, second, dim=-1)], -1)
        return rotmat, shape, cam


ENCODERS = {"res50": ResNet50, "hr48": HRNetW48}

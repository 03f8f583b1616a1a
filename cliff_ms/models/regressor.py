"""The iterative regressor of HMR and CLIFF: feature and location in, SMPL and camera parameters out."""

from dataclasses import dataclass

import numpy as np

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import XavierUniform

from cliff_ms.keypoints import SMPL24
from cliff_ms.rotation import rotmat_to_rot6d

POSE_SIZE, SHAPE_SIZE, CAMERA_SIZE, BBOX_SIZE = 6 * len(SMPL24), 10, 3, 3
_ITERATIONS = 3


@dataclass(frozen=True)
class MeanParams:
    """Where the iteration starts.

    Attributes:
        pose6d: (144,), layout of `cliff_ms.rotation`.
        betas: (10,).
        cam: (3,) weak-perspective s, t_x, t_y.
    """

    pose6d: np.ndarray
    betas: np.ndarray
    cam: np.ndarray


def standing_mean_params() -> MeanParams:
    """A person standing upright with lowered arms, filling 90 % of the crop.

    The root is turned by 180 degrees about x, from the body's y-up frame into the camera's y-down frame.
    """
    rotmats = np.tile(np.eye(3), (len(SMPL24), 1, 1))
    rotmats[SMPL24.index("pelvis")] = np.diag([1.0, -1.0, -1.0])
    for joint, sign in (("left_shoulder", -1), ("right_shoulder", 1)):
        cos, sin = np.cos(sign * np.pi / 3), np.sin(sign * np.pi / 3)  # 60 degrees down from the T-pose
        rotmats[SMPL24.index(joint)] = [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]
    return MeanParams(rotmat_to_rot6d(rotmats).reshape(-1), np.zeros(SHAPE_SIZE), np.array([0.9, 0.0, 0.0]))


class Regressor(nn.Cell):
    r"""Iterative error feedback from a standing person: three passes through one set of weights, each a correction.

    Args:
        feature_size (int): C, length of the encoder's feature.
        location_input (bool): Feed bbox_info (CI of Table 2); without it this is HMR's regressor. Default: True.
        relu (bool): A ReLU after either hidden layer, where HMR has dropout and is linear. Default: False.
        hidden_size (int): Default: 1024.

    Inputs:
        - **feature** (Tensor) - (B, C), float32.
        - **bbox_info** (Tensor) - (B, 3), Eq. (5).

    Outputs:
        Tuple of **pose6d** (B, 144), **betas** (B, 10) and **pred_cam_crop** (B, 3), the weak-perspective s, t_x, t_y.

    Supported Platforms:
        ``CPU``
    """

    def __init__(
        self,
        feature_size: int,
        location_input: bool = True,
        relu: bool = False,
        hidden_size: int = 1024,
    ) -> None:
        super().__init__()
        self.location_input = location_input
        state_size = POSE_SIZE + SHAPE_SIZE + CAMERA_SIZE
        self.fc1 = nn.Dense(feature_size + BBOX_SIZE * location_input + state_size, hidden_size)
        self.after1 = nn.ReLU() if relu else nn.Dropout(p=0.5)
        self.fc2 = nn.Dense(hidden_size, hidden_size)
        self.after2 = nn.ReLU() if relu else nn.Dropout(p=0.5)
        # Small initial corrections keep the first predictions near the mean parameters.
        self.decpose = nn.Dense(hidden_size, POSE_SIZE, weight_init=XavierUniform(gain=0.01))
        self.decshape = nn.Dense(hidden_size, SHAPE_SIZE, weight_init=XavierUniform(gain=0.01))
        self.deccam = nn.Dense(hidden_size, CAMERA_SIZE, weight_init=XavierUniform(gain=0.01))
        mean = standing_mean_params()
        self.init_pose = _frozen(mean.pose6d, "init_pose")
        self.init_shape = _frozen(mean.betas, "init_shape")
        self.init_cam = _frozen(mean.cam, "init_cam")

    def construct(self, feature: Tensor, bbox_info: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.location_input:
            feature = ops.cat((feature, bbox_info), 1)
        batch = feature.shape[0]
        pose6d = ops.broadcast_to(self.init_pose, (batch, POSE_SIZE))
        betas = ops.broadcast_to(self.init_shape, (batch, SHAPE_SIZE))
        cam = ops.broadcast_to(self.init_cam, (batch, CAMERA_SIZE))
        for _ in range(_ITERATIONS):
            hidden = ops.cat((feature, pose6d, betas, cam), 1)
            hidden = self.after2(self.fc2(self.after1(self.fc1(hidden))))
            pose6d = pose6d + self.decpose(hidden)
            betas = betas + self.decshape(hidden)
            cam = cam + self.deccam(hidden)
        return pose6d, betas, cam


def _frozen(array: np.ndarray, name: str) -> Parameter:
    # A parameter, so that checkpoints carry it as PyTorch's buffers do; frozen, so that no optimiser moves it.
    return Parameter(Tensor(array[None].astype(np.float32)), name=name, requires_grad=False)

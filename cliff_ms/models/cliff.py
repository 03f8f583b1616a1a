"""CLIFF: one network for all encoders, and the same network with its two ends in the full frame."""

from mindspore import Tensor, nn

from cliff_ms import camera
from cliff_ms.body.smpl import SMPL
from cliff_ms.config import ModelConfig
from cliff_ms.keypoints import JOINT_SETS
from cliff_ms.models.hrnet import HRNet
from cliff_ms.models.keypoint_encoder import KeypointEncoder
from cliff_ms.models.regressor import Regressor
from cliff_ms.models.resnet import resnet18, resnet50
from cliff_ms.rotation import rot6d_to_rotmat

# Each takes (width, joint_set, location_input) and uses what concerns it.
ENCODERS = {
    "res18": lambda width, joint_set, location_input: resnet18(width),
    "res50": lambda width, joint_set, location_input: resnet50(),
    "hr48": lambda width, joint_set, location_input: HRNet(),
    "keypoints": lambda width, joint_set, location_input: KeypointEncoder(
        len(JOINT_SETS[joint_set]), location_input, round(1024 * width)
    ),
}


class CLIFF(nn.Cell):
    r"""Encoder and regressor: Fig. 2 (b) of CLIFF, or Fig. 2 (a), HMR, without the location feature.

    Args:
        encoder (str): 'res18', 'res50', 'hr48' or 'keypoints'. Default: 'res50'.
        location_input (bool): Feed bbox_info to the regressor (CI of Table 2). Default: True.
        width (float): Channel multiplier of 'res18' and 'keypoints'. Default: 1.0.
        joint_set (str): 'coco17' or 'openpose25', of 'keypoints'. Default: 'coco17'.

    Inputs:
        - **inputs** (Tensor) - What the encoder reads, float32: a crop (B, 3, H, W), RGB, normalised by ImageNet's mean
          and deviation; or keypoints (B, K, 3), normalised by the box.
        - **bbox_info** (Tensor) - (B, 3), Eq. (5), in the normalisation the weights were trained with.

    Outputs:
        Tuple of **pred_rotmat** (B, 24, 3, 3), the root's relative to the full image's camera, **pred_betas** (B, 10)
        and **pred_cam_crop** (B, 3), the weak-perspective s, t_x, t_y.

    Raises:
        ValueError: Unknown encoder.

    Supported Platforms:
        ``CPU``

    Examples:
        >>> from mindspore import ops
        >>> from cliff_ms import CLIFF
        >>> rotmats, betas, cam_crop = CLIFF("res18")(ops.zeros((1, 3, 256, 192)), ops.zeros((1, 3)))
        >>> rotmats.shape
        (1, 24, 3, 3)

        With the weights of a file:

        >>> from cliff_ms.weights.checkpoint import load_weights
        >>> from cliff_ms.weights.networks import load_model
        >>> from cliff_ms.zoo import bundled_model
        >>> cliff = load_model(load_weights(bundled_model()))
    """

    def __init__(
        self,
        encoder: str = "res50",
        location_input: bool = True,
        width: float = 1.0,
        joint_set: str = "coco17",
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"For 'CLIFF', 'encoder' must be one of {', '.join(ENCODERS)}, but got '{encoder}'.")
        self.encoder = ENCODERS[encoder](width, joint_set, location_input)
        self.reads_keypoints = isinstance(self.encoder, KeypointEncoder)
        # HMR's regressor is linear, which is enough for what a deep encoder has seen. Where the person is must turn the
        # whole body, and how it turns depends on the pose: keypoints need the products of the two.
        size = self.encoder.out_channels
        hidden = {"relu": True, "hidden_size": size} if self.reads_keypoints else {}
        self.regressor = Regressor(size, location_input, **hidden)

    def regress(self, inputs: Tensor, bbox_info: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pose6d (B, 144), betas (B, 10) and pred_cam_crop (B, 3), in the precision that the parts compute in."""
        feature = self.encoder(inputs, bbox_info) if self.reads_keypoints else self.encoder(inputs)
        return self.regressor(feature, bbox_info)

    def construct(self, inputs: Tensor, bbox_info: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pose6d, betas, cam = self.regress(inputs, bbox_info)
        return rot6d_to_rotmat(pose6d), betas, cam


def build_model(config: ModelConfig) -> CLIFF:
    """The untrained network that a configuration, or a checkpoint's side-car, describes."""
    return CLIFF(config.encoder, config.location_input, config.width, config.joint_set)


class FullFrameCLIFF(nn.Cell):
    r"""CLIFF from a crop to a body placed in the full image's camera; what inference runs and `export.py` writes.

    Args:
        cliff (CLIFF): The network.
        bbox_norm (str): 'eq5' or 'released', see :func:`cliff_ms.camera.bbox_info`.
        smpl (SMPL): Also return the body. Default: None.

    Inputs:
        - **inputs** (Tensor) - As for :class:`CLIFF`.
        - **center** (Tensor) - (B, 2) px, crop centre in the full image.
        - **bbox_size** (Tensor) - (B,) px, crop height b in the full image.
        - **img_hw** (Tensor) - (B, 2) px.
        - **focal_length** (Tensor) - (B,) px.

    Outputs:
        Tuple of **pred_rotmat** (B, 24, 3, 3), **pred_betas** (B, 10), **pred_cam_crop** (B, 3), **pred_cam_full**
        (B, 3) m; with `smpl` also **vertices** (B, V, 3) and **joints** (B, 45, 3) m, without the translation.

    Supported Platforms:
        ``CPU``
    """

    def __init__(self, cliff: CLIFF, bbox_norm: str, smpl: SMPL | None = None) -> None:
        super().__init__()
        self.cliff = cliff
        self.bbox_norm = bbox_norm
        self.smpl = smpl

    def construct(
        self, inputs: Tensor, center: Tensor, bbox_size: Tensor, img_hw: Tensor, focal_length: Tensor
    ) -> tuple[Tensor, ...]:
        location = camera.bbox_info(center, bbox_size, img_hw, focal_length, self.bbox_norm)
        rotmat, betas, cam_crop = self.cliff(inputs, location)
        cam_full = camera.full_translation(cam_crop, center, bbox_size, img_hw, focal_length)
        if self.smpl is None:
            return rotmat, betas, cam_crop, cam_full
        vertices, joints = self.smpl(betas, rotmat)
        return rotmat, betas, cam_crop, cam_full, vertices, joints

"""A small body with SPIN's extra joints, batches whose geometry closes, and a network without BatchNorm."""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.config import LossConfig
from cliff_ms.data.batching import Batch
from cliff_ms.keypoints import LSP_EXTRA9
from tests.toys.body import toy_body
from tests.toys.reference import reference_joints

WEIGHTS = {name: w for name, w in dataclasses.asdict(LossConfig()).items() if name != "full_frame"}


def training_body(vertices=97, seed=0):
    """Random, but the size of a person: about a metre."""
    rng = np.random.default_rng(seed + 1)
    body = toy_body(vertices=vertices, seed=seed)
    return dataclasses.replace(
        body,
        v_template=(0.4 * body.v_template).astype(np.float32),
        regressors={"extra": rng.dirichlet(np.ones(vertices) * 0.1, len(LSP_EXTRA9)).astype(np.float32)},
    )


def people(body, count, seed=0):
    """A `Batch` of keypoint samples, and the camera (s, t_x, t_y) that made its points."""
    rng = np.random.default_rng(seed)
    rotmats = Rotation.from_rotvec(0.3 * rng.standard_normal((count * 24, 3))).as_matrix().reshape(count, 24, 3, 3)
    betas = rng.standard_normal((count, 10))
    _, joints = reference_joints(body, betas, rotmats)
    img_hw = np.tile([[720.0, 1280.0]], (count, 1))
    focal_length = rng.uniform(900, 1500, count)
    size = rng.uniform(150, 600, count)
    center = rng.uniform([200, 150], [1080, 570], (count, 2))
    cam = np.c_[rng.uniform(0.5, 0.9, count), rng.uniform(-0.2, 0.2, (count, 2))]
    points = full_points(joints, cam, center, size, img_hw, focal_length)
    seen = (rng.random((count, 24, 1)) < 0.8).astype(float)
    inputs = np.c_[(points[:, :17] - center[:, None]) / (size[:, None, None] / 2), np.ones((count, 17, 1))]
    batch = Batch(
        inputs=inputs,
        center=center,
        bbox_size=size,
        img_hw=img_hw,
        focal_length=focal_length,
        keypoints2d=np.concatenate([points, seen], -1),
        keypoints3d=np.concatenate([joints, np.ones((count, 24, 1))], -1),
        rotmats=rotmats,
        betas=betas,
        has_smpl=np.ones(count),
    )
    return Batch(*(array.astype(np.float32) for array in batch)), cam.astype(np.float32)


def full_points(joints, cam, center, size, img_hw, focal_length):
    """Eq. (7) and (8) in float64, px of the full image."""
    s, offset = cam[:, 0], center - img_hw[:, ::-1] / 2
    translation = np.c_[cam[:, 1:] + 2 * offset / (size * s)[:, None], 2 * focal_length / (size * s)]
    moved = joints + translation[:, None]
    return moved[..., :2] / moved[..., 2:] * focal_length[:, None, None] + img_hw[:, None, ::-1] / 2


def plain_cliff():
    """A linear encoder of 64 features and the regressor: no BatchNorm, no dropout."""
    from mindspore import nn

    from cliff_ms.models.regressor import Regressor

    class PlainEncoder(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(17 * 3, 64)

        def construct(self, keypoints):
            return self.dense(keypoints.reshape(-1, 17 * 3))

    class PlainCLIFF(nn.Cell):
        def __init__(self):
            super().__init__()
            self.encoder = PlainEncoder()
            self.regressor = Regressor(64)
            self.regressor.after1 = self.regressor.after2 = nn.Identity()

        def regress(self, keypoints, bbox_info):
            return self.regressor(self.encoder(keypoints), bbox_info)

    return PlainCLIFF()


def train_step(network, dropout_key=None, learning_rate=1e-3, **options):
    """A train step, and a function that calls it with a batch and returns (report, skipped)."""
    import mindspore as ms
    from mindspore import Parameter, Tensor, nn

    from cliff_ms.training.step import CLIFFTrainOneStepCell

    if dropout_key is None:
        dropout_key = Parameter(Tensor(np.zeros(2, np.float32)), name="dropout_key", requires_grad=False)
    step = CLIFFTrainOneStepCell(network, nn.Adam(network.trainable_params(), 1.0), dropout_key, **options)
    step.set_train()

    def run(batch, first=True, last=True, key=(0.1, 0.2), rate=learning_rate):
        rate, stop = Tensor(rate, ms.float32), Tensor([0.0], ms.float32)
        key = Tensor(np.array(key, np.float32))
        report, skipped, _ = step(last, Tensor(first), rate, key, stop, *map(Tensor, batch))
        return report.asnumpy(), int(skipped.asnumpy())

    return step, run


def cliff_with_loss(cliff, body, weights=WEIGHTS):
    """The training loss of a network, and its dropout's key."""
    from cliff_ms.body.smpl import build_smpl
    from cliff_ms.training.dropout import seed_dropouts
    from cliff_ms.training.step import CLIFFWithLoss

    key = seed_dropouts(cliff)
    return CLIFFWithLoss(cliff, build_smpl(body, "toy", weights["vertices"] > 0), weights), key


def small_network(batch_norm):
    """A regression of one number on five, fast to compile."""
    from mindspore import nn

    class SmallNetwork(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first = nn.Dense(5, 8)
            self.norm = nn.BatchNorm1d(8) if batch_norm else nn.Identity()
            self.second = nn.Dense(8, 1)

        def construct(self, x, y):
            error = self.second(self.norm(self.first(x))) - y
            loss = (error * error).mean()
            return loss, loss.reshape(1)

    return SmallNetwork()

"""An endless stream of synthetic keypoint samples, made in batches on the fly."""

import numpy as np

from cliff_ms.body.files import Body
from cliff_ms.camera import estimate_focal_length
from cliff_ms.data.batching import Batch
from cliff_ms.data.crop import normalize_keypoints
from cliff_ms.keypoints import LANDMARKS, SPIN24, index_map
from cliff_ms.synthetic.observation import Observer
from cliff_ms.synthetic.world import World

_SPIN = index_map(LANDMARKS, SPIN24)


class KeypointStream:
    """Batches of people seen by a keypoint detector, with exact labels. Batch i is a function of the seed and i only.

    Args:
        body: The body whose poses and shapes are the labels.
        joint_set: Keypoints that go in, a key of `keypoints.JOINT_SETS`.
        batch_size: B.
        seed: Of the stream.
        held_out: Take the batches from a part of the stream that is never trained on, nor are its recorded poses.
        known_focal_length: Give the cameras' focal lengths; else those estimated from the image size.
        observation: How a detector sees them, see `observation.Observer`.
        labelled: Share of people with 3D labels.

    Raises:
        InputError: If the body has no regressor for SPIN's keypoints, or a table of recorded poses is missing.
    """

    def __init__(
        self,
        body: Body,
        joint_set: str,
        batch_size: int,
        seed: int,
        held_out: bool = False,
        known_focal_length: bool = True,
        observation: str = "mixed",
        labelled: float = 1.0,
    ) -> None:
        self.world = World(body, test=held_out)
        self.observer = Observer(joint_set, observation)
        self.labelled = labelled
        self.known_focal_length = known_focal_length
        self.batch_size = batch_size
        self.key = (seed, int(held_out))

    def people(self, first: int, count: int) -> Batch:
        """The people `first` to `first + count` of all batches in a row."""
        batches = range(first // self.batch_size, -(-(first + count) // self.batch_size))
        arrays = zip(*map(self.batch, batches), strict=True)
        return Batch(*(np.concatenate(parts)[first % self.batch_size :][:count] for parts in arrays))

    def batch(self, index: int) -> Batch:
        """Make one batch.

        Args:
            index: Which, from 0.

        Returns:
            The batch: inputs are zero where a keypoint is missing, `keypoints2d` have 1 inside the frame, else 0,
            `keypoints3d` are from the camera, with confidence 0 and `has_smpl` 0 for people without 3D labels.
        """
        rng = np.random.default_rng((*self.key, index))
        people = self.world.sample(rng, self.batch_size)
        keypoints, center, size = self.observer(rng, people)
        inputs = normalize_keypoints(keypoints, center, size)
        inputs[keypoints[..., 2] == 0] = 0
        joints2d, joints3d = people.points2d[:, _SPIN], people.points[:, _SPIN]
        in_frame = people.in_frame()[:, _SPIN, None].astype(np.float32)
        labelled = (rng.random(self.batch_size) < self.labelled).astype(np.float32)
        in_3d = np.broadcast_to(labelled[:, None, None], in_frame.shape)
        return Batch(
            inputs=inputs,
            center=center,
            bbox_size=size,
            img_hw=people.img_hw,
            focal_length=people.focal_length if self.known_focal_length else estimate_focal_length(people.img_hw),
            keypoints2d=np.concatenate([joints2d, in_frame], -1),
            keypoints3d=np.concatenate([joints3d, in_3d], -1),
            rotmats=people.rotmats,
            betas=people.betas,
            has_smpl=labelled,
        )

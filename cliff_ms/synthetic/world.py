"""Synthetic people in front of cameras: where they stand, which way they face, what the camera sees of their joints.

Frames, in metres: the body's (x to its left, y up, z forward), the level frame (the camera's without pitch and roll: x
right, y straight down, z ahead), and the camera's (x right, y down, z forward).
"""

from dataclasses import dataclass

import numpy as np

from cliff_ms import camera
from cliff_ms.body.files import Body
from cliff_ms.body.skinning import Skinner
from cliff_ms.keypoints import LANDMARKS, SPIN24, index_map
from cliff_ms.synthetic import quaternions
from cliff_ms.synthetic.poses import PosePrior
from cliff_ms.synthetic.real_poses import MixedPoses, Poses, RealPoses

IMAGE_SIZES = ((480, 640), (640, 480), (720, 1280), (1280, 720), (1000, 1000), (1000, 1500), (1500, 1000))  # h, w px
FIELD_OF_VIEW = np.radians((35.0, 75.0))  # horizontal; the vertical one stays below the upper end too
BETA_LIMIT = 2.5  # standard deviations; beyond 3 the bundled body leaves human stature
REAL = 0.5  # share of people in poses that were recorded, not drawn
MIN_SEEN = 12  # of SPIN's 24 joints that lie in the frame
NEAREST = 0.5  # m, of any landmark
_FAR = 12.0  # m, of the body's centre
ON_GROUND = 0.8  # share of people that the camera's pitch and height put on the ground
_MAX_PITCH = np.radians(40)
_TRIES = 14  # nearer to the middle and farther away each time, until enough is seen
_STANDING = np.diag((1.0, -1.0, -1.0))  # body to level frame: upright and facing the camera
_SPIN = index_map(LANDMARKS, SPIN24)
# What is between a landmark and the outside of the body, m; the others lie on the surface.
_FLESH = {"pelvis": 0.12, "hip": 0.12, "spine1": 0.1, "spine2": 0.1, "spine3": 0.1, "knee": 0.06, "ankle": 0.06,
          "foot": 0.02, "neck": 0.06, "head": 0.1, "collar": 0.06, "shoulder": 0.06, "elbow": 0.04, "wrist": 0.03,
          "hand": 0.02, "heel": 0.03}  # fmt: skip
_RADII = np.array([_FLESH.get(name.removeprefix("left_").removeprefix("right_"), 0.0) for name in LANDMARKS])


@dataclass(frozen=True)
class SeenPeople:
    """N people as N cameras see them. Float32, camera frame.

    Attributes:
        rotmats: (N, 24, 3, 3), relative to the parent, the root's to the camera.
        betas: (N, 10).
        translation: (N, 3) m, of the body model's output.
        points: (N, 54, 3) m, in the order of LANDMARKS.
        points2d: (N, 54, 2) px of the full image.
        bones: (N, 24, 3, 3), rotations of the joints from the body at rest.
        img_hw: (N, 2) px.
        focal_length: (N,) px.
    """

    rotmats: np.ndarray
    betas: np.ndarray
    translation: np.ndarray
    points: np.ndarray
    points2d: np.ndarray
    bones: np.ndarray
    img_hw: np.ndarray
    focal_length: np.ndarray

    def in_frame(self) -> np.ndarray:
        """Which landmarks lie inside the image, (N, 54) bool."""
        return in_frame(self.points2d, self.img_hw)


@dataclass(frozen=True)
class Bodies:
    """N people who are in front of no camera yet. Level frame, from the pelvis.

    Attributes:
        rotmats: (N, 24, 3, 3), relative to the parent, the root's to the level frame.
        betas: (N, 10).
        pelvis: (N, 3) m, where the body model puts it.
        bones: (N, 24, 3, 3), rotations of the joints from the body at rest.
        vertices: (N, U, 3) m, those that the skinner poses.
        points: (N, 54, 3) m, in the order of LANDMARKS.
        air: (N,) bool, off the ground.
    """

    rotmats: np.ndarray
    betas: np.ndarray
    pelvis: np.ndarray
    bones: np.ndarray
    vertices: np.ndarray
    points: np.ndarray
    air: np.ndarray

    def seen(self, from_level: np.ndarray, place: np.ndarray, focal: np.ndarray, img_hw: np.ndarray) -> SeenPeople:
        """Put the people in front of cameras.

        Args:
            from_level: (N, 3, 3), rotations from the level to the camera frame.
            place: (N, 3) m, of the pelvises in the camera frame.
            focal: (N,) px.
            img_hw: (N, 2) px.

        Returns:
            What the cameras see.
        """
        rotmats = self.rotmats.copy()
        rotmats[:, 0] = from_level @ self.rotmats[:, 0]
        points = self.points @ from_level.transpose(0, 2, 1) + place[:, None]
        points2d = _project(points, focal, img_hw)
        bones = from_level[:, None] @ self.bones
        arrays = (rotmats, self.betas, place - self.pelvis, points, points2d, bones, img_hw, focal)
        return SeenPeople(*(np.asarray(array, np.float32) for array in arrays))


def in_frame(points2d: np.ndarray, img_hw: np.ndarray) -> np.ndarray:
    """Which points lie inside the image, (N, J, 2) px and (N, 2) px -> (N, J) bool."""
    x, y = points2d[..., 0], points2d[..., 1]
    return (x >= 0) & (y >= 0) & (x < img_hw[:, 1:]) & (y < img_hw[:, :1])


def sample_betas(rng: np.random.Generator, count: int, num_betas: int = 10) -> np.ndarray:
    """Shapes within human range, (N, num_betas) float32."""
    return rng.normal(size=(count, num_betas)).clip(-BETA_LIMIT, BETA_LIMIT).astype(np.float32)


def sample_focal_lengths(rng: np.random.Generator, img_hw: np.ndarray) -> np.ndarray:
    """Focal lengths (N,) px of a horizontal field of view in FIELD_OF_VIEW, for images of (N, 2) px.

    An upright image of the widest view would look more than 100 degrees up and down, as no usual lens does: there
    the upper end holds for the height.
    """
    height, width = img_hw[:, 0], img_hw[:, 1]
    shortest = np.maximum(height, width) / 2 / np.tan(FIELD_OF_VIEW[1] / 2)
    widest = 2 * np.arctan(width / 2 / shortest)
    return width / 2 / np.tan(rng.uniform(FIELD_OF_VIEW[0], widest) / 2)


def sample_roll(rng: np.random.Generator, count: int) -> np.ndarray:
    """Mostly a little, sometimes a lot: (N,) rad."""
    return np.radians(rng.normal(0, np.where(rng.random(count) < 0.15, 14, 2.5))).clip(-_MAX_PITCH, _MAX_PITCH)


def camera_rotation(pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Rotation from the level to the camera frame, (N,) and (N,) rad -> (N, 3, 3)."""
    zero = np.zeros_like(pitch)
    down = quaternions.from_rotvec(np.stack([pitch, zero, zero], -1))
    around = quaternions.from_rotvec(np.stack([zero, zero, roll], -1))
    return quaternions.to_matrix(quaternions.multiply(around, down))


def sample_depths(rng: np.random.Generator, focal: np.ndarray, img_hw: np.ndarray) -> np.ndarray:
    """Distances (N,) m at which a standing person fills between a fifth and one and a half of the image's height."""
    share = np.exp(rng.uniform(np.log(0.22), np.log(1.5), len(focal)))
    return (1.7 * focal / (img_hw[:, 0] * share)).clip(1.5, _FAR)


def sample_heights(rng: np.random.Generator, air: np.ndarray) -> np.ndarray:
    """Heights (N,) m of cameras above the lowest point of people, who are off the ground where `air` (N,) is true."""
    height = rng.normal(1.45, 0.45, len(air)).clip(0.25, 3.5)
    return height - np.where(air, rng.uniform(0.1, 0.6, len(air)), 0)


def _turn(yaw: np.ndarray) -> np.ndarray:
    """Rotation from the body's upright frame to the level frame for people who turn by `yaw`, (N,) -> (N, 3, 3)."""
    zero = np.zeros_like(yaw)
    return _STANDING @ quaternions.to_matrix(quaternions.from_rotvec(np.stack([zero, yaw, zero], -1)))


class World:
    """Draws people one by one, each with a camera of their own.

    Args:
        body: The body.
        whole: Pose the whole mesh, not only the vertices that the landmarks need.
        real: Share of people in poses that were recorded, 0 to 1; the rest is drawn.
        test: Take recorded poses of the subjects and actions that are never trained on.

    Raises:
        InputError: If the body has no regressor for SPIN's joints, or a table of recorded poses is missing.
    """

    def __init__(self, body: Body, whole: bool = False, real: float = REAL, test: bool = False) -> None:
        self.skinner = Skinner(body, whole)
        self.prior = PosePrior()
        self.poses: Poses = MixedPoses(self.prior, RealPoses(test), real) if real else self.prior

    def draw(self, rng: np.random.Generator, count: int) -> Bodies:
        """Draw people who are in front of no camera yet."""
        rotmats, air = self.poses.sample(rng, count)
        betas = sample_betas(rng, count, self.skinner.num_betas)
        rotmats = rotmats.astype(np.float64)
        rotmats[:, 0] = _turn(rng.uniform(-np.pi, np.pi, count)) @ rotmats[:, 0]
        return self.pose(rotmats, betas, air)

    def pose(self, rotmats: np.ndarray, betas: np.ndarray, air: np.ndarray) -> Bodies:
        """Pose people who are in front of no camera yet.

        Args:
            rotmats: (N, 24, 3, 3), relative to the parent, the root's to the level frame.
            betas: (N, 10).
            air: (N,) bool, off the ground.

        Returns:
            The people.
        """
        to_level, rotmats = rotmats[:, 0], rotmats.astype(np.float32)
        rotmats[:, 0] = np.eye(3)
        vertices, points, rotations = self.skinner(betas, rotmats)
        pelvis = self.skinner.rest_joints(betas)[:, 0]
        rotmats[:, 0] = to_level
        bones = to_level[:, None] @ rotations
        vertices, points = (
            (p - pelvis[:, None]) @ to_level.transpose(0, 2, 1).astype(p.dtype) for p in (vertices, points)
        )
        return Bodies(rotmats, betas, pelvis, bones, vertices, points, air)

    def sample(self, rng: np.random.Generator, count: int) -> SeenPeople:
        """Draw people, anywhere in the frame: at its border as often as in its middle.

        Args:
            rng: Where randomness comes from.
            count: N.

        Returns:
            The people, each with MIN_SEEN of SPIN's 24 joints in the frame.
        """
        bodies = self.draw(rng, count)
        level = bodies.points
        anchor = (level.min(1) + level.max(1)) / 2
        img_hw = np.array(IMAGE_SIZES)[rng.integers(len(IMAGE_SIZES), size=count)].astype(np.float64)
        focal = sample_focal_lengths(rng, img_hw)
        roll = sample_roll(rng, count)
        spot = (rng.random((count, 2)) - 0.5) * img_hw[:, ::-1]  # px from the centre, where the anchor shall be
        depth = sample_depths(rng, focal, img_hw)
        # How far below the camera the anchor is.
        below = sample_heights(rng, bodies.air) - (level[..., 1] + _RADII).max(1) + anchor[:, 1]
        free = np.where(rng.random(count) < ON_GROUND, np.nan, np.radians(rng.normal(0, 12, count)))

        from_level, place = np.empty((count, 3, 3)), np.empty((count, 3))  # place: of the pelvis
        todo = np.arange(count)
        for _ in range(_TRIES):
            pitch = aim(focal[todo], roll[todo], spot[todo], depth[todo], below[todo], free[todo])
            turned = from_level[todo] = camera_rotation(pitch, roll[todo])
            ray = np.concatenate([spot[todo] / focal[todo, None], np.ones((len(todo), 1))], 1)
            place[todo] = ray * depth[todo, None] - (turned @ anchor[todo, :, None])[..., 0]
            points = level[todo] @ turned.transpose(0, 2, 1) + place[todo, None]
            todo = todo[~well_placed(points, focal[todo], img_hw[todo])]
            spot[todo] *= 0.75
            depth[todo] *= 1.2
        return bodies.seen(from_level, place, focal, img_hw)


def well_placed(points: np.ndarray, focal: np.ndarray, img_hw: np.ndarray) -> np.ndarray:
    """Whether enough of each person is in the frame and nothing is too near: (N, 54, 3) m, camera -> (N,) bool."""
    spin = points[:, _SPIN]
    seen = in_frame(_project(spin, focal, img_hw), img_hw).sum(1)
    return (seen >= MIN_SEEN) & (points[..., 2].min(1) >= NEAREST)


def aim(
    focal: np.ndarray, roll: np.ndarray, spot: np.ndarray, depth: np.ndarray, below: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """The camera's pitch that puts a point at that spot and depth that far below it; `free` where that is a number."""
    y = (np.cos(roll) * spot[:, 1] - np.sin(roll) * spot[:, 0]) / focal  # with the roll undone
    # y cos(pitch) + sin(pitch) = below / depth
    pitch = np.arcsin((below / depth / np.hypot(1, y)).clip(-1, 1)) - np.arctan(y)
    return np.where(np.isnan(free), pitch, free).clip(-_MAX_PITCH, _MAX_PITCH)


def _project(points: np.ndarray, focal: np.ndarray, img_hw: np.ndarray) -> np.ndarray:
    """(N, J, 3) m, camera -> (N, J, 2) px of the full image."""
    ahead = np.concatenate([points[..., :2], np.maximum(points[..., 2:], 1e-3)], -1)
    return camera.to_image(camera.project(ahead, np.zeros((1, 3)), focal), img_hw)

"""What a keypoint detector would report of people whose joints are known: noise, gaps, confidences, boxes."""

import numpy as np

from cliff_ms.body.markers import of_coco, place_markers
from cliff_ms.camera import project, to_image
from cliff_ms.data.crop import box_to_crop
from cliff_ms.data.detections import KEYPOINT_MARGIN, MIN_CONFIDENCE, MIN_JOINTS
from cliff_ms.keypoints import COCO17, JOINT_SETS, LANDMARKS, SMPL24, flip_permutation, index_map
from cliff_ms.synthetic.world import NEAREST, SeenPeople, in_frame

OBSERVATIONS = ("mixed", "detector", "bundled", "clean", "half")
CROP_HW = (256, 192)  # only its ratio matters here
_NOISE = (0.013, 0.45)  # median over people of a joint's deviation in crop heights, and the spread of its logarithm
_DIFFICULTY = 0.45  # spread over joints of the same
_OUTLIERS = (0.04, 4.0)  # share of joints that are far off, and the factor
_HARDER = {"hip": 1.4, "wrist": 1.3, "ankle": 1.2, "nose": 0.5, "eye": 0.5, "ear": 0.6, "pelvis": 1.2}
_SWAPPED = 0.03  # share of people whose left and right are mixed up, in the arms, the legs or everywhere
_EXACT = 0.3  # share of people whose joints were clicked by somebody careful: no noise, nothing mixed up
_COCO = 0.5  # share of people seen by a detector that knows COCO's 17 joints only
_SURE = 0.3  # share of people whose file says 1 for every joint it has
_LOST_JOINTS, _LOST_LIMB, _LOST_HALF = 0.10, 0.04, 0.10
_HIDDEN_FACE = 0.7  # share of detectors that leave out the far side of a face
_LOST_HALVES = (0.6, 0.06, 0.17, 0.17)  # how often the legs, all but the legs, the left, the right
_BOX_OF_BODY = 0.25  # share of boxes that a person detector drew, and not the keypoints
_BOX_SHIFT, _BOX_SCALE = 0.03, 0.07
# The bundled detector puts joints where the markers of `body.markers` say; it mixes up legs; joints at the border of
# the image are left out, and all that it gives are given with confidence 1.
_BUNDLED = 0.3  # share of people that it is trained for
_SWAPPED_LEGS = 0.05
_BORDER = 0.02  # of the crop's height
_MEDIAN = 1.177  # of the distance of points in a plane, whose coordinates have a deviation of 1
# The outward direction at each point of the face, in the head's frame.
_FACE = {"nose": (0, 0, 1), "left_eye": (0.35, 0, 0.94), "right_eye": (-0.35, 0, 0.94), "left_ear": (1, 0, 0),
         "right_ear": (-1, 0, 0)}  # fmt: skip


class Observer:
    """Reports people's joints as a detector would.

    Args:
        joint_set: The joints it knows, a key of `keypoints.JOINT_SETS`.
        observation: 'detector' for noise, gaps and loose boxes; 'clean' for the exact joints in the frame and a tight
            box; 'half' for noise and a loose box, with the legs or one side, rarely the rest, of everybody hidden;
            'bundled' for the errors of `inference.pose_detector`; 'mixed', to train on, for detectors of which some are
            exact, some know only COCO's joints, and some are the bundled one.
    """

    def __init__(self, joint_set: str, observation: str) -> None:
        if observation not in OBSERVATIONS:
            raise ValueError(f"For 'Observer', 'observation' must be one of {OBSERVATIONS}, but got '{observation}'.")
        self.names = JOINT_SETS[joint_set]
        self.observation = observation
        self.from_landmarks = index_map(LANDMARKS, self.names)
        self.mirror = np.array(flip_permutation(self.names))
        self.harder = np.array([_HARDER.get(_kind(name), 1.0) for name in self.names])
        legs = np.array([_kind(name) in ("hip", "knee", "ankle", "heel", "toe") for name in self.names])
        self.regions = np.stack([~legs, legs, legs | ~legs])  # that a left and right are mixed up in
        sides = [np.array([name.startswith(side) for name in self.names]) for side in ("left", "right")]
        lower = legs | np.array([name == "pelvis" for name in self.names])
        self.halves = np.stack([lower, ~lower, *sides])
        far = np.array([_kind(name) in ("elbow", "wrist", "knee", "ankle", "heel", "toe") for name in self.names])
        self.limbs = np.stack([far & side & part for side in sides for part in (legs, ~legs)])
        self.beyond_coco = np.array([name not in COCO17 for name in self.names])
        self.face = [self.names.index(name) for name in _FACE]
        self.legs = legs
        self.marked, self.marker_bones, self.marker_offsets = place_markers(self.names)
        self.spread, self.strays = (of_coco(name, self.names) / 100 / _MEDIAN for name in ("spread", "strays"))  # m
        self.astray = of_coco("astray", self.names)

    def __call__(self, rng: np.random.Generator, people: SeenPeople) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Report keypoints and boxes.

        Args:
            rng: Where randomness comes from.
            people: N of them.

        Returns:
            Keypoints (N, K, 3), x and y in px of the full image and confidence, all zero where a joint is missing;
            centre (N, 2) px and height (N,) px of the crop.
        """
        exact = people.points2d[:, self.from_landmarks].astype(np.float64)
        inside = people.in_frame()[:, self.from_landmarks, None]
        exact = np.concatenate([exact, inside], -1)
        if self.observation == "clean":
            keypoints = exact
        elif self.observation == "bundled":
            keypoints = self._observe_bundled(rng, people, exact)
        else:
            keypoints = self._observe(rng, people, exact)
        if self.observation == "mixed":
            bundled = rng.random((len(exact), 1, 1)) < _BUNDLED
            keypoints = np.where(bundled, self._observe_bundled(rng, people, exact), keypoints)
        if self.observation != "clean":
            # Whoever has too few joints left for a box to be drawn around would not have been reported at all.
            few = (keypoints[..., 2] > MIN_CONFIDENCE).sum(1) < MIN_JOINTS
            keypoints[few] = exact[few]
        keypoints *= keypoints[..., 2:] > 0
        center, size = self._boxes(rng, people, keypoints)
        return keypoints.astype(np.float32), center, size

    def _observe(self, rng: np.random.Generator, people: SeenPeople, exact: np.ndarray) -> np.ndarray:
        count, joints = exact.shape[:2]
        _, size = crops_around(exact)
        difficulty = np.exp(rng.normal(0, _DIFFICULTY, (count, joints)))
        difficulty *= np.where(rng.random((count, joints)) < _OUTLIERS[0], _OUTLIERS[1], 1)
        away = self._face_turned_away(people)
        difficulty[:, self.face] *= np.where(away, 3, 1)
        deviation = size * np.exp(rng.normal(np.log(_NOISE[0]), _NOISE[1], count))
        noise = rng.normal(size=(count, joints, 2)) * (deviation[:, None] * self.harder * difficulty)[..., None]
        position = self._swap(rng, exact[..., :2] + noise)
        if self.observation == "mixed":
            position = np.where(rng.random((count, 1, 1)) < _EXACT, exact[..., :2], position)
        confidence = (1.02 - 0.16 * difficulty + rng.normal(0, 0.06, (count, joints))).clip(0.05, 1)
        confidence = np.where(rng.random((count, 1)) < _SURE, 1, confidence)
        lost = self._lost(rng, count)
        if self.observation != "half":
            lost[:, self.face] |= away & (rng.random((count, 1)) < _HIDDEN_FACE)
        if self.observation == "mixed":
            lost |= self.beyond_coco & (rng.random((count, 1)) < _COCO)
        seen = in_frame(position, people.img_hw) & (exact[..., 2] > 0) & ~lost
        return np.concatenate([position, (confidence * seen)[..., None]], -1)

    def _observe_bundled(self, rng: np.random.Generator, people: SeenPeople, exact: np.ndarray) -> np.ndarray:
        count, joints = exact.shape[:2]
        _, size = crops_around(exact)
        points = people.points[:, self.from_landmarks].astype(np.float64)
        points[:, self.marked] += np.einsum("nkij,kj->nki", people.bones[:, self.marker_bones], self.marker_offsets)
        depth = np.maximum(points[..., 2], NEAREST)
        position = to_image(project(points, np.zeros((1, 3)), people.focal_length), people.img_hw)
        spread = np.where(rng.random((count, joints)) < self.astray, self.strays, self.spread)
        deviation = spread * people.focal_length[:, None] / depth
        position = position + rng.normal(size=position.shape) * deviation[..., None]
        swapped = self.legs & (rng.random((count, 1)) < _SWAPPED_LEGS)
        position = np.where(swapped[..., None], position[:, self.mirror], position)
        margin = _BORDER * size[:, None, None]
        inside = ((position >= margin) & (position <= people.img_hw[:, None, ::-1] - margin)).all(-1)
        seen = inside & (exact[..., 2] > 0) & ~self._lost(rng, count) & ~self.beyond_coco
        return np.concatenate([position, seen[..., None]], -1)

    def _lost(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Joints (N, K) bool that nothing is known of: single ones, limbs and halves of the body."""
        half = self.halves[rng.choice(len(_LOST_HALVES), count, p=_LOST_HALVES)]
        if self.observation == "half":
            return half
        rate = rng.uniform(0, 2 * _LOST_JOINTS, (count, 1)) * (rng.random((count, 1)) < 0.6)
        limbs = rng.random((count, len(self.limbs))) < _LOST_LIMB
        lost = (rng.random((count, len(self.names))) < rate) | (limbs @ self.limbs)
        return lost | (half & (rng.random((count, 1)) < _LOST_HALF))

    def _swap(self, rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
        region = self.regions[rng.integers(len(self.regions), size=len(position))]
        region = region & (rng.random((len(position), 1)) < _SWAPPED)
        return np.where(region[..., None], position[:, self.mirror], position)

    def _face_turned_away(self, people: SeenPeople) -> np.ndarray:
        """Points of the face (N, 5) bool on the far side of the head."""
        head = people.bones[:, SMPL24.index("head")]
        outward = np.array(list(_FACE.values()), np.float32) @ head.transpose(0, 2, 1)  # (N, 5, 3)
        sight = people.points[:, LANDMARKS.index("head")]
        return (outward * sight[:, None]).sum(-1) > 0.15 * np.linalg.norm(sight, axis=-1, keepdims=True)

    def _boxes(
        self, rng: np.random.Generator, people: SeenPeople, keypoints: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        center, size = crops_around(keypoints)
        if self.observation == "clean":
            return center, size
        whole = np.concatenate([people.points2d, np.ones_like(people.points2d[..., :1])], -1)
        whole[..., :2] = whole[..., :2].clip(0, people.img_hw[:, None, ::-1])
        other_center, other_size = crops_around(whole)
        other = rng.random(len(size)) < _BOX_OF_BODY
        center = np.where(other[:, None], other_center, center)
        size = np.where(other, other_size, size)
        center = center + rng.normal(0, _BOX_SHIFT, center.shape).clip(-0.1, 0.1) * size[:, None]
        size = size * np.exp(rng.normal(0, _BOX_SCALE, size.shape).clip(-0.2, 0.2))
        return center.astype(np.float32), size.astype(np.float32)


def crops_around(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The crop around each person's visible joints, as `detections.box_around` and `crop.box_to_crop` make it.

    Args:
        keypoints: (N, K, 3) px and confidence, at least two visible joints each.

    Returns:
        center (N, 2) px and size (N,) px, the crop height, float32.
    """
    seen = keypoints[..., 2] > MIN_CONFIDENCE
    axes = [keypoints[..., k] for k in range(2)]
    low = np.stack([np.where(seen, axis, np.inf).min(1) for axis in axes], -1)
    high = np.stack([np.where(seen, axis, -np.inf).max(1) for axis in axes], -1)
    middle, half = (low + high) / 2, (high - low) / 2 * KEYPOINT_MARGIN
    return box_to_crop(np.concatenate([middle - half, middle + half], -1), CROP_HW)


def _kind(name: str) -> str:
    """'left_big_toe' -> 'toe'."""
    return name.rpartition("_")[2]

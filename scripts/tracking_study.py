"""Who is who: the tracker of `cliff_ms.inference.tracking` on synthetic videos whose truth is known.

    python scripts/tracking_study.py [--seeds 20]

Bodies walk on a plane before a camera, in recorded poses, from one to the next: past each other, side by side, in a
crowd of six, out of the picture and back. Keypoints have the errors of the stream's imitation of the bundled
detector; a person is not found while somebody nearer covers more than 60 % of her box. Places are off in depth by 8 %
for each person and 3 % for each frame, as the bundled model's are. Rows come in any order. A table of IDF1 (the share
of rows that the best pairing of tracks and people names right) and of changes of a person's number, for 30 and 10
frames a second, by the tracker, without places, without joints, and by boxes greedily matched by intersection over
union.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation, Slerp

from cliff_ms import cli
from cliff_ms.body.files import load_body
from cliff_ms.data.detections import boxes_from_keypoints
from cliff_ms.inference.tracking import MAX_GAP, Sighting, Tracker, box_iou
from cliff_ms.synthetic.observation import Observer
from cliff_ms.synthetic.real_poses import RealPoses
from cliff_ms.synthetic.world import SeenPeople, World, sample_betas

SECONDS, FOCAL, IMG_HW = 4.0, 1000.0, (720, 1280)
STEP = 0.4  # s from one recorded pose to the next
COVERED = 0.6
DEPTH_ERRORS = (0.08, 0.03)  # of ln z: for all of a person's frames, and from frame to frame
_SEED = 7  # the tracker's constants were tried with another one
SCENES = ("past each other", "side by side", "crowd of six", "out and back in")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="videos of each scene")
    seeds = parser.parse_args().seeds
    world, poses = World(load_body(), real=0), RealPoses(test=True)
    ways: dict[str, Callable[[], Callable]] = {
        "tracker": Tracker,
        "without places": lambda: _without(places=True),
        "without joints": lambda: _without(places=False),
        "greedy boxes": GreedyBoxes,
    }
    rows = []
    for (number, scene), fps in itertools.product(enumerate(SCENES), (30, 10)):
        scores: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
        for seed in range(seeds):
            rng = np.random.default_rng((_SEED, seed, number, fps))
            frames = list(video(rng, world, poses, scene, fps))
            for name, way in ways.items():
                track = way()
                scores[name].append(score([(who, track(time, people)) for time, who, people in frames]))
        means = {name: np.mean(each, 0) for name, each in scores.items()}
        cells = {name: f"{100 * idf1:.1f}, {changes:.1f}" for name, (idf1, changes) in means.items()}
        rows.append({"scene": f"{scene}, {fps}/s", **cells})
    print(f"IDF1 in %, and changes of a number in a video; means of {seeds} videos\n{cli.table(rows)}")


def paths(rng: np.random.Generator, scene: str, times: np.ndarray) -> np.ndarray:
    """Where people are on the ground, (P, T, 2) m to the right and ahead."""
    if scene == "crowd of six":
        start = np.stack([rng.uniform(-2.5, 2.5, 6), rng.uniform(4, 8, 6)], -1)
        heading, speed = rng.uniform(0, 2 * np.pi, 6), rng.uniform(0.3, 1.5, 6)
        velocity = speed[:, None] * np.stack([np.cos(heading), 0.5 * np.sin(heading)], -1)
        turned = np.sin(times * rng.uniform(0.5, 1.5, (6, 1)))[..., None]  # to and fro
        return start[:, None] + velocity[:, None] * turned
    depth, speed = rng.uniform(4, 6), rng.uniform(0.8, 1.8)
    along = speed * (times - SECONDS / 2)
    if scene == "past each other":
        return np.stack([np.stack([sign * along, np.full_like(along, depth + k * rng.uniform(0.4, 1.2))], -1)
                         for k, sign in enumerate((1, -1, -1))])  # fmt: skip
    if scene == "side by side":
        return np.stack([np.stack([along + rng.uniform(-0.3, 0.3), np.full_like(along, depth + 0.7 * k)], -1)
                         for k in range(3)])  # fmt: skip
    edge = IMG_HW[1] / 2 / FOCAL * depth
    away = rng.uniform(0.2, 1.2)  # s out of sight
    outside = edge + 0.25 + speed * away / 2 - speed * np.abs(times - SECONDS / 2)
    return np.stack([np.stack([outside, np.full_like(along, depth)], -1),
                     np.stack([-0.5 * outside, np.full_like(along, depth + 1)], -1)])  # fmt: skip


def video(
    rng: np.random.Generator, world: World, poses: RealPoses, scene: str, fps: int
) -> Iterator[tuple[float, np.ndarray, Sighting]]:
    """Time, who the rows are (P,), and the rows of each frame."""
    times = np.arange(0, SECONDS, 1 / fps)
    people = [walker(rng, world, poses, path, times) for path in paths(rng, scene, times)]
    observer = Observer("coco17", "bundled")
    with np.errstate(invalid="ignore"):  # crops of those who are out of the picture
        keypoints = np.stack([observer(rng, person)[0] for person in people])  # (P, T, 17, 3)
    depth_errors = rng.normal(0, DEPTH_ERRORS[0], (len(people), 1)) + rng.normal(
        0, DEPTH_ERRORS[1], (len(people), len(times))
    )
    places = np.stack([person.points[:, 0] for person in people]) * np.exp(depth_errors)[..., None]
    for frame, time in enumerate(times):
        enough = np.array([(joints[frame, :, 2] > 0.2).sum() >= 6 for joints in keypoints])
        rows = rng.permutation(np.flatnonzero(enough))
        if len(rows):
            boxes = boxes_from_keypoints(keypoints[rows, frame], scene)
            seen = ~covered(boxes, np.array([people[row].points[frame, 0, 2] for row in rows]))
            rows, boxes = rows[seen], boxes[seen]
        else:
            boxes = np.zeros((0, 4))
        yield float(time), rows, Sighting(boxes, places[rows, frame], keypoints[rows, frame])


def walker(rng: np.random.Generator, world: World, poses: RealPoses, path: np.ndarray, times: np.ndarray) -> SeenPeople:
    """One person on her way."""
    count = len(times)
    keys = np.arange(0, SECONDS + 2 * STEP, STEP)
    key_poses, _ = poses.sample(rng, len(keys))
    rotmats = np.stack([Slerp(keys, Rotation.from_matrix(key_poses[:, j]))(times).as_matrix() for j in range(24)], 1)
    velocity = np.gradient(path, times, axis=0)
    yaw = np.arctan2(velocity[:, 0], -velocity[:, 1])  # 0 towards the camera
    rotmats[:, 0] = np.diag([1.0, -1, -1]) @ Rotation.from_rotvec(yaw[:, None] * (0, 1, 0)).as_matrix() @ rotmats[:, 0]
    bodies = world.pose(rotmats, np.repeat(sample_betas(rng, 1), count, 0), np.zeros(count, bool))
    place = np.stack([path[:, 0], 1.4 - bodies.points[..., 1].max(1), path[:, 1]], -1)
    img_hw = np.tile(np.array(IMG_HW, float), (count, 1))
    return bodies.seen(np.broadcast_to(np.eye(3), (count, 3, 3)), place, np.full(count, FOCAL), img_hw)


def covered(boxes: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Which of P boxes somebody nearer covers, (P,) bool."""
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    both = (np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - low).clip(0).prod(-1)
    share = both / (boxes[:, 2:] - boxes[:, :2]).prod(-1)[:, None]
    return ((share > COVERED) & (depths < depths[:, None])).any(1)


def score(named: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int]:
    """IDF1 and the number of changes, of the people (P,) and numbers (P,) of each frame."""
    who, number = (np.concatenate(column) for column in zip(*named, strict=True))
    people, tracks = np.unique(who, return_inverse=True)[1], np.unique(number, return_inverse=True)[1]
    together = np.zeros((people.max() + 1, tracks.max() + 1))
    np.add.at(together, (people, tracks), 1)
    right = together[linear_sum_assignment(-together)].sum()
    changes = sum(int((np.diff(number[who == person]) != 0).sum()) for person in np.unique(who))
    return right / len(who), changes


def _without(places: bool) -> Callable[[float, Sighting], np.ndarray]:
    """A tracker that is told less."""
    tracker = Tracker()
    if places:
        return lambda time, people: tracker(time, people._replace(places=np.ones_like(people.places)))
    return lambda time, people: tracker(time, people._replace(keypoints=None))


class GreedyBoxes:
    """The pair of boxes that overlaps most, then the next: what most scripts do."""

    def __init__(self) -> None:
        self._tracks: dict[int, tuple[float, np.ndarray]] = {}
        self._next = 0

    def __call__(self, time: float, people: Sighting) -> np.ndarray:
        """Number the people of the next frame."""
        self._tracks = {n: seen for n, seen in self._tracks.items() if time - seen[0] <= MAX_GAP}
        numbers = np.full(len(people.boxes), -1)
        known = np.array([box for _, box in self._tracks.values()]).reshape(-1, 4)
        pairs = [
            (overlap, row, number)
            for number, overlaps in zip(self._tracks, box_iou(known, people.boxes), strict=True)
            for row, overlap in enumerate(overlaps)
        ]
        for overlap, row, number in sorted(pairs, reverse=True):
            if overlap > 0.1 and numbers[row] < 0 and number not in numbers:
                numbers[row] = number
        for row in np.flatnonzero(numbers < 0):
            numbers[row], self._next = self._next, self._next + 1
        self._tracks |= {int(number): (time, box) for number, box in zip(numbers, people.boxes, strict=True)}
        return numbers


if __name__ == "__main__":
    cli.run(main)

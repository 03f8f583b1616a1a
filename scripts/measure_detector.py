"""Does the stream's imitation of the bundled detector err as the detector itself does?

    python scripts/make_synthetic.py --output_dir data/detected --images 8000 --keypoints detected --labels_only
    python scripts/measure_detector.py data/detected/annotations.npz

By size, and by how much of a person is in the picture: the keypoints are compared with the markers of
`cliff_ms.body.markers` on the true bodies. How many of those inside the picture are reported, how many of those
outside, and how far off they are, in percent of the height of the crop around the true ones. Beside it the same of the
observation 'bundled' of `cliff_ms.synthetic.observation`, on people of the stream.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cliff_ms import camera, cli
from cliff_ms.body.files import Body, load_body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import COCO17
from cliff_ms.rotation import axis_angle_to_rotmat
from cliff_ms.synthetic.observation import Observer, crops_around
from cliff_ms.synthetic.world import World, in_frame

SIZES = (0, 60, 120, 240, 480, np.inf)  # px
JOINTS = (0, 6, 11, 15, 18)  # of the 17 inside the picture
FAR = 0.1  # of the crop's height
FEWEST = 50  # people of a group that is shown
PEOPLE = 6144  # of the stream
_AT_ONCE = 512


class Seen(NamedTuple):
    """N people: their detected and their true keypoints (N, 17, 3) px, with 1 for those that are there."""

    reported: np.ndarray
    true: np.ndarray


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("annotations", type=Path, help="npz of rendered people with the detector's keypoints")
    path, body = parser.parse_args().annotations, load_body()
    rows = []
    for name, people in (("detector", detected(path, body)), ("imitation", imitated(body))):
        rows += [{"keypoints": name, **row} for row in groups(people)]
    print(cli.table(rows))


def detected(path: Path, body: Body) -> Seen:
    """What the detector made of rendered people."""
    people = load_annotations(path)
    if people.input_joint_set != "coco17" or people.translation is None or not people.has_smpl.all():
        raise InputError(f"{path} is not from make_synthetic.py: it lacks COCO-17 input_keypoints, global_t or bodies.")
    rotmats = axis_angle_to_rotmat(people.pose.reshape(-1, 24, 3))
    true = markers(body, rotmats, people.betas, people.translation, people.focal_length, people.img_hw)
    return Seen(people.input_keypoints, true)


def imitated(body: Body) -> Seen:
    """What the stream says of other people."""
    people = World(body).sample(rng := np.random.default_rng(0), PEOPLE)
    true = markers(body, people.rotmats, people.betas, people.translation, people.focal_length, people.img_hw)
    return Seen(Observer("coco17", "bundled")(rng, people)[0], true)


def markers(body: Body, *people: np.ndarray) -> np.ndarray:
    """The markers (N, 17, 3) px, with 1 inside the picture, of rotmats, betas, translation, focal length and img_hw."""
    kinematics, parts = Kinematics(body, COCO17, as_detected=True), []
    for start in range(0, len(people[0]), _AT_ONCE):
        rotmats, betas, translation, focal, img_hw = (
            column[start : start + _AT_ONCE].astype(np.float64) for column in people
        )
        points = camera.to_image(camera.project(kinematics(rotmats, betas)[0], translation, focal), img_hw)
        parts.append(np.concatenate([points, in_frame(points, img_hw)[..., None]], -1))
    return np.concatenate(parts)


def groups(people: Seen) -> Iterator[dict]:
    """A row for everybody and for each group that is large enough."""
    enough = people.true[..., 2].sum(1) >= 2
    people = Seen(*(points[enough] for points in people))
    size, inside = crops_around(people.true)[1], people.true[..., 2].sum(1)
    yield _row(people, size, np.ones(len(size), bool), "everybody")
    for name, values, edges in (("crop of {:g} to {:g} px", size, SIZES), ("{:g} to {:g} joints", inside, JOINTS)):
        for low, high in zip(edges, edges[1:], strict=False):
            mine = (values >= low) & (values < high)
            if mine.sum() >= FEWEST:
                yield _row(people, size, mine, name.format(low, high - (values is inside)))


def _row(people: Seen, size: np.ndarray, mine: np.ndarray, name: str) -> dict:
    reported, true = (points[mine] for points in people)
    seen, inside = reported[..., 2] > 0, true[..., 2] > 0
    off = np.linalg.norm(reported[..., :2] - true[..., :2], axis=-1) / size[mine, None]
    off = 100 * off[seen & inside]
    return {
        "people": name,
        "count": str(mine.sum()),
        "reported (%)": 100 * float(seen[inside].mean()),
        "of those outside (%)": 100 * float(seen[~inside].mean()) if (~inside).any() else 0.0,
        "off: median (%)": float(np.median(off)),
        "90 % (%)": float(np.quantile(off, 0.9)),
        "far (%)": 100 * float((off > 100 * FAR).mean()),
    }


if __name__ == "__main__":
    cli.run(main)

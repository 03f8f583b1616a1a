"""Measure what the bundled detector means by COCO's joints: the table of cliff_ms/body/markers.py.

    python scripts/make_synthetic.py --output_dir data/detected --images 20000 --keypoints detected --labels_only
    python scripts/measure_markers.py data/detected/annotations.npz

For the left and the right one of a joint together, the mirror image of each other: the offset in the frame of a bone of
the body that brings the projected joints nearest to the detected ones, in the eyes of Geman and McClure, for whom
joints that were mixed up hardly count; how far from it the detected ones then lie, as the median of the distance; and
how many lie farther away than four times that, and how far those.
"""

import argparse
from pathlib import Path

import numpy as np

from cliff_ms import cli
from cliff_ms.body.files import load_body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.body.markers import MARKERS
from cliff_ms.body.skinning import global_rotations
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.data.annotations import Annotations
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import COCO17, SMPL24
from cliff_ms.rotation import axis_angle_to_rotmat

_KERNEL = 0.03  # m, of Geman and McClure
_ITERATIONS = 30
_FAR = 4  # medians
_AT_ONCE = 512  # people


def main() -> None:
    """Fit each joint's offset and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("annotations", type=Path, help="npz of rendered people with the detector's keypoints")
    path = parser.parse_args().annotations
    people = load_annotations(path)
    if people.input_joint_set != "coco17" or people.translation is None or not people.has_smpl.all():
        raise InputError(f"{path} is not from make_synthetic.py: it lacks COCO-17 input_keypoints, global_t or bodies.")
    points, rotations = _posed(people)
    focal = people.focal_length[:, None, None].astype(np.float64)
    ray = points[..., :2] / points[..., 2:]
    pixels = ray * focal + people.img_hw[:, None, ::-1] / 2
    away = (people.input_keypoints[..., :2] - pixels) * points[..., 2:] / focal  # m beside the joint, in its depth
    seen = people.input_keypoints[..., 2] > 0
    rows = []
    for part, marker in MARKERS.items():
        measured, turned = [], []
        for name in (name for name in COCO17 if name.rpartition("_")[2] == part):
            k, side = COCO17.index(name), name.rpartition("_")[0]
            bone = rotations[seen[:, k], SMPL24.index(marker.bone_of(side))] * marker.mirror_of(side)
            turned.append(bone[:, :2] - ray[seen[:, k], k, :, None] * bone[:, 2:])  # its axes in the picture
            measured.append(away[seen[:, k], k])
        offset, before, after, far, astray = _fit(np.concatenate(measured), np.concatenate(turned))
        rows.append({"joint": part, "bone": marker.bone, "x (cm)": 100 * offset[0], "y (cm)": 100 * offset[1],
                     "z (cm)": 100 * offset[2], "from the joint (cm)": 100 * before,
                     "from the marker (cm)": 100 * after, "astray (%)": 100 * far,
                     "by (cm)": 100 * astray})  # fmt: skip
    print(f"{len(people)} people\n{cli.table(rows)}")


def _posed(people: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """COCO's joints (N, 17, 3) m in the camera's frame, and the bones' rotations (N, 24, 3, 3) to it."""
    body = load_body()
    kinematics = Kinematics(body, COCO17)
    rotmats = axis_angle_to_rotmat(people.pose.reshape(-1, 24, 3).astype(np.float64))
    cuts = range(_AT_ONCE, len(people), _AT_ONCE)
    parts = zip(np.split(rotmats, cuts), np.split(people.betas.astype(np.float64), cuts), strict=True)
    points = np.concatenate([kinematics(*part)[0] for part in parts])
    return points + people.translation[:, None], global_rotations(rotmats, body.parents)


def _fit(measured: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, float, float, float, float]:
    """The offset (3,) m with `turned` (M, 2, 3) times it = `measured` (M, 2) m, and the last four of a row."""
    offset = np.zeros(3)
    for _ in range(_ITERATIONS):
        distance = np.linalg.norm(measured - turned @ offset, axis=1)
        weight = 1 / (1 + (distance / _KERNEL) ** 2) ** 2
        weighted = (turned * weight[:, None, None]).reshape(-1, 3)
        offset = np.linalg.solve(weighted.T @ turned.reshape(-1, 3), weighted.T @ measured.reshape(-1))
    left = np.linalg.norm(measured - turned @ offset, axis=1)
    before, after = (float(np.median(distance)) for distance in (np.linalg.norm(measured, axis=1), left))
    astray = left > _FAR * after
    return offset, before, after, float(astray.mean()), float(np.median(left[astray]))


if __name__ == "__main__":
    cli.run(main)

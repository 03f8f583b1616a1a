"""Look at the pictures of an annotation file with the bundled detector, and keep what it makes of the people.

    python scripts/detect_people.py model_zoo/heldout/annotations.npz --image_dir model_zoo/heldout

Adds the key `input_keypoints_detected` (N, 17, 3), zero for people whom the detector does not find, to the file: what
`eval.py --keypoints detected` reads.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cliff_ms import cli
from cliff_ms.data.annotation_files import load_annotations, save_annotations
from cliff_ms.evaluation.protocols import KEYPOINTS
from cliff_ms.inference.pose_detector import PoseDetector
from cliff_ms.io.images import read_image
from cliff_ms.keypoints import COCO17
from cliff_ms.synthetic.detected import as_detected

_KEY = "input_keypoints_detected"


def main() -> None:
    """Detect picture by picture, then write the file again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("annotations", type=Path, help="npz of rendered people, changed in place")
    parser.add_argument("--image_dir", type=Path, required=True, help="folder of its pictures")
    args = parser.parse_args()
    people = load_annotations(args.annotations, extras=[f"input_keypoints_{which}" for which in KEYPOINTS])
    detector, keypoints, invented = PoseDetector(), np.zeros((len(people), len(COCO17), 3), np.float32), 0
    for name in tqdm(np.unique(people.image_names), unit="picture"):
        rows = np.flatnonzero(people.image_names == name)
        found = detector(read_image(args.image_dir / name))
        seen, detected = as_detected(people.take(rows), found)
        keypoints[rows[seen]] = detected.input_keypoints
        invented += len(found.boxes) - len(seen)
    people.extras[_KEY] = keypoints
    save_annotations(args.annotations, people)
    count = int((keypoints[..., 2] > 0).any(1).sum())
    print(f"found {count} of {len(people)} people, and {invented} who are nobody or found already")


if __name__ == "__main__":
    cli.run(main)

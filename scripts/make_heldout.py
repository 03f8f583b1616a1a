"""Make the bundled held-out sets: pictures of synthetic people that no model has been trained on, with their labels.

    python scripts/make_heldout.py                       model_zoo/heldout, in drawn poses
    python scripts/make_heldout.py --poses recorded      model_zoo/heldout_recorded
    python scripts/detect_people.py model_zoo/heldout_recorded/annotations.npz --image_dir model_zoo/heldout_recorded

The last one adds what the bundled detector finds in the pictures. Writes 000.jpg ... and annotations.npz, always the
same ones for one version of the code; the bundled drawn ones were made at commit 9d813d0, before the drawn poses
changed. Keys of the standard npz (imgname center scale part pose shape has_smpl global_t focal_l S gender img_hw
input_keypoints input_joint_set), in pixels of the pictures as they are stored. `input_keypoints` are clean: the exact
COCO-17 joints inside the frame, whoever is in front of them; `center` and `scale` are the box around them. Further keys
hold the same people as others see them: `input_keypoints_noisy` by a detector with noise and gaps,
`input_keypoints_half` with half of the body missing too, (N, 17, 3); and `input_keypoints_openpose25`, clean,
(N, 25, 3).

What differs from training: the seed, hence every pose, turn, shape, camera, place in the frame, dress, background and
light. Recorded poses are those of subjects and actions that are never trained on. Among drawn ones nobody is in a
recorded pose, and the joints vary by 1.25 times as much around the key poses, so poses lie farther from these than
training's do. What does not differ: the body, the table of key poses and how they are mixed, the limits of the joints,
and the ranges of shapes, lenses, distances and heights. So the sets say how well a model has learnt this world, not how
well it does on photos.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cliff_ms import cli
from cliff_ms.body.files import load_body
from cliff_ms.data.annotation_files import save_annotations
from cliff_ms.data.annotations import Annotations, concatenate
from cliff_ms.io.files import prepare_output_dir
from cliff_ms.io.images import write_image
from cliff_ms.synthetic.observation import Observer
from cliff_ms.synthetic.scene import SceneMaker, annotate
from cliff_ms.synthetic.world import MIN_SEEN, SeenPeople

_JPEG_QUALITY = 80
# Key -> joint set and what is seen of it.
_OBSERVED = {
    "input_keypoints": ("coco17", "clean"),
    "input_keypoints_noisy": ("coco17", "detector"),
    "input_keypoints_half": ("coco17", "half"),
    "input_keypoints_openpose25": ("openpose25", "clean"),
}


class _Set(NamedTuple):
    folder: Path
    pictures: int
    seed: int  # do not train with it
    real: float  # share of recorded poses
    spread: float  # of joints around the key poses, in training's


_SETS = {
    "drawn": _Set(Path("model_zoo/heldout"), 400, 20220717, 0, 1.25),
    "recorded": _Set(Path("model_zoo/heldout_recorded"), 260, 20261126, 1, 1),
}


def main() -> None:
    """Make the pictures one by one, then write everybody's labels."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--poses", choices=_SETS, default="drawn", help="what people do")
    parser.add_argument("--output_dir", type=Path, help="for the pictures and labels; default: the bundled ones'")
    args = parser.parse_args()
    chosen = _SETS[args.poses]
    output_dir = prepare_output_dir(args.output_dir or chosen.folder)
    maker = SceneMaker(load_body(), [], chosen.real, test=True)
    maker.world.prior.spread *= chosen.spread
    observers = {key: Observer(*how) for key, how in _OBSERVED.items()}
    parts = []
    for index in range(chosen.pictures):
        name = f"{index:03d}.jpg"
        image, people = make_picture(maker, observers, (chosen.seed, index))
        write_image(output_dir / name, image, _JPEG_QUALITY)
        parts.append(replace(people, image_names=np.full(len(people), name)))
    everybody, path = concatenate(parts), output_dir / "annotations.npz"
    save_annotations(path, everybody)
    size = sum(file.stat().st_size for file in (path, *output_dir.glob("*.jpg"))) / 1e6
    print(f"wrote {len(everybody)} people in {chosen.pictures} pictures to {output_dir}, {size:.1f} MB")


def make_picture(
    maker: SceneMaker, observers: dict[str, Observer], seed: tuple[int, int]
) -> tuple[np.ndarray, Annotations]:
    """Make a picture that shows somebody.

    Args:
        maker: Of scenes.
        observers: Key of the annotations -> who reports it.
        seed: Of the set and the picture.

    Returns:
        The picture (H, W, 3) uint8 RGB, and a row of annotations per person with MIN_SEEN of SPIN's joints in the frame
        and enough of them not hidden by others.
    """
    attempt = 0
    while True:
        rng = np.random.default_rng((*seed, attempt))
        scene = maker.place(rng)
        image, owner, depth = maker.draw(rng, scene)
        people = annotate(scene, owner, depth)
        seen = people.keypoints2d[..., 2].sum(1) >= MIN_SEEN
        if seen.any():
            break
        attempt += 1
    people = people.take(seen)
    # Rows keep the order of the people, and no two stand in the same place.
    chosen = np.isin(scene.people.translation[:, 0], people.translation[:, 0])
    visible = SeenPeople(*(getattr(scene.people, field)[chosen] for field in SeenPeople.__dataclass_fields__))
    for key, observer in observers.items():
        keypoints, center, size = observer(rng, visible)
        if key == "input_keypoints":
            people = replace(people, input_keypoints=keypoints, center=center, size=size)
        else:
            people.extras[key] = keypoints
    return image, people


if __name__ == "__main__":
    cli.run(main)

"""Run a network over AGORA's people, and have them scored or written for the leaderboard, image by image."""

import itertools
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from mindspore import Tensor

from cliff_ms import camera
from cliff_ms.body.files import Body
from cliff_ms.body.smpl import SMPL
from cliff_ms.data.readers.agora import LARGE_HW, image_stem, read_images
from cliff_ms.evaluation.agora import WHERE_TO_GET_VERTICES, Bodies, evaluate_agora, load_body_vertices
from cliff_ms.evaluation.scoring import EvalData, Seconds, run_network
from cliff_ms.evaluation.submission import write_submission
from cliff_ms.io.errors import InputError
from cliff_ms.weights.networks import Network

_SPLIT = "validation"  # the truth of the test split is not published
_VERTEX_FILE = "body_verts_smpl.npy"


def run_agora(
    network: Network, data: EvalData, body: Body, body_dir: Path | None, root: Path | None, submission: Path | None
) -> tuple[dict, Seconds]:
    """Score a network on AGORA's validation split, or write what it predicts for the leaderboard, or both.

    Args:
        network: The network.
        data: AGORA's people: rows of the validation split to score, of the test split for the leaderboard.
        body: The neutral body.
        body_dir: Folder of body_verts_smpl.npy; needed to score.
        root: Folder of the dataframes; None not to score.
        submission: The zip to write, or None.

    Returns:
        `count` (of people that the errors are means over), `mpjpe_mm`, `pve_mm` (AGORA's MVE) and the two that AGORA
        does not have, None, with the numbers of `evaluate_agora`; without scores the count of people predicted and
        None. And where the time went.

    Raises:
        InputError: Missing or damaged files, or images that are not of the split.
    """
    ids = truths = None
    if root is not None:  # what can be wrong with the files is said before the network runs
        if body_dir is None:
            raise InputError(f"--agora_root needs --body_dir D with {_VERTEX_FILE}: {WHERE_TO_GET_VERTICES}.")
        ids = load_body_vertices(body_dir / _VERTEX_FILE)
        truths = {image.stem for image in read_images(root, _SPLIT)}
    seconds = Seconds()
    predictions = AgoraPredictions(network, data, body, seconds, truths)
    start, scores = time.perf_counter(), {}
    if submission is not None:
        write_submission(submission, ((stem, predictions(stem)) for stem in predictions.rows))
    if root is not None:
        order, images = itertools.tee(read_images(root, _SPLIT))
        scores = evaluate_agora((predictions(image.stem) for image in order), images, ids)
    seconds.outside += time.perf_counter() - start
    count = scores["people"] - scores["missed"] if scores else len(data.rows)
    common = {"mpjpe_mm": scores.get("mpjpe_mm"), "pa_mpjpe_mm": None, "pve_mm": scores.get("mve_mm")}
    return {"count": count, **common, "global_rotation_deg": None, **scores}, seconds


class AgoraPredictions:
    """Runs a network over all rows, and gives the people of one image after the other.

    Only poses, shapes and places are kept of all people, not their vertices, which would fill the memory.

    Args:
        network: The network.
        data: Rows whose image names are AGORA's, in any order.
        body: The neutral body.
        seconds: Is set to the time that the network took, and what lies around it.
        known: Names of the images that there are, as those of `rows`; None not to check.

    Attributes:
        rows: Name of an image without folder, size and suffix -> its rows, in the order of the file.

    Raises:
        InputError: An image that is not known, not of AGORA's 16:9, or there in both sizes; what `run_network` raises.
    """

    def __init__(self, network: Network, data: EvalData, body: Body, seconds: Seconds, known: set[str] | None) -> None:
        self._names = data.annotations.image_names
        self.rows = _rows_of_images(self._names)
        if known is not None and (unknown := self.rows.keys() - known):
            row = min(self.rows[stem][0] for stem in unknown)
            raise InputError(
                f"Row {row} of the annotations is of image '{self._names[row]}', which AGORA's dataframes of the "
                f"{_SPLIT} split do not have: only that split can be scored."
            )
        self._smpl = SMPL(body)
        self._batch_size = data.batch_size
        parts = []
        for rows, batch, (rotmats, betas, _, translation) in run_network(network, data, seconds):
            img_hw, focal_length = batch[3:5]
            for row, (height, width) in zip(rows, img_hw, strict=True):
                if height * LARGE_HW[1] != width * LARGE_HW[0]:
                    raise InputError(
                        f"Image '{self._names[row]}' is {width:g} x {height:g} px, but AGORA's are 3840 x 2160 or "
                        "1280 x 720; evaluate on these."
                    )
            parts.append((rotmats, betas, translation, img_hw, focal_length))
        # Rows come in order, and what fills up the last batch comes after them.
        self._outputs = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def __call__(self, stem: str) -> Bodies:
        """The people of one image; nobody if no row is of it."""
        rows = np.array(self.rows.get(stem, []), int)
        if not len(rows):
            nothing = (np.zeros((0, *shape)) for shape in ((24, 3, 3), (10,), (3,), (0, 3), (45, 3), (45, 2)))
            return Bodies(LARGE_HW, *nothing)
        rotmats, betas, translation, img_hw, focal_length = (array[rows] for array in self._outputs)
        vertices, joints = self._pose(betas, rotmats)
        # All 45: those of the truth are as many, and boxes around the same points are compared.
        joints2d = camera.to_image(camera.project(joints, translation, focal_length), img_hw)
        moved = translation[:, None]
        size = (int(img_hw[0, 0]), int(img_hw[0, 1]))
        return Bodies(size, rotmats, betas, translation, vertices + moved, joints + moved, joints2d)

    def _pose(self, betas: np.ndarray, rotmats: np.ndarray) -> list[np.ndarray]:
        """Vertices and joints of P people, in batches of one size: one compiled graph."""
        count, parts = len(betas), []
        for start in range(0, count, self._batch_size):
            rows = np.minimum(np.arange(start, start + self._batch_size), count - 1)
            posed = self._smpl(Tensor(betas[rows].astype(np.float32)), Tensor(rotmats[rows].astype(np.float32)))
            parts.append([tensor.asnumpy()[: count - start] for tensor in posed])
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _rows_of_images(names: np.ndarray) -> dict[str, list[int]]:
    rows = defaultdict(list)
    for row, name in enumerate(names.tolist()):
        rows[image_stem(name)].append(row)
        first = rows[image_stem(name)][0]
        if names[first] != name:
            raise InputError(
                f"Rows {first} and {row} are of one image of AGORA, '{names[first]}' and '{name}': keep one size."
            )
    return dict(rows)

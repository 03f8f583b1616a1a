"""Run a network over AGORA's people, and have them scored or written for the leaderboard, image by image."""

import itertools
import time
from collections import defaultdict

import numpy as np

from cliff_ms import camera
from cliff_ms.body.files import Body
from cliff_ms.body.smpl import SMPL
from cliff_ms.data.batching import pose_in_batches
from cliff_ms.data.dataset import EvalDataset
from cliff_ms.data.readers.agora import LARGE_HW, image_stem, read_images
from cliff_ms.evaluation.agora import WHERE_TO_GET_VERTICES, AgoraPrediction, evaluate_agora, load_body_vertices
from cliff_ms.evaluation.evaluate import EvalJob, Outcome
from cliff_ms.evaluation.refining import Refine, as_predicted, choose_refine
from cliff_ms.evaluation.scoring import Seconds, run_network
from cliff_ms.evaluation.submission import write_submission
from cliff_ms.io.errors import InputError
from cliff_ms.weights.networks import Network

_SPLIT = "validation"  # the truth of the test split is not published
_VERTEX_FILE = "body_verts_smpl.npy"
_LABELS = {
    "people": "people",
    "missed": "missed",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "mpjpe_mm": "MPJPE (mm)",
    "mve_mm": "MVE (mm)",
    "nmje_mm": "NMJE (mm)",
    "nmve_mm": "NMVE (mm)",
}


def score_agora(job: EvalJob, network: Network, data: EvalDataset, bodies: dict[str, Body]) -> Outcome:
    """Score a network on AGORA's validation split, or write what it predicts for the leaderboard, or both.

    Args:
        job: What is evaluated; `agora_root` to score, with body_verts_smpl.npy in `body_dir`, `agora_zip` to write.
        network: Its network.
        data: AGORA's people: rows of the validation split to score, of the test split for the leaderboard.
        bodies: 'n' -> the neutral body.

    Returns:
        `count` (of people that the errors are means over), `mpjpe_mm`, `pve_mm` (AGORA's MVE) and the two that AGORA
        does not have, None, with the numbers of `evaluate_agora`; without scores the count of people predicted and
        None.

    Raises:
        InputError: Missing or damaged files, or images that are not of the split.
    """
    if job.visualize:
        raise InputError("--visualize is not for agora, whose people are matched before they are scored: leave it out.")
    ids = truths = None
    if job.agora_root is not None:  # what can be wrong with the files is said before the network runs
        if job.body_dir is None:
            raise InputError(f"--agora_root needs --body_dir D with {_VERTEX_FILE}: {WHERE_TO_GET_VERTICES}.")
        ids = load_body_vertices(job.body_dir / _VERTEX_FILE)
        truths = {image.stem for image in read_images(job.agora_root, _SPLIT)}
    seconds = Seconds()
    refine = choose_refine(job, data, bodies["n"])
    predictor = AgoraPredictor(network, data, bodies["n"], seconds, truths, refine)
    start, scores = time.perf_counter(), {}
    if job.agora_zip is not None:
        write_submission(job.agora_zip, ((stem, predictor(stem)) for stem in predictor.rows))
    if job.agora_root is not None:
        order, images = itertools.tee(read_images(job.agora_root, _SPLIT))
        scores = evaluate_agora((predictor(image.stem) for image in order), images, ids)
    seconds.outside += time.perf_counter() - start
    count = scores["people"] - scores["missed"] if scores else len(data.rows)
    numbers = {
        "count": count,
        "mpjpe_mm": scores.get("mpjpe_mm"),
        "pa_mpjpe_mm": None,
        "pve_mm": scores.get("mve_mm"),
        "global_rotation_deg": None,
        **scores,
    }
    rows = (
        [_row("all", "", scores), _row("kids", "kid_", scores)] if scores else [{"": "network", "people": str(count)}]
    )
    return Outcome(numbers, {"All": rows}, seconds)


class AgoraPredictor:
    """Runs a network over all rows, and gives the people of one image after the other.

    Only poses, shapes and places are kept of all people, not their vertices, which would fill the memory.

    Args:
        network: The network.
        data: Rows whose image names are AGORA's, in any order.
        body: The neutral body.
        seconds: Is set to the time that the network took, and what lies around it.
        known: Names of the images that there are, as those of `rows`; None not to check.
        refine: What becomes of the network's predictions.

    Attributes:
        rows: Name of an image without folder, size and suffix -> its rows, in the order of the file.

    Raises:
        InputError: An image that is not known, not of AGORA's 16:9, or there in both sizes; what `run_network` raises.
    """

    def __init__(
        self,
        network: Network,
        data: EvalDataset,
        body: Body,
        seconds: Seconds,
        known: set[str] | None,
        refine: Refine = as_predicted,
    ) -> None:
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
        for rows, batch, (rotmats, betas, _, translation) in run_network(network, data, seconds, refine):
            for row, (height, width) in zip(rows, batch.img_hw, strict=True):
                if height * LARGE_HW[1] != width * LARGE_HW[0]:
                    raise InputError(
                        f"Image '{self._names[row]}' is {width:g} x {height:g} px, but AGORA's are 3840 x 2160 or "
                        "1280 x 720; evaluate on these."
                    )
            parts.append((rotmats, betas, translation, batch.img_hw, batch.focal_length))
        # Rows come in order, and what fills up the last batch comes after them.
        self._outputs = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def __call__(self, stem: str) -> AgoraPrediction:
        """The people of one image; nobody if no row is of it."""
        rows = np.array(self.rows.get(stem, []), int)
        if not len(rows):
            nothing = (np.zeros((0, *shape)) for shape in ((24, 3, 3), (10,), (3,), (0, 3), (45, 3), (45, 2)))
            return AgoraPrediction(LARGE_HW, *nothing)
        rotmats, betas, translation, img_hw, focal_length = (array[rows] for array in self._outputs)
        vertices, joints = pose_in_batches(self._smpl, betas, rotmats, self._batch_size)
        # All 45: those of the truth are as many, and boxes around the same points are compared.
        joints2d = camera.to_image(camera.project(joints, translation, focal_length), img_hw)
        moved = translation[:, None]
        size = (int(img_hw[0, 0]), int(img_hw[0, 1]))
        return AgoraPrediction(size, rotmats, betas, translation, vertices + moved, joints + moved, joints2d)


def _row(name: str, prefix: str, scores: dict) -> dict[str, str]:
    values = {label: scores[prefix + key] for key, label in _LABELS.items()}
    return {"": name, **{label: "-" if value is None else str(value) for label, value in values.items()}}


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

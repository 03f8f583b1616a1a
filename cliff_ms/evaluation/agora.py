"""AGORA's evaluation (Patel et al., CVPR 2021).

The rules are those of the data set's own code, github.com/pixelite1201/agora_evaluation, whose files the docstrings
name; this is its SMPL track. P is the number of people predicted in an image, G of its true ones; V of vertices. The
frame is the image's camera.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliff_ms.data.readers.agora import LARGE_HW, AgoraImage
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_npy, require_file
from cliff_ms.keypoints import SMPL24

WHERE_TO_GET_VERTICES = "utils/body_verts_smpl.npy of https://github.com/pixelite1201/agora_evaluation"
_MATCHED_JOINTS = len(SMPL24)  # matching.py, nkps; calculate_v2v_error.py, SMPL_JOINTS
_HIPS = [SMPL24.index("left_hip"), SMPL24.index("right_hip")]
_MIN_IOU = 0.1
_MAX_OCCLUSION = 90.0  # percent: matching.py, get_matching
_SMPL_VERTICES = 6890


@dataclass(frozen=True, eq=False)
class AgoraPrediction:
    """The people predicted in one image; `predict.People` has these attributes too.

    Attributes:
        img_hw: Height and width of the image, px; one of AGORA's sizes, or another of 16:9.
        rotmats: (P, 24, 3, 3), the root's relative to the camera.
        betas: (P, 10).
        translation: (P, 3) m, added to SMPL's output.
        vertices: (P, V, 3) m, of the neutral SMPL; for `evaluate_agora` only.
        joints: (P, J, 3) m, the first 24 in SMPL's order; for `evaluate_agora` only.
        joints2d: (P, K, 2) px of that image, the first 24 in SMPL's order. The first 24 are compared, all K make the
            box: AGORA's own, as its documentation has it, is of 24.
    """

    img_hw: tuple[int, int]
    rotmats: np.ndarray
    betas: np.ndarray
    translation: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    joints2d: np.ndarray

    def __len__(self) -> int:
        return len(self.betas)


def evaluate_agora(
    predictions: Iterable[AgoraPrediction], truths: Iterable[AgoraImage], body_vertex_ids: np.ndarray
) -> dict[str, float | int | None]:
    """Score predictions as AGORA's leaderboard does: compute_average_error.py, compute_avg_error.

    People are matched by `match_people`. A true person counts if the data set calls it valid; it is found if it is
    matched, else missed. A prediction that is matched with nobody is a false positive, also one of a person who is not
    valid. MPJPE (24 joints) and MVE (body vertices) are means over the people found, from the middle of the hips,
    rounded to 0.1 mm; precision, recall and F1 are rounded to 0.01; NMJE and NMVE are the rounded errors over the
    rounded F1, rounded to 0.1 mm. Those of kids are over kids, but with the false positives of all.

    Args:
        predictions: What was predicted, an entry for each image; with P = 0 where nothing was found.
        truths: The images, in the same order: all of a split, `readers.agora.read_images`.
        body_vertex_ids: The vertices that MVE is over, `load_body_vertices`.

    Returns:
        images and false_positives; people, missed, precision, recall, f1, mpjpe_mm, mve_mm, nmje_mm and nmve_mm; and
        these nine of kids, with `kid_` before the name. None where there is nothing to average or to divide by.

    Raises:
        InputError: Bodies with another number of vertices than the truth, so of another body model.
        ValueError: Another number of images, an array of another shape, or predictions that are not finite.
    """
    valid, kid, found = [np.zeros(0, bool)], [np.zeros(0, bool)], [np.zeros(0, bool)]
    errors, wrong, images = [np.zeros((0, 2))], 0, 0
    for prediction, truth in zip(predictions, truths, strict=True):
        check_prediction(prediction, truth)
        matchable = truth.valid & (truth.occlusion >= 0) & (truth.occlusion <= _MAX_OCCLUSION)
        pairs = match_people(large_joints2d(prediction), truth.joints2d, matchable)
        matched = np.zeros(len(truth), bool)
        matched[pairs[:, 1]] = True
        order = np.argsort(pairs[:, 1])
        errors.append(_errors(prediction, truth, pairs[order], body_vertex_ids))
        valid.append(truth.valid)
        kid.append(truth.kid)
        found.append(matched)
        wrong += len(prediction) - len(pairs)
        images += 1
    counted, of_kid, hit = (np.concatenate(parts) for parts in (valid, kid, found))
    error, kid_error = np.concatenate(errors), of_kid[hit]
    return {
        "images": images,
        "false_positives": wrong,
        **_scores(counted, hit, wrong, error),
        **{f"kid_{key}": v for key, v in _scores(counted & of_kid, hit & of_kid, wrong, error[kid_error]).items()},
    }


def match_people(joints2d: np.ndarray, true_joints2d: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Match predictions with true people, the closest pairs first: matching.py, match_2d_greedy.

    The distance of a pair is the largest singular value of the (24, 2) differences of its joints (NumPy's norm of order
    2). Pairs are gone through from the closest one. A pair whose boxes overlap by IoU >= 0.1 is a match if both are
    still free and the person is valid. The search ends when matches and pairs that do not overlap are together as many
    as the predictions: with predictions far from everybody that is before every pair was seen, as in the original.

    Args:
        joints2d: (P, K, 2) px of the large image, K >= 24.
        true_joints2d: (G, L, 2) px of the large image, L >= 24.
        valid: (G,) bool.

    Returns:
        (M, 2) int, prediction and true person of each match, the closest first.
    """
    count, true_count = len(joints2d), len(true_joints2d)
    distance = _largest_singular_value(
        joints2d[:, None, :_MATCHED_JOINTS] - true_joints2d[None, :, :_MATCHED_JOINTS]
    )  # (P, G)
    iou = _box_overlap(joints2d, true_joints2d)
    free, true_free = np.ones(count, bool), np.array(valid, bool)
    matches: list[tuple[int, int]] = []
    apart = 0
    for place in np.argsort(distance, axis=None, kind="stable"):
        if len(matches) + apart >= count:
            break
        p, g = divmod(int(place), true_count)
        if iou[p, g] < _MIN_IOU:
            apart += 1
        elif iou[p, g] >= _MIN_IOU and free[p] and true_free[g]:  # not if the overlap is not known, NaN
            matches.append((p, g))
            free[p] = true_free[g] = False
    return np.array(matches, int).reshape(-1, 2)


def load_body_vertices(path: str | Path) -> np.ndarray:
    """Read which of SMPL's vertices MVE is over.

    Args:
        path: AGORA's body_verts_smpl.npy.

    Returns:
        (4010,) indices.

    Raises:
        InputError: Missing or foreign file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file '{path}': AGORA's MVE needs {WHERE_TO_GET_VERTICES}; put it there.")
    ids = read_npy(require_file(path, "Vertex file"), "Vertex file")
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
        raise InputError(f"'{path}' is no list of vertex numbers; AGORA's MVE needs {WHERE_TO_GET_VERTICES}.")
    if ids.min() < 0 or ids.max() >= _SMPL_VERTICES:
        raise InputError(f"'{path}': vertex numbers must be from 0 to {_SMPL_VERTICES - 1}, but go to {ids.max()}.")
    return ids.astype(np.int64)


def _scores(counted: np.ndarray, hit: np.ndarray, wrong: int, errors: np.ndarray) -> dict[str, float | int | None]:
    """Scores of the true people counted, (N,) bool, of whom `hit` were found with errors (M, 2), m."""
    people = int(counted.sum())
    found = int((counted & hit).sum())
    missed = people - found
    # compute_prf1. Without a prediction, its precision divides by zero; here it is 0.
    totals = (max(found + wrong, 1), people, found + 0.5 * (wrong + missed))
    precision, recall, f1 = (round(found / total, 2) if people else None for total in totals)
    mean = np.round((1000 * errors).mean(0), 1).tolist() if len(errors) else [None, None]
    normalised = [float(np.round(value / f1, 1)) if value is not None and f1 else None for value in mean]
    return {
        "people": people,
        "missed": missed,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        **dict(zip(("mpjpe_mm", "mve_mm"), mean, strict=True)),
        **dict(zip(("nmje_mm", "nmve_mm"), normalised, strict=True)),
    }


def _errors(prediction: AgoraPrediction, truth: AgoraImage, pairs: np.ndarray, vertex_ids: np.ndarray) -> np.ndarray:
    """MPJPE and MVE of the matches, (M, 2) m: calculate_v2v_error.py, compute_errors_joints_verts."""
    points = []
    for people, rows in ((prediction, pairs[:, 0]), (truth, pairs[:, 1])):
        joints = people.joints[rows, :_MATCHED_JOINTS].astype(np.float64)
        vertices = people.vertices[rows][:, vertex_ids].astype(np.float64)
        pelvis = joints[:, _HIPS].mean(1, keepdims=True)
        points.append((joints - pelvis, vertices - pelvis))
    return np.stack([np.linalg.norm(a - b, axis=2).mean(1) for a, b in zip(*points, strict=True)], 1)


def _largest_singular_value(matrices: np.ndarray) -> np.ndarray:
    """Of (..., n, 2) matrices: the root of the larger eigenvalue of the 2x2 product; (...)."""
    xx, yy = np.moveaxis((matrices**2).sum(-2), -1, 0)
    xy = matrices.prod(-1).sum(-1)
    return np.sqrt((xx + yy) / 2 + np.hypot((xx - yy) / 2, xy))


def _box_overlap(joints2d: np.ndarray, true_joints2d: np.ndarray) -> np.ndarray:
    """IoU of the boxes around points (P, K, 2) and (G, L, 2), with a pixel more a side: get_bbx_overlap. (P, G)."""
    boxes = [(points.min(1), points.max(1)) for points in (joints2d, true_joints2d)]
    (low, high), (true_low, true_high) = boxes
    sides = np.minimum(high[:, None], true_high) - np.maximum(low[:, None], true_low) + 1
    shared = np.maximum(sides, 0).prod(-1)
    area, true_area = ((upper - lower + 1).prod(-1) for lower, upper in boxes)
    return shared / (area[:, None] + true_area - shared)


def large_joints2d(prediction: AgoraPrediction) -> np.ndarray:
    """(P, K, 2) px of the large image, float64."""
    return prediction.joints2d.astype(np.float64) * (LARGE_HW[1] / prediction.img_hw[1])


def check_prediction(prediction: AgoraPrediction, truth: AgoraImage | None = None) -> None:
    """Check what was predicted in one image.

    Args:
        prediction: What was predicted.
        truth: What it is to be compared with, if it is.

    Raises:
        InputError: Bodies with another number of vertices than the truth.
        ValueError: An image that is not 16:9, an array of another shape, or one that is not finite.
    """
    count = len(prediction)
    if prediction.img_hw[0] * LARGE_HW[1] != prediction.img_hw[1] * LARGE_HW[0]:
        raise ValueError(f"AGORA's images are 16:9, but the prediction is of one of (H, W) {tuple(prediction.img_hw)}.")
    arrays = {"joints2d": prediction.joints2d}
    if truth is not None:
        arrays |= {"joints": prediction.joints}
        if count and len(truth) and prediction.vertices.shape[1:] != truth.vertices.shape[1:]:
            raise InputError(
                f"AGORA's people have {truth.vertices.shape[1]} vertices, the body model of the prediction has "
                f"{prediction.vertices.shape[1]}; name SMPL's neutral model with --body."
            )
    for name, array in arrays.items():
        if len(array) != count or array.shape[1] < _MATCHED_JOINTS or not np.isfinite(array).all():
            raise ValueError(f"'{name}' must be finite, of {count} people and {_MATCHED_JOINTS} joints: {array.shape}.")

"""What an annotation came to: the table of its steps, and a page of random, best and worst people."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from mindspore import Tensor

from cliff_ms.annotation.annotator import Annotated, AnnotationJob
from cliff_ms.body.files import Body
from cliff_ms.body.smpl import SMPL
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.batching import filled_batches
from cliff_ms.data.crop import crop_affine
from cliff_ms.io.errors import InputError
from cliff_ms.io.images import read_image
from cliff_ms.keypoints import H36M17, LSP14, SMPL45
from cliff_ms.metrics import mpjpe, pa_mpjpe, pve
from cliff_ms.visual.page import PageEntry, Person, write_page
from cliff_ms.visual.render import PALETTE, render_overlay, render_side

SHOWN = 4  # random, best and worst people each
_TILE_HW = (640, 480)
_MARGIN = 1.3  # of what is shown around the crop
_GIVEN = (40, 220, 60)  # RGB of the keypoints
_BATCH = 64
_LSP14, _PELVIS = [H36M17.index(name) for name in LSP14], H36M17.index("pelvis")

log = logging.getLogger("cliff_ms")


def check_truth(truth: Annotations | None, where: object) -> np.ndarray:
    """Check that annotations can be compared with true bodies of everybody's gender.

    Args:
        truth: See `input.Target`.
        where: The file, for messages.

    Returns:
        The genders (N,).

    Raises:
        InputError: A true body or its gender is not known.
    """
    what = "leave out --body_dir, which names the bodies of the truth"
    if truth is None or truth.gender is None or not truth.has_smpl.any():
        raise InputError(f"'{where}' has no true bodies to compare with ('pose', 'shape' and 'gender'): {what}.")
    if not truth.has_smpl.all():
        raise InputError(f"'{where}', row {truth.has_smpl.argmin()}: there is no true body to compare with; {what}.")
    return truth.gender


def summarise(result: Annotated, bodies: Mapping[str, Body]) -> list[dict]:
    """Mean errors of the pretrained network, after finetuning, and after the fit.

    Args:
        result: What `annotate` returned.
        bodies: See `errors3d`.

    Returns:
        A row for each: the bodies, and `mean_errors`.
    """
    errors = result.after.extras
    steps = [("predicted", "before", result.before), ("finetuned", "after", result.finetuned)]
    if "fit_sigma" in errors:
        steps[1:] = [("finetuned", "finetuned", result.finetuned), ("finetuned, fitted", "after", result.after)]
    return [
        {"bodies": name, **mean_errors(known, errors[f"error_px_{when}"], result.truth, bodies)}
        for name, when, known in steps
    ]


def mean_errors(
    known: Annotations, error_px: np.ndarray, truth: Annotations | None, bodies: Mapping[str, Body]
) -> dict:
    """The means over N people, ready for a table.

    Args:
        known: Their bodies.
        error_px: (N,), see `annotator.errors2d`.
        truth: See `input.Target`.
        bodies: See `errors3d`.

    Returns:
        People, 2D errors in px and in percent of the box; and where the true pose and shape of everybody are known, of
        one of the bodies, which the annotator does not look at, the errors of `errors3d`.
    """
    row = {
        "people": str(len(known)),
        "2D error (px)": float(np.nanmean(error_px)),
        "2D error (% of the box)": 100 * float(np.nanmean(error_px / known.box_height)),
    }
    if truth is not None and _is_comparable(truth, bodies):
        row |= {name: float(values.mean()) for name, values in errors3d(known, truth, bodies).items()}
    return row


def errors3d(known: Annotations, truth: Annotations, bodies: Mapping[str, Body]) -> dict[str, np.ndarray]:
    """Errors of bodies as synthetic people and 3DPW are scored: 14 joints and the vertices, from the pelvis.

    Args:
        known: Bodies of N people, the neutral one.
        truth: Their true ones, of their `gender`.
        bodies: Gender -> body model, with its Human3.6M regressor: 'n', and all genders of `truth`.

    Returns:
        MPJPE, PA-MPJPE and PVE, (N,) mm.
    """
    smpl = {gender: SMPL(body, joint_regressor=body.regressors["h36m"]) for gender, body in bodies.items()}
    neutral, parts = np.full(len(truth), "n"), []
    for rows, kept in filled_batches(len(truth), _BATCH):
        posed = [
            _posed(smpl, gender[rows], each.pose[rows], each.betas[rows])
            for gender, each in ((neutral, known), (truth.gender, truth))
        ]
        joints = [j[:, _LSP14] for _, j in posed]
        scores = (mpjpe(*joints), pa_mpjpe(*joints), pve(*(vertices for vertices, _ in posed)))
        parts.append(np.stack(scores)[:, :kept])
    return dict(zip(("MPJPE (mm)", "PA-MPJPE (mm)", "PVE (mm)"), np.concatenate(parts, 1), strict=True))


def write_contact_sheet(job: AnnotationJob, result: Annotated, body: Body, note: str) -> str | None:
    """Write `index.html` into the work folder: people as first predicted and as annotated, from the front and the side.

    Args:
        job: A finished annotation.
        result: What `annotate` returned.
        body: The body model.
        note: Written below the title.

    Returns:
        The page; None without images, which is logged.

    Raises:
        InputError: A bad image.
    """
    names = result.after.image_names
    chosen = _choose(result.after.extras["error_box_after"])
    if job.image_dir is None or not all((job.image_dir / names[row]).is_file() for row, _ in chosen):
        log.info("no pictures of these people, so there is no page to look at")
        return None
    page = job.work / "index.html"
    write_page(page, _entries(job.image_dir, result, body, chosen), body.faces, "CLIFF annotator", note)
    return str(page)


def _is_comparable(truth: Annotations, bodies: Mapping[str, Body]) -> bool:
    """Whether true pose and shape are known, and of one of these bodies."""
    if truth.gender is None or not all("h36m" in body.regressors for body in bodies.values()):
        return False
    return bool(truth.has_smpl.all() and np.isin(truth.gender, [*bodies]).all())


def _posed(
    smpl: Mapping[str, SMPL], gender: np.ndarray, pose: np.ndarray, betas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (B, V, 3) and H36M17 joints (B, 17, 3) of everybody's gender (B,), m from the pelvis."""
    rotmats = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    inputs = [Tensor(array.astype(np.float32)) for array in (betas, rotmats)]
    # Always the whole batch: one shape, one compiled graph.
    posed = {each: [tensor.asnumpy() for tensor in smpl[each](*inputs)] for each in np.unique(gender).tolist()}
    vertices, joints = (np.stack([posed[each][k][row] for row, each in enumerate(gender.tolist())]) for k in (0, 1))
    joints = joints[:, len(SMPL45) :]
    pelvis = joints[:, _PELVIS, None]
    return vertices - pelvis, joints - pelvis


def _choose(error: np.ndarray) -> list[tuple[int, str]]:
    """Rows to show and why."""
    order = np.argsort(error, kind="stable")[: np.isfinite(error).sum()]  # NaN comes last
    best, worst = order[:SHOWN], order[SHOWN:][::-1][:SHOWN]
    others = order[SHOWN : len(order) - len(worst)]
    random = np.random.default_rng(0).permutation(others)[:SHOWN]
    groups = (("random", random), ("best", best), ("worst", worst))
    return [(int(row), name) for name, rows in groups for row in rows]


def _entries(image_dir: Path, result: Annotated, body: Body, chosen: list[tuple[int, str]]) -> Iterator[PageEntry]:
    smpl, known = SMPL(body), result.after
    for row, why in chosen:
        name, center, size = known.image_names[row], known.center[row], known.box_height[row]
        focal = float(known.focal_length[row])
        image = read_image(image_dir / name)
        given = image.copy()
        for x, y, confidence in known.keypoints2d[row]:
            if confidence > 0:
                cv2.circle(given, (int(x), int(y)), max(2, int(size / 120)), _GIVEN, -1, cv2.LINE_AA)
        bodies = [_vertices(smpl, each, row) for each in (result.before, known)]
        drawn = [render_overlay(image, [(vertices, PALETTE[0])], body.faces, focal) for vertices in bodies]
        tiles = [crop_affine(each, center, _MARGIN * size, _TILE_HW) for each in (given, *drawn)]
        facts = {
            "row": row,
            "2D error before (% of the box)": 100 * float(known.extras["error_box_before"][row]),
            "after": 100 * float(known.extras["error_box_after"][row]),
            "largest shape coefficient": float(np.abs(known.betas[row]).max()),
            "good": "yes" if known.extras["good"][row] else "no",
        }
        yield PageEntry(
            f"{why}: {name} (the keypoints, before, after)",
            np.hstack(tiles),
            render_side([(bodies[1], PALETTE[0])], body.faces, focal, _TILE_HW),
            [Person(bodies[1], PALETTE[0], facts)],
        )


def _vertices(smpl: SMPL, known: Annotations, row: int) -> np.ndarray:
    """(V, 3) m, camera."""
    rotmats = Rotation.from_rotvec(known.pose[row].reshape(24, 3)).as_matrix().astype(np.float32)
    vertices, _ = smpl(Tensor(known.betas[row][None]), Tensor(rotmats[None]))
    return vertices.asnumpy()[0] + known.translation[row]

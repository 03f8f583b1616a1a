"""How each data set is scored: joints, root, truth and rows, one frozen `Protocol` for each published way.

Joints are those of the common J_regressor_h36m applied to the vertices, without SMPL's own joints and without the
translation; the evaluated 14 are LSP's, as in SPIN's code, which the authors of CLIFF evaluated with. AGORA's are
SMPL's own 24. Which frames a file holds, its boxes, focal lengths and image sizes are decided when it is prepared.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cliff_ms.body.files import Body, load_body
from cliff_ms.data.annotations import Annotations
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import H36M17, LSP14, SMPL24, SPIN24

if TYPE_CHECKING:
    from cliff_ms.evaluation.evaluate import Outcome

DETECTED = "detected"  # by the bundled detector, in the pictures
# Of an annotation file that a keypoint model may be scored on.
KEYPOINTS = ("clean", "noisy", "half", "openpose25", DETECTED)
PELVIS, HIPS = ("pelvis",), ("right_hip", "left_hip")
# How SPIN's 24 keypoints, in which motion-capture joints are stored, call the regressor's joints.
_MOCAP_NAMES = {
    "pelvis": "pelvis_mpii",
    "left_hip": "left_hip_lsp",
    "right_hip": "right_hip_lsp",
    "spine": "spine_h36m",
    "neck": "neck_lsp",
    "jaw": "jaw_h36m",
    "head_top": "head_h36m",
}
MOCAP_OF_H36M17 = [SPIN24.index(_MOCAP_NAMES.get(name, name)) for name in H36M17]
_BODY_FILES = {"n": "SMPL_NEUTRAL.pkl", "m": "SMPL_MALE.pkl", "f": "SMPL_FEMALE.pkl"}
_ORIGINAL_NAMES = {"n": "neutral", "m": "m", "f": "f"}
_SUBJECTS_9_11 = r"(^|/)S(9|11)_"  # image names such as images/S9_Directions.60457274_000001.jpg


def _score_people(*arguments: object) -> "Outcome":
    from cliff_ms.evaluation.people import score_people  # which loads MindSpore

    return score_people(*arguments)


def _score_agora(*arguments: object) -> "Outcome":
    from cliff_ms.evaluation.agora_run import score_agora

    return score_agora(*arguments)


@dataclass(frozen=True)
class Protocol:
    """One way to score a data set.

    Attributes:
        dataset: Value of --dataset.
        name: Value of --protocol.
        source: Where the rules come from: paper or code.
        joints: Joints of MPJPE and PA-MPJPE, names of `keypoints.H36M17`; of `SMPL24` for AGORA.
        root: Joints whose mean is subtracted from prediction and truth before MPJPE.
        truth: 'gendered' is SMPL of the annotated gender, 'neutral' is the neutral SMPL, 'labelled' is the annotated
            gender if there is one and else the neutral body, 'mocap' are the joints `S` of the annotations,
            'dataframes' are AGORA's own files, which `agora.evaluate_agora` compares with.
        pve: Also score vertices, predicted on the 'neutral' body or on the 'gendered' one of the truth; '' for not.
        pck: Also report PCK at 150 mm and AUC, of LSP14.
        rows: Pattern that the image names of the scored rows match.
        inside_image: Score only rows with all 17 joints inside the image.
        by_distance: Also report errors by distance from the image centre, and those of a constant pose.
        of_frames: Rows are frames of sequences: also report the error of accelerations, see `sequences`.
        free_body: May be scored with another body than SMPL.
        focal: 'file' takes the focal lengths of the annotations and estimates those that are not known, 'known' refuses
            annotations without, 'estimated' never looks at them.
        people: How many the file of the whole test set holds, as published; 0 where that is not known.
        score: Runs and scores a network: (EvalJob, Network, EvalDataset, what `load_bodies` gives) -> Outcome, of
            `evaluate`.
    """

    dataset: str
    name: str
    source: str
    joints: tuple[str, ...] = LSP14
    root: tuple[str, ...] = PELVIS
    truth: str = "gendered"
    pve: str = ""
    pck: bool = False
    rows: str = ""
    inside_image: bool = False
    by_distance: bool = False
    of_frames: bool = False
    free_body: bool = False
    focal: str = "file"
    people: int = 0
    score: Callable[..., "Outcome"] = _score_people


def _own(dataset: str, *variants: Protocol) -> tuple[Protocol, ...]:
    standard = Protocol(
        dataset,
        "standard",
        "this project: joints and root as in SPIN's eval.py",
        truth="labelled",
        pve="neutral",
        by_distance=True,
        free_body=True,
    )
    return standard, *variants


def _agora(name: str, focal: str, source: str) -> Protocol:
    """AGORA's rules are those of its own code; people differ in whether the focal length is known."""
    return Protocol(
        "agora",
        name,
        f"AGORA's agora_evaluation, SMPL track; {source}",
        joints=SMPL24,
        root=HIPS[::-1],
        truth="dataframes",
        pve="neutral",
        focal=focal,
        score=_score_agora,
    )


def _human36m(dataset: str, rows: str) -> tuple[Protocol, ...]:
    return (
        Protocol(
            dataset,
            "cliff",
            "CLIFF's authors, noah-research issues 103 and 163: against SMPL fitted to the markers (MoSh)",
            truth="neutral",
            rows=rows,
        ),
        Protocol(dataset, "spin", "SPIN eval.py: against motion capture", truth="mocap", rows=rows),
        Protocol(
            dataset, "bedlam", "BEDLAM hmr_trainer_smpl.py: as spin, from mid-hip", root=HIPS, truth="mocap", rows=rows
        ),
    )


_ALL = (
    *_own("synthetic"),
    *_own(
        "custom",
        Protocol("custom", "mocap", "as SPIN's Human3.6M", truth="mocap", by_distance=True, free_body=True),
    ),
    Protocol(
        "3dpw",
        "cliff",
        "CLIFF section 4 and its authors, noah-research issues 94 and 178; PVE as BEDLAM hmr_trainer_smpl.py",
        pve="neutral",
        of_frames=True,
        people=35_515,
    ),
    Protocol("3dpw", "spin", "SPIN eval.py; it has no PVE", of_frames=True, people=35_515),
    Protocol(
        "3dpw",
        "vibe",
        "VIBE trainer.py: neutral truth, mid-hip",
        root=HIPS,
        truth="neutral",
        pve="neutral",
        of_frames=True,
        people=34_561,
    ),
    Protocol(
        "3dpw",
        "mmhuman3d",
        "mmhuman3d human_image_dataset.py: PVE on the true gender's body",
        pve="gendered",
        of_frames=True,
        people=35_515,
    ),
    *_human36m("h36m_p1", _SUBJECTS_9_11),
    *_human36m("h36m_p2", _SUBJECTS_9_11 + r"[^/]*\.60457274"),
    Protocol(
        "mpi_inf_3dhp",
        "official",
        "the data set's own mpii_compute_3d_pck.m: universal skeletons, 17 joints, PCK and AUC of 14",
        joints=H36M17,
        truth="mocap",
        pck=True,
        people=2_929,
    ),
    Protocol(
        "mpi_inf_3dhp",
        "spin",
        "SPIN eval.py and mpi_inf_3dhp.py: only frames with all joints inside the image",
        joints=H36M17,
        truth="mocap",
        inside_image=True,
    ),
    _agora("cliff", "estimated", "focal lengths are not known: CLIFF's authors, noah-research issue 95"),
    _agora("known-focal", "known", "with the focal lengths of its cameras"),
)
# Data set -> name -> protocol; the first of a data set is its default.
PROTOCOLS = {
    dataset: {p.name: p for p in _ALL if p.dataset == dataset} for dataset in dict.fromkeys(p.dataset for p in _ALL)
}


def find_protocol(dataset: str, name: str | None) -> Protocol:
    """The protocol of a data set by its name; None for its default.

    Raises:
        InputError: Unknown name.
    """
    protocols = PROTOCOLS[dataset]
    if name is not None and name not in protocols:
        raise InputError(f"--protocol {name}: data set '{dataset}' has {', '.join(protocols)}.")
    return protocols[name] if name else next(iter(protocols.values()))


def scored_rows(protocol: Protocol, annotations: Annotations, where: str) -> tuple[np.ndarray, dict[str, int]]:
    """Which rows a protocol scores.

    Args:
        protocol: The protocol.
        annotations: All rows.
        where: Their file, for messages.

    Returns:
        The rows, (n,), and how many were left out for which reason.

    Raises:
        InputError: No row is left, or a column that the protocol needs is missing.
    """
    if protocol.truth == "gendered" and annotations.gender is None:
        raise InputError(
            f"Annotation file '{where}': key 'gender' is missing; protocol '{protocol.name}' of {protocol.dataset} "
            "compares with bodies of the annotated gender: write the file with prepare.py."
        )
    if protocol.focal == "known" and (unknown := np.isnan(annotations.focal_length)).any():
        raise InputError(
            f"Annotation file '{where}', row {unknown.argmax()}: 'focal_l' is not known; protocol '{protocol.name}' of "
            f"{protocol.dataset} needs every focal length."
        )
    if protocol.truth == "dataframes":
        return np.arange(len(annotations)), {}
    if protocol.truth == "mocap":
        joints = {*protocol.joints, *protocol.root}
        needed = [MOCAP_OF_H36M17[H36M17.index(name)] for name in joints]
        labelled, what = (annotations.keypoints3d[:, needed, 3] > 0).all(1), "no motion-capture joints ('S')"
    else:
        labelled, what = annotations.has_smpl > 0, "no SMPL labels ('pose' and 'shape')"
    steps = {f"image name does not match '{protocol.rows}'": _matching(protocol.rows, annotations), what: labelled}
    if protocol.inside_image:
        steps["joints outside the image"] = _inside_image(annotations, where)
    kept, left_out = np.ones(len(annotations), bool), {}
    for reason, good in steps.items():
        if not (kept & good).any():
            raise InputError(
                f"Annotation file '{where}': protocol '{protocol.name}' of {protocol.dataset} can score no row: "
                f"{reason}."
            )
        if (kept & ~good).any():
            left_out[reason] = int((kept & ~good).sum())
        kept &= good
    return np.flatnonzero(kept), left_out


def load_bodies(
    protocol: Protocol, gender: np.ndarray | None, body: Path | None, body_dir: Path | None
) -> dict[str, Body]:
    """The body models that a protocol compares.

    Args:
        protocol: The protocol.
        gender: Genders of the scored rows, or None.
        body: File of the neutral body, on which predictions are posed; None for the one in `body_dir`, or the bundled
            one where the protocol allows it.
        body_dir: Folder with SMPL_NEUTRAL.pkl, SMPL_MALE.pkl, SMPL_FEMALE.pkl and J_regressor_h36m.npy, as far as they
            are needed (AGORA: the first).

    Returns:
        'n' and, as far as they are needed, 'm' and 'f' -> body.

    Raises:
        InputError: A file that is needed is missing, lacks the Human3.6M regressor, or has another mesh.
    """
    needed = {"n"}
    if gender is not None and (protocol.truth in ("gendered", "labelled") or protocol.pve == "gendered"):
        needed |= set(gender.tolist())
    bodies = {}
    for key in sorted(needed, key="nmf".index):
        if key == "n" and (body is not None or (body_dir is None and protocol.free_body)):
            path, bodies["n"] = body or "the bundled body", load_body(body)
        else:
            path = _body_file(key, protocol, body_dir)
            bodies[key] = load_body(path)
        if protocol.truth != "dataframes" and "h36m" not in bodies[key].regressors:
            raise InputError(
                f"{path}: J_regressor_h36m.npy is missing beside it, so the joints that {protocol.dataset} compares "
                "are not known: take it from SPIN's data archive (fetch_data.sh of https://github.com/nkolot/SPIN) and "
                "put it there."
            )
        if bodies[key].vertex_count != bodies["n"].vertex_count:
            raise InputError(
                f"{path} has {bodies[key].vertex_count} vertices, but the neutral body has "
                f"{bodies['n'].vertex_count}: prediction and truth must be on the same mesh; give all in --body_dir."
            )
    return bodies


def _body_file(key: str, protocol: Protocol, body_dir: Path | None) -> Path:
    name = _BODY_FILES[key]
    path = Path(name) if body_dir is None else body_dir / name
    if body_dir is None or not path.is_file():
        place = f"there as {name}" if body_dir else f"as {name} into the folder that you name with --body_dir"
        raise InputError(
            f"There is no {path}, which protocol '{protocol.name}' of {protocol.dataset} needs: register at "
            "https://smpl.is.tue.mpg.de, download SMPL for Python 1.1.0 and put its "
            f"basicmodel_{_ORIGINAL_NAMES[key]}_lbs_10_207_0_v1.1.0.pkl {place}."
        )
    return path


def _matching(pattern: str, annotations: Annotations) -> np.ndarray:
    return np.array([re.search(pattern, name) is not None for name in annotations.image_names.tolist()])


def _inside_image(annotations: Annotations, where: str) -> np.ndarray:
    if annotations.img_hw is None:
        raise InputError(f"Annotation file '{where}': key 'img_hw' is missing; the protocol needs the image sizes.")
    points = annotations.keypoints2d[:, MOCAP_OF_H36M17]
    inside = (points[..., :2] >= 0) & (points[..., :2] < annotations.img_hw[:, None, ::-1])
    return (inside.all(-1) & (points[..., 2] > 0)).all(1)

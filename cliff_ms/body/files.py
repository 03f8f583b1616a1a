"""Body files in SMPL format: the bundled npz, SMPL npz, and the original SMPL pickles, read into plain arrays."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_npy, read_npz
from cliff_ms.io.pickles import read_pickle, to_array
from cliff_ms.keypoints import EXTRA21, REGRESSOR_JOINTS, SMPL24
from cliff_ms.zoo import BUNDLED_BODY

WHERE_TO_GET_SMPL = (
    "register at https://smpl.is.tue.mpg.de, download SMPL for Python and pass the path of the .pkl file "
    "(for example SMPL_NEUTRAL.pkl)"
)
# The vertices behind smplx's 21 extra joints (nose ... right pinky) are a property of SMPL's mesh, which its own files
# do not state. Other bodies carry theirs.
_SMPL_VERTEX_COUNT = 6890
_SMPL_EXTRA_VERTEX_IDS = (
    332, 6260, 2800, 4071, 583, 3216, 3226, 3387, 6617, 6624, 6787,
    2746, 2319, 2445, 2556, 2673, 6191, 5782, 5905, 6016, 6133,
)  # fmt: skip
_ROOT_PARENT = 4294967295  # -1 as uint32
# What lies below what on a template; a joint set has some of each.
_UPWARD = (
    ("left_ankle", "left_knee", "left_hip", "left_shoulder"),
    ("right_ankle", "right_knee", "right_hip", "right_shoulder"),
    ("pelvis", "spine", "neck", "jaw", "head_top"),
    ("pelvis", "spine1", "spine2", "spine3", "neck", "head"),
    ("pelvis_mpii", "spine_h36m", "thorax_mpii", "jaw_h36m", "head_top_lsp"),
    ("left_shoulder", "nose"),
)


@dataclass(frozen=True)
class Body:
    """Arrays of one body model. V vertices, F faces, N shape components.

    Attributes:
        name: 'smpl' for SMPL's mesh, else the file's stem: betas, joints and vertices of bodies are not comparable.
        gender: 'neutral', 'male' or 'female'.
        v_template: (V, 3) m, y up, facing +z.
        shapedirs: (V, 3, N) m per unit of beta.
        posedirs: (V, 3, 207) m; the 207 are the row-major entries of R - I of joints 1 to 23.
        joint_regressor: (24, V), rest vertices to joints.
        weights: (V, 24) skinning weights.
        parents: Parent of each of the 24 joints, -1 for the root.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        extra_vertex_ids: (21,) vertices taken as joints 24 to 44.
        regressors: 'h36m' (17, V), 'extra' (9, V), 'coco' (17, V), as far as they are known for this mesh.
    """

    name: str
    gender: str
    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray
    joint_regressor: np.ndarray
    weights: np.ndarray
    parents: tuple[int, ...]
    faces: np.ndarray
    extra_vertex_ids: np.ndarray
    regressors: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def vertex_count(self) -> int:
        """V."""
        return len(self.v_template)


def load_body(path: str | Path | None = None) -> Body:
    """Read a body model.

    Regressors for other joint sets are read from the file itself, or from `J_regressor_{h36m,extra,coco}.npy` in the
    same folder. Nothing but arrays is unpickled.

    Args:
        path: An .npz or .pkl file in SMPL's format; None for the bundled free body.

    Returns:
        The body.

    Raises:
        InputError: Missing, truncated or foreign file, an array of the wrong shape, a pickle that would run code, a
            regressor made for another mesh, or with its joints in another order.

    Examples:
        >>> from cliff_ms import load_body
        >>> body = load_body()
        >>> body.name, body.shapedirs.shape == (body.vertex_count, 3, 10)
        ('neutral', True)
    """
    path = BUNDLED_BODY if path is None else Path(path)
    if not path.is_file():
        raise InputError(f"There is no body file at {path}: {WHERE_TO_GET_SMPL}.")
    if path.suffix == ".npz":
        arrays = read_npz(path, "Body file")
    elif path.suffix == ".pkl":
        arrays = read_pickle(path)
    else:
        raise InputError(f"{path}: a body file is an .npz or a .pkl, but this one ends in '{path.suffix}'.")
    return _to_body(arrays, path)


def _to_body(arrays: dict, path: Path) -> Body:
    def get(key: str, *shape: int | None) -> np.ndarray:
        if key not in arrays:
            raise InputError(f"{path}: key '{key}' is missing, so this is not a body in SMPL format.")
        array = to_array(arrays[key], path, key)
        if array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
            expected = "(" + ", ".join("*" if n is None else str(n) for n in shape) + ")"
            raise InputError(f"{path}: '{key}' must have shape {expected}, but got {array.shape}.")
        return array

    joints = len(SMPL24)
    v_template = get("v_template", None, 3).astype(np.float32)
    count = len(v_template)
    parents = tuple(-1 if p == _ROOT_PARENT else int(p) for p in get("kintree_table", 2, joints)[0])
    return Body(
        name="smpl" if count == _SMPL_VERTEX_COUNT else path.stem,
        gender=_gender(arrays, path),
        v_template=v_template,
        shapedirs=get("shapedirs", count, 3, None).astype(np.float32),
        posedirs=get("posedirs", count, 3, 9 * (joints - 1)).astype(np.float32),
        joint_regressor=get("J_regressor", joints, count).astype(np.float32),
        weights=get("weights", count, joints).astype(np.float32),
        parents=parents,
        faces=get("f", None, 3).astype(np.int32),
        extra_vertex_ids=_extra_vertex_ids(arrays, path, count),
        regressors=_regressors(arrays, path, v_template),
    )


def _gender(arrays: dict, path: Path) -> str:
    if "gender" in arrays:
        return str(arrays["gender"])
    stem = path.stem.lower()  # SMPL's own files say it in their names only: SMPL_FEMALE, basicmodel_f_lbs_...
    for gender, marks in {"female": ("female", "_f_"), "male": ("male", "_m_")}.items():
        if any(mark in stem for mark in marks):
            return gender
    return "neutral"


def _extra_vertex_ids(arrays: dict, path: Path, count: int) -> np.ndarray:
    if "extra_vertex_ids" in arrays:
        ids = np.asarray(arrays["extra_vertex_ids"]).astype(np.int32)
    elif count == _SMPL_VERTEX_COUNT:
        ids = np.array(_SMPL_EXTRA_VERTEX_IDS, np.int32)
    else:
        raise InputError(
            f"{path}: with {count} vertices this is not SMPL's mesh, so the file must hold 'extra_vertex_ids', the "
            f"{len(EXTRA21)} vertices for {EXTRA21[0]} ... {EXTRA21[-1]}."
        )
    if ids.shape != (len(EXTRA21),) or ids.min() < 0 or ids.max() >= count:
        raise InputError(f"{path}: 'extra_vertex_ids' must be {len(EXTRA21)} numbers from 0 to {count - 1}.")
    return ids


def _regressors(arrays: dict, path: Path, v_template: np.ndarray) -> dict[str, np.ndarray]:
    found, count = {}, len(v_template)
    for name, joints in REGRESSOR_JOINTS.items():
        key = f"J_regressor_{name}"
        beside = path.with_name(f"{key}.npy")
        if key in arrays:
            where, array = f"{path}: '{key}'", to_array(arrays[key], path, key)
        elif path != BUNDLED_BODY and beside.is_file():
            where, array = f"{beside}: the regressor", to_array(read_npy(beside, "Joint regressor"), beside, key)
        else:
            continue
        if array.shape != (len(joints), count):
            raise InputError(
                f"{where} must have shape ({len(joints)}, {count}) to fit the body {path}, but got {array.shape}; "
                "a regressor belongs to one mesh."
            )
        found[name] = array.astype(np.float32)
        _check_order(found[name] @ v_template, joints, where)
    return found


def _check_order(points: np.ndarray, joints: tuple[str, ...], where: str) -> None:
    """Check that joints (K, 3) m of a template, y up and its left at +x, lie where their names say."""
    place = dict(zip(joints, points, strict=True))
    problem = ""
    for left in joints:
        right = left.replace("left", "right")
        if right != left and place[left][0] <= place[right][0]:
            problem = problem or f"'{left}' is not left of '{right}'"
    for chain in _UPWARD:
        for low, high in itertools.pairwise(name for name in chain if name in place):
            if place[high][1] <= place[low][1]:
                problem = problem or f"'{high}' is not above '{low}'"
    if problem:
        raise InputError(
            f"{where}: {problem} on the template, so its joints are in another order than {', '.join(joints)}."
        )

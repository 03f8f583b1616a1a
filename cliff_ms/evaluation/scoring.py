"""Run a network over a data set and score it by a protocol.

Images are read ahead by threads; the network, SMPL and the metrics work on whole batches. N is the number of scored
people, B the batch size, V of vertices; metres and radians in, millimetres and degrees out.
"""

import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mindspore import Tensor

from cliff_ms.body.files import Body
from cliff_ms.body.smpl import SMPL
from cliff_ms.camera import estimate_focal_length
from cliff_ms.config import ModelConfig, SourceConfig
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.crop import box_to_crop, normalize_keypoints
from cliff_ms.data.detections import boxes_from_keypoints
from cliff_ms.data.loader import Batch, load_batches
from cliff_ms.data.source import BATCH_FIELDS, Source, collate
from cliff_ms.evaluation.protocols import MOCAP_OF_H36M17, PELVIS, Protocol, scored_rows
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import read_npz
from cliff_ms.keypoints import H36M17, JOINT_SETS, LSP14, SMPL45, convert_keypoints
from cliff_ms.metrics import auc, mpjpe, pa_mpjpe, pck, pve, rotation_error
from cliff_ms.models.regressor import standing_mean_params
from cliff_ms.rotation import rot6d_to_rotmat
from cliff_ms.weights.networks import Network

_WORKERS = 2  # loader threads: together they decode faster than a network on a processor reads
_PELVIS = [H36M17.index(name) for name in PELVIS]
_REGRESSED = len(SMPL45)  # where the joints of the H36M regressor begin

Errors = dict[str, np.ndarray]  # name of a metric -> (N,)


class EvalData:
    """The rows of an annotation file that a protocol scores, in batches.

    Args:
        protocol: The protocol.
        annotations: The file.
        image_dir: Folder that its image names are relative to; may be empty for a keypoint model.
        model: What the network reads.
        batch_size: B.
        keypoints: For a keypoint model, one of `protocols.KEYPOINTS`: 'clean' for the file's `input_keypoints` and
            boxes, else its `input_keypoints_noisy` and so on, with boxes around those: whoever has such keypoints has
            no better box.

    Attributes:
        annotations: All rows of the file.
        rows: Those that are scored, (N,).
        left_out: Reason -> how many rows it kept from being scored.

    Raises:
        InputError: What `Source` and `scored_rows` raise, or keypoints that the file or the model does not have.
    """

    def __init__(
        self,
        protocol: Protocol,
        annotations: Path,
        image_dir: Path | None,
        model: ModelConfig,
        batch_size: int,
        keypoints: str = "clean",
    ) -> None:
        if not model.reads_keypoints and image_dir is None:
            raise InputError("These weights read pixels: name the folder of the images with --image_dir.")
        self._image_dir = image_dir
        self._source = Source(SourceConfig(str(annotations), str(image_dir or "")), model, protocol.dataset)
        self.annotations: Annotations = self._source.annotations
        self.rows, self.left_out = scored_rows(protocol, self.annotations, str(annotations))
        self.batch_size = batch_size
        self._estimates_focal = protocol.focal == "estimated"
        self._other = None if keypoints == "clean" else self._other_keypoints(annotations, model, keypoints)

    @property
    def gender(self) -> np.ndarray | None:
        """(N,) of the scored rows, or None."""
        return None if self.annotations.gender is None else self.annotations.gender[self.rows]

    @property
    def group(self) -> np.ndarray | None:
        """(N,) of the scored rows, or None."""
        return None if self.annotations.group is None else self.annotations.group[self.rows]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def places(self, index: int) -> np.ndarray:
        """Rows of the file in batch `index`, (B,); the last batch is filled up with its last row."""
        places = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        return self.rows[np.minimum(places, len(self.rows) - 1)]

    def image_path(self, row: int) -> Path:
        """The picture of a row, for data with an image folder."""
        return self._image_dir / self.annotations.image_names[row]

    def read(self, rows: np.ndarray) -> Batch:
        """The arrays of `BATCH_FIELDS` of some rows.

        Raises:
            InputError: A bad image: leaving it out would change the score.
        """
        inputs, center, size, img_hw, focal_length, *labels = collate([self._source.read(row) for row in rows])
        if self._other is not None:
            keypoints, center, size = (array[rows] for array in self._other)
            inputs = normalize_keypoints(keypoints, center, size)
        if self._estimates_focal:
            focal_length = estimate_focal_length(img_hw)
        return inputs, center, size, img_hw, focal_length, *labels

    def batch(self, index: int) -> Batch:
        """Batch `index`, see `read`."""
        return self.read(self.places(index))

    def _other_keypoints(self, path: Path, model: ModelConfig, which: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keypoints of all rows in the model's joint set, (M, K, 3), and centre (M, 2) and size (M,) of their boxes."""
        if not model.reads_keypoints:
            raise InputError(f"--keypoints {which} is for keypoint models; these weights read pixels.")
        joint_set = which if which in JOINT_SETS else self.annotations.input_joint_set
        key, shape = f"input_keypoints_{which}", (len(self.annotations), len(JOINT_SETS[joint_set]), 3)
        arrays = read_npz(path, "Annotation file", (key,)) if zipfile.is_zipfile(path) else {}
        if key not in arrays:
            raise InputError(f"Annotation file '{path}': key '{key}' is missing, which --keypoints {which} reads.")
        if arrays[key].shape != shape or not np.isfinite(arrays[key]).all():
            raise InputError(f"Annotation file '{path}': '{key}' must be finite numbers of shape {shape}.")
        keypoints = arrays[key].astype(np.float32)
        boxes = boxes_from_keypoints(keypoints, f"Annotation file '{path}', '{key}'")
        return convert_keypoints(keypoints, joint_set, model.joint_set), *box_to_crop(boxes, model.crop_hw)


@dataclass
class Seconds:
    """Where the time goes; without the first batch, which compiles the graphs.

    Attributes:
        network: In the network, s.
        outside: In everything else (waiting for images, SMPL, metrics), s.
    """

    network: float = 0.0
    outside: float = 0.0


def run_network(
    network: Network, data: EvalData, seconds: Seconds
) -> Iterator[tuple[np.ndarray, Batch, tuple[np.ndarray, ...]]]:
    """Run a network over all rows.

    Args:
        network: The network.
        data: What it reads.
        seconds: Is set to the time that this takes, with what is done between the batches.

    Yields:
        Of each batch: its rows (B,), its arrays and what the network makes of them; see `EvalData.places`.

    Raises:
        InputError: A bad image; weights that give no finite numbers.
    """
    start = time.perf_counter()
    batches = load_batches(data.batch, _WORKERS, stop=len(data))
    for index, batch in enumerate(tqdm(batches, total=len(data), unit="batch", leave=False, disable=None)):
        rows, called = data.places(index), time.perf_counter()
        outputs = network(*batch[:5])
        seconds.network += time.perf_counter() - called
        _check_finite(*outputs[:2], rows)
        yield rows, batch, outputs
        if index == 0:  # it compiled the graphs
            seconds.network, start = 0.0, time.perf_counter()
        seconds.outside = time.perf_counter() - start - seconds.network


@dataclass(frozen=True, eq=False)
class Scores:
    """Errors of each scored person, in the order of `EvalData.rows`.

    Attributes:
        errors: Metric -> (N,); those that the protocol has.
        mean_pose: The same for the constant standing pose that the regressor starts from; None if not asked for.
        distance: (N,) of the box centre from the image centre, in halves of the image diagonal.
        seconds: Where the time went.
    """

    errors: Errors
    mean_pose: Errors | None
    distance: np.ndarray
    seconds: Seconds


@dataclass(frozen=True, eq=False)
class _Posed:
    """Bodies: joints (B, 17, 3), rotmats (B, 24, 3, 3), vertices (B, V, 3) and their body's pelvis (B, 1, 3).

    None where they are not known. Vertices may be of another body than the joints.
    """

    joints: np.ndarray
    rotmats: np.ndarray | None = None
    vertices: np.ndarray | None = None
    pelvis: np.ndarray | None = None

    def first(self, count: int) -> "_Posed":
        arrays = (self.joints, self.rotmats, self.vertices, self.pelvis)
        return _Posed(*(array if array is None else array[:count] for array in arrays))


class Evaluator:
    """Scores a network by a protocol.

    Args:
        protocol: The protocol.
        bodies: What `load_bodies` returned.
    """

    def __init__(self, protocol: Protocol, bodies: dict[str, Body]) -> None:
        self._protocol = protocol
        self._smpl = {key: SMPL(body, joint_regressor=body.regressors["h36m"]) for key, body in bodies.items()}

    def __call__(self, network: Network, data: EvalData) -> Scores:
        """Score all rows.

        Args:
            network: The network.
            data: What it reads and the truth.

        Returns:
            The scores.

        Raises:
            InputError: A bad image; weights that give no finite numbers.
        """
        parts, mean_parts, distances = [], [], []
        mean_pose = self._prediction(*_mean_pose(data.batch_size), None) if self._protocol.by_distance else None
        seconds = Seconds()
        for rows, batch, (rotmats, betas, *_) in run_network(network, data, seconds):
            count = min(data.batch_size, len(data.rows) - len(parts) * data.batch_size)
            gender = None if data.annotations.gender is None else data.annotations.gender[rows]
            truth = self._truth(batch, gender).first(count)
            parts.append(self._errors(self._prediction(betas, rotmats, gender).first(count), truth))
            if mean_pose:
                mean_parts.append(self._errors(mean_pose.first(count), truth))
            distances.append(_distance(batch)[:count])
        mean_errors = _join(mean_parts) if mean_parts else None
        return Scores(_join(parts), mean_errors, np.concatenate(distances), seconds)

    def pose(self, betas: np.ndarray, rotmats: np.ndarray, gender: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pose each person of a batch on the body of a gender.

        Args:
            betas: (B, 10).
            rotmats: (B, 24, 3, 3).
            gender: (B,) keys of the bodies.

        Returns:
            Vertices (B, V, 3) and the Human3.6M regressor's joints (B, 17, 3), m, without the translation.
        """
        vertices = joints = None
        for key in np.unique(gender):  # always the whole batch: one shape, one compiled graph
            posed_vertices, posed_joints = (t.asnumpy() for t in self._smpl[key](Tensor(betas), Tensor(rotmats)))
            if vertices is None:
                vertices, joints = posed_vertices, posed_joints
            else:
                mine = (gender == key)[:, None, None]
                vertices, joints = np.where(mine, posed_vertices, vertices), np.where(mine, posed_joints, joints)
        return vertices, joints[:, _REGRESSED:]

    def _truth(self, batch: Batch, gender: np.ndarray | None) -> _Posed:
        fields = dict(zip(BATCH_FIELDS, batch, strict=True))
        if self._protocol.truth == "mocap":
            return _Posed(fields["keypoints3d"][:, MOCAP_OF_H36M17, :3])
        if self._protocol.truth == "neutral" or gender is None:
            gender = np.full(len(batch[0]), "n")
        vertices, joints = self.pose(fields["betas"], fields["rotmats"], gender)
        return _Posed(joints, fields["rotmats"], vertices, joints[:, _PELVIS])

    def _prediction(self, betas: np.ndarray, rotmats: np.ndarray, gender: np.ndarray | None) -> _Posed:
        vertices, joints = self.pose(betas, rotmats, np.full(len(betas), "n"))
        pelvis = joints[:, _PELVIS]
        if self._protocol.pve == "gendered":
            vertices, of_gender = self.pose(betas, rotmats, gender)
            pelvis = of_gender[:, _PELVIS]
        return _Posed(joints, rotmats, vertices, pelvis)

    def _errors(self, pred: _Posed, truth: _Posed) -> Errors:
        """Metrics of the protocol, (n,) each."""
        protocol = self._protocol
        pred_joints, true_joints = (_from_root(posed.joints, protocol.root) for posed in (pred, truth))
        evaluated = [H36M17.index(name) for name in protocol.joints]
        pair = pred_joints[:, evaluated], true_joints[:, evaluated]
        errors = {"mpjpe_mm": mpjpe(*pair), "pa_mpjpe_mm": pa_mpjpe(*pair)}
        if protocol.pve:
            errors["pve_mm"] = pve(*(posed.vertices - posed.pelvis for posed in (pred, truth)))
            errors["pve_raw_mm"] = pve(pred.vertices, truth.vertices)
        if truth.rotmats is not None:
            errors["global_rotation_deg"] = rotation_error(pred.rotmats[:, 0], truth.rotmats[:, 0])
        if protocol.pck:
            counted = [H36M17.index(name) for name in LSP14]
            pair = pred_joints[:, counted], true_joints[:, counted]
            errors |= {"pck_percent": pck(*pair), "auc_percent": auc(*pair)}
        return errors


def _check_finite(rotmats: np.ndarray, betas: np.ndarray, rows: np.ndarray) -> None:
    finite = np.isfinite(rotmats).all((1, 2, 3)) & np.isfinite(betas).all(1)
    if not finite.all():
        raise InputError(f"The network gives values that are not finite for row {rows[finite.argmin()]}: bad weights.")


def _from_root(joints: np.ndarray, root: tuple[str, ...]) -> np.ndarray:
    return joints - joints[:, [H36M17.index(name) for name in root]].mean(1, keepdims=True)


def _mean_pose(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The betas and rotations that the regressor starts from, for each of a batch."""
    mean = standing_mean_params()
    rotmats = rot6d_to_rotmat(Tensor(mean.pose6d[None].astype(np.float32))).asnumpy()
    return np.tile(mean.betas.astype(np.float32), (count, 1)), np.tile(rotmats, (count, 1, 1, 1))


def _distance(batch: Batch) -> np.ndarray:
    """(B,) of the box centre from the image centre, in halves of the image diagonal."""
    center, img_hw = batch[1], batch[3]
    return 2 * np.linalg.norm(center - img_hw[:, ::-1] / 2, axis=1) / np.linalg.norm(img_hw, axis=1)


def _join(parts: list[Errors]) -> Errors:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

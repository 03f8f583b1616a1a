"""Run a network over a data set and score it by a protocol.

Images are read ahead by threads; the network, SMPL and the metrics work on whole batches. N is the number of scored
people, B the batch size, V of vertices; metres and radians in, millimetres and degrees out.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from mindspore import Tensor

from cliff_ms.body.files import Body
from cliff_ms.body.smpl import SMPL
from cliff_ms.data.batching import Batch
from cliff_ms.data.dataset import EvalDataset
from cliff_ms.data.loader import load_batches
from cliff_ms.evaluation.protocols import MOCAP_OF_H36M17, PELVIS, Protocol
from cliff_ms.evaluation.refining import Refine, as_predicted
from cliff_ms.evaluation.sequences import frame_runs
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import H36M17, LSP14, SMPL45
from cliff_ms.metrics import acceleration_error, auc, mpjpe, pa_mpjpe, pck, pve, rotation_error
from cliff_ms.models.regressor import standing_mean_params
from cliff_ms.rotation import rot6d_to_rotmat
from cliff_ms.weights.networks import Network

_WORKERS = 2  # loader threads: together they decode faster than a network on a processor reads
_PELVIS = [H36M17.index(name) for name in PELVIS]
_REGRESSED = len(SMPL45)  # where the joints of the H36M regressor begin

Errors = dict[str, np.ndarray]  # name of a metric -> (N,)


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
    network: Network, data: EvalDataset, seconds: Seconds, refine: Refine = as_predicted
) -> Iterator[tuple[np.ndarray, Batch, tuple[np.ndarray, ...]]]:
    """Run a network over all rows.

    Args:
        network: The network.
        data: What it reads.
        seconds: Is set to the time that this takes, with what is done between the batches.
        refine: What becomes of its predictions.

    Yields:
        Of each batch: its rows (B,), its arrays and what the network and `refine` make of them; see
        `EvalDataset.places`.

    Raises:
        InputError: A bad image; weights that give no finite numbers.
    """
    start = time.perf_counter()
    batches = load_batches(data.batch, _WORKERS, stop=len(data))
    for index, batch in enumerate(tqdm(batches, total=len(data), unit="batch", leave=False, disable=None)):
        rows, called = data.places(index), time.perf_counter()
        outputs = network(*batch.network_inputs)
        seconds.network += time.perf_counter() - called
        _check_finite(*outputs[:2], rows)
        yield rows, batch, refine(rows, batch, outputs)
        if index == 0:  # it compiled the graphs
            seconds.network, start = 0.0, time.perf_counter()
        seconds.outside = time.perf_counter() - start - seconds.network


@dataclass(frozen=True, eq=False)
class Scores:
    """Errors of each scored person, in the order of `EvalDataset.rows`.

    Attributes:
        errors: Metric -> (N,); those that the protocol has. `accel_mm` is NaN of frames whose person is not in the one
            before and the one after, and left out if nobody's are in succession.
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


class Evaluator:
    """Scores a network by a protocol.

    Args:
        protocol: The protocol.
        bodies: What `load_bodies` returned.
        refine: What becomes of the network's predictions before they are scored.

    Attributes:
        refine: The same.
    """

    def __init__(self, protocol: Protocol, bodies: dict[str, Body], refine: Refine = as_predicted) -> None:
        self._protocol = protocol
        self.refine = refine
        self._smpl = {key: SMPL(body, joint_regressor=body.regressors["h36m"]) for key, body in bodies.items()}

    def __call__(self, network: Network, data: EvalDataset) -> Scores:
        """Score all rows.

        Args:
            network: The network.
            data: What it reads and the truth.

        Returns:
            The scores.

        Raises:
            InputError: A bad image; weights that give no finite numbers.
        """
        parts, mean_parts, joints, distances = [], [], [], []
        mean_pose = self._prediction(*_mean_pose(data.batch_size), None) if self._protocol.by_distance else None
        seconds = Seconds()
        for rows, batch, (rotmats, betas, *_) in run_network(network, data, seconds, self.refine):
            gender = None if data.annotations.gender is None else data.annotations.gender[rows]
            truth = self._truth(batch, gender)
            prediction = self._prediction(betas, rotmats, gender)
            parts.append(self._errors(prediction, truth))
            joints.append(np.stack(self._compared(prediction, truth), 1))  # 35,000 people take 12 MB
            if mean_pose:
                mean_parts.append(self._errors(mean_pose, truth))
            distances.append(_distance(batch))
        count = len(data.rows)  # what fills up the last batch comes after them
        mean_errors = _join(mean_parts, count) if mean_parts else None
        errors = _join(parts, count)
        if self._protocol.of_frames:
            errors |= _accelerations(np.concatenate(joints)[:count], data)
        return Scores(errors, mean_errors, np.concatenate(distances)[:count], seconds)

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
        if self._protocol.truth == "mocap":
            return _Posed(batch.keypoints3d[:, MOCAP_OF_H36M17, :3])
        if self._protocol.truth == "neutral" or gender is None:
            gender = np.full(len(batch.betas), "n")
        vertices, joints = self.pose(batch.betas, batch.rotmats, gender)
        return _Posed(joints, batch.rotmats, vertices, joints[:, _PELVIS])

    def _prediction(self, betas: np.ndarray, rotmats: np.ndarray, gender: np.ndarray | None) -> _Posed:
        vertices, joints = self.pose(betas, rotmats, np.full(len(betas), "n"))
        pelvis = joints[:, _PELVIS]
        if self._protocol.pve == "gendered":
            vertices, of_gender = self.pose(betas, rotmats, gender)
            pelvis = of_gender[:, _PELVIS]
        return _Posed(joints, rotmats, vertices, pelvis)

    def _errors(self, pred: _Posed, truth: _Posed) -> Errors:
        """Metrics of the protocol, (n,) each."""
        protocol, pair = self._protocol, self._compared(pred, truth)
        errors = {"mpjpe_mm": mpjpe(*pair), "pa_mpjpe_mm": pa_mpjpe(*pair)}
        if protocol.pve:
            errors["pve_mm"] = pve(*(posed.vertices - posed.pelvis for posed in (pred, truth)))
            errors["pve_raw_mm"] = pve(pred.vertices, truth.vertices)
        if truth.rotmats is not None:
            errors["global_rotation_deg"] = rotation_error(pred.rotmats[:, 0], truth.rotmats[:, 0])
        if protocol.pck:
            pair = self._compared(pred, truth, LSP14)
            errors |= {"pck_percent": pck(*pair), "auc_percent": auc(*pair)}
        return errors

    def _compared(self, pred: _Posed, truth: _Posed, names: tuple[str, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Joints from the protocol's root, (B, J, 3) each; without names the protocol's."""
        chosen = [H36M17.index(name) for name in names or self._protocol.joints]
        pred_joints, true_joints = (_from_root(posed.joints, self._protocol.root)[:, chosen] for posed in (pred, truth))
        return pred_joints, true_joints


def _accelerations(joints: np.ndarray, data: EvalDataset) -> Errors:
    """`accel_mm` from predicted and true joints (N, 2, J, 3)."""
    errors = np.full(len(joints), np.nan)
    for run in frame_runs(data.annotations.take(data.rows)):
        errors[run[1:-1]] = acceleration_error(joints[run, 0], joints[run, 1])
    return {} if np.isnan(errors).all() else {"accel_mm": errors}


def _check_finite(rotmats: np.ndarray, betas: np.ndarray, rows: np.ndarray) -> None:
    finite = np.isfinite(rotmats).all((1, 2, 3)) & np.isfinite(betas).all(1)
    if not finite.all():
        raise InputError(f"The network gives values that are not finite for row {rows[finite.argmin()]}: bad weights.")


def _from_root(joints: np.ndarray, root: tuple[str, ...]) -> np.ndarray:
    return joints - joints[:, [H36M17.index(name) for name in root]].mean(1, keepdims=True)


def _mean_pose(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The betas and rotations that the regressor starts from, for each of a batch."""
    mean = standing_mean_params()
    rotmats = rot6d_to_rotmat(mean.pose6d[None].astype(np.float32))
    return np.tile(mean.betas.astype(np.float32), (count, 1)), np.tile(rotmats, (count, 1, 1, 1))


def _distance(batch: Batch) -> np.ndarray:
    """(B,) of the box centre from the image centre, in halves of the image diagonal."""
    return 2 * np.linalg.norm(batch.center - batch.img_hw[:, ::-1] / 2, axis=1) / np.linalg.norm(batch.img_hw, axis=1)


def _join(parts: list[Errors], count: int) -> Errors:
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}

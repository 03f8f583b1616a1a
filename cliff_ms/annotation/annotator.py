"""The pseudo-ground-truth annotator of section 3.4: SMPL labels for people of whom only 2D keypoints are known.

(a) Weights that were trained with full supervision come in. (b) They predict everybody. (c) They are finetuned on
these very people, in mini-batches, with the 2D keypoints as weak supervision and the predictions of (b) as
regularisation: that is training on the file of (b), by the trainer itself. (d) The finetuned weights predict again.
(e) Ours, not the paper's: each body is fitted to the keypoints of its person, see `fitting`.

    OUT.npz                the annotations: cliffGT's keys, the 2D errors, and whether to trust a row
    OUT.work/settings.json what the folder belongs to
    OUT.work/target.npz    the people as they came in
    OUT.work/prior.npz     (b): keypoints and predictions, a training file
    OUT.work/finetune/     (c): what train.py writes

Each file is whole or absent, so that a run that was ended goes on where it was, to the same result. The folder does not
depend on (e): the same annotation without it takes one more prediction. N is the number of people.
"""

import hashlib
import logging
import math
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cliff_ms.annotation.fitting import fit_people, joint_labels, keypoints_to_fit
from cliff_ms.annotation.input import Target, read_target
from cliff_ms.body.files import Body
from cliff_ms.body.smpl import SMPL, build_smpl
from cliff_ms.config import AugmentConfig, Config, SourceConfig, load_config, to_dict
from cliff_ms.data.annotation_files import read_annotations, save_annotations, to_arrays
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.dataset import EvalDataset
from cliff_ms.data.loader import load_batches
from cliff_ms.data.source import Source
from cliff_ms.inference.fit import Fit
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import check_not_overwritten, claim_folder, prepare_output_dir, remove_unfinished
from cliff_ms.keypoints import SPIN24
from cliff_ms.rotation import rotmat_to_axis_angle
from cliff_ms.training.data import for_workers
from cliff_ms.training.trainer import train
from cliff_ms.weights.checkpoint import Weights, check_body, check_model, load_weights, side_car
from cliff_ms.weights.engine import load_network
from cliff_ms.weights.networks import Network
from cliff_ms.zoo import BUNDLED_BODY

NO_AUGMENTATION = AugmentConfig(flip=0.0, rotation_prob=0.0, scale=0.0, noise=0.0)
# EFT leaves people out of its published annotations (facebookresearch/eft, eft/utils/exportDB.py) for a 2D loss above
# the first, the mean over 49 keypoints and 2 coordinates of squared residuals in halves of the box, or for a shape
# coefficient beyond the second.
MAX_LOSS2D, MAX_BETA = 5e-4, 3.0
_EFT_TERMS = 2 * 49

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True)
class FinetuneConfig:
    """What step (c) adds to a training.

    Attributes:
        epochs: How often everybody is seen.
        joint_weights: Keypoint of `keypoints.SPIN24` -> factor on its confidence, 0 to 1, for keypoints that mislead;
            others count fully.
    """

    epochs: int = 30
    joint_weights: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"annotator.epochs must be at least 1, but got {self.epochs}.")
        for name, weight in self.joint_weights.items():
            if name not in SPIN24:
                raise InputError(f"annotator.joint_weights: '{name}' is none of {', '.join(SPIN24)}.")
            if not isinstance(weight, int | float) or not 0 <= weight <= 1:
                raise InputError(f"annotator.joint_weights.{name} must be from 0 to 1, but got {weight!r}.")


@dataclass(frozen=True)
class AnnotatorConfig(Config):
    """A training configuration without sources, steps and augmentation, and the section `annotator`."""

    augment: AugmentConfig = NO_AUGMENTATION
    annotator: FinetuneConfig = FinetuneConfig()


@dataclass(frozen=True)
class AnnotationJob:
    """What to annotate, and with what.

    Attributes:
        config: How.
        weights: The pretrained ones of (a).
        annotations: See `input.read_target`.
        image_dir: The same.
        output: OUT.npz.
        fit: Whether to take step (e).
        exact_keypoints: For it: the 2D keypoints are the body's own joints, as of synthetic people, and not what
            detectors report and people label, see `body.markers`.
    """

    config: AnnotatorConfig
    weights: Weights
    annotations: Path | None
    image_dir: Path | None
    output: Path
    fit: bool = True
    exact_keypoints: bool = False

    @property
    def work(self) -> Path:
        """OUT.work."""
        return self.output.with_suffix(".work").resolve()

    def check(self, body: Body) -> Target:
        """Check everything that was given, before anything slow happens, and open the work folder.

        Args:
            body: The body model.

        Returns:
            The people.

        Raises:
            InputError: What cannot be used, or a work folder of another annotation.
        """
        if self.output.suffix != ".npz":
            raise InputError(f"--output '{self.output}' must end in .npz.")
        if self.exact_keypoints and not self.fit:
            raise InputError("--exact_keypoints says how the fit reads keypoints: leave it out, or --no_fit.")
        check_not_overwritten(self.output, {"--annotations": self.annotations})
        check_model(self.config, self.weights.meaning, str(self.weights.path))
        check_body(self.weights.meaning, body, str(self.weights.path))
        target = read_target(self.annotations, self.image_dir, self.config.model, self.config.data.bad_image)
        if self.config.data.focal_length == "estimated":
            unknown = np.full_like(target.people.focal_length, np.nan)
            target = replace(target, people=replace(target.people, focal_length=unknown))
        _open_work(self, target.people)
        return target


@dataclass(frozen=True, eq=False)
class Annotated:
    """What an annotation came to, row by row.

    Attributes:
        before: The predictions of (b).
        finetuned: Those of (d).
        after: What OUT.npz holds; extras `annot_id`, `error_px_before`, `error_px_after` (N,) px, `error_box_before`,
            `error_box_after` (N,) of the box, and `good` (N,) bool. Of fitted people also `error_px_finetuned`,
            `error_box_finetuned`, and `fit_sigma` (N,), see `inference.fit.Fitted`.
        truth: See `input.Target`.
    """

    before: Annotations
    finetuned: Annotations
    after: Annotations
    truth: Annotations | None


def load_annotator_config(path: Path) -> AnnotatorConfig:
    """Read an annotator's configuration; `data.train` is the file of (b).

    Raises:
        InputError: What `load_config` raises.
    """
    return load_config(path, ["data.train=[{annotations: prior.npz}]"], AnnotatorConfig)


def annotate(job: AnnotationJob, target: Target, body: Body) -> tuple[int, Annotated | None]:
    """Take the steps that are not done yet.

    Args:
        job: What to annotate.
        target: What its `check` returned.
        body: The body model.

    Returns:
        0 and the result when OUT.npz is written; 130 or 143 and None when a signal ended (c), whose state is saved.

    Raises:
        InputError: A bad image, weights that give no finite numbers, a full disk.
    """
    people, weights, start = target.people, joint_weights(job.config), time.perf_counter()
    prior = job.work / "prior.npz"
    if prior.is_file():
        before, _ = read_annotations(prior, ("points2d",))  # all rows, whatever the network says of them
    else:
        weighted = people.keypoints2d.copy()
        weighted[..., 2] *= weights
        before = replace(predict(job, body, job.weights, people), keypoints2d=weighted)
        save_annotations(prior, before)
    start = _report("(b) predicted", len(people), start)
    final = job.work / "finetune" / "checkpoints" / "final.ckpt"
    if not side_car(final).is_file():
        resume = (job.work / "finetune" / "config.yaml").is_file()
        code = train(training_config(job, len(people)), job.work / "finetune", body, resume)
        if code:
            return code, None
    start = _report("(c) finetuned on", len(people), start)
    finetuned = after = predict(job, body, load_weights(final), people)
    start = _report("(d) predicted", len(people), start)
    steps = {"before": before}
    if job.fit:
        after = fit(job, target, body, finetuned)
        steps["finetuned"] = finetuned
        _report("(e) fitted", len(people), start)
    errors = {name: column for name, column in after.extras.items() if name == "fit_sigma"}
    for when, found in (steps | {"after": after}).items():
        error, loss2d = errors2d(found.extras["points2d"], people, weights)
        errors |= {f"error_px_{when}": error, f"error_box_{when}": error / people.box_height}
    good = (after.has_smpl > 0) & (loss2d <= MAX_LOSS2D) & (np.abs(after.betas).max(1) <= MAX_BETA)
    after = replace(after, extras={**people.extras, **errors, "good": good})
    save_annotations(job.output, after)
    return 0, Annotated(before, finetuned, after, target.truth)


def training_config(job: AnnotationJob, count: int) -> Config:
    """The training that (c) is.

    Args:
        job: What to annotate.
        count: N.

    Returns:
        Its configuration.
    """
    config = job.config
    source = SourceConfig(str(job.work / "prior.npz"), str(job.image_dir.resolve() if job.image_dir else ""))
    batch_size = min(for_workers(config, 1).data.batch_size, count)
    steps = math.ceil(config.annotator.epochs * count / (batch_size * config.train.accumulate))
    return Config(
        config.model,
        replace(config.data, train=(source,), global_batch_size=0, batch_size=batch_size),
        config.augment,
        config.loss,
        replace(config.train, steps=steps, pretrained=str(job.weights.path.resolve())),
        config.body,
    )


def predict(job: AnnotationJob, body: Body, weights: Weights, people: Annotations) -> Annotations:
    """Steps (b) and (d): what weights say of everybody.

    Args:
        job: What to annotate; target.npz is written.
        body: The body model.
        weights: The weights.
        people: What target.npz holds.

    Returns:
        The people with their predicted bodies; the extras hold `points2d` (N, 24, 2) px too.

    Raises:
        InputError: A bad image; nothing finite at all.
    """
    model, config = weights.meaning.model, job.config.data
    source = Source(SourceConfig(str(job.work / "target.npz"), str(job.image_dir or "")), model, "--image_dir")
    data = EvalDataset(source, config.batch_size)
    smpl = build_smpl(body, job.config.body or str(BUNDLED_BODY))
    network, _ = load_network(weights, "auto", config.batch_size)
    found, points2d = run_network(network, smpl, data, config.workers)
    if not found["has_smpl"].any():
        raise InputError(
            f"{weights.path} gives no finite numbers for anybody: bad weights, or a finetuning that diverged."
        )
    return replace(people, **found, extras=people.extras | {"points2d": points2d})


def fit(job: AnnotationJob, target: Target, body: Body, found: Annotations) -> Annotations:
    """Step (e), from any bodies.

    Args:
        job: What to annotate.
        target: What its `check` returned.
        body: The body model.
        found: What `predict` returned of the pretrained or the finetuned weights.

    Returns:
        What `fitting.fit_people` returns.
    """
    keypoints, joint_set = keypoints_to_fit(target, joint_weights(job.config))
    deviations = job.weights.meaning.expected_deviations()
    to_keypoints = Fit(body, joint_set, deviations, as_detected=not job.exact_keypoints)
    smpl = build_smpl(body, job.config.body or str(BUNDLED_BODY))
    return fit_people(to_keypoints, smpl, found, keypoints, job.config.data.batch_size)


def run_network(
    network: Network, smpl: SMPL, data: EvalDataset, workers: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a network says of all rows of a file.

    Args:
        network: The network.
        smpl: What `build_smpl` returned.
        data: The rows.
        workers: Threads that load them.

    Returns:
        Attributes of `Annotations`: pose, betas, translation, focal_length, keypoints3d from the pelvis, has_smpl; and
        the joints of `keypoints.SPIN24` in the full image, (N, 24, 2) px. Of people for whom the network gives no
        finite numbers has_smpl, the confidence of keypoints3d, betas and pose are 0, and the joints are NaN.
    """
    parts = []
    for batch in load_batches(data.batch, workers, stop=len(data)):
        rotmats, betas, _, translation = network(*batch.network_inputs)
        finite = np.all([np.isfinite(a).reshape(len(a), -1).all(1) for a in (rotmats, betas, translation)], axis=0)
        rotmats, betas, translation = (np.where(_like(finite, a), a, 0) for a in (rotmats, betas, translation))
        rotmats[~finite] = np.eye(3)
        from_pelvis, points2d = joint_labels(smpl, rotmats, betas, translation, batch.focal_length, batch.img_hw)
        parts.append(
            {
                "pose": rotmat_to_axis_angle(rotmats).reshape(-1, 72),
                "betas": betas,
                "translation": translation,
                "focal_length": batch.focal_length,
                "keypoints3d": np.insert(from_pelvis, 3, 1, -1) * finite[:, None, None],
                "has_smpl": finite,
                "points2d": np.where(finite[:, None, None], points2d, np.nan),
            }
        )
    found = {
        key: np.concatenate([part[key] for part in parts])[: len(data.rows)].astype(np.float32) for key in parts[0]
    }
    points2d = found.pop("points2d")
    return found, points2d


def errors2d(points: np.ndarray, people: Annotations, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far projected joints are from 2D keypoints.

    Args:
        points: (N, 24, 2) px.
        people: The keypoints and the boxes.
        weights: (24,) on the confidence.

    Returns:
        The mean distance (N,) px, weighted by confidence, and EFT's 2D loss (N,); NaN for people without a keypoint.
    """
    weight = people.keypoints2d[..., 2] * weights
    squared = ((points - people.keypoints2d[..., :2]) ** 2).sum(-1)
    total = np.where(weight.any(1), weight.sum(1), np.nan)
    loss2d = (weight * squared).sum(1) / (people.box_height / 2) ** 2 / _EFT_TERMS
    return (weight * np.sqrt(squared)).sum(1) / total, np.where(np.isnan(total), np.nan, loss2d)


def joint_weights(config: AnnotatorConfig) -> np.ndarray:
    """(24,) factors on the confidences of SPIN24."""
    return np.array([config.annotator.joint_weights.get(name, 1.0) for name in SPIN24], np.float32)


def _open_work(job: AnnotationJob, people: Annotations) -> None:
    """Make the work folder, or check that it was made for this."""
    digest = hashlib.sha256()
    for key, column in sorted(to_arrays(people).items()):
        digest.update(key.encode() + np.ascontiguousarray(column).tobytes())
    settings = {
        "annotations": digest.hexdigest(),
        "image_dir": str(job.image_dir.resolve() if job.image_dir else ""),
        "weights": job.weights.sha256,
    }
    config = to_dict(job.config)
    settings["body"] = config.pop("body")
    for section, values in config.items():
        settings |= {f"{section}.{key}": value for key, value in values.items()}
    claim_folder(prepare_output_dir(job.work), settings)
    for folder in (job.output.parent, *(folder for folder, _, _ in os.walk(job.work))):
        remove_unfinished(folder)
    if not (job.work / "target.npz").is_file():
        save_annotations(job.work / "target.npz", people)


def _like(rows: np.ndarray, column: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *[1] * (column.ndim - 1))


def _report(what: str, count: int, start: float) -> float:
    now = time.perf_counter()
    log.info("%s %d people: %.1f s", what, count, now - start)
    return now

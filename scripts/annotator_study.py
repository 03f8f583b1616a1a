"""Is the annotator worth it? Synthetic people whose 3D truth is known, annotated from noisy 2D keypoints.

    python scripts/annotator_study.py [--help]

The network is pretrained on people who stand and walk, of ordinary shape, before cameras of ordinary lenses. The target
is others: all poses, drawn and recorded, shapes and cameras. Of them the annotator sees only what a keypoint detector
reports, with noise and missing joints. Compared with the truth: the pretrained network's predictions; the same fitted
to the keypoints; the finetuned network's, and these fitted, which is what the annotator writes; the same without the
explicit prior, with the hips counted, with BatchNorm not frozen, without the location feature; and EFT's way, every
person by herself. Then fresh networks are trained on the target with these labels and evaluated on the held-out people
of model_zoo/heldout. All of it with several seeds, of people and of trainings: mean and standard deviation.

Writes model_zoo/annotator/study.md and .json. What is trained lies in outputs/annotator_study and is not trained again.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cliff_ms import cli, runtime
from cliff_ms.body.files import Body, load_body
from cliff_ms.camera import estimate_focal_length
from cliff_ms.config import Config, DataConfig, LossConfig, ModelConfig, SourceConfig, TrainConfig
from cliff_ms.data.annotation_files import load_annotations, save_annotations
from cliff_ms.data.annotations import Annotations, concatenate
from cliff_ms.io.files import atomic_path, claim_folder, prepare_output_dir
from cliff_ms.io.tables import markdown_table
from cliff_ms.keypoints import LANDMARKS, SPIN24, index_map
from cliff_ms.rotation import rotmat_to_axis_angle
from cliff_ms.synthetic.observation import Observer
from cliff_ms.synthetic.world import REAL, World
from cliff_ms.weights.checkpoint import load_weights, side_car
from cliff_ms.zoo import BUNDLED_BODY

if TYPE_CHECKING:
    from cliff_ms.annotation.annotator import Annotated, AnnotationJob

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "annotator_keypoints.yaml"
UPRIGHT_POSES = 24  # the first of the table of key poses: people who stand and walk
CALM = 0.7  # of the usual spread around them
MAX_BETA = 0.8  # of the two largest components of shape
LENSES = (0.8, 1.15)  # focal length / the one that is estimated from the image size
MODEL = ModelConfig("keypoints", joint_set="coco17", width=0.25)
LOSS = LossConfig(1.0, 5.0, 15.0, 1.0, 0.01, 0.0, 0.0)  # as configs/cliff_keypoints.yaml
# EFT (facebookresearch/eft, eft/train/eftFitter.py): weights, learning rate, steps, when to stop, joints it ignores.
EFT_LOSS = LossConfig(60.0, 5.0 * 24 / 49, 0.0, 0.0, 0.001, 0.0, 1.0)
EFT_RATE, EFT_STEPS, EFT_ENOUGH = 5e-6, 20, 1e-4 * 49 / 24
HIPS = ("right_hip_lsp", "left_hip_lsp")  # which most rows leave out, as EFT does
EFT_IGNORED = ("right_hip_lsp", "left_hip_lsp", "pelvis_mpii", "right_ankle", "left_ankle")
_CHUNK, _SPIN = 4096, index_map(LANDMARKS, SPIN24)


def main() -> None:
    """Make the people, train, annotate, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pool", type=int, default=20_000, help="people to pretrain on")
    parser.add_argument("--steps", type=int, default=2500, help="steps of pretraining, of 256 people")
    parser.add_argument("--people", type=int, default=1000, help="people to annotate")
    parser.add_argument("--eft_people", type=int, default=100, help="the first of them, to fit in EFT's way")
    parser.add_argument("--fresh_steps", type=int, default=800, help="steps of training anew, of 256 people")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of people and trainings")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "annotator_study", help="what is trained")
    parser.add_argument(
        "--result_dir", type=Path, default=ROOT / "model_zoo" / "annotator", help="study.md, study.json"
    )
    args, start = parser.parse_args(), time.perf_counter()
    runtime.setup_device("CPU")
    body, results = load_body(), []
    settings = {name: getattr(args, name) for name in ("pool", "steps", "people", "eft_people", "fresh_steps")}
    for seed in args.seeds:
        folder = prepare_output_dir(args.output_dir / f"seed_{seed}")
        claim_folder(folder, settings)
        make_people(folder / "pretrain.npz", body, args.pool, 2 * seed + 1, narrow=True)
        make_people(folder / "target.npz", body, args.people, 2 * seed + 2, narrow=False)
        rows = annotations(folder, body, args.steps, args.eft_people, seed)
        results.append((rows, retrained(folder, body, args.fresh_steps, seed)))
        print(f"seed {seed}", cli.table(rows), cli.table(results[-1][1]), sep="\n\n", flush=True)
    minutes = (time.perf_counter() - start) / 60
    settings |= {"seeds": args.seeds, "minutes": round(minutes, 1)}
    write_result(prepare_output_dir(args.result_dir), *zip(*results, strict=True), settings)


def make_people(path: Path, body: Body, count: int, seed: int, narrow: bool, observation: str = "detector") -> None:
    """Write synthetic people as a standard npz, unless it is there.

    Args:
        path: The file.
        body: Their body.
        count: N.
        seed: Of everything.
        narrow: Only the people to pretrain on, with exact labels; else all, whose 2D labels are what a detector
            reports.
        observation: Of which detector, see `observation.Observer`.
    """
    if path.is_file():
        return
    world = World(body, real=0 if narrow else REAL)
    if narrow:
        world.prior.weights[UPRIGHT_POSES:] = 0
        world.prior.weights /= world.prior.weights.sum()
        world.prior.spread *= CALM
    observer, parts, found, chunk = Observer("coco17", "mixed" if narrow else observation), [], 0, 0
    while found < count:
        rng = np.random.default_rng((seed, chunk))
        people = world.sample(rng, _CHUNK)
        keypoints, center, size = observer(rng, people)
        keypoints2d = np.concatenate([people.points2d[:, _SPIN], people.in_frame()[:, _SPIN, None]], -1)
        part = Annotations.of(
            image_names=np.array([f"{chunk * _CHUNK + row:06d}.jpg" for row in range(_CHUNK)]),
            center=center,
            size=size,
            keypoints2d=keypoints2d if narrow else None,  # the annotator makes it of the detector's joints
            keypoints3d=np.concatenate([people.points[:, _SPIN], np.ones((_CHUNK, 24, 1))], -1),
            pose=rotmat_to_axis_angle(people.rotmats).reshape(-1, 72),
            betas=people.betas,
            translation=people.translation,
            has_smpl=np.ones(_CHUNK),
            focal_length=people.focal_length,
            img_hw=people.img_hw,
            input_keypoints=keypoints,
            input_joint_set="coco17",
            gender=np.full(_CHUNK, "n"),
        )
        lens = people.focal_length / estimate_focal_length(people.img_hw)
        usual = (np.abs(people.betas[:, :2]).max(1) < MAX_BETA) & (lens > LENSES[0]) & (lens < LENSES[1])
        parts.append(part.take(usual) if narrow else part)
        found, chunk = found + len(parts[-1]), chunk + 1
    save_annotations(path, concatenate(parts).take(slice(count)))


def annotations(folder: Path, body: Body, steps: int, eft_people: int, seed: int) -> list[dict]:
    """Annotate the target in every way; a row of the table each."""
    from cliff_ms.annotation.annotator import (
        AnnotationJob,
        annotate,
        errors2d,
        fit,
        joint_weights,
        load_annotator_config,
    )
    from cliff_ms.annotation.report import mean_errors, summarise

    shipped = replace(load_annotator_config(CONFIG), model=MODEL)
    config = replace(shipped, annotator=replace(shipped.annotator, joint_weights=dict.fromkeys(HIPS, 0.0)))
    no_prior = replace(config, loss=replace(config.loss, keypoints3d=0.0, pose=0.0, betas=0.0))
    unfrozen = replace(config, train=replace(config.train, freeze_norm=False))
    without = replace(config, model=replace(MODEL, location_input=False))
    ways = {
        "": config,
        ", no explicit prior": no_prior,
        ", hips counted": shipped,
        ", not frozen": unfrozen,
        ", no location feature": without,
    }
    rows = []
    for name, setting in ways.items():
        kind = "with_location" if setting.model.location_input else "without_location"
        ckpt = pretrained(folder / kind, folder / "pretrain.npz", body, setting.model, steps, seed)
        output = folder / f"annotated{name.replace(', ', '_').replace(' ', '_')}.npz"
        job = AnnotationJob(setting, load_weights(ckpt), folder / "target.npz", None, output, exact_keypoints=True)
        target = job.check(body)
        code, result = annotate(job, target, body)
        if code:
            sys.exit(130)
        before, finetuned, after = summarise(result, {"n": body})
        if name in ("", ", no location feature"):  # the others start from the same predictions
            fitted = fit(job, target, body, result.before)
            error_px, _ = errors2d(fitted.extras["points2d"], target.people, joint_weights(setting))
            alone = mean_errors(fitted, error_px, result.truth, {"n": body})
            rows.append({"annotator": f"pretrained network{name}", **before})
            rows.append({"annotator": f"pretrained network, fitted{name}", **alone})
        rows.append({"annotator": f"finetuned{name}", **finetuned})
        rows.append({"annotator": f"finetuned, fitted{name}", **after})
        if not name:
            rivals = fit_each(job, result, body, eft_people)
    rows += rivals
    for row in rows:
        row.pop("bodies", None)
    return rows


def pretrained(output_dir: Path, people: Path, body: Body, model: ModelConfig, steps: int, seed: int) -> Path:
    """Train with full supervision, or go on, or take what was trained; the weights."""
    from cliff_ms.training.trainer import train

    settings = TrainConfig(
        steps, 5e-4, (0.7, 0.92), clip_norm=1.0, ema=0.99, seed=seed, val_every=0, save_every=500, keep=1
    )
    config = Config(model, DataConfig(train=(SourceConfig(str(people)),), batch_size=256), loss=LOSS, train=settings)
    final = output_dir / "checkpoints" / "final.ckpt"
    if not side_car(final).is_file() and train(config, output_dir, body, (output_dir / "config.yaml").is_file()):
        sys.exit(130)
    return final


def fit_each(job: "AnnotationJob", result: "Annotated", body: Body, count: int) -> list[dict]:
    """EFT's way: for each person by herself, the pretrained network is fitted to the 2D keypoints for a few steps.

    Args:
        job: The annotation, finished; its work folder holds the people.
        result: What it came to.
        body: The body.
        count: The first so many people.

    Returns:
        Rows of the table: these people in EFT's way, and the same people finetuned.
    """
    from mindspore import ParameterTuple, Tensor, nn, ops

    from cliff_ms.annotation.annotator import errors2d, joint_weights, run_network, training_config
    from cliff_ms.annotation.report import mean_errors
    from cliff_ms.body.smpl import build_smpl
    from cliff_ms.data.dataset import EvalDataset
    from cliff_ms.data.source import Source
    from cliff_ms.training.trainer import Trainer
    from cliff_ms.weights.networks import mindspore_network

    assign = ops.MultitypeFuncGraph("assign")

    @assign.register("Tensor", "Tensor")
    def _(target: Tensor, value: Tensor) -> Tensor:
        return ops.assign(target, value)

    class Restore(nn.Cell):
        def __init__(self, parameters: list) -> None:
            super().__init__(auto_prefix=False)
            self.targets = ParameterTuple(parameters)
            self.originals = self.targets.clone("original")
            self.map = ops.HyperMap()

        def construct(self) -> tuple:
            return self.map(assign, self.targets, self.originals)

    target = load_annotations(job.work / "target.npz").take(slice(count))
    keypoints2d = target.keypoints2d.copy()
    keypoints2d[:, [SPIN24.index(name) for name in EFT_IGNORED], 2] = 0
    file = job.work / "eft.npz"  # towards no shape
    zeros = {"pose": np.zeros_like(target.pose), "betas": np.zeros_like(target.betas)}
    save_annotations(file, replace(target, keypoints2d=keypoints2d, has_smpl=np.ones_like(target.has_smpl), **zeros))
    config = training_config(job, 1)
    settings = replace(config.train, learning_rate=EFT_RATE, clip_norm=0.0, freeze_norm=True)
    trainer = Trainer(replace(config, loss=EFT_LOSS, train=settings), body, 1)
    data = EvalDataset(Source(SourceConfig(str(file)), job.config.model, "eft"), 1)
    restore = Restore(list(trainer.step.get_parameters()))
    network = mindspore_network(trainer.step.network.cliff, job.config.model)
    persons = iter(range(len(data)))

    def fit(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        restore()
        batch = data.batch(next(persons))
        for _ in range(EFT_STEPS):
            if trainer.run([batch], False, 0)[0]["keypoints2d"] < EFT_ENOUGH:
                break
        return network(*inputs)

    start = time.perf_counter()
    found, points2d = run_network(fit, build_smpl(body, str(BUNDLED_BODY)), data, 0)
    print(f"EFT's way: {(time.perf_counter() - start) / len(data):.2f} s per person", flush=True)
    error, _ = errors2d(points2d, target, joint_weights(job.config))
    finetuned, error_px = result.finetuned.take(slice(count)), result.after.extras["error_px_finetuned"][:count]
    truth = result.truth.take(slice(count))
    return [
        {"annotator": name, **mean_errors(known, each, truth, {"n": body})}
        for name, known, each in (
            ("EFT's way, each person alone", replace(target, **found), error),
            ("finetuned, the same people", finetuned, error_px),
        )
    ]


def retrained(folder: Path, body: Body, steps: int, seed: int) -> list[dict]:
    """Train fresh networks on the target with each kind of labels, and evaluate them on the held-out people."""
    from cliff_ms.evaluation.evaluate import EvalJob, evaluate
    from cliff_ms.evaluation.protocols import find_protocol
    from cliff_ms.zoo import HELD_OUT

    truth, target = (load_annotations(folder / name) for name in ("target.npz", "annotated.work/target.npz"))
    labels = {
        "predicted": load_annotations(folder / "annotated.work" / "prior.npz"),
        "annotated": load_annotations(folder / "annotated.npz"),
        "true": replace(
            target, pose=truth.pose, betas=truth.betas, has_smpl=truth.has_smpl, keypoints3d=truth.keypoints3d
        ),
    }
    rows = []
    for name, known in labels.items():
        file = folder / f"labels_{name}.npz"
        if not file.is_file():
            save_annotations(file, replace(known, keypoints2d=target.keypoints2d))
        ckpt = pretrained(folder / f"fresh_{name}", file, body, MODEL, steps, seed)
        job = EvalJob(
            find_protocol("synthetic", None), load_weights(ckpt), HELD_OUT / "annotations.npz", keypoints="noisy"
        )
        result = evaluate(job).values
        scores = {key: result[key] for key in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg")}
        rows.append({"labels": name, **scores})
    return rows


def write_result(folder: Path, rows: Sequence[list[dict]], fresh: Sequence[list[dict]], settings: dict) -> None:
    """Write study.md and study.json, and print the tables.

    Args:
        folder: Where to.
        rows: Of each seed, what `annotations` returned.
        fresh: Of each seed, what `retrained` returned.
        settings: Of the study.
    """
    with atomic_path(folder / "study.json") as temporary:
        values = {"annotations": rows, "trained on them": fresh, "settings": settings}
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    lines = ["# The annotator on synthetic people", "", "`bash scripts/run_annotator_study.sh` makes this file.", ""]
    lines += ["Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".", ""]
    lines += ["## Annotations against the truth", "", *markdown_table(over_seeds(rows)), ""]
    lines += ["## Fresh networks trained on them, on the held-out people", "", *markdown_table(over_seeds(fresh)), ""]
    with atomic_path(folder / "study.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def over_seeds(tables: Sequence[list[dict]]) -> list[dict]:
    """The same tables of several seeds as one: mean and standard deviation of what is no name or count."""
    joined = []
    for same in zip(*tables, strict=True):
        joined.append(dict(same[0]))
        for name, value in same[0].items():
            if isinstance(value, float):
                values = [row[name] for row in same]
                spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
                joined[-1][name] = f"{np.mean(values):.1f}{spread}"
    return joined


if __name__ == "__main__":
    cli.run(main)

"""Does the fit pay after the annotator's finetuning, and how far should it trust what was predicted?

    python scripts/annotator_fit_study.py [--people 1000] [--annotations IN.npz]

The bundled keypoint model annotates synthetic people as annotate.py does: some with a detector's noise around their own
joints, others as the bundled detector sees them. Printed are the errors, by the truth, of the predictions, of these
fitted to the keypoints, of the finetuned network's predictions, and of those fitted: by priors of the stated deviations
times a factor, without the hips, and with the keypoints read as what they are not.

With --annotations the people are those of a file with true bodies and keypoints that are exact joints with noise, such
as outputs/annotate/people.npz of scripts/run_annotate.sh.
What is trained lies in outputs/annotator_fit_study and is not trained again. Three minutes on two cores.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from annotator_study import CONFIG, ROOT, make_people

from cliff_ms import cli, runtime
from cliff_ms.body.files import Body, load_body
from cliff_ms.io.files import prepare_output_dir
from cliff_ms.keypoints import JOINT_SETS
from cliff_ms.zoo import BUNDLED_BODY, bundled_model

SEED = 8  # other people than those of annotator_study.py
OBSERVATIONS = ("detector", "bundled")
FACTORS = (0.5, 1.0, 1.4)


def main() -> None:
    """Make the people, annotate them, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=1000, help="of each kind")
    parser.add_argument("--annotations", type=Path, help="instead: npz with true bodies and input_keypoints")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "annotator_fit_study")
    args = parser.parse_args()
    runtime.setup_device("CPU")
    folder, body = prepare_output_dir(args.output_dir), load_body()
    if args.annotations:
        print(cli.table(study(args.annotations, folder / f"{args.annotations.stem}_annotated.npz", body, exact=True)))
        return
    for observation in OBSERVATIONS:
        file = folder / f"{observation}_{args.people}.npz"
        make_people(file, body, args.people, SEED, narrow=False, observation=observation)
        rows = study(file, file.with_stem(f"{file.stem}_annotated"), body, exact=observation == "detector")
        print(f"keypoints: {observation}\n{cli.table(rows)}\n", flush=True)


def study(people: Path, output: Path, body: Body, exact: bool) -> list[dict]:
    """Annotate people and fit them in several ways.

    Args:
        people: With true bodies.
        output: The annotations.
        body: The body.
        exact: Whether the keypoints are exact joints, with noise or without.

    Returns:
        A row for each way.
    """
    from cliff_ms.annotation.annotator import AnnotationJob, annotate, errors2d, joint_weights, load_annotator_config
    from cliff_ms.annotation.fitting import fit_people, keypoints_to_fit
    from cliff_ms.annotation.report import mean_errors
    from cliff_ms.body.smpl import build_smpl
    from cliff_ms.data.annotations import Annotations
    from cliff_ms.inference.fit import Fit
    from cliff_ms.weights.checkpoint import load_weights

    job = AnnotationJob(
        load_annotator_config(CONFIG), load_weights(bundled_model()), people, None, output, exact_keypoints=exact
    )
    target = job.check(body)
    code, result = annotate(job, target, body)
    if result is None:
        sys.exit(code)
    weights, smpl = joint_weights(job.config), build_smpl(body, str(BUNDLED_BODY))
    given, joint_set = keypoints_to_fit(target, weights)
    hips = np.array([name.endswith("hip") for name in JOINT_SETS[joint_set]])

    def row(name: str, known: Annotations) -> dict:
        error_px, _ = errors2d(known.extras["points2d"], target.people, weights)
        return {"bodies": name, **mean_errors(known, error_px, result.truth, {"n": body})}

    def fitted(name: str, found: Annotations, factor: float = 1.0, hip: float = 1.0, as_exact: bool = exact) -> dict:
        keypoints = given.copy()
        keypoints[:, hips, 2] *= hip
        deviations = factor * job.weights.meaning.expected_deviations()
        deviations[72:82] /= factor  # of the shape
        fit = Fit(body, joint_set, deviations, as_detected=not as_exact)
        return row(name, fit_people(fit, smpl, found, keypoints, job.config.data.batch_size))

    rows = [row("predicted", result.before), fitted("predicted, fitted", result.before)]
    rows.append(row("finetuned", result.finetuned))
    rows += [fitted(f"finetuned, fitted, prior x {f:g}", result.finetuned, f) for f in FACTORS]
    rows.append(fitted("finetuned, fitted, without hips", result.finetuned, hip=0))
    other = "markers" if exact else "exact joints"
    rows.append(fitted(f"finetuned, fitted, keypoints as {other}", result.finetuned, as_exact=not exact))
    return rows


if __name__ == "__main__":
    cli.run(main)

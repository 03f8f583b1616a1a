"""SMPL annotations for people of whom only 2D keypoints are known (section 3.4 of the paper).

A run that was ended goes on where it was when the same command is given again.
"""

import argparse
from pathlib import Path

import numpy as np

from cliff_ms import cli, runtime
from cliff_ms.body.files import load_body
from cliff_ms.evaluation.protocols import find_protocol, load_bodies
from cliff_ms.weights.checkpoint import load_weights
from cliff_ms.zoo import BUNDLED_BODY


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="configs/annotator_....yaml")
    parser.add_argument("--ckpt", type=Path, required=True, help="pretrained weights, of the configuration's 'model'")
    parser.add_argument(
        "--annotations",
        type=Path,
        help="2D keypoints in px: npz (as prepare.py writes it), COCO's person_keypoints json, folder of OpenPose "
        "json; default: what the bundled detector finds in --image_dir",
    )
    parser.add_argument(
        "--image_dir", type=Path, help="folder of the images; a keypoint model takes sizes and pictures from it"
    )
    parser.add_argument("--output", type=Path, required=True, help="npz; a folder of the same name, .work, lies beside")
    parser.add_argument(
        "--body_dir",
        type=Path,
        help="of annotations that know the true bodies, as 3DPW's: folder with SMPL_MALE.pkl, SMPL_FEMALE.pkl and "
        "J_regressor_h36m.npy, to print errors by 3DPW's protocol; default: only true bodies of neutral gender are "
        "compared with",
    )
    parser.add_argument(
        "--no_fit",
        dest="fit",
        action="store_false",
        help="end with what the finetuned network predicts; default: fit the bodies to their 2D keypoints",
    )
    parser.add_argument(
        "--exact_keypoints",
        action="store_true",
        help="the fit takes the keypoints for joints of the body, as synthetic people have them; default: for what "
        "detectors report and people label, see cliff_ms/body/markers.py",
    )
    cli.add_device_argument(parser)
    return parser.parse_args()


def main() -> int:
    """Check what was given, then annotate."""
    args = parse_args()
    device = runtime.setup_device(args.device_target)
    from cliff_ms.annotation.annotator import AnnotationJob, annotate, load_annotator_config
    from cliff_ms.annotation.report import check_truth, summarise, write_contact_sheet

    job = AnnotationJob(
        load_annotator_config(args.config),
        load_weights(args.ckpt),
        args.annotations,
        args.image_dir,
        args.output,
        args.fit,
        args.exact_keypoints,
    )
    body = load_body(job.config.body or None)
    target, bodies = job.check(body), {"n": body}
    if args.body_dir:
        gender = check_truth(target.truth, args.annotations)
        bodies = load_bodies(
            find_protocol("3dpw", "cliff"), gender, Path(job.config.body or BUNDLED_BODY), args.body_dir
        )
    print(f"{len(target.people)} people in {len(np.unique(target.people.image_names))} images, on {device}")
    code, result = annotate(job, target, body)
    if result is None:
        print("give the same command again to go on")
        return code
    rows, good = summarise(result, bodies), result.after.extras["good"]
    print(cli.table(rows))
    note = f"{good.sum()} of {len(good)} annotations are good: 2D error and shape as EFT asks for ('good' in the file)"
    print(f"{note}\nwritten: {job.output}")
    page = write_contact_sheet(job, result, body, f"{note}. Weights: {args.ckpt}.")
    if page:
        print(f"open {page}")
    return 0

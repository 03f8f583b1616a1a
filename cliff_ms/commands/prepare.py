"""Turn a data set as it is downloaded into the annotation file that train.py and eval.py read.

A run that was stopped goes on where it was: what it has read lies in OUTPUT.parts until the end.
`prepare.py check FILE` says what is wrong with such a file, whoever wrote it.
"""

import argparse
import inspect
from pathlib import Path
from typing import Any

from cliff_ms.data.annotation_files import load_annotations, save_annotations
from cliff_ms.data.label_report import check_labels
from cliff_ms.data.readers import DATASETS
from cliff_ms.data.readers.prepare import PrepareJob, prepare
from cliff_ms.io.files import check_not_overwritten

_OPTIONS: dict[str, dict[str, Any]] = {
    "body_dir": {"type": Path, "help": "folder with SMPL_MALE.pkl, SMPL_FEMALE.pkl, J_regressor_extra.npy"},
    "boxes": {
        "choices": ("smpl", "poses2d"),
        "default": "smpl",
        "help": "around the projected COCO joints of the annotated bodies (CLIFF's), or around OpenPose's (SPIN's)",
    },
    "min_limbs": {
        "type": int,
        "default": 0,
        "help": "leave out people of whose 12 limb joints OpenPose saw fewer; VIBE's evaluation: 7",
    },
    "image_scale": {
        "type": float,
        "default": 1.0,
        "help": "size of your images relative to the download; CLIFF's were 0.5",
    },
    "fits": {"type": Path, "help": "folder neutrSMPL_H3.6 of the MoSh bodies"},
    "extract": {
        "action": "store_true",
        "help": "write the frames of the rows, unless they are there; without one a row is left out",
    },
    "spin_frames": {
        "action": "store_true",
        "help": "with --extract: take the frame after each pose, as SPIN's test set does by mistake",
    },
}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET", help=", ".join(DATASETS))
    for name, dataset in DATASETS.items():
        text = (inspect.getdoc(dataset.read) or "").partition("\n\nRaises")[0]
        verb = verbs.add_parser(name, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        verb.add_argument("--root", type=Path, required=True, help="folder that the data set was unpacked into")
        verb.add_argument("--output", type=Path, required=True, help="the npz to write")
        verb.add_argument("--split", choices=dataset.splits, default=dataset.splits[0], help="default: %(default)s")
        for option in dataset.options:
            verb.add_argument(f"--{option}", **_OPTIONS[option])
        if dataset.takes_fits:
            verb.add_argument("--fits", type=Path, help="SMPL bodies to merge: cliffGT npz, EFT json, SPIN npz or npy")
            verb.add_argument("--fits_rows", type=Path, help="SPIN's npz with the rows of an npy or npz without names")
    text = (
        "Report labels in other units, axes or orders, bad rows, and pictures that are missing or not those annotated."
    )
    check = verbs.add_parser("check", description=text)
    check.add_argument("file", type=Path, help="any annotation file that train.py, eval.py and annotate.py read")
    check.add_argument("--image_dir", type=Path, help="folder of the pictures, to look at them too")
    check.add_argument("--output", type=Path, help="npz to write what is taken to, in the form that opens at once")
    check.add_argument("--decode", action="store_true", help="decode every picture to its end")
    return parser.parse_args()


def main() -> int:
    """Prepare, and say what was kept."""
    args = parse_args()
    if args.dataset == "check":
        if args.output:
            check_not_overwritten(args.output, {"FILE": args.file})
        report, usable = check_labels(args.file, args.image_dir, args.decode)
        print(report)
        if usable and args.output:
            save_annotations(args.output, load_annotations(args.file))
            print(f"wrote {args.output}")
        return 0 if usable else 2
    dataset = DATASETS[args.dataset]
    options = {option: vars(args)[option] for option in dataset.options}
    fits = (args.fits, args.fits_rows) if dataset.takes_fits else ()
    print(prepare(PrepareJob(args.dataset, args.root, args.split, args.output, options, *fits)))
    print(f"wrote {args.output}")
    return 0

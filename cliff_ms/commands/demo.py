"""People in photos, folders and videos to 3D bodies in the camera of the full image."""

import argparse
import math
import time
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.body.files import load_body
from cliff_ms.data.detections import BOX_FORMATS, Detections, read_boxes, read_keypoints
from cliff_ms.inference.detectors import BUNDLED, Detector, load_detector
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import prepare_output_dir
from cliff_ms.io.images import find_inputs
from cliff_ms.zoo import bundled_model


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", nargs="+", help="photos, videos, or folders of photos")
    parser.add_argument("--ckpt", type=Path, help="weights, or an exported .onnx; default: the bundled keypoint model")
    parser.add_argument("--body", type=Path, help="SMPL .pkl or .npz; default: the bundled free body")
    parser.add_argument("--boxes", type=Path, help='{"photo.png": [[x1, y1, x2, y2], ...]} in px, as .json; or .npz')
    parser.add_argument("--box_format", choices=BOX_FORMATS, default="xyxy", help="corners, or corner and size; in px")
    parser.add_argument(
        "--keypoints", type=Path, help="2D keypoints in px: OpenPose json or a folder of them, COCO json"
    )
    parser.add_argument(
        "--detector",
        help="finds the people where neither --boxes nor --keypoints are given: bundled (default: two small networks, "
        "boxes and 2D keypoints), yolov3.cfg,yolov3.weights, a YOLO .onnx (of a pose model with its keypoints), or "
        "whole-image",
    )
    parser.add_argument(
        "--focal_length",
        type=cli.focal_length,
        default="exif",
        metavar="PX|exif|estimate",
        help="px of the full image; exif (default): what a photo's file states, unless the photo was cropped since, "
        "and else estimate: sqrt(width^2 + height^2)",
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        default=None,
        help="fit bodies to their 2D keypoints (default for keypoint models)",
    )
    parser.add_argument("--no_fit", dest="fit", action="store_false", help="leave them as the network predicts them")
    parser.add_argument(
        "--start", type=cli.seconds, default=0.0, metavar="S", help="of a video: skip what is before, s"
    )
    parser.add_argument("--end", type=cli.seconds, default=math.inf, metavar="S", help="of a video: end there, s")
    parser.add_argument("--every", type=cli.positive_int, default=1, metavar="N", help="of a video: every Nth frame")
    parser.add_argument(
        "--max_gap",
        type=cli.positive_int,
        metavar="N",
        help="of a video: who is out of sight for more frames is somebody new (default: half a second of them)",
    )
    parser.add_argument(
        "--no_smooth", dest="smooth", action="store_false", help="estimate each frame of a video by itself"
    )
    cli.add_engine_arguments(parser, batch_size=1)
    parser.add_argument("--separate", action="store_true", help="also write each person of a photo as a GLB of her own")
    parser.add_argument("--obj", action="store_true", help="also write each person of a photo as OBJ")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"), help="default: %(default)s")
    cli.add_device_argument(parser)
    return parser.parse_args()


def find_people(
    boxes: Path | None, box_format: str, keypoints: Path | None, detector: str | None
) -> tuple[dict[str, Detections] | None, dict[str, Detections] | None, Detector | None]:
    """Read where the people are, or make the detector that finds them.

    Args:
        boxes: File of --boxes.
        box_format: Of --box_format.
        keypoints: File or folder of --keypoints.
        detector: Of --detector; without any of the three, the bundled one.

    Returns:
        Boxes, keypoints, detector: what `Finder` takes.

    Raises:
        InputError: Both given and to be found, or files that cannot be used.
    """
    given = boxes is not None or keypoints is not None
    if detector is not None and given:
        raise InputError("--detector finds the people itself: leave it out, or leave out --boxes and --keypoints.")
    return (
        read_boxes(boxes, box_format) if boxes else None,
        read_keypoints(keypoints) if keypoints else None,
        None if given else load_detector(detector or BUNDLED),
    )


def choose_weights(ckpt: Path | None, with_keypoints: bool) -> Path:
    """The weights that were named, or the bundled ones.

    Raises:
        InputError: Nothing that the bundled model could read.
    """
    if ckpt is None and not with_keypoints:
        raise InputError(
            "The bundled model reads 2D keypoints: give --keypoints FILE, or weights that read pixels (--ckpt), or "
            "leave out --boxes and --detector."
        )
    return ckpt or bundled_model()


def main() -> int:
    """Check what was given, then load MindSpore and work through the files."""
    args, start = parse_args(), time.perf_counter()
    inputs, output_dir = find_inputs(args.input), prepare_output_dir(args.output_dir)
    boxes, keypoints, detector = find_people(args.boxes, args.box_format, args.keypoints, args.detector)
    body = load_body(args.body)
    ckpt = choose_weights(args.ckpt, keypoints is not None or (detector is not None and detector.gives_keypoints))
    device = runtime.setup_device(args.device_target)
    from cliff_ms.inference.demo import Demo
    from cliff_ms.inference.finder import Finder
    from cliff_ms.inference.predict import load_predictor
    from cliff_ms.inference.video import Span

    predictor = load_predictor(ckpt, body, args.engine, args.batch_size, args.fit)
    find = Finder(boxes, keypoints, detector, args.boxes, args.keypoints)
    print(f"weights: {predictor.origin}\nbody: {body.name}; engine: {predictor.engine}; device of MindSpore: {device}")
    ready = time.perf_counter()
    with runtime.stop_signals() as stop:
        span = Span(args.start, args.end, args.every, args.max_gap)
        settings = args.focal_length, args.separate, args.obj, args.smooth
        demo = Demo(predictor, body, find, output_dir, *settings, span, stop)
        page = demo.run(inputs, f"Weights: {predictor.origin} Body: {body.name}.")
    if demo.seconds:
        first, rest = demo.seconds[0], demo.seconds[1:]
        print(cli.table(demo.rows))
        print(f"start-up {ready - start:.1f} s; first file {first:.1f} s", end="")
        print(f"; the others {sum(rest) / len(rest):.2f} s each" if rest else "")
        print(f"open {page}")
    if demo.failed:
        print(f"{len(demo.failed)} of {len(inputs)} files could not be used; the reasons are above")
    if stop.signal is not None:
        return 128 + stop.signal
    return 2 if demo.failed else 0

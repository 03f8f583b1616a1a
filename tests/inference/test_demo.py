"""demo.py, convert.py and export.py as a user types them, and the demo's loop on photos and videos."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from cliff_ms import load_body
from cliff_ms.config import ModelConfig
from cliff_ms.data.detections import ANY_IMAGE, Detections, read_boxes, read_keypoints
from cliff_ms.inference import demo
from cliff_ms.inference.demo import Demo
from cliff_ms.inference.detectors import Detector, whole_image
from cliff_ms.inference.finder import Finder
from cliff_ms.inference.predict import Predictor
from cliff_ms.inference.video import Span, showings
from cliff_ms.io.images import read_image
from cliff_ms.io.video import VideoReader, VideoWriter
from cliff_ms.keypoints import COCO17, SMPL45, convert_keypoints, index_map
from tests.golden import weights
from tests.paths import ROOT, ZOO

EXAMPLES = ZOO / "examples"
PEOPLE, BOXES = EXAMPLES / "people.jpg", EXAMPLES / "people_boxes.json"


def verb(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done


# COCO val2017's keypoints of image 785, the skier, in the order of COCO17, px.
SKIER = np.array(
    [(367, 81), (374, 73), (360, 75), (386, 78), (356, 81), (399, 108), (358, 129), (433, 142), (341, 159), (449, 165),
     (309, 178), (424, 203), (393, 214), (429, 294), (367, 273), (466, 362), (396, 341)]
)  # fmt: skip


def photo_with_exif(path, millimetres, stated_size):
    """A black photo whose file states a 35 mm equivalent, and perhaps the size it was taken in."""
    exif = Image.Exif()
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    tags[ExifTags.Base.FocalLengthIn35mmFilm] = millimetres
    if stated_size:
        tags[ExifTags.Base.ExifImageWidth], tags[ExifTags.Base.ExifImageHeight] = stated_size
    Image.new("RGB", (1280, 720)).save(path, exif=exif)
    return path


def standing_network(inputs, center, size, img_hw, focal_length):
    """Predicts one pose for all, at 5 m in front of the box."""
    count = len(inputs)
    rotmat = np.tile(np.eye(3, dtype=np.float32), (count, 24, 1, 1))
    rotmat[:, 0] = np.diag([1, -1, -1])
    offset = (center - img_hw[:, ::-1] / 2) * 5 / focal_length[:, None]
    translation = np.c_[offset, np.full(count, 5)].astype(np.float32)
    return rotmat, np.zeros((count, 10), np.float32), np.ones((count, 3), np.float32), translation


def write_clip(path, frames):
    """A video of grey frames, ten a second."""
    with VideoWriter(path, 10.0, (120, 160)) as writer:
        for k in range(frames):
            writer.write(np.full((120, 160, 3), 6 * k, np.uint8))


@pytest.fixture(scope="module")
def body():
    return load_body()


def make_demo(body, find, output_dir):
    return Demo(Predictor(standing_network, ModelConfig(encoder="res18"), body), body, find, output_dir)


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_a_bad_photo_is_reported_and_the_others_are_finished(body, tmp_path):
    (tmp_path / "bad.jpg").write_text("not a picture")
    for name in ("people_7.glb", "people_7_amass.npz"):  # of an earlier run, of somebody who is not found now
        (tmp_path / name).touch()
    of_another = [tmp_path / name for name in ("people_1.glb", "people_1_cliff.npz", "people_b_cliff.npz")]
    for path in of_another:
        path.touch()
    boxes = {**read_boxes(BOXES), "bad.jpg": read_boxes(BOXES)["people.jpg"]}
    run = make_demo(body, Finder(boxes=boxes, boxes_file=BOXES), tmp_path)
    page = run.run([PEOPLE, tmp_path / "bad.jpg"], "note <&>")
    assert [path.name for path in run.failed] == ["bad.jpg"]
    assert [row["person"] for row in run.rows] == [0, 1, 2, 3]
    arrays = np.load(tmp_path / "people_cliff.npz")
    np.testing.assert_allclose(arrays["detection_all"][:, 1:5], boxes["people.jpg"].boxes)
    assert "note &lt;&amp;&gt;" in page.read_text() and "bad.jpg" not in page.read_text()
    # The overlay differs from the photo only where people were drawn, which is inside the frame and around the boxes.
    overlay, photo = read_image(tmp_path / "people_overlay.jpg"), read_image(PEOPLE)
    changed = np.abs(overlay.astype(int) - photo).max(-1) > 60
    assert changed[:, 500:640].any() and not changed[:100].any()
    assert all(path.exists() for path in of_another)
    written = {path.name.removeprefix("people") for path in tmp_path.glob("people*") if path not in of_another}
    assert written == {"_cliff.npz", "_overlay.jpg", "_side.jpg", ".glb"}


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("fits", [False, True])
def test_table_file_and_note_say_how_far_to_trust_it(body, tmp_path, fits):
    find = Finder(keypoints=read_keypoints(EXAMPLES / "people_keypoints.json"))
    predictor = Predictor(standing_network, ModelConfig(encoder="res18"), body, fits=fits)
    run = Demo(predictor, body, find, tmp_path)
    page = run.run([PEOPLE], "").read_text()
    arrays = np.load(tmp_path / "people_cliff.npz")
    errors = 100 * arrays["error_2d"]
    assert [row["2D error (%)"] for row in run.rows] == errors.tolist() and np.all(errors > 0)
    assert "<th>2D error (%)</th>" in page and f"<td>{errors[0]:.2f}</td>" in page
    assert ("<th>fit noise (%)</th>" in page) == fits == all("fit noise (%)" in row for row in run.rows)
    assert np.isfinite(arrays["fit_sigma"]).all() == fits
    note = f"joints {errors.mean():.1f} % of the crop&#39;s height from the keypoints"
    assert note in page and ("bodies fitted to the keypoints" in page) == fits


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_video_keeps_frames_apart(body, tmp_path):
    write_clip(tmp_path / "clip.mp4", 4)
    rows = {f"clip_{k:012d}": [[10 + 20 * k, 10, 60 + 20 * k, 110]] for k in range(3)} | {"clip_000000000003": []}
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    out = tmp_path / "out"
    out.mkdir()
    run = make_demo(body, Finder(boxes=read_boxes(tmp_path / "boxes.json"), boxes_file=Path("boxes.json")), out)
    run.run([tmp_path / "clip.mp4"], "")
    assert not run.failed and run.rows[0]["person"] == "1 in 4 frames"
    arrays = np.load(out / "clip_cliff.npz")
    assert np.isnan(arrays["error_2d"]).all() and len(arrays["fit_sigma"]) == 3  # boxes only
    assert arrays["imgname"].tolist() == [f"clip.mp4/{k:06d}" for k in range(3)]
    np.testing.assert_array_equal(arrays["detection_all"][:, :2], [[0, 10], [1, 30], [2, 50]])
    with VideoReader(out / "clip_overlay.mp4") as reader:
        assert len(list(reader)) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_bad_rows_and_frames_of_a_video_cost_themselves_only(body, tmp_path, caplog):
    write_clip(tmp_path / "clip.mp4", 6)
    boxes = {0: [[10, 10, 60, 110], [90, 10, 140, 110]], 2: [[90, 10, 140, 110], [10, 10, 60, 110]],
             4: [[10, 10, 60, 110], [170, 10, 220, 110]]}  # fmt: skip
    (tmp_path / "boxes.json").write_text(json.dumps({f"{frame}.jpg": rows for frame, rows in boxes.items()}))
    run = make_demo(body, Finder(boxes=read_boxes(tmp_path / "boxes.json"), boxes_file=Path("boxes.json")), tmp_path)
    run.run([tmp_path / "clip.mp4"], "")
    arrays = np.load(tmp_path / "clip_cliff.npz")
    assert not run.failed and arrays["frame"].tolist() == [0, 0, 1, 1, 2, 2, 3, 4]
    assert arrays["track_id"].tolist() == [0, 1, 0, 1, 0, 1, 0, 0]
    # Between the frames that the file has, people go on, and are known by a score of 0.
    assert arrays["detection_all"][:, 5].tolist() == [1, 1, 0, 0, 1, 1, 0, 1]
    np.testing.assert_allclose(arrays["detection_all"][[2, 3], 1:5], np.array(boxes[0], np.float64))
    np.testing.assert_allclose(arrays["time_s"], arrays["frame"] / 10, atol=1e-3)
    assert "left out, outside the picture: 1 (frame 4, row 1 first)" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_nobody_is_made_up_where_somebody_with_a_number_is_away_for_long(body, tmp_path):
    write_clip(tmp_path / "clip.mp4", 20)
    joints = np.concatenate([SKIER / 4, np.ones((17, 1))], -1).ravel().tolist()
    rows = [{"image_id": f"{frame}.jpg", "keypoints": joints, "track_id": 5} for frame in (0, 1, 3, 17, 18)]
    (tmp_path / "k.json").write_text(json.dumps(rows))
    run = make_demo(body, Finder(keypoints=read_keypoints(tmp_path / "k.json")), tmp_path)
    run.run([tmp_path / "clip.mp4"], "")
    arrays = np.load(tmp_path / "clip_cliff.npz")
    assert arrays["frame"].tolist() == [0, 1, 2, 3, 17, 18] and (arrays["track_id"] == 5).all()


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize(("max_gap", "people"), [(2, 2), (3, 1), (None, 1)])
def test_who_is_away_for_more_frames_than_asked_for_is_somebody_new(body, tmp_path, max_gap, people):
    write_clip(tmp_path / "clip.mp4", 10)
    rows = {f"{frame}.jpg": [] if frame in (3, 4, 5) else [[10, 10, 60, 110]] for frame in range(10)}
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    run = make_demo(body, Finder(boxes=read_boxes(tmp_path / "boxes.json"), boxes_file=Path("boxes.json")), tmp_path)
    run.span = Span(max_gap=max_gap)
    run.run([tmp_path / "clip.mp4"], "")
    arrays = np.load(tmp_path / "clip_cliff.npz")
    assert len(set(arrays["track_id"].tolist())) == people
    assert len(arrays["frame"]) == (7 if people == 2 else 10)  # who was away for a short time is put in between


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_frames_far_apart_show_the_same_people(body, tmp_path):
    write_clip(tmp_path / "clip.mp4", 30)
    run = make_demo(body, Finder(detector=Detector(whole_image, "a test", False)), tmp_path)
    run.span = Span(every=8)  # 0.8 s
    run.run([tmp_path / "clip.mp4"], "")
    arrays = np.load(tmp_path / "clip_cliff.npz")
    assert arrays["frame"].tolist() == [0, 8, 16, 24] and (arrays["track_id"] == 0).all()


def test_frames_are_shown_at_their_times():
    times = np.array([1.0, 1.1, 1.2, 1.5, 1.52, 1.6])
    assert showings(times, 10).tolist() == [1, 1, 3, 0, 1, 1]
    steady = 0.3 + np.round(np.arange(200) / 29.97, 3)  # as files round them
    assert (showings(steady, 29.97) == 1).all()


@pytest.mark.parametrize("fps", [23.976, 24, 29.97, 30, 59.94, 60])
def test_times_in_whole_milliseconds_make_no_frame_twice(fps):
    times = np.round(np.arange(3000) / fps, 3)  # as in MKV, WebM and FLV
    rate = demo._rate(times, fps)
    assert rate == pytest.approx(fps, rel=1e-4) and (showings(times, rate) == 1).all()
    pause = np.concatenate([times, times[-1] + 4 + times])
    assert demo._rate(pause, fps) == pytest.approx(fps, rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_a_part_of_a_video(body, tmp_path):
    write_clip(tmp_path / "clip.mp4", 20)
    run = make_demo(body, Finder(detector=Detector(whole_image, "a test", False)), tmp_path)
    run.span = Span(0.5, 1.2, 3)
    run.run([tmp_path / "clip.mp4"], "")
    assert np.load(tmp_path / "clip_cliff.npz")["frame"].tolist() == [6, 9]
    run.span = Span(7.0)
    run.run([tmp_path / "clip.mp4"], "")
    assert run.failed == [tmp_path / "clip.mp4"]


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_a_video_that_is_stopped_is_written_as_far_as_it_was_seen(body, tmp_path):
    write_clip(tmp_path / "clip.mp4", 40)
    run = make_demo(body, Finder(), tmp_path)

    def find(image):
        seen.append(image)
        run.stop.signal = signal.SIGINT if len(seen) > 5 else None
        return Detections(np.array([[10.0, 10, 60, 110]]), np.ones(1))

    seen = []
    run.find = Finder(detector=Detector(find, "a test", False))
    run.run([tmp_path / "clip.mp4", tmp_path / "clip.mp4"], "")
    frames = np.load(tmp_path / "clip_cliff.npz")["frame"]
    with VideoReader(tmp_path / "clip_overlay.mp4") as reader:
        assert len(list(reader)) == len(frames) and 1 <= len(frames) <= 10
    assert len(run.rows) == 1 and not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.usefixtures("graph_mode")
def test_a_video_that_is_stopped_while_it_is_drawn_ends_everywhere_with_its_overlay(body, tmp_path):
    write_clip(tmp_path / "clip.mp4", 30)
    run = make_demo(body, Finder(detector=Detector(whole_image, "a test", False)), tmp_path)
    drawn, draw = [], run._draw_moment

    def draw_and_stop(*arguments):
        drawn.append(arguments)
        run.stop.signal = signal.SIGINT if len(drawn) > 5 else None
        return draw(*arguments)

    run._draw_moment = draw_and_stop
    run.run([tmp_path / "clip.mp4"], "")
    frames = np.load(tmp_path / "clip_cliff.npz")["frame"]
    assert 1 < len(frames) < 20
    assert len(np.load(tmp_path / "clip_0_amass.npz")["trans"]) == len(frames)
    with VideoReader(tmp_path / "clip_overlay.mp4") as reader:
        assert len(list(reader)) == len(frames)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_video_is_worked_on(tmp_path, number):
    write_clip(tmp_path / "clip.mp4", 3000)
    joints = np.concatenate([SKIER / 4, np.ones((17, 1))], -1).ravel().tolist()
    (tmp_path / "k.json").write_text(json.dumps([{"image_id": "clip.mp4", "keypoints": joints}]))
    out = tmp_path / "out"
    command = [sys.executable, "demo.py", tmp_path / "clip.mp4", "--keypoints", tmp_path / "k.json", "--no_smooth"]
    started = subprocess.Popen(
        [*map(str, command), "--output_dir", str(out)], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )  # fmt: skip
    told = b""
    while b"finding: 1" not in told:  # ten frames or more
        told += started.stderr.read1()
    started.send_signal(number)
    told += started.communicate(timeout=60)[1]
    assert started.returncode == 128 + number and b"Traceback" not in told
    frames = np.load(out / "clip_cliff.npz")["frame"]
    with VideoReader(out / "clip_overlay.mp4") as reader:
        assert 1 < len(frames) == len(list(reader)) < 3000
    assert (out / "index.html").is_file() and not list(out.glob(".*"))


@pytest.mark.usefixtures("graph_mode")
def test_keypoints_of_one_image_are_not_used_for_two(body, tmp_path):
    find = Finder(
        keypoints=demo.found.read_keypoints(EXAMPLES / "people_keypoints.json"), keypoints_file=Path("k.json")
    )
    with pytest.raises(demo.InputError, match="k.json holds the keypoints of one image"):
        make_demo(body, find, tmp_path).run([PEOPLE, PEOPLE], "")
    with pytest.raises(demo.InputError, match="for several, or for a video"):
        make_demo(body, find, tmp_path).run([Path("clip.mp4")], "")


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize(
    ("rule", "stated_size", "millimetres", "words"),
    [
        ("exif", None, 24, "EXIF: 24 mm"),
        ("exif", (4032, 3024), None, "it was taken as 4032 x 3024 px"),
        ("estimate", None, None, "--focal_length exif takes it"),
    ],
)
def test_the_focal_length_of_the_file_is_used_or_the_reason_is_said(
    body, tmp_path, caplog, rule, stated_size, millimetres, words
):
    photo = photo_with_exif(tmp_path / "phone.jpg", 24, stated_size)
    run = make_demo(body, Finder(boxes={"phone.jpg": read_boxes(BOXES)["people.jpg"]}), tmp_path)
    run.focal_length = rule
    with caplog.at_level("INFO", logger="cliff_ms"):
        page = run.run([photo], "")
    diagonal = np.hypot(1280, 720)
    expected = diagonal * millimetres / np.hypot(36, 24) if millimetres else diagonal
    np.testing.assert_allclose(np.load(tmp_path / "phone_cliff.npz")["focal_l"], expected)
    assert words in caplog.text and words in page.read_text()


@pytest.mark.slow
def test_a_photo_and_nothing_else(tmp_path):
    """The skier, a black photo, and a file that is left out, all in one folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "skier.jpg").write_bytes((EXAMPLES / "000000000785.jpg").read_bytes())
    cv2.imwrite(str(tmp_path / "in" / "night.png"), np.zeros((300, 400, 3), np.uint8))
    (tmp_path / "in" / "IMG_1.HEIC").write_bytes(b"heic")
    done = verb("demo.py", tmp_path / "in", "--device_target", "CPU", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "1 of its files are left out" in done.stderr and "IMG_1.HEIC" in done.stderr
    assert "skier.jpg: 1 person, found by the bundled networks" in done.stderr
    assert "night.png: nobody, found by" in done.stderr and "focal length 500 px, estimated" in done.stderr
    nobody, found = (np.load(tmp_path / "out" / f"{name}_cliff.npz") for name in ("night", "skier"))
    assert nobody["pose"].shape == (0, 72) and found["pose"].shape == (1, 72)
    distance = np.linalg.norm(found["joints2d"][0][index_map(SMPL45, COCO17)] - SKIER, axis=1)
    assert np.median(distance) < 0.08 * 347  # of the height of her box
    page = (tmp_path / "out" / "index.html").read_text()
    assert "found by the bundled networks" in page and "Nobody here." in page


MISTAKES = {
    "no keypoints": ([PEOPLE, "--boxes", BOXES], "The bundled model reads 2D keypoints"),
    "two ways": ([PEOPLE, "--boxes", BOXES, "--detector", "whole-image"], "--detector finds the people itself"),
    "missing photo": (["gone.jpg", "--boxes", BOXES], "'gone.jpg' does not exist"),
    "missing boxes": ([PEOPLE, "--boxes", "gone.json"], "'gone.json' does not exist"),
    "missing body": ([PEOPLE, "--boxes", BOXES, "--body", "SMPL.pkl"], "https://smpl.is.tue.mpg.de"),
    "focal": ([PEOPLE, "--boxes", BOXES, "--focal_length", "inf"], "must be positive and finite, 'exif' or"),
    "device": ([PEOPLE, "--boxes", BOXES, "--device_target", "TPU"], "invalid choice: 'TPU'"),
    "output": ([PEOPLE, "--boxes", BOXES, "--output_dir", str(PEOPLE)], "Cannot write to the output folder"),
    "detector": ([PEOPLE, "--detector", "yolo"], "Detector 'yolo' is unknown"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_users_mistake_is_one_sentence_and_exit_code_2(arguments, message):
    done = verb("demo.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_published_weights_from_pytorch_to_people_and_back(tmp_path):
    torch = pytest.importorskip("torch")
    original, ckpt, back = tmp_path / "res50.pt", tmp_path / "res50.ckpt", tmp_path / "back.pt"
    state = {f"module.{k}": torch.tensor(v) for k, v in weights.state_dict("res50").items()}
    torch.save({"model": state}, original)
    assert "encoder res50" in verb("convert.py", "--to", "mindspore", original, ckpt).stdout

    (tmp_path / "in").mkdir()
    grey = cv2.cvtColor(read_image(PEOPLE), cv2.COLOR_RGB2GRAY)
    cv2.imwrite(str(tmp_path / "in" / "grey.png"), grey)
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"grey.png": json.loads(BOXES.read_text())["people.jpg"][:1]}))
    common = ["demo.py", tmp_path / "in", "--ckpt", ckpt, "--boxes", boxes, "--device_target", "CPU"]
    outputs = []
    for engine in ("mindspore", "onnxruntime"):
        done = verb(*common, "--engine", engine, "--output_dir", tmp_path / engine)
        assert done.returncode == 0, done.stderr
        assert "predict pose and shape of the body model 'smpl'" in done.stderr  # shown with the bundled body
        outputs.append(np.load(tmp_path / engine / "grey_cliff.npz"))
    for key in ("pose", "shape", "global_t", "pred_joints"):
        np.testing.assert_allclose(outputs[0][key], outputs[1][key], atol=1e-4)

    assert verb("convert.py", "--to", "torch", ckpt, back).returncode == 0
    returned = torch.load(back, weights_only=True)["model"]
    assert state.keys() == returned.keys()
    assert all(torch.equal(state[k], returned[k]) and state[k].dtype == returned[k].dtype for k in state)

    ckpt.write_bytes(ckpt.read_bytes()[:-100])
    done = verb(*common)
    assert done.returncode == 2 and "truncated" in done.stderr


@pytest.mark.slow
def test_keypoints_in_another_order_are_not_trusted(tmp_path):
    """Human3.6M's 17 joints have COCO's 51 numbers. The photo's name is no text."""
    name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xd5\xd5.jpg"))
    shutil.copyfile(PEOPLE, name)
    found = read_keypoints(EXAMPLES / "people_keypoints.json")[ANY_IMAGE]
    coco = convert_keypoints(found.keypoints, found.joint_set, "coco17")
    other_order = coco[:, [11, 12, 14, 16, 11, 13, 15, 5, 5, 0, 0, 5, 7, 9, 6, 8, 10]]
    for joints, trusted in ((coco, True), (other_order, False)):
        rows = [{"image_id": 1, "keypoints": each.ravel().tolist(), "file_name": name.name} for each in joints]
        keypoints = tmp_path / "keypoints.json"
        keypoints.write_text(json.dumps(rows))
        done = verb("demo.py", name, "--keypoints", keypoints, "--output_dir", tmp_path / "out")
        assert done.returncode == 0 and ("do not trust person 0 (" not in done.stderr) == trusted, done.stderr
        arrays = np.load(tmp_path / "out" / f"{name.stem}_cliff.npz")
        assert (arrays["error_2d"] > 0.1).all() != trusted and (arrays["error_2d"] < 0.03).all() == trusted

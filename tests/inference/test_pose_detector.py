"""The people detector, step by step against numbers worked out by hand, and on photos with published keypoints."""

import hashlib
import sys
import time
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from cliff_ms.data.detections import read_boxes, read_keypoints
from cliff_ms.inference import pose_detector
from cliff_ms.io.errors import InputError
from cliff_ms.io.images import read_image
from cliff_ms.keypoints import COCO17, convert_keypoints, flip_permutation

ZOO = Path(__file__).resolve().parents[2] / "model_zoo"
EXAMPLES = ZOO / "examples"
SKIER = EXAMPLES / "000000000785.jpg"
# COCO's annotation 442619 of this photo.
SKIER_JOINTS = [
    (367, 81), (374, 73), (360, 75), (386, 78), (356, 81), (399, 108), (358, 129), (433, 142), (341, 159), (449, 165),
    (309, 178), (424, 203), (393, 214), (429, 294), (367, 273), (466, 362), (396, 341),
]  # fmt: skip
SKIER_BOX = [280.79, 44.73, 280.79 + 218.7, 44.73 + 346.68]


@pytest.fixture(scope="module")
def detector():
    return pose_detector.PoseDetector()


def overlap(a, b):
    """Intersection over union of two boxes."""
    width, height = (max(0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_an_image_is_laid_into_the_top_left_corner():
    image = np.full((300, 600, 3), (200, 100, 50), np.uint8)
    canvas, scale = pose_detector.fit(image)
    assert scale.tolist() == [416 / 600, 208 / 300]
    assert (canvas[:208] == image[0, 0]).all()
    assert not canvas[208:].any()
    for (height, width), (new_h, new_w) in {(1, 1): (416, 416), (5000, 1): (416, 1), (1, 5000): (1, 416)}.items():
        canvas, scale = pose_detector.fit(np.full((height, width, 3), 255, np.uint8))
        assert scale.tolist() == [new_w / width, new_h / height]
        assert (canvas[:new_h, :new_w] == 255).all() and canvas.any(-1).sum() == new_h * new_w


def test_nanodet_reads_normalised_bgr():
    canvas = np.zeros((416, 416, 3), np.uint8)
    canvas[2, 5] = (255, 128, 1)  # red, green, blue
    got = pose_detector.nanodet_input(canvas)
    assert got.shape == (1, 3, 416, 416)
    assert got.dtype == np.float32
    np.testing.assert_allclose(
        got[0, :, 2, 5], [(1 - 103.53) / 57.375, (128 - 116.28) / 57.12, (255 - 123.675) / 58.395], rtol=1e-6
    )
    np.testing.assert_allclose(got[0, :, 0, 0], [-103.53 / 57.375, -116.28 / 57.12, -123.675 / 58.395], rtol=1e-6)


def nanodet_outputs(cells):
    """What NanoDet would answer: (n, x, y) -> (score, four rows of 11 logits)."""
    scores = {n: np.zeros((1, n * n, 80), np.float32) for n in (52, 26, 13)}
    logits = {n: np.zeros((1, n * n, 44), np.float32) for n in (52, 26, 13)}
    for (n, x, y), (score, rows) in cells.items():
        scores[n][0, y * n + x, 0] = score
        logits[n][0, y * n + x] = np.ravel(rows)
    return [*scores.values(), *logits.values()]


def certainly(distance):
    """Logits whose expectation is a distance in strides: all on one bin, or shared between two."""
    low, share = divmod(distance, 1)
    likelihood = np.full(11, 1e-20)
    likelihood[int(low)] += 1 - share
    if share:
        likelihood[int(low) + 1] += share
    return np.log(likelihood) + 3  # a softmax does not see the 3


def test_boxes_are_expected_distances_from_the_middle_of_their_cell():
    cells = {
        (52, 3, 5): (0.9, [certainly(k) for k in (1, 2, 3, 4)]),
        (26, 20, 1): (0.8, [certainly(k) for k in (2.5, 0, 9.25, 10)]),
        (13, 12, 12): (0.7, [certainly(k) for k in (0.5, 0.25, 0.5, 0.125)]),
    }
    boxes, scores = pose_detector.decode_boxes(nanodet_outputs(cells))
    assert boxes.shape == (52 * 52 + 26 * 26 + 13 * 13, 4)
    rows = np.flatnonzero(scores)
    np.testing.assert_allclose(scores[rows], [0.9, 0.8, 0.7], rtol=1e-6)
    expected = [
        (28 - 8, 44 - 16, 28 + 24, 44 + 32),  # cell (3, 5) of 8 px
        (328 - 40, 24, 328 + 148, 24 + 160),  # cell (20, 1) of 16 px
        (400 - 16, 400 - 8, 400 + 16, 400 + 4),  # cell (12, 12) of 32 px
    ]
    np.testing.assert_allclose(boxes[rows], expected, atol=1e-4)
    np.testing.assert_allclose(boxes[0], [4 - 40, 4 - 40, 4 + 40, 4 + 40], atol=1e-6)  # all bins alike: 5 strides


def test_boxes_are_selected_in_px_of_the_image():
    boxes = [
        (10, 10, 60, 110),
        (12, 10, 62, 110),
        (200, 50, 260, 500),
        (300, 20, 340, 90),
        (0, 240, 50, 300),
        (5, 5, 9, 9),
    ]
    scores = [0.5, 0.6, 0.9, 0.4, 0.8, 0.2]  # the first two overlap by 48 / 52, the fifth lies below the picture
    found, kept = pose_detector.select_boxes(
        np.array(boxes, float), np.array(scores), np.array([0.5, 0.25]), (800, 700)
    )
    assert found.tolist() == [[400, 200, 520, 800], [24, 40, 124, 440], [600, 80, 680, 360]]
    assert kept.tolist() == [0.9, 0.6, 0.4]


@pytest.mark.parametrize(
    "box", [(100, 60, 160, 190), (-20, 300, 900, 1400), (5.25, 7.5, 90.75, 60.0), (0, 0, 3000, 2000)]
)
def test_crops_and_back(box):
    """On ramps, the colour of a crop's px is its place in the image, whatever the image was shrunk by."""
    height, width = 2000, 3000
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = (np.arange(width) + 0.5) / width * 255 + 0.5
    image[..., 1] = ((np.arange(height) + 0.5) / height * 255 + 0.5)[:, None]
    crops, to_image = pose_detector.cut_squares(image, np.array([box], float))
    side = 1.05 * max(box[2] - box[0], box[3] - box[1])
    center = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    u, v = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    place = center + (np.stack([u, v], -1) / 256 - 0.5) * side
    margin = max(1, side / 256)
    inside = ((place > margin) & (place < np.array([width, height]) - margin)).all(-1)
    expected = place / [width, height] * 255
    assert np.abs(crops[0][..., :2] - expected)[inside].max() < 1.5
    beyond = ((place < -margin) | (place > np.array([width, height]) + margin)).any(-1)
    assert not crops[0][beyond].any()

    joints = np.random.default_rng(0).uniform(0, 1, (1, 17, 3))
    back = pose_detector.joints_to_image(joints, to_image)
    np.testing.assert_allclose(back[0, :, 0], center[0] + (joints[0, :, 1] - 0.5) * side, atol=1e-3)
    np.testing.assert_allclose(back[0, :, 1], center[1] + (joints[0, :, 0] - 0.5) * side, atol=1e-3)
    assert (back[..., 2] == joints[..., 2]).all()


def test_a_crop_of_a_panorama():
    """OpenCV refuses to warp images of more than 32767 px."""
    image = np.zeros((1000, 70000, 3), np.uint8)
    image[:, 40000:] = 255
    crops, to_image = pose_detector.cut_squares(image, np.array([[39900.0, 300, 40100, 600], [60000, 100, 60200, 300]]))
    assert (crops[0][:, :126] == 0).all() and (crops[0][:, 130:] == 255).all()
    assert (crops[1] == 255).all()
    np.testing.assert_allclose(to_image[0] @ [128, 128, 1], [40000, 450], atol=1e-9)


def with_confidence(*confidence):
    joints = np.random.default_rng(1).uniform(50, 60, (len(confidence), 17, 3))
    joints[..., 2] = confidence
    return joints


def test_who_is_a_person():
    sure = [0.8] * 17
    five = [0.99] * 5 + [0.2] * 12  # a face
    six = [0.9] * 6 + [0.1] * 11  # mean 0.38
    faint = [0.4] * 6 + [0.15] * 11  # mean 0.24
    got = pose_detector.person_confidence(with_confidence(sure, five, six, faint))
    np.testing.assert_allclose(got, [0.8, 0, 0.9, 0], atol=1e-12)


def test_unsure_joints_are_missing_and_all_others_certain():
    joints = pose_detector.certain(
        pose_detector.drop_unsure(with_confidence([0.2] * 4 + [0.201, 0.5, 0.99] + [0.1] * 10))
    )
    assert joints.dtype == np.float32
    assert joints[0, :, 2].tolist() == [0] * 4 + [1] * 3 + [0] * 10
    assert not joints[0, joints[0, :, 2] == 0].any()


def test_joints_at_the_border_are_missing():
    box = np.array([[0.0, 100, 300, 600]])  # 2 % of 500 px are 10
    joints = with_confidence([0.9] * 17)
    joints[0, :8, :2] = [(9.9, 300), (10.1, 300), (300, 9), (300, 11), (629, 300), (631, 300), (300, 691), (-5, 800)]
    seen = pose_detector.drop_at_border(joints, box, (700, 640))[0, :, 2] > 0
    assert seen.tolist() == [False, True, False, True, True, False, False, False] + [True] * 9


def test_a_person_is_found_only_once():
    rng = np.random.default_rng(2)
    person = np.concatenate([rng.uniform(100, 300, (17, 2)), np.full((17, 1), 0.9)], 1)
    again, half, neighbour = person.copy(), person.copy(), person.copy()
    again[:, :2] += 3
    half[7:] = 0  # the same as far as it is seen
    neighbour[:, 0] += 60
    boxes = np.array([[100.0, 100, 300, 300], [103, 103, 303, 303], [100, 100, 300, 200], [160, 100, 360, 300]])
    assert pose_detector.distinct_people(boxes, np.stack([person, again, half, neighbour])) == [0, 3]
    assert pose_detector.distinct_people(np.zeros((0, 4)), np.zeros((0, 17, 3))) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((480, 640, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8),
        np.full((1, 1, 3), 200, np.uint8),
        np.full((5000, 1, 3), 90, np.uint8),
        np.random.default_rng(1).integers(0, 256, (1, 5000, 3), np.uint8),
    ],
    ids=["black", "noise", "1x1", "tall", "wide"],
)
def test_nobody(detector, image):
    found = detector(image)
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.keypoints.shape == (0, 17, 3)
    assert found.joint_set == "coco17"


def test_skier_as_coco_publishes_her(detector):
    found = detector(read_image(SKIER))
    assert len(found.boxes) == 1
    assert overlap(found.boxes[0], SKIER_BOX) > 0.85
    assert (found.keypoints[0, :, 2] == 1).all()
    distance = np.linalg.norm(found.keypoints[0, :, :2] - SKIER_JOINTS, axis=1)
    assert np.median(distance) < 6
    assert (np.sort(distance)[:-1] < 13).all()  # all but the left elbow, which the jacket hides
    assert distance.argmax() == COCO17.index("left_elbow") and distance.max() < 30
    assert found.keypoints.dtype == np.float32
    assert found.boxes.dtype == found.scores.dtype == np.float64


def test_a_mirrored_photo_gives_mirrored_joints(detector):
    image = read_image(SKIER)
    joints, mirrored = (detector(picture).keypoints[0] for picture in (image, image[:, ::-1]))
    mirrored = mirrored[flip_permutation(COCO17)]
    difference = joints[:, 0] - (image.shape[1] - mirrored[:, 0])
    assert (np.sort(np.abs(difference))[:-1] < 3).all()  # all but the left wrist
    assert abs(np.median(difference)) < 0.75


def test_astronaut_without_legs(detector):
    found = detector(read_image(EXAMPLES / "astronaut.jpg"))
    assert len(found.boxes) == 1
    joints = dict(zip(COCO17, found.keypoints[0], strict=True))
    for name, place in {"nose": (223, 121), "left_eye": (246, 102), "right_eye": (203, 101)}.items():
        assert joints[name][2] == 1
        assert np.linalg.norm(joints[name][:2] - place) < 8, name
    assert joints["left_shoulder"][0] > 280 and joints["right_shoulder"][0] < 140
    assert not any(joints[f"{side}_{name}"].any() for side in ("left", "right") for name in ("knee", "ankle"))


def test_rendered_people_with_known_joints(detector):
    found = detector(read_image(EXAMPLES / "people.jpg"))
    truth = read_keypoints(EXAMPLES / "people_keypoints.json")
    (truth,) = truth.values()
    boxes = read_boxes(EXAMPLES / "people_boxes.json")["people.jpg"].boxes
    exact = convert_keypoints(truth.keypoints, truth.joint_set, "coco17")
    assert len(found.boxes) == 4
    assert (np.diff(found.scores) <= 0).all()
    for box, joints in zip(np.clip(boxes, 0, [1280, 720, 1280, 720]), exact, strict=True):
        (row,) = [k for k in range(4) if overlap(found.boxes[k], box) > 0.7]
        both = (joints[:, 2] > 0) & (found.keypoints[row, :, 2] > 0)
        assert both.sum() >= 10
        distance = np.linalg.norm(found.keypoints[row, :, :2] - joints[:, :2], axis=1)[both]
        assert np.median(distance) < 0.04 * (box[2:] - box[:2]).max()


def test_a_very_large_photo(detector):
    """The same people, in seconds, and without copies of the photo for each of them."""
    small = read_image(EXAMPLES / "people.jpg")
    large = cv2.resize(small, (8960, 5040), interpolation=cv2.INTER_CUBIC)
    expected = detector(small)
    tracemalloc.start()
    start = time.perf_counter()
    found = detector(large)
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 20
    assert peak < 2 * large.nbytes
    assert len(found.boxes) == len(expected.boxes)
    np.testing.assert_allclose(found.boxes / 7, expected.boxes, atol=12)
    both = (found.keypoints[..., 2] > 0) & (expected.keypoints[..., 2] > 0)
    assert both.sum() > 0.9 * both.size
    distance = np.linalg.norm(found.keypoints[..., :2] / 7 - expected.keypoints[..., :2], axis=-1)[both]
    assert np.median(distance) < 1.5


def test_networks_that_cannot_be_used(tmp_path, monkeypatch, capfd):
    for name in ("nanodet.onnx", "movenet-thunder.onnx"):
        (tmp_path / name).write_bytes((ZOO / "people" / name).read_bytes())
    whole = (tmp_path / "movenet-thunder.onnx").read_bytes()
    (tmp_path / "movenet-thunder.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"movenet-thunder.onnx' is damaged: get it from the repository") as damaged:
        pose_detector.PoseDetector(tmp_path)
    (tmp_path / "nanodet.onnx").unlink()
    with pytest.raises(InputError, match=r"nanodet.onnx' does not exist"):
        pose_detector.PoseDetector(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"takes the package onnxruntime.*--keypoints"):
        pose_detector.PoseDetector()
    assert "\n" not in str(damaged.value)
    assert capfd.readouterr().err == ""


def test_the_manifest_states_what_is_there():
    entries = yaml.safe_load((ZOO / "manifest.yaml").read_text())["people"]
    assert {Path(entry["file"]).name for entry in entries} == {path.name for path in (ZOO / "people").glob("*.onnx")}
    for entry in entries:
        assert hashlib.sha256((ZOO / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]

"""Boxes and keypoints from files: right people for the right image, and every slip named with file, image and row."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliff_ms.data import detections
from cliff_ms.data.detections import read_keypoints
from cliff_ms.io.errors import InputError


@pytest.fixture
def put(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return write


def person(count=17, x=100.0, y=50.0, seen=17, confidence=0.9):
    """Flat x, y, confidence list: the first `seen` joints on a diagonal from (x, y) with steps of (2, 5) px."""
    joints = np.zeros((count, 3))
    joints[:seen] = [(x + 2 * k, y + 5 * k, confidence) for k in range(seen)]
    return joints.ravel().tolist()


def openpose(*people):
    return {"version": 1.3, "people": [{"pose_keypoints_2d": p, "face_keypoints_2d": []} for p in people]}


def test_boxes_keep_the_order_of_the_people(put):
    path = put("boxes.json", {"b.png": [[10, 20, 30, 40], [1.5, 2, 3, 4.25]], "train\\a.jpg": [[0, 0, 5, 5]], "c": []})
    people = detections.read_boxes(path)
    assert list(people) == ["b.png", "train/a.jpg", "c"]
    assert people["b.png"].boxes.dtype == np.float64
    assert people["b.png"].boxes.tolist() == [[10, 20, 30, 40], [1.5, 2, 3, 4.25]]
    assert people["b.png"].scores.tolist() == [1, 1]
    assert people["b.png"].keypoints is None
    assert people["c"].boxes.shape == (0, 4)
    wide = detections.read_boxes(path, "xywh")
    assert wide["b.png"].boxes.tolist() == [[10, 20, 40, 60], [1.5, 2, 4.5, 6.25]]


@pytest.mark.parametrize("key", ["boxes", "bbox"])
def test_boxes_of_npz_group_the_rows_of_an_image(tmp_path, key):
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4) * [1, 1, 2, 2] + 1
    np.savez(tmp_path / "b.npz", imgname=np.array(["x/a.jpg", "b.jpg", "x/a.jpg"]), **{key: boxes})
    people = detections.read_boxes(tmp_path / "b.npz")
    assert people["x/a.jpg"].boxes.tolist() == boxes[[0, 2]].tolist()
    assert people["b.jpg"].boxes.tolist() == boxes[[1]].tolist()


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a.png": [[1, 2, 3, 4]], "a.png": []}', "holds the key 'a.png' twice"),
        ('{"a.png": [[1, 2, 3, 4]], "./a.png": []}', "holds image 'a.png' twice"),
        ('{"a.png": [[1, 2, 30, 40], [1, 2, 3]]}', r"image 'a.png', row 1: expected four finite numbers \[x1"),
        ('{"a.png": [[1, 2, NaN, 4]]}', "image 'a.png', row 0: expected four finite numbers"),
        ('{"a.png": [[1, 2, 1e999, 4]]}', "row 0: expected four finite numbers"),
        ('{"a.png": [["1", 2, 3, 4]]}', "row 0: expected four finite numbers"),
        ('{"a.png": [[true, 2, 3, 4]]}', "row 0: expected four finite numbers"),
        ('{"a.png": [1, 2, 3, 4]}', "row 0: expected four finite numbers"),
        ('{"a.png": [[50, 60, 50, 90]]}', "row 0: .* has no area; .*or are they x, y, width, height"),
        ('{"a.png": [[0.1, 0.2, 0.8, 0.9]]}', "row 0: .* looks like fractions of the image; boxes are in px"),
        ('{"a.png": {"x1": 3}}', "image 'a.png': expected a list of boxes"),
        ("[[1, 2, 3, 4]]", "holds no object: expected"),
        ('{"a.png": [[1, 2, 3, 4],]}', "is not JSON: .* at line 1, column"),
        ("", "is empty"),
    ],
)
def test_bad_boxes_are_named(put, text, message):
    with pytest.raises(InputError, match=r"boxes\.json'.*" + message) as caught:
        detections.read_boxes(put("boxes.json", text))
    assert "\n" not in str(caught.value)


def test_bad_npz_is_named(tmp_path):
    for name, arrays, message in [
        ("keys.npz", {"imgname": ["a"], "center": [[1, 2]]}, r"keys \['center', 'imgname'\]: expected"),
        ("rows.npz", {"imgname": ["a", "b"], "boxes": [[1, 2, 3, 4]]}, "'imgname' has 2 rows"),
        ("object.npz", {"imgname": np.array(["a"], object), "boxes": [[1, 2, 3, 4]]}, "damaged or not an npz"),
        ("row.npz", {"imgname": ["a", "a"], "boxes": [[1, 2, 3, 4], [9, 9, 3, 4.0]]}, "image 'a', row 1: .* no area"),
    ]:
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(InputError, match=f"{name}'.*{message}"):
            detections.read_boxes(tmp_path / name)
    (tmp_path / "text.npz").write_text("not a zip file")
    with pytest.raises(InputError, match="damaged or not an npz"):
        detections.read_boxes(tmp_path / "text.npz")


def test_the_most_specific_entry_names_the_image():
    keys = ["a.jpg", "x/a.jpg", "y/x/a.jpg", "000000044474", "b", "/data/z/c.png"]
    people = {key: key for key in keys}
    for path, key in [
        ("a.jpg", "a.jpg"),
        ("/w/x/a.jpg", "x/a.jpg"),
        ("/w/y/x/a.jpg", "y/x/a.jpg"),
        ("/w/z/a.jpg", "a.jpg"),
        ("b.jpeg", "b"),
        ("train/COCO_train2014_000000044474.jpg", "000000044474"),
        ("val2017/000000044474.jpg", "000000044474"),
        ("/data/z/c.png", "/data/z/c.png"),
    ]:
        assert detections.for_image(people, path, "boxes.json") == key
    for path in ["A.jpg", "xa.jpg", "/other/z/c.png", "b_1.jpg", "1000000044474.jpg"]:
        with pytest.raises(
            InputError, match=rf"'boxes.json' has no entry for image '{path}'.*\('a.jpg', 'x/a.jpg', 'y/x"
        ):
            detections.for_image(people, path, "boxes.json")


def test_only_boxes_wholly_outside_are_refused():
    inside = np.array([[-50, -50, 1, 1], [639, 479, 900, 900], [-9, -9, 999, 999]])
    detections.check_boxes_in_image(inside, (480, 640), "a.png")
    for box in ([-50, 0, 0, 10], [0, -50, 10, 0], [640, 0, 700, 10], [0, 480, 10, 500]):
        with pytest.raises(
            InputError, match="a.png, row 1: the box .* lies outside the image, which is 640 px wide and"
        ):
            detections.check_boxes_in_image(np.array([[0, 0, 9, 9], box]), (480, 640), "a.png")


coordinates = st.floats(-500, 500, width=32)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=6, max_size=17))
def test_box_is_the_tight_one_enlarged_about_its_centre(points):
    joints = np.zeros((17, 3))
    joints[: len(points), :2] = points
    joints[: len(points), 2] = 0.5
    joints[len(points) :] = (9000, 9000, 0.2)  # not above the threshold
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    if (high - low).min() <= 0 or (high - low).max() <= 2:
        with pytest.raises(InputError, match="a.jpg, row 0: the joints span .*keypoint_scale"):
            detections.boxes_from_keypoints(joints[None], "a.jpg")
        return
    box = detections.boxes_from_keypoints(joints[None], "a.jpg")[0]
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, (low + high) / 2, atol=1e-9)
    np.testing.assert_allclose(box[2:] - box[:2], (high - low) * 1.2 / 1.1, rtol=1e-9, atol=1e-9)


def test_a_face_is_not_a_person():
    joints = np.array(person(seen=5)).reshape(1, 17, 3)
    with pytest.raises(InputError, match="a.jpg, row 0: 5 joints have a confidence above 0.2, at least 6"):
        detections.boxes_from_keypoints(joints, "a.jpg")


def enlarged(x1, y1, x2, y2):
    """The box that, enlarged by 1.1 for the crop, is 1.2 times this extent of the joints."""
    box = np.array([x1, y1, x2, y2], float)
    center = (box[:2] + box[2:]) / 2
    return np.tile(center, 2) + (box - np.tile(center, 2)) * 1.2 / 1.1


def test_openpose_of_one_image(put, caplog):
    with caplog.at_level(logging.WARNING, "cliff_ms"):
        people = read_keypoints(put("any.json", openpose(person(25, seen=4), person(25, seen=11), person(25, y=300.0))))
    found = detections.for_image(people, "whatever.png", "any.json")
    assert found.joint_set == "openpose25"
    assert found.keypoints.shape == (2, 25, 3)
    assert found.keypoints.dtype == np.float32
    assert not found.keypoints[0, 11:].any()
    np.testing.assert_allclose(found.boxes[0], enlarged(100, 50, 120, 100))
    np.testing.assert_allclose(found.scores, 0.9, atol=1e-6)
    assert "people left out for fewer than 6 joints with a confidence above 0.2: 1 (" in caplog.text
    assert "any.json', row 0" in caplog.text
    assert detections.for_image(read_keypoints(put("nobody.json", openpose())), "a.png", "x").boxes.shape == (0, 4)


def test_openpose_folder(put, tmp_path):
    for name, y in [("a_keypoints", 10.0), ("b", 20.0), ("c_openpose", 30.0), ("d.x_keypoints", 40.0)]:
        put(f"op/{name}.json", openpose(person(25, y=y)))
    people = read_keypoints(tmp_path / "op")
    assert {key: found.keypoints[0, 0, 1] for key, found in people.items()} == {"a": 10, "b": 20, "c": 30, "d.x": 40}
    put("op/a.json", openpose())
    with pytest.raises(InputError, match="a_keypoints.json' is a second file for image 'a'"):
        read_keypoints(tmp_path / "op")
    put("mixed/list.json", [])
    with pytest.raises(InputError, match="list.json' has no 'people'"):
        read_keypoints(tmp_path / "mixed")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none' holds no image"):
        read_keypoints(tmp_path / "none")


def test_coco_results(put):
    rows = [
        {"image_id": 44474, "category_id": 1, "keypoints": person(), "score": 2.5},
        {"image_id": "photo.jpg", "keypoints": person(y=7.0)},
        {"file_name": "train/a.jpg", "image_id": 3, "keypoints": person(confidence=2)},
        {"image_id": 44474, "category_id": 1, "keypoints": person(y=80.0), "score": 0.5},
    ]
    people = read_keypoints(put("results.json", rows))
    assert list(people) == ["000000044474", "photo.jpg", "train/a.jpg"]
    coco = people["000000044474"]
    assert coco.joint_set == "coco17"
    assert coco.scores.tolist() == [2.5, 0.5]
    assert coco.keypoints[:, 0, 1].tolist() == [50, 80]
    assert people["train/a.jpg"].keypoints[0, :, 2].tolist() == [1] * 17
    np.testing.assert_allclose(people["photo.jpg"].boxes[0], enlarged(100, 7, 132, 87))


def test_coco_annotations(put, caplog):
    data = {
        "images": [{"id": 9, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "keypoints": person(confidence=2), "iscrowd": 0, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 7, "keypoints": person(confidence=1), "iscrowd": 1},
            {"id": 3, "image_id": 7, "keypoints": [0] * 51, "num_keypoints": 0},
            {"id": 4, "image_id": 7, "keypoints": person(y=90.0, confidence=1)},
        ],
    }
    people = read_keypoints(put("person_keypoints.json", data))
    assert people["a.jpg"].boxes.shape == (0, 4)
    assert people["b.jpg"].keypoints[:, 0].tolist() == [[100, 50, 1], [100, 90, 1]]
    assert people["b.jpg"].scores.tolist() == [1, 1]
    data["annotations"][3]["image_id"] = 8
    del data["annotations"][2]["keypoints"]  # as of a chair
    people = read_keypoints(put("person_keypoints.json", data))
    assert people["b.jpg"].keypoints[:, 0].tolist() == [[100, 50, 1]]
    assert "1 left out: of an image that the file does not list (the first: annotations row 3)" in caplog.text
    assert "1 left out: without keypoints (the first: annotations row 2)" in caplog.text


@pytest.mark.parametrize(
    "data, message",
    [
        ({"boxes": []}, "is of no known kind: expected OpenPose"),
        ({"images": [], "annotations": None}, "is of no known kind"),
        ([], "holds no image"),
        (openpose(person(18)), "row 0: expected 75 keypoint numbers .*got 54. 54 are those of the 18-joint COCO model"),
        (openpose(person(25), "text"), "row 1: expected 75 keypoint numbers"),
        (openpose(person(25, x=float("nan"))), "row 0: the keypoints must be finite"),
        (openpose(person(25, confidence=-1)), "row 0: the keypoints must be finite numbers with confidences of 0 or"),
        (openpose([v / 1000 for v in person(25, confidence=900)]), "row 0: the joints span .*keypoints are in px"),
        ({"people": [{}]}, "row 0 has no 'pose_keypoints_2d'"),
        ({"people": {}}, "'people' must be a list"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], "row 0 has no 'keypoints'"),
        ([{"keypoints": person()}], "row 0 has no 'image_id'"),
        ([{"keypoints": person(), "image_id": 1.5}], "row 0: an image is named by a string or an integer"),
        ([{"keypoints": person(), "image_id": 1, "score": "high"}], "row 0: 'score' must be a finite number"),
        ("{", "is not JSON"),
    ],
)
def test_bad_keypoints_are_named(put, data, message):
    with pytest.raises(InputError, match=r"people\.json'.*" + message) as caught:
        read_keypoints(put("people.json", data))
    assert "\n" not in str(caught.value)


def test_pairing_by_row(put):
    keypoints = read_keypoints(put("k.json", openpose(person(25), person(25, x=400.0))))[detections.ANY_IMAGE]
    boxes = detections.read_boxes(put("b.json", {"a": [[90, 40, 160, 180], [390, 40, 460, 180]]}))["a"]
    both = detections.pair(boxes, keypoints, "a.jpg")
    assert both.boxes is boxes.boxes
    assert both.keypoints is keypoints.keypoints
    assert both.joint_set == "openpose25"
    swapped = detections.Detections(boxes.boxes[::-1], boxes.scores)
    with pytest.raises(InputError, match="a.jpg, row 0: no visible joint lies in the box .*same order"):
        detections.pair(swapped, keypoints, "a.jpg")
    with pytest.raises(InputError, match="a.jpg: boxes: 1, people with 6 or more visible joints: 2;"):
        detections.pair(detections.Detections(boxes.boxes[:1], boxes.scores[:1]), keypoints, "a.jpg")


def in_a_row(x, **more):
    """A COCO result of a person at x px."""
    joints = [[x + 10 * (k % 3), 10 * k, 1] for k in range(17)]
    return {"keypoints": np.ravel(joints).tolist(), "score": 1, **more}


@pytest.mark.parametrize("numbers", [{"track_id": 4}, {"idx": [4.0]}, {"person_id": [4]}])
def test_numbers_of_people_are_read_and_stay_with_their_rows(tmp_path, numbers):
    few = {**in_a_row(0, image_id="a.jpg", track_id=9), "keypoints": [5, 5, 1] * 5 + [0, 0, 0] * 12}
    rows = [few, in_a_row(100, image_id="a.jpg", **numbers), in_a_row(200, image_id="a.jpg", person_id=[-1])]
    (tmp_path / "k.json").write_text(json.dumps(rows))
    people = detections.read_keypoints(tmp_path / "k.json")["a.jpg"]
    assert people.ids.tolist() == [4, -1] and people.take(np.array([1])).ids.tolist() == [-1]


def test_numbers_that_two_people_of_an_image_share_are_not_used(tmp_path, caplog):
    rows = [in_a_row(100 * k, image_id="a.jpg", idx=1) for k in range(2)] + [in_a_row(0, image_id="b.jpg", idx=1)]
    (tmp_path / "k.json").write_text(json.dumps(rows))
    people = detections.read_keypoints(tmp_path / "k.json")
    assert people["a.jpg"].ids is None and people["b.jpg"].ids is None and "the same number" in caplog.text


@pytest.mark.parametrize("name", ["{}.jpg", "{:012d}", "clip_{:012d}", "clip_{:04d}.png", "frames/clip_{}.jpg"])
def test_frames_are_found_by_number_and_nobody_is_in_those_the_file_lacks(tmp_path, name):
    rows = [in_a_row(100 * k, image_id=name.format(k)) for k in (0, 3)]
    (tmp_path / "k.json").write_text(json.dumps(rows))
    people = detections.for_frames(detections.read_keypoints(tmp_path / "k.json"), "videos/clip.mp4", "k.json")
    assert [len(people(frame).boxes) for frame in range(5)] == [1, 0, 0, 1, 0]
    assert people(1).keypoints.shape == (0, 17, 3) and people(3).boxes[0, 0] > 200


def test_a_file_for_other_videos_is_refused_and_one_for_the_whole_video_holds_for_all_frames():
    (people,) = {"a": detections.Detections(np.array([[0.0, 0, 9, 9]]), np.ones(1))}.values()
    assert detections.for_frames({"clip.mp4": people}, "clip.mp4", "b.json")(17) is people
    with pytest.raises(InputError, match="no entry for image 'clip.mp4'"):
        detections.for_frames({"other_000000000001": people}, "clip.mp4", "b.json")

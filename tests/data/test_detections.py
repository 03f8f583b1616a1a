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
from cliff_ms.keypoints import COCO17, OPENPOSE18, OPENPOSE25


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


def by_name(names, x=100.0):
    """Flat x, y, confidence list in which a joint's place tells its name, in any order of joints."""
    places = {name: (x + 3 * k, 20 + 7 * (k % 5) + k, 0.9) for k, name in enumerate(sorted({*COCO17, *OPENPOSE25}))}
    return np.ravel([places[name] for name in names]).tolist()


def rows_of_mmpose(*people):
    """What mmpose's inferencer writes of an image, of flat lists."""
    joints = [np.reshape(person, (-1, 3)) for person in people]
    return [
        {"keypoints": j[:, :2].tolist(), "keypoint_scores": j[:, 2].tolist(), "bbox": [[0, 0, 9, 9]], "bbox_score": 0.5}
        for j in joints
    ]


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


@pytest.mark.parametrize("name", ["b.json", "b.npz"])
def test_a_fifth_number_is_the_score(put, tmp_path, name):
    rows = [[10, 20, 30, 40, 0.25], [1, 2, 3, 4, 1]]
    path = put(name, {"a": rows})
    if name.endswith("npz"):
        np.savez(path, imgname=["a", "a"], boxes=rows)
    people = detections.read_boxes(path, "xywh")["a"]
    assert people.boxes.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6]] and people.scores.tolist() == [0.25, 1]


def test_coco_detections_are_corner_and_size_and_other_categories_are_left_out(put, caplog):
    box = {"bbox": [10, 20, 30, 40], "category_id": 1}
    rows = [
        {"image_id": 44474, "score": 0.5, **box},
        {"image_id": "b.jpg", **box, "category_id": 62, "bbox": None},
        {"file_name": "./c.jpg", "image_id": 3, "bbox": [1, 2, 3.5, 4]},
        {"image_id": 44474, **box, "category_id": 2},
    ]
    people = detections.read_boxes(put("det.json", rows))
    assert {name: found.boxes.tolist() for name, found in people.items()} == {
        "000000044474": [[10, 20, 40, 60]], "b.jpg": [], "c.jpg": [[1, 2, 4.5, 6]]
    }  # fmt: skip
    assert people["000000044474"].scores.tolist() == [0.5] and people["c.jpg"].scores.tolist() == [1]
    assert "2 boxes of other categories than 1, person, left out (the first: row 1, category_id 62)" in caplog.text
    assert detections.for_image(people, "photos/44474.jpg", "det.json") is people["000000044474"]
    for more, message in [
        (
            {"bbox": [1, 2, 3]},
            r"four finite numbers \[x, y, width, height\] in px, and at most a score, got \[1, 2, 3\]",
        ),
        ({"bbox": [0.1, 0.2, 0.5, 0.8]}, "looks like fractions of the image"),
        ({"bbox": [10, 20, -5, 40]}, r"has no area; expected \[x, y, width, height\]"),
        ({"score": "0.5"}, "'score' must be a finite number"),
        ({"category_id": 0}, "'category_id' is 0, but COCO's count from 1"),
    ]:
        with pytest.raises(InputError, match=r"bad.json', row 1\b.*" + message):
            detections.read_boxes(put("bad.json", [rows[0], rows[0] | more]))
    for row, message in [
        ({"image_id": 1, "keypoints": person()}, "has 'keypoints' and no 'bbox': give .* with --keypoints"),
        ({"bbox": [1, 2, 3, 4]}, "has no 'image_id'"),
    ]:
        with pytest.raises(InputError, match="bad.json', row 0 " + message):
            detections.read_boxes(put("bad.json", [row]))


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
        ('{"a.png": [[1, 2, 30, 40]], "b.png": [[0.034, 0.27, 0.21, 1.0003]]}', "'b.png', row 0: .* looks like frac"),
        ('{"a.png": [[1, 2, 30, 40, 5]]}', "row 0: the fifth number of .* is none of a score in 0-1"),
        ('{"a.png": [[[1, 2, 30, 40]]]}', "row 0: expected four finite numbers"),
        ('{"images": [], "annotations": []}', "is of no known kind: expected"),
        ('{"a.png": {"x1": 3}}', "image 'a.png': expected a list of boxes"),
        ("[[1, 2, 3, 4]]", "is of no known kind: expected .*photo.png.* or COCO's detection results"),
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
    put("mixed/list.json", [{"image_id": "a.jpg", "keypoints": person()}])
    with pytest.raises(InputError, match="list.json' is not that of one image"):
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
        (openpose(person(15, seen=9)), "row 0: expected the joints of COCO .*got 45 numbers. 45 are those of the 15-"),
        (openpose(person(25), "text"), "row 1: expected the joints of COCO .* or OpenPose .*got 'text'"),
        (openpose(person(25, x=float("nan"))), "row 0: the keypoints must be finite"),
        (openpose(person(25, confidence=-1)), "row 0: the keypoints must be finite numbers with confidences of 0 or"),
        (openpose([v / 1000 for v in person(25, confidence=900)]), "row 0: the joints span .*keypoints are in px"),
        ({"people": [{}]}, "row 0 has no 'pose_keypoints_2d'"),
        ({"people": {}}, "'people' must be a list"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], "row 0 has a 'bbox' and no 'keypoints': give .*with --boxes"),
        ([{"keypoints": person()}], "row 0 has no 'image_id'"),
        ([{"keypoints": person(18), "image_id": 1}], "row 0: expected the joints of COCO .* got 54 numbers"),
        ([{"keypoints": [[1, 2]] * 17, "image_id": 1}], r"as x, y, confidence, got 17 lists such as \[1, 2\]"),
        ([{"keypoints": [[1, 2, 3]] * 17, "keypoint_scores": [1] * 17}], "as many 'keypoint_scores', got 17 lists"),
        ([{"keypoints": [[1, 2]] * 17, "keypoint_scores": [1] * 16}], "as many 'keypoint_scores', got 17 lists"),
        ([rows_of_mmpose(person())], "is of no known kind"),
        ([{"frame_id": 0, "instances": []}] * 2, "row 1: 'frame_id' must be a whole number that no other row has"),
        ([{"frame_id": 0, "instances": [{"keypoints": 3}]}], "row 0, instance 0: expected the joints of COCO"),
        ({"instance_info": [], "meta_info": {"keypoint_id2name": {"0": "root"}}}, "its joints are root, None, "),
        (openpose(person(25, confidence=98)), "row 0: a joint has the confidence 98; confidences are shares"),
        ([{"keypoints": person(), "image_id": 1, "score": float("nan")}], "row 0: 'score' must be a finite number"),
        (
            [{"keypoints": person(), "image_id": 1, "track_id": float("inf")}],
            "row 0: 'track_id' must be a whole number",
        ),
        ([{"keypoints": person(), "image_id": 1.5}], "row 0: an image is named by a string or an integer"),
        ([{"keypoints": person(), "image_id": 1, "score": "high"}], "row 0: 'score' must be a finite number"),
        ("{", "is not JSON"),
    ],
)
def test_bad_keypoints_are_named(put, data, message):
    with pytest.raises(InputError, match=r"people\.json'.*" + message) as caught:
        read_keypoints(put("people.json", data))
    assert "\n" not in str(caught.value)


COCO_AT_A = np.reshape(by_name(COCO17), (17, 3)).astype(np.float32)


@pytest.mark.parametrize("more", [9, 116, 119])
def test_of_sets_that_begin_like_coco_the_first_17_are_taken_and_that_is_said_once(put, caplog, more):
    row = {"image_id": "a.jpg", "keypoints": by_name(COCO17) + person(more, seen=9)}
    people = read_keypoints(put("k.json", [row, row | {"keypoints": by_name(COCO17, x=300)}, row]))["a.jpg"]
    assert people.joint_set == "coco17" and people.keypoints[0].tolist() == COCO_AT_A.tolist()
    assert (
        caplog.text.count(f"of {'Halpe' if more != 116 else 'COCO-WholeBody'}'s {17 + more} joints the first 17") == 1
    )


def test_openposes_coco_model_is_converted_by_name(put, tmp_path, caplog):
    people = read_keypoints(put("k.json", openpose(by_name(OPENPOSE18))))[detections.ANY_IMAGE]
    assert people.joint_set == "coco17" and people.keypoints[0].tolist() == COCO_AT_A.tolist()
    assert "all but the neck are taken" in caplog.text
    put("mixed/a.json", openpose(by_name(OPENPOSE18), []))
    put("mixed/b.json", openpose([], by_name(OPENPOSE25)))
    for found in read_keypoints(tmp_path / "mixed").values():
        assert found.joint_set == "coco17" and found.keypoints.tolist() == [COCO_AT_A.tolist()]


def test_other_formats_of_alphapose(put):
    one = {"bodies": [{"joints": by_name(OPENPOSE18)}]}
    assert read_keypoints(put("cmu.json", one))[detections.ANY_IMAGE].keypoints[0].tolist() == COCO_AT_A.tolist()
    people = read_keypoints(put("all.json", {"0.jpg": one, "./1.jpg": openpose(by_name(COCO17), by_name(COCO17, 300))}))
    assert {name: len(found.boxes) for name, found in people.items()} == {"0.jpg": 1, "1.jpg": 2}


@pytest.mark.parametrize("wrapped", [False, True])
def test_mmpose_of_an_image_and_of_a_video(put, tmp_path, wrapped):
    def write(name, rows):
        names = {"keypoint_id2name": {str(k): joint for k, joint in enumerate(COCO17)}}
        return put(name, {"meta_info": names, "instance_info": rows} if wrapped else rows)

    one = read_keypoints(write("a.json", rows_of_mmpose(by_name(COCO17))))[detections.ANY_IMAGE]
    assert (
        one.joint_set == "coco17" and one.keypoints[0].tolist() == COCO_AT_A.tolist() and one.scores.tolist() == [0.5]
    )
    old = [{"keypoints": np.reshape(by_name(COCO17), (17, 3)).tolist(), "image_id": 5}]
    assert read_keypoints(put("old.json", old))["000000000005"].keypoints[0].tolist() == COCO_AT_A.tolist()
    write("folder/a.json", rows_of_mmpose(by_name(COCO17)))
    write("folder/nobody.json", [])
    assert {name: len(found.boxes) for name, found in read_keypoints(tmp_path / "folder").items()} == {
        "a": 1,
        "nobody": 0,
    }
    for first in (0, 1):  # the inferencer counts from 0, the demo scripts of mmpose from 1
        frames = [{"frame_id": first + k, "instances": rows_of_mmpose(by_name(COCO17)) * (k != 1)} for k in range(3)]
        people = detections.for_frames(read_keypoints(write("clip.json", frames)), "clip.mp4", "clip.json")
        assert [len(people(frame).boxes) for frame in range(4)] == [1, 0, 1, 0]


def test_an_empty_list_of_results_means_nobody_in_any_image(put):
    for people in (read_keypoints(put("none.json", [])), detections.read_boxes(put("none.json", []))):
        assert detections.for_image(people, "a.jpg", "none.json").boxes.shape == (0, 4)
        assert detections.for_frames(people, "clip.mp4", "none.json")(7).boxes.shape == (0, 4)


def test_people_of_an_image_of_another_size_are_refused(put):
    annotation = {"image_id": 1, "keypoints": by_name(COCO17)}
    coco = {"images": [{"id": 1, "file_name": "a", "width": 640, "height": 360}], "annotations": [annotation]}
    for data in (coco, {"a": openpose(by_name(OPENPOSE18)) | {"canvas_width": 640, "canvas_height": 360}}):
        people = read_keypoints(put("k.json", data))["a"]
        both = detections.pair(detections.Detections(people.boxes, people.scores), people, "a.jpg")
        for found in (people, people.take(np.array([0])), both):
            detections.check_stated_size(found, (360, 641), "a.jpg")
            with pytest.raises(InputError, match="a.jpg is 1280 px wide and 720 px high, .* says 640 and 360: give"):
                detections.check_stated_size(found, (720, 1280), "a.jpg")


def test_people_that_are_there_twice_are_named(put, caplog):
    rows = [{"image_id": "a.jpg", "keypoints": by_name(COCO17)}] * 2
    assert len(read_keypoints(put("k.json", rows))["a.jpg"].boxes) == 2
    assert (
        len(detections.read_boxes(put("b.json", {"b.jpg": [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4]]}))["b.jpg"].boxes)
        == 3
    )
    for where in ("image 'a.jpg', row 1", "image 'b.jpg', row 2"):
        assert f"people that are there twice: 1 (the first: {where})" in caplog.text


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

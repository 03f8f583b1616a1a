"""Batches: the same whatever the workers, ranks and restarts; the authors' mixing; bad images and files."""

import threading
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest

from cliff_ms.config import AugmentConfig, Config, DataConfig, ModelConfig, SourceConfig, TrainConfig
from cliff_ms.data.annotation_files import load_annotations
from cliff_ms.data.batching import Batch
from cliff_ms.data.crop import crop_affine, crop_rounded, normalize_image, normalize_keypoints
from cliff_ms.data.dataset import EvalDataset, TrainDataset
from cliff_ms.data.loader import load_batches
from cliff_ms.data.source import Source
from cliff_ms.io.errors import InputError
from cliff_ms.io.images import read_image
from cliff_ms.keypoints import SPIN24

HW = (90, 120)
MODEL = ModelConfig(crop_hw=(64, 48))
KEYPOINTS = ModelConfig(encoder="keypoints")
STILL = AugmentConfig(flip=0, rotation_prob=0, scale=0, noise=0)


def make_source(folder, name, count, first, **changes):
    """Pictures and annotations of `count` people; 100 betas[0] is a number of its own for each, from `first`."""
    rng = np.random.default_rng(first)
    (folder / name).mkdir()
    for k in range(count):
        small = rng.integers(0, 256, (9, 12, 3), np.uint8)
        cv2.imwrite(str(folder / name / f"{k}.jpg"), cv2.resize(small, HW[::-1]), [cv2.IMWRITE_JPEG_QUALITY, 97])
    arrays = {
        "imgname": np.array([f"{k}.jpg" for k in range(count)]),
        "center": rng.uniform([40, 30], [80, 60], (count, 2)),
        "scale": rng.uniform(0.3, 0.8, count),
        "part": np.concatenate([rng.uniform(0, 90, (count, 24, 2)), np.ones((count, 24, 1))], -1),
        "S": np.concatenate([rng.normal(0, 0.3, (count, 24, 3)), np.ones((count, 24, 1))], -1),
        "pose": rng.normal(0, 0.3, (count, 72)),
        "shape": np.column_stack([np.arange(first, first + count) / 100, np.zeros((count, 9))]),
        "input_keypoints": np.concatenate([rng.uniform(0, 90, (count, 17, 2)), np.ones((count, 17, 1))], -1),
        "input_joint_set": "coco17",
        "img_hw": np.tile(HW, (count, 1)),
    }
    arrays.update(changes)
    path = folder / f"{name}.npz"
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return SourceConfig(str(path), str(folder / name))


def make_config(sources, batch_size=4, model=MODEL, augment=None, **data):
    augment = AugmentConfig(occlusion=0.5, crop=0.3) if augment is None else augment
    data = DataConfig(train=tuple(sources), batch_size=batch_size, **data)
    return Config(model, data, augment, train=TrainConfig(seed=3))


def open_eval(source, batch_size, model=MODEL, **options):
    return EvalDataset(Source(source, model, "data.val.image_dir"), batch_size, **options)


def mixed(a, b, share=0.6):
    return replace(a, weight=share), replace(b, weight=1 - share)


def assert_same(first, second):
    for name, x, y in zip(Batch._fields, first, second, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


def people(batches):
    return np.rint(100 * np.concatenate([batch.betas[:, 0] for batch in batches])).astype(int)


def test_batches_do_not_depend_on_workers_nor_on_the_start(tmp_path):
    config = make_config(mixed(make_source(tmp_path, "a", 7, 0), make_source(tmp_path, "b", 5, 100)))
    plain = list(islice(load_batches(TrainDataset(config).batch, 0), 6))
    assert [array.shape for array in plain[0]] == [
        *((4, 3, 64, 48), (4, 2), (4,), (4, 2), (4,), (4, 24, 3), (4, 24, 4), (4, 24, 3, 3), (4, 10), (4,))
    ]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in plain[0])
    for workers in (1, 2, 4):
        for one, other in zip(plain, islice(load_batches(TrainDataset(config).batch, workers), 6), strict=True):
            assert_same(one, other)
    for one, other in zip(plain[3:], islice(load_batches(TrainDataset(config).batch, 2, start=3), 3), strict=True):
        assert_same(one, other)
    other_seed = replace(config, train=TrainConfig(seed=4))
    assert (TrainDataset(other_seed).batch(0).inputs != plain[0].inputs).any()


def test_ranks_share_the_batch_of_one(tmp_path):
    config = make_config([make_source(tmp_path, "a", 7, 0)])
    halves = [TrainDataset(replace(config, data=replace(config.data, batch_size=2)), rank, 2) for rank in (0, 1)]
    for index in range(4):
        parts = [half.batch(index) for half in halves]
        assert_same(TrainDataset(config).batch(index), [np.concatenate(pair) for pair in zip(*parts, strict=True)])


def test_every_epoch_holds_every_sample_once(tmp_path):
    dataset = TrainDataset(make_config([make_source(tmp_path, "a", 7, 0)], batch_size=3))
    epochs = people([dataset.batch(k) for k in range(14)]).reshape(6, 7)
    assert dataset.epoch_length == 7
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(7), (6, 1)))
    assert len(np.unique(epochs, axis=0)) == 6
    alone = TrainDataset(make_config([make_source(tmp_path, "b", 1, 0)], batch_size=1))
    assert (alone.batch(0).inputs != alone.batch(1).inputs).any()  # augmented anew in each epoch


def test_sources_are_mixed_by_their_share(tmp_path):
    many = make_source(tmp_path, "a", 300, 0, input_keypoints=np.ones((300, 17, 3)))
    few = make_source(tmp_path, "b", 20, 1000, input_keypoints=np.ones((20, 17, 3)))
    dataset = TrainDataset(make_config(mixed(many, few, 0.3), batch_size=300, model=KEYPOINTS))
    assert dataset.epoch_length == 300
    drawn = [people([dataset.batch(k)]) for k in range(5)]
    assert abs(np.mean(np.concatenate(drawn) < 1000) - 0.3) < 0.06
    for epoch in drawn:
        assert len(set(epoch[epoch < 1000])) == (epoch < 1000).sum()  # none twice before all came
        times = np.bincount(epoch[epoch >= 1000] - 1000, minlength=20)
        assert times.max() - times.min() <= 1


def test_labels_of_an_unchanged_sample(tmp_path):
    source = make_source(tmp_path, "a", 5, 0, focal_l=np.array([200.0, np.nan, 300, np.nan, np.nan]), img_hw=None)
    known = load_annotations(source.annotations)
    batch = TrainDataset(make_config([source], batch_size=5, augment=STILL)).batch(0)
    rows = people([batch])
    for name in ("center", "keypoints2d", "keypoints3d", "betas", "has_smpl"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(known, name)[rows], err_msg=name)
    np.testing.assert_array_equal(batch.bbox_size, known.size[rows])
    np.testing.assert_array_equal(batch.img_hw, [HW] * 5)
    expected = np.where(np.isnan(known.focal_length), 150, known.focal_length)  # 150 = hypot(90, 120)
    np.testing.assert_allclose(batch.focal_length, expected[rows])
    evaluated = open_eval(source, 5).batch(0)
    np.testing.assert_allclose(batch.inputs, evaluated.inputs[rows], atol=1e-5)
    rounded = make_config([source], batch_size=5, augment=STILL, model=replace(MODEL, crop_style="rounded"))
    assert_same(TrainDataset(rounded).batch(0), batch)  # which is for evaluation only


def test_what_is_at_a_keypoint_comes_to_its_label_through_file_and_reduction(tmp_path):
    place, hw = np.array([410.3, 301.6]), (601, 803)
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    light = 250 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 8**2))
    noise = np.random.default_rng(0).integers(0, 2, hw) * 100
    part = np.concatenate([np.random.default_rng(1).uniform(200, 500, (40, 24, 2)), np.ones((40, 24, 1))], -1)
    part[:, [SPIN24.index("right_ankle"), SPIN24.index("left_ankle")], :2] = place
    changes = {"part": part, "center": place + [[15, -20]] * 40, "scale": np.linspace(0.8, 3.4, 40), "img_hw": None}
    source = make_source(tmp_path, "a", 40, 0, **changes)
    for picture in (tmp_path / "a").iterdir():
        cv2.imwrite(str(picture), np.dstack([noise, light, light]), [cv2.IMWRITE_JPEG_QUALITY, 98])
    config = make_config([source], batch_size=40, augment=AugmentConfig(rotation_prob=0.7, noise=0))
    batch = TrainDataset(config).batch(0)
    step = batch.bbox_size[:, None] / 64
    expected = (batch.keypoints2d[:, SPIN24.index("right_ankle"), :2] - batch.center) / step + [24, 32]
    red = np.maximum(batch.inputs[:, 0] * 0.229 + 0.485 - 0.05, 0)
    found = [(red.sum(axis) * (np.arange(n) + 0.5)).sum(1) / red.sum((1, 2)) for axis, n in ((1, 48), (2, 64))]
    np.testing.assert_allclose(np.stack(found, 1), expected, atol=0.15)
    # Pixel noise is averaged away, not picked from, where the crop shrinks the picture much.
    assert np.median(np.abs(np.diff(batch.inputs[step[:, 0] > 5, 2]))) < 0.25


def test_evaluation_keeps_the_order_and_fills_up_the_last_batch(tmp_path):
    source = make_source(tmp_path, "a", 5, 0)
    dataset = open_eval(source, 2)
    batches = list(load_batches(dataset.batch, 2, 0, len(dataset)))
    assert len(dataset.rows) == 5 and len(batches) == 3
    assert people(batches).tolist() == [0, 1, 2, 3, 4, 4]
    image, known = read_image(tmp_path / "a" / "1.jpg"), dataset.annotations
    for style, cut in {"affine": crop_affine, "rounded": crop_rounded}.items():
        crop = open_eval(source, 2, replace(MODEL, crop_style=style)).batch(0).inputs[1]
        expected = cut(image, known.center[1].astype(float), float(known.size[1]), MODEL.crop_hw)
        # A crop that shrinks the picture twice reads it at half its size.
        limit = 1e-6 if style == "rounded" or known.size[1] < 128 else 0.2
        assert np.abs(crop - normalize_image(expected)).mean() < limit


def test_keypoint_models_read_keypoints_and_no_picture(tmp_path):
    source = replace(make_source(tmp_path, "a", 6, 0), image_dir="")
    known = load_annotations(source.annotations)
    dataset = TrainDataset(make_config([source], batch_size=6, model=KEYPOINTS, augment=STILL))
    batch = dataset.batch(0)
    rows = people([batch])
    expected = normalize_keypoints(known.input_keypoints, known.center, known.size)[rows]
    np.testing.assert_allclose(batch.inputs, expected, atol=1e-5)
    other = replace(KEYPOINTS, joint_set="openpose25")
    assert open_eval(source, 6, other).batch(0).inputs.shape == (6, 25, 3)


def test_some_rows_are_read_and_keypoints_and_boxes_replaced(tmp_path):
    source = make_source(tmp_path, "a", 6, 0)
    rng = np.random.default_rng(0)
    other = (rng.uniform(0, 90, (6, 17, 3)).astype(np.float32), np.full((6, 2), 30, np.float32), np.arange(6) + 50.0)
    rows = np.array([1, 4, 5])
    dataset = open_eval(source, 2, KEYPOINTS, rows=rows, keypoints=other)
    assert len(dataset) == 2 and people([dataset.batch(0), dataset.batch(1)]).tolist() == [1, 4, 5, 5]
    assert [dataset.places(k).tolist() for k in range(2)] == [[1, 4], [5, 5]]
    batch, plain = dataset.read(rows), open_eval(source, 2, KEYPOINTS).read(rows)
    np.testing.assert_array_equal(batch.inputs, normalize_keypoints(*(array[rows] for array in other)))
    assert batch.bbox_size.tolist() == [51, 54, 55] and (batch.center == 30).all()
    np.testing.assert_array_equal(batch.keypoints2d, plain.keypoints2d)


def test_focal_lengths_of_the_file_are_given_or_not(tmp_path):
    source = make_source(tmp_path, "a", 3, 0, focal_l=np.array([200.0, np.nan, 300]))
    given, none = (Source(source, KEYPOINTS, "data.val.image_dir", known_focal_length=known) for known in (True, False))
    assert [given.read(row).focal_length for row in range(3)] == [200, 150, 300]  # 150 = hypot(90, 120)
    assert [none.read(row).focal_length for row in range(3)] == [150] * 3


def test_rows_without_labels_are_left_out_of_training(tmp_path):
    part = np.tile([[50, 40, 1], [60, 50, 1]], (6, 12, 1)) * (np.arange(6) != 2)[:, None, None]
    labels = {"part": part, "S": None, "pose": None, "shape": None}
    source = make_source(tmp_path, "a", 6, 0, **labels)
    assert TrainDataset(make_config([source])).epoch_length == 5
    assert len(open_eval(source, 2).rows) == 6
    bare = make_source(tmp_path, "b", 3, 0, **{**labels, "part": None})
    with pytest.raises(InputError, match="b.npz.*none of its 3 rows has a label"):
        TrainDataset(make_config([bare]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_or_is_skipped(tmp_path, workers, caplog):
    source = make_source(tmp_path, "a", 6, 0)
    path = tmp_path / "a" / "4.jpg"
    path.write_bytes(path.read_bytes()[:500])
    (tmp_path / "a" / "5.jpg").unlink()
    with pytest.raises(InputError, match=r"a.npz', row [45]: .*[45].jpg' (is truncated|does not exist)"):
        list(islice(load_batches(TrainDataset(make_config([source])).batch, workers), 3))
    dataset = TrainDataset(make_config([source], bad_image="skip"))
    seen = people(islice(load_batches(dataset.batch, workers, 0, 3), 3))  # two epochs
    np.testing.assert_array_equal(np.bincount(seen), [6, 2, 2, 2])  # row 0 comes after rows 4 and 5
    assert "row 4" in caplog.text and caplog.text.count("skipped") == 6  # row 4 meets row 5 as well
    with pytest.raises(InputError, match="row 4"):
        list(load_batches(open_eval(source, 2).batch, workers, 0, 3))
    for picture in (tmp_path / "a").iterdir():
        picture.write_bytes(b"nothing")
    with pytest.raises(InputError, match="6 images in a row cannot be read"):
        next(load_batches(TrainDataset(make_config([source], bad_image="skip")).batch, workers))


def test_workers_stop_with_the_loop_and_stay_close_ahead():
    asked = []

    def load(number):
        asked.append(number)
        return (np.full(1, number),)

    before = threading.active_count()
    batches = load_batches(load, 2, 5)
    assert [int(next(batches)[0][0]) for _ in range(3)] == [5, 6, 7]
    batches.close()
    assert threading.active_count() == before and max(asked) <= 5 + 3 + 2 * 2


def test_sources_that_cannot_be_used(tmp_path):
    good = make_source(tmp_path, "a", 3, 0)
    cases = [
        (replace(good, annotations=str(tmp_path / "b.npz")), MODEL, "b.npz' does not exist"),
        (replace(good, image_dir=str(tmp_path / "c")), MODEL, r"data.train\[0\].image_dir: there is no folder"),
        (replace(good, image_dir=""), MODEL, "there is no folder"),
        (replace(good, image_dir=str(tmp_path)), MODEL, "has none of 3 images"),
        (make_source(tmp_path, "d", 3, 0, img_hw=None), KEYPOINTS, "key 'img_hw' is missing"),
        (make_source(tmp_path, "e", 3, 0, input_keypoints=None), KEYPOINTS, "key 'input_keypoints' is missing"),
    ]
    for source, model, message in cases:
        with pytest.raises(InputError, match=message):
            TrainDataset(make_config([source], model=model))
    one = np.tile(HW, (3, 1))
    one[1] = HW[::-1]
    turned = make_source(tmp_path, "f", 3, 0, img_hw=one)
    with pytest.raises(InputError, match="f.npz', row .* is 120 x 90 px, but the annotations are for 90 x 120"):
        TrainDataset(make_config([turned])).batch(0)


def test_evaluation_may_skip_bad_images(tmp_path, caplog):
    source = make_source(tmp_path, "a", 5, 0)
    path = tmp_path / "a" / "1.jpg"
    path.write_bytes(path.read_bytes()[:500])
    dataset = open_eval(source, 2, skip_bad=True)
    batches = [dataset.batch(index) for index in range(3)]
    assert [batch.has_smpl.tolist() for batch in batches] == [[1, 0], [1, 1], [1, 1]]
    assert not batches[0].keypoints3d[1].any() and "row 1: Image" in caplog.text
    (tmp_path / "a" / "0.jpg").unlink()
    with pytest.raises(InputError, match="2 images in a row cannot be read"):
        dataset.batch(0)

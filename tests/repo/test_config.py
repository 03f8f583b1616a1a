"""Configuration: typos die at the start, with the nearest key."""

from dataclasses import replace
from typing import get_args

import pytest

from cliff_ms.annotation.annotator import load_annotator_config
from cliff_ms.config import Config, Encoder, ModelConfig, SourceConfig, from_dict, load_config, to_dict
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import JOINT_SETS, JointSet
from cliff_ms.models.cliff import ENCODERS
from tests.paths import ROOT


def test_values_arrive_with_their_types():
    config = from_dict(ModelConfig, {"encoder": "res18", "crop_hw": [224, 224], "width": 1}, "c.yaml")
    assert config == ModelConfig(encoder="res18", crop_hw=(224, 224), width=1.0)
    assert isinstance(config.width, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encodr": "res50"}, "c.yaml: unknown key 'model.encodr'; the nearest known key is 'encoder'"),
        ({"encoder": "vgg"}, "model.encoder must be one of res18, res50, hr48, keypoints, but got 'vgg'"),
        ({"joint_set": 17}, "model.joint_set must be one of coco17, openpose25, but got 17"),
        ({"crop_hw": [256]}, "'model.crop_hw' must be"),
        ({"crop_hw": [16, 192]}, "at least 32 x 32 px"),
        ({"width": "wide"}, "'model.width' must be float, but got 'wide'"),
        ({"location_input": 1}, "'model.location_input' must be bool, but got 1"),
        ("res50", "'model' must be a mapping"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(InputError, match=message.replace("'", "['`]")):
        from_dict(ModelConfig, values, "c.yaml", "model")


def test_choices_are_those_that_exist():
    assert get_args(Encoder) == tuple(ENCODERS)
    assert get_args(JointSet) == tuple(JOINT_SETS)


FILE = """
model: {encoder: keypoints}
data: {train: [{annotations: a.npz, weight: 0.25}, {annotations: b.npz, image_dir: b, weight: 0.75}], batch_size: 8}
train: {learning_rate: 1e-4, lr_drops: [0.5, 0.9]}
"""


def test_file_with_overrides_and_back(tmp_path):
    (tmp_path / "c.yaml").write_text(FILE)
    config = load_config(tmp_path / "c.yaml", ["train.steps=20", "data.train=[{annotations: c.npz}]", "body=smpl.pkl"])
    assert (config.train.steps, config.train.learning_rate, config.train.lr_drops) == (20, 1e-4, (0.5, 0.9))
    assert [s.annotations for s in config.data.train] == ["c.npz"] and config.body == "smpl.pkl"
    assert from_dict(Config, to_dict(config), "again") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.stepz=3"], "unknown key 'train.stepz'; the nearest known key is 'steps'"),
        (["data.train=[{annotation: a.npz}]"], r"unknown key 'data.train\[0\].annotation'"),
        (["data.train=[{weight: 1}]"], r"'data.train\[0\].annotations' is missing"),
        (["data.train=[{annotations: a.npz, weight: 0.5}]"], "must sum to 1"),
        (["data.labelled=0.5"], "data.labelled is a share of the stream's people"),
        (["data.stream=true"], "beside a stream, the weights of the sources must sum to less than 1"),
        (["data.train=[]"], "a list of 'train' sources, or both"),
        (["train.precision=int8"], "must be one of fp32, fp16, bf16, but got 'int8'"),
        (["steps"], "an override is section.key=value"),
        (["body=smpl.pkl", "body.name=a"], "an override is section.key=value"),
        (["train={seed: 1, seed: 2}"], "'seed' appears twice"),
        (["train.steps=[1"], "is not YAML"),
        (["train.lr_drops=[122000]"], r"train.lr_drops\[0\] must be from 0 to 1, but got 122000.0"),
        (["augment.flip=50"], "augment.flip must be from 0 to 1, but got 50.0"),
        (["augment.scale=2"], "augment.scale must be from 0 to 0.9"),
        (
            ["data.train=[{annotations: a.npz, weight: 1.5}, {annotations: b.npz, weight: -0.5}]"],
            r"data.train\[0\].weight must be",
        ),
        (
            ["data.train=[{annotations: a.npz, weight: .nan}]"],
            r"data.train\[0\].weight must be from 0 to 1, but got nan",
        ),
        (["data.batch_size=0"], "data: give global_batch_size, of all workers together, or batch_size, of each"),
        (["data.workers=-1"], "data.workers must be finite and at least 0, but got -1"),
        (["train.lr_anneal=.inf"], "train.lr_anneal must be from 0 to 1, but got inf"),
        (["model.full_frame_loss=true"], "unknown key 'model.full_frame_loss'"),
        (["loss.vertices=-1"], "loss.vertices must be finite and at least 0"),
        (["train.seed=-1"], "train.seed must be from 0"),
        (["model.width=0"], "model.width must be finite and at least 0.01"),
        (["model={encoder: hr48, crop_hw: [64, 48]}"], "multiples of 32 px"),
    ],
)
def test_mistakes_in_files_are_named(tmp_path, overrides, message):
    (tmp_path / "c.yaml").write_text(FILE)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "c.yaml", overrides)


def test_base_is_merged_key_by_key(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "c.yaml").write_text(FILE)
    (tmp_path / "sub" / "d.yaml").write_text("base: ../c.yaml\ndata: {batch_size: 4}\ntrain: {lr_drops: []}")
    (tmp_path / "e.yaml").write_text("base: sub/d.yaml\ndata: {train: [{annotations: e.npz}]}\nbody: smpl.pkl")
    before, after = (load_config(tmp_path / name, ["train.seed=7"]) for name in ("c.yaml", "e.yaml"))
    train = replace(before.train, lr_drops=())
    data = replace(before.data, train=(SourceConfig("e.npz"),), batch_size=4)
    assert after == replace(before, train=train, data=data, body="smpl.pkl")
    assert from_dict(Config, to_dict(after), "again") == after  # what a training writes needs no base


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"b": "base: none.yaml"}, "Configuration '.*b.yaml': its base '.*none.yaml' does not exist"),
        ({"b": "base: [c.yaml]"}, r"b.yaml': base must be the name of a file, but got \['c.yaml'\]"),
        ({"b": "base: a.yaml"}, "b.yaml': base '.*a.yaml' is itself based on this file"),
        ({"b": "base: b.yaml"}, "b.yaml': base '.*b.yaml' is itself based on this file"),
        ({"b": "base: c.yaml\ntrain: {stepz: 3}", "c": FILE}, "a.yaml on .*b.yaml on .*c.yaml: unknown key"),
        ({"b": "base: c.yaml\ntrain: 3", "c": FILE}, "'train' must be a mapping"),
        ({"b": "[1"}, "b.yaml is not YAML"),
    ],
)
def test_mistakes_in_bases_are_named(tmp_path, files, message):
    for name, text in {"a": "base: b.yaml", **files}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_comes_with_the_code_loads(path):
    config = (load_annotator_config if path.stem.startswith("annotator_") else load_config)(path)
    assert from_dict(type(config), to_dict(config), "again") == config

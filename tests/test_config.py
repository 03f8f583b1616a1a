"""Configuration: typos die at the start, with the nearest key."""

import pytest

from cliff_ms.config import ModelConfig, from_dict
from cliff_ms.errors import InputError


def test_values_arrive_with_their_types():
    config = from_dict(ModelConfig, {"encoder": "res18", "crop_hw": [224, 224], "width": 1}, "c.yaml")
    assert config == ModelConfig(encoder="res18", crop_hw=(224, 224), width=1.0)
    assert isinstance(config.width, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encodr": "res50"}, "c.yaml: unknown key 'model.encodr'; the nearest known key is 'encoder'"),
        ({"encoder": "vgg"}, "model.encoder must be one of res18, res50, hr48, keypoints, but got 'vgg'"),
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

"""Detectors on tiny networks whose every output is known: boxes, scores and order follow by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cliff_ms.inference import detectors, yolo
from cliff_ms.io.errors import InputError

# A 1 x 1 convolution that looks at the top left pixel of each 32 px cell of a 64 x 64 input: two cells by two.
CFG = """[net]
# a comment
width=64
height = 64
channels=3

[convolutional]
filters=7
size=1
stride=32
pad=0
activation=linear

[yolo]
mask=0
anchors=16,24, 30,40
classes=2
num=2
"""
BIAS = np.array([0.3, -0.2, 0.1, 0.4, -10, 3, -3], np.float32)  # x, y, w, h, objectness, person, other
RED_TO_OBJECTNESS = 20.0


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


@pytest.fixture
def darknet(tmp_path):
    kernel = np.zeros((7, 3), np.float32)
    kernel[4, 0] = RED_TO_OBJECTNESS
    header = np.array([0, 2, 5, 0, 0], "<i4").tobytes()
    (tmp_path / "tiny.cfg").write_text(CFG)
    (tmp_path / "tiny.weights").write_bytes(header + BIAS.tobytes() + kernel.tobytes())
    return f"{tmp_path / 'tiny.cfg'},{tmp_path / 'tiny.weights'}"


def test_darknet_box_by_hand(darknet):
    """96 x 48 image in a 64 x 64 input: scale 2/3, so it is 64 x 32 with 16 grey rows above and below.

    The input pixel that the lower right cell looks at, (32, 32), is (48, 24) of the image.
    """
    image = np.zeros((48, 96, 3), np.uint8)
    image[22:27, 46:51, 0] = 255  # red; were it read as blue there would be nobody
    found = detectors.load_detector(darknet).find(image)
    center = np.array([(1 + sigmoid(0.3)) * 32, (1 + sigmoid(-0.2)) * 32 - 16]) * 1.5
    size = np.array([np.exp(0.1) * 16, np.exp(0.4) * 24]) * 1.5
    expected = np.concatenate([center - size / 2, center + size / 2])
    assert expected[3] > 48  # it reaches out of the image below and is cut there
    np.testing.assert_allclose(found.boxes, [[*expected[:3], 48]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [sigmoid(10) * sigmoid(3)], atol=1e-6)
    assert found.keypoints is None
    nobody = detectors.load_detector(darknet).find(np.zeros((48, 96, 3), np.uint8))
    assert nobody.boxes.shape == (0, 4)
    assert nobody.scores.shape == (0,)


def test_a_darknet_classifier_is_no_detector(darknet):
    cfg = darknet.partition(",")[0]
    with open(cfg) as file:
        network = file.read().partition("[yolo]")[0]
    with open(cfg, "w") as file:
        file.write(network)
    with pytest.raises(InputError, match="tiny.cfg' is no YOLO"):
        detectors.load_detector(darknet)


def test_darknet_files_must_belong_together(darknet, tmp_path, capfd):
    cfg, weights = darknet.split(",")
    whole = (tmp_path / "tiny.weights").read_bytes()
    (tmp_path / "short.weights").write_bytes(whole[:-8])
    (tmp_path / "long.weights").write_bytes(whole + b"\0" * 4)
    (tmp_path / "text.cfg").write_text("# no network at all\nsome words\n")
    (tmp_path / "layer.cfg").write_text(CFG.replace("[yolo]", "[unknown_layer]"))
    for spec, message in [
        (f"{cfg},{tmp_path}/short.weights", "short.weights' has 124 bytes but '.*tiny.cfg' describes 132: it is trunc"),
        (f"{cfg},{tmp_path}/long.weights", "long.weights' has 136 bytes but .* belongs to another network"),
        (f"{cfg},{tmp_path}/none.weights", "none.weights' does not exist"),
        (f"{tmp_path}/text.cfg,{weights}", r"text.cfg' is no Darknet network: expected a \[net\] section"),
        (f"{tmp_path}/layer.cfg,{weights}", "layer.cfg' with .* cannot be loaded: .*unknown_layer"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            detectors.load_detector(spec)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


SIDE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2  # strides 8, 16 and 32


def save_onnx(path, output, channel=0, gain=0.0, dims=(1, 3, SIDE, SIDE)):
    """A network that answers `output` + `gain` * (mean of a channel of its input), whatever the shape of `output`."""
    arrays = {
        "constant": output.astype(np.float32),
        "gain": np.broadcast_to(np.float32(gain), output.shape).copy(),
        "one": np.array([1] * output.ndim, np.int64),
        "from": np.array([channel], np.int64),
        "to": np.array([channel + 1], np.int64),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Slice", ["means", "from", "to", "axis"], ["mean"]),
        helper.make_node("Reshape", ["mean", "one"], ["scalar"]),
        helper.make_node("Mul", ["scalar", "gain"], ["product"]),
        helper.make_node("Add", ["product", "constant"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "answers",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, output.shape)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), path)
    return str(path)


# Centre and size in px of the 64 x 64 input, probability of being an object, of a person, of something else.
CANDIDATES = {
    2: (20, 30, 10, 20, 0.9, 0.8, 0.1),  # 0.72
    7: (21, 30, 10, 20, 0.9, 0.9, 0.1),  # 0.81: overlaps the first by 9 / 11
    70: (44, 32, 8, 16, 1.0, 0.95, 0.0),  # 0.95
    80: (50, 40, 8, 8, 0.6, 0.8, 0.0),  # 0.48: not sure enough
    81: (30, 40, 8, 8, 1.0, 0.1, 0.9),  # something else
    83: (32, 4, 8, 6, 1.0, 0.9, 0.0),  # above the image, in the grey
}
# 128 x 96 image: scale 1/2, 64 x 48 in the input. In the middle it has 8 grey rows above.
CENTERED = [[80, 32, 96, 64], [32, 24, 52, 64]]
TOP_LEFT = [[80, 48, 96, 80], [32, 40, 52, 80], [56, 2, 72, 14]]
IMAGE = np.zeros((96, 128, 3), np.uint8)


def yolov5_output():
    output = np.zeros((1, 3 * CELLS, 7))
    for row, values in CANDIDATES.items():
        output[0, 2 * row] = values
    return output


def yolov8_output():
    output = np.zeros((1, 6, CELLS))
    for row, (*box, objectness, person, other) in CANDIDATES.items():
        output[0, :, row] = *box, objectness * person, objectness * other
    return output


def yolox_output():
    """The same boxes relative to the cell of their row, as the network writes them before decoding."""
    cells = [(x, y, 64 // n) for n in (8, 4, 2) for y in range(n) for x in range(n)]
    output = np.zeros((1, CELLS, 7))
    for row, (x, y, w, h, *probabilities) in CANDIDATES.items():
        column, line, stride = cells[row]
        output[0, row] = x / stride - column, y / stride - line, np.log(w / stride), np.log(h / stride), *probabilities
    return output


def canvas_joints(box_row):
    """COCO-17 joints in px of the input, one of them unseen, other ones for each row."""
    joints = np.stack([np.arange(17) + box_row, 20 + np.arange(17) / 2, np.linspace(0.4, 1, 17)], axis=1)
    joints[3, 2] = 0
    return joints


def image_joints(box_row):
    joints = canvas_joints(box_row) * [2, 2, 1] - [0, 16, 0]  # scale 1/2, 8 grey rows above
    joints[3] = 0
    return joints


def yolov8_pose_output():
    """(1, 56, N), where 'something else' is another person of low score."""
    output = np.zeros((1, 56, CELLS))
    for row, (*box, objectness, person, _) in CANDIDATES.items():
        output[0, :, row] = *box, objectness * person, *canvas_joints(row).ravel()
    return output


def end_to_end_output(columns):
    """(1, 300, 6 or 57): corners, score, class; the network has chosen, so overlapping boxes are two people."""
    output = np.zeros((1, 300, columns))
    for place, (row, (x, y, w, h, objectness, person, other)) in enumerate(CANDIDATES.items()):
        corners = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        kind = 2 if other > person else 0
        output[0, place, :6] = *corners, objectness * max(person, other), kind
        output[0, place, 6:] = canvas_joints(row).ravel()[: columns - 6]
    return output


@pytest.mark.parametrize("dims", [(1, 3, SIDE, SIDE), ("batch", 3, SIDE, SIDE)])
@pytest.mark.parametrize(
    "output, boxes, scores",
    [
        (yolov5_output(), CENTERED, [0.95, 0.81]),
        (yolov8_output(), CENTERED, [0.95, 0.81]),
        (yolox_output(), TOP_LEFT, [0.95, 0.81, 0.9]),
    ],
    ids=["yolov5", "yolov8", "yolox"],
)
def test_onnx_boxes_by_hand(tmp_path, dims, output, boxes, scores):
    order = np.argsort(scores)[::-1]
    found = detectors.load_detector(save_onnx(tmp_path / "y.onnx", output, dims=dims)).find(IMAGE)
    np.testing.assert_allclose(found.boxes, np.array(boxes)[order], atol=1e-4)
    np.testing.assert_allclose(found.scores, np.array(scores)[order], atol=1e-6)


def test_onnx_pose_keypoints_by_hand(tmp_path):
    found = detectors.load_detector(save_onnx(tmp_path / "pose.onnx", yolov8_pose_output())).find(IMAGE)
    np.testing.assert_allclose(found.boxes, CENTERED, atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.95, 0.81], atol=1e-6)
    np.testing.assert_allclose(found.keypoints, [image_joints(70), image_joints(7)], atol=1e-4)
    assert found.joint_set == "coco17"
    nobody = detectors.load_detector(save_onnx(tmp_path / "nobody.onnx", np.zeros((1, 56, CELLS)))).find(IMAGE)
    assert nobody.keypoints.shape == (0, 17, 3)


@pytest.mark.parametrize("columns", [6, 57])
def test_end_to_end_exports_have_chosen_themselves(tmp_path, columns):
    """The person at 0.72 overlaps the one at 0.81 by 9 / 11 and stays; 'something else' is of class 2 and goes."""
    found = detectors.load_detector(save_onnx(tmp_path / "end.onnx", end_to_end_output(columns))).find(IMAGE)
    np.testing.assert_allclose(found.boxes, [*CENTERED, [30, 24, 50, 64]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.95, 0.81, 0.72], atol=1e-6)
    if columns == 6:
        assert found.keypoints is None
    else:
        np.testing.assert_allclose(found.keypoints, [image_joints(row) for row in (70, 7, 2)], atol=1e-4)


def test_onnx_input_is_what_the_family_was_trained_on(tmp_path):
    """Of a red image, the mean of the red channel in the input, grey margin included, comes back as the score."""
    red = IMAGE.copy()
    red[..., 0] = 255
    mean = (48 * 255 + 16 * 114) / 64
    box = np.zeros((1, 5, CELLS))
    score = box.copy()
    box[0, :4, 0] = (32, 32, 8, 8)
    score[0, 4, 0] = 1
    yolov8 = detectors.load_detector(save_onnx(tmp_path / "v8.onnx", box, 0, score))
    np.testing.assert_allclose(yolov8.find(red).scores, [mean / 255], rtol=1e-5)  # RGB, 0-1

    box = np.zeros((1, CELLS, 6))
    score = box.copy()
    box[0, 0] = (4, 4, 0, 0, 0, 1)
    score[0, 0, 4] = 1
    yolox = detectors.load_detector(save_onnx(tmp_path / "x.onnx", box, 2, score))
    np.testing.assert_allclose(yolox.find(red).scores, [mean], rtol=1e-5)  # BGR, 0-255


def test_onnx_that_leaves_its_input_open_gets_640(tmp_path):
    output = np.zeros((1, 6, 8400))
    output[0, :, 5] = (320, 320, 64, 128, 0.9, 0)
    found = detectors.load_detector(save_onnx(tmp_path / "y.onnx", output, dims=(1, 3, "h", "w"))).find(IMAGE)
    np.testing.assert_allclose(found.boxes, [[64 - 6.4, 48 - 12.8, 64 + 6.4, 48 + 12.8]], atol=1e-4)


def test_decoded_yolox_is_refused(tmp_path):
    output = np.zeros((1, CELLS, 7))
    output[0, 3] = (20, 30, 10, 20, 1, 0.9, 0)
    with pytest.raises(InputError, match="y.onnx' has decoded outputs: export YOLOX without"):
        detectors.load_detector(save_onnx(tmp_path / "y.onnx", output)).find(IMAGE)


def test_other_onnx_files_are_refused(tmp_path, capfd):
    save_onnx(tmp_path / "hundred.onnx", np.zeros((1, 100, 6)))
    save_onnx(tmp_path / "classifier.onnx", np.zeros((1, 1000)))
    save_onnx(tmp_path / "flat.onnx", np.zeros((1, 6, CELLS)), dims=(1, 3 * SIDE * SIDE))
    (tmp_path / "text.onnx").write_text("a letter, not a network")
    for name, message in [
        ("hundred.onnx", r"outputs of shape \(1, 100, 6\) for an input of 64 x 64 px, which is none of .*YOLOX"),
        ("classifier.onnx", r"outputs of shape \(1, 1000\)"),
        ("flat.onnx", "has no single image input"),
        ("text.onnx", "is damaged or not an ONNX file"),
        ("none.onnx", "does not exist"),
    ]:
        with pytest.raises(InputError, match=f"{name}' .*{message}") as caught:
            detectors.load_detector(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_whole_image_only_when_asked():
    found = detectors.load_detector("whole-image").find(IMAGE)
    assert found.boxes.tolist() == [[0, 0, 128, 96]]
    for spec in ["hog", "yolov3.weights", "yolov3.weights,yolov3.cfg", "", "a.pt"]:
        with pytest.raises(
            InputError, match=f"Detector '{spec}' is unknown: expected bundled, FILE.cfg,FILE.weights, FILE.onnx or"
        ):
            detectors.load_detector(spec)


def test_letterbox_keeps_proportions_and_says_where():
    image = np.full((50, 99, 3), 200, np.uint8)
    canvas, scale, offset = yolo.letterbox(image, (64, 96), pad_value=114, centered=True)
    assert canvas.shape == (64, 96, 3)
    np.testing.assert_allclose(scale, [96 / 99, 48 / 50])
    assert offset.tolist() == [0, 8]
    inside = (canvas == 200).all(axis=2)
    assert inside[8:56].all()
    assert not inside[:8].any()
    assert not inside[56:].any()

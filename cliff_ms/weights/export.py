"""The network as a file that runs elsewhere: MindIR, ONNX, AIR."""

from pathlib import Path

import numpy as np

import mindspore as ms
from mindspore import Tensor, nn

from cliff_ms.body.files import Body
from cliff_ms.body.smpl import SMPL
from cliff_ms.config import ModelConfig
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import JOINT_SETS
from cliff_ms.models.cliff import CLIFF, FullFrameCLIFF
from cliff_ms.weights.checkpoint import WeightsMeta, file_with_side_car
from cliff_ms.weights.networks import onnx_session

OUTPUTS = ("pred_rotmat", "pred_betas", "pred_cam_crop", "pred_cam_full")
BODY_OUTPUTS = ("vertices", "joints")  # after the others, of a file with the body
_CHECKED_BATCH = 3  # of a file that takes any
_ONNX_TOLERANCE = 1e-4  # largest difference to MindSpore's output that is accepted, m or unitless


def export_network(
    cliff: CLIFF,
    meta: WeightsMeta,
    path: Path,
    file_format: str,
    batch_size: int | None = None,
    body: Body | None = None,
) -> float:
    """Write the full-frame network and a side-car, after checking that it computes the same.

    Args:
        cliff: The network.
        meta: What its weights mean; goes into the side-car.
        path: Target, ending in the format's name.
        file_format: 'mindir', 'onnx' or 'air' (Ascend only).
        batch_size: The only one that the file takes; None for any, but 1 in an AIR file.
        body: Also write the body model into the file, whose licence then applies to it: the outputs are then followed
            by vertices and joints.

    Returns:
        The largest difference between the file's output and MindSpore's; 0 for AIR, which cannot be run here.

    Raises:
        InputError: Wrong suffix, folder that cannot be written, or AIR without an Ascend device.
        RuntimeError: If the written file does not compute the same.
    """
    if file_format == "air" and ms.get_context("device_target") != "Ascend":
        raise InputError("AIR files can be written only on a machine with an Ascend device; choose mindir or onnx.")
    net = FullFrameCLIFF(cliff, meta.model.bbox_norm, SMPL(body) if body else None)
    net.set_train(False)
    exported_batch = batch_size or 1
    if file_format == "onnx":
        from cliff_ms.weights import onnx_graph  # the onnx package, which whoever only runs a network need not load

        exported_batch = batch_size or onnx_graph.EXPORT_BATCH
    signature = [Tensor(a) for a in example_inputs(meta.model, exported_batch)]
    if file_format == "mindir" and batch_size is None:
        signature = [Tensor(shape=[None, *a.shape[1:]], dtype=ms.float32) for a in signature]
    with file_with_side_car(path, meta, (f".{file_format}",)) as written:
        # MindSpore appends the suffix itself.
        ms.export(net, *signature, file_name=str(written.with_suffix("")), file_format=file_format.upper())
        if file_format == "air":
            return 0.0
        if file_format == "onnx":
            outputs = OUTPUTS + (BODY_OUTPUTS if body else ())
            onnx_graph.finish(written, outputs, opens_batch=batch_size is None)
        example = example_inputs(meta.model, batch_size or _CHECKED_BATCH)
        expected = [t.asnumpy() for t in net(*(Tensor(a) for a in example))]
        return _check(written, file_format, example, expected)


def example_inputs(config: ModelConfig, batch_size: int) -> list[np.ndarray]:
    """Inputs of the right shapes for `FullFrameCLIFF`: random crops or keypoints of a person left of the centre."""
    shape = (len(JOINT_SETS[config.joint_set]), 3) if config.reads_keypoints else (3, *config.crop_hw)
    rng = np.random.default_rng(0)
    camera_inputs = ([500.0, 400.0], 300.0, [720.0, 1280.0], 1468.6)  # center, size, img_hw, focal_length
    inputs = rng.standard_normal((batch_size, *shape), np.float32)
    return [inputs, *(np.stack([np.array(v, np.float32)] * batch_size) for v in camera_inputs)]


def _check(written: Path, file_format: str, example: list[np.ndarray], expected: list[np.ndarray]) -> float:
    if file_format == "mindir":
        outputs = [t.asnumpy() for t in nn.GraphCell(ms.load(str(written)))(*(Tensor(a) for a in example))]
    else:
        session = onnx_session(written)
        outputs = session.run(None, {i.name: a for i, a in zip(session.get_inputs(), example, strict=True)})
    difference = max(float(np.abs(a - b).max()) for a, b in zip(outputs, expected, strict=True))
    if not difference <= (0 if file_format == "mindir" else _ONNX_TOLERANCE):
        raise RuntimeError(f"The {file_format} file differs from MindSpore by {difference:g}; it was not kept.")
    return difference

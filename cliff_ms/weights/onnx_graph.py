"""What MindSpore's ONNX exporter leaves to do: names of the outputs, and a batch axis that is open."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

EXPORT_BATCH = 89  # no channels, joints or pixels of our networks count as many: where it stands, it is the batch
_OPEN_AXIS = "N"


def finish(path: Path, outputs: Sequence[str], opens_batch: bool) -> None:
    """Edit a file that MindSpore exported.

    Args:
        path: The file.
        outputs: Names for its outputs, in order.
        opens_batch: Whether it was exported for a batch of `EXPORT_BATCH`, and is to take any.
    """
    model = onnx.load(path)
    _name_outputs(model, outputs)
    if opens_batch:
        _open_batch(model)
    onnx.save(model, path)


def _name_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    renamed = dict(zip((output.name for output in model.graph.output), names, strict=True))
    for output in model.graph.output:
        output.name = renamed[output.name]
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def _open_batch(model: onnx.ModelProto) -> None:
    """The exporter writes the batch into shapes, and repeats constants along it."""
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _OPEN_AXIS
    batch = [
        helper.make_node("Shape", [graph.input[0].name], ["input_shape"]),
        helper.make_node("Gather", ["input_shape", "first_axis"], ["batch"]),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first_axis"))
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant":
            graph.initializer.append(node.attribute[0].t)
            graph.initializer[-1].name = node.output[0]
        else:
            nodes.append(node)
    reshaped = {node.input[1] for node in nodes if node.op_type == "Reshape"}
    expanded = {node.input[1] for node in nodes if node.op_type == "Expand"}
    for constant in list(graph.initializer):
        if constant.name in reshaped | expanded:
            batch += _open_shape(graph, constant, constant.name in expanded)
        elif constant.dims and constant.dims[0] == EXPORT_BATCH:
            batch += _open_repeated(graph, constant)
    del graph.node[:]
    graph.node.extend(batch + nodes)


def _open_shape(graph: onnx.GraphProto, constant: onnx.TensorProto, expands: bool) -> list[onnx.NodeProto]:
    """Nodes that compute a shape that starts with the batch; in a Reshape, 0 says as much."""
    shape = numpy_helper.to_array(constant)
    if shape[0] != EXPORT_BATCH:
        return []
    if not expands:
        constant.CopyFrom(numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), constant.name))
        return []
    name = constant.name
    constant.CopyFrom(numpy_helper.from_array(shape[1:], f"{name}_rest"))
    return [helper.make_node("Concat", ["batch", constant.name], [name], axis=0)]


def _open_repeated(graph: onnx.GraphProto, constant: onnx.TensorProto) -> list[onnx.NodeProto]:
    """Nodes that repeat a constant along the batch, of which the file then holds one row."""
    array = numpy_helper.to_array(constant)
    if (array != array[:1]).any():
        return []
    name = constant.name
    constant.CopyFrom(numpy_helper.from_array(array[:1], f"{name}_row"))
    ones = numpy_helper.from_array(np.ones(array.ndim - 1, np.int64), f"{name}_ones")
    graph.initializer.append(ones)
    return [
        helper.make_node("Concat", ["batch", ones.name], [f"{name}_shape"], axis=0),
        helper.make_node("Expand", [constant.name, f"{name}_shape"], [name]),
    ]

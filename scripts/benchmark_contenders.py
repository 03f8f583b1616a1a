"""What `benchmark.py` times, one contender per process: python scripts/benchmark_contenders.py NAME ARGUMENTS FOLDER.

A contender is a function of the folder of the run and its own arguments (json on the command line). It returns the
call to be timed, whose output, a list of arrays, shows the driver that both sides of a contest compute the same.

The process makes its call once, saves the output as `FOLDER/output_<pid>.npz` and prints `ready` and what it
says about its threads. Every number N on its standard input is then answered by one json line: the seconds of N calls.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from benchmark_data import make_pictures, our_pipeline, torch_pipeline
from benchmark_fit import adam_fit, our_fit, prepare_fit
from benchmark_video import demo_video, prepare_video, script_video
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parent.parent
CROP_HW = (256, 192)
RENDER_HW = (720, 1280)
LEARNING_RATE = 1e-4
LOSS_WEIGHTS = {  # SPIN's, the defaults of a training
    "total": 60.0, "keypoints2d": 5.0 * 24 / 49, "keypoints3d": 5.0, "pose": 1.0, "betas": 0.001, "vertices": 0.0,
    "camera": 1.0,
}  # fmt: skip
SMPLX_EXTRA_JOINTS = (
    *("nose", "reye", "leye", "rear", "lear"),
    *("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
    *("lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex", "rmiddle", "rring", "rpinky"),
)
Call = Callable[[], list[np.ndarray]]


def prepare(folder: Path, encoder: str, onnx_batches: list[int]) -> Call:
    """Not a contender: write the weights and the location feature for PyTorch, and the ONNX files."""
    from cliff_ms import camera
    from cliff_ms.weights.export import example_inputs, export_network
    from cliff_ms.weights.pytorch import save_torch, to_torch

    cliff, meta = _cliff(encoder)
    save_torch(folder / f"{encoder}.pt", to_torch({p.name: p.asnumpy() for p in cliff.get_parameters()}, meta))
    location = camera.bbox_info(*example_inputs(meta.model, 1)[1:], meta.model.bbox_norm)
    np.save(folder / "bbox_info.npy", location.astype(np.float32))
    for batch in onnx_batches:
        export_network(cliff, meta, folder / f"{encoder}_{batch}.onnx", "onnx", batch)
    return lambda: []


def mindspore_encoder(folder: Path, encoder: str, batch: int) -> Call:
    """The encoder in MindSpore's graph mode."""
    cliff, _ = _cliff(encoder)
    from mindspore import Tensor  # after cliff_ms, which sets the environment

    image = Tensor(_images(batch))
    return lambda: [cliff.encoder(image).asnumpy()]


def torch_encoder(folder: Path, encoder: str, batch: int) -> Call:
    """The encoder in eager PyTorch."""
    import torch

    net, image = _torch_cliff(folder, encoder).encoder, torch.from_numpy(_images(batch))

    @torch.inference_mode()
    def call() -> list[np.ndarray]:
        return [net(image).numpy()]

    return call


def onnxruntime_cliff(folder: Path, encoder: str, batch: int) -> Call:
    """The exported network, as `demo.py --engine onnxruntime` runs it: rotations, betas, crop camera."""
    from cliff_ms.weights.checkpoint import load_weights
    from cliff_ms.weights.export import example_inputs
    from cliff_ms.weights.networks import onnx_network

    weights = load_weights(folder / f"{encoder}_{batch}.onnx")
    run, _ = onnx_network(weights.path)
    inputs = [_images(batch), *example_inputs(weights.meaning.model, batch)[1:]]
    return lambda: list(run(*inputs)[:3])


def torch_cliff(folder: Path, encoder: str, batch: int) -> Call:
    """The same network in eager PyTorch."""
    import torch

    net, image = _torch_cliff(folder, encoder), torch.from_numpy(_images(batch))
    location = torch.from_numpy(np.load(folder / "bbox_info.npy")).expand(batch, 3)

    @torch.inference_mode()
    def call() -> list[np.ndarray]:
        return [output.numpy() for output in net(image, location)]

    return call


def photo_to_bodies(folder: Path, people: int) -> Call:
    """From a JPEG file to bodies as the demo does it, without drawing and without the fit: rotations and betas."""
    from cliff_ms import load_predictor
    from cliff_ms.inference.pose_detector import PoseDetector
    from cliff_ms.io.images import read_image

    path = _photo(folder, people)
    detector, predictor = PoseDetector(), load_predictor(batch_size=people, fits=False)

    def call() -> list[np.ndarray]:
        image = read_image(path)
        found = predictor(image, detector(image))
        return [found.rotmats, found.betas]

    return call


def networks_of_a_photo(folder: Path, people: int) -> Call:
    """NanoDet once, MoveNet for every candidate and the lifting network once, on inputs that are ready."""
    import cv2
    import onnxruntime

    from cliff_ms import runtime
    from cliff_ms.camera import estimate_focal_length
    from cliff_ms.data.crop import box_to_crop, normalize_keypoints
    from cliff_ms.inference import pose_detector
    from cliff_ms.io.images import read_image
    from cliff_ms.keypoints import convert_keypoints
    from cliff_ms.weights.checkpoint import load_weights
    from cliff_ms.weights.engine import load_network
    from cliff_ms.zoo import PEOPLE_NETWORKS, bundled_model

    runtime.setup_device("CPU")
    image = read_image(_photo(folder, people))
    found = pose_detector.PoseDetector()(image)
    nanodet, movenet = (
        onnxruntime.InferenceSession(str(PEOPLE_NETWORKS / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        for name in ("nanodet", "movenet-thunder")
    )
    canvas, scale_xy = pose_detector.fit(image)
    nanodet_input = pose_detector.nanodet_input(canvas)
    decoded = pose_detector.decode_boxes(nanodet.run(None, {"input_1:0": nanodet_input}))
    candidates, _ = pose_detector.select_boxes(*decoded, scale_xy, image.shape[:2])
    crops = [crop[None].astype(np.int32) for crop in pose_detector.cut_squares(image, candidates)[0]]

    weights = load_weights(bundled_model())
    lifter, _ = load_network(weights, "auto", people)
    model, count = weights.meaning.model, len(found.boxes)
    center, size = box_to_crop(found.boxes, model.crop_hw)
    keypoints = normalize_keypoints(convert_keypoints(found.keypoints, "coco17", model.joint_set), center, size)
    img_hw = np.tile(np.float32(image.shape[:2]), (count, 1))
    inputs = (keypoints, center, size, img_hw, estimate_focal_length(img_hw.astype(np.float64)).astype(np.float32))
    cv2.setNumThreads(0)

    def call() -> list[np.ndarray]:
        nanodet.run(None, {"input_1:0": nanodet_input})
        for crop in crops:
            movenet.run(None, {"input:0": crop})
        return list(lifter(*inputs)[:2])

    return call


def _photo(folder: Path, people: int) -> Path:
    """The bundled skier, once or several times side by side and above each other, as a JPEG of 1280 x 720 px."""
    import cv2

    from cliff_ms.zoo import EXAMPLES

    rows, columns = {1: (1, 1), 3: (1, 3), 8: (2, 4)}[people]
    skier = cv2.imread(str(EXAMPLES / "000000000785.jpg"))[:, 200:560]
    path = folder / f"photo_{people}_{os.getpid()}.jpg"
    cv2.imwrite(str(path), cv2.resize(np.tile(skier, (rows, columns, 1)), (1280, 720)))
    return path


def mindspore_smpl(folder: Path, batch: int, backward: bool) -> Call:
    """Our SMPL Cell: vertices and 45 joints, or, `backward`, the gradients of their mean squares."""
    from mindspore import Tensor, nn, ops

    from cliff_ms import SMPL, load_body, runtime

    class Energy(nn.Cell):
        def __init__(self, smpl: SMPL) -> None:
            super().__init__()
            self.smpl = smpl

        def construct(self, betas: Tensor, rotmats: Tensor) -> Tensor:
            vertices, joints = self.smpl(betas, rotmats)
            return (vertices * vertices).mean() + (joints * joints).mean()

    class Gradient(nn.Cell):
        def __init__(self, net: nn.Cell) -> None:
            super().__init__()
            self.net = net
            self.grad = ops.GradOperation(get_all=True)

        def construct(self, betas: Tensor, rotmats: Tensor) -> tuple[Tensor, Tensor]:
            return self.grad(self.net)(betas, rotmats)

    runtime.expect_no_convolutions()
    runtime.setup_device("CPU")
    net = SMPL(load_body())
    if backward:
        net = Gradient(Energy(net))
    inputs = [Tensor(a) for a in _smpl_inputs(batch)]
    return lambda: [output.asnumpy() for output in net(*inputs)]


def smplx_smpl(folder: Path, batch: int, backward: bool) -> Call:
    """The same body in smplx."""
    import torch

    net, _ = smplx_body(batch)
    betas, rotmats = (torch.from_numpy(a).requires_grad_(backward) for a in _smpl_inputs(batch))

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        output = net(betas=betas, global_orient=rotmats[:, :1], body_pose=rotmats[:, 1:], pose2rot=False)
        return output.vertices, output.joints

    @torch.inference_mode()
    def call() -> list[np.ndarray]:
        return [output.numpy() for output in forward()]

    def call_backward() -> list[np.ndarray]:
        vertices, joints = forward()
        energy = vertices.square().mean() + joints.square().mean()
        return [gradient.numpy() for gradient in torch.autograd.grad(energy, (betas, rotmats))]

    return call_backward if backward else call


def mindspore_train(folder: Path, encoder: str, batch: int, losses: bool) -> Call:
    """One training step with SMPL and all losses, or else with plain squared errors of the network's outputs.

    The output is loss and terms before the first step, without dropout.
    """
    cliff, _ = _cliff(encoder)
    from mindspore import Tensor, nn, ops
    from mindspore import dtype as mstype

    from cliff_ms import load_body
    from cliff_ms.body.smpl import build_smpl
    from cliff_ms.training.dropout import SeededDropout, seed_dropouts
    from cliff_ms.training.step import CLIFFTrainOneStepCell, CLIFFWithLoss

    class PlainLoss(nn.Cell):
        def __init__(self, cliff: nn.Cell) -> None:
            super().__init__(auto_prefix=False)
            self.cliff = cliff

        def construct(self, inputs: Tensor, location: Tensor, *targets: Tensor) -> tuple[Tensor, Tensor]:
            terms = ()
            for output, target in zip(self.cliff(inputs, location), targets):  # noqa: B905  no strict in a graph
                error = output - target
                terms = terms + ((error * error).mean(),)
            terms = ops.stack(terms)
            return terms.sum(), terms

    dropout_key = seed_dropouts(cliff)
    people = _people(encoder, batch, losses)
    network = CLIFFWithLoss(cliff, build_smpl(load_body(), ""), LOSS_WEIGHTS) if losses else PlainLoss(cliff)
    network.set_train()
    for _, cell in network.cells_and_names():
        if isinstance(cell, SeededDropout):
            cell.set_train(False)
    output = [value.asnumpy() for value in network(*map(Tensor, people))]

    step = CLIFFTrainOneStepCell(network, nn.Adam(cliff.trainable_params(), LEARNING_RATE), dropout_key)
    step.set_train()
    rng = np.random.default_rng(0)

    def call() -> list[np.ndarray]:  # as cliff_ms/training/trainer.py calls it
        key, rate = Tensor(rng.random(2, np.float32)), Tensor(LEARNING_RATE, mstype.float32)
        report, _ = step(True, Tensor(True), rate, key, Tensor([0.0], mstype.float32), *map(Tensor, people))
        report.asnumpy()
        return output

    return call


def torch_train(folder: Path, encoder: str, batch: int, losses: bool) -> Call:
    """The same step in eager PyTorch and smplx."""
    import torch
    from torch_train_reference import FullLoss, PlainLoss, loss_without_dropout, train_step

    cliff = _torch_cliff(folder, encoder)
    people = [torch.from_numpy(array) for array in _people(encoder, batch, losses)]
    if losses:
        smpl, body = smplx_body(batch)
        network = FullLoss(cliff, smpl, torch.from_numpy(body["J_regressor_extra"]), LOSS_WEIGHTS)
    else:
        network = PlainLoss(cliff)
    output = [value.numpy() for value in loss_without_dropout(network, people)]
    step = train_step(network, LEARNING_RATE)

    def call() -> list[np.ndarray]:
        step(people)
        return output

    return call


def rasterize_body(folder: Path) -> Call:
    """The z-buffer alone: the bundled body, as tall as the picture."""
    from cliff_ms.visual.render import rasterize

    vertices, faces, focal_length = _placed_body()
    return lambda: [rasterize(vertices, faces, focal_length, RENDER_HW).depth]


def render_body(folder: Path) -> Call:
    """The overlay of the demo: rasterized, shaded and blended into the photo."""
    from cliff_ms.visual.render import PALETTE, render_overlay

    vertices, faces, focal_length = _placed_body()
    photo = np.full((*RENDER_HW, 3), 127, np.uint8)
    return lambda: [render_overlay(photo, [(vertices, PALETTE[0])], faces, focal_length)]


def _placed_body() -> tuple[np.ndarray, np.ndarray, float]:
    from cliff_ms import load_body

    body = load_body()
    upright = body.v_template * [1, -1, -1]  # y up, facing +z, to y down, facing the camera
    focal_length = float(np.hypot(*RENDER_HW))
    height = np.ptp(upright[:, 1])
    placed = upright - upright.mean(0) + [0, 0, 1.1 * focal_length * height / RENDER_HW[0]]
    return placed.astype(np.float32), body.faces, focal_length


def _images(batch: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, *CROP_HW), np.float32)


def _smpl_inputs(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rotmats = Rotation.from_rotvec(rng.normal(0, 0.4, (batch * 24, 3))).as_matrix().reshape(batch, 24, 3, 3)
    return rng.standard_normal((batch, 10), np.float32), rotmats.astype(np.float32)


def _people(encoder: str, batch: int, labels: bool) -> list[np.ndarray]:
    """People in the order of `data.batching.Batch`; without `labels` only inputs, location and the true outputs."""
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0, 1, (batch, 17, 3)) if encoder == "keypoints" else _images(batch)
    betas, rotmats = _smpl_inputs(batch)
    if not labels:
        arrays = (inputs, rng.uniform(-0.3, 0.3, (batch, 3)), rotmats, betas, rng.uniform(0, 1, (batch, 3)))
        return [array.astype(np.float32) for array in arrays]
    center, size = rng.uniform([300, 300], [980, 420], (batch, 2)), rng.uniform(300, 600, batch)
    points = center[:, None] + size[:, None, None] * rng.uniform(-0.5, 0.5, (batch, 24, 2))
    seen = rng.random((2, batch, 24, 1)) < 0.8
    arrays = (
        inputs, center, size, np.full((batch, 2), RENDER_HW), rng.uniform(900, 1500, batch),
        np.concatenate([points, seen[0]], -1), np.concatenate([rng.normal(0, 0.4, (batch, 24, 3)), seen[1]], -1),
        rotmats, betas, rng.random(batch) < 0.8,
    )  # fmt: skip
    return [array.astype(np.float32) for array in arrays]


def smplx_body(batch: int):  # noqa: ANN201  naming the types would load PyTorch in MindSpore's processes
    """smplx.SMPL of the bundled body, and the arrays of its file."""
    import smplx
    from smplx.utils import Struct

    body = dict(np.load(ROOT / "model_zoo" / "body" / "neutral.npz"))
    vertex_ids = dict(zip(SMPLX_EXTRA_JOINTS, body["extra_vertex_ids"].tolist(), strict=True))
    return smplx.SMPL("", data_struct=Struct(**body), batch_size=batch, vertex_ids=vertex_ids), body


def _cliff(encoder: str):  # noqa: ANN202  naming the types would load MindSpore in PyTorch's processes
    """CLIFF with the same weights in every process, and their description."""
    from cliff_ms import runtime  # before MindSpore, for which it sets the environment
    from cliff_ms.config import ModelConfig
    from cliff_ms.weights.checkpoint import WeightsMeta

    if encoder == "keypoints":
        runtime.expect_no_convolutions()
    runtime.setup_device("CPU")
    runtime.set_seed(0)
    from mindspore import Tensor

    from cliff_ms.models.cliff import build_model

    config = ModelConfig(encoder=encoder)
    cliff = build_model(config).set_train(False)
    for parameter in cliff.get_parameters():
        if parameter.name.endswith("gamma"):  # activations stay near 1 without training
            parameter.set_data(Tensor(np.full(parameter.shape, 0.35, np.float32)))
    return cliff, WeightsMeta(config, origin="benchmark")


def _torch_cliff(folder: Path, encoder: str):  # noqa: ANN202  as above, the other way round
    import torch
    from torch_reference import CLIFF, ENCODERS

    content = torch.load(folder / f"{encoder}.pt", weights_only=True)["model"]
    net = CLIFF(ENCODERS[encoder]())
    net.load_state_dict({name.removeprefix("module."): value for name, value in content.items()})
    return net.eval()


def _threads() -> str:
    torch = sys.modules.get("torch")
    return f"torch {torch.get_num_threads()}" if torch else "library default"


def main() -> None:
    """Serve the contender that the command line names."""
    name, arguments, folder = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
    call = CONTENDERS[name](folder, **arguments)
    np.savez(folder / f"output_{os.getpid()}.npz", *call())
    print("ready", _threads(), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


CONTENDERS = {
    function.__name__: function
    for function in (
        prepare,
        mindspore_encoder,
        torch_encoder,
        onnxruntime_cliff,
        torch_cliff,
        mindspore_smpl,
        smplx_smpl,
        mindspore_train,
        torch_train,
        make_pictures,
        our_pipeline,
        torch_pipeline,
        rasterize_body,
        render_body,
        photo_to_bodies,
        networks_of_a_photo,
        prepare_fit,
        our_fit,
        adam_fit,
        prepare_video,
        demo_video,
        script_video,
    )
}

if __name__ == "__main__":
    main()

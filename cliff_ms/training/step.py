"""One training step as one graph: network, body, camera, loss, gradients, reduction, clipping, update, average."""

import numpy as np

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from cliff_ms import camera
from cliff_ms.body.smpl import SMPL
from cliff_ms.config import TrainConfig
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SPIN24_OF_LANDMARKS
from cliff_ms.models.cliff import CLIFF
from cliff_ms.rotation import rot6d_to_rotmat
from cliff_ms.training import losses
from cliff_ms.training.dropout import SeededDropout

# What half precision leaves in single precision, besides all that is not encoder or regressor: rotations, SMPL,
# cameras, losses and the update.
FP32_CELLS = (nn.BatchNorm1d, nn.BatchNorm2d, SeededDropout)
HALF_PRECISION = {"fp16": mstype.float16, "bf16": mstype.bfloat16}  # values of train.precision
SCALE_WINDOW = 1000  # good steps after which a dynamic loss scale is doubled
FIRST_SCALE, MAX_SCALE = 2.0**16, 2.0**24  # of a dynamic loss scale
_INFINITY = float("inf")


def check_device(settings: TrainConfig, device: str) -> None:
    """Check that a device can do what a training asks for.

    Args:
        settings: The optimisation.
        device: 'Ascend', 'GPU' or 'CPU'.

    Raises:
        InputError: It cannot.
    """
    if settings.sync_norm and device != "Ascend":
        raise InputError(
            f"train.sync_norm: MindSpore synchronises BatchNorm on Ascend only, and this is {device}; set it to false."
        )
    if settings.precision == "bf16" and device != "Ascend":
        raise InputError(
            f"train.precision bf16: MindSpore multiplies and convolves bfloat16 on Ascend only, and this is {device}; "
            "set it to fp32 or fp16."
        )


def set_half_precision(cliff: CLIFF, precision: str) -> None:
    """Let encoder and regressor compute in half precision, except for `FP32_CELLS`; the weights stay float32.

    Args:
        cliff: The network.
        precision: A key of `HALF_PRECISION`.
    """
    for part in (cliff.encoder, cliff.regressor):
        part.to_float(HALF_PRECISION[precision])
        for _, cell in part.cells_and_names():
            if isinstance(cell, FP32_CELLS):
                cell.to_float(mstype.float32)


def synchronise_norm(cliff: CLIFF) -> None:
    """Let BatchNorm take mean and variance over the batches of all workers; names and statistics stay what they are.

    Each keeps its Cell and gets the operation of `nn.SyncBatchNorm`, which differs in that alone; with one worker it is
    the same.
    """
    for _, cell in cliff.cells_and_names():
        if isinstance(cell, (nn.BatchNorm1d, nn.BatchNorm2d)):
            # A BatchNorm's own `momentum` is 1 minus the argument.
            cell.bn_train = nn.SyncBatchNorm(cell.num_features, cell.eps, 1 - cell.momentum).bn_train


def freeze_norm(cliff: CLIFF) -> None:
    """Keep BatchNorm and dropout of a network that trains as they are in evaluation; call it after `set_train`."""
    for _, cell in cliff.cells_and_names():
        if isinstance(cell, (nn.BatchNorm1d, nn.BatchNorm2d, SeededDropout)):
            cell.set_train(False)


class CLIFFWithLoss(nn.Cell):
    r"""The network and its training loss, Eq. (10), or Eq. (2) with the loss in the crop.

    Args:
        cliff (CLIFF): The network.
        smpl (SMPL): What `build_smpl` returns, with all vertices if they have a weight.
        weights (dict): Factor of each term by name (`keypoints2d`, `keypoints3d`, `pose`, `betas`, `vertices`,
            `camera`), and `total`, that of their sum. Vertices of weight 0 are not computed.
        bbox_norm (str): See :func:`cliff_ms.camera.bbox_info`. Default: 'eq5'.
        full_frame_loss (bool): CS of Table 2. Default: True.
        crop_hw (tuple): Height and width of the resized crop in px. Default: (256, 192).

    Inputs:
        The arrays of a :class:`cliff_ms.data.batching.Batch`, in its order.

    Outputs:
        Tuple of **loss** () and **terms** (T,), the terms of `term_names` without their factors.

    Supported Platforms:
        ``CPU``
    """

    def __init__(
        self,
        cliff: CLIFF,
        smpl: SMPL,
        weights: dict[str, float],
        bbox_norm: str = "eq5",
        full_frame_loss: bool = True,
        crop_hw: tuple[int, int] = (256, 192),
    ) -> None:
        super().__init__(auto_prefix=False)  # the weights keep their names
        self.cliff = cliff
        self.smpl = smpl
        self.bbox_norm = bbox_norm
        self.full_frame_loss = full_frame_loss
        self.crop_height = crop_hw[0]
        self.crop_aspect = crop_hw[1] / crop_hw[0]
        self.with_vertices = weights["vertices"] > 0
        self.term_names = tuple(name for name in weights if name != "total" and (name != "vertices" or weights[name]))
        self.factors = tuple(float(weights[name] * weights["total"]) for name in self.term_names)
        self.spin24 = Tensor(np.array(SPIN24_OF_LANDMARKS, np.int32))

    def predict(
        self, inputs: Tensor, center: Tensor, size: Tensor, img_hw: Tensor, focal_length: Tensor
    ) -> tuple[Tensor, ...]:
        """Rotations (B, 24, 3, 3), betas (B, 10), camera (B, 3), vertices, SPIN24 joints in m and in px."""
        location = camera.bbox_info(center, size, img_hw, focal_length, self.bbox_norm)
        pose6d, betas, cam_crop = self.cliff.regress(inputs, location)
        betas, cam_crop = betas.astype(mstype.float32), cam_crop.astype(mstype.float32)
        rotmats = rot6d_to_rotmat(pose6d.astype(mstype.float32))
        vertices, joints = self.smpl(betas, rotmats)
        joints = ops.gather(joints, self.spin24, 1)
        if self.full_frame_loss:
            points = losses.project_full(joints, cam_crop, center, size, img_hw, focal_length)
        else:
            points = losses.project_crop(joints, cam_crop, center, size, self.crop_height)
        return rotmats, betas, cam_crop, vertices, joints, points

    def construct(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        inputs, center, size, img_hw, focal_length, keypoints2d, keypoints3d, rotmats, betas, has_smpl = batch
        pred_rotmat, pred_betas, cam_crop, vertices, joints, points = self.predict(
            inputs, center, size, img_hw, focal_length
        )
        terms = (
            losses.keypoints2d_loss(points, keypoints2d, size, self.crop_aspect),
            losses.keypoints3d_loss(joints, keypoints3d),
            losses.pose_loss(pred_rotmat, rotmats, has_smpl),
            losses.betas_loss(pred_betas, betas, has_smpl),
        )
        if self.with_vertices:
            true_vertices, _ = self.smpl(betas, rotmats)
            terms = terms + (losses.vertices_loss(vertices, true_vertices, has_smpl),)
        terms = terms + (losses.camera_loss(cam_crop),)
        loss = 0.0
        for factor, term in zip(self.factors, terms):  # noqa: B905  the graph's zip knows no strict
            loss = loss + factor * term
        return loss, ops.stack(terms)


_scale = ops.MultitypeFuncGraph("scale")
_accumulate = ops.MultitypeFuncGraph("accumulate")
_assign = ops.MultitypeFuncGraph("assign")
_average = ops.MultitypeFuncGraph("average")
_square = ops.MultitypeFuncGraph("square")


@_scale.register("Tensor", "Tensor")
def _(factor: Tensor, grad: Tensor) -> Tensor:
    return grad * factor


@_accumulate.register("Tensor", "Tensor", "Tensor")
def _(first: Tensor, total: Tensor, grad: Tensor) -> Tensor:
    return ops.assign(total, ops.select(first, grad, total + grad))


@_assign.register("Tensor", "Tensor")
def _(target: Tensor, value: Tensor) -> Tensor:
    return ops.assign(target, value)


@_average.register("Tensor", "Tensor", "Tensor")
def _(decay: Tensor, average: Tensor, weight: Tensor) -> Tensor:
    return ops.assign(average, average * decay + weight * (1 - decay))


@_square.register("Tensor")
def _(grad: Tensor) -> Tensor:
    return ops.matmul(grad.reshape(1, -1), grad.reshape(-1, 1))  # on the CPU 8 times faster than a sum


class CLIFFTrainOneStepCell(nn.TrainOneStepCell):
    r"""One step of training in one graph.

    The gradients are averaged over the batches of a step and over the workers, and checked: if their norm is not
    finite, no weight, moment, average or BatchNorm statistic changes, on any worker, and the step counts as skipped.
    With a dynamic loss scale a skipped step halves it and 1000 good ones double it.

    Args:
        network (CLIFFWithLoss): Any cell that returns a loss and a vector of its terms.
        optimizer (nn.Optimizer): nn.Adam of one group.
        dropout_key (Parameter): What `seed_dropouts` returned.
        accumulate (int): Batches per step. Default: 1.
        clip_norm (float): Global norm that gradients are clipped to; 0 for none. Default: 0.
        ema (float): Decay of the moving average of the weights; 0 for none. Step n uses at most
            (1 + n) / (10 + n), so that the average soon forgets the untrained weights. Default: 0.
        loss_scale (float): The loss is multiplied by it and the gradients are divided. Default: 1.
        dynamic_scale (bool): Change the scale as said above. Default: False.
        scale_window (int): Default: 1000.

    Inputs:
        - **last** (bool) - Whether this is the last batch of the step, the one that updates.
        - **first** (Tensor) - (), bool; whether it is the first.
        - **learning_rate** (Tensor) - ().
        - **dropout_key** (Tensor) - (2,) in [0, 1).
        - **stop** (Tensor) - (1,), 1 where this worker was asked to stop.
        - **batch** (Tensor) - What the network takes.

    Outputs:
        Tuple of **report** (1 + T + 1,), the loss, its terms and `stop` as means over the workers; **skipped** (), the
        number of steps skipped so far; and **norm** (), that of the step's gradients before they are clipped, 0 where
        this is not the last batch.

    Supported Platforms:
        ``CPU``
    """

    def __init__(
        self,
        network: nn.Cell,
        optimizer: nn.Optimizer,
        dropout_key: Parameter,
        accumulate: int = 1,
        clip_norm: float = 0.0,
        ema: float = 0.0,
        loss_scale: float = 1.0,
        dynamic_scale: bool = False,
        scale_window: int = SCALE_WINDOW,
    ) -> None:
        super().__init__(network, optimizer)
        self.dropout_key = dropout_key
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.ema = ema
        self.dynamic_scale = dynamic_scale
        self.scale_window = scale_window
        self.map = ops.HyperMap()
        self.reduce = ops.AllReduce() if self.reducer_flag else None
        self.scale = Parameter(Tensor(loss_scale, mstype.float32), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, mstype.int32), name="good_steps", requires_grad=False)
        self.skipped = Parameter(Tensor(0, mstype.int32), name="skipped", requires_grad=False)
        if accumulate > 1:
            self.total = self.weights.clone("accumulated", init="zeros")
        if ema > 0:
            self.average = self.weights.clone("average")
        # BatchNorm changes its statistics in the forward pass; a copy brings them back after a bad one.
        moving = [p for p in network.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]
        self.has_statistics = bool(moving)
        if moving:
            self.statistics = ParameterTuple(moving)
            self.good_statistics = self.statistics.clone("good")

    def construct(
        self, last: bool, first: Tensor, learning_rate: Tensor, dropout_key: Tensor, stop: Tensor, *batch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        def scaled_loss(batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
            loss, terms = self.network(*batch)
            return loss * self.scale, loss, terms

        ops.assign(self.dropout_key, dropout_key)
        (_, loss, terms), grads = ops.value_and_grad(scaled_loss, None, self.weights, has_aux=True)(batch)
        if self.accumulate > 1:
            grads = self.map(ops.partial(_accumulate, first), self.total, grads)
        done, norm = ops.depend(self.skipped + 0, grads), ops.zeros((), mstype.float32)
        if last:
            done, norm = self.finish(learning_rate, grads)
        # Without the dependence MindSpore 2.10 drops assignments whose results nobody uses.
        report = ops.depend(ops.cat((loss.reshape(1), terms, stop)), done)
        if self.reducer_flag:
            report = self.reduce(report) / self.degree
        return report, self.skipped + 0, norm

    def finish(self, learning_rate: Tensor, grads: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Update everything with the step's summed gradients, or nothing if they are not finite."""
        grads = self.grad_reducer(grads)
        factor = 1 / (self.scale * self.accumulate)
        squared_norm = ops.addn(self.map(_square, grads)).reshape(())
        norm = ops.sqrt(squared_norm) * factor
        if self.clip_norm > 0:
            factor = factor * (self.clip_norm / ops.maximum(norm, self.clip_norm))
        # Every assignment's result is handed on: MindSpore 2.10 drops those in a branch that returns nothing of them.
        if squared_norm < _INFINITY:
            done = self.apply(learning_rate, self.map(ops.partial(_scale, factor), grads))
        else:
            done = self.skip()
        return done, norm

    def apply(self, learning_rate: Tensor, grads: tuple[Tensor, ...]) -> Tensor:
        """One update of the optimiser, the moving average, the kept statistics and the loss scale."""
        ops.assign(self.optimizer.learning_rate, learning_rate)
        done = ops.depend(self.skipped + 0, self.optimizer(grads))
        if self.ema > 0:
            step = self.optimizer.global_step[0].astype(mstype.float32)
            decay = ops.minimum((1 + step) / (10 + step), self.ema)
            done = ops.depend(done, self.map(ops.partial(_average, decay), self.average, self.weights))
        if self.has_statistics:
            done = ops.depend(done, self.map(_assign, self.good_statistics, self.statistics))
        if self.dynamic_scale:
            good = self.good_steps + 1
            grown = good >= self.scale_window
            larger = ops.minimum(self.scale * 2, MAX_SCALE)
            done = ops.depend(done, ops.assign(self.scale, ops.select(grown, larger, self.scale)))
            done = ops.depend(done, ops.assign(self.good_steps, ops.select(grown, ops.zeros_like(good), good)))
        return done

    def skip(self) -> Tensor:
        """Count the step, bring the statistics back, halve the loss scale."""
        done = ops.assign_add(self.skipped, Tensor(1, mstype.int32))
        if self.has_statistics:
            done = ops.depend(done, self.map(_assign, self.statistics, self.good_statistics))
        if self.dynamic_scale:
            done = ops.depend(done, ops.assign(self.scale, ops.maximum(self.scale / 2, 1.0)))
            done = ops.depend(done, ops.assign(self.good_steps, Tensor(0, mstype.int32)))
        return done

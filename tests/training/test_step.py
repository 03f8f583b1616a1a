"""One step: its value and gradient against NumPy in float64, and what happens to weights, moments and averages."""

import dataclasses

import numpy as np
import pytest

import mindspore as ms
from mindspore import Tensor, ops
from mindspore._c_expression import MixedPrecisionType
from mindspore.nn.layer import normalization

from cliff_ms.body.files import load_body
from cliff_ms.body.smpl import build_smpl
from cliff_ms.config import TrainConfig
from cliff_ms.data.batching import Batch
from cliff_ms.io.errors import InputError
from cliff_ms.models.cliff import CLIFF
from cliff_ms.models.regressor import Regressor
from cliff_ms.training.dropout import SeededDropout, seed_dropouts
from cliff_ms.training.step import check_device, set_half_precision, synchronise_norm
from tests.toys.reference import reference_joints
from tests.toys.training import (
    WEIGHTS,
    cliff_with_loss,
    full_points,
    people,
    plain_cliff,
    small_network,
    train_step,
    training_body,
)

BODY = training_body()
BATCH, _ = people(BODY, 8)


def state(step):
    """All that a step may change, by name."""
    return {p.name: p.asnumpy().copy() for p in step.get_parameters()}


def moments(step):
    return np.concatenate([m.asnumpy().ravel() for m in step.optimizer.moment1])


def reference_loss(weights, batch, factors):
    """The whole forward pass in float64, written from the paper."""
    inputs, center, size, img_hw, focal, keypoints2d, keypoints3d, rotmats, betas, _ = batch
    location = np.c_[(center - img_hw[:, ::-1] / 2) / focal[:, None], size / focal]  # Eq. (5)
    feature = inputs.reshape(len(inputs), -1) @ weights["encoder.dense.weight"].T + weights["encoder.dense.bias"]
    state = [np.tile(weights[f"regressor.init_{name}"], (len(inputs), 1)) for name in ("pose", "shape", "cam")]
    for _ in range(3):
        hidden = np.concatenate([feature, location, *state], 1)
        for layer in ("fc1", "fc2"):
            hidden = hidden @ weights[f"regressor.{layer}.weight"].T + weights[f"regressor.{layer}.bias"]
        for k, layer in enumerate(("decpose", "decshape", "deccam")):
            step = hidden @ weights[f"regressor.{layer}.weight"].T + weights[f"regressor.{layer}.bias"]
            state[k] = state[k] + step
    pose, shape, cam = state
    columns = pose.reshape(-1, 24, 3, 2)
    first = columns[..., 0] / np.linalg.norm(columns[..., 0], axis=-1, keepdims=True)
    second = columns[..., 1] - (first * columns[..., 1]).sum(-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    pred = np.stack([first, second, np.cross(first, second)], -1)
    vertices, joints = reference_joints(BODY, shape, pred)
    true_vertices, _ = reference_joints(BODY, betas, rotmats)
    points = full_points(joints, cam, center, size, img_hw, focal)
    half = np.stack([0.75 * size, size], -1)[:, None] / 2
    relative = [j - j[:, 2:4].mean(1, keepdims=True) for j in (joints, keypoints3d[..., :3])]
    terms = {
        "keypoints2d": np.mean(keypoints2d[..., 2:] * ((points - keypoints2d[..., :2]) / half) ** 2),
        "keypoints3d": np.mean((relative[0] - relative[1]) ** 2),
        "pose": np.mean((pred - rotmats) ** 2),
        "betas": np.mean((shape - betas) ** 2),
        "vertices": np.mean(np.abs(vertices - true_vertices)),
        "camera": np.mean(np.exp(-20 * cam[:, 0])),
    }
    return factors["total"] * sum(factors[name] * term for name, term in terms.items()), terms


@pytest.mark.slow
def test_loss_and_gradient_match_the_paper(graph_mode):
    ms.set_seed(0)
    cliff = plain_cliff()
    factors = {**WEIGHTS, "vertices": 0.7}
    network, key = cliff_with_loss(cliff, BODY, factors)
    batch = Batch(*(array.astype(np.float64) for array in BATCH))
    weights = {p.name: p.asnumpy().astype(np.float64) for p in cliff.get_parameters()}
    step, run = train_step(network, key)
    report, _ = run(BATCH)
    expected, expected_terms = reference_loss(weights, batch, factors)
    assert network.term_names == tuple(expected_terms)
    np.testing.assert_allclose(report, [expected, *expected_terms.values(), 0], rtol=1e-5)
    rng = np.random.default_rng(0)
    for param, moment in zip(step.weights, step.optimizer.moment1, strict=True):
        direction = rng.standard_normal(param.shape)
        sides = []
        for sign in (1, -1):
            moved = {**weights, param.name: weights[param.name] + sign * 1e-6 * direction}
            sides.append(reference_loss(moved, batch, factors)[0])
        grad = moment.asnumpy() / 0.1  # m = 0.1 g after one step of Adam
        np.testing.assert_allclose((grad * direction).sum(), (sides[0] - sides[1]) / 2e-6, rtol=2e-4)


RNG = np.random.default_rng(5)
POINTS = (RNG.standard_normal((8, 5)).astype(np.float32), 10 * RNG.standard_normal((8, 1)).astype(np.float32))
BROKEN = (np.where(np.arange(40).reshape(8, 5) == 7, np.nan, POINTS[0]).astype(np.float32), POINTS[1])


def test_update_clip_and_average(graph_mode):
    ms.set_seed(0)
    step, run = train_step(small_network(batch_norm=False), clip_norm=0.5, ema=0.9, loss_scale=256.0)
    before = state(step)
    run(POINTS)
    after = state(step)
    np.testing.assert_allclose(np.linalg.norm(moments(step) / 0.1), 0.5, rtol=1e-5)
    for name in (p.name for p in step.weights):
        g = after[f"moment1.{name}"] / 0.1
        np.testing.assert_allclose(after[name], before[name] - 1e-3 * g / (np.abs(g) + 1e-6), atol=1e-6)
        decay = 2 / 11  # (1 + n) / (10 + n)
        np.testing.assert_allclose(
            after[f"average.{name}"], decay * before[name] + (1 - decay) * after[name], atol=1e-6
        )
    for _ in range(85):
        before = state(step)
        run(POINTS)
    for name in (p.name for p in step.weights):
        expected = 0.9 * before[f"average.{name}"] + 0.1 * step.parameters_dict()[name].asnumpy()
        np.testing.assert_allclose(state(step)[f"average.{name}"], expected, atol=1e-6)


def test_two_accumulated_halves_and_any_loss_scale_are_one_batch(graph_mode):
    grads = []
    for options in ({}, {"accumulate": 2, "loss_scale": 64.0}):
        ms.set_seed(0)
        step, run = train_step(small_network(batch_norm=False), learning_rate=0.0, **options)
        parts = np.split(np.arange(8), options.get("accumulate", 1))
        for _ in range(2):  # the second step must start from zero
            for k, part in enumerate(parts):
                run([a[part] for a in POINTS], first=k == 0, last=k == len(parts) - 1)
        grads.append(moments(step))
    np.testing.assert_allclose(grads[1], grads[0], atol=1e-6 * np.abs(grads[0]).max())


@pytest.fixture(scope="module")
def full_step(graph_mode):
    """BatchNorm, moving average and dynamic loss scale in one."""
    ms.set_seed(0)
    options = {"ema": 0.9, "clip_norm": 1.0, "loss_scale": 2.0**10, "dynamic_scale": True, "scale_window": 3}
    return train_step(small_network(batch_norm=True), **options)


def test_a_step_that_is_not_finite_changes_nothing_but_its_count(full_step):
    step, run = full_step
    run(POINTS)
    before = state(step)
    assert all(np.array_equal(before[f"good.{p.name}"], before[p.name]) for p in step.statistics)
    for k in (1, 2):
        report, skipped = run(BROKEN)
        assert not np.isfinite(report[0]) and skipped == before["skipped"] + k
    after = state(step)
    changed = {name for name in after if not np.array_equal(before[name], after[name])}
    assert changed == {"skipped", "loss_scale", "good_steps"}
    report, skipped = run(POINTS)
    assert np.isfinite(report).all() and skipped == before["skipped"] + 2
    later = state(step)
    assert all(not np.array_equal(later[p.name], after[p.name]) for p in (*step.weights, *step.statistics))
    assert all(np.isfinite(array).all() for array in later.values())


def test_loss_scale_is_halved_and_doubled(full_step):
    step, run = full_step
    run(BROKEN)  # starts the count anew
    first = float(step.scale.asnumpy())
    scales = []
    for batch in (POINTS, POINTS, BROKEN, POINTS, POINTS, POINTS, BROKEN):
        run(batch)
        scales.append(float(step.scale.asnumpy()) / first)
    assert scales == [1, 1, 0.5, 0.5, 0.5, 1, 0.5]
    for _ in range(12):
        run(BROKEN)
    assert float(step.scale.asnumpy()) == 1


@pytest.mark.slow
def test_one_batch_is_learnt(graph_mode):
    ms.set_seed(0)
    _, run = train_step(*cliff_with_loss(plain_cliff(), BODY), clip_norm=1.0)
    first = run(BATCH)[0][0]
    for _ in range(60):
        last = run(BATCH)[0][0]
    assert last < first / 10


def test_dropout_is_a_function_of_its_key(graph_mode):
    key = ms.Parameter(Tensor(np.zeros(2, np.float32)), name="key", requires_grad=False)
    cell = SeededDropout(0.3, key)
    cell.set_train()
    ones = ops.ones((256, 512))

    def masks(*start):
        key.set_data(Tensor(np.array(start, np.float32)))
        return [cell(ones).asnumpy() for _ in range(3)]

    first, again, other = masks(0.25, 0.5), masks(0.25, 0.5), masks(0.26, 0.5)
    assert np.array_equal(first, again)
    np.testing.assert_allclose(first[0].max(), 1 / 0.7, rtol=1e-6)
    pairs = [(first[0], first[1]), (first[1], first[2]), (first[0], other[0])]
    pairs += [(first[0][1:], first[0][:-1]), (first[0][:, 1:], first[0][:, :-1])]
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel() > 0, b.ravel() > 0)[0, 1]) < 0.02
    for axis, count in ((0, 256), (1, 512), (None, 256 * 512)):
        rate = (first[0] == 0).mean(axis)
        assert np.abs(rate - 0.3).max() < 6 * np.sqrt(0.21 / count)
    cell.set_train(False)
    assert np.array_equal(cell(ones).asnumpy(), ones.asnumpy())


@pytest.mark.slow
def test_half_precision_keeps_weights_and_geometry_in_single_and_drops_what_the_key_says(graph_mode):
    def with_dropout():
        ms.set_seed(0)
        cliff = CLIFF("keypoints")
        cliff.regressor = Regressor(cliff.encoder.out_channels)
        return cliff

    network, _ = cliff_with_loss(with_dropout(), BODY)
    network.set_train()
    full, _ = network(*map(Tensor, BATCH))
    cliff = with_dropout()
    network, key = cliff_with_loss(cliff, BODY)
    set_half_precision(cliff, "fp16")
    step, run = train_step(network, key, learning_rate=0.0, loss_scale=2.0**10, dynamic_scale=True)
    reports = [run(BATCH, key=key) for key in ((0, 0), (0.3, 0.2), (0, 0))]
    losses = [report[0] for report, _ in reports]
    np.testing.assert_allclose(losses[0], full.asnumpy(), rtol=1e-2)
    assert losses[0] != full.asnumpy() and reports[-1][1] == 0
    assert losses[0] == losses[2] != losses[1]
    assert all(p.dtype == ms.float32 for p in step.weights)


def test_what_only_ascend_has_is_refused_elsewhere():
    for device in ("CPU", "GPU"):
        with pytest.raises(InputError, match=f"train.sync_norm: .* on Ascend only, and this is {device}"):
            check_device(TrainConfig(sync_norm=True), device)
        with pytest.raises(InputError, match=f"train.precision bf16: .* on Ascend only, and this is {device}"):
            check_device(TrainConfig(precision="bf16"), device)
        check_device(TrainConfig(precision="fp16", freeze_norm=True), device)
    check_device(TrainConfig(precision="bf16", sync_norm=True), "Ascend")


def test_bf16_is_of_encoder_and_regressor_alone(graph_mode):
    """The graph that Ascend would be given; the CPU has no kernels for it."""
    cliff = CLIFF("keypoints", width=0.0625)
    cliff.regressor = Regressor(cliff.encoder.out_channels)  # with dropout, as images have it
    seed_dropouts(cliff)
    set_half_precision(cliff, "bf16")
    kinds = {name: cell.mixed_precision_type for name, cell in cliff.cells_and_names() if not cell.cells()}
    halves = {name for name, kind in kinds.items() if kind == MixedPrecisionType.BF16}
    assert {"regressor.fc1", "regressor.deccam"} <= halves
    rest = {type(dict(cliff.cells_and_names())[name]) for name in kinds.keys() - halves}
    assert rest == {ms.nn.BatchNorm1d, SeededDropout}
    assert all(p.dtype == ms.float32 for p in cliff.get_parameters())


def test_synchronised_norm_of_one_worker_is_plain_and_of_two_the_group_s(graph_mode, monkeypatch):
    states = []
    for synchronised in (False, True):
        ms.set_seed(0)
        network = small_network(batch_norm=True)
        if synchronised:
            synchronise_norm(network)
        step, run = train_step(network)
        reports = [run(POINTS)[0] for _ in range(3)]
        states.append(state(step) | {"reports": np.array(reports)})
    assert list(states[0]) == list(states[1])  # what a checkpoint holds, under the same names
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array, err_msg=name)

    # Two workers on Ascend, as far as it can be seen without: the operation, its group and its constants.
    monkeypatch.setattr(normalization, "get_group_size", lambda: 2)
    monkeypatch.setattr(normalization.context, "get_context", lambda key: "Ascend")
    synchronise_norm(network)
    (norm,) = (cell for _, cell in network.cells_and_names() if isinstance(cell, ms.nn.BatchNorm1d))
    assert type(norm.bn_train).__name__ == "SyncBatchNorm"
    given = norm.bn_train.init_attrs
    assert (given["group"], given["device_num"]) == ("hccl_world_group", 2)
    np.testing.assert_allclose([given["epsilon"], given["momentum"]], [1e-5, 0.1])


@pytest.mark.slow
def test_joints_do_not_miss_the_vertices_left_out(graph_mode):
    body = load_body()
    rng = np.random.default_rng(0)
    betas = rng.standard_normal((2, 10)).astype(np.float32)
    pose = rng.normal(0, 0.4, (2, 72)).astype(np.float32)
    whole, few = build_smpl(body, "", with_vertices=True), build_smpl(body, "")
    assert few.vertex_count < 1000 < whole.vertex_count
    joints = [smpl(Tensor(betas), Tensor(pose))[1].asnumpy() for smpl in (whole, few)]
    np.testing.assert_allclose(joints[0], joints[1], atol=2e-6)


def test_a_body_without_the_joints_of_annotations(graph_mode):
    with pytest.raises(InputError, match="my.npz has no 'J_regressor_extra'.*J_regressor_extra.npy"):
        build_smpl(dataclasses.replace(BODY, regressors={}), "my.npz")

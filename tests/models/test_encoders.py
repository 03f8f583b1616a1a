"""The encoders against the official outputs, an independent PyTorch reference, and exact pooling and upsampling."""

import numpy as np
import pytest

import mindspore as ms
from mindspore import nn, ops

from cliff_ms import runtime
from cliff_ms.models.hrnet import HighResolutionModule, HRNet, upsample
from cliff_ms.models.resnet import max_pool, resnet18, resnet50
from tests.golden import weights

BATCH_NORM_SUFFIX = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    runtime.setup_device("CPU")


class Energy(nn.Cell):
    """Mean square of all outputs, so that every parameter matters."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, x):
        y = self.net(x)
        total = 0.0
        for out in y if isinstance(y, tuple) else (y,):
            total = total + (out * out).mean()
        return total


def random_tensor(*shape):
    return ms.Tensor(np.random.default_rng(3).standard_normal(shape).astype(np.float32))


def as_torch_names(net):
    """PyTorch name -> Parameter, from the rule for BatchNorm."""
    back = {ours: theirs for theirs, ours in BATCH_NORM_SUFFIX.items()}
    found = {}
    for name, parameter in net.parameters_and_names():
        assert parameter.name == name
        path, _, leaf = name.rpartition(".")
        found[f"{path}.{back.get(leaf, leaf)}"] = parameter
    return found


def set_golden_weights(net):
    for name, parameter in as_torch_names(net).items():
        parameter.set_data(ms.Tensor(weights.values(f"encoder.{name}", parameter.shape)))


@pytest.mark.parametrize(
    ("backbone", "encoder"), [("res50", resnet50), pytest.param("hr48", HRNet, marks=pytest.mark.slow)]
)
def test_official_names_and_feature(backbone, encoder):
    net = encoder().set_train(False)
    schema = {
        name.removeprefix("encoder."): shape
        for name, shape in weights.schema(backbone).items()
        if name.startswith("encoder.") and not name.endswith("num_batches_tracked")
    }
    assert {name: tuple(p.shape) for name, p in as_torch_names(net).items()} == schema

    set_golden_weights(net)
    image, expected = weights.official(backbone)
    feature = net(ms.Tensor(image)).asnumpy()
    assert feature.shape == (2, net.out_channels)
    # Measured 9e-8 (res50) and 1.2e-7 (hr48), for values up to 0.6.
    np.testing.assert_allclose(feature, expected["feature"], rtol=0, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(64, 48), (97, 67)])
def test_resnet18_equals_pytorch(size):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    net = resnet18(width=0.25).set_train(False)
    set_golden_weights(net)
    p = {name: torch.from_numpy(value.asnumpy()) for name, value in as_torch_names(net).items()}

    def conv_bn(x, conv, bn, stride, padding):
        x = functional.conv2d(x, p[f"{conv}.weight"], stride=stride, padding=padding)
        running = (p[f"{bn}.running_mean"], p[f"{bn}.running_var"])
        return functional.batch_norm(x, *running, p[f"{bn}.weight"], p[f"{bn}.bias"])

    image = random_tensor(2, 3, *size)
    x = conv_bn(torch.from_numpy(image.asnumpy()), "conv1", "bn1", 2, 3).relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    for layer in range(1, 5):
        for block in range(2):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = conv_bn(x, f"{at}.conv1", f"{at}.bn1", stride, 1).relu()
            y = conv_bn(y, f"{at}.conv2", f"{at}.bn2", 1, 1)
            x = x if stride == 1 else conv_bn(x, f"{at}.downsample.0", f"{at}.downsample.1", 2, 0)
            x = (x + y).relu()
    expected = x.mean((2, 3)).numpy()
    assert expected.shape == (2, 128)
    np.testing.assert_allclose(net(image).asnumpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.torch
@pytest.mark.parametrize("size", [(8, 6), (7, 6), (8, 5), (9, 7)])
def test_max_pool_is_exact(size):
    torch = pytest.importorskip("torch")
    x = random_tensor(2, 3, *size)
    theirs = torch.from_numpy(x.asnumpy()).requires_grad_()
    expected = torch.nn.functional.max_pool2d(theirs.relu(), 3, 2, 1)
    np.testing.assert_array_equal(ms.jit(max_pool)(ops.relu(x)).asnumpy(), expected.detach().numpy())

    expected.square().sum().backward()

    def energy(a):
        return (max_pool(ops.relu(a)) ** 2).sum()

    np.testing.assert_array_equal(ms.jit(ms.grad(energy))(x).asnumpy(), theirs.grad.numpy())


@pytest.mark.parametrize(("size", "factor"), [((4, 3), 2), ((5, 7), 4), ((1, 3), 8)])
def test_upsample_is_exact(size, factor):
    x = random_tensor(2, 3, *size)
    expected = x.asnumpy().repeat(factor, axis=2).repeat(factor, axis=3)
    np.testing.assert_array_equal(ms.jit(upsample, static_argnums=1)(x, factor).asnumpy(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(224, 224), (64, 48)])
def test_any_crop_size(size):
    feature = resnet50().set_train(False)(random_tensor(1, 3, *size)).asnumpy()
    assert feature.shape == (1, 2048)
    assert np.isfinite(feature).all() and feature.std() > 0


@pytest.mark.slow
def test_hrnet_refuses_sizes_its_branches_cannot_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a graph that does not compile leaves a dump where it stands
    with pytest.raises(ValueError, match="multiples of 32"):
        HRNet()(random_tensor(1, 3, 64, 48))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "shapes"),
    [
        (lambda: resnet18(width=0.25), [(2, 3, 64, 48)]),
        (lambda: HighResolutionModule((4, 8, 16, 32)), [(2, 4, 16, 8), (2, 8, 8, 4), (2, 16, 4, 2), (2, 32, 2, 1)]),
    ],
    ids=["resnet18", "hrnet_module"],
)
def test_every_parameter_gets_a_gradient(net, shapes):
    net = net().set_train(True)
    x = tuple(random_tensor(*shape) for shape in shapes)
    parameters = net.trainable_params()
    gradients = ms.grad(Energy(net), None, parameters)(x if len(x) > 1 else x[0])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        value = gradient.asnumpy()
        assert np.isfinite(value).all(), parameter.name
        assert np.abs(value).max() > 1e-7, parameter.name

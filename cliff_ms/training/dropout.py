"""Dropout that is a function of a key, so that a resumed training drops the same units as one that never stopped."""

import numpy as np

from mindspore import Parameter, Tensor, nn, ops

# Steps of the additive recurrence that gives each call of a step its own key: fractions of square roots, as unrelated
# to each other as numbers are.
_KEY_STEP = np.sqrt([2, 3]) % 1
_TABLE = np.random.default_rng(20221023).random(1 << 16).astype(np.float32)
_SPREAD = 1000.0  # turns that a row's phase makes from the first to the last column


class SeededDropout(nn.Cell):
    r"""nn.Dropout whose mask depends on a key only; that of MindSpore hides its state in the kernel.

    The uniform number of row b and column c is the fraction of :math:`(a_b + k_0)(z_c + k_1) + v_c` with fixed random
    a, z and v. Each call moves the key on, so every call of a step has its own mask.

    Args:
        p (float): Probability of dropping a unit.
        key (Parameter): (2,) in [0, 1), shared by all cells of a network.

    Inputs:
        - **x** (Tensor) - (B, C); B + 2 C at most 65536.

    Outputs:
        Tensor, (B, C).

    Supported Platforms:
        ``CPU``
    """

    def __init__(self, p: float, key: Parameter) -> None:
        super().__init__()
        self.p = p
        self.key = key
        self.table = Tensor(_TABLE)
        self.step = Tensor(_KEY_STEP.astype(np.float32))

    def construct(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        rows, columns = x.shape
        key = self.key + self.step
        key = key - ops.floor(key)
        ops.assign(self.key, key)
        a = self.table[:rows].reshape(rows, 1)
        z = self.table[rows : rows + columns]
        v = self.table[rows + columns : rows + 2 * columns]
        uniform = (a + key[0]) * _SPREAD * (z + key[1]) + v
        uniform = uniform - ops.floor(uniform)
        kept = (uniform >= self.p).astype(x.dtype)
        return x * (kept * (1 / (1 - self.p)))


def seed_dropouts(net: nn.Cell) -> Parameter:
    """Put a `SeededDropout` in the place of every nn.Dropout of a network.

    Args:
        net: Changed in place; its weights are not touched, but the key is among its parameters from now on.

    Returns:
        The key (2,) that all of them share, to be set before every step.
    """
    key = Parameter(Tensor(np.zeros(2, np.float32)), name="dropout_key", requires_grad=False)
    _replace(net, key)
    return key


def _replace(net: nn.Cell, key: Parameter) -> None:
    for name, child in list(net.name_cells().items()):
        if not isinstance(child, nn.Dropout):
            _replace(child, key)
        elif isinstance(net, nn.SequentialCell):
            net[int(name)] = SeededDropout(child.p, key)
        else:
            setattr(net, name, SeededDropout(child.p, key))

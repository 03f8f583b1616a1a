"""Device, mode and seed: the only module that touches MindSpore's global state."""

import logging
import os
import signal
import types
from collections.abc import Iterator
from contextlib import contextmanager

from cliff_ms.io.errors import InputError

# oneDNN's AVX-512 convolutions in the CPU wheel of MindSpore 2.10.0 are about 100 times slower than its AVX2 ones
# (3x3, 64 channels: 4.1 s against 0.04 s). The library reads this variable at its first kernel.
_ISA = "ONEDNN_MAX_CPU_ISA"
_limited = _ISA not in os.environ
os.environ.setdefault(_ISA, "AVX2")
os.environ.setdefault("GLOG_v", "3")  # MindSpore logs errors only; its warnings are about its own internals

DEVICE_TARGETS = ("auto", "Ascend", "GPU", "CPU")
ENGINES = ("auto", "mindspore", "onnxruntime")
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_PREFERENCE = ("Ascend", "GPU", "CPU")
_MISSING = {
    "Ascend": "an Ascend NPU with its driver and the CANN toolkit",
    "GPU": "an NVIDIA GPU with its driver, CUDA 11.6 or 11.8, cuDNN 8 and a MindSpore build with the GPU back-end",
}

log = logging.getLogger("cliff_ms")
_device: str | None = None  # what `setup_device` took


def setup_device(device_target: str = "auto") -> str:
    """Choose the device and switch MindSpore to graph mode with strict syntax.

    Args:
        device_target: 'auto' (Ascend, then GPU, then CPU), 'Ascend', 'GPU' or 'CPU'. A device that was asked for by
            name is never replaced by another one.

    Returns:
        The device taken: 'Ascend', 'GPU' or 'CPU'.

    Raises:
        InputError: If the device is unknown or not there.
    """
    global _device
    if device_target not in DEVICE_TARGETS:
        raise InputError(f"Unknown device '{device_target}': expected one of {', '.join(DEVICE_TARGETS)}.")
    import mindspore as ms

    candidates = _PREFERENCE if device_target == "auto" else (device_target,)
    device = next((d for d in candidates if ms.hal.is_available(d)), None)
    if device is None:
        raise InputError(
            f"Device '{device_target}' is not available: it needs {_MISSING[device_target]}; "
            "use --device_target CPU to run on the processor."
        )
    ms.set_device(device)
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    log.info("device: %s", device)
    _device = device
    return device


def listen_for_ctrl_c() -> None:
    """Let Ctrl-C raise KeyboardInterrupt in a program, as Python does, but not inside MindSpore: there it ends at once.

    MindSpore would make an ImportError or an abort of the exception, or write `rank_0/om/analyze_fail.ir` about it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "mindspore":
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        frame = frame.f_back
    raise KeyboardInterrupt


def current_device() -> str:
    """The device that MindSpore computes on: 'Ascend', 'GPU' or 'CPU'."""
    import mindspore as ms

    return ms.get_context("device_target")


def expect_no_convolutions() -> None:
    """Use AVX-512 where the processor has it, see the top of this file: keypoint models train 1.3 times as fast.

    For programs that know what they will run, before their first kernel: the choice holds as long as the process.
    """
    if _limited:
        os.environ.pop(_ISA, None)


def ensure_device() -> None:
    """Call `setup_device` where nobody has; a MindSpore that has computed already keeps its device and mode."""
    if _device is not None:
        return
    try:
        setup_device()
    except RuntimeError:  # MindSpore's only word for it: the device cannot be set any more
        log.info("device: as MindSpore has been used so far")


def set_seed(seed: int) -> None:
    """Fix MindSpore's and NumPy's global random state, which the initial weights come from."""
    import mindspore as ms

    ms.set_seed(seed)


def setup_distributed() -> tuple[int, int]:
    """Join the other workers when msrun started this process; call it after `setup_device`.

    In MindSpore's scheduler, a process that runs the same script, this call serves until all workers are done and does
    not return to training.

    Returns:
        The number of this worker and how many there are: (0, 1) without msrun.
    """
    role = os.environ.get("MS_ROLE")
    if role is None:
        return 0, 1
    import mindspore as ms
    from mindspore.communication import get_group_size, get_rank, init

    if role == "MS_SCHED":
        # A request to stop is for the workers: they save, leave, and this process ends with them.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    init()
    rank, world_size = get_rank(), get_group_size()
    ms.set_auto_parallel_context(
        parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=world_size
    )
    return rank, world_size


class StopRequest:
    """Whether somebody has asked this process to stop.

    Args:
        hears: Take the signals, see `stop_signals`.

    Attributes:
        signal: SIGINT or SIGTERM, or None.
    """

    def __init__(self, hears: bool = False) -> None:
        self.signal: int | None = None
        self._hears = hears
        self.listen()

    def listen(self) -> None:
        """Take the signals: again after MindSpore has compiled a graph, from when on it turns Ctrl-C into SIGTERM."""
        if self._hears and self.signal is None:
            for each in _STOPPING:
                signal.signal(each, self._note)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self.signal = number
        log.warning("stopping after this step; once more to stop without saving")
        for each in _STOPPING:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Take SIGTERM and Ctrl-C as a request to stop after the step; the second one ends the process at once.

    Yields:
        The request.
    """
    before = {each: signal.getsignal(each) for each in _STOPPING}
    try:
        yield StopRequest(hears=True)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

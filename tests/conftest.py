import collections

import pytest
import safetensors.numpy

from cliff_ms import runtime
from cliff_ms.weights import checkpoint


@pytest.fixture(scope="session")
def graph_mode():
    """Graph mode with strict syntax, on the CPU: what users run."""
    runtime.setup_device("CPU")


@pytest.fixture
def file_reads(monkeypatch):
    """Weights files, .safetensors, that are read from now on: 'hash' and 'arrays' -> paths in order."""
    found = collections.defaultdict(list)

    def noted(kind, read):
        return lambda path: found[kind].append(path) or read(path)

    monkeypatch.setattr(checkpoint, "sha256", noted("hash", checkpoint.sha256))
    monkeypatch.setattr(safetensors.numpy, "load_file", noted("arrays", safetensors.numpy.load_file))
    return found

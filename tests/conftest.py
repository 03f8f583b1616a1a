import collections
import os

import pytest
import safetensors.numpy

from cliff_ms import runtime
from cliff_ms.weights import checkpoint

runtime.expect_no_convolutions = lambda: None  # here, networks with convolutions come after those without


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Networks that are exported on the way must not come from, nor go into, the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


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

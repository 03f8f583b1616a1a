import pytest

from cliff_ms import runtime


@pytest.fixture(scope="session")
def graph_mode():
    """Graph mode with strict syntax, on the CPU: what users run."""
    runtime.setup_device("CPU")

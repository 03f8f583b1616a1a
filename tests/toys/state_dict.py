"""A PyTorch state dict of the official CLIFF without its weights."""

import json

import torch

from tests.paths import GOLDEN


def blank_state(encoder):
    """An official state dict in which every entry is one number, told apart by its place; takes next to no memory."""
    schema = json.loads((GOLDEN / f"schema_official_{encoder}.json").read_text())
    return {
        name: torch.tensor(9) if name.endswith("num_batches_tracked") else torch.tensor(float(i)).expand(shape)
        for i, (name, shape) in enumerate(schema.items())
    }


def renamed(state, encoder, head):
    """The official names in another dialect."""
    return {
        encoder + name.removeprefix("encoder.") if name.startswith("encoder.") else head + name: value
        for name, value in state.items()
    }

"""One worker of a validation, started alone or by msrun; argument: the folder that worker 0 writes its errors to."""

import json
import sys
from pathlib import Path

from cliff_ms import runtime
from cliff_ms.body.files import load_body
from cliff_ms.config import load_config
from cliff_ms.zoo import HELD_OUT
from tests.paths import ROOT

SETTINGS = [f"data.val=[{{annotations: {HELD_OUT}/annotations.npz}}]", "data.batch_size=0", "data.global_batch_size=96"]


def main():
    runtime.setup_device("CPU")
    rank, world_size = runtime.setup_distributed()
    from cliff_ms.models.cliff import build_model
    from cliff_ms.training.data import for_workers
    from cliff_ms.training.trainer import network_with_loss
    from cliff_ms.training.validation import Validator
    from cliff_ms.weights.checkpoint import parameter_arrays

    config, body = for_workers(load_config(ROOT / "configs" / "smoke.yaml", SETTINGS), world_size), load_body()
    runtime.set_seed(0)
    weights = parameter_arrays(build_model(config.model))
    for name in weights:
        if name.endswith("moving_mean"):
            weights[name] += rank  # every worker has statistics of its own
    validator = Validator(network_with_loss(build_model(config.model), config, body), config, body, rank, world_size)
    errors = validator.validate(weights)
    Path(sys.argv[1], f"errors_{world_size}_{rank}.json").write_text(json.dumps(errors))


main()

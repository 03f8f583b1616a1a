"""Run by msrun in test_distributed.py: one train step on this worker's half of the batch; writes what it gave."""

import sys

import numpy as np

from cliff_ms import runtime
from tests.toys.training import cliff_with_loss, people, plain_cliff, train_step, training_body

if __name__ == "__main__":
    runtime.setup_device("CPU")
    rank, world_size = runtime.setup_distributed()
    runtime.set_seed(0)
    body = training_body()
    batch, _ = people(body, 8)
    step, run = train_step(*cliff_with_loss(plain_cliff(), body))
    report, _ = run([array[rank * 4 : rank * 4 + 4] for array in batch])
    broken = [array * np.float32(np.nan if rank == 1 and k == 0 else 1) for k, array in enumerate(batch)]
    _, skipped = run(broken)  # bad on one worker is bad on all
    moments = {p.name: m.asnumpy() for p, m in zip(step.weights, step.optimizer.moment1, strict=True)}
    np.savez(f"{sys.argv[1]}/rank_{rank}.npz", report=report, skipped=skipped, **moments)

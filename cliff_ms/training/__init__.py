"""Training: the losses, the step, and the loop around it."""

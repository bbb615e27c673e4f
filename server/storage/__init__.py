"""Where a finished round goes: the run directory, its checkpoints and TensorBoard."""

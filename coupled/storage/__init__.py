"""The run folder: snapshots, checkpoints, logs and the description of the run."""

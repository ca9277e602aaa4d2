"""Arms: a network, an objective and an optimizer each, trained in lockstep on the shared stream."""

"""`coupled`: train objectives in lockstep under shared randomness, and keep the weights of every epoch."""

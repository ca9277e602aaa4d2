"""The shared randomness: which images a batch holds and how each view is made, a pure function of the seed."""

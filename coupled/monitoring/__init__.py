"""What a person sees of a run, warnings about its data, and the signals that stop it."""

"""Progress and warnings of a run, its trackers, and the signals that stop it."""

"""The papers' bounds and losses, computed from measured values."""

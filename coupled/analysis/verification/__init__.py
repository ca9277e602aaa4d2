"""Checks of a run against its own records."""

"""Processes: how they find each other, what they exchange, and how a failure reaches all of them."""

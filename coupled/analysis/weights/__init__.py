"""Distances between the arms' weights, read tensor by tensor."""

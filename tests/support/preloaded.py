"""Imported by the server from which the tests' processes are forked: what most of them would import and prepare again.

The garbage collector passes over all of this. Its passes in every process took as long as a tiny training, because
they read, and so copy, the memory that the process shares with the server.
"""

import gc

import hypothesis
import pytest
import torch

import coupled.coordinator
import coupled.datasets.digits
from coupled.models.probe import outline
from support import garbage, tiny

__all__ = ["coupled", "hypothesis", "pytest", "torch"]

# a forward pass only: autograd does not work in a fork of a process that has used it
outline("float32", False, **tiny.tiny_settings().network_options())
gc.collect()
garbage.collect_rarely()

"""The launcher of `coupled prepare-data` in a checkout."""

import sys

here, _, name = __file__.rpartition("/")  # remove this folder from sys.path, so that no file in it hides a module
sys.path[:] = [here.rpartition("/")[0], *(place for place in sys.path if place != here)]

from coupled.cli import main

sys.exit(main(["prepare-data", *sys.argv[1:]]))

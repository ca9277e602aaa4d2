"""A checkpoint with a projector of another form than the default: import, settings and analyses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from coupled import cli, open_run
from coupled.models.network import build_network

SETTINGS = ("--encoder", "resnet18", "--dataset", "digits", "dataset.image_size=8", "encoder.width_multiplier=0.0625")
VICREG = {"hidden_dims": (24, 16), "output_dim": 8, "last_norm": False, "bias": "hidden"}


def test_a_head_of_three_layers_is_imported_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VICReg's, under its names: the settings of the run describe it, and z and the aligned weights are measured."""
    options: dict[str, Any] = {"encoder": "resnet18", "width_multiplier": 0.0625, "image_size": 8}
    options |= {f"projector_{key}": value for key, value in VICREG.items()}
    networks = {arm: build_network(**options, seed=seed).eval() for arm, seed in (("cl", 1), ("ce", 2))}
    words = ["import-checkpoints", *SETTINGS]
    for arm, network in networks.items():
        tensors = {name.replace("encoder.", "backbone."): tensor for name, tensor in network.state_dict().items()}
        torch.save({"model": tensors, "epoch": 3}, tmp_path / f"{arm}_3.pth")
        words += ["--arm", f"{arm}={tmp_path}/{arm}_*.pth"]
    run = ["--run-dir", str(tmp_path / "run")]
    assert cli.main([*words, *run]) == 0
    opened = open_run(tmp_path / "run")
    assert opened.settings.projector.model_dump() == {"hidden_dim": None, **VICREG}
    views = torch.rand(1, 3, 3, 8, 8)
    assert torch.equal(opened.network("ce", 3)(views)["projection"], networks["ce"](views)["projection"])
    assert cli.main(["weight-gap", *run, "--align", "permutation", "--compare", "ce"]) == 0
    assert cli.main(["alignment", *run, "--split", "test", "--layers", "z", "--metrics", "cka"]) == 0
    capsys.readouterr()
    assert cli.main([*words, "--run-dir", str(tmp_path / "refused"), "projector.bias=all"]) == 2
    assert "the files have {'hidden_dims': [24, 16], " in capsys.readouterr().err

"""`coupled import-checkpoints`: checkpoints of other programs become a run; unusable ones are refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from coupled import cli
from coupled.analysis.report.missing import missing_tables
from coupled.analysis.report.tables import read_runs
from coupled.analysis.run import open_run
from coupled.models.network import build_network
from coupled.storage.foreign_files import epoch_of
from coupled.storage.run_log import check_folder

EPOCHS = (0, 9, 10, 100)
SETTINGS = ("--encoder", "resnet18", "--dataset", "digits", "dataset.image_size=8", "encoder.width_multiplier=0.0625")


def network_tensors(seed: int) -> dict[str, Tensor]:
    """Encoder and projector of some network."""
    sizes = {"projector_hidden_dim": 16, "projector_output_dim": 8}
    return build_network(encoder="resnet18", width_multiplier=0.0625, image_size=8, **sizes, seed=seed).state_dict()


def as_the_papers_save(folder: Path, seed: int, more: dict[str, Tensor]) -> None:
    """The files of ModelConfig.save_snapshot in the code of arXiv 2510.08852: the modules SimCLR, ResNetEncoder.net and
    SimCLR_Projector.projector, whose last batch norm has a bias that stays 0; optimizer and scheduler beside it.
    """
    folder.mkdir()
    for epoch in EPOCHS:
        tensors = network_tensors(seed if epoch else 0)
        state = {f"encoder.net.{n.removeprefix('encoder.')}": t + epoch for n, t in tensors.items() if n[0] == "e"}
        state |= {f"projector.projector.{n.removeprefix('projector.')}": t for n, t in tensors.items() if n[0] == "p"}
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.2, momentum=0.9)
        scheduler = LambdaLR(optimizer, lambda epoch: 0.5 * (1 + torch.cos(torch.tensor(epoch / 100))))
        content = {
            "MODEL_STATE": {**state, "projector.projector.4.bias": torch.zeros(8), **more},
            "EPOCHS_RUN": epoch,
            "OPTIMIZER": optimizer.state_dict(),
            "SCHEDULER": scheduler.state_dict(),
        }
        torch.save(content, folder / f"snapshot_{epoch}.pth")


def call(run: Path, arms: Sequence[str], *more: str) -> int:
    arm_words = [word for arm in arms for word in ("--arm", arm)]
    return cli.main(["import-checkpoints", *arm_words, *SETTINGS, "--run-dir", str(run), *more])


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders as written by the papers' code; the second arm has a classifier as well."""
    folder = tmp_path_factory.mktemp("papers")
    as_the_papers_save(folder / "dcl", 1, {})
    as_the_papers_save(folder / "ce", 2, {"classifier.weight": torch.ones(10, 8)})
    return folder


@pytest.fixture(scope="module")
def run(papers: Path) -> Path:
    """The run imported from these folders."""
    assert call(papers / "run", [f"cl={papers}/dcl/*.pth", f"ce={papers}/ce/*.pth"], "temperature=0.1") == 0
    return papers / "run"


@pytest.fixture(scope="module")
def without_projector(papers: Path) -> Path:
    """A run of one safetensors file for each arm, with the encoder only, under DDP's prefix."""
    for arm, seed in (("a", 1), ("b", 2)):
        tensors = {n.replace("encoder.", "module."): t for n, t in network_tensors(seed).items() if n[0] == "e"}
        save_file(tensors, papers / f"{arm}_epoch_7.safetensors")
    arms = [f"{arm}={papers}/{arm}_*.safetensors" for arm in ("a", "b")]
    assert call(papers / "without", arms, "arms.a=nt_xent", "arms.b=simsiam") == 0
    return papers / "without"


def test_snapshots_equal_the_files_in_numerical_order(run: Path, papers: Path) -> None:
    opened = open_run(run)
    assert opened.arms == ["cl", "ce"]
    assert opened.epochs() == [*EPOCHS]
    assert opened.verify() == []
    projector = opened.settings.projector
    assert (opened.settings.epochs, projector.hidden_dim, projector.output_dim) == (100, 16, 8)
    assert opened.description["imported"] == {
        "arms": {
            arm: {"files": f"{papers}/{name}/*.pth", "epochs": [*EPOCHS]} for arm, name in (("cl", "dcl"), ("ce", "ce"))
        },
        "projector": True,
        "given": ["dataset.image_size=8", "encoder.width_multiplier=0.0625", "temperature=0.1"],
    }
    tensors, expected = opened.state_dict("ce", 100), network_tensors(2)
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor + 100 if name.startswith("encoder.") else tensor), name


def test_imported_and_skipped_tensors_are_listed(
    papers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        call(tmp_path / "run", [f"cl={papers}/dcl/*.pth", f"ce={papers}/ce/*_100.pth", f"scl={papers}/ce/*_0.pth"]) == 0
    )
    said = capsys.readouterr().out.splitlines()
    under = "encoder under 'MODEL_STATE.encoder.net.', projector under 'MODEL_STATE.projector.projector.'"
    assert said[0] == f"arm cl: 4 files, epochs 0 to 100; {under}"
    assert said[2] == f"arm ce: 1 files, epoch 100; {under}"
    assert "MODEL_STATE.classifier.weight" in said[3]
    assert said[3].startswith("arm ce: not imported: ")
    assert "epoch 0: the encoders of cl, scl are equal" in said
    assert said[-1].startswith(f"{tmp_path / 'run'}: complete; next: ")


def test_every_applicable_program_works_on_an_imported_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--run-dir", str(run)]
    few = [*words, "--epochs", "0,100", "--num-images", "32"]
    assert cli.main(["weight-gap", *words]) == 0
    assert cli.main(["alignment", *few, "--metrics", "cka", "--split", "test"]) == 0
    assert cli.main(["quality", *few, "--metrics", "nccc", "--split", "test"]) == 0
    assert cli.main(["verify", *words, "--output", str(run / "analysis")]) == 0
    said = capsys.readouterr().out
    assert (
        f"{run}: its snapshots are unchanged since the import (there is no record of its training),"
        " and the images can be read" in said
    )
    assert cli.main(["report", *words]) == 0
    said = capsys.readouterr().out
    assert "quality.csv: complete at 2 of 4 epochs" in said
    assert "bounds" not in said
    assert "augmentation are defaults unless they were set at the import." in (run / "analysis/report.html").read_text()
    scores = pandas.read_csv(run / "analysis/test_alignment.csv")
    assert scores[scores.epoch == 0].value.tolist() == [1, 1]  # both arms start from the same file


def test_without_a_projector_only_h_is_measured(without_projector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """z is skipped where it is a default, and refused where it is the only layer requested."""
    run, words = open_run(without_projector), ["--run-dir", str(without_projector)]
    assert run.verify() == []
    assert set(run.alignment(split="test", metrics=["cka"], num_images=32).module) == {"h"}
    assert set(run.alignment(split="test", metrics=["cka"], num_images=32, layers="stages").module) >= {"stem", "h"}
    assert set(run.quality(split="test", metrics=["nccc", "augmentation_spread"], num_images=32).module) == {"h"}
    assert "layer z: left out, because the run was imported without a projector" in capsys.readouterr().err
    assert run.network("a", 7)(torch.zeros(1, 2, 3, 8, 8)).keys() == {"embedding"}
    missing = {each.command[0] for each in missing_tables(*read_runs([run]))}
    assert missing == {"verify", "weight-gap", "alignment", "quality"}
    for program in (["collapse"], ["losses"], ["alignment", "--layers", "z"]):
        assert cli.main([*program, *words]) == 2
        said = capsys.readouterr().err
        assert "imported without a projector" in said
        assert said.count("\n") == 1


def test_verify_reports_missing_and_damaged_imported_snapshots(
    run: Path, without_projector: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    manifest = copy / "snapshots/manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    (copy / "snapshots/cl/epoch_0009.safetensors").write_bytes(b"x")
    found = open_run(copy).verify()
    assert found[1] == f"{manifest}: arm 'ce': expected snapshots of epochs [0, 9, 10, 100], found [0, 9, 10]"
    assert "epoch_0009.safetensors: damaged or foreign" in found[0]
    assert len(found) == 2
    content = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**content, "imported": {"arms": 3}}))
    with pytest.raises(ValueError, match=r"run\.json: imported\.arms: got 3"):
        open_run(copy)


def test_comparing_imported_runs_reports_no_finding_about_unknown_inputs(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", "--run-dir", str(run), "--against", str(run)]) == 0
    assert "inputs: not compared, because an imported run has no record of them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arms", "more", "says"),
    [
        (["cl={0}/none/*.pth"], [], "--arm: no file matches '{0}/none/*.pth' of arm 'cl'"),
        (["cl"], [], "--arm: got 'cl'; write it as NAME=GLOB"),
        (["cl={0}/dcl/*.pth", "cl={0}/ce/*.pth"], [], "--arm: arm 'cl' occurs twice"),
        (["cl={0}/*/*_9.pth"], [], "_9.pth' of arm 'cl' both have epoch 9"),
        (["cl={0}/last.pth"], [], "last.pth' of arm 'cl' has no epoch in its name; narrow the"),
        (["moco={0}/dcl/*.pth"], [], "is unknown; add the one that it was trained with: arms.moco=OBJECTIVE"),
        (["cl={0}/dcl/*.pth"], ["arms.ce=cross_entropy"], "arms.ce: no --arm has this name (arms: cl)"),
        (
            ["cl={0}/dcl/*.pth"],
            ["--stem", "imagenet"],
            "is (4, 3, 3, 3), the encoder's (4, 3, 7, 7); the file has another stem",
        ),
        (["cl={0}/dcl/*.pth"], ["projector.hidden_dim=32"], "the files have {{'hidden_dim': 16, 'output_dim': 8}}"),
        (["cl={0}/dcl/*.pth"], ["encoder.freeze=[bn1.*]"], "encoder.weights, encoder.freeze: not allowed here"),
        (["cl={0}/mixed/*.pth"], [], "e2.pth' of arm 'cl' has no projector, but the first file has one"),
    ],
)
def test_an_unusable_checkpoint_is_one_line_and_writes_nothing(
    arms: list[str], more: list[str], says: str, papers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (papers / "last.pth").touch()
    if "mixed" in arms[0]:
        (papers / "mixed").mkdir()
        shutil.copy(papers / "dcl/snapshot_9.pth", papers / "mixed/e1.pth")
        tensors = {name: each for name, each in network_tensors(1).items() if name.startswith("encoder.")}
        torch.save(tensors, papers / "mixed/e2.pth")
    assert call(tmp_path / "run", [arm.format(papers) for arm in arms], *more) == 2
    said = capsys.readouterr().err
    assert said.startswith("coupled import-checkpoints: ")
    assert says.format(papers) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_existing_folder_is_not_changed(run: Path, papers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "run.json").read_bytes()
    assert call(run, [f"cl={papers}/dcl/*.pth"]) == 2
    assert f"--run-dir: a run is already in '{run}'; choose another folder" in capsys.readouterr().err
    assert (run / "run.json").read_bytes() == before
    with pytest.raises(ValueError, match="was imported, so it has no checkpoint"):
        check_folder(run, open_run(run).settings.resolved(), resume=True, overwrite=False)


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        ("snapshot_1000.pth", 1000),
        ("checkpoint_0199.pth.tar", 199),
        ("resnet50-epoch=7-step=99.ckpt", 7),
        ("ckpt_epoch_50.pth", 50),
        ("model.safetensors", None),
    ],
)
def test_the_epoch_is_the_number_in_the_file_name(name: str, epoch: int | None) -> None:
    assert epoch_of(Path(name)) == epoch

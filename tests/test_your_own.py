"""User-defined components through the programs: the examples, digests, errors, `--allow-code`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny

import coupled
from coupled import cli
from coupled.config import user_code

EXAMPLES = tiny.REPOSITORY / "examples"
SMALL: dict[str, Any] = {
    "epochs": 1,
    "num_threads": 1,
    "dataset": {"image_size": 8},
    "encoder": {"width_multiplier": 0.0625},
    "projector": {"hidden_dim": 16, "output_dim": 8},
}
NO_TIMM = {"width_multiplier": None, "stem": None}  # removes these keys of demo.yaml
WORDS = ["epochs=1", "num_threads=1", "projector.hidden_dim=16", "projector.output_dim=8", "batch.size=64"]
CHOSEN = [
    f"encoder={{name: '{EXAMPLES}/small_encoder.py:small_encoder', width: 8}}",
    f"dataset={{name: '{EXAMPLES}/two_colours.py:two_colours', image_size: 8, images: 128}}",
    f"augmentation.steps=[{{name: '{EXAMPLES}/channel_dropout.py:channel_dropout', prob: 0.3}}]",
    f"arms={{cl: dcl, hard: {{objective: '{EXAMPLES}/hard_negatives.py:hard_negatives', beta: 0.5}}}}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every component is an example."""
    folder = tmp_path_factory.mktemp("own") / "run"
    assert cli.main(["train", "demo", "--run-dir", str(folder), *WORDS, *CHOSEN]) == 0
    return folder


def test_the_examples_train_and_run_json_has_their_digests(run: Path) -> None:
    """Objective, dataset, encoder and augmentation step from user files. Options are stored with defaults."""
    about = json.loads((run / "run.json").read_text())
    assert len(about["settings"]["code"]) == 4
    assert all(len(digest) == 32 for digest in about["settings"]["code"].values())
    assert about["code_files"].keys() == about["settings"]["code"].keys()
    assert about["settings"]["arms"]["hard"]["temperature"] == 0.5
    assert {*about["settings"]["encoder"]} == {"name", "width"}  # none of timm's keys
    assert about["dataset"]["classes"] == ["red", "blue"]
    gap = coupled.open_run(run).weight_gap()
    assert (gap.query("aggregate == 'global' and epoch == 1").gap > 0).all()


def test_a_run_folder_imports_code_only_with_allow_code(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weight gap needs no user code. Analyses that need the encoder or the images list the files to import."""
    monkeypatch.setattr(user_code, "imported", imported := {})
    for module in ("coupled.config.code_of_settings",):
        monkeypatch.setattr(f"{module}.imported", imported)
    quality = ["quality", "--run-dir", str(run), "--metrics", "nccc", "--layers", "h", "--epochs", "1"]
    assert cli.main(["weight-gap", "--run-dir", str(run)]) == 0
    assert cli.main(quality) == 2
    said = capsys.readouterr().err
    assert "two_colours.py" in said
    assert "--allow-code" in said
    assert said.count("\n") == 1
    assert not imported
    with pytest.raises(ValueError, match=r"small_encoder\.py.*allow_code=True"):
        coupled.open_run(run).encoder("cl", 1)
    assert cli.main([*quality, "--allow-code"]) == 0
    encoder = coupled.open_run(run, allow_code=True).encoder("hard", 1)
    assert encoder(torch.zeros(2, 3, 8, 8)).shape == (2, 32)
    assert cli.main(["verify", "--run-dir", str(run), "--allow-code"]) == 0


def test_report_and_sweep_pass_allow_code_to_their_programs(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report passes it only if it was set; a sweep always, because its configuration names the code."""
    import subprocess

    from coupled.analysis.report import program
    from coupled.sweep import jobs
    from coupled.sweep.points import points, read_sweep

    page = str(tmp_path / "page.html")
    assert cli.main(["report", "--run-dir", str(run), "--compute", "--output", page]) == 2
    said = capsys.readouterr().err
    assert "small_encoder.py" in said
    assert "--allow-code" in said
    assert said.count("\n") == 1
    started: list[list[str]] = []

    def note(words: list[str], **_options: Any) -> "subprocess.CompletedProcess[str]":
        started.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(program.subprocess, "run", note)
    assert cli.main(["report", "--run-dir", str(run), "--compute", "--allow-code", "--output", page]) == 0
    assert {"verify", "alignment"} <= {next(w for w in words if w in cli.ANALYSES) for words in started}
    assert all(("--allow-code" in words) == ("weight-gap" not in words) for words in started)

    config = tmp_path / "own.yaml"
    shown = {**json.loads((run / "run.json").read_text())["settings"], "name": "own"}
    config.write_text(json.dumps({key: value for key, value in shown.items() if key != "code"}))
    sweep = read_sweep(config, ["seed=0,1"], runs=tmp_path, analyses=["weight-gap", "quality --metrics nccc"])
    commands: list[list[str]] = []
    children = jobs.Children()
    monkeypatch.setattr(children, "run", lambda command, log: commands.append(command) or 0)
    monkeypatch.setattr(jobs, "is_finished", lambda point: True)
    assert jobs.train_and_analyse(sweep, points(sweep)[0], children, print) == ""
    assert ["--allow-code" in words for words in commands] == [False, True]


def objective(folder: Path, body: str, name: str = "mine") -> str:
    """Write a file with an objective; return its reference FILE:NAME."""
    path = folder / f"{name}.py"
    path.write_text(f"import torch\ndef {name}(inputs, *, weight: float = 1.0):\n    {body}\n")
    return f"{path}:{name}"


GOOD = "return weight * inputs.outputs['projection'].square().mean() - inputs.gathered['projection'].mean()"


def test_a_changed_code_file_is_rejected_at_resume_and_reported_by_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """run.json has the digest of the old file, and a run does not resume with other code."""
    names = {"arms": {"a": objective(tmp_path, GOOD)}}
    one = coupled.train("demo", run_dir=tmp_path / "one", **{**SMALL, "epochs": 0}, **names)
    objective(tmp_path, GOOD.replace("mean()", "sum()"))
    with pytest.raises(ValueError, match=r"--resume: .* code\..*mine\.py was [0-9a-f]{32}, is [0-9a-f]{32}"):
        coupled.train("demo", run_dir=one.path, resume=True, **{**SMALL, "epochs": 0}, **names)
    with pytest.raises(ValueError, match="this process has imported"):
        _ = coupled.open_run(one.path).settings
    two = coupled.train("demo", run_dir=tmp_path / "two", **{**SMALL, "epochs": 0}, **names)
    assert one.description["settings_sha256"] != two.description["settings_sha256"]
    with pytest.raises(ValueError, match="has changed since the run was trained"):
        coupled.open_run(one.path, allow_code=True)
    from coupled.analysis.verify import differences

    capsys.readouterr()
    assert any("code." in each and "mine.py" in each for each in differences(one, two, print))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return inputs.outputs['projektion']", r"mine\.py:3: KeyError: 'projektion'; expected is a pure function"),
        ("return inputs.outputs['projection']", r"mine\.py:2: mine returns mean = \[2, 256, 8\]"),
        ("return 3", r"mine\.py:2: mine returns int"),
        ("return inputs.outputs['projection'].detach().sum()", "returns a loss without gradient"),
        ("return inputs.outputs['projection'].sum() * torch.rand(())", "draws from a global random generator"),
        ("raise SystemExit(3)", r"mine\.py:3: SystemExit: 3; expected is a pure function"),
        (
            "mine.n = getattr(mine, 'n', 0) + 1; return mine.n * inputs.outputs['projection'].square().sum()",
            "mine returns two values for the same inputs",
        ),
        ("inputs.outputs['projection'].data.mul_(2); " + GOOD, r"changes its input outputs\['projection'\] in place"),
        ("inputs.outputs['projection'].mul_(2); " + GOOD, r"changes its input outputs\['projection'\] in place"),
    ],
)
def test_an_invalid_objective_prints_one_line_with_file_and_line(tmp_path: Path, body: str, message: str) -> None:
    """Wrong exceptions, return values, random numbers or modified inputs."""
    with pytest.raises(ValueError, match=message) as caught:
        coupled.train("demo", run_dir=tmp_path / "run", **SMALL, arms={"a": objective(tmp_path, body)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": {"a": "nowhere.py:f"}}, r"arms\.a\.objective: got 'nowhere\.py:f'; no file /"),
        ({"arms": {"a": "no.such.module:f"}}, "No module named 'no'"),
        ({"arms": {"a": "{}:nothing"}}, r"own\.py has no 'nothing' \(it defines: .*encoder"),
        ({"arms": {"a": "{}:positional"}}, r"own\.py:\d+: positional takes \(inputs, weight=1\)"),
        ({"encoder": {**NO_TIMM, "name": "{}:encoder"}}, r"encoder\.name: .*own\.py:\d+: encoder returns"),
        ({"dataset": {"name": "{}:images", "image_size": 8}}, r"dataset\.name: .*own\.py:\d+: images gives int as"),
        ({"dataset": {"name": "{}:images", "image_size": None}}, r"dataset\.image_size: missing"),
        (
            {"arms": {"a": "{}:NoNeeds"}},
            "NoNeeds has `needs` that returns tuple; expected is",
        ),
        (
            {"arms": {"a": "{}:Unknown"}},
            "Unknown needs the output 'bogus', allowed are embedding, feature_map, local_embedding",
        ),
        ({"arms": {"a": "{}:Gathers"}}, "Gathers needs the gathered output 'embedding', allowed are projection"),
        ({"augmentation": {"steps": ["{}:infinite"]}}, "infinite returns values that are not finite"),
        ({"arms": {"a": "{}:number"}}, r"own\.py:[2-9]: number is not a function"),
        (
            {"arms": {"a": "{}:twin_of"}},
            r"has an option 'twin'; arms\.a\.twin is already a key of the settings: rename",
        ),
        ({"dataset": {"name": "{}:named", "image_size": 8}}, r"has an option 'name'; dataset\.name is already a key"),
        ({"dataset": {"name": "{}:draws", "image_size": 8}}, r"own\.py:\d+: draws draws from a global random"),
        (
            {"augmentation": {"steps": ["{}:named_step"]}},
            r"has an option 'name'; augmentation\.steps\.0\.name is already a key",
        ),
        ({"encoder": {**NO_TIMM, "name": "{}:shared"}}, r"own\.py:\d+: shared returns the same module at every call"),
        ({"augmentation": {"steps": ["{}:mixes"]}}, "makes a view depend on other views of its batch"),
        ({"augmentation": {"steps": ["solarize"]}}, r"augmentation\.steps\.0\.name: got 'solarize'; allowed is"),
        (
            {"arms": {"a": lambda inputs: 0}},
            r"arms\.a\.objective: got .*<lambda>, which cannot be imported from a file",
        ),
    ],
)
def test_an_invalid_component_is_rejected_with_one_line(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """No file is written."""
    own = tmp_path / "own.py"
    own.write_text(
        "def positional(inputs, weight=1): ...\ndef encoder(): return 3\ndef images(split): return [(1, 2)]\n"
        "def mixes(views, random): return views - views.mean()\ndef infinite(views, random): return views / 0\n"
        "number = 3\ndef twin_of(inputs, *, twin=1): ...\ndef named(split, *, name='x'): ...\n"
        "import torch\ndef draws(split): return [(torch.rand(3, 8, 8), 0)] * 4\n"
        "def named_step(views, random, *, name='x'): return views\n"
        "import functools, coupled.models.encoders as encoders\n@functools.cache\n"
        "def shared(): return encoders.build_encoder('resnet18', 0.0625, 'cifar', 8, False)\n"
        "from coupled.objectives import Needs\ndef loss(inputs): ...\n"
        "class NoNeeds:\n    loss = loss\n    def needs(): return ('projection',)\n"
        "class Unknown:\n    loss = loss\n    def needs(): return Needs(('bogus',))\n"
        "class Gathers:\n    loss = loss\n    def needs(): return Needs(('projection',), gathered=('embedding',))\n"
    )
    filled = json.loads(json.dumps(settings, default=lambda each: None).replace("{}", str(own)))
    if "lambda" in message:
        filled = settings
    with pytest.raises(ValueError, match=message) as caught:
        coupled.train("demo", run_dir=tmp_path / "run", **{**SMALL, **filled})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["encoder.freeze", "requires_grad"])
def test_an_arm_with_nothing_to_train_is_refused(how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An optimizer without parameters, or a run whose weights never change."""
    own = tmp_path / "own.py"
    own.write_text(
        ENCODERS + "from coupled.objectives import Needs\ndef frozen(): return Net().requires_grad_(False)\n"
        "class Untrained:\n    def needs(): return Needs(('embedding',))\n"
        "    def loss(inputs): return inputs.outputs['embedding'].square().mean()\n"
    )
    encoder = "encoder.freeze=['*']" if how == "encoder.freeze" else f"encoder={{name: '{own}:frozen'}}"
    arguments = [*WORDS, "dataset.image_size=8", encoder, f"arms={{a: '{own}:Untrained'}}"]
    assert cli.main(["train", "demo", "--run-dir", str(tmp_path / "run"), *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("coupled train: arms.a: no trainable parameter: the parameters of the encoder are frozen")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def squared(inputs: Any, *, weight: float = 1.0) -> torch.Tensor:
    """An objective that is passed from Python."""
    return weight * inputs.outputs["projection"].mean(1).square().sum()


def scaled_gap(x_nD: torch.Tensor, y_nE: torch.Tensor) -> torch.Tensor:
    """A user-defined pair metric."""
    return (x_nD.mean(0) - y_nE.mean(0)).norm()


def rows(images: Any) -> float:
    """A user-defined arm metric."""
    return float(len(images.rows_ND))


def test_a_function_is_recorded_with_its_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As objective and as metrics. Rows of the metrics have the digest of the file."""
    import sys

    this = type(sys)("test_your_own_as_imported")
    this.__file__, this.squared, this.scaled_gap, this.rows = __file__, squared, scaled_gap, rows
    monkeypatch.setitem(sys.modules, this.__name__, this)
    for each in (squared, scaled_gap, rows):
        monkeypatch.setattr(each, "__module__", this.__name__)
    trained = coupled.train("demo", run_dir=tmp_path / "run", **{**SMALL, "epochs": 0}, arms={"mine": squared})
    assert str(trained.description["settings"]["arms"]["mine"]["objective"]).endswith("test_your_own.py:squared")
    opened = coupled.open_run(run, allow_code=True)
    scores = opened.alignment(metrics=[scaled_gap, "cka"], layers="h", split="test", epochs=[0])
    assert scores.value.tolist() == [0, 1]
    assert scores.metric[0].rpartition("@")[0].endswith("test_your_own.py:scaled_gap")
    assert opened.quality(metrics=[rows], layers="h", split="test", epochs=[0], arms="cl").value.tolist() == [32]


def test_check_objective_prints_a_table_and_fails_for_order_dependent_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example passes. A loss that weights images by their position in the batch fails."""
    assert cli.main(["check-objective", f"{EXAMPLES}/hard_negatives.py:hard_negatives", "beta=0.5"]) == 0
    table = capsys.readouterr().out
    assert table.count(" ok") == 7
    assert "shared by W = 4 processes" in table
    places = "return (inputs.outputs['projection'].sum(-1) * torch.arange(len(inputs.labels_B))).mean()"
    assert cli.main(["check-objective", objective(tmp_path, places)]) == 1
    said = capsys.readouterr().out
    assert [line.split("  ")[0] for line in said.splitlines() if line.endswith("FAILED")][:2] == [
        "order of the images",
        "shared by W = 2 processes",
    ]
    for name in ("byol", "directpred", "cross_entropy"):
        assert cli.main(["check-objective", name]) == 0


def test_hard_negatives_with_beta_0_are_nt_xent() -> None:
    """beta = 0 gives all negatives the same weight."""
    from torch.nn.functional import normalize

    from coupled.config.user_code import import_code
    from coupled.objectives import Inputs
    from coupled.objectives.nt_xent import nt_xent

    example = import_code(f"{EXAMPLES}/hard_negatives.py:hard_negatives", "test").value
    generator = torch.Generator().manual_seed(0)
    outputs = {"projection": normalize(torch.randn(2, 6, 4, generator=generator, dtype=torch.float64), dim=-1)}
    inputs = Inputs(outputs, outputs, labels := torch.arange(6), labels)
    torch.testing.assert_close(example(inputs, beta=0.0), nt_xent(inputs, temperature=0.5).mean)


def test_a_custom_step_has_a_separate_stream_and_does_not_change_other_augmentations() -> None:
    """Random numbers of the other augmentations stay equal; those of the step do not depend on the batch."""
    import numpy as np

    from coupled.config.load import load_settings
    from coupled.stream.view_plan import view_plan

    step = {"name": f"{EXAMPLES}/channel_dropout.py:channel_dropout"}
    plain = load_settings("demo").augmentation.plain()
    with_step = load_settings("demo", augmentation={"steps": [step]}).augmentation.plain()
    one, other = (view_plan(0, 1, 6, each)[np.array([4, 2])] for each in (plain, with_step))
    assert torch.equal(one.crop_top_BV, other.crop_top_BV)
    assert one.steps_BVKR is None
    assert other.steps_BVKR is not None
    assert other.steps_BVKR.shape == (2, 2, 1, 8)
    whole = view_plan(0, 1, 6, with_step)
    assert whole.steps_KVNR is not None
    assert not (whole.steps_KVNR[0] == whole.table_VNR[:, :, :8]).any()
    again = view_plan(0, 1, 9, with_step)[np.array([2])]
    assert again.steps_BVKR is not None
    assert torch.equal(again.steps_BVKR[0], other.steps_BVKR[1])


def test_settings_without_custom_code_have_no_extra_keys() -> None:
    """The digests of existing runs are unchanged."""
    resolved = coupled.load_settings("demo").resolved()
    assert "code" not in resolved
    assert "steps" not in resolved["augmentation"]


def test_every_example_is_short_and_shown_in_the_docs() -> None:
    """Each has fewer than 60 lines, docstring included."""
    page = (tiny.REPOSITORY / "docs/your_own.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60
        assert f"examples/{path.name}" in page


CLASS = """
from coupled.objectives import Head, Loss, Needs
class Classifier:
    @staticmethod
    def needs(**_options):
        return Needs(("logits",), heads={"classifier": Head("linear", "embedding", "logits")})
    @staticmethod
    def loss(inputs, *, smoothing: float = 0.1):
        import torch.nn.functional as F
        labels = inputs.labels_B.repeat(inputs.views)
        return F.cross_entropy(inputs.outputs["logits"].flatten(0, 1), labels, label_smoothing=smoothing)
"""
ROWS = """
def rows(split):
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pillow
    images = [Pillow.new("RGB", (8, 8), (20 * k, 255 - 20 * k, k)) for k in range(8)]
    features = Features({"image": Image(), "label": ClassLabel(names=["even", "odd"])})
    return Dataset.from_dict({"image": images, "label": [k % 2 for k in range(8)]}, features=features)
"""


def test_an_objective_class_with_a_head_trains_on_a_hugging_face_dataset(tmp_path: Path) -> None:
    """The class declares a classifier head. The class names are those of the label column."""
    pytest.importorskip("datasets")
    (tmp_path / "own.py").write_text(CLASS + ROWS)
    dataset = {"name": f"{tmp_path}/own.py:rows", "image_size": 8}
    arms = {"mine": {"objective": f"{tmp_path}/own.py:Classifier", "smoothing": 0.2}}
    small = {**SMALL, "dataset": dataset, "batch": {"size": 4}}
    run = coupled.train("demo", run_dir=tmp_path / "run", **small, arms=arms)
    assert run.description["dataset"]["classes"] == ["even", "odd"]
    assert "classifier.weight" in run.state_dict("mine", 1)


ENCODERS = """
import random, torch
class Net(torch.nn.Module):
    def __init__(self, change=lambda images: None):
        super().__init__()
        self.num_features, self.layer, self.change = 4, torch.nn.Linear(3, 4), change
    def forward(self, images):
        self.change(images)
        return self.layer(images.mean(dim=(2, 3)))
def plain(*, depth: int = 2, image_size): return Net()
def stemmed(*, stem: str = "cifar"): return Net()
def seeded(): torch.manual_seed(1); return Net()
def drawn(): random.random(); return Net()
def changes(): return Net(lambda images: images.data.mul_(2))
def noisy(): return Net(lambda images: torch.rand(1))
def named(*, freeze: int = 1): return Net()
"""


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("plain, stem: cifar", r"encoder\.stem: got cifar; .*plain does not take it \(it takes: depth\)"),
        ("plain, width_multiplier: 1", r"encoder\.width_multiplier: got 1\.0; .*encoder\.width_multiplier=null"),
        ("plain, zero_init_last: false", r"encoder\.zero_init_last: got False; "),
        ("plain, image_size: 8", r"encoder\.image_size: got 8; the size of the images is dataset\.image_size"),
        ("plain, dept: 3", r"encoder\.dept: got 3; .*it takes: depth\)"),
        ("plain, depth: deep", r"encoder\.depth: got 'deep'"),
        ("seeded", r"own\.py:\d+: seeded seeds torch"),
        ("drawn", r"own\.py:\d+: drawn seeds torch, or draws"),
        ("changes", r"own\.py:\d+: changes changes its input in place"),
        ("noisy", r"own\.py:\d+: noisy draws from a global random generator in evaluation"),
        ("named", r"own\.py:\d+: named takes \(\*, freeze: int = 1\)"),
    ],
)
def test_unknown_keys_and_impure_encoders_are_rejected(tmp_path: Path, encoder: str, message: str) -> None:
    """No key is accepted and ignored. Weights depend on the seed of the run only."""
    (tmp_path / "own.py").write_text(ENCODERS)
    name, _, options = encoder.partition(",")
    section = f"encoder={{name: '{tmp_path}/own.py:{name}', {options}}}"
    from coupled.models.network import build_network

    def build() -> None:
        build_network(**coupled.load_settings("demo", [section]).network_options())

    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_options_of_an_encoder_are_in_the_settings_and_their_digest(tmp_path: Path) -> None:
    """Two spellings of a value have one digest, other values another. Keys of timm reach encoders that accept them."""
    (tmp_path / "own.py").write_text(ENCODERS)
    one, two, other = (
        coupled.load_settings("demo", [f"encoder={{name: '{tmp_path}/own.py:plain'{more}}}"])
        for more in ("", ", depth: 2, stem: null", ", depth: 3")
    )
    assert one.sha256() == two.sha256() != other.sha256()
    assert other.resolved()["encoder"] == {"name": f"{tmp_path}/own.py:plain", "depth": 3}
    stemmed = coupled.load_settings("demo", [f"encoder={{name: '{tmp_path}/own.py:stemmed', stem: imagenet}}"])
    assert json.loads(stemmed.network_options()["encoder_options"]) == {"stem": "imagenet"}


METRICS = """
import random, numpy, torch
def wrong(x, y): return x
def fails(x, y): raise KeyError("no")
def draws(x, y): return numpy.random.rand()
def changes(x, y): x.numpy()[:] = 0; return 1.0
def three(x, y, z): return 1.0
def a_wrong(images): return "high"
def a_fails(images): return images.nothing
def a_draws(train, test): return random.random()
def a_changes(images): images.rows_ND.data.zero_(); return 0.0
def step_changes(views, random): return views.data.mul_(0.5)
def step_draws(views, random): return views * torch.rand(())
def step_wrong(views, random): return views[:1]
def step_fails(views, random): return views @ None
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "wrong returns Tensor"),
        ("fails", "KeyError: 'no'"),
        ("draws", "draws draws from a global random generator"),
        ("changes", "changes changes its input in place"),
        ("three", "three is not a function of 2 arguments"),
        ("a_wrong", "a_wrong returns str"),
        ("a_fails", "AttributeError"),
        ("a_draws", "a_draws draws from a global random generator"),
        ("a_changes", "a_changes changes its input in place"),
        ("step_changes", "step_changes changes its input in place"),
        ("step_draws", "step_draws draws from a global random generator"),
        ("step_wrong", "step_wrong returns"),
        ("step_fails", "TypeError"),
    ],
)
def test_an_invalid_metric_or_step_prints_one_line_with_file_and_line(
    run: Path, tmp_path: Path, name: str, message: str
) -> None:
    """Wrong exceptions, return values, random numbers or modified inputs, also via `.data` or numpy."""
    (tmp_path / "own.py").write_text(METRICS)
    code = f"{tmp_path}/own.py:{name}"
    few: dict[str, Any] = {"layers": "h", "split": "test", "epochs": [0], "metrics": [code]}

    def use() -> None:
        opened = coupled.open_run(run, allow_code=True)
        if name.startswith("step"):
            coupled.load_settings("demo", augmentation={"steps": [code]}).augmentation.plain()
        elif name.startswith("a_"):
            opened.quality(**few, arms="cl")
        else:
            opened.alignment(**few)

    with pytest.raises(ValueError, match=rf"own\.py:\d+: .*{message}.*; expected is") as caught:
        use()
    assert "\n" not in str(caught.value)


def test_user_defined_metrics_work_from_the_command_line(run: Path, tmp_path: Path) -> None:
    """The tables list them with file, name and digest."""
    (tmp_path / "own.py").write_text("def one(x, y): return 0.5\ndef two(train, test): return len(train.rows_ND)\n")
    few = ["--run-dir", str(run), "--allow-code", "--layers", "h", "--epochs", "0", "--output", str(tmp_path / "out")]
    assert cli.main(["alignment", *few, "--metrics", f"{tmp_path}/own.py:one", "--split", "test"]) == 0
    assert cli.main(["quality", *few, "--metrics", f"{tmp_path}/own.py:two"]) == 0
    assert f"{tmp_path}/own.py:one@" in (tmp_path / "out/test_alignment.csv").read_text()
    assert f"{tmp_path}/own.py:two@" in (tmp_path / "out/quality.csv").read_text()


RULE = """
import torch
from coupled.objectives import Kept, Needs
class Rule:
    @staticmethod
    def needs(**_options):
        return Needs(("projection",), kept={"mean": Kept(("projection",))})
    @staticmethod
    def loss(inputs):
        return inputs.outputs["projection"].square().mean(-1).mean() - inputs.outputs["projection"].mean()
    @staticmethod
    def batch_sums(outputs):
        return {"total": outputs["projection"].REDUCED((0, 1))}
    @staticmethod
    def after_step(tensors, sums, step):
        return {"kept.mean": 0.9 * tensors["kept.mean"] + 0.1 * sums["total"]}
"""


def test_check_objective_checks_the_reduction_of_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Batch sums can be added over processes, means cannot. Checks that do not apply are listed."""
    own = tmp_path / "own.py"
    own.write_text(RULE.replace("REDUCED", "sum"))
    assert cli.main(["check-objective", f"{own}:Rule"]) == 0
    assert capsys.readouterr().out.count(" ok") == 11
    own.write_text(RULE.replace("REDUCED", "mean"))
    assert cli.main(["check-objective", f"{own}:Rule"]) == 1
    assert capsys.readouterr().out.count("FAILED") == 4
    own.write_text(RULE.replace("REDUCED", "sum").replace('"kept.mean": 0', '"kept.men": 0'))
    assert cli.main(["check-objective", f"{own}:Rule"]) == 2
    assert "returns 'kept.men' [6]; allowed are" in capsys.readouterr().err
    assert cli.main(["check-objective", "dcl"]) == 0
    assert capsys.readouterr().out.count("not checked: the objective has no after_step") == 4


def train_on_a_rank(folder: Path, changed: dict[str, Any]) -> None:
    """Call `tiny.train` on each rank."""
    tiny.train(folder, **changed)


@pytest.mark.distributed
def test_a_copied_objective_trains_like_the_original_on_two_ranks(tmp_path: Path) -> None:
    """A copy of DCL and DCL have the same weights after two steps on two ranks."""
    from support import ranks

    (tmp_path / "own.py").write_text((tiny.REPOSITORY / "coupled/objectives/dcl.py").read_text())
    encoder = {"name": "test_resnet", "stem": "imagenet"}
    arms = {"cl": "dcl", "own": f"{tmp_path}/own.py:dcl"}
    changed = {"encoder": encoder, "epochs": 1, "batch": {"size": 512}, "arms": arms}
    ranks.run(2, train_on_a_rank, tmp_path / "run", changed)
    one, other = (tiny.tensors(tmp_path / "run", arm, 1) for arm in arms)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)

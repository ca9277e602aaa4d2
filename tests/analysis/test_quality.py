"""quality: the rows it writes and when, the images that its metrics use, and its errors."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import tiny

import coupled.metrics
from coupled.analysis import alignment, quality, weight_gap
from coupled.analysis.quality import main
from coupled.analysis.representations import features
from coupled.analysis.representations.embeddings import Embedder, choose_images
from coupled.analysis.representations.features import clean_features, view_features
from coupled.analysis.representations.quality_tasks import (
    Classifier,
    classifier_among,
    needs_of_arms,
    with_classifiers,
    with_shots,
)
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tidy_csv import TidyCsv
from coupled.config.by_name import find
from coupled.config.metric_registry import arm_metric_names, find_arm_metrics
from coupled.metrics.arm import Labelled, Variant
from coupled.metrics.arm.few_shot import few_shot
from coupled.models.heads import build_head
from coupled.models.network import copy_with_heads
from coupled.stream.augment import augment, normalise
from coupled.stream.batches import batches
from coupled.stream.clean import clean_batches
from coupled.stream.view_plan import view_plan

PROGRAM = Path(__file__).parents[2] / "analysis" / "quality.py"
METRICS = {metric.name: metric for metric in find_arm_metrics(arm_metric_names())}
FAST = ["nccc", "knn", "cdnv", "effective_rank", "augmentation_spread"]
Read = Callable[[Path], list[dict[str, str]]]
NewRun = Callable[..., Path]


def test_every_metric_has_its_rows(drifting_run: Path, tmp_path: Path, table: Read) -> None:
    """Classifiers have rows for test, with the number of train images; other metrics for both splits."""
    options = ["--arms", "nscl", "--epochs", "1", "--num-images", "120", "--layers", "z"]
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path), *options]) == 0
    rows = table(tmp_path / "quality.csv")
    assert tuple(rows[0]) == SCHEMAS["quality.csv"].columns
    expected = {
        (split, name, *map(str, variant))
        for name, metric in METRICS.items()
        if metric.sees != "logits"  # of arms with a classifier
        for variant in metric.variants
        for split in (("test",) if metric.sees == "classifier" else ("train", "test"))
    }
    assert sorted((r["split"], r["metric"], r["variant"], r["shots"], r["k"]) for r in rows) == sorted(expected)
    assert {(r["epoch"], r["arm"], r["module"], r["num_images"]) for r in rows} == {("1", "nscl", "z", "120")}
    for row in rows:
        metric = METRICS[row["metric"]]
        assert row["num_train_images"] == ("120" if metric.sees == "classifier" else "")
        assert bool(row["std"]) == (row["metric"].startswith("few_shot") and bool(row["value"]))
        if row["value"]:
            assert metric.range[0] <= float(row["value"]) <= metric.range[1]


def test_rows_hold_the_values_of_the_metrics(drifting_run: Path, tmp_path: Path, table: Read) -> None:
    """Train and test, arms, epochs and layers must not be mixed up."""
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path), "--metrics", *FAST, "--epochs", "0,2"]) == 0
    rows = {(r["epoch"], r["split"], r["arm"], r["module"], r["metric"]): r for r in table(tmp_path / "quality.csv")}
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    images = {split: embedder.run.images(split) for split in ("train", "test")}
    chosen = {split: torch.arange(len(images[split])) for split in images}
    found = {split: clean_features(embedder, images[split], chosen[split], "scl", 2) for split in images}
    views = view_features(embedder, images["test"], chosen["test"], "scl", 2)
    assert torch.equal(found["test"]["h"].labels_N, images["test"].labels_N)
    for layer in ("h", "z"):
        for name in FAST:
            metric = METRICS[name]
            if metric.sees == "classifier":
                values = metric.values(found["train"][layer], found["test"][layer], embedder.settings.seed)
            else:
                values = metric.values(found["test"][layer] if metric.sees == "split" else views[layer])
            row = rows["2", "test", "scl", layer, name]
            assert float(row["value"]) == pytest.approx(next(iter(values.values())).value, abs=1e-6)
    assert len({rows[e, "test", a, "h", "cdnv"]["value"] for e in "02" for a in ("cl", "scl", "ce")}) == 4


def test_rows_of_an_arms_classifier_equal_the_logits_of_its_trained_network(
    drifting_run: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layer and the head must be those of training; arms without a classifier have no rows, and no default row."""
    names = ["top1", "top5", "nll", "ece"]
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--epochs", "2", "--num-images", "80"]
    assert main([*base, "--metrics", *names]) == 0
    rows = table(tmp_path / "quality.csv")
    assert {(r["arm"], r["module"], r["variant"]) for r in rows} == {("ce", "logits", "classifier")}
    assert [(r["split"], r["metric"]) for r in rows] == [(s, name) for s in ("train", "test") for name in names]
    run = open_run(drifting_run)
    images, settings = run.images("test"), run.settings
    chosen_n = choose_images(len(images), 80, settings.seed, "test")
    network = copy_with_heads(run.network("ce", 2), needs_of_arms(settings)["ce"], 10, settings.seed)
    network.load_state_dict(run.state_dict("ce", 2))
    (views_B3SS,) = clean_batches(images, chosen_n, settings.image_size, torch.device("cpu"), 0)
    with torch.no_grad():
        logits_NC = network.eval()(views_B3SS[None])["logits"][0]
    for row in rows[4:]:
        expected = getattr(coupled.metrics, row["metric"])(logits_NC, images.labels_N[chosen_n])
        assert float(row["value"]) == pytest.approx(expected, abs=1e-6)
        assert row["num_images"] == "80"
    capsys.readouterr()
    assert main([*base, "--metrics", *names]) == 0
    assert "0 new rows, 8 in all" in capsys.readouterr().out
    assert main([*base, "--metrics", "top1", "--arms", "cl", "scl"]) == 2
    assert "--metrics: got top1; none of the arms cl, scl has a classifier of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (["top1", "nll"], "top1, nll: no rows for arms without a classifier of their own: cl, nscl\n"),
        (["nccc"], ""),
    ],
)
def test_arms_without_a_classifier_are_named_if_its_metrics_are(
    metrics: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their missing rows would look like a mistake of the program."""
    classifiers = {"cl": None, "ce": Classifier("classifier", "z"), "nscl": None}
    found = find_arm_metrics(metrics)
    assert with_classifiers(found, classifiers, named=True) == found
    assert capsys.readouterr().out == said
    assert with_classifiers(found, classifiers, named=False) == found
    assert capsys.readouterr().out == ""


def test_the_logits_of_a_cosine_classifier_are_scaled_cosines_without_margin() -> None:
    """Unscaled cosines would have another loss and calibration error; the margin is of the training only."""
    needs = find("coupled.objectives", "margin_softmax").needs(input="embedding", scale=30.0, margin=0.2)
    classifier = classifier_among(needs.heads)
    assert classifier == Classifier("classifier", "h", 30.0)
    head = build_head(needs.heads["classifier"], 6, 4)
    generator = torch.Generator().manual_seed(0)
    images = Labelled(torch.randn(9, 6, generator=generator), torch.arange(9) % 4)
    found = classifier.logits({"h": images}, {"classifier.weight": head.weight.detach()})
    expected = 30 * torch.nn.functional.cosine_similarity(images.rows_ND[:, None], head.weight.detach()[None], dim=-1)
    torch.testing.assert_close(found.rows_ND, expected)
    torch.testing.assert_close(found.rows_ND, 30 * head(images.rows_ND).detach())
    assert torch.equal(found.labels_N, images.labels_N)


def test_some_classifiers_are_scored_on_train_if_the_split_is_named(
    drifting_run: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train accuracies of the papers; the nearest neighbour of a train image is the image itself, so knn has none."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--arms", "scl", "--epochs", "2"]
    base += ["--layers", "h", "--num-images", "120", "--metrics", "nccc", "few_shot", "knn", "--shots", "3"]
    path = tmp_path / "quality.csv"
    assert main(base) == 0
    assert [(r["split"], r["metric"]) for r in table(path)] == [
        *[("test", "nccc"), ("test", "few_shot"), ("test", "few_shot"), ("test", "knn")]
    ]
    assert main([*base, "--split", "train", "test"]) == 0
    added = table(path)[4:]
    assert [(r["split"], r["metric"], r["variant"], r["shots"]) for r in added] == [
        *[("train", "nccc", "euclidean", ""), ("train", "few_shot", "nccc", "3"), ("train", "few_shot", "probe", "3")]
    ]
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    images = embedder.run.images("train")
    chosen_n = choose_images(len(images), 120, embedder.settings.seed, "train")
    rows = clean_features(embedder, images, chosen_n, "scl", 2)["h"]
    assert float(added[0]["value"]) == pytest.approx(METRICS["nccc"].values(rows, rows, 5)["euclidean"].value)
    few = few_shot(rows.rows_ND, rows.labels_N, rows.rows_ND, rows.labels_N, shots=3, seed=5)
    assert [float(row["value"]) for row in added[1:]] == pytest.approx([few["nccc"], few["probe"]])
    assert {(row["num_images"], row["num_train_images"]) for row in added} == {("120", "120")}
    assert {row["images_digest"] for row in added} == {row["train_images_digest"] for row in added}
    capsys.readouterr()
    assert main([*base, "--split", "train"]) == 2
    assert "--split: got train; knn can only be measured on test" in capsys.readouterr().err


def test_the_numbers_of_shots_can_be_chosen() -> None:
    """The papers use others for one task than for the other; an option that no metric reads would be ignored."""
    chosen = with_shots(find_arm_metrics(["few_shot_two_way", "nccc"]), [300, 2, 300])
    assert chosen[0].variants == tuple(Variant(name, m) for m in (300, 2) for name in ("nccc", "probe"))
    generator = torch.Generator().manual_seed(1)
    rows = Labelled(torch.randn(30, 4, generator=generator), torch.arange(30) % 3)
    found = chosen[0].measured(rows, rows, 0)
    assert tuple(found) == chosen[0].variants
    assert found[Variant("nccc", 2)] == METRICS["few_shot_two_way"].values(rows, rows, 0, (2,))[Variant("nccc", 2)]
    assert found[Variant("nccc", 300)].value.reason == "class 0 has only 10 train images"
    for metrics, shots, part in (
        (["nccc"], [5], "shots: none of the metrics has shots; add few_shot or few_shot_two_way to --metrics"),
        (["few_shot"], [], "shots: got none; whole numbers of 1 or more are allowed"),
        (["few_shot"], [5, 0], "shots: got 5 0; whole numbers of 1 or more are allowed"),
    ):
        with pytest.raises(ValueError, match=f"^{part}"):
            with_shots(find_arm_metrics(metrics), shots)


def test_views_are_the_same_for_every_arm_and_epoch_and_differ_from_each_other(drifting_run: Path) -> None:
    """Two augmentations of each image by the run's recipe; arms with equal weights get equal bytes."""
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    images = embedder.run.images("test")
    chosen_n = choose_images(len(images), 300, embedder.settings.seed, "test")
    one, other = (view_features(embedder, images, chosen_n, arm, 0)["h"] for arm in ("cl", "ce"))
    assert one.shape[:2] == (2, 300)
    assert torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    plan = view_plan(embedder.settings.seed, 0, len(images), embedder.settings.augmentation.plain())
    views_VB3SS = augment(images.images_N3HW[chosen_n[:256]], plan[chosen_n[:256].numpy()], 8)
    with torch.no_grad():
        expected = embedder.network("ce", 2)(normalise(views_VB3SS, images.mean, images.std))["embedding"]
    torch.testing.assert_close(view_features(embedder, images, chosen_n, "ce", 2)["h"][:, :256], expected)
    part = view_features(embedder, images, chosen_n[:7], "cl", 0)["h"]
    torch.testing.assert_close(part, one[:, :7], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [3, 8, 9, 20])
def test_the_images_are_sent_at_most_twice_and_in_order(
    drifting_run: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Copied to the device anew for every batch, 50 000 images would be transferred two hundred times."""
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    images = embedder.run.images("test")
    chosen_n = choose_images(len(images), count, embedder.settings.seed, "test")
    whole = view_features(embedder, images, chosen_n, "cl", 0)["h"]
    calls: list[int] = []
    monkeypatch.setattr(features, "BATCH", 4)
    monkeypatch.setattr(features, "batches", lambda *a, **k: [calls.append(1), *batches(*a, **k)][1:])
    torch.testing.assert_close(view_features(embedder, images, chosen_n, "cl", 0)["h"], whole, rtol=1e-5, atol=1e-6)
    assert len(calls) <= 2


def test_only_missing_rows_are_computed(
    new_run: NewRun, table: Read, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked again for more: the old rows stay, and no pass over the images repeats them."""
    run = new_run(epochs=(0, 1))
    base = ["--run-dir", str(run), "--num-images", "50"]
    path = run / "analysis/quality.csv"
    assert main([*base, "--epochs", "0", "--arms", "cl", "--metrics", "cdnv", "--split", "test"]) == 0
    first = path.read_bytes()
    passes: list[tuple[str, int]] = []
    real = quality.clean_features

    def spy(embedder: object, images: object, chosen_n: object, arm: str, epoch: int) -> object:
        passes.append((arm, epoch))
        return real(embedder, images, chosen_n, arm, epoch)  # type: ignore[arg-type]

    monkeypatch.setattr(quality, "clean_features", spy)
    again = [*base, "--arms", "cl", "nscl", "--metrics", "cdnv", "effective_rank", "--split", "test"]
    assert main(again) == 0
    assert path.read_bytes().startswith(first)
    assert passes == [("cl", 0), ("nscl", 0), ("cl", 1), ("nscl", 1)]
    assert len(table(path)) == 2 * 2 * 2 * 2
    assert main(again) == 0
    assert len(passes) == 4
    assert "0 new rows, 16 in all" in capsys.readouterr().out


def test_rows_of_other_snapshots_or_images_are_computed_again(
    new_run: NewRun, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """A classifier's row depends on the train images too; the others' do not."""
    run = new_run(epochs=(0,))
    command = [
        "--run-dir",
        str(run),
        "--num-images",
        "40",
        "--metrics",
        "nccc",
        "cdnv",
        "--layers",
        "h",
        "--split",
        "test",
    ]
    path = run / "analysis/quality.csv"
    assert main([*command, "--arms", "cl", "ce"]) == 0
    rows = table(path)
    assert {r["metric"]: (bool(r["images_digest"]), bool(r["train_images_digest"])) for r in rows} == {
        "nccc": (True, True),
        "cdnv": (True, False),
    }
    assert len({r["arm_digest"] for r in rows}) == 2
    text = path.read_text()
    for digest in (rows[0]["arm_digest"], rows[0]["images_digest"], rows[0]["train_images_digest"]):
        path.write_text(text.replace(digest, "0" * 16, 1))
        assert main([*command, "--arms", "cl", "ce"]) == 0
        assert "1 new rows, 5 in all" in capsys.readouterr().out


def test_rows_are_written_after_each_task_and_a_truncated_file_is_completed(
    drifting_run: Path, tmp_path: Path, table: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after hours must lose neither finished tasks nor the table."""
    seen: list[int] = []
    append = TidyCsv.append

    def watched(self: TidyCsv, rows: object) -> None:
        append(self, rows)  # type: ignore[arg-type]
        seen.append(len(table(self.path)))

    monkeypatch.setattr(TidyCsv, "append", watched)
    options = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--metrics", "nccc", "--num-images", "40"]
    assert main([*options, "--epochs", "0:1"]) == 0
    assert seen == list(range(1, 17))
    path = tmp_path / "quality.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert main([*options, "--epochs", "0:1"]) == 0
    assert path.read_bytes() == whole


def test_an_undefined_score_states_its_reason(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty cell alone would look like a mistake of the program."""
    options = ["--num-images", "5", "--metrics", "knn", "--arms", "ce", "--epochs", "1", "--layers", "h"]
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path), *options]) == 0
    said = "epoch 1, test, ce h knn cosine k=20: no value: fewer than 20 train images\n"
    assert said in capsys.readouterr().out
    assert b"\n1,test,ce,h,knn,cosine,,20,,,5,5," in (tmp_path / "quality.csv").read_bytes()


def test_the_program_takes_the_newest_run_of_the_working_directory_and_names_it(
    new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users call it from the directory that contains runs/."""
    new_run("one", epochs=(0,))
    monkeypatch.chdir(tmp_path)
    assert main(["--metrics", "nccc", "--num-images", "30"]) == 0
    assert "run runs/one (the newest under runs/): cl, nscl, scl, ce" in capsys.readouterr().out
    assert (tmp_path / "runs/one/analysis/quality.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["--metrics", "nccs"],
            "--metrics: unknown arm metric 'nccs'; did you mean 'nccc'? (known: augmentation_spread, ",
        ),
        (["--arms", "byol"], "--arms: the run has no arm 'byol' (arms: cl, nscl, scl, ce)"),
        (["--layers", "y"], "argument --layers: invalid choice: 'y' (choose from "),
        (["--num-images", "0"], "argument --num-images: got '0'; a whole number of 1 or more is allowed"),
        (["--epochs", "9"], "--epochs: arm 'cl' has no snapshot of epoch 9 (epochs: 0-2)"),
        (["--run-dir", "nowhere"], "--run-dir: given twice; give it once, with all its values"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """The line names the option, the value and what is allowed."""
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.startswith("coupled quality: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_training_with_and_without_analysis_gives_identical_weights(tmp_path: Path) -> None:
    """In one process, the analysis between two trainings: a draw from a global generator would change the weights."""
    settings = {**tiny.FEW_IMAGES, "arms": {"cl": "dcl", "nscl": "nscl"}}
    tiny.train(tmp_path / "one", **settings)
    weights, state = tiny.snapshot_bytes(tmp_path / "one"), torch.get_rng_state()
    run = ["--run-dir", str(tmp_path / "one")]
    assert alignment.main([*run, "--metrics", "cka", "rsa_spearman", "mutual_knn", "--num-images", "60"]) == 0
    assert main([*run, "--num-images", "60", "--epochs", "2"]) == 0
    assert weight_gap.main(run) == 0
    assert torch.equal(torch.get_rng_state(), state)
    tiny.train(tmp_path / "other", **settings)
    assert tiny.snapshot_bytes(tmp_path / "one") == weights
    assert tiny.snapshot_bytes(tmp_path / "other") == weights


def test_a_split_that_no_chosen_metric_uses_is_refused(drifting_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classifiers are scored on test only; a table without their rows would look incomplete."""
    assert main(["--run-dir", str(drifting_run), "--metrics", "cdnv", "knn", "--split", "train"]) == 2
    assert capsys.readouterr().err == "coupled quality: --split: got train; knn can only be measured on test\n"

"""alignment: the rows it writes, when it writes them, and its errors."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import coupled
import coupled.metrics
from coupled.analysis.alignment import compute, main
from coupled.analysis.parsers import PAIR_METRICS
from coupled.analysis.representations import pair_rows
from coupled.analysis.representations.embeddings import Embedder
from coupled.analysis.representations.pair_scores import Accumulated, Score, one_pass, scores, values
from coupled.analysis.run import open_store, read_description
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tidy_csv import TidyCsv
from coupled.config.metric_registry import find_pair_metrics, pair_metric_names
from coupled.stream.clean import choose_images

METRICS = {metric.name: metric for metric in find_pair_metrics(pair_metric_names())}
ALL = torch.arange(357)  # images of test
Read = Callable[[Path], list[dict[str, str]]]
NewRun = Callable[..., Path]


def test_scores_of_one_pass_equal_the_scores_of_each_pair_alone() -> None:
    """Sums shared between arms, layers and metrics must not be mixed up."""
    generator = torch.Generator().manual_seed(0)
    arms, layers = ("cl", "nscl", "ce"), {"h": 12, "z": 5}
    batches = [
        {(arm, layer): torch.randn(20, width, generator=generator) for arm in arms for layer, width in layers.items()}
        for _ in range(3)
    ]
    wanted = [Score("cl", arm, layer, name) for arm in arms[1:] for layer in layers for name in METRICS]
    together = scores(batches, wanted, METRICS)
    assert list(together) == wanted
    assert len(set(together.values())) == len(wanted)
    for score in wanted:
        assert scores(iter(batches), [score], METRICS) == {score: together[score]}


@pytest.fixture(scope="module")
def finished(drifting_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the program called with the run as its only argument."""
    output = tmp_path_factory.mktemp("alignment")
    assert main(["--run-dir", str(drifting_run), "--output", str(output)]) == 0
    return output


EXACT = PAIR_METRICS


def test_every_split_epoch_arm_layer_and_metric_has_one_row(finished: Path, table: Read) -> None:
    """Long rows: one value each, the number of images beside it."""
    for split, images in (("train", "1440"), ("test", "357")):
        rows = table(finished / f"{split}_alignment.csv")
        assert tuple(rows[0]) == SCHEMAS["test_alignment.csv"].columns
        assert {(r["split"], r["reference"], r["num_images"]) for r in rows} == {(split, "cl", images)}
        assert {(r["ci_low"], r["ci_high"], r["resamples"]) for r in rows} == {("", "", "")}  # none are invented
        keys = [(r["epoch"], r["arm"], r["module"], r["metric"]) for r in rows]
        expected = {(e, a, x, m) for e in "012" for a in ("nscl", "scl", "ce") for x in "hz" for m in EXACT}
        assert len(keys) == len(set(keys))
        assert set(keys) == expected
        assert [r["epoch"] for r in rows] == sorted(r["epoch"] for r in rows)


def test_the_shared_start_scores_exactly_one_and_drift_lowers_it(finished: Path, table: Read) -> None:
    """`ce` drifts more than `nscl` in this run; the numbers must say so."""
    rows = table(finished / "test_alignment.csv")
    assert {r["value"] for r in rows if r["epoch"] == "0"} == {"1.0"}
    last = {(r["arm"], r["module"], r["metric"]): float(r["value"]) for r in rows if r["epoch"] == "2"}
    for layer in "hz":
        for metric in EXACT:
            assert last["ce", layer, metric] < last["nscl", layer, metric] < 1


def test_only_missing_rows_are_computed(
    new_run: NewRun, table: Read, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call with more metrics, arms and epochs keeps the old rows; no pass over the images repeats them."""
    run = new_run()
    base = ["--run-dir", str(run), "--split", "test", "--layers", "z", "--num-images", "50"]
    path = run / "analysis/test_alignment.csv"
    assert main([*base, "--epochs", "0:1", "--compare", "nscl", "--metrics", "cka"]) == 0
    first = path.read_bytes()
    asked: list[Score] = []

    def spy(batches: object, wanted: list[Score], *others: object, **more: object) -> Accumulated:
        asked.extend(wanted)
        return one_pass(batches, wanted, *others, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pair_rows, "one_pass", spy)
    assert main([*base, "--compare", "nscl", "scl", "--metrics", "cka", "rsa"]) == 0
    assert path.read_bytes().startswith(first)
    assert len(asked) == 3 * 4 - 2
    assert asked.count(Score("cl", "nscl", "z", "cka")) == 1
    assert main([*base, "--compare", "nscl", "scl", "--metrics", "cka", "rsa"]) == 0
    assert len(asked) == 10
    assert "0 new rows, 12 in all" in capsys.readouterr().out
    assert {row["num_images"] for row in table(path)} == {"50"}


def test_rows_of_other_snapshots_or_images_are_computed_again(
    new_run: NewRun, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run trained anew into the same folder, or another set of images, gives other values."""
    run = new_run(epochs=(0, 1))
    command = ["--run-dir", str(run), "--split", "test", "--layers", "h", "--num-images", "30", "--metrics", "cka"]
    path = run / "analysis/test_alignment.csv"
    assert main(command) == 0
    first = table(path)
    store = open_store(run, read_description(run))
    tensors = {arm: store.read(arm, 1) for arm in store.arms()}
    store.cut(0)
    for arm, old in tensors.items():
        changed = old | ({"encoder.conv1.weight": 0.5 * old["encoder.conv1.weight"] + 0.1} if arm == "scl" else {})
        store.write(arm, 1, changed, step=1, metadata={})
    assert main(command) == 0
    added = table(path)[len(first) :]
    assert [(r["epoch"], r["arm"]) for r in added] == [("1", "scl")]
    (old,) = (r for r in first if (r["epoch"], r["arm"]) == ("1", "scl"))
    assert added[0]["value"] != old["value"]
    assert {column for column in old if old[column] != added[0][column]} == {"value", "arm_digest"}
    assert old["arm_digest"] != old["reference_digest"]
    images = first[0]["images_digest"]
    path.write_text(path.read_text().replace(images, images[::-1], 1))
    assert main(command) == 0
    assert "1 new rows, 8 in all" in capsys.readouterr().out


def test_rows_are_written_after_each_epoch(
    drifting_run: Path, tmp_path: Path, table: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after hours must not lose the finished epochs."""
    seen: list[int] = []
    append = TidyCsv.append

    def watched(self: TidyCsv, rows: object) -> None:
        append(self, rows)  # type: ignore[arg-type]
        seen.append(len(table(self.path)))

    monkeypatch.setattr(TidyCsv, "append", watched)
    options = ["--split", "test", "--num-images", "20", "--metrics", "cka", "--layers", "h"]
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path), *options]) == 0
    assert seen == [3, 6, 9]


def test_each_row_states_its_number_of_images(drifting_run: Path, tmp_path: Path, table: Read) -> None:
    """A value from 100 images must not pass for one from all images; a smaller split is used whole."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--epochs", "1", "--metrics", "rsa"]
    base += ["--layers", "h"]
    for samples in ("100", "400"):
        assert main([*base, "--compare", "nscl", "--num-images", samples]) == 0
    assert [r["num_images"] for r in table(tmp_path / "test_alignment.csv")] == ["100", "357"]
    assert [r["num_images"] for r in table(tmp_path / "train_alignment.csv")] == ["100", "400"]
    assert len({r["value"] for r in table(tmp_path / "train_alignment.csv")}) == 2


def test_metrics_of_a_subset_see_the_same_images_in_every_epoch(
    drifting_run: Path, tmp_path: Path, table: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row states the number; the images are those that `--num-images` chooses for it; equal weights score 1."""
    base = ["--run-dir", str(drifting_run), "--compare", "nscl", "--layers", "h", "--split", "train"]
    assert main([*base, "--metrics", "rsa_spearman", "mutual_knn", "cka", "--output", str(tmp_path / "all")]) == 0
    rows = table(tmp_path / "all/train_alignment.csv")
    samples = {"rsa_spearman": "1000", "mutual_knn": "1000", "cka": "1440"}
    assert {(r["metric"], r["num_images"]) for r in rows} == set(samples.items())
    assert {r["value"] for r in rows if r["epoch"] == "0"} == {"1.0"}
    alone = [*base, "--metrics", "rsa_spearman", "--num-images", "1000", "--output", str(tmp_path / "alone")]
    assert main(alone) == 0
    expected = {r["epoch"]: float(r["value"]) for r in table(tmp_path / "alone/train_alignment.csv")}
    for row in rows:
        if row["metric"] == "rsa_spearman":
            assert float(row["value"]) == pytest.approx(expected[row["epoch"]], abs=1e-6)


def test_scores_of_classes_equal_scores_of_their_images_alone() -> None:
    """Sums of classes must not be mixed up, whatever the order of images; a batch or a rank may lack a class."""
    generator = torch.Generator().manual_seed(1)
    batches = [{(arm, "h"): torch.randn(30, 4, generator=generator) for arm in ("cl", "nscl")} for _ in range(3)]
    labels_N = torch.cat([torch.zeros(30), torch.randint(0, 2, (60,), generator=generator)]).long()
    wanted = [Score("cl", "nscl", "h", name, label=label) for name in PAIR_METRICS for label in (None, 0, 1)]
    found = values(one_pass(batches, wanted, METRICS, labels_N=labels_N), wanted, METRICS)
    for score in wanted:
        inside_N = slice(None) if score.label is None else labels_N == score.label
        x_nD, y_nD = (torch.cat([batch[arm, "h"] for batch in batches])[inside_N] for arm in ("cl", "nscl"))
        assert found[score] == pytest.approx(getattr(coupled.metrics, score.metric)(x_nD, y_nD), abs=1e-12)
    absent = wanted[0]._replace(label=7)
    none, some = (one_pass(batches, [s], METRICS, labels_N=labels_N) for s in (absent, wanted[1]))
    for key, sums in some.sums.items():
        empty, expected = none.sums[*key[:3], 7], sums.total()
        sums.merge(empty)
        assert torch.equal(sums.total(), expected)
        empty.merge(sums)
        assert torch.equal(empty.total(), expected)


def test_rows_of_each_class_are_those_of_a_function_of_its_images(
    drifting_run: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten digits, their images counted; equal weights score 1; a second call computes nothing; the bias is stated."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--split", "test", "--layers", "h"]
    base += ["--compare", "nscl", "--per-class", "--metrics", "cka", "rsa", "--epochs", "0,2"]
    assert main(base) == 0
    rows = table(tmp_path / "test_class_alignment.csv")
    assert tuple(rows[0]) == SCHEMAS["test_class_alignment.csv"].columns
    assert len(rows) == 2 * 2 * 10
    assert {r["value"] for r in rows if r["epoch"] == "0"} == {"1.0"}
    run = coupled.open_run(drifting_run)
    images = run.images("test")
    embedded = {
        arm: torch.cat([b[arm, "h"] for b in Embedder(run, torch.device("cpu")).outputs(images, ALL, [arm], 2, ["h"])])
        for arm in ("cl", "nscl")
    }
    for row in rows:
        inside_N = images.labels_N == images.class_names.index(row["label"])
        assert int(row["num_images"]) == int(inside_N.sum())
        if row["epoch"] == "2":
            expected = getattr(coupled.metrics, row["metric"])(*(rows_ND[inside_N] for rows_ND in embedded.values()))
            assert float(row["value"]) == pytest.approx(expected, abs=1e-6)
    assert len(table(tmp_path / "test_alignment.csv")) == 4
    capsys.readouterr()
    assert main([*base, "--num-images", "40"]) == 0
    assert "images of the smallest class are fewer than the D features of h" in capsys.readouterr().err
    assert main(base) == 0
    assert "test_class_alignment.csv: 0 new rows" in capsys.readouterr().out


def test_undefined_and_doubtful_scores_of_classes_have_one_line_each(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each class, layer and epoch would hide the others; few images would pass for similarity."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--split", "test", "--layers", "z", "--epochs"]
    base += ["2", "--compare", "nscl", "scl", "--per-class", "--metrics", "svcca", "pwcca", "--confidence", "20"]
    assert main([*base, "--num-images", "100"]) == 0
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if " z pwcca " in line and "no value" in line]
    assert line.startswith("epoch 2, test, cl nscl z pwcca class ")
    assert " more: no value: " in line
    warned = said.err.splitlines()
    assert len(warned) == 2
    assert "images of the smallest class are fewer than 10 times the D features of z (D = 8); svcca, pwcca" in warned[0]
    assert "svcca has no interval, because its number of directions is a whole number" in warned[1]


def test_curves_of_mutual_neighbours_equal_the_metric_for_each_k(
    drifting_run: Path, tmp_path: Path, table: Read
) -> None:
    """One row for each k; that of 10 is the value of the metric; other k are those of the function."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--split", "test", "--layers", "z"]
    base += ["--compare", "scl", "--metrics", "mutual_knn", "--epochs", "2", "--confidence", "50"]
    assert main([*base, "--num-images", "60", "--mutual-knn", "1", "10", "59", "1"]) == 0
    rows = table(tmp_path / "test_mutual_knn.csv")
    assert tuple(rows[0]) == SCHEMAS["test_mutual_knn.csv"].columns
    assert [row["k"] for row in rows] == ["1", "10", "59"]
    (alone,) = table(tmp_path / "test_alignment.csv")
    assert {column: rows[1][column] for column in ("value", "ci_low", "ci_high", "num_images")}.items() <= alone.items()
    assert float(rows[0]["ci_low"]) < float(rows[0]["value"]) < float(rows[0]["ci_high"])
    assert rows[2]["value"] == ""  # 60 images have 59 others
    run = coupled.open_run(drifting_run)
    chosen_N = choose_images(357, 60, run.settings.seed, "test")
    outputs = Embedder(run, torch.device("cpu")).outputs(run.images("test"), chosen_N, ["cl", "scl"], 2, ["z"])
    pair = zip(*((batch["cl", "z"], batch["scl", "z"]) for batch in outputs), strict=True)
    assert float(rows[0]["value"]) == pytest.approx(coupled.metrics.mutual_knn(*map(list, pair), k=1), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": True, "cross_layer": True}, "cross_layer: not with per_class"),
        ({"mutual_knn": 0}, "mutual_knn: got 0; expected an integer of at least 1"),
    ],
)
def test_a_call_for_rows_of_several_tables_is_refused(
    drifting_run: Path, options: dict[str, object], message: str
) -> None:
    """Their columns differ, so one DataFrame cannot hold them."""
    with pytest.raises(ValueError, match=message):
        compute(coupled.open_run(drifting_run), **options)  # type: ignore[arg-type]


def test_a_call_returns_the_rows_of_the_option(drifting_run: Path) -> None:
    """One table from Python: classes, or curves."""
    some = {"compare": "nscl", "epochs": 2, "split": "test", "layers": "h"}
    run = coupled.open_run(drifting_run)
    classes = compute(run, per_class=True, metrics="cka", confidence=20, **some)  # type: ignore[arg-type]
    assert list(classes["label"]) == list(run.images("test").class_names)
    assert (classes["ci_low"] < classes["value"]).all()
    assert (classes["value"] < classes["ci_high"]).all()
    assert {*classes["resamples"]} == {20}
    curve = compute(run, mutual_knn=[1, 5], **some)  # type: ignore[arg-type]
    assert list(curve["k"]) == [1, 5]


def test_an_undefined_score_states_its_reason(
    drifting_run: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty cell alone would look like a fault of the program."""
    options = ["--compare", "scl", "--layers", "h", "--split", "test", "--num-images", "3", "--epochs", "1"]
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path), *options]) == 0
    said = "epoch 1, test, cl scl h cka_debiased: no value: fewer than 4 images\n"
    assert said in capsys.readouterr().out
    values = {r["metric"]: r["value"] for r in table(tmp_path / "test_alignment.csv")}
    assert values["cka_debiased"] == ""
    assert float(values["cka"]) > 0


def test_scores_of_an_arm_do_not_depend_on_the_other_arms(
    new_run: NewRun,
    tmp_path: Path,
    finished: Path,
    table: Read,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The arm is measured alone, in another pass over the images and from another directory."""
    run = new_run("one", epochs=(0, 1))
    monkeypatch.chdir(tmp_path)
    assert main(["--split", "test", "--compare", "scl"]) == 0
    assert "runs/one" in capsys.readouterr().out
    here = {tuple(r.values())[:6]: float(r["value"]) for r in table(finished / "test_alignment.csv")}
    for row in table(run / "analysis/test_alignment.csv"):
        assert float(row["value"]) == pytest.approx(here[tuple(row.values())[:6]], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["--metrics", "ckaa"],
            "--metrics: unknown pair metric 'ckaa'; did you mean 'cka'? (known: angle, cka, cka_debiased, ",
        ),
        (
            ["--layers", "layer9"],
            "--layers: the encoder has no module 'layer9'; allowed are stages, h, z, stem,"
            " conv1, bn1, layer1, layer2, layer3, layer4 and modules within, such as layer1.0",
        ),
        (
            ["--per-class", "--metrics", "rsa", "mutual_knn"],
            "--per-class: got the metric mutual_knn, which uses a subset of the images; allowed are metrics",
        ),
        (["--mutual-knn", "5", "0"], "argument --mutual-knn: got '0'; a whole number of 1 or more is allowed"),
        (["--layers", ""], "--layers: the encoder has no module ''; allowed are"),
        (["--confidence", "0"], "argument --confidence: got '0'; a whole number of 1 or more is allowed"),
        (["--split", "val"], "argument --split: invalid choice: 'val' (choose from "),
        (["--num-images", "0"], "argument --num-images: got '0'; a whole number of 1 or more is allowed"),
        (["--compare", "byol"], "--compare: the run has no arm 'byol' (arms: cl, nscl, scl, ce)"),
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
    assert error.startswith("coupled alignment: ")
    assert error.count("\n") == 1


def test_a_flipped_bit_in_a_snapshot_is_noticed(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged weight would become a wrong value."""
    run = new_run(epochs=(0,))
    path = run / "snapshots/nscl/epoch_0000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert main(["--run-dir", str(run), "--split", "test", "--num-images", "5"]) == 2
    assert f"{path}: damaged" in capsys.readouterr().err


def test_all_pairs_come_from_one_pass_and_equal_each_pair_alone(
    drifting_run: Path, tmp_path: Path, table: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matrix of all arms must not need a pass for each of them."""
    base = ["--run-dir", str(drifting_run), "--split", "test", "--layers", "h", "--metrics", "cka", "rsa"]
    base += ["--epochs", "2"]
    passes: list[int] = []

    def counted(batches: object, wanted: list[Score], *others: object, **more: object) -> Accumulated:
        passes.append(len(wanted))
        return one_pass(batches, wanted, *others, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pair_rows, "one_pass", counted)
    assert main([*base, "--compare", "all", "--output", str(tmp_path / "all")]) == 0
    assert passes == [2 * 6]
    for reference in ("cl", "scl"):
        assert main([*base, "--reference", reference, "--output", str(tmp_path / reference)]) == 0

    def scores_of(folder: str) -> dict[tuple[frozenset[str], str], float]:
        rows = table(tmp_path / folder / "test_alignment.csv")
        return {(frozenset((r["reference"], r["arm"])), r["metric"]): float(r["value"]) for r in rows}

    every = scores_of("all")
    assert len(every) == 12
    for reference in ("cl", "scl"):
        for pair, value in scores_of(reference).items():
            assert every[pair] == pytest.approx(value, abs=1e-12)

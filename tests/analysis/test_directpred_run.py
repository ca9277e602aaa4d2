"""coupled directpred-theory --run-dir: lemma 1 with the run's views is the gradient, and training follows it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from support import tiny

from coupled.analysis import directpred_theory
from coupled.analysis.directpred_theory import main
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_table
from coupled.analysis.theory import directpred_run as of_run
from coupled.analysis.theory.directpred_model import Array, DataModel, Model, data_field, matrix_field
from coupled.analysis.theory.directpred_run import Views, Weights, decoupled, flow, measures, second_moments
from coupled.stream.augment import augment, normalise
from coupled.stream.view_plan import view_plan

ETA = 0.5
OPTIMIZER: dict[str, Any] = {"name": "sgd", "base_lr": 0.002, "momentum": 0.0, "weight_decay": ETA, "warmup_epochs": 0}
OPTIMIZER |= {"schedule": "constant", "clip_grad_norm": None, "head_lr_multiplier": 2.0}
LINEAR: dict[str, Any] = {
    "epochs": 3,
    "encoder": {"name": "linear", "embedding_dim": 3},
    "projector": {"num_layers": 0, "output_dim": 3, "last_norm": False},
    "optimizer": OPTIMIZER,
    "arms": {
        "plain": {"objective": "prediction_mse", "predictor": "linear"},
        "ema": {"objective": "prediction_mse", "predictor": "symmetric", "ema_decay": 0.9},
        "cosine": {"objective": "simsiam", "predictor": "linear"},
        "rule": {"objective": "directpred"},
        "other": "dcl",
    },
}


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("linear") / "run"
    tiny.train(folder, **LINEAR)
    return folder


@pytest.mark.parametrize("ema", [False, True])
def test_lemma_1_with_second_moments_is_the_negative_gradient_of_the_loss(ema: bool) -> None:
    """Against autograd over the views themselves; with isotropic moments it is lemma 1 of the theory."""
    x_VBD, P, D = random(2, 40, 5), 3, 5
    W_p, W, W_a = random(P, P, seed=1), random(P, D, seed=2), random(P, D, seed=3)
    between = sum(x_VBD[v].T @ x_VBD[1 - v] for v in (0, 1)) / 80
    within = sum(x_VBD[v].T @ x_VBD[v] for v in (0, 1)) / 80
    model = DataModel(1.5, 0.2, 0.7 if ema else None, between, within, symmetric=False)
    p, w = (torch.tensor(each, requires_grad=True) for each in (W_p, W))
    target = torch.tensor(W_a) if ema else w.detach()
    x = torch.tensor(x_VBD)
    loss = sum(((x[v] @ w.T @ p.T - x[1 - v] @ target.T) ** 2).sum(1).mean() / 2 for v in (0, 1)) / 2
    of_p, of_w = torch.autograd.grad(loss, (p, w))
    found = data_field(model, W_p, W, W_a)
    np.testing.assert_allclose(found[0], -1.5 * of_p.numpy() - 0.2 * W_p, atol=1e-12)
    np.testing.assert_allclose(found[1], -of_w.numpy() - 0.2 * W, atol=1e-12)
    np.testing.assert_allclose(found[2], 0.7 * (W - W_a) if ema else 0 * W, atol=1e-12)
    isotropic = model._replace(between=np.eye(D), within=1.3 * np.eye(D))
    expected = matrix_field(Model(1.5, 0.2, 0.7, 0.3), W_p, W, W_a if ema else W)
    for one, other in zip(data_field(isotropic, W_p, W, W_a)[:2], expected, strict=False):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("beta", [None, 0.8])
def test_modes_decouple_for_isotropic_views_and_matrices_that_commute(beta: float | None) -> None:
    """Then lemma 1 and the numbers of each mode are one system, whatever the scale c of the views."""
    U, _ = np.linalg.qr(random(3, 3))
    V, _ = np.linalg.qr(random(7, 3, seed=1))
    start = Weights(U @ np.diag([0.5, 0.2, 0.7]) @ U.T, U @ np.diag([0.9, 0.6, 0.3]) @ V.T, None)
    views, times = Views(2.5 * np.eye(7), 2.5 * 1.2 * np.eye(7)), np.array([0.0, 0.5, 2.0])
    assert (views.scale, views.sigma2) == (pytest.approx(2.5), pytest.approx(0.2))
    model = DataModel(1.4, 0.05, beta, views.between, views.within, symmetric=True)
    in_flow = [measures(each.W_p, each.W, views, 1.4) for each in flow(start, model, times)]
    for whole, modes in zip(in_flow, decoupled(start, views, model, times), strict=True):
        for key, value in modes.items():
            assert value == pytest.approx(whole[key], abs=1e-6), key
        assert whole["commutator", None] == pytest.approx(0, abs=1e-6)
    assert in_flow[0]["p", 1] == pytest.approx(0.5)
    assert in_flow[0]["s", 1] == pytest.approx(0.81)


def test_a_direction_without_variance_only_decays_in_the_flow() -> None:
    """Grey images have three equal channels, so most directions of W see no pixel; they still count in W W'."""
    x = random(50, 4) @ np.diag([1, 2, 0, 0])
    moment, times = x.T @ x / 50, np.array([0.0, 0.3])
    model = DataModel(1.0, 0.4, None, moment, 1.1 * moment, symmetric=False)
    start = Weights(random(2, 2, seed=1), random(2, 4, seed=2), None)
    _, end = flow(start, model, times)
    np.testing.assert_allclose(end.W[:, 2:], start.W[:, 2:] * np.exp(-0.4 * 0.3), rtol=1e-9)
    before, after = (each.W @ each.W.T - each.W_p.T @ each.W_p for each in (start, end))
    np.testing.assert_allclose(after, before * np.exp(-2 * 0.4 * 0.3), atol=1e-7)  # theorem 1


def test_second_moments_are_those_of_the_views_of_the_training(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a loop over pairs of views of the first epoch, drawn by the run's plan."""
    monkeypatch.setattr(of_run, "MOMENT_EPOCHS", 1)
    opened = open_run(run)
    found, digest = second_moments(opened)
    images = opened.images("train")
    plan = view_plan(opened.settings.seed, 1, len(images), opened.settings.augmentation.plain())
    views = normalise(augment(images.images_N3HW, plan[np.arange(len(images))], 8), images.mean, images.std)
    one, other = views.flatten(2).double().numpy()
    np.testing.assert_allclose(found.between, (one.T @ other + other.T @ one) / 2 / len(images), atol=1e-6)
    np.testing.assert_allclose(found.within, (one.T @ one + other.T @ other) / 2 / len(images), atol=1e-6)
    assert images.digest().startswith(digest)


def test_training_follows_lemma_1_and_theorem_1(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a few percent of the change from the start, at a small learning rate; other losses have no prediction but
    theorem 1, and an arm without a linear predictor has no rows."""
    figures: list[Figure] = []
    monkeypatch.setattr(directpred_theory, "save", lambda figure, path: figures.append(figure) or [path])
    assert main(["--run-dir", str(run), "--output", str(tmp_path)]) == 0
    rows = read_table(tmp_path / "directpred_run.csv", SCHEMAS["directpred_run.csv"].columns)
    assert not rows.duplicated(list(SCHEMAS["directpred_run.csv"].key)).any()
    assert [*rows["arm"].unique()] == ["plain", "ema", "cosine", "rule"]
    np.testing.assert_allclose(sorted(rows["time"].unique()), [0, 0.01, 0.02, 0.03])
    for (arm, of, component), part in rows.groupby(["arm", "of", "component"], dropna=False):
        start, end = part["measured"].iloc[[0, -1]]
        close = {"invariant": 0.01 * start, "asymmetry": 0.02, "p": 0.02}.get(
            str(of), 0.05 * abs(end - start) + 1e-4
        )  # finite steps
        if arm in ("cosine", "rule"):
            assert part["flow"].isna().all()
        else:
            assert part["flow"].iloc[-1] == pytest.approx(end, abs=close), (arm, of, component)
        if of == "invariant" and arm in ("plain", "cosine"):
            np.testing.assert_allclose(part["value"], start * np.exp(-2 * ETA * part["time"]))
            assert part["value"].iloc[-1] == pytest.approx(end, rel=0.01)
        else:
            assert part["value"].notna().all() == (arm in ("plain", "ema") and of in ("s", "p"))
    (figure,) = figures
    assert len(figure.axes) == 16
    assert [len(axes.lines) for axes in figure.axes[:4]] == [9, 9, 3, 2]
    kinds, modes = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert (kinds[0], modes) == ("training", ["$j$ = 1, the largest $s_j$", "$j$ = 2", "$j$ = 3"])


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"encoder": {"name": "resnet18"}}, "encoder.name: got resnet18; directpred-theory --run-dir needs linear"),
        ({"projector": {"output_dim": 3}}, "projector: directpred-theory --run-dir needs num_layers: 0"),
        ({"optimizer": {**OPTIMIZER, "momentum": 0.9}}, "optimizer.momentum: got 0.9 in plain; "),
        ({"optimizer": {**OPTIMIZER, "schedule": "cosine"}}, "optimizer.schedule: got cosine in plain; "),
        ({"arms": {"plain": {"objective": "byol"}}}, "arms: directpred-theory --run-dir needs an arm of byol, "),
    ],
)
def test_a_run_that_does_not_fit_the_model_is_refused_with_its_key(
    run: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], part: str
) -> None:
    """The theory beside another model would look like a result."""
    opened = open_run(run)
    monkeypatch.setitem(opened.__dict__, "settings", tiny.tiny_settings(**{**LINEAR, **changed}))
    monkeypatch.setattr(opened.snapshots, "arms", lambda: [*opened.settings.arms])
    with pytest.raises(ValueError, match=f"^{part}"):
        of_run.check_run(opened)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--run-dir", "x", "--eta", "0.1"], "--eta: not used with --run-dir; remove it"),
        (["--allow-code"], "--allow-code: not used without --run-dir; remove it"),
    ],
)
def test_an_option_without_effect_is_refused(options: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that is accepted and ignored would look as if it had an effect."""
    assert main(options) == 2
    assert capsys.readouterr().err == f"coupled directpred-theory: {part}\n"

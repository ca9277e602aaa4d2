"""The theory of DirectPred beside a run whose encoder is one matrix W, with a linear predictor W_p.

A run fits the model of directpred_model.py if its encoder is `linear`, its projector has no layers, and the optimizer
is SGD without momentum, clipping or schedule. Then the time of the flow is the sum of the learning rates, eta is the
weight decay, alpha_p is `head_lr_multiplier`, and an EMA with decay m has beta = (1 - m) / lr.

The theory assumes isotropic views, X = E x2 x1' = c I and E x1 x1' = (1 + sigma^2) c I. Views of images are not: c and
sigma^2 are then those of isotropic views for which F = W X W' starts to grow as fast for a random W, c = tr X^2 / tr X,
and 1 + sigma^2 = tr E x1 x1' / tr X. s_j are the eigenvalues of F / c, and p_j = u_j' W_p u_j with its eigenvectors
u_j, which are the eigenvalues of W_p if W_p and F commute. With time c t and rates eta / c and beta / c, the modes
follow the equations for c = 1. Lemma 1 needs no assumption on X, and theorem 1 none on the loss of the
prediction W_p W x.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from coupled.analysis.representations.embeddings import load_sample
from coupled.analysis.representations.features import view_batches
from coupled.analysis.run import Run
from coupled.analysis.theory.alignment_floors import read_rates
from coupled.analysis.theory.directpred_model import (
    Array,
    DataModel,
    Model,
    data_field,
    integrate,
    mode_field,
    plane_field,
)
from coupled.config.encoder_settings import LINEAR
from coupled.models.schedules import peak_learning_rate

PREDICTING = ("byol", "directpred", "prediction_mse", "simsiam")
MATRICES = ("linear", "symmetric")  # predictors without a bias
MOMENT_EPOCHS = 4  # the views of so many epochs of the training give the second moments
Row = tuple[object, ...]


class Views(NamedTuple):
    """Second moments of the views [D, D], and c and sigma^2 of isotropic views in their place."""

    between: Array  # X = E x2 x1'
    within: Array  # E x1 x1'

    @property
    def scale(self) -> float:
        """c = tr X^2 / tr X."""
        return float((self.between**2).sum() / np.trace(self.between))

    @property
    def sigma2(self) -> float:
        """tr E x1 x1' / tr X - 1."""
        return float(np.trace(self.within) / np.trace(self.between) - 1)


class Weights(NamedTuple):
    """The matrices of a snapshot: predictor [P, P], encoder [P, D], encoder of the target network [P, D] or None."""

    W_p: Array
    W: Array
    W_a: Array | None


def check_run(run: Run) -> list[str]:
    """Return the arms with a linear predictor. Raises ValueError, with the key, if the run does not fit the model."""
    settings, wrong = run.settings, "directpred-theory --run-dir needs"
    projector = settings.projector
    if settings.encoder.name != LINEAR:
        raise ValueError(f"encoder.name: got {settings.encoder.name}; {wrong} {LINEAR}")
    if projector.num_layers != 0 or projector.last_norm:
        raise ValueError(f"projector: {wrong} num_layers: 0 and last_norm: false, so that projections are embeddings")
    if "training_digest" in run.description["dataset"]:
        raise ValueError(f"dataset: {wrong} a run that was trained on the split train, with its labels")
    arms = []
    for arm in run.arms:
        about = settings.arms[arm]
        predictor = about.options.get("predictor", "linear")
        if about.objective not in PREDICTING or predictor not in MATRICES:
            continue
        arms.append(arm)
        optimizer = settings.optimizer_of(arm)
        needed = {"name": "sgd", "momentum": 0.0, "schedule": "constant", "warmup_epochs": 0, "clip_grad_norm": None}
        needed["head_weight_decay"] = optimizer.weight_decay if optimizer.head_weight_decay is not None else None
        for key, value in needed.items():
            if (got := getattr(optimizer, key)) != value:
                text = "null" if value is None else value
                raise ValueError(f"optimizer.{key}: got {'null' if got is None else got} in {arm}; {wrong} {text}")
        if about.target_schedule != "constant":
            raise ValueError(f"arms.{arm}.target_schedule: got {about.target_schedule}; {wrong} constant")
    if not arms:
        raise ValueError(f"arms: {wrong} an arm of {', '.join(PREDICTING)} with predictor {' or '.join(MATRICES)}")
    return arms


def second_moments(run: Run, accept_changed_images: bool = False) -> tuple[Views, str]:
    """Return the second moments of the views of the first epochs of the training, and the digest of the images."""
    sample = load_sample(run, "train", None, accept_changed_images)
    between = within = torch.zeros((), dtype=torch.float64)
    rows = 0
    for epoch in range(1, MOMENT_EPOCHS + 1):
        for views_VB3SS in view_batches(run.settings, sample.images, sample.chosen_N, torch.device("cpu"), epoch):
            x_VBD = views_VB3SS.flatten(2).double()
            sum_BD, views = x_VBD.sum(0), len(x_VBD)
            own = torch.einsum("vbd,vbe->de", x_VBD, x_VBD)
            within = within + own / views
            between = between + (sum_BD.T @ sum_BD - own) / (views * (views - 1))
            rows += len(sum_BD)
    return Views(np.asarray(between / rows), np.asarray(within / rows)), sample.digest


def modes(W_p: Array, F: Array) -> tuple[Array, Array]:
    """Return p_j = u_j' W_p u_j and s_j for the eigenvectors u_j of F, largest s_j first."""
    s, u = np.linalg.eigh(F)
    return np.einsum("ij,ik,kj->j", u, W_p, u)[::-1], s[::-1]


def measures(W_p: Array, W: Array, views: Views, alpha_p: float) -> dict[tuple[str, int | None], float]:
    """Return p_j and s_j, and the norms of commutator, asymmetry and invariant, by name and component."""
    F = W @ views.between @ W.T / views.scale
    p, s = modes(W_p, F)
    found: dict[tuple[str, int | None], float] = {}
    for j in range(len(s)):
        found |= {("s", j + 1): float(s[j]), ("p", j + 1): float(p[j])}
    found["asymmetry", None] = float(np.linalg.norm(W_p - W_p.T))
    found["commutator", None] = float(np.linalg.norm(F @ W_p - W_p @ F))
    found["invariant", None] = float(np.linalg.norm(W @ W.T - W_p.T @ W_p / alpha_p))
    return found


def decoupled(
    start: Weights, views: Views, model: DataModel, times: Array
) -> Iterator[dict[tuple[str, int | None], float]]:
    """Yield p_j and s_j at each time as every mode follows its own equation, in the order of s_j at the start."""
    p, s = modes(start.W_p, start.W @ views.between @ start.W.T / views.scale)
    c = views.scale
    own = Model(model.alpha_p, model.eta / c, (model.beta or 0.0) / c, views.sigma2)
    ends = []
    for p_j, s_j in zip(p.tolist(), np.maximum(s, 0).tolist(), strict=True):
        if model.beta is None:
            p_t, s_t = integrate(own, plane_field, [p_j, s_j], times * c)
        else:
            p_t, w_t, _ = integrate(own, mode_field, [p_j, s_j**0.5, s_j**0.5], times * c)
            s_t = w_t**2
        ends.append((p_t, s_t))
    for place in range(len(times)):
        pairs = [(float(s_t[place]), float(p_t[place])) for p_t, s_t in ends]
        yield {(of, j): value for j, pair in enumerate(pairs, 1) for of, value in zip("sp", pair, strict=True)}


def flow(start: Weights, model: DataModel, times: Array) -> Iterator[Weights]:
    """Yield the matrices at each time in lemma 1.

    It is solved in the range of X + X'. The other directions of W only decay.
    """
    values, basis = np.linalg.eigh(model.within)
    basis = basis[:, values > 1e-10 * values[-1]]
    inner = model._replace(between=basis.T @ model.between @ basis, within=basis.T @ model.within @ basis)
    W_a = start.W if start.W_a is None else start.W_a
    rest = start.W - start.W @ basis @ basis.T
    parts = integrate(inner, data_field, [start.W_p, start.W @ basis, W_a @ basis], times)
    for time, W_p, W, _ in zip(times.tolist(), *parts, strict=True):
        yield Weights(W_p, W @ basis.T + np.exp(-model.eta * time) * rest, None)


def rows_of(run: Run, arm: str, views: Views, images_digest: str) -> Iterator[Row]:
    """Yield the rows of directpred_run.csv of one arm."""
    settings, epochs = run.settings, run.epochs([arm])
    about, optimizer, rates = settings.arms[arm], settings.optimizer_of(arm), read_rates(run.path)
    lr = peak_learning_rate(optimizer.base_lr, optimizer.lr_scaling, settings.batch.size)
    times = np.array([lr * rates[epoch].steps for epoch in epochs])
    decay, alpha_p = about.options.get("ema_decay"), optimizer.head_lr_multiplier
    beta = None if decay is None else (1 - decay) / lr
    symmetric = about.options.get("predictor", "linear") == "symmetric"
    model = DataModel(alpha_p, optimizer.weight_decay, beta, views.between, views.within, symmetric)
    start = weights_of(run.state_dict(arm, epochs[0]))
    in_flow: Sequence[Mapping[tuple[str, int | None], float]] = [{}] * len(epochs)
    in_theory: Sequence[dict[tuple[str, int | None], float]] = [{} for _ in epochs]
    if about.objective == "prediction_mse":
        in_flow = [measures(each.W_p, each.W, views, alpha_p) for each in flow(start, model, times)]
        in_theory = [{**each} for each in decoupled(start, views, model, times)]
    at_start = measures(start.W_p, start.W, views, alpha_p)["invariant", None]
    digests = run.snapshot_digests()
    for epoch, time, of_flow, of_theory in zip(epochs, times.tolist(), in_flow, in_theory, strict=True):
        if about.objective != "directpred" and not symmetric:
            of_theory["invariant", None] = float(np.exp(-2 * model.eta * time) * at_start)
        now = weights_of(run.state_dict(arm, epoch))
        for (of, component), value in measures(now.W_p, now.W, views, alpha_p).items():
            key = (of, component)
            numbers = (value, of_flow.get(key), of_theory.get(key))
            yield (epoch, arm, time, of, component, *numbers, digests[arm, epoch], images_digest)


def weights_of(tensors: Mapping[str, torch.Tensor]) -> Weights:
    """Return the matrices of a snapshot."""
    names = ("predictor.weight", "encoder.linear.weight", "target.encoder.linear.weight")
    W_p, W, W_a = (tensors[name].double().numpy() if name in tensors else None for name in names)
    assert W_p is not None
    assert W is not None
    return Weights(W_p, W, W_a)

"""Compare objectives with the code of lightly and solo-learn, and calibration with torchmetrics, in float64.

    python scripts/reproduction/compare_libraries.py

needs the libraries beside the package, in an environment of its own, because solo-learn asks for old versions:
`pip install --no-deps lightly==1.6.0 solo-learn==1.0.2 torchmetrics==1.9.0 lightning-utilities`. The exit status is 1
if a value or a gradient differs by more than 1e-6. Calibration has no gradient.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightly import loss as lightly
from lightly.loss.wmse_loss import Whitening2d, WMSELoss
from torch import Tensor
from torchmetrics.functional import classification

from coupled.metrics import ece, top1, top5
from coupled.monitoring.terminal import say
from coupled.objectives import Inputs, dclw, dino, mmcr, moco, nnclr, ressl, swav, vicregl, w_mse
from coupled.stream.seeds import torch_rng

VIEWS, LOCAL, IMAGES, PROTOTYPES, WIDTH, ROWS = 2, 3, 16, 7, 5, 20
ALLOWED = 1e-6
TAU = 0.1
Row = tuple[str, Tensor, Tensor, list[Tensor]]  # what is compared, our loss, theirs, and the variables


def main() -> int:
    """Print a row for each comparison and return the exit status."""
    say(f"{'objective':36} {'library':26} {'value':>9} {'differs':>8} {'gradient':>9} {'differs':>8}")
    worst = 0.0
    with torch_rng(0, "compare"):
        rows, measures = [*of_prototypes(), *of_projections(), of_feature_maps()], [*of_logits()]
    for name, ours, theirs, leaves in rows:
        of_ours, of_theirs = (torch.autograd.grad(each, leaves, retain_graph=True) for each in (ours, theirs))
        slopes = max(float((a - b).abs().max()) for a, b in zip(of_ours, of_theirs, strict=True))
        value, largest = abs(float(ours - theirs)), max(float(each.abs().max()) for each in of_theirs)
        objective, library = name.split(": ")
        say(f"{objective:36} {library:26} {float(theirs):9.5f} {value:8.0e} {largest:9.5f} {slopes:8.0e}")
        worst = max(worst, value, slopes)
    for name, own, other in measures:
        metric, library = name.split(": ")
        say(f"{metric:36} {library:26} {other:9.5f} {abs(own - other):8.0e}")
        worst = max(worst, abs(own - other))
    return int(not worst <= ALLOWED)


def unit(*shape: int) -> Tensor:
    """Return random rows at unit norm."""
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def inputs_of(outputs: Mapping[str, Tensor], **kept: Tensor) -> Inputs:
    """Return the inputs of a single process; labels are not read."""
    labels = torch.zeros(IMAGES, dtype=torch.int64)
    return Inputs(outputs, outputs, labels, labels, kept=kept)


def of_solo(path: str, name: str) -> Callable[..., Any]:
    """Return a function or class of solo-learn, from its file alone: its package imports much more."""
    package = importlib.util.find_spec("solo")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location(name, Path(package.origin).parent / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = getattr(module, name)
    return found


def both_ways(loss: Callable[[int, int], Tensor]) -> Tensor:
    """Return the mean of a loss of views (v, w) over both orders of two views."""
    return torch.stack([loss(v, w) for v, w in permutations(range(VIEWS), 2)]).mean()


def of_prototypes() -> Iterator[Row]:
    """Compare `swav` and `dino`, the centre of `dino` over three steps."""
    scores, local = unit(VIEWS, IMAGES, PROTOTYPES).requires_grad_(), unit(LOCAL, IMAGES, PROTOTYPES).requires_grad_()
    outputs, sizes = {"scores": scores, "local_scores": local}, dict[str, Any](num_prototypes=PROTOTYPES)
    queue, rows = unit(ROWS, WIDTH), unit(PROTOTYPES, WIDTH)
    kept = {"queue": queue, "prototypes": rows}
    theirs = lightly.SwaVLoss(temperature=TAU)
    ours = swav.swav(inputs_of(outputs), temperature=TAU, **sizes).mean
    yield "swav: lightly SwaVLoss", ours, theirs(list(scores), []), [scores]
    sinkhorn = of_solo("utils/sinkhorn_knopp.py", "SinkhornKnopp")(num_iters=3, epsilon=0.05, world_size=1)
    codes = [sinkhorn(each.detach()) for each in scores]
    of_library = of_solo("losses/swav.py", "swav_loss_func")(list(scores), codes, TAU)
    yield "swav: solo-learn swav_loss_func", ours, of_library, [scores]
    ours = swav.swav(inputs_of(outputs), temperature=TAU, multi_crop=True, **sizes).mean
    yield "swav, local views: lightly SwaVLoss", ours, theirs(list(scores), list(local)), [scores, local]
    ours = swav.swav(inputs_of(outputs, **kept), temperature=TAU, queue_size=ROWS, **sizes).mean
    yield "swav, queue: lightly SwaVLoss", ours, theirs(list(scores), [], [queue @ rows.T] * VIEWS), [scores]
    of_lightly = lightly.DINOLoss(PROTOTYPES, teacher_temp=0.07).double()
    of_solo_learn = of_solo("losses/dino.py", "DINOLoss")(PROTOTYPES, 0.07, 0.07, 1, 2, TAU).double()
    centre = torch.zeros(PROTOTYPES, dtype=torch.float64)
    for step in (1, 2, 3):
        target = unit(VIEWS, IMAGES, PROTOTYPES)
        inputs = inputs_of({**outputs, "target_scores": target}, centre=centre)
        options: dict[str, Any] = {"temperature": TAU, "target_temperature": 0.07, **sizes}
        found = of_solo_learn(scores.flatten(0, 1), target.flatten(0, 1))
        yield f"dino, step {step}: solo-learn DINOLoss", dino.dino(inputs, **options).mean, found, [scores]
        ours = dino.dino(inputs, multi_crop=True, **options).mean
        found = of_lightly(list(target), [*scores, *local])
        yield f"dino, local views, step {step}: lightly DINOLoss", ours, found, [scores, local]
        sums = dino.batch_sums(inputs.outputs)
        centre = dino.after_step({"kept.centre": centre}, sums, step, centre_decay=0.9, warmup_steps=0)["kept.centre"]


def of_projections() -> Iterator[Row]:
    """Compare objectives of projections; the variables are the projections before normalisation."""
    x, prediction = (torch.randn(VIEWS, IMAGES, WIDTH, dtype=torch.float64).requires_grad_() for _ in range(2))
    z, key, queue = F.normalize(x, dim=-1), unit(VIEWS, IMAGES, WIDTH), unit(ROWS, WIDTH)
    outputs = {"unnormalised": x, "projection": z, "target_projection": key, "prediction": prediction}
    inputs = inputs_of(outputs, queue=queue)
    moco_loss = of_solo("losses/moco.py", "moco_loss_func")
    ours = moco.moco(inputs, temperature=TAU).mean
    found = both_ways(lambda v, w: moco_loss(z[v], key[w], queue.T, TAU))
    yield "moco, version v2: solo-learn moco_loss_func", ours, found, [x]
    bank = lightly.NTXentLoss(temperature=TAU, memory_bank_size=(ROWS, WIDTH)).double()

    def with_bank(v: int, w: int) -> Tensor:
        bank.memory_bank.bank, bank.memory_bank.bank_ptr = queue.clone(), torch.zeros(1, dtype=torch.int64)
        loss: Tensor = bank(z[v], key[w])
        return loss

    yield "moco, version v2: lightly NTXentLoss", ours, both_ways(with_bank), [x]
    nnclr_loss = of_solo("losses/nnclr.py", "nnclr_loss_func")
    nearest = [queue[(each @ queue.T).argmax(1)] for each in z]
    found = both_ways(lambda v, w: nnclr_loss(nearest[v], prediction[w], TAU))
    yield "nnclr: solo-learn nnclr_loss_func", nnclr.nnclr(inputs, temperature=TAU).mean, found, [prediction]
    ressl_loss = of_solo("losses/ressl.py", "ressl_loss_func")
    found = both_ways(lambda v, w: ressl_loss(z[v], key[w], queue, TAU, 0.04))
    yield "ressl: solo-learn ressl_loss_func", ressl.ressl(inputs, temperature=TAU).mean, found, [x]
    ours = dclw.dclw(inputs, temperature=TAU, weight_gradient=False).mean
    yield "dclw, constant weights: lightly DCLWLoss", ours, lightly.DCLWLoss(temperature=TAU)(z[0], z[1]), [x]
    of_images = z.transpose(0, 1)
    found = lightly.MMCRLoss(lmda=0.005)(of_images[:, :1], of_images[:, 1:])
    yield "mmcr, compression .005: lightly MMCRLoss", mmcr.mmcr(inputs, compression=0.005).mean, found, [x]
    ours = w_mse.w_mse(inputs, eps=0.0).mean
    yield "w_mse: lightly WMSELoss", ours, WMSELoss(WIDTH, w_size=IMAGES).double()(x.flatten(0, 1)), [x]
    whitened = [Whitening2d(WIDTH, track_running_stats=False).double()(each) for each in x]
    found = of_solo("losses/wmse.py", "wmse_loss_func")(*whitened, simplified=False)
    yield "w_mse: solo-learn wmse_loss_func", ours, found, [x]


def of_feature_maps() -> Row:
    """Compare `vicregl` with one match by place and one by feature: lightly orders several otherwise."""
    z, cells = (torch.randn(VIEWS, IMAGES, *s, dtype=torch.float64).requires_grad_() for s in ((WIDTH,), (9, WIDTH)))
    places = torch.rand(VIEWS, IMAGES, 9, 2, dtype=torch.float64)
    outputs = {"unnormalised": z, "map_projection": cells, "locations": places}
    ours = vicregl.vicregl(inputs_of(outputs), num_matches=1, num_feature_matches=1).mean
    maps, grids = (each.unflatten(2, (3, 3)) for each in (cells, places))
    theirs = lightly.VICRegLLoss(num_matches=(1, 1)).double()([*zip(z, maps, strict=True)], [*grids])
    return "vicregl, one match: lightly VICRegLLoss", ours, theirs.squeeze(), [z, cells]


def of_logits() -> Iterator[tuple[str, float, float]]:
    """Compare metrics of a classifier with torchmetrics, which computes the calibration error in float32."""
    logits, labels = 3 * torch.randn(500, 10, dtype=torch.float64), torch.arange(500) % 10
    probabilities, options = logits.softmax(1), dict[str, Any](num_classes=10)
    theirs = classification.multiclass_calibration_error(probabilities, labels, n_bins=15, **options)
    yield "ece: torchmetrics", ece(logits, labels), float(theirs)
    for k, metric in ((1, top1), (5, top5)):
        theirs = classification.multiclass_accuracy(logits, labels, average="micro", top_k=k, **options)
        yield f"top{k}: torchmetrics", metric(logits, labels), float(theirs)


if __name__ == "__main__":
    sys.exit(main())

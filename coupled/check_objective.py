"""Check an objective on random batches: `coupled check-objective FILE:NAME [option=value ...]`.

The batches imitate float64 outputs of a network for 8 images of 4 classes in two views. Each row is a check with its
largest and its allowed difference. The exit status is 1 if a check fails, 2 for bad input.
"""

import sys
from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from coupled.config.command_line import Parser, command_parser
from coupled.monitoring.terminal import imports_done, interrupted, say

if TYPE_CHECKING:
    from torch import Tensor

    from coupled.config.registry import Objective
    from coupled.objectives import Loss

IMAGES, VIEWS, WIDTH, CLASSES, CELLS = 8, 2, 6, 4, 4
ROWS = "{:34} {:>12} {:>10}  {}"


class Check(NamedTuple):
    """One row of the table."""

    name: str
    difference: float
    allowed: float
    not_checked: str = ""  # the reason, if the check does not apply

    @property
    def passed(self) -> bool:
        """Whether the difference is allowed (NaN never is), or the check does not apply."""
        return bool(self.not_checked) or self.difference <= self.allowed


def parser() -> Parser:
    """Return the parser of the command."""
    examples = ["dcl", "examples/hard_negatives.py:hard_negatives beta=0.5"]
    about = (
        "Check that an objective is finite and differentiable, and that its value does not depend on the order of\n"
        "the images or on the number of processes that share the batch."
    )
    result = command_parser("check-objective", about, examples, ["none"])
    result.add_argument("objective", metavar="OBJECTIVE", help="FILE:NAME, MODULE:NAME, or a built-in objective's name")
    result.add_argument("options", nargs="*", default=[], metavar="key=value", help="options of the objective")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    imports_done()
    command_line = parser()
    try:
        options = command_line.parse_intermixed_args(arguments)
        found = list(checks(_objective(options.objective, options.options)))
    except ValueError as error:
        say(f"{command_line.prog}: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted(command_line.prog)
    say(ROWS.format("check", "difference", "allowed", "result"))
    for each in found:
        numbers = ("-", "-") if each.not_checked else (f"{each.difference:.1e}", f"{each.allowed:.0e}")
        result = f"not checked: {each.not_checked}" if each.not_checked else "ok" if each.passed else "FAILED"
        say(ROWS.format(each.name, *numbers, result))
    return int(not all(each.passed for each in found))


def checks(objective: "Objective") -> Iterator[Check]:
    """Yield all checks of an objective. Raises ValueError if the objective is not pure or does not return a loss."""
    import torch

    from coupled.stream.known_labels import seen_labels

    labels_G = seen_labels(torch.arange(IMAGES) % CLASSES, CLASSES, 0, objective.needs)
    outputs = _outputs(objective)
    whole, gradients = _loss_and_gradients(objective, outputs, [slice(0, IMAGES)], labels_G)
    yield Check("finite loss and gradient", 0.0 if _finite([whole, *gradients.values()]) else inf, 0)
    yield Check("gradient = finite differences", _finite_differences(objective, outputs, labels_G), 1e-5)
    order_G = torch.tensor([3, 6, 0, 5, 7, 1, 4, 2])
    turned = {name: each[:, order_G] for name, each in outputs.items()}
    moved, moved_gradients = _loss_and_gradients(objective, turned, [slice(0, IMAGES)], labels_G[order_G])
    expected = {name: each[:, order_G] for name, each in gradients.items()}
    yield Check("order of the images", _apart(whole, moved, expected, moved_gradients), 1e-9)
    for ranks in (2, 4):
        own = [slice(first, first + IMAGES // ranks) for first in range(0, IMAGES, IMAGES // ranks)]
        shared, of_shares = _loss_and_gradients(objective, outputs, own, labels_G)
        yield Check(f"shared by W = {ranks} processes", _apart(whole, shared, gradients, of_shares), 1e-9)
    single = {name: each.float() for name, each in outputs.items()}
    in_float, _ = _loss_and_gradients(objective, single, [slice(0, IMAGES)], labels_G)
    yield Check("float32 = float64, relative", float(abs(in_float - whole) / (abs(whole) + 1e-6)), 1e-4)
    alone, slopes = _loss_and_gradients(objective, outputs, [slice(0, IMAGES)], torch.zeros_like(labels_G))
    yield Check("batch of one class: finite", 0.0 if _finite([alone, *slopes.values()]) else inf, 0)
    yield from _own_rule(objective, outputs)


def _own_rule(objective: "Objective", outputs: "dict[str, Tensor]") -> "Iterator[Check]":
    """Check that `batch_sums` adds up over processes, and that `after_step` then returns the same finite tensors."""
    rows = [f"{name}, shared by W = {ranks}" for ranks in (2, 4) for name in ("batch_sums", "after_step")]
    if objective.after_step is None:
        yield from (Check(row, inf, 0, "the objective has no after_step") for row in rows)
        return
    import torch

    batch_sums = objective.batch_sums or (lambda outputs, **options: {})
    gathered = {name: outputs[name] for name in objective.needs.gathered} | {"labels": torch.arange(IMAGES) % CLASSES}
    whole = batch_sums(outputs, **objective.options)
    expected = _after_step(objective, gathered | whole)
    for ranks in (2, 4):
        of_ranks = [{name: each.chunk(ranks, dim=1)[r] for name, each in outputs.items()} for r in range(ranks)]
        shares = [batch_sums(own, **objective.options) for own in of_ranks]
        sums = {name: sum((share[name] for share in shares[1:]), shares[0][name]) for name in whole}
        yield Check(rows[0], _between(whole, sums), 1e-9)
        yield Check(rows[1], _between(expected, _after_step(objective, gathered | sums)), 1e-9)
        rows = rows[2:]


def _after_step(objective: "Objective", batch: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Return the tensors that `after_step` sets after the first step, from the tensors of an untrained network."""
    import torch

    from coupled.models.heads import build_head, kept_of_one_width
    from coupled.stream.seeds import torch_rng

    assert objective.after_step
    tensors = {f"kept.{name}": each for name, each in kept_of_one_width(objective.needs, WIDTH, torch.float64).items()}
    for name, head in objective.needs.heads.items():
        with torch_rng(0, f"check/{name}"):
            tensors |= {f"{name}.{key}": each for key, each in build_head(head, WIDTH, CLASSES).state_dict().items()}
    with torch.no_grad():
        doubles = {name: each.double() for name, each in tensors.items()}
        changed = objective.after_step(doubles, batch, 1, **objective.options)
    for name, each in changed.items():
        if name not in tensors or each.shape != tensors[name].shape:
            raise ValueError(
                f"OBJECTIVE: after_step of {objective.name} returns '{name}' {list(each.shape)}; allowed are"
                f" tensors of the network: {', '.join(f'{key} {list(known.shape)}' for key, known in tensors.items())}"
            )
    return changed


def _between(one: "dict[str, Tensor]", other: "dict[str, Tensor]") -> float:
    """Return the largest difference between tensors of the same names; infinity if one is not finite."""
    if not _finite([*one.values(), *other.values()]):
        return inf
    return max((float((one[name] - other[name]).abs().max()) for name in one), default=0.0)


def _objective(name: str, given: Sequence[str]) -> "Objective":
    from coupled.config.registry import find_objective
    from coupled.config.safe_yaml import parse_yaml
    from coupled.config.sections import TEMPERATURE
    from coupled.config.user_code import import_code, is_reference

    options = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not equals:
            raise ValueError(f"option '{each}': write it as key=value, such as temperature=0.2")
        options[key] = parse_yaml(text, f"option '{each}'")
    reference = import_code(name, "OBJECTIVE").reference if is_reference(name) else name
    try:
        return find_objective("checked", reference, options, TEMPERATURE)
    except ValueError as error:
        text = str(error).removeprefix("arms.checked.")
        raise ValueError(text.replace("unknown key", f"unknown option of {name}", 1)) from None


def _outputs(objective: "Objective") -> "dict[str, Tensor]":
    """Return the outputs that the objective needs, random and of shape [V, G, width]."""
    import torch

    needs, generator = objective.needs, torch.Generator().manual_seed(0)
    widths, found = needs.widths(CLASSES), {}
    for name in dict.fromkeys([*needs.outputs, *needs.gathered]):
        cells = (max(CELLS, *needs.least_cells.values()),) if name in needs.maps else ()
        shape = (needs.views or VIEWS, IMAGES, *cells, widths.get(name, WIDTH))
        found[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name in ("projection", "target_projection"):
            found[name] = torch.nn.functional.normalize(found[name], dim=-1)
    return found


def _loss_and_gradients(
    objective: "Objective", outputs: "dict[str, Tensor]", own: Sequence[slice], labels_G: "Tensor"
) -> "tuple[Tensor, dict[str, Tensor]]":
    """Return the loss over processes that each own some of the images, and its gradient by output (0 if unused)."""
    import torch

    leaves = {name: each.clone().requires_grad_() for name, each in outputs.items()}
    losses = [_loss(objective, leaves, leaves, part, labels_G) for part in own]
    counted = sum(int(each.counted) for each in losses)
    mean = torch.stack([each.mean * each.counted for each in losses]).sum() / max(1, counted)
    found = torch.autograd.grad(mean, list(leaves.values()), allow_unused=True)
    return mean.detach(), {
        name: torch.zeros_like(leaf) if slope is None else slope
        for (name, leaf), slope in zip(leaves.items(), found, strict=True)
    }


def _loss(
    objective: "Objective", leaves: "dict[str, Tensor]", whole: "dict[str, Tensor]", own: slice, labels_G: "Tensor"
) -> "Loss":
    from coupled.models.heads import kept_of_one_width
    from coupled.objectives import Inputs

    mine = {name: leaves[name][:, own] for name in objective.needs.outputs}
    gathered = {name: whole[name] for name in objective.needs.gathered}
    kept = kept_of_one_width(objective.needs, WIDTH, leaves[objective.needs.outputs[0]].dtype)
    inputs = Inputs(mine, gathered, labels_G[own], labels_G, own.start, kept=kept)
    return objective.function(inputs, **objective.options)


def _finite_differences(objective: "Objective", outputs: "dict[str, Tensor]", labels_G: "Tensor") -> float:
    """Return the largest difference to central differences along three random directions, divided by max(1, |slope|).

    Own and gathered outputs are separate variables; those without a gradient, as of a target network, stay fixed.
    """
    import torch

    leaves = {(part, name): each.clone().requires_grad_() for part in (0, 1) for name, each in outputs.items()}

    def loss(values: "dict[tuple[int, str], Tensor]") -> "Tensor":
        own, gathered = ({name: values[part, name] for name in outputs} for part in (0, 1))
        return _loss(objective, own, gathered, slice(0, IMAGES), labels_G).mean

    slopes = torch.autograd.grad(loss(leaves), [*leaves.values()], allow_unused=True, materialize_grads=True)
    slope_of = dict(zip(leaves, slopes, strict=True))
    generator, step, worst = torch.Generator().manual_seed(1), 1e-6, 0.0
    for _ in range(3):
        along = {key: torch.randn(each.shape, generator=generator, dtype=each.dtype) for key, each in leaves.items()}
        moves = {key: step * along[key] * bool(slope_of[key].any()) for key in leaves}
        ends = [loss({key: each.detach() + sign * moves[key] for key, each in leaves.items()}) for sign in (1, -1)]
        slope = sum(float((slope_of[key] * along[key]).sum()) for key in leaves)
        difference = abs(float(ends[0] - ends[1]) / (2 * step) - slope) / max(1.0, abs(slope))
        worst = max(worst, difference) if difference == difference else inf
    return worst


def _apart(one: "Tensor", other: "Tensor", slopes: "dict[str, Tensor]", others: "dict[str, Tensor]") -> float:
    """Return the largest difference between two losses and their gradients."""
    apart = [float(abs(one - other)), *(float((slopes[name] - others[name]).abs().max()) for name in slopes)]
    return max(apart) if all(each == each for each in apart) else inf


def _finite(tensors: "Sequence[Tensor]") -> bool:
    return all(bool(each.isfinite().all()) for each in tensors)

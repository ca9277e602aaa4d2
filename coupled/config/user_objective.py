"""A user-defined objective: a function or a class outside the package, used like a file of coupled/objectives.

A function `f(inputs, *, options) -> Loss | Tensor` reads the projections of this process and of the global batch,
unless its file defines other `needs(**options)`. A class has the function as `loss`, without `self`. The file or the
class may also define `needs`, `check`, `batch_sums` and `after_step`, as `coupled.objectives` describes them.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coupled.config.by_name import did_you_mean
from coupled.config.controls import KEYS, TRAINING_KEYS
from coupled.config.unchanged import watch
from coupled.config.user_code import UserCode, errors_named, refuse_option_names, refused
from coupled.objectives import FEATURE_MAP, LOCAL, LOCATIONS, Inputs, Kept, Loss, Needs
from coupled.stream.seeds import generator_states

EXPECTED = (
    "expected is a pure function f(inputs, *, options) that returns a Loss, or a scalar tensor, the mean over the"
    " images of this process (docs/your_own.md)"
)


NEEDS_EXPECTED = "expected is a coupled.objectives.Needs of outputs that the network has (docs/your_own.md)"
SAME = 1e-3  # relative, between two calls with the same inputs: some GPU kernels round differently in each call
SHARED_OUTPUTS = ("embedding", "unnormalised", "projection", FEATURE_MAP, LOCATIONS)


class Declared(NamedTuple):
    """The functions that the file of an objective defines."""

    function: Callable[..., Loss]
    needs: Callable[..., Needs]
    check: Callable[..., None] | None
    batch_sums: Callable[..., dict[str, Tensor]] | None
    after_step: Callable[..., dict[str, Tensor]] | None
    added: tuple[str, ...] = ()  # options that are recorded only if they do not have their default


def declared(code: UserCode, key: str) -> Declared:
    """The functions of the objective that `code` names. Raises ValueError if it is not an objective."""
    function = getattr(code.value, "loss", None) if inspect.isclass(code.value) else code.value
    if not callable(function):
        what = "has no function `loss`" if inspect.isclass(code.value) else "is not a function"
        raise refused(code, key, what, EXPECTED)
    parameters = [*inspect.signature(function).parameters.values()]
    if not parameters or any(each.kind is not inspect.Parameter.KEYWORD_ONLY for each in parameters[1:]):
        text = f"takes ({', '.join(map(str, parameters))})"
        raise refused(code, key, text, "expected is f(inputs, *, options), its options by keyword only")
    refuse_option_names(code, key, function, ("objective", *KEYS, *TRAINING_KEYS))
    optional = {name: getattr(code.declared, name, None) for name in ("check", "batch_sums", "after_step")}
    own = getattr(code.declared, "needs", None)
    named = {name: _named(each, code, key) for name, each in {**optional, "needs": own}.items() if each is not None}
    return Declared(
        function=_pure(function, code, key),
        needs=_needs(named["needs"], code, key) if "needs" in named else _projections,
        check=named.get("check"),
        batch_sums=named.get("batch_sums"),
        after_step=named.get("after_step"),
    )


def _projections(**_options: object) -> Needs:
    return Needs(outputs=("projection",), gathered=("projection",))


def _needs(function: Callable[..., Any], code: UserCode, key: str) -> Callable[..., Needs]:
    """Wrap `needs` and check its result: `Needs` of outputs that a network has."""

    @functools.wraps(function)
    def call(**options: Any) -> Needs:
        needs = function(**options)
        if not isinstance(needs, Needs):
            raise refused(code, key, f"has `needs` that returns {type(needs).__name__}", NEEDS_EXPECTED)
        there = {*SHARED_OUTPUTS, *(head.output for head in needs.heads.values())}
        there |= {f"{LOCAL}{name}" for name in there - {FEATURE_MAP, LOCATIONS}}
        of_target = [
            "projection",
            "unnormalised",
            *(needs.heads[name].output for name in needs.target_heads if name in needs.heads),
        ]
        there |= {f"target_{name}" for name in of_target} if needs.target_decay is not None else set()
        if wrong := [name for name, each in needs.kept.items() if not isinstance(each, Kept)]:
            what = f"keeps '{wrong[0]}', which is a {type(needs.kept[wrong[0]]).__name__}"
            raise refused(code, key, what, "expected is coupled.objectives.Kept with the shape")
        kept = [size for each in needs.kept.values() for size in each.shape if not isinstance(size, int)]
        for which, names, known in (
            ("output", needs.outputs, there),
            ("gathered output", needs.gathered, {*needs.outputs}),
            ("input of a head", [head.input for head in needs.heads.values()], {*SHARED_OUTPUTS} - {LOCATIONS}),
            ("kept width", kept, {*SHARED_OUTPUTS} - {LOCATIONS}),
            ("target head", needs.target_heads, {*needs.heads}),
        ):
            for unknown in {*names} - known:
                near = did_you_mean(unknown, known)
                what = f"needs the {which} '{unknown}', allowed are {', '.join(sorted(known))}{near}"
                raise refused(code, key, what, NEEDS_EXPECTED)
        return needs

    return call


def _named(function: Callable[..., Any], code: UserCode, key: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with errors_named(code, key, EXPECTED):
            return function(*arguments, **options)

    return call


def _pure(function: Callable[..., Any], code: UserCode, key: str) -> Callable[..., Loss]:
    """Wrap the objective and check each call: its result, that it changes no input, and that it draws no random number.

    The first call is made twice and compares all values; later calls compare torch's version counters, which is cheap.
    """
    first = True

    @functools.wraps(function)
    def call(inputs: Inputs, **options: Any) -> Loss:
        nonlocal first
        changed, drawn = watch(_tensors(inputs), values=first), generator_states(inputs.labels_B.device)
        with errors_named(code, key, EXPECTED):
            result = function(inputs, **options)
            with torch.no_grad():
                again = function(inputs, **options) if first else None
        if name := changed():
            raise refused(code, key, f"changes its input {name} in place", EXPECTED)
        first = False
        if generator_states(inputs.labels_B.device) != drawn:
            raise refused(code, key, "draws from a global random generator", EXPECTED)
        loss = _loss(result, inputs, code, key)
        if again is not None and not torch.allclose(_mean(again), loss.mean.detach(), rtol=SAME, equal_nan=True):
            raise refused(code, key, "returns two values for the same inputs", EXPECTED)
        return loss

    return call


def _mean(result: Any) -> Tensor:
    mean: Tensor = result.mean if isinstance(result, Loss) else result
    return mean


def _tensors(inputs: Inputs) -> dict[str, Tensor]:
    named = {"outputs": inputs.outputs, "gathered": inputs.gathered, "kept": inputs.kept}
    found = {f"{which}['{name}']": each for which, tensors in named.items() for name, each in tensors.items()}
    labels = {name: getattr(inputs, name) for name in ("labels_B", "labels_G", "partner_labels_B", "own_weight_VB")}
    return {**found, **{name: each for name, each in labels.items() if each is not None}}


def _loss(result: Any, inputs: Inputs, code: UserCode, key: str) -> Loss:
    if isinstance(result, Tensor) and not isinstance(result, Loss):
        anchors = torch.tensor(inputs.views * len(inputs.labels_B), device=result.device)
        result = Loss(result, anchors, torch.zeros_like(anchors))
    if not isinstance(result, Loss):
        raise refused(code, key, f"returns {type(result).__name__}", EXPECTED)
    for name, tensor in result._asdict().items():
        if not isinstance(tensor, Tensor) or tensor.dim() or tensor.is_floating_point() != (name == "mean"):
            shape = f"{list(tensor.shape)} {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise refused(code, key, f"returns {name} = {shape}", EXPECTED)
    if any(each.requires_grad for each in inputs.outputs.values()) and not result.mean.requires_grad:
        raise refused(code, key, "returns a loss without gradient", EXPECTED)
    return result

"""An objective of the user: a function or a class outside the package, made into what a file of coupled/objectives is.

A function `f(inputs, *, options) -> Loss | Tensor` reads the projections of this process and of the global batch,
unless its file has `needs(**options)`; a class has the function as `loss`, without `self`. Beside it, in the file or
the class, may be `needs`, `check`, `batch_sums` and `after_step`, as `coupled.objectives` describes them.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coupled.config.unchanged import watch
from coupled.config.user_code import UserCode, errors_named, refused
from coupled.objectives import Inputs, Loss, Needs
from coupled.stream.seeds import generator_states

EXPECTED = (
    "expected is a pure function f(inputs, *, options) that returns a Loss, or a scalar tensor, the mean over the own"
    " images (docs/your_own.md)"
)


class Declared(NamedTuple):
    """The functions of an objective, as its file would have them."""

    function: Callable[..., Loss]
    needs: Callable[..., Needs]
    check: Callable[..., None] | None
    batch_sums: Callable[..., dict[str, Tensor]] | None
    after_step: Callable[..., dict[str, Tensor]] | None


def declared(code: UserCode, key: str) -> Declared:
    """The functions of the objective that `code` names. Raises ValueError if it cannot be called as one."""
    function = getattr(code.value, "loss", None) if inspect.isclass(code.value) else code.value
    if not callable(function):
        what = "has no function `loss`" if inspect.isclass(code.value) else "is no function"
        raise refused(code, key, what, EXPECTED)
    parameters = [*inspect.signature(function).parameters.values()]
    if not parameters or any(each.kind is not inspect.Parameter.KEYWORD_ONLY for each in parameters[1:]):
        text = f"takes ({', '.join(map(str, parameters))})"
        raise refused(code, key, text, "expected is f(inputs, *, options), its options by keyword only")
    optional = {name: getattr(code.declared, name, None) for name in ("check", "batch_sums", "after_step")}
    own = getattr(code.declared, "needs", None)
    named = {name: _named(each, code, key) for name, each in {**optional, "needs": own}.items() if each is not None}
    return Declared(
        function=_pure(function, code, key),
        needs=named.get("needs", _projections),
        **{name: named.get(name) for name in optional},
    )


def _projections(**_options: object) -> Needs:
    return Needs(outputs=("projection",), gathered=("projection",))


def _named(function: Callable[..., Any], code: UserCode, key: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with errors_named(code, key, EXPECTED):
            return function(*arguments, **options)

    return call


def _pure(function: Callable[..., Any], code: UserCode, key: str) -> Callable[..., Loss]:
    """The function, each call checked: what it returns, that it changes no input, and that it draws nothing.

    The first call compares all values, the others what torch counts, which costs nothing.
    """
    first = True

    @functools.wraps(function)
    def call(inputs: Inputs, **options: Any) -> Loss:
        nonlocal first
        changed, drawn = watch(_tensors(inputs), values=first), generator_states(inputs.labels_B.device)
        with errors_named(code, key, EXPECTED):
            result = function(inputs, **options)
        if name := changed():
            raise refused(code, key, f"changes its input {name} in place", EXPECTED)
        first = False
        if generator_states(inputs.labels_B.device) != drawn:
            raise refused(code, key, "draws from a global random generator", EXPECTED)
        return _loss(result, inputs, code, key)

    return call


def _tensors(inputs: Inputs) -> dict[str, Tensor]:
    named: dict[str, Mapping[str, Tensor]] = {"outputs": inputs.outputs, "gathered": inputs.gathered}
    found = {f"{which}['{name}']": each for which, tensors in named.items() for name, each in tensors.items()}
    return {**found, "labels_B": inputs.labels_B, "labels_G": inputs.labels_G}


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

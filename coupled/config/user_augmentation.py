"""A user-defined augmentation step: `f(views_M3SS, random_MR, *, options)`, applied after the built-in ones."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coupled.config.errors import check_options
from coupled.config.unchanged import watch
from coupled.config.user_code import FORM, UserCode, errors_named, find, is_reference, refuse_option_names, refused
from coupled.stream.seeds import generator_states
from coupled.stream.view_plan import STEP_DRAWS

EXPECTED = (
    "expected is a pure function f(views_M3SS, random_MR, *, options) that returns views of the same shape and type,"
    f" each computed only from its view and its {STEP_DRAWS} random numbers in [0, 1) (docs/your_own.md)"
)
TRIED = 64  # pixels of the views on which a step is tested
TOLERANCE = 1e-4  # between a view alone and the same view in a batch


def with_step_options(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps with all their options written out. Raises ValueError for one that is unknown or not allowed."""
    return [{"name": step["name"], **_checked(step, k)[1]} for k, step in enumerate(steps)]


def user_step(name: str, options: Mapping[str, Any], number: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The step `number` of `augmentation.steps`, with its options, tested on random views.

    Raises ValueError for one that raises, changes its input, draws random numbers, mixes views, or does not return
    views.
    """
    code, checked = _checked({"name": name, **options}, number)
    step, key = partial(_step, code, checked, f"augmentation.steps.{number}"), f"augmentation.steps.{number}"
    generator = torch.Generator().manual_seed(0)
    views_M3SS = torch.rand(4, 3, TRIED, TRIED, generator=generator)
    random_MR = torch.rand(4, STEP_DRAWS, generator=generator)
    changed = watch({"views": views_M3SS, "random": random_MR}, values=True)
    drawn = generator_states(views_M3SS.device)
    found = step(views_M3SS, random_MR)
    if changed():
        raise refused(code, key, "changes its input in place", EXPECTED)
    if generator_states(views_M3SS.device) != drawn:
        raise refused(code, key, "draws from a global random generator", EXPECTED)
    if not found.isfinite().all():
        raise refused(code, key, "returns values that are not finite", EXPECTED)
    alone = torch.cat([step(view[None], random[None]) for view, random in zip(views_M3SS, random_MR, strict=True)])
    if not torch.allclose(found, alone, rtol=0, atol=TOLERANCE):
        raise refused(code, key, "makes a view depend on other views of its batch", EXPECTED)
    return step


def _step(code: UserCode, options: Mapping[str, Any], key: str, views_M3SS: Tensor, random_MR: Tensor) -> Tensor:
    with errors_named(code, key, EXPECTED):
        found = code.value(views_M3SS, random_MR, **options)
    if not isinstance(found, Tensor) or (found.shape, found.dtype) != (views_M3SS.shape, views_M3SS.dtype):
        shown = f"{list(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise refused(code, key, f"returns {shown} for views {list(views_M3SS.shape)}", EXPECTED)
    return found


def _checked(step: Mapping[str, Any], number: int) -> tuple[UserCode, dict[str, Any]]:
    name, key = step["name"], f"augmentation.steps.{number}"
    if not is_reference(name):
        raise ValueError(f"{key}.name: got '{name}'; allowed is {FORM}")
    code = find(name, key)
    kinds = [each.kind for each in inspect.signature(code.value).parameters.values()] if callable(code.value) else []
    own = inspect.Parameter.KEYWORD_ONLY
    if len(kinds) < 2 or own in kinds[:2] or any(kind is not own for kind in kinds[2:]):
        raise refused(code, key, "takes other arguments", EXPECTED)
    refuse_option_names(code, f"{key}.name", code.value, ("name",))
    return code, check_options(code.value, {name: step[name] for name in step if name != "name"}, key)

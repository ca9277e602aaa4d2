"""Whether code of the user has changed the tensors that it was given."""

from collections.abc import Callable, Mapping

from torch import Tensor


def watch(tensors: Mapping[str, Tensor], values: bool) -> Callable[[], str | None]:
    """A function that says which of the tensors was changed since, or None.

    torch counts what changes a tensor, but not what goes through `.data` or an array of NumPy. With `values` copies are
    compared, which finds these, too.
    """
    versions = {name: tensor._version for name, tensor in tensors.items()}
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()} if values else {}

    def changed() -> str | None:
        for name, tensor in tensors.items():
            if tensor._version != versions[name] or (name in copies and not _equal(tensor.detach(), copies[name])):
                return name
        return None

    return changed


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())

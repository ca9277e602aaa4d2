"""All arms of a run: copies of one network, placed on the ranks, and proven equal before they start."""

from typing import NamedTuple

from coupled.agreement import check_equal_start
from coupled.arm import Arm
from coupled.choices import Objective, find_objective
from coupled.controls import Draws, draws
from coupled.encoders import check_bfloat16_on_cpu
from coupled.network import Network, build_network, copy_with_heads, network_size, shared_tensors
from coupled.placement import place_arms
from coupled.process_group import ProcessGroup
from coupled.settings import Settings


class Arms(NamedTuple):
    """`own` are the arms of this rank; the rest is about all of them: objective, parameters and bytes of a snapshot,
    and the draws used, by name, and the names at each place.
    """

    own: list[Arm]
    objectives: dict[str, Objective]
    sizes: dict[str, tuple[int, int]]
    draws: dict[str, Draws]
    placed: list[list[str]]


def build_arms(settings: Settings, group: ProcessGroup, classes: int) -> Arms:
    """The arms of `settings` for an image set of so many classes; all ranks together.

    Raises ValueError for a network that cannot be built or placed so, `RunError` if the arms do not start equal.
    """
    objectives = {
        name: find_objective(name, arm.objective or "", arm.options, settings.temperature)
        for name, arm in settings.arms.items()
    }
    used = draws(settings.resolved()["arms"])
    shared = _network(settings, settings.seed)
    if settings.precision == "bfloat16" and group.device.type == "cpu":
        check_bfloat16_on_cpu(shared.encoder, settings.encoder.image_size)
    sizes = {
        name: network_size(copy_with_heads(shared, objective.needs, classes, settings.seed))
        for name, objective in objectives.items()
    }
    placed = place_arms({name: parameters for name, (parameters, _) in sizes.items()}, group.arms_size)
    own = []
    for name in placed[group.arms_rank]:
        seed = used[name].seed("init", settings.seed)
        start = shared if seed == settings.seed else _network(settings, seed)
        own.append(Arm(name, settings, objectives[name], start, classes, seed, group.device))
    starts = {arm.name: shared_tensors(arm.network) for arm in own}
    for init in sorted({each.init for each in used.values()}):
        check_equal_start({name: tensors for name, tensors in starts.items() if used[name].init == init})
    for arm in own:
        arm.perturb_after(0)
    return Arms(own, objectives, sizes, used, placed)


def _network(settings: Settings, seed: int) -> Network:
    return build_network(
        encoder=settings.encoder.name,
        width=settings.encoder.width,
        stem=settings.encoder.stem,
        image_size=settings.encoder.image_size,
        zero_init_last=settings.encoder.zero_init_last,
        projector_hidden=settings.projector.hidden,
        projector_out=settings.projector.out,
        seed=seed,
    )

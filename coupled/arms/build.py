"""All arms of a run: copies of one network, placed on the ranks, and proven equal before they start."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from coupled.arms import sanity_checks
from coupled.arms.arm import Arm
from coupled.arms.consistency import check_equal_start
from coupled.arms.given_weights import GivenWeights, load_given_weights
from coupled.arms.sanity_checks import check_views
from coupled.config.controls import RandomSources, random_sources
from coupled.config.registry import Objective, find_objective
from coupled.config.schema import Settings
from coupled.config.user_code import is_reference
from coupled.models.batch_norm import use_global_batch
from coupled.models.freezing import freeze
from coupled.models.memory import forecast, free_memory, memory_line
from coupled.models.network import Network, build_network, copy_with_heads, network_size, shared_tensors
from coupled.models.optimizer import build_optimizer
from coupled.models.probe import Probe, check_local_size, outline, probe
from coupled.parallel.process_group import ProcessGroup


class Arms(NamedTuple):
    """`own` are the arms of this rank, `memory` is a line on what they need; the rest is about all of them: objective,
    parameters and bytes of a snapshot, and the random sources used, by name, and the names at each place. `weights` are
    those that all start from, if the settings name some.
    """

    own: list[Arm]
    objectives: dict[str, Objective]
    sizes: dict[str, tuple[int, int]]
    random_sources: dict[str, RandomSources]
    placed: list[list[str]]
    memory: str
    weights: GivenWeights | None


def build_arms(settings: Settings, group: ProcessGroup, classes: int) -> Arms:
    """The arms of `settings` for a dataset of so many classes; all ranks together.

    Raises ValueError for a network that cannot be built or placed so, `RunError` if the arms do not start equal.
    """
    objectives = {
        name: find_objective(name, arm.objective or "", arm.options, settings.temperature)
        for name, arm in settings.arms.items()
    }
    augmentation = settings.augmentation
    check_views(objectives, augmentation.views, augmentation.local_views)
    if classes == 0:
        sanity_checks.check_unlabelled(objectives, settings.batch.sampler)
    used = random_sources(settings.resolved()["arms"])
    free, device = free_memory(group.device), group.device
    options = settings.network_options()
    if is_reference(options["encoder"]):  # the user's code may have changed while Python runs
        outline.cache_clear()
        probe.cache_clear()
    if sketch := outline(settings.precision, **options):  # before there are weights, which alone may be too large
        _memory(settings, group, sketch, [sketch.weights] * (len(objectives) // group.arms_size), free)
    probed = probe(device, settings.precision, **options)
    if augmentation.local_size:
        check_local_size(device, settings.precision, augmentation.local_size, **options)
    shared = _network(options, settings.seed, probed)
    weights = _given_weights(settings, shared)
    sizes = {
        name: network_size(copy_with_heads(shared, objective.needs, classes, settings.seed))
        for name, objective in objectives.items()
    }
    placed = place_arms({name: parameters for name, (parameters, _) in sizes.items()}, group.arms_size)
    own, names = [], placed[group.arms_rank]
    memory = _memory(settings, group, probed, [sizes[name][1] for name in names], free)
    for name in names:
        seed = used[name].seed("init", settings.seed)
        start = shared if seed == settings.seed else _network(options, seed, probed)
        network = copy_with_heads(start, objectives[name].needs, classes, seed)
        own.append(_arm(name, settings, objectives[name], network, device))
    starts = {arm.name: shared_tensors(arm.network) for arm in own}
    for init in sorted({each.init for each in used.values()}):
        check_equal_start({name: tensors for name, tensors in starts.items() if used[name].init == init})
    for arm in own:
        arm.perturb_after(0)
    return Arms(own, objectives, sizes, used, placed, memory, weights)


def place_arms(parameters: Mapping[str, int], places: int) -> list[list[str]]:
    """The arms at each place, balanced by their number of parameters; a pure function, so every rank knows all of it.

    The largest arm first, each to the place with the fewest parameters so far; equal arms in the order given. No place
    is empty if there are as many arms. Within a place the arms keep the order given. Source: Graham 1969, the
    longest-processing-time rule, never more than 4/3 of the best balance.
    """
    placed: list[list[str]] = [[] for _ in range(places)]
    for arm in sorted(parameters, key=lambda name: -parameters[name]):
        min(placed, key=lambda own: (sum(parameters[name] for name in own), len(own))).append(arm)
    order = list(parameters)
    return [sorted(own, key=order.index) for own in placed]


def _arm(name: str, settings: Settings, objective: Objective, network: Network, device: torch.device) -> Arm:
    """An arm whose `network`, still on the CPU, is put where and how it is trained."""
    dtype = torch.float64 if settings.precision == "float64" else torch.float32
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    placed = use_global_batch(network.to(device, dtype), device).train().to(memory_format=layout)
    for encoder in [each for path, each in placed.named_modules() if path in ("encoder", "target.encoder")]:
        freeze(encoder, settings.encoder.freeze)
    if not any(parameter.requires_grad for parameter in placed.parameters()):
        raise ValueError(f"encoder.freeze: got {', '.join(settings.encoder.freeze)}; arm '{name}' has nothing to train")
    if settings.compile:
        placed.compile()  # in place: names and snapshots stay as they are
    optimizer, perturb = settings.optimizer, settings.arms[name].perturb
    arm = Arm(
        name,
        objective,
        placed,
        partial(
            build_optimizer,
            name=optimizer.name,
            momentum=optimizer.momentum,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
        ),
        precision=settings.precision,
        clip_grad_norm=optimizer.clip_grad_norm,
        seed=settings.seed,
        perturb=(perturb.ulps, perturb.step) if perturb else None,
    )
    arm.settle_buckets(settings.image_size, settings.augmentation.local_size or 0)
    return arm


def _network(options: dict[str, Any], seed: int, probed: Probe) -> Network:
    """The network from its seed; what no output depends on asks for no gradient, which DDP would wait for."""
    network = build_network(**options, seed=seed)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in probed.unused)
    return network


def _given_weights(settings: Settings, shared: Network) -> GivenWeights | None:
    """Give the shared encoder the weights that the settings name, if they name some."""
    given = settings.encoder
    if given.weights is None:
        return None
    return load_given_weights(shared.encoder, given.weights, given.weights_digest, given.name, settings.image_size)


def _memory(settings: Settings, group: ProcessGroup, probed: Probe, weights: list[int], free: int | None) -> str:
    batch, size, augmentation = settings.batch.size, settings.image_size, settings.augmentation
    images = batch // group.data_size
    need = forecast(
        probed,
        [bytes_ * (2 if settings.precision == "float64" else 1) for bytes_ in weights],
        settings.optimizer.name,
        images=images,
        batch=batch,
        views=augmentation.views,
        image_size=size,
        device=group.device,
        local_views=augmentation.local_views,
        local_size=augmentation.local_size or 0,
    )
    return memory_line(need, free, augmentation.views * images, len(weights), group.device)

"""Build the arms of a run: copies of one network, distributed over the ranks, with a check that they start equal."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coupled.arms import sanity_checks
from coupled.arms.arm import Arm
from coupled.arms.consistency import check_equal_starts
from coupled.arms.given_weights import GivenWeights, load_given_weights
from coupled.arms.lockstep import log_every_of
from coupled.arms.map_checks import check_encoder, check_locations
from coupled.arms.sanity_checks import check_views
from coupled.config.controls import RandomSources, random_sources
from coupled.config.registry import Objective, find_objective
from coupled.config.schema import Settings
from coupled.config.user_code import is_reference
from coupled.datasets import AnyImageDataset, ImageFiles
from coupled.models.batch_norm import use_global_batch
from coupled.models.encoders import encoder_width
from coupled.models.freezing import freeze
from coupled.models.memory import MOMENTS, ArmBytes, Forecast, forecast, free_memory, memory_line
from coupled.models.micro_batches import use_micro_batches
from coupled.models.network import Network, build_network, copy_with_heads, network_size, shared_tensors, trained_bytes
from coupled.models.online_probe import OnlineProbe
from coupled.models.optimizer import build_optimizer
from coupled.models.probe import Probe, check_local_size, largest, outline, probe
from coupled.models.schedules import peak_learning_rate, target_decay
from coupled.models.stages import recompute_blocks
from coupled.parallel.process_group import ProcessGroup
from coupled.stream.known_labels import seen_labels


class Arms(NamedTuple):
    """The arms of a run as one rank knows them.

    `own` are the arms of this rank, `need` is the forecast of their memory, and `memory` is a line on it. The other
    fields cover all arms: objectives, sizes (number of parameters, bytes of a snapshot) and random sources by name, and
    the names in each group of ranks. `weights` are the initial weights, if the settings name some.
    """

    own: list[Arm]
    objectives: dict[str, Objective]
    sizes: dict[str, tuple[int, int]]
    random_sources: dict[str, RandomSources]
    placed: list[list[str]]
    need: Forecast
    memory: str
    weights: GivenWeights | None


def build_arms(settings: Settings, group: ProcessGroup, images: AnyImageDataset, steps: int) -> Arms:
    """Build the arms of `settings` for the training `images` and a run of `steps` steps. Called by all ranks together.

    Raises ValueError if the network cannot be built or does not fit into memory, and `RunError` if the arms do not
    start with equal weights.
    """
    objectives = {
        name: find_objective(name, arm.objective or "", arm.options, settings.temperature)
        for name, arm in settings.arms.items()
    }
    augmentation, classes = settings.augmentation, len(images.class_names)
    check_views(objectives, augmentation.views, augmentation.local_views)
    recipes = {name: settings.augmentation_of(name).plain() for name in settings.arms}
    check_locations(objectives, recipes, isinstance(images, ImageFiles))
    if classes == 0:
        sanity_checks.check_unlabelled(objectives, settings.batch.sampler, bool(settings.online_probe))
    used = random_sources(settings.resolved()["arms"])
    free, device = free_memory(group.device), group.device
    options_of = {name: settings.network_options(name) for name in settings.arms}
    common = settings.precision, settings.activation_checkpointing
    if is_reference(settings.encoder.name):  # the user's code may have changed while Python runs
        outline.cache_clear()
        probe.cache_clear()
    sketches = [outline(*common, **options) for options in options_of.values()]
    if known := [sketch for sketch in sketches if sketch]:  # allocates no weights: they alone may be too large
        least = sorted(ArmBytes(sketch.weights, sketch.weights) for sketch in known)
        _memory(settings, group, largest(known), least[: len(objectives) // group.arms_size], free)
    probes = {name: probe(device, *common, **options) for name, options in options_of.items()}
    if augmentation.local_size:
        check_local_size(device, settings.precision, augmentation.local_size, **settings.network_options())
    first, *others = options_of
    shared = _network(options_of[first], settings.seed, probes[first])
    weights = _given_weights(settings, shared)
    starts = {first: shared}
    for name in others:  # arms with equal projectors start from one network
        same = next((arm for arm in starts if options_of[arm] == options_of[name]), None)
        starts[name] = starts[same] if same else _with_encoder(shared, options_of[name], settings.seed, probes[name])
    sizes, trained = {}, {}
    for name, objective in objectives.items():
        network = copy_with_heads(starts[name], objective.needs, classes, settings.seed)
        check_encoder(name, objective, network.encoder, settings.image_size, settings.batch.micro_batch)
        sizes[name], trained[name] = network_size(network), trained_bytes(network)
    placed = place_arms({name: parameters for name, (parameters, _) in sizes.items()}, group.arms_size)
    own, names = [], placed[group.arms_rank]
    bytes_ = [ArmBytes(sizes[name][1], trained[name]) for name in names]
    need, memory = _memory(settings, group, largest([*probes.values()]), bytes_, free)
    for name in names:
        seed = used[name].seed("init", settings.seed)
        start = starts[name] if seed == settings.seed else _network(options_of[name], seed, probes[name])
        network = copy_with_heads(start, objectives[name].needs, classes, seed)
        own.append(_arm(name, settings, objectives[name], network, device, steps, images))
    check_equal_starts(
        {arm.name: shared_tensors(arm.network) for arm in own},
        {name: each.init for name, each in used.items()},
        {name: json.dumps(options) for name, options in options_of.items()},
    )
    for arm in own:
        arm.perturb_after(0)
    return Arms(own, objectives, sizes, used, placed, need, memory, weights)


def place_arms(parameters: Mapping[str, int], places: int) -> list[list[str]]:
    """Distribute the arms over the groups of ranks, balanced by number of parameters.

    The arms are taken from the largest to the smallest, equal ones in the order of `parameters`. Each goes to the group
    with the fewest parameters so far. No group is empty if there are at least as many arms as groups. Within a group
    the arms keep the order of `parameters`. The largest group has at most 4/3 of the parameters of the best possible
    balance. Source: Graham 1969, the longest-processing-time rule.
    """
    placed: list[list[str]] = [[] for _ in range(places)]
    for arm in sorted(parameters, key=lambda name: -parameters[name]):
        min(placed, key=lambda own: (sum(parameters[name] for name in own), len(own))).append(arm)
    order = list(parameters)
    return [sorted(own, key=order.index) for own in placed]


def _arm(
    name: str,
    settings: Settings,
    objective: Objective,
    network: Network,
    device: torch.device,
    steps: int,
    images: AnyImageDataset,
) -> Arm:
    """Return an arm with `network` moved to the device, dtype and memory layout of training."""
    dtype = torch.float64 if settings.precision == "float64" else torch.float32
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    placed = use_global_batch(network.to(device, dtype), device).train().to(memory_format=layout)
    for encoder in [each for path, each in placed.named_modules() if path in ("encoder", "target.encoder")]:
        freeze(encoder, settings.encoder.freeze)
        if settings.activation_checkpointing:
            recompute_blocks(encoder)
        if settings.batch.micro_batch:
            use_micro_batches(encoder, settings.batch.micro_batch, settings.augmentation.views, settings.image_size)
    if not any(parameter.requires_grad for parameter in placed.parameters()):
        raise ValueError(
            f"arms.{name}: no trainable parameter: the parameters of the encoder are frozen and the objective has none;"
            " train a part of the encoder (encoder.freeze, or requires_grad in its code), or use another objective"
        )
    if settings.compile:
        placed.compile()  # in place: names and snapshots stay as they are
    optimizer, perturb, start = settings.optimizer_of(name), settings.arms[name].perturb, objective.needs.target_decay
    heads = [parameter for head in objective.needs.heads for parameter in placed.get_submodule(head).parameters()]
    decay = None
    if start is not None:
        decay = partial(target_decay, start=start, steps=steps, schedule=settings.arms[name].target_schedule)
    labels_N, probe = None, None
    if not objective.needs.true_labels:
        labels_N = _seen_labels(name, images, settings.seed, objective).to(device)
    if settings.online_probe:
        peak = peak_learning_rate(optimizer.base_lr, optimizer.lr_scaling, settings.batch.size)
        network.also_returned = ("embedding",)
        of_probe = encoder_width(network.encoder), len(images.class_names), peak
        probe = OnlineProbe(*of_probe, **settings.online_probe.model_dump(), device=device, dtype=dtype)
    arm = Arm(
        name,
        objective,
        placed,
        partial(build_optimizer, **optimizer.of_update(), heads=heads),
        precision=settings.precision,
        clip_grad_norm=optimizer.clip_grad_norm,
        seed=settings.seed,
        perturb=(perturb.ulps, perturb.step) if perturb else None,
        target_decay=decay,
        labels_N=labels_N,
        probe=probe,
    )
    arm.settle_buckets(settings.image_size, settings.augmentation.local_size or 0)
    return arm


def _seen_labels(name: str, images: AnyImageDataset, seed: int, objective: Objective) -> Tensor:
    """Return the labels [N] that the objective of the arm `name` sees. Raises ValueError for too many groups."""
    try:
        return seen_labels(images.labels_N, len(images.class_names), seed, objective.needs)
    except ValueError as error:
        raise ValueError(f"arms.{name}.{error}") from None


def _network(options: dict[str, Any], seed: int, probed: Probe) -> Network:
    """Return the network drawn from `seed`; unused parameters require no gradient, because DDP would wait for it."""
    network = build_network(**options, seed=seed)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in probed.unused)
    return network


def _with_encoder(shared: Network, options: dict[str, Any], seed: int, probed: Probe) -> Network:
    """Return the network with another projector on the encoder of `shared`, which may have loaded weights.

    The projector is drawn after an encoder, so its weights do not depend on the projectors of other arms.
    """
    network = _network(options, seed, probed)
    network.encoder = shared.encoder
    return network


def _given_weights(settings: Settings, shared: Network) -> GivenWeights | None:
    """Load the weights of `encoder.weights` into the shared encoder, if it is set."""
    given = settings.encoder
    if given.weights is None:
        return None
    return load_given_weights(shared.encoder, given.weights, given.weights_digest, given.name, settings.image_size)


def _memory(
    settings: Settings, group: ProcessGroup, probed: Probe, arms: list[ArmBytes], free: int | None
) -> tuple[Forecast, str]:
    """Return the forecast and a line on it. Raises ValueError if clearly more memory is needed than `free`."""
    batch, size, augmentation = settings.batch.size, settings.image_size, settings.augmentation
    images, wider = batch // group.data_size, 2 if settings.precision == "float64" else 1
    on_gpu = group.device.type == "cuda"
    need = forecast(
        probed,
        [ArmBytes(wider * arm.tensors, wider * arm.trained) for arm in arms],
        max((settings.optimizer_of(name).name for name in settings.arms), key=MOMENTS.__getitem__),
        images=images,
        images_at_once=min(images, settings.batch.micro_batch or images),
        batch=batch,
        views=augmentation.views,
        image_size=size,
        device=group.device,
        local_views=augmentation.local_views,
        local_size=augmentation.local_size or 0,
        keeps_copy=log_every_of(settings.log_every, on_gpu, 0.0) > 1,
        workers=0 if on_gpu else settings.dataset.num_workers or 0,
    )
    return need, memory_line(need, free, augmentation.views * images, len(arms), group.device)

"""Monitor: metrics of every arm's embeddings of clean views while the run trains, computed as in the analysis.

The rank that owns an arm embeds the images in evaluation mode; rank 0 gathers the embeddings of all arms and computes
the metrics. Training gives the same bits with and without the monitor.

Shape letters: N images that are embedded, D width of the embedding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coupled import metrics
from coupled.arms.arm import Arm
from coupled.config.by_name import find
from coupled.config.controls import usual_reference
from coupled.config.metric_registry import find_arm_metrics, find_pair_metrics
from coupled.config.monitor import KEY, WEIGHT_GAP, compares_arms, reference_of
from coupled.config.user_code import is_reference
from coupled.datasets import AnyImageDataset
from coupled.metrics.arm import Labelled
from coupled.parallel.process_group import ProcessGroup, tensors_of_all_ranks
from coupled.storage.monitor_log import open_monitor_log
from coupled.storage.run_log import CsvLog
from coupled.stream.clean import choose_images, clean_batches

TRAIN, TEST = "train", "test"
ONLINE_PROBE = "online_probe"  # in place of a metric: the accuracy of the arm's probe


@dataclass
class Monitor:
    """Measures the arms `names`; pair metrics compare each arm with `reference`.

    Ranks that own arms have the `images` by split; rank 0 has the `log`.
    """

    names: Sequence[str]
    reference: str
    every_epochs: int
    metrics: Sequence[str]
    num_images: int
    seed: int
    images: Mapping[str, AnyImageDataset]
    image_size: int
    num_workers: int | None
    group: ProcessGroup
    log: CsvLog | None

    def __post_init__(self) -> None:
        """Find the metrics once, because a user-defined file may change while the run trains."""
        own = [name for name in self.metrics if not compares_arms(name)]
        self.arm_metrics = dict(zip(own, find_arm_metrics(map(reference_of, own), KEY), strict=True))
        pairs = [name for name in self.metrics if name not in (*own, WEIGHT_GAP)]
        self.pair_metrics = {name: _pair_metric(name) for name in pairs}

    def measure(self, epoch: int, arms: Sequence[Arm]) -> list[dict[str, Any]]:
        """Write the rows of the completed epoch and return them; [] on ranks other than 0.

        Called by all ranks together; `arms` are those of this rank.
        """
        own: dict[str, Tensor] = {}
        for arm in arms if self.group.owns_arms else ():
            splits = self._splits() or ([TEST] if arm.probe else [])
            own |= {f"{arm.name}/{split}": self._embedded(arm, split) for split in splits}
            if arm.probe:
                accuracy = arm.probe.accuracy(own[f"{arm.name}/{TEST}"], self._labels(TEST))
                own[f"{arm.name}/{ONLINE_PROBE}"] = accuracy[None]
            if WEIGHT_GAP in self.metrics:
                weights = arm.network.state_dict().items()
                own |= {f"{arm.name}/{n}": t.detach().float().cpu() for n, t in weights if _compared(n, t)}
        seen = tensors_of_all_ranks(own)
        if self.log is None:
            return []
        rows = [row for name in self.names for row in self._rows(epoch, name, seen)]
        for row in rows:
            self.log.row(list(row.values()))
        self.log.sync()
        return rows

    def _splits(self) -> list[str]:
        learns = any(metric.sees == "classifier" for metric in self.arm_metrics.values())
        return [TRAIN, TEST] if learns else [TEST] if set(self.metrics) != {WEIGHT_GAP} else []

    def _chosen(self, split: str) -> Tensor:
        return choose_images(len(self.images[split]), self.num_images, self.seed, split)

    def _embedded(self, arm: Arm, split: str) -> Tensor:
        """Return the embeddings of the chosen images [N, D], on the CPU."""
        images, chosen_N = self.images[split], self._chosen(split)
        batches = clean_batches(images, chosen_N, self.image_size, self.group.device, self.num_workers)
        encoder: nn.Module = arm.network.get_submodule("encoder")
        with evaluating(encoder), torch.no_grad():
            return torch.cat([encoder(views_B3SS.to(arm.dtype)).float().cpu() for views_B3SS in batches])

    def _rows(self, epoch: int, arm: str, seen: Mapping[str, Tensor]) -> Iterator[dict[str, Any]]:
        """Yield the rows of an arm in the order of the metrics; the reference arm has no rows of pair metrics."""
        for name in [*self.metrics, *([ONLINE_PROBE] if f"{arm}/{ONLINE_PROBE}" in seen else [])]:
            pairs, learns, value = name not in (*self.arm_metrics, ONLINE_PROBE), 0, nan
            if pairs and arm == self.reference:
                continue
            if name == ONLINE_PROBE:
                value = float(seen[f"{arm}/{name}"])
            elif name == WEIGHT_GAP:
                one, other = (_below(seen, each) for each in (self.reference, arm))
                if all(bool(t.isfinite().all()) for t in (*one.values(), *other.values())):
                    value = float(metrics.weight_gap(one, other).gap.iloc[-1])  # the last row: the whole encoder
            else:
                ends = [seen[f"{each}/{TEST}"] for each in ((self.reference, arm) if pairs else (arm,))]
                sees: list[object] = [Labelled(ends[-1], self._labels(TEST))]
                if not pairs and self.arm_metrics[name].sees == "classifier":
                    learned = Labelled(seen[f"{arm}/{TRAIN}"], self._labels(TRAIN))
                    ends, learns = [*ends, learned.rows_ND], len(learned.rows_ND)
                    sees = [learned, *sees, self.seed]
                if all(bool(rows_ND.isfinite().all()) for rows_ND in ends):
                    value = self.pair_metrics[name](*ends) if pairs else self._measured(name, sees)
            yield {
                "epoch": epoch,
                "split": "" if name == WEIGHT_GAP else TEST,
                "reference": self.reference if pairs else "",
                "arm": arm,
                "metric": name,
                "value": value if isfinite(value) else "",
                "num_images": "" if name == WEIGHT_GAP else len(self._chosen(TEST)),
                "num_train_images": learns or "",
            }

    def _measured(self, name: str, sees: Sequence[object]) -> float:
        """Return the single value of the arm metric."""
        (found,) = self.arm_metrics[name].measured(*sees).values()
        return float(found.value)

    def _labels(self, split: str) -> Tensor:
        return torch.as_tensor(self.images[split].labels_N)[self._chosen(split)]


def _pair_metric(name: str) -> Callable[..., float]:
    """Return the pair metric, a function of the embeddings of two arms."""
    if is_reference(name):
        return find_pair_metrics([reference_of(name)], KEY)[0].value
    function: Callable[..., float] = getattr(find("coupled.metrics.pair", name), name)
    return lambda *rows: float(function(*rows))


def open_monitor(
    opened: ExitStack,
    run: Path,
    last_epoch: int,
    names: Sequence[str],
    images: Mapping[str, AnyImageDataset],
    group: ProcessGroup,
    options: Mapping[str, Any],
) -> Monitor:
    """Return the monitor of a run that continues after `last_epoch`; on rank 0 with its log, which `opened` closes.

    `options` are the settings of the monitor, seed, image_size and num_workers. Raises ValueError for a monitor.csv
    with other columns.
    """
    log = open_monitor_log(run, last_epoch) if group.is_first else None
    if log:
        opened.callback(log.close)
    return Monitor(names=names, reference=usual_reference(names), images=images, group=group, log=log, **options)


def _compared(name: str, tensor: Tensor) -> bool:
    return name.startswith("encoder.") and tensor.is_floating_point()


def _below(seen: Mapping[str, Tensor], arm: str) -> dict[str, Tensor]:
    """Return the encoder's tensors of an arm."""
    return {name.removeprefix(f"{arm}/"): t for name, t in seen.items() if name.startswith(f"{arm}/encoder.")}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put all modules into evaluation mode inside the block, and restore the mode of each afterwards."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training

"""Keys of `projector` and `augmentation` of an arm's own, and its own warm-up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import tiny

from coupled.analysis import verify
from coupled.analysis.plots.figure_tables import figure_tables
from coupled.analysis.run import Run, open_run
from coupled.arms.consistency import check_equal_starts
from coupled.arms.without_effect import without_effect
from coupled.config.arm_sections import not_shared, not_shared_text
from coupled.config.controls import random_sources, streams
from coupled.config.metric_registry import pair_metric_names
from coupled.config.recipe_settings import PRESETS
from coupled.config.schema import Settings, from_resolved
from coupled.coordinator import Coordinator
from coupled.parallel.process_group import process_group
from coupled.stream.batches import Batch

WIDE = {"output_dim": 24, "last_norm": False, "bias": "all"}
DARK = {"crop_scale": [0.3, 0.6], "brightness": 0.8, "solarize_prob": 0.5}
ARMS: dict[str, Any] = {
    "cl": "dcl",
    "wide": {"objective": "dcl", "projector": WIDE},
    "dark": {"objective": "dcl", "augmentation": DARK},
    "byol": {"objective": "byol", "hidden_dim": 32, "ema_decay": 0.9, "projector": WIDE, "augmentation": DARK},
}
SMALL = {"epochs": 1, "batch": {"size": 359}}  # 4 steps


def settings_of(**arms: Any) -> Settings:
    return tiny.tiny_settings(arms=arms, **SMALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run whose arms have different projectors and recipes."""
    folder = tmp_path_factory.mktemp("runs") / "own"
    tiny.train(folder, arms=ARMS, **SMALL)
    return open_run(folder)


def assert_same_weights(one: Path, arm: str, other: Path, same: str | None = None) -> None:
    for epoch in (0, 1):
        here, there = tiny.tensors(one, arm, epoch), tiny.tensors(other, same or arm, epoch)
        assert here.keys() == there.keys()
        assert [name for name in here if not torch.equal(here[name], there[name])] == []


def test_an_arm_alone_is_bit_identical_to_the_same_arm_beside_others(run: Run, tmp_path: Path) -> None:
    """Its projector and views must not depend on the other arms, nor theirs on its projector and recipe."""
    for arm in ("byol", "cl"):
        tiny.train(tmp_path / arm, arms={arm: ARMS[arm]}, **SMALL)
        assert_same_weights(run.path, arm, tmp_path / arm)


def test_an_arm_with_own_keys_trains_as_in_a_run_that_shares_them(run: Run, tmp_path: Path) -> None:
    """The own projector is drawn from the shared seed stream, and the own views from the shared random numbers."""
    tiny.train(tmp_path / "wide", arms={"x": "dcl"}, projector={**tiny.TINY["projector"], **WIDE}, **SMALL)
    assert_same_weights(run.path, "wide", tmp_path / "wide", "x")
    tiny.train(tmp_path / "dark", arms={"x": "dcl"}, augmentation={**tiny.TINY["augmentation"], **DARK}, **SMALL)
    assert_same_weights(run.path, "dark", tmp_path / "dark", "x")
    digests = pd.read_csv(run.path / "steps.csv"), pd.read_csv(tmp_path / "dark" / "steps.csv")
    assert list(digests[0]["dark_inputs_digest"]) == list(digests[1]["inputs_digest"])
    assert not (digests[0]["dark_inputs_digest"] == digests[0]["inputs_digest"]).any()


def test_keys_equal_to_the_shared_ones_are_no_keys_of_the_arm() -> None:
    """Two spellings of one experiment have one digest, and a run without such keys has the digest it always had."""
    plain = settings_of(cl="dcl")
    equal = {"projector": {"output_dim": 16}, "augmentation": {"hflip_prob": 0.0, "preset": "cifar"}}
    assert settings_of(cl={"objective": "dcl", **equal}).sha256() == plain.sha256()
    strong = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur_prob": 0.5}
    named, spelled = (
        settings_of(cl={"objective": "dcl", "augmentation": own}) for own in ({"preset": "imagenet"}, strong)
    )
    assert named.sha256() == spelled.sha256() != plain.sha256()
    assert {"projector", "augmentation"}.isdisjoint(plain.resolved()["arms"]["cl"])


@pytest.mark.parametrize("preset", ["imagenet", "stacked_rand_augment"])
def test_run_json_names_the_preset_of_an_arm(preset: str) -> None:
    """It named the shared preset beside the strengths of the other one. Equal recipes stay one stream, one digest."""
    named = {"objective": "dcl", "augmentation": {"preset": preset}}
    resolved = settings_of(cl="dcl", named=named).resolved()
    own, shared = resolved["arms"]["named"]["augmentation"], resolved["augmentation"]
    assert (own["preset"], shared["preset"]) == (preset, "cifar")
    assert "augmentation.preset" in not_shared(resolved)["named"]
    spelled = {"objective": "dcl", "augmentation": {key: own[key] for key in own if key not in ("preset", "views")}}
    both = settings_of(cl="dcl", named=named, spelled=spelled)
    assert from_resolved(both.resolved()) == both
    assert both.sha256() == settings_of(cl="dcl", named=spelled, spelled=named).sha256()
    arms = both.resolved()["arms"]
    assert streams(random_sources(arms), arms) == {"cl": "", "named": "named", "spelled": "named"}
    as_shared = {**shared, **PRESETS["cifar"], "preset": preset}
    assert settings_of(cl={"objective": "dcl", "augmentation": as_shared}).arms["cl"].augmentation is None


def test_own_keys_are_named_and_inherited_by_twins() -> None:
    """In run.json, in the line of the arm, and in every figure and report, which use `not_shared_text`."""
    settings = settings_of(**ARMS, copy={"twin": "byol"})
    assert from_resolved(settings.resolved()) == settings
    found = not_shared(settings.resolved())
    assert set(found) == {"wide", "dark", "byol", "copy"}
    assert found["wide"] == ["projector.output_dim", "projector.last_norm", "projector.bias"]
    assert found["copy"] == found["byol"] == [*found["wide"], *found["dark"]]
    assert sorted(found["dark"]) == [f"augmentation.{key}" for key in ("brightness", "crop_scale", "solarize_prob")]
    assert "dark augmentation." in not_shared_text(settings.resolved())


def test_a_run_names_what_its_arms_do_not_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader of a figure must see that more differs than the objective."""
    tiny.train(tmp_path / "run", max_steps=1, arms={arm: ARMS[arm] for arm in ("cl", "wide")}, **SMALL)
    assert "; not shared: projector.output_dim, projector.last_norm, projector.bias" in capsys.readouterr().out
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["arms"]["wide"]["projector"] == {**tiny.TINY["projector"], **WIDE}
    assert "wide projector.output_dim" in figure_tables(open_run(tmp_path / "run")).note


def test_a_shared_key_that_contradicts_an_own_one_is_not_inherited() -> None:
    """Otherwise a head of another depth, preset or policy would need the unused keys to be removed one by one."""
    deep = {"hidden_dims": [8, 8]}
    settings = settings_of(
        a={"objective": "dcl", "projector": deep}, b={"objective": "dcl", "projector": {"num_layers": 1}}
    )
    assert settings.projector_of("a").hidden_dim is None
    assert settings.projector_of("b").hidden_dim is None
    shared = {"policy": "rand_augment", "policy_magnitude": 5, "second": {"blur_prob": 0.1, "solarize_prob": 0.2}}
    own = {"policy": "none", "second": {"solarize_prob": 0.0}}
    recipe = tiny.tiny_settings(
        augmentation=shared, arms={"a": {"objective": "dcl", "augmentation": own}}
    ).augmentation_of("a")
    assert recipe.policy_magnitude == 9
    assert recipe.second
    assert (recipe.second.blur_prob, recipe.second.solarize_prob) == (0.1, 0.0)


def test_user_defined_steps_stay_shared(tmp_path: Path) -> None:
    """Their options are filled in for all arms, so they are not named as a difference."""
    (tmp_path / "own_step.py").write_text(
        "def f(views_M3SS, random_MR, *, gain: float = 1.0):\n    return gain * views_M3SS\n"
    )
    arms = {"x": {"objective": "dcl", "augmentation": {"hue": 0.0}}}
    settings = tiny.tiny_settings(augmentation={"steps": [f"{tmp_path}/own_step.py:f"]}, arms=arms)
    assert not_shared(settings.resolved()) == {"x": ["augmentation.hue"]}
    assert settings.augmentation_of("x").steps == settings.augmentation.steps


@pytest.mark.parametrize(
    ("section", "shared", "own"),
    [
        ("optimizer", {"exclude_1d": False, "head_lr_multiplier": 2.0}, {"exclude_1d": True}),
        ("projector", {"bias": "all", "norm": "none", "hidden_dims": [8]}, {"bias": "none", "hidden_dim": 8}),
        ("augmentation", {"solarize_prob": 0.2, "second": {"blur_prob": 0.5}}, {"solarize_prob": 0.0, "second": None}),
        ("augmentation", {"second": {"blur_prob": 0.5, "hue": 0.2}}, {"second": {"blur_prob": 0.0}}),
        ("augmentation", {"policy": "rand_augment", "policy_magnitude": 5}, {"policy": "none"}),
    ],
)
def test_an_arm_can_return_to_a_default(section: str, shared: dict[str, Any], own: dict[str, Any]) -> None:
    """run.json omits keys with their default; the arm must not take the shared value when the settings are read."""
    arms = {"a": {"objective": "byol", "hidden_dim": 8, section: own}}
    settings = tiny.tiny_settings(
        arms=arms, **{section: {**tiny.TINY["optimizer"], **shared} if section == "optimizer" else shared}
    )
    found = getattr(settings.arms["a"], section)
    for key, value in own.items():
        for name, each in value.items() if isinstance(value, dict) else [(key, value)]:
            assert getattr(found.second if isinstance(value, dict) else found, name) == each
    assert from_resolved(settings.resolved()) == settings


def test_equal_recipes_are_one_stream(tmp_path: Path) -> None:
    """Views are computed once for each recipe; the crops of two recipes have one position in the image."""
    same = {"objective": "nscl", "augmentation": DARK}
    with process_group("cpu") as group:
        coordinator = Coordinator(settings_of(cl="dcl", dark=ARMS["dark"], same=same), group, tmp_path / "run")
        assert coordinator.stream_of == {"cl": "", "dark": "dark", "same": "dark"}
        made: dict[str, Batch] = next(coordinator.step_batches(1))
    assert set(made) == {"", "dark"}
    assert torch.equal(made[""].indices_G, made["dark"].indices_G)
    assert not torch.equal(made[""].views_VB3SS, made["dark"].views_VB3SS)


def test_a_run_with_own_keys_resumes_exactly(run: Run, tmp_path: Path) -> None:
    """Every byte of every snapshot and of steps.csv, after a stop within the epoch."""
    tiny.train(tmp_path / "run", max_steps=2, arms=ARMS, **SMALL)
    tiny.train(tmp_path / "run", resume=True, arms=ARMS, **SMALL)
    assert tiny.snapshot_bytes(tmp_path / "run") == tiny.snapshot_bytes(run.path)
    assert (tmp_path / "run" / "steps.csv").read_bytes() == (run.path / "steps.csv").read_bytes()


def test_arms_start_from_one_encoder_and_with_one_projector_from_equal_ones(run: Run, tmp_path: Path) -> None:
    """The drift of the encoders is measured from equal weights, whatever the projectors."""
    starts = {arm: tiny.tensors(run.path, arm, 0) for arm in ARMS}
    encoder = [name for name in starts["cl"] if name.startswith("encoder.")]
    for arm, shared in (("wide", "cl"), ("dark", "cl"), ("byol", "cl")):
        assert all(torch.equal(starts[arm][name], starts[shared][name]) for name in encoder)
    for one, other in (("dark", "cl"), ("byol", "wide")):
        names = [name for name in starts[other] if name.startswith("projector.")]
        assert all(torch.equal(starts[one][name], starts[other][name]) for name in names)
    assert starts["wide"]["projector.3.weight"].shape == (24, 32)


@pytest.mark.parametrize(("tensor", "arms"), [("encoder.conv1.weight", "ab"), ("projector.0.weight", "b")])
def test_a_difference_at_the_start_is_an_error(tensor: str, arms: str) -> None:
    """The encoder of an arm with another projector is compared, too; the projector only with equal settings."""
    group_of = {"first": "shared", "a": "own", "b": "shared"}
    with process_group("cpu"):
        for changed in "ab":
            starts = {
                arm: {name: torch.ones(2) for name in ("encoder.conv1.weight", "projector.0.weight")}
                for arm in group_of
            }
            starts[changed][tensor][0] += 1e-7
            if changed in arms:
                with pytest.raises(RuntimeError, match=f"arm '{changed}' on rank 0 starts with other weights"):
                    check_equal_starts(starts, dict.fromkeys(group_of, ""), group_of)
            else:
                check_equal_starts(starts, dict.fromkeys(group_of, ""), group_of)


def test_every_comparison_works_for_different_projectors(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Pair metrics take other widths; tensors that cannot be compared are named and have no row."""
    options: dict[str, Any] = {"split": "test", "num_images": 60, "epochs": 1}
    scores = run.alignment(compare=["wide"], layers=["z"], metrics=pair_metric_names(), **options)
    assert set(scores["metric"]) == {*pair_metric_names()}
    assert scores["value"].notna().all()
    assert run.alignment(compare=["byol"], layers=["h", "z"], cross_layer=True, **options)["value"].notna().all()
    capsys.readouterr()
    gaps = run.weight_gap(compare=["wide", "dark"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "arms 'cl' and 'wide' have different projectors; not compared: projector.0.bias, projector.3.bias, " in said
    of_wide = gaps[(gaps["arm"] == "wide") & (gaps["epoch"] == 0) & gaps["tensor"].notna()]
    assert {*of_wide["tensor"]} & {"projector.0.weight", "projector.3.weight"} == {"projector.0.weight"}
    assert (of_wide[of_wide["tensor"].str.startswith("encoder.")]["gap"] == 0).all()


def test_merging_leaves_out_the_projections_of_arms_whose_projectors_differ(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """One arm with another projector must not stop the others; without the line its missing rows are a riddle."""
    few: dict[str, Any] = {"epochs": 1, "num_images": 60, "points": [0.5], "metrics": "nccc", "batch_norm_images": 0}
    found = run.merge(compare=["dark", "wide"], **few)
    values = found.groupby(["arm", "module"], sort=False)["value"].agg(list).to_dict()
    assert [*values] == [("dark", "h"), ("dark", "z"), ("wide", "h")]
    assert capsys.readouterr().err == "layer z is left out for 'wide' with 'cl': their projectors differ\n"
    alone = run.merge(compare=["dark"], **few)
    assert alone["value"].tolist() == found[found["arm"] == "dark"]["value"].tolist()
    assert run.merge(compare=["dark", "wide"], layers="z", **few)["arm"].unique().tolist() == ["dark"]
    with pytest.raises(ValueError, match=r"^layers: got z, but arms 'cl' and 'wide' have different projectors; allowe"):
        run.merge(compare=["wide"], layers="z", **few)


def test_programs_that_read_networks_use_the_projector_of_the_arm(run: Run) -> None:
    """With the shared one they would refuse the snapshots, or read other tensors."""
    views = torch.rand(2, 3, 3, 8, 8)
    assert run.network("wide", 1)(views)["projection"].shape[-1] == 24
    assert run.network("cl", 1)(views)["projection"].shape[-1] == 16
    few: dict[str, Any] = {"epochs": 1, "split": "test", "num_images": 60}
    assert {*run.collapse(arms=["cl", "wide"], **few)["arm"]} == {"cl", "wide"}
    assert run.losses(arms=["wide"], **few)["value"].notna().all()
    assert run.embed("byol", layer="z", split="test", num_images=5).rows_ND.shape == (5, 24)
    assert list(verify.faults(run)) == []


def test_permutations_leave_out_different_projectors(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The hidden channels of two heads of different form have no common order."""
    gaps = run.weight_gap(compare=["wide"], align="permutation", epochs=1)
    assert not gaps["tensor"].dropna().str.startswith("projector.").any()
    assert "not compared: all tensors of the projectors" in capsys.readouterr().err


def test_the_barrier_between_different_projectors_is_that_of_the_encoders(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """No projection lies between two widths; other arms keep their losses, and the output names the pair."""
    options: dict[str, Any] = {"split": "test", "num_images": 60, "epochs": 1, "batch_norm_images": 0, "points": [0.5]}
    rows = run.barrier(compare=["wide", "dark"], align="permutation", **options)
    assert {*rows[rows["arm"] == "wide"]["module"]} == {"h"}
    assert {*rows[rows["arm"] == "dark"]["module"]} == {"h", "z"}
    assert rows["value"].notna().all()
    assert "arms 'cl' and 'wide' have different projectors; not measured: the losses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"projector": {"output": 8}}, "arms.x.projector.output: unknown key"),
        ({"projector": {"output_dim": 0}}, "arms.x.projector.output_dim: got 0"),
        (
            {"augmentation": {"hflip_probs": 0.5}},
            "arms.x.augmentation.hflip_probs: unknown key; did you mean 'hflip_prob'",
        ),
        ({"augmentation": {"brightness": -1.0}}, "arms.x.augmentation.brightness: got -1.0"),
        ({"augmentation": {"views": 3}}, "arms.x.augmentation.views: got 3, and augmentation.views is 2; the arms"),
        (
            {"augmentation": {"local_views": 1, "local_size": 8}},
            "arms.x.augmentation.local_views: got 1, and augmentation.local_views is 0",
        ),
        ({"augmentation": {"steps": ["a.py:f"]}}, "arms.x.augmentation.steps.0"),
    ],
)
def test_a_wrong_key_is_refused_in_one_line(own: dict[str, Any], message: str) -> None:
    """It names the key of the arm, the value, and what is allowed."""
    with pytest.raises(ValueError, match="^settings: " + message.replace(".", r"\.")) as error:
        settings_of(x={"objective": "dcl", **own})
    assert "\n" not in str(error.value)


def test_a_projector_that_the_arm_does_not_use_is_refused() -> None:
    """The key would be accepted and ignored."""
    with pytest.raises(
        ValueError, match=r"^arms\.x\.projector: got projector\.output_dim, but 'cross_entropy' reads no"
    ):
        settings_of(x={"objective": "cross_entropy", "input": "embedding", "projector": {"output_dim": 8}})


def test_strengths_of_an_arm_without_effect_are_a_warning() -> None:
    """And a shared strength that only one arm uses has an effect."""

    def said(own: dict[str, Any]) -> list[str]:
        arms = {"cl": "dcl", "x": {"objective": "dcl", "augmentation": own}}
        settings = tiny.tiny_settings(arms=arms, projector={}, augmentation={"blur_sigma": [1, 2]}).resolved()
        return [line.split(":")[0] for line in without_effect(settings, {}, "cpu")]

    assert said({"blur_prob": 0.5}) == []
    assert said({"hflip_prob": 0.0}) == ["augmentation.blur_sigma"]
    assert said({"blur_sigma": [1, 3]}) == ["augmentation.blur_sigma", "arms.x.augmentation.blur_sigma"]


def test_an_arm_warms_up_over_its_own_epochs(tmp_path: Path) -> None:
    """`arms.x.optimizer.warmup_epochs` must reach the rate of each step, not only run.json."""
    own = {"objective": "dcl", "optimizer": {"warmup_epochs": 1.0, "schedule": "constant"}}
    shared = {"name": "sgd", "base_lr": 0.1, "lr_scaling": "none", "warmup_epochs": 0, "schedule": "constant"}
    with process_group("cpu") as group:
        settings = tiny.tiny_settings(arms={"cl": "dcl", "x": own}, optimizer=shared)
        rates = Coordinator(settings, group, tmp_path / "run").lockstep.rate_of
    assert [rates["cl"](step) for step in (1, 10)] == [0.1, 0.1]
    np.testing.assert_allclose([rates["x"](step) for step in range(1, 8)], [0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1])

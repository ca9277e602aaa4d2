"""The section `augmentation`: two spellings of one experiment are equal, and unused keys are not written."""

from dataclasses import replace

import pytest

from coupled.config.augmentation import AugmentationSettings
from coupled.config.load import resolve
from coupled.config.schema import Settings, from_resolved
from coupled.stream.recipe import Augmentation

TREE = {"name": "x", "dataset": {"name": "digits"}, "arms": {"cl": "dcl"}}


def settings(**augmentation: object) -> Settings:
    return resolve({**TREE, "augmentation": augmentation})


def test_newer_keys_do_not_change_the_digest_of_older_settings() -> None:
    """The digest is in every snapshot and decides whether a run may be resumed."""
    plain = settings()
    later = {"views", "second", "solarize_prob", "rotation_prob", "rotation_degrees"}
    assert not later & set(plain.resolved()["augmentation"])
    assert not [
        key for key in plain.resolved()["augmentation"] if key.startswith(("policy", "warp", "mixup", "cutmix"))
    ]
    same = settings(views=2, second={"hue": 0.1}, solarize_prob=0.0, rotation_degrees=[90, 90], policy="none")
    assert same.resolved() == plain.resolved()
    assert same.sha256() == plain.sha256()
    assert settings(second=None, solarize_threshold=0.5).resolved() == plain.resolved()


def test_used_keys_are_written_and_read_back() -> None:
    """Analysis draws its views from run.json, and a resumed run must use the same ones."""
    given = {
        "views": 4,
        "solarize_threshold": 0.0,
        "rotation_prob": 0.5,
        "rotation_degrees": 30,
        "second": {"blur_prob": 0.1, "solarize_prob": 0.2, "hue": 0.1, "rotation_degrees": [90, 90]},
    }
    found = settings(**given)
    tree = found.resolved()["augmentation"]
    assert {key: tree[key] for key in given} == {
        "views": 4,
        "solarize_threshold": 0.0,
        "rotation_prob": 0.5,
        "rotation_degrees": [-30.0, 30.0],
        "second": {"blur_prob": 0.1, "solarize_prob": 0.2, "rotation_degrees": [90.0, 90.0]},
    }
    again = from_resolved(found.resolved())
    assert again.sha256() == found.sha256()
    assert again.augmentation.plain() == found.augmentation.plain()
    spelled = settings(
        **{**given, "rotation_degrees": [-30, 30], "second": {**given["second"], "crop_scale": [0.08, 1]}}
    )
    assert spelled.sha256() == found.sha256()
    assert settings(**{**given, "views": 3}).sha256() != found.sha256()


def test_the_second_recipe_changes_only_the_keys_that_it_names() -> None:
    """All other keys are those of the first view, from a preset or written out."""
    found = settings(preset="imagenet", hflip_prob=0.1, second={"blur_prob": 0.1}).augmentation.plain()
    assert found.second is not None
    assert (found.blur_prob, found.second.blur_prob) == (0.5, 0.1)
    assert (found.second.brightness, found.second.hflip_prob) == (0.8, 0.1)
    assert [views for views, _ in found.recipes()] == [slice(0, 1), slice(1, None)]
    assert settings(second={}).augmentation.plain().second is None


def test_the_defaults_equal_those_of_the_stream() -> None:
    """Two defaults would give an omitted key two meanings."""
    section = AugmentationSettings.model_validate({})
    of_preset = {key: getattr(section, key) for key in ("brightness", "contrast", "saturation", "hue", "blur_prob")}
    rest = {"crop_scale": (0.08, 1.0), "crop_ratio": (3 / 4, 4 / 3), "hflip_prob": 0.5, "jitter_prob": 0.8}
    assert section.plain() == Augmentation(**of_preset, **rest, grayscale_prob=0.2, blur_sigma=(0.1, 2.0))


def test_local_views_need_a_size_and_a_size_needs_local_views() -> None:
    """A size without local views would have no effect."""
    found = settings(local_views=6, local_size=8)
    assert found.resolved()["augmentation"]["local_views"] == 6
    assert from_resolved(found.resolved()).augmentation.plain() == found.augmentation.plain()
    assert found.augmentation.plain().local_size == 8
    for wrong, text in (
        ({"local_views": 6}, r"augmentation\.local_size: missing; the 6 local_views need"),
        ({"local_size": 8}, r"augmentation\.local_size: got 8; it has no effect without local views"),
        (
            {"local_crop_scale": [0.1, 0.2]},
            r"augmentation\.local_crop_scale: got \(0\.1, 0\.2\); it has no effect without local",
        ),
        (
            {"local_views": 1, "local_size": 8, "local_crop_scale": [0.5, 2]},
            r"local_crop_scale\.1: got 2; allowed are numbers up to 1",
        ),
        ({"second": {"local_views": 2}}, r"augmentation\.second\.local_views: unknown key"),
    ):
        with pytest.raises(ValueError, match=text):
            settings(**wrong)


@pytest.mark.parametrize("degrees", [0, 30, 180.0])
def test_a_number_of_degrees_is_torchvisions_range(degrees: float) -> None:
    """`RandomRotation(30)` turns by -30 to 30."""
    assert settings(rotation_degrees=degrees).augmentation.rotation_degrees == (-degrees, degrees)


def test_the_number_of_taps_of_a_blur_is_odd_and_fits_into_a_view() -> None:
    """A kernel that is wider than the mirrored view would fail in the middle of a run."""
    found = settings(blur_taps=3, second={"blur_taps": None})
    tree = found.resolved()["augmentation"]
    assert (tree["blur_taps"], tree["second"]) == (3, {"blur_taps": None})
    assert from_resolved(found.resolved()).augmentation.plain() == found.augmentation.plain()
    assert settings(blur_taps=None).sha256() == settings().sha256() != settings(blur_taps=3).sha256()
    assert settings(blur_taps=31).augmentation.blur_taps == 31  # views of 16 px
    for wrong, text in (
        ({"blur_taps": 4}, r"augmentation\.blur_taps: got 4; allowed are odd numbers from 3 to 511"),
        (
            {"blur_taps": 33},
            r"augmentation\.blur_taps: got 33 for views of 16 px; allowed are .* from 3 to 31",
        ),
        ({"second": {"blur_taps": 33}}, r"augmentation\.second\.blur_taps: got 33 for views of 16 px"),
        ({"local_views": 1, "local_size": 4, "blur_taps": 9}, r"blur_taps: got 9 for views of 4 px"),
    ):
        with pytest.raises(ValueError, match=text):
            settings(**wrong)


def test_a_policy_is_written_and_its_options_are_refused_where_they_have_no_effect() -> None:
    """An option that changes nothing would look like a choice in run.json."""
    found = settings(policy="rand_augment", policy_magnitude=5, second={"policy": "none"})
    tree = found.resolved()["augmentation"]
    assert {key: tree[key] for key in tree if "policy" in key} == {"policy": "rand_augment", "policy_magnitude": 5}
    assert tree["second"] == {"policy": "none"}
    assert from_resolved(found.resolved()).sha256() == found.sha256() != settings().sha256()
    assert settings(second={"policy": "rand_augment", "policy_num_ops": 1}).augmentation.plain().second is not None
    for wrong in (
        {"policy_num_ops": 3},
        {"policy": "auto_augment_cifar10", "policy_magnitude": 5},
        {"second": {"policy_num_ops": 3}},
    ):
        with pytest.raises(ValueError, match=r"it has no effect without `policy: rand_augment`"):
            settings(**wrong)


def test_the_presets_of_supcon_have_the_strengths_of_its_code() -> None:
    """Khosla et al. 2020, section 14.2; the published scripts give the jitter strength 1, and RandAugment level 10."""
    sim, stacked = (settings(preset=name).augmentation for name in ("sim_augment", "stacked_rand_augment"))
    assert sim.plain() == replace(settings(preset="imagenet").augmentation.plain(), warp_prob=0.5)
    assert sim.warp_length == 23 / 224
    options = {"policy": "rand_augment", "policy_num_ops": 2, "policy_magnitude": 30}
    assert stacked.plain() == replace(sim.plain(), **options)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"warp_prob": 0.0},
        {"warp_prob": 0.1, "second": {"warp_prob": 0.0}},
        {"policy": "none"},
        {"policy": "auto_augment_cifar10"},
        {"policy_magnitude": 9},
        {"second": {"policy": "none"}},
    ],
)
def test_values_that_replace_those_of_a_preset_are_read_back(changed: dict[str, object]) -> None:
    """A value that equals the default of its key would be left out of run.json, and the preset would fill it again."""
    found = settings(preset="stacked_rand_augment", **changed)
    again = from_resolved(found.resolved())
    assert again == found
    assert again.augmentation.plain() == found.augmentation.plain()
    assert all(getattr(found.augmentation, key) == value for key, value in changed.items() if key != "second")


def test_mixing_is_refused_for_objectives_without_mixed_labels_and_for_local_views() -> None:
    """An objective that ignored the partner's label would be trained on wrong labels."""
    arms = {"ce": "cross_entropy", "small": {"objective": "cross_entropy", "input": "embedding"}}
    found = resolve({**TREE, "arms": arms, "augmentation": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}})
    assert from_resolved(found.resolved()).augmentation.plain() == found.augmentation.plain()
    assert (found.augmentation.plain().mixup_alpha, found.augmentation.plain().cutmix_alpha) == (0.2, 1.0)
    assert found.sha256() != resolve({**TREE, "arms": arms}).sha256()
    text = (
        r"arms\.cl\.objective: the arm's augmentation mixes images \(cutmix_alpha: 1\.0\), but its objective 'dcl'"
        " takes no mixed labels; use cross_entropy, or remove the arm or these keys"
    )
    with pytest.raises(ValueError, match=text):
        resolve({**TREE, "arms": {**arms, "cl": "dcl"}, "augmentation": {"cutmix_alpha": 1.0}})
    with pytest.raises(ValueError, match=r"arms\.nce\.objective: .*'nt_xent' takes no mixed labels"):
        resolve({**TREE, "arms": {**arms, "nce": "nt_xent"}, "augmentation": {"mixup_alpha": 1.0}})
    with pytest.raises(ValueError, match=r"local_views: got 2 with mixup_alpha or cutmix_alpha"):
        settings(local_views=2, local_size=8, mixup_alpha=1.0)

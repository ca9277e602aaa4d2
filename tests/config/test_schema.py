"""Settings: which are accepted, and that every refusal is one line with key, value and allowed values."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from coupled.config.errors import check_options
from coupled.config.load import DEFAULT_ARMS, load_settings
from coupled.config.safe_yaml import parse_yaml
from coupled.config.schema import from_resolved

YAML = "dataset: {name: digits}\nepochs: 30\noptimizer: {base_lr: 3e-2}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "try.yaml"
    path.write_text(YAML)
    return path


def test_numbers_with_an_exponent_are_numbers(config: Path) -> None:
    """YAML 1.1 reads 3e-2 as text; a learning rate that is text would be refused or, worse, compared as text."""
    assert load_settings(config).optimizer.base_lr == 0.03
    assert load_settings(config, ["temperature=1e-1"]).temperature == 0.1
    assert parse_yaml("[3e-4, -1E5, .5e1, 1e+2]", "x") == [3e-4, -1e5, 5.0, 100.0]
    assert parse_yaml("[a3e4, 3e, '3e4']", "x") == ["a3e4", "3e", "3e4"]


def test_a_text_that_is_parsed_again_gives_a_new_tree() -> None:
    """Parsed files are kept in memory; overrides change the tree, and the next run would start with them."""
    first = parse_yaml("arms: {cl: {objective: dcl}}", "x")
    first["arms"]["cl"]["objective"] = "nscl"
    assert parse_yaml("arms: {cl: {objective: dcl}}", "x") == {"arms": {"cl": {"objective": "dcl"}}}


def test_options_of_two_functions_with_one_name_are_checked_separately() -> None:
    """The checks of a function are kept in memory; a file that is read anew may define it with other options."""

    def made(default: int) -> Callable[..., None]:
        def function(*, size: int = default) -> None: ...

        return function

    assert [check_options(made(size), {}, "x") for size in (1, 2)] == [{"size": 1}, {"size": 2}]
    with pytest.raises(ValueError, match=r"x\.more: unknown key"):
        check_options(function := made(1), {"more": 1}, "x")
    assert check_options(function, {"more": 1}, "x", also={"more": int}) == {"size": 1, "more": 1}


def test_a_run_is_named_after_its_file_and_has_the_four_arms(config: Path) -> None:
    """The defaults are the paper's comparison."""
    settings = load_settings(config)
    assert settings.name == "try"
    assert {name: arm.objective for name, arm in settings.arms.items()} == DEFAULT_ARMS


def test_an_arm_called_all_is_refused(config: Path) -> None:
    """`--compare all` means every arm."""
    with pytest.raises(ValueError, match=r"arms\.all: not allowed as an arm's name: `--compare all` means all arms"):
        load_settings(config, ["arms.all=dcl"])


def test_overrides_change_defaults_and_arms_written_on_one_line(config: Path) -> None:
    """`arms.nscl.temperature=0.1` must keep the arm's objective; null removes an arm."""
    settings = load_settings(config, ["arms.nscl.temperature=0.1", "arms.ce=null", "arms.twin=dcl", "batch.size=64"])
    assert settings.arms["nscl"].objective == "nscl"
    assert settings.arms["nscl"].options["temperature"] == 0.1
    assert list(settings.arms) == ["cl", "nscl", "scl", "twin"]
    assert settings.batch.size == 64


def test_short_runs_warm_up_for_a_tenth_of_their_epochs(config: Path) -> None:
    """The default of ten epochs would be most of a short run or exceed it; resolved settings state the number."""
    for epochs, warmup in ((1000, 10.0), (100, 10.0), (30, 3.0), (5, 0.5), (1, 0.1), (0, 0.0)):
        settings = load_settings(config, [f"epochs={epochs}"])
        assert settings.optimizer.warmup_epochs == warmup
        assert settings.resolved()["optimizer"]["warmup_epochs"] == warmup
        assert settings.optimizer.base_lr == 0.03
    assert load_settings(config, ["epochs=5", "optimizer.warmup_epochs=2"]).optimizer.warmup_epochs == 2
    config.write_text("dataset: {name: digits}\n")
    assert load_settings(config).optimizer.warmup_epochs == 10
    with pytest.raises(ValueError, match=r"epochs: got 'many'"):
        load_settings(config, ["epochs=many"])


def test_yaml_anchors_and_merge_keys_are_expanded(tmp_path: Path) -> None:
    """A mapping's own keys have priority, then those of the first merged mapping, also through nested merges."""
    text = (
        "p: {q: {a: &a {<<: &b {x: 1, y: 1}, x: 2}}}\nc: {<<: *a, z: 3}\nd: {z: 4, <<: [*b, {y: 5, w: 6}]}\n"
        "e: [*a, &n 3e-2, *n]\n"
    )
    assert parse_yaml(text, "x") == {
        "p": {"q": {"a": {"x": 2, "y": 1}}},
        "c": {"x": 2, "y": 1, "z": 3},
        "d": {"x": 1, "y": 1, "w": 6, "z": 4},
        "e": [{"x": 2, "y": 1}, 0.03, 0.03],
    }
    path = tmp_path / "merged.yaml"
    path.write_text(YAML + "arms: {cl: &cl {objective: dcl, temperature: 0.1}, warm: {<<: *cl, temperature: 0.9}}\n")
    settings = load_settings(path, ["arms.cl.temperature=0.2"])
    assert {name: arm.options["temperature"] for name, arm in settings.arms.items()} == {"cl": 0.2, "warm": 0.9}


def test_the_preset_sets_only_keys_that_the_user_omits(config: Path) -> None:
    """A strength that the user writes overrides the preset's."""
    augmentation = load_settings(config, ["augmentation.preset=imagenet", "augmentation.hue=0.05"]).augmentation
    assert (augmentation.brightness, augmentation.hue, augmentation.blur_prob) == (0.8, 0.05, 0.5)


def test_resolved_settings_read_back_to_the_same_digest(config: Path) -> None:
    """run.json must rebuild the same settings, or an analysis would use another experiment."""
    settings = load_settings(config, ["augmentation.preset=imagenet", "arms.nscl.temperature=0.1"])
    again = from_resolved(settings.resolved())
    assert again == settings
    assert again.sha256() == settings.sha256()
    assert load_settings(config, ["seed=1"]).sha256() != load_settings(config).sha256()


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optimizer.base_l=3", ["optimizer.base_l", "did you mean 'base_lr'", "momentum"]),
        ("bat=3", ["bat", "did you mean 'batch'"]),
        ("batch.size=many", ["batch.size", "'many'", "allowed are whole numbers"]),
        ("epochs=true", ["epochs", "True", "allowed are whole numbers"]),
        ("epochs=3.5", ["epochs", "3.5", "allowed are whole numbers"]),
        ("optimizer.base_lr=.nan", ["optimizer.base_lr", "nan", "finite"]),
        ("optimizer.base_lr=-1", ["optimizer.base_lr", "-1", "allowed are numbers above 0"]),
        ("encoder.zero_init_last=maybe", ["encoder.zero_init_last", "allowed are true and false"]),
        ("epochs=-1", ["epochs: got -1; allowed are numbers of at least 0"]),
        ("optimizer.base_lr=1e7", ["optimizer.base_lr", "allowed are numbers up to 1000000"]),
        ("precision=float16", ["precision", "'float16'; allowed are 'float32', 'bfloat16'"]),
        ("augmentation.crop_scale=[0.9, 0.2]", ["augmentation.crop_scale", "[0.9, 0.2]", "must not exceed"]),
        (
            "augmentation.preset=huge",
            ["augmentation.preset", "'huge'", "'cifar', 'imagenet', 'sim_augment' or"],
        ),
        ("optimizer.warmup_epochs=30", ["optimizer.warmup_epochs", "30", "epochs: 30", "below 30"]),
        ("augmentation.count=4", ["augmentation.count: unknown key (known: "]),
        ("name=../away", ["name", "'../away'", "pattern"]),
        ("arms.a/b=dcl", ["arms", "'a/b'", "pattern"]),
        ("arms={}", ["arms", "{}", "1 or more"]),
        ("arms.x.temperature=1", ["arms.x.objective", "missing"]),
        ("epochs.x=3", ["epochs.x=3", "'epochs' is a value"]),
        ("seed", ["'seed'", "key=value"]),
        ("seed=[", ["seed=[", "YAML"]),
        ("dataset=null", ["dataset", "None"]),
    ],
)
def test_bad_settings_are_refused_in_one_line(config: Path, override: str, parts: list[str]) -> None:
    """A user must see which key, which value, and what is allowed, without reading a traceback."""
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        load_settings(config, [override])
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_a_message_names_the_settings_file_as_the_user_wrote_it(config: Path) -> None:
    """A packaged one by its name, and the key once."""
    for name in ("demo", config):
        with pytest.raises(ValueError, match=f"^{re.escape(str(name))}: epoch: unknown key; did you mean 'epochs'"):
            load_settings(name, ["epoch=5"])


def test_a_key_written_twice_is_refused(config: Path) -> None:
    """YAML silently keeps the last of two equal keys."""
    config.write_text(YAML + "epochs: 40\n")
    with pytest.raises(ValueError, match="'epochs' appears twice"):
        load_settings(config)


def test_a_missing_settings_file_or_one_that_is_not_a_mapping_is_named(tmp_path: Path) -> None:
    """The path is in the message."""
    with pytest.raises(ValueError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=r"list\.yaml: a settings file must be a mapping"):
        load_settings(tmp_path / "list.yaml")


def test_options_are_checked_against_the_signature_of_their_function() -> None:
    """An objective's options need no entry in the settings: the signature is the schema."""

    def objective(inputs: object, *, temperature: float, keep: bool = False) -> None: ...

    assert check_options(objective, {"temperature": 1}, "arms.x") == {"temperature": 1.0, "keep": False}
    with pytest.raises(ValueError, match=r"arms\.x\.temprature: unknown key; did you mean 'temperature'"):
        check_options(objective, {"temprature": 1, "temperature": 1}, "arms.x")
    with pytest.raises(ValueError, match=r"arms\.x\.temperature: missing"):
        check_options(objective, {}, "arms.x")
    for wrong in (True, "0.3"):
        with pytest.raises(ValueError, match=r"arms\.x\.temperature: got (True|'0\.3')"):
            check_options(objective, {"temperature": wrong}, "arms.x")
    with pytest.raises(ValueError, match=r"arms\.x\.keep: got 'perhaps'"):
        check_options(objective, {"temperature": 1, "keep": "perhaps"}, "arms.x")


def test_removing_an_unknown_arm_is_refused() -> None:
    """A typing error in `arms.ce=null` would train CE without a warning."""
    assert "ce" not in load_settings("demo", ["arms.ce=null"]).arms
    with pytest.raises(ValueError, match=r"override 'arms\.cee=null': no arm 'cee'.*'ce'.*; arms: cl, nscl, scl, ce"):
        load_settings("demo", ["arms.cee=null"])

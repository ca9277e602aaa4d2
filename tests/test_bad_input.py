"""Invalid settings and overrides: status 2, one line that names the key, and nothing is written."""

import os
import resource
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import tiny

from coupled import train
from coupled.config.load import load_settings
from coupled.config.safe_yaml import parse_yaml

MANY = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
WRONG: dict[str, tuple[str, ...]] = {
    "seed": ("-1", "1.5", "true", "[1]", "null", "x", "1e400", "9" * 5000, "2001-99-99", "0x_", '!!int ""'),
    "epochs": ("-1", "1.5", "true", "{a: 1}", "null", "100000000000"),
    "name": ("../up", "a/b", "''", "3", "null", "[a]", "a b", ".hidden", "-x", "x" * 65, "2020-01-01", "!!timestamp x"),
    "device": ("gpu", "1", "null", "cuda:0"),
    "precision": ("float16", "32", "null"),
    "deterministic": ("7", "null", "[true]"),
    "tf32": ("!!bool maybe",),
    "num_threads": ("0", "-1", "1.0", "many", "1000000", "4096"),
    "temperature": ("0", "-1", ".nan", ".inf", "cold", "[0.5]", "null", "1" + "0" * 400, "1e-300"),
    "dataset": ("null", "digits", "[digits]", "{}", "3"),
    "dataset.name": ("null", "nowhere", "../digits", "_cifar", "__init__", "3", "''"),
    "dataset.image_size": ("0", "-3", "x", "1.5", "100000000", "[8]"),
    "batch": ("null", "3", "x", "[]"),
    "batch.size": ("0", "1", "-4", "1.5", "null", "x", "100000000000", "true"),
    "batch.micro_batch": ("0", "-1", "1.5", "all"),
    "activation_checkpointing": ("7", "null", "[true]"),
    "batch.sampler": ("sorted", "null", "1"),
    "dataset.num_workers": ("-1", "1.5", "many", "1000000"),
    "log_every": ("0", "-1", "2.5", "often", "10000000"),
    "augmentation.crop_scale": ("[0, 1]", "[0.5]", "[1, 0.5]", "[0.1, 2]", "x", "[.nan, 1]", "null", "[1, 2, 3]"),
    "augmentation.hflip_prob": ("-0.1", "1.1", ".nan", "often", "null"),
    "augmentation.brightness": ("-1", "1e300"),
    "augmentation.hue": ("0.6", "-1", ".inf", "x"),
    "augmentation.views": ("1", "0", "65", "2.5", "many", "null"),
    "augmentation.second": ("3", "[1]", "{views: 2}", "{preset: cifar}", "{blur: 1}"),
    "augmentation.second.blur_prob": ("-0.1", "2", "x", "null"),
    "augmentation.second.crop_scale": ("[1, 0.5]", "[0.1, 2]"),
    "augmentation.blur_taps": ("1", "4", "513", "3.0", "x"),
    "augmentation.solarize_prob": ("-0.1", "1.1", ".nan"),
    "augmentation.solarize_threshold": ("-0.1", "128", "null"),
    "augmentation.rotation_prob": ("-0.1", "1.1", "[0, 1]"),
    "augmentation.rotation_degrees": ("-10", "361", "[30, -30]", "[1, 2, 3]", ".nan", "x", "true", "null"),
    "augmentation.policy": ("rand", "null", "3", "[none]"),
    "augmentation.policy_num_ops": ("0", "5", "3", "1.5"),
    "augmentation.policy_magnitude": ("-1", "31", "5", "x"),
    "augmentation.local_views": ("-1", "65", "2", "x"),
    "augmentation.local_size": ("8", "3", "x"),
    "augmentation.local_crop_scale": ("[0.3, 0.1]", "[0, 1]", "[0.1, 2]", "[0.1, 0.2]"),
    "augmentation.warp_prob": ("-0.1", "1.1", "x", "null"),
    "augmentation.warp_length": ("-0.1", "1", "23", "null"),
    "augmentation.mixup_alpha": ("0", "-1", ".inf", "x", "0.2"),
    "augmentation.cutmix_alpha": ("0", "-1", ".nan", "[1, 1]", "1.0"),
    "augmentation.preset": ("medium", "null", "3", "[small]"),
    "encoder.name": ("resnet5000", "null", "3", "''", "../resnet18", "resnet18.a1_in1k", "convnext_tiny_in22ft1k"),
    "encoder.width_multiplier": ("0", "-1", ".nan", "x", "null", "1e9"),
    "encoder.stem": ("tiny", "null"),
    "encoder.timm_options": ("3", "[1]", "{heads: 3}", "{zero_init_last: null}", "{num_classes: 3}", "{layers: {}}"),
    "projector.hidden_dim": ("0", "-1", "x", "1e3", "1000000000000"),
    "projector.output_dim": ("0", "null", "x", "1000000000000"),
    "projector.num_layers": ("0", "17", "1.5", "x", "true"),
    "projector.hidden_dims": ("8", "[0]", "[8, x]", "[1000000000000]"),
    "projector.last_norm": ("7", "null", "batch"),
    "projector.last_norm_scale": ("7", "null"),
    "projector.bias": ("true", "null", "last"),
    "projector.norm": ("layer", "null", "true"),
    "encoder.views_in_one_pass": ("7", "null", "x"),
    "optimizer.name": ("adam", "null", "3"),
    "optimizer.base_lr": ("0", "-1", ".nan", ".inf", "fast", "null", "1e300"),
    "optimizer.momentum": ("1", "-0.1", "x", ".nan"),
    "optimizer.weight_decay": ("-1", ".nan", "null", "1e300"),
    "optimizer.warmup_epochs": ("-1", "1", "100", "x", "null", ".inf"),
    "optimizer.clip_grad_norm": ("0", "-1", ".nan", "x"),
    "snapshots.every_epochs": ("0", "-1", "1.5", "null"),
    "checkpoint.every_minutes": ("0", "-1", ".nan", "soon"),
    "arms": ("null", "{}", "[cl]", "3", "dcl", "{cl: null}", "{../x: dcl}", "{a b: dcl}", "{'': dcl}", "{1: dcl}"),
    "arms.cl": ("[dcl]", "3", "{}", "{objective: null}", "nowhere", "_anchors", "../dcl", "{dcl: 1}"),
    "arms.cl.temperature": ("0", "-1", ".nan", "x", "null", "[1]"),
    "arms.cl.colour": ("1", "x"),
    "arms.cl.perturb": ("{upls: 1}", "3"),
}
KEYS = [key for key in WRONG if key not in ("arms.cl.colour",)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with valid settings; torch's switches are restored afterwards."""
    place, here = tmp_path_factory.mktemp("bad"), Path.cwd()
    (place / "tiny.yaml").write_text(tiny.TINY_YAML)
    was = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    os.chdir(place)
    yield place
    os.chdir(here)
    torch.use_deterministic_algorithms(was[0])
    torch.set_num_threads(was[1])


def refused(place: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line on stderr after checking everything else that must hold."""
    before = sorted(place.rglob("*"))
    config = [] if "--config" in arguments else ["--config", "tiny.yaml"]
    status = train.main([*config, *arguments])
    errors = capsys.readouterr().err
    assert status == 2, (arguments, errors)
    assert errors.count("\n") == 1, (arguments, errors)
    assert errors.startswith("coupled train: "), errors
    assert sorted(place.rglob("*")) == before, arguments
    return errors


@pytest.mark.parametrize("key", WRONG)
def test_an_invalid_value_is_refused_with_its_key(place: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    """Wrong types, values out of range, names that lead to other folders, numbers that are not finite."""
    for value in WRONG[key]:
        assert key.rpartition(".")[2] in refused(place, capsys, f"{key}={value}")


@MANY
@given(st.sampled_from(KEYS), st.integers(0, 30), st.sampled_from(string.ascii_lowercase + "_-0"), st.booleans())
def test_a_misspelt_key_is_refused_by_name(
    place: Path, capsys: pytest.CaptureFixture[str], key: str, place_in_key: int, letter: str, drop: bool
) -> None:
    """A misspelt key that is ignored would give a run with wrong settings."""
    section, _, last = key.rpartition(".")
    cut = place_in_key % len(last)
    typo = last[:cut] + ("" if drop else letter) + last[cut + drop :]
    misspelt = f"{section}.{typo}" if section else typo
    assume(typo and misspelt not in WRONG and section not in ("arms", "dataset", "arms.cl"))
    assume(typo not in ("name", "stem"))
    assert typo in refused(place, capsys, f"{misspelt}=1")


YAML_LIKE = st.text(st.sampled_from(string.ascii_letters + string.digits + " .:,-_[]{}'\"&*!|>%@#=\n\t\\/~\x00é\ud800"))


@MANY
@given(st.sampled_from(KEYS), YAML_LIKE)
def test_any_text_as_a_value_is_accepted_or_refused_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], key: str, text: str
) -> None:
    """What is accepted is tested elsewhere; every refusal is one line, whatever PyYAML or pydantic raise."""
    override = f"{key}={text}"
    assume(not accepted(place / "tiny.yaml", override))
    assert key.partition(".")[0] in refused(place, capsys, override)


@MANY
@given(YAML_LIKE)
def test_any_text_as_an_override_is_accepted_or_refused_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Also without an equals sign, with empty parts, with very many parts."""
    assume(not text.startswith("-") and not accepted(place / "tiny.yaml", text))
    refused(place, capsys, text)


def accepted(config: Path, *overrides: str) -> bool:
    try:
        load_settings(config, overrides)
    except ValueError:
        return False
    return True


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@MANY
@given(st.sampled_from(list(yaml.safe_load(tiny.TINY_YAML))), VALUES)
def test_any_tree_in_a_settings_file_is_accepted_or_refused_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    """A whole section is replaced by anything that YAML can express."""
    (place / "tree.yaml").write_text(yaml.safe_dump({**yaml.safe_load(tiny.TINY_YAML), key: value}))
    assume(not accepted(place / "tree.yaml"))
    assert key in refused(place, capsys, "--config", "tree.yaml")


def bomb(first: str, before: str, after: str) -> bytes:
    """Sixteen lines, each of which refers four times to the line before."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {before}{', '.join([f'*a{n - 1}'] * 4)}{after}" for n in range(1, 16)]
    return "\n".join(lines).encode()


CHAIN = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 25))]).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb("[x, x]", "[", "]"), "longer than 65,536 characters with aliases expanded"),
        (bomb("{x: 1}", "{<<: [", "]}"), "longer than 65,536 characters with aliases expanded"),
        (b"a: &a " + b"x" * 20000 + b"\nb: [*a, *a, *a]\n", "longer than 65,536 characters with aliases expanded"),
        (CHAIN, "nested deeper than 20 levels"),
        (b"a: &a [*a]\n", "an alias refers to a value that contains it"),
        (b"a: *a\n", "found undefined alias 'a'"),
        (b"{<<: {a: 1}, <<: {b: 1}}\n", "the key '<<' appears twice"),
        (b"<<: 3\n", "'<<' merges a mapping or a list of mappings"),
        (b"[" * 50000, "nested deeper than 20 levels"),
        (b"{a: " * 10000, "nested deeper than 20 levels"),
        (b"seed: 1\nseed: 2\n", "the key 'seed' appears twice"),
        (b"? [a, b]\n: 1\n", "the key of several values is not text"),
        (b"yes: 1\n", "the key yes is not text"),
        (b"seed: \xff\xfe\n", "not UTF-8 text"),
        (b"seed: \x00\n", "not readable as YAML"),
        (
            b"!!python/object/apply:os.system [echo]\n",
            "tags are not allowed: remove !!python/object/apply:os.system",
        ),
        (b"seed: !!int ''\n", "tags are not allowed: remove !!int"),
        (b"tf32: !!bool maybe\n", "tags are not allowed: remove !!bool"),
        (b"name: !!timestamp x\n", "tags are not allowed: remove !!timestamp"),
        (b"name: ! x\n", "tags are not allowed: remove !"),
        (b"seed: 1" + b":59" * 300 + b".5\n", "not readable as YAML"),
        (b"a: [1\nb: 2\n", r"bad\.yaml: not readable as YAML: line 2, column 2: expected ',' or '\]', but got ':' \("),
        (b"a: 'x\nb: 2\n", r"line 3, column 1: .* \(while scanning a quoted scalar that begins in line 1\)$"),
        (b"- a\n- b\n", "a settings file must be a mapping of keys, got a list"),
        (b"", "a settings file must be a mapping of keys, got an empty file"),
        (b"12\n", "a settings file must be a mapping of keys, got the value 12"),
        (b"x" * 500, r"got the value 'x{76}\.\.\.$"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """A YAML bomb expands to gigabytes, deep nesting exhausts the stack, a tag could run a program."""
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_settings(tmp_path / "bad.yaml")


def test_a_huge_settings_file_is_refused_unread(tmp_path: Path) -> None:
    """100 MB would take PyYAML minutes and gigabytes; the process may not grow by even half of 100 MB."""
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.write(b"seed: 1 #")
        file.truncate(100 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"huge\.yaml: 104,857,600 bytes long; settings are at most 65,536"):
        load_settings(tmp_path / "huge.yaml")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 2**10
    with pytest.raises(ValueError, match=r"70,000 characters long"):
        parse_yaml("x" * 70000, "override")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epochs=1", "epochs=2"], "override 'epochs=2': it overwrites the earlier 'epochs=1'"),
        (["batch.size=64", "batch={sampler: balanced}"], "it overwrites the earlier 'batch.size=64'"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config: given twice"),
        (["--run-dir", "a", "--run-dir=b"], "--run-dir: given twice"),
        (["--max-steps", "1", "--max-steps", "2"], "--max-steps: given twice"),
        (
            ["arms={b: {objective: byol, predictor: linear, hidden_dim: 8}}"],
            "arms.b.hidden_dim: 8 is not allowed; predictor linear",
        ),
        (["arms={}"], "arms: got {}; allowed are 1 or more entries"),
        (["arms={b: {objective: simsiam, predictor: linear, hidden_dim: 8}}"], "arms.b.hidden_dim: 8 is not allowed"),
        (["encoder.name=hrnet_w18", "encoder.width_multiplier=1"], "encoder.stem: got 'cifar' for 'hrnet_w18'"),
        (
            ["encoder.name=skresnet18", "encoder.width_multiplier=0.05"],
            "encoder.name: 'skresnet18' does not work with encoder.width_multiplier 0.05",
        ),
        (
            ["encoder={name: crossvit_9_240, stem: imagenet}", "dataset.image_size=32"],
            "'crossvit_9_240' does not work with dataset.image_size 32: ",
        ),
        (
            ["encoder={name: inception_v3, stem: imagenet}", "dataset.image_size=32"],
            "'inception_v3' does not work with dataset.image_size 32: ",
        ),
        (
            ["encoder.name=legacy_xception", "encoder.stem=imagenet"],
            "encoder.width_multiplier: got 0.0625; 'legacy_xception'",
        ),
        (["batch.size=2"], "batch.size: got 2; the images of step 9 are all of one class, so no anchor of arm nscl"),
    ],
)
def test_settings_that_would_be_ignored_or_fail_later_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """The first of two values, an option that nothing reads, a model that would fail at the first step."""
    assert message in refused(place, capsys, *arguments)


def test_several_processes_without_a_rendezvous_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would train alone as if it were the only one."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "MASTER_ADDR, MASTER_PORT: not set, but RANK" in refused(place, capsys)

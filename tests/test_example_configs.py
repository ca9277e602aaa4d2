"""The configs of many arms: what their headers and the documentation say of them."""

from support import tiny

from coupled.analysis.plots.option_figures import option_paths
from coupled.config.load import load_settings

CONFIGS = tiny.REPOSITORY / "configs"


def test_the_bridge_has_the_three_paths_of_its_figure() -> None:
    """A typo in an option of an arm would leave a point out of the figure."""
    arms = load_settings(CONFIGS / "bridge.yaml").resolved()["arms"]
    paths = {path.option: path for path in option_paths(arms)}
    assert {*paths} == {"label_fraction", "label_noise", "label_groups"}
    assert sorted(paths["label_fraction"].values.values()) == [0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0]
    assert sorted(paths["label_noise"].values.values()) == [0.0, 0.1, 0.25, 0.5, 0.75, 0.9]
    assert paths["label_groups"].beside == ["nscl"]
    assert {"cl", "nscl", *(arm for path in paths.values() for arm in path.values)} == {*arms}


def test_the_run_of_all_families_has_an_arm_for_each() -> None:
    """At least 25 arms with different objectives, so at least 300 pairs."""
    objectives = [arm.objective for arm in load_settings(CONFIGS / "families.yaml").arms.values()]
    assert len(objectives) == len({*objectives}) >= 25
    some = ("dcl", "nscl", "cross_entropy", "hard_negative", "vicreg", "byol", "moco", "swav", "dino", "vicregl")
    assert {*some} <= {*objectives}  # one of each family

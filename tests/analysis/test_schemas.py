"""The schema of the CSV files lists every column, and equals what the programs and training write."""

import dataclasses
from pathlib import Path

from coupled.analysis.schemas import COLUMNS, INTERVAL, OF_STEPS, SCHEMAS
from coupled.analysis.weights.growth import Fit
from coupled.arms.step_result import StepResult
from coupled.metrics.weights import Gap
from coupled.storage.run_log import RunLog


def test_every_column_is_described_and_every_description_is_used() -> None:
    """One short text a column, once."""
    used = {column for schema in SCHEMAS.values() for column in schema.columns}
    assert used == {*COLUMNS}
    for schema in SCHEMAS.values():
        texts = {**COLUMNS, **schema.others}
        assert len({*schema.columns}) == len(schema.columns)
        assert all(0 < len(texts[column].text) < 110 for column in schema.columns)
        assert {*schema.others} | schema.values <= {*schema.columns}


def test_the_key_has_no_values_and_the_place_no_provenance() -> None:
    assert SCHEMAS["quality.csv"].key == (
        *("epoch", "split", "arm", "module", "metric", "variant", "shots", "k"),
        *("num_images", "num_train_images", "arm_digest", "images_digest", "train_images_digest"),
    )
    assert SCHEMAS["quality.csv"].place == SCHEMAS["quality.csv"].key[:-3]
    assert SCHEMAS["test_alignment.csv"].place == (
        *("epoch", "split", "reference", "arm", "module", "metric", "num_images"),
    )
    for schema in SCHEMAS.values():
        assert not {*schema.key} & {*INTERVAL}  # a score with an interval is the score without one


def test_the_schema_names_the_fields_that_the_programs_compute() -> None:
    """These are NamedTuples and dataclasses, which the schema cannot import because it is read without torch."""
    columns = SCHEMAS["weight_gap.csv"].columns
    first = columns.index("parameters")
    assert columns[first : first + len(Gap._fields)] == Gap._fields
    assert SCHEMAS["weight_gap_growth.csv"].columns[2:] == tuple(each.name for each in dataclasses.fields(Fit))


def test_the_schema_lists_the_columns_that_training_writes(tmp_path: Path) -> None:
    """Training does not import the analysis, so it lists its columns itself."""
    assert tuple(OF_STEPS) == ("lr", *StepResult._fields)
    RunLog(tmp_path, "0" * 64, ["inputs_digest"], ["cl"], StepResult._fields, ["cl"], 0, 0).close()
    steps, epochs = ((tmp_path / name).read_text().splitlines()[0].split(",") for name in ("steps.csv", "epochs.csv"))
    assert tuple(steps) == (*SCHEMAS["steps.csv"].columns, *(f"cl_{name}" for name in OF_STEPS))
    assert tuple(epochs) == SCHEMAS["epochs.csv"].columns

"""monitor.csv: the metrics that the monitor computes during training, one value per row. Only rank 0 writes."""

import csv
from pathlib import Path

from coupled.storage.atomic_files import write_durably
from coupled.storage.run_log import CsvLog

FILE = "monitor.csv"
COLUMNS = ("epoch", "split", "reference", "arm", "metric", "value", "num_images", "num_train_images")


def open_monitor_log(run: Path, last_epoch: int) -> CsvLog:
    """Open the table in the folder `run`; rows after `last_epoch` and a half-written row are removed.

    Raises ValueError for a file with other columns.
    """
    path = run / FILE
    if path.exists():
        lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        rows = list(csv.reader(line.decode(errors="replace") for line in lines))
        if (rows and tuple(rows[0]) != COLUMNS) or not all(row and row[0].isdecimal() for row in rows[1:]):
            raise ValueError(
                f"{path}: expected a table with the columns {','.join(COLUMNS)}; restore the file, or move it away"
            )
        kept = [line for line, row in zip(lines[1:], rows[1:], strict=True) if int(row[0]) <= last_epoch]
        header = lines[0] if lines else (",".join(COLUMNS) + "\n").encode()
        write_durably(path, b"".join([header, *kept]))
    return CsvLog(path, COLUMNS)

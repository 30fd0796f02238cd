"""Script that decodes Parquet files and writes their rows to standard output.

Standard input has a line for each file: the JSON list [path, size]. The rows are written in pieces
of about `size` bytes, or in one piece if it is negative: the number of bytes as 8 bytes,
little-endian, then the rows as an Arrow IPC file. A piece of no bytes ends each file.
"""

import json
import sys

import polars as pl


def write_rows(path: str, size: int) -> None:
    """Write the rows of one file."""
    table = pl.scan_parquet(path, glob=False)
    height = table.select(pl.len()).collect().item()
    columns = table.collect_schema()
    step = max(1, height)
    if size >= 0:
        step = max(1, size // (8 * max(1, len(columns))))
        for name, dtype in columns.items():
            if dtype.base_type() == pl.List:
                mean_length = table.select(pl.col(name).list.len().mean()).collect().item()
                step = max(1, int(step / max(1, mean_length or 1)))
                break
    for start in range(0, height, step):
        write_piece(table.slice(start, step).collect().write_ipc(None).getvalue())
    write_piece(b"")
    sys.stdout.buffer.flush()


def write_piece(piece: bytes | memoryview) -> None:
    """Write the number of bytes, then the bytes."""
    sys.stdout.buffer.write(len(piece).to_bytes(8, "little"))
    sys.stdout.buffer.write(piece)


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        write_rows(*json.loads(line))

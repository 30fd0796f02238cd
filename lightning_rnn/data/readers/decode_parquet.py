"""Script that decodes a Parquet file and writes its rows to standard output.

`python decode_parquet.py PATH SIZE` writes pieces of about SIZE bytes, or one piece if SIZE is
negative: the number of bytes as 8 bytes, little-endian, then the rows as an Arrow IPC file.
"""

import sys

import polars as pl


def main(path: str, size: int) -> None:
    """Decode piece by piece."""
    table = pl.scan_parquet(path, glob=False)
    height = table.select(pl.len()).collect().item()
    num_columns = len(table.collect_schema())
    if size < 0:
        size = 8 * num_columns * height
    step = max(1, size // (8 * max(1, num_columns)))
    for start in range(0, height, step):
        piece = table.slice(start, step).collect().write_ipc(None).getbuffer()
        sys.stdout.buffer.write(len(piece).to_bytes(8, "little"))
        sys.stdout.buffer.write(piece)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""Script that decodes a Parquet file and writes its rows to standard output.

`python decode_parquet.py PATH SIZE` writes pieces of about SIZE bytes, or one piece if SIZE is
negative: the number of bytes as 8 bytes, little-endian, then the rows as an Arrow IPC file.
"""

import sys

import polars as pl

if __name__ == "__main__":
    table = pl.scan_parquet(sys.argv[1], glob=False)
    size = int(sys.argv[2])
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
        piece = table.slice(start, step).collect().write_ipc(None).getbuffer()
        sys.stdout.buffer.write(len(piece).to_bytes(8, "little"))
        sys.stdout.buffer.write(piece)

"""Formulas in Excel files."""

import re
from pathlib import Path
from zipfile import ZipFile

from lightning_rnn.data.readers.contents import unexpected

# a cell of a sheet with a formula and no value; the value of a formula may also be empty text
FORMULA = rb'<c r="([A-Z]+[0-9]+)"(?![^>]*t="str")[^>]*><f[^<]*(?:</f>)?(?:<v></v>|<v ?/>)?</c>'


def check_formulas(path: Path) -> None:
    """Check that all formulas of the first sheet have values, which spreadsheet programs add."""
    with ZipFile(path) as archive:
        first = re.search(rb'<sheet [^>]*r:id="(.*?)"', archive.read("xl/workbook.xml"))
        links = archive.read("xl/_rels/workbook.xml.rels")
        for link in re.findall(b"<Relationship .*?>", links):
            if first is None or b'Id="%b"' % first[1] not in link:
                continue
            name = re.findall(rb'Target="(?:/xl/)?(.*?)"', link)[0].decode()
            cell = re.search(FORMULA, archive.read(f"xl/{name}"))
            if cell is not None:
                got = "a formula without one (open and save the file in a spreadsheet program)"
                raise unexpected(f"cell {cell[1].decode()}", "a value", got)

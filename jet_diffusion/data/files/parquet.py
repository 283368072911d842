"""Columns of a Parquet file: images as nested lists, pt, m0 and y as numbers or lists of one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jet_diffusion.data.files.stored import SLICE_JETS, StoredDataset, check_shape, plain
from jet_diffusion.errors import UserError, printable

MAX_VALUES_PER_ROW = 1_000_000
"""Most values of one row of a column: an image has 46,875."""


class ParquetFile:
    """An open Parquet file as `Stored` describes it; shapes are those of the first row, and every row must agree.

    Args:
        path: The file.

    Raises:
        UserError: It is truncated or damaged, or a row holds more than any image.
    """

    kind = "Parquet"

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: a name that is no text
            raise UserError(f"{path} is a damaged or truncated Parquet file: {printable(error, 200)}") from error
        try:
            check_shape(str(path), (self._file.metadata.num_rows,))
            self._check_sizes()
            self.contents = {name: self._storage(name) for name in self._file.schema_arrow.names}
        except BaseException:
            self._file.close()
            raise
        metadata = self._file.schema_arrow.metadata or {}
        self.attrs: dict[str, Any] = {"simulated": plain(metadata[b"simulated"])} if b"simulated" in metadata else {}
        self.elsewhere: list[str] = []
        self._stream: tuple[str, int, Iterator[pa.RecordBatch]] | None = None
        self._left: NDArray[Any] | None = None

    def close(self) -> None:
        """Close the file."""
        self._stream = self._left = None
        self._file.close()

    def has(self, name: str) -> bool:
        """Whether there is a column of this name."""
        return name in self.contents

    def storage(self, name: str) -> StoredDataset:
        """How a column is stored."""
        return self.contents[name]

    def check(self, name: str) -> None:
        """Sizes are checked when the file is opened."""

    def band_jets(self, name: str) -> int:
        """Rows that are decoded at once."""
        return SLICE_JETS

    def column(self, name: str) -> NDArray[Any]:
        """All values of a column."""
        parts = [self._array(name, batch, row) for row, batch in self._batches(name, 0, 4096)]
        return np.concatenate(parts) if parts else np.empty(self.contents[name].shape)

    def images(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Values of rows start to stop; going on where the last call ended reads no row twice.

        Raises:
            UserError: The file is damaged there, or a row has another shape than the first.
        """
        if self._stream is None or self._stream[:2] != (name, start):
            self._stream, self._left = None, None
            batches = self._batches(name, start, SLICE_JETS)
        else:
            batches = self._stream[2]
        parts = [] if self._left is None else [self._left]
        while sum(map(len, parts)) < stop - start:
            row, batch = next(batches)
            parts.append(self._array(name, batch, row))
        values = np.concatenate(parts) if parts else np.empty((0, *self.contents[name].shape[1:]))
        self._left = values[stop - start :]
        self._stream = name, stop, batches
        return values[: stop - start]

    def _batches(self, name: str, start: int, size: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Rows from `start` on with the number of each batch's first, from the row group that holds it."""
        group, first, metadata = 0, 0, self._file.metadata
        while group < metadata.num_row_groups and first + metadata.row_group(group).num_rows <= start:
            first += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        try:
            for batch in self._file.iter_batches(size, row_groups=groups, columns=[name]):
                skipped = min(max(0, start - first), batch.num_rows)
                if skipped < batch.num_rows:
                    yield first + skipped, batch.slice(skipped)
                first += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            where = f"{self.path}: the column {printable(name)} cannot be read from row {first} on, the file is damaged"
            raise UserError(f"{where}: {printable(error, 200)}") from error

    def _array(self, name: str, batch: pa.RecordBatch, row: int) -> NDArray[Any]:
        """A batch of equally shaped rows as one array."""
        shape = self.contents[name].shape[1:]
        values, seen = _unnest(batch.column(0), f"{self.path}: {printable(name)} of rows {row} on")
        if seen != shape and len(batch):
            raise UserError(f"{self.path}: {printable(name)} of rows {row} on has shape {seen}, row 0 has {shape}")
        return values.reshape(len(batch), *shape)

    def _storage(self, name: str) -> StoredDataset:
        metadata, kind = self._file.metadata, self._file.schema_arrow.field(name).type
        shape: tuple[int, ...] = ()
        while _is_list(kind):
            kind = kind.value_type
        if metadata.num_rows and self._is_nested(name):
            _, batch = next(self._batches(name, 0, 1))
            _, shape = _unnest(batch.column(0), f"{self.path}: {printable(name)} of row 0")
        paths = [metadata.row_group(0).column(leaf) for leaf in self._leaves(name)] if metadata.num_row_groups else []
        stored = sum(
            metadata.row_group(group).column(leaf).total_compressed_size
            for group in range(metadata.num_row_groups)
            for leaf in self._leaves(name)
        )
        compression = paths[0].compression.lower() if paths else None
        return StoredDataset(name, (metadata.num_rows, *shape), str(kind), None, compression, stored)

    def _is_nested(self, name: str) -> bool:
        return _is_list(self._file.schema_arrow.field(name).type)

    def _leaves(self, name: str) -> list[int]:
        """Numbers of the leaf columns of a column."""
        schema = self._file.schema
        return [leaf for leaf in range(len(schema)) if schema.column(leaf).path.split(".")[0] == name]

    def _check_sizes(self) -> None:
        """Refuse, from the file's own index, rows that would fill the memory."""
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group)
            for leaf in range(metadata.num_columns):
                column = rows.column(leaf)
                if column.num_values > MAX_VALUES_PER_ROW * max(1, rows.num_rows):
                    seen = f"{column.num_values} values in {rows.num_rows} rows"
                    where = f"{self.path}: {printable(column.path_in_schema)} holds {seen}"
                    raise UserError(f"{where}; the limit is {MAX_VALUES_PER_ROW} a row")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _unnest(lists: pa.Array, origin: str) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Flatten nested lists of equal lengths.

    Returns:
        The values, flat; and the shape that all rows have.

    Raises:
        UserError: Lengths differ, or something is missing (null).
    """
    shape: list[int] = []
    while _is_list(lists.type):
        if lists.null_count:
            raise UserError(f"{origin} holds {lists.null_count} missing (null) lists")
        lengths = np.unique(lists.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise UserError(f"{origin} holds lists of {lengths[0]} to {lengths[-1]} items; all must be equally long")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        if math.prod(shape) > MAX_VALUES_PER_ROW:
            raise UserError(f"{origin} holds {math.prod(shape)} values a row; the limit is {MAX_VALUES_PER_ROW}")
        lists = lists.flatten()
    if lists.null_count:
        raise UserError(f"{origin} holds {lists.null_count} missing (null) values")
    return lists.to_numpy(zero_copy_only=False), tuple(shape)

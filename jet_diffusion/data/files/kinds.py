"""Tell what kind of file lies at a path, by its first bytes and whatever its name."""

from __future__ import annotations

import difflib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jet_diffusion.errors import UserError, printable

READS = (
    "this package reads HDF5 and Parquet files with X_jets (N, 125, 125, 3), y, pt and m0; docs/guides/your-file.md "
    "walks through other layouts"
)
"""Closes the message about a file that is not read."""

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def kind_of(path: Path) -> str:
    """Tell whether a file is "hdf5" or "parquet".

    Raises:
        FileNotFoundError: There is no such file; names that are nearly the same are offered.
        UserError: It is a folder or another kind of file; the message names the kind, what is in it and a remedy.
    """
    if not path.exists():
        near = difflib.get_close_matches(path.name, _names_beside(path), n=2)
        raise FileNotFoundError(f"there is no file {path}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    if path.is_dir():
        raise UserError(f"{path} is a folder and not a file of jets; {_folder_hint(path)}")
    if not path.is_file():
        raise UserError(f"{path} is not a file but a device or pipe; {READS}")
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
        if _has_hdf5_signature(path, head):
            return "hdf5"
    if head.startswith(b"PAR1"):
        return "parquet"
    raise UserError(f"{path} is {_describe(path, head)}\n{READS}")


def _names_beside(path: Path) -> list[str]:
    return [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []


def _folder_hint(path: Path) -> str:
    if (path / "jet_diffusion.json").is_file():
        return "it is a converted dataset, which the commands take as --data or --real"
    files = sorted(item.name for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
    return f"it holds {', '.join(map(printable, files[:5]))}" if files else "it holds no files"


def _has_hdf5_signature(path: Path, head: bytes) -> bool:
    """HDF5 puts its signature at byte 0, 512, 1024, 2048 and so on: what comes before is the user's."""
    if head.startswith(HDF5_SIGNATURE):
        return True
    size, offset = path.stat().st_size, 512
    with path.open("rb") as stream:
        while offset + len(HDF5_SIGNATURE) <= min(size, 1 << 30):
            stream.seek(offset)
            if stream.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
                return True
            offset *= 2
    return False


def _describe(path: Path, head: bytes) -> str:
    """Kind, content and remedy of a file that is not read."""
    for signature, describe in _SIGNATURES:
        if head.startswith(signature):
            return describe(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kinds = (
        (not head, "empty (0 bytes); download or copy it again"),
        (not head.strip(b"\0"), "all zeros at its beginning, an interrupted download or copy; fetch it again"),
        (head[257:262] == b"ustar", f"a tar archive; unpack it: tar xf {path}"),
        (
            head[:2] in (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"),
            "a Python pickle, which may run code when opened and is never opened here; save its arrays as HDF5",
        ),
        (
            text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")),
            "a web page, perhaps a login or error page in place of the file; download it in the browser again",
        ),
        (_is_text(head), f"a text file: it begins with {printable(head[:200].decode(errors='replace').strip())!r}"),
    )
    unknown = f"of an unknown kind: it begins with the bytes {head[:8].hex(' ')}"
    return next((said for holds, said in kinds if holds), unknown)


def _is_text(head: bytes) -> bool:
    try:
        return head[:4096].decode(errors="strict").isprintable() or b"\0" not in head
    except UnicodeDecodeError:
        return False


def _lfs_pointer(path: Path) -> str:
    return f"a Git LFS pointer and not the file itself; fetch the file: git lfs pull --include {path.name}"


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names and all(name.endswith(".npy") for name in names):
                arrays = [f"{printable(name[:-4])} {_npy_header(archive, name)}" for name in names[:8]]
                return f"a numpy archive (.npz) of {', '.join(arrays)}; write its arrays into an HDF5 file"
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError):
        return f"a damaged zip archive; fetch it again, then unpack it: unzip {path}"
    if any(name.endswith("data.pkl") for name in names):
        return "a file of PyTorch, which holds a pickle and is never opened here; save its arrays as HDF5"
    return f"a zip archive of {', '.join(map(printable, names[:5])) or 'nothing'}; unpack it: unzip {path}"


def _npy_header(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        return f"{shape} {dtype}"


def _npy(path: Path) -> str:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError):
        return "a numpy file of Python objects (a pickle), which is never opened here; save its arrays as HDF5"
    return f"a numpy file (.npy) of {array.shape} {array.dtype}; write its arrays into an HDF5 file"


def _packed(name: str, unpack: str) -> Callable[[Path], str]:
    return lambda path: f"compressed with {name}; unpack it: {unpack} < {path} > {path.with_suffix('')}.unpacked"


def _plain(text: str) -> Callable[[Path], str]:
    return lambda _: text


_SIGNATURES: tuple[tuple[bytes, Callable[[Path], str]], ...] = (
    (b"version https://git-lfs", _lfs_pointer),
    (b"PK\x03\x04", _zip),
    (b"PK\x05\x06", _zip),
    (b"\x93NUMPY", _npy),
    (b"\x1f\x8b", _packed("gzip", "gunzip")),
    (b"BZh", _packed("bzip2", "bunzip2")),
    (b"\xfd7zXZ", _packed("xz", "unxz")),
    (b"\x28\xb5\x2f\xfd", _packed("zstd", "unzstd")),
    (b"7z\xbc\xaf\x27\x1c", _plain("a 7z archive; unpack it")),
    (b"root", _plain("a ROOT file; write its arrays into an HDF5 file, for example with uproot and h5py")),
    (b"CDF", _plain("a NetCDF 3 file; write its arrays into an HDF5 file")),
    (b"ARROW1", _plain("an Arrow (Feather) file; write it as Parquet: pyarrow.feather, then pyarrow.parquet")),
    (b"\x0eHDF", _plain("a file of HDF version 4; h4toh5 turns it into HDF5")),
    (b"\x89PNG", _plain("a PNG picture")),
    (b"\xff\xd8\xff", _plain("a JPEG picture")),
)
"""First bytes of a kind of file -> what to say of it."""

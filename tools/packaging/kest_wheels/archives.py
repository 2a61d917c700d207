"""Archives whose bytes depend on nothing but their files: one order, one time, one set of permissions."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

_ZIP_EPOCH = 315532800  # 1980: zip knows no earlier time


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def normalise_sdist(path: Path, epoch: int) -> None:
    """Rewrite a .tar.gz in place: members by name, owned by nobody in particular, all of one time."""
    out = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            clean = tarfile.TarInfo(member.name)
            clean.type, clean.size, clean.mtime = member.type, member.size, epoch
            clean.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            if not (member.isfile() or member.isdir()):
                raise ValueError(f"{path.name}: {member.name} is neither a file nor a folder")
            new.addfile(clean, old.extractfile(member) if member.isfile() else None)
    path.write_bytes(gzip.compress(out.getvalue(), 9, mtime=epoch))


def normalise_wheel(path: Path, epoch: int, licences: Mapping[str, bytes]) -> None:
    """Rewrite a wheel in place, with the licences of what was put into it, and a RECORD that says so."""
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist() if not name.endswith("/")}
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    info = record.rpartition("/")[0]
    del files[record]
    for name, text in licences.items():
        files[f"{info}/licenses/{name}"] = text
    files[f"{info}/METADATA"] = _with_licences(files[f"{info}/METADATA"], sorted(licences))
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in sorted(files.items())]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()

    when = time.gmtime(max(epoch, _ZIP_EPOCH))[:6]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for name in [*sorted(set(files) - {record}), record]:  # RECORD last, as PEP 427 recommends
            member = zipfile.ZipInfo(name, when)
            member.create_system = 3  # Unix, whose permissions follow
            member.external_attr = (0o100755 if ".so" in name.rpartition("/")[2] else 0o100644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(member, files[name])


def _with_licences(metadata: bytes, names: list[str]) -> bytes:
    head, blank, body = metadata.partition(b"\n\n")
    lines = head.split(b"\n")
    at = max(i for i, line in enumerate(lines) if line.startswith(b"License-File: ")) + 1
    lines[at:at] = [b"License-File: " + name.encode() for name in names]
    return b"\n".join(lines) + blank + body


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

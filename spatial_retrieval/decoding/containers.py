"""What the wrapping of a photograph says, read by hand, in time that grows with its length.

Decoders trust what they read: a text chunk of gigabytes, a directory whose ten thousand entries
all point at the same megabyte, twenty thousand scans. Here such things are left out or counted
before a decoder sees them. Of EXIF only the orientation is read, whatever the rest looks like.
"""

import re
import struct

__all__ = ["check_directories", "count_scans", "essential", "exif_of", "orientation"]

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # 00 and D0 … D7 belong to the scan
_BARE = {0x01, 0xD8, 0xD9}  # markers without a length
_KEPT_CHUNKS = {b"tRNS", b"iCCP"}
_MAX_ENTRIES = 65_536  # strips or tiles of a TIFF, chunks of a PNG, markers of a JPEG
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF = re.compile(rb"II\*\0|MM\0\*")


def essential(data: bytes, kind: str) -> bytes:
    """The file without what the pixels do not need: text, EXIF, previews, private chunks."""
    if kind == "JPEG":
        segments, scan = _segments(data)
        kept = [data[a:b] for marker, a, b in segments if _is_needed(marker, data[a:b])]
        return b"".join([data[:2], *kept, data[scan:]]) if scan else data
    if kind == "PNG":
        kept = [chunk for name, chunk in _chunks(data) if name[0] < 97 or name in _KEPT_CHUNKS]
        return data[:8] + b"".join(kept)
    return data


def exif_of(data: bytes, kind: str) -> bytes:
    """The EXIF block of a JPEG or a PNG; empty if there is none."""
    if kind == "JPEG":
        blocks = (data[a + 4 : b] for marker, a, b in _segments(data)[0] if marker == 0xE1)
        return next((block for block in blocks if block.startswith(b"Exif\0\0")), b"")
    if kind == "PNG":
        return next((chunk[8:-4] for name, chunk in _chunks(data) if name == b"eXIf"), b"")
    return b""


def orientation(block: object) -> int:
    """EXIF's orientation, 1 … 8, whatever type it was written with; 1 if it can't be found."""
    if not isinstance(block, bytes):
        return 1
    block = block.removeprefix(b"Exif\0\0")
    try:
        for order, tag, kind, _, position in _entries(block):
            if tag == 0x0112:
                form = {1: "B", 2: "B", 4: "I", 6: "b", 9: "i"}.get(kind, "H")
                (value,) = struct.unpack_from(order + form, block, position)
                value -= 48 if kind == 2 else 0  # as text
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def count_scans(data: bytes, most: int) -> int:
    """How many scans a JPEG has, or ``most`` + 1 as soon as there are more."""
    position, scans, markers = 2, 0, 0
    while scans <= most and (match := _MARKER.search(data, position)):
        marker, markers = match[1][0], markers + 1
        _check_count(markers, "markers")
        if marker == 0xD9:
            break
        scans += marker == 0xDA
        length = 0 if marker in _BARE else int.from_bytes(data[match.end() : match.end() + 2])
        position = match.end() + length
    return scans


def check_directories(data: bytes, kind: str) -> None:
    """Refuse TIFF directories, also those inside HEIC and AVIF, that announce more than there is.

    Raises:
        ValueError: if the values of a directory are together longer than the file, or it lists
            more than 65,536 strips.
    """
    if kind not in ("TIFF", "AVIF", "HEIC"):
        return
    starts = [0] if kind == "TIFF" else [match.start() for match in _TIFF.finditer(data)][:64]
    for start in starts:
        block, total = data[start:], 0
        try:
            for _, tag, form, count, _ in _entries(block):
                total += count * _SIZES.get(form, 1)
                if tag in (273, 279, 324, 325):
                    _check_count(count, "strips")
        except struct.error:
            pass  # the directory ends early; its decoder says so if it matters
        if total > len(data) + 65_536:
            raise ValueError("its directory announces more than the file holds")


def _check_count(count: int, what: str) -> None:
    if count > _MAX_ENTRIES:
        raise ValueError(f"it has more than {_MAX_ENTRIES} {what}")


def _segments(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """(marker, start, end) of a JPEG's header, and where its first scan starts; 0 if unclear."""
    position, found = 2, []
    while match := _MARKER.match(data, position):
        marker = match[1][0]
        if marker == 0xDA:
            return found, position
        if marker in _BARE:
            break
        end = match.end() + int.from_bytes(data[match.end() : match.end() + 2])
        found.append((marker, position, end))
        _check_count(len(found), "markers")
        position = end
        while data[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
    return found, 0


def _is_needed(marker: int, segment: bytes) -> bool:
    if marker == 0xE2:
        return segment[4:16] == b"ICC_PROFILE\0"
    return not (0xE1 <= marker <= 0xEF or marker == 0xFE) or marker == 0xEE  # EE: Adobe's colours


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(name, whole chunk) of a PNG; the last one may be cut short."""
    position, found = 8, []
    while len(name := data[position + 4 : position + 8]) == 4:
        end = position + 12 + int.from_bytes(data[position : position + 4])
        found.append((name, data[position:end]))
        _check_count(len(found), "chunks")
        position = end
    return found


def _entries(block: bytes) -> list[tuple[str, int, int, int, int]]:
    """(byte order, tag, type, count, position of the value) of the first directory of a TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return []
    (start,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, start)
    places = range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12)
    return [(order, *struct.unpack_from(order + "HHI", block, at), at + 8) for at in places]

"""What bytes are, by how they begin: a file, and whose, or headerless PCM.

To ask a decoder would not do: libsndfile takes some raw PCM for a file of its own.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import NamedTuple

FORWARD = re.compile(rb"RIF[FX]....WAVE|RF64|riff|FORM|\.snd|fLaC|caff", re.DOTALL)
"""First bytes of what libsndfile reads from front to end: wav, w64, aiff, au, flac, caf."""
UNCLOSED = re.compile(rb"(RIFF....WAVE.*?data)\0{4}(?![ -~]{4})..", re.DOTALL)
"""A wav header without the length of what follows, which is no further chunk: who wrote it never came to its end."""
THROUGH_PIPE = re.compile(rb"OggS|ID3|\xff[\xe2-\xe7\xea-\xef\xf2-\xf7\xfa-\xff]")
"""First bytes of ogg and mp3, whose end libsndfile wants to see first, unless it knows that it cannot."""
_OTHERS = re.compile(
    rb"OggS|ID3|NIST_1A|Creative Voice File| paf|fap |PVF1|2BIT|MATLAB 5\.0|\x64\xa3[\x01-\x04]\0"
    rb"|\0[\x01-\x04]\xa3\x64"
)
"""First bytes of what else libsndfile reads: ogg, mp3, sphere, voc, paf, pvf, avr, mat, ircam."""
_FOR_FFMPEG = re.compile(
    rb"....(ftyp|moov|mdat|wide|free|skip)|\x1a\x45\xdf\xa3|#!AMR|\x30\x26\xb2\x75|RIFF....AVI |FLV\x01|wvpk|MAC |TTA1"
    rb"|\x00\x00\x01\xba|G.{187}G(.{187}G|.{,187}\Z)|nut/multimedia|\.RMF|\.SoX|XoS\.|KVAG|MPCK|MP\+|tBaK|DSD |FRM8"
    rb"|[FCZ]WS[\x01-\x30]|ea3\x03|EA3\x01|ajkg|\x06\x0e\x2b\x34|\x7f\xfe\x80\x01|\xfe\x7f\x01\x80|\x80\0..\x03\x12\x04|\x72\xf8\x1f\x4e",
    re.DOTALL,
)
"""First bytes of mp4, m4a and mov, webm and mkv, amr, wma, avi, flv, wavpack, monkey's audio, tta, mpeg, nut, rm, sox,
kvag, musepack, tak, dsd, swf, oma, shorten, mxf, dts, adx, spdif."""
_FRAMES_FOR_FFMPEG = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]|\x0b\x77|\x56[\xe0-\xff]")
"""First bytes of aac, ac3 and latm, which are frames and nothing else: too little to tell PCM from them."""


_NAME = re.compile(
    rb".+\.(wav|flac|ogg|opus|mp[234]|m4a|webm|mkv|mov|avi|aac|ac3|amr|wma|aiff?|au|caf|pcm|raw)|~?/.{7,}",
    re.IGNORECASE,
)
"""A path, or an address, in bytes."""


def is_for_ffmpeg(head: bytes) -> bool:
    """Whether a file that begins so is one that FFmpeg must read."""
    return bool(_FOR_FFMPEG.match(head) or _FRAMES_FOR_FFMPEG.match(head))


def is_file_content(data: bytes) -> bool:
    """Whether these are the bytes of a file, by what they begin with; otherwise they may be headerless PCM.

    >>> is_file_content(bytes(1000)), is_file_content(b"fLaC" + bytes(1000))
    (False, True)
    """
    told = FORWARD.match(data) or _FOR_FFMPEG.match(data) or _OTHERS.match(data)
    return bool(told) or any(_follow_one_another(data, framing) for framing in _FRAMINGS)


def pcm_mistake(data: bytes) -> str | None:
    r"""What is wrong with bytes that cannot be PCM, being another thing; None where they can.

    >>> pcm_mistake(b"/data/talk.wav")
    "b'/data/talk.wav' is the name of a file in bytes: pass it as text, by os.fsdecode"
    >>> pcm_mistake(b"PK\x03\x04" + bytes(60)), pcm_mistake(bytes(64))
    ('64 bytes are a zip archive and not audio', None)
    """
    if len(data) < 4096 and _NAME.fullmatch(data) and _is_text(data):
        return f"{data!r} is the name of a file in bytes: pass it as text, by os.fsdecode"
    what = next((what for begin, what in _NO_SOUND.items() if data.startswith(begin)), None)
    if what is None and len(data) >= _TEXT and _is_text(data):
        what = "text"
    return None if what is None else f"{len(data)} bytes are {what} and not audio"


_NO_SOUND = {
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b\x08": "a gzip archive",
    b"BZh9": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"%PDF-": "a PDF",
    b"\x89PNG": "a picture",
    b"GIF8": "a picture",
    b"\xff\xd8\xff\xe0": "a picture",
    b"\xff\xd8\xff\xe1": "a picture",
    b"\x93NUMPY": "an array of NumPy's",
}
"""First bytes of what is often passed by mistake; as PCM they would be two samples and more of deafening noise."""
_TEXT = 32
"""Bytes from which on text is no coincidence: as PCM, all samples would be loud, and most of them positive."""


def _is_text(data: bytes) -> bool:
    """Whether all, or the first thousands, of these bytes are printable characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data[:4096])
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n" for character in text)


class _Framing(NamedTuple):
    """How frames begin that stand in a file without anything before them."""

    sync: bytes
    """What tells that a frame begins."""
    marks: bytes
    """The bits of it that do."""
    same: bytes
    """All bits that the frames of a file have in common."""
    length: Callable[[bytes], int]
    """Bytes of the frame that begins with eight; 0 where none does."""


_HEADER = 8


def _follow_one_another(data: bytes, framing: _Framing) -> bool:
    """Whether three frames of one kind follow one another, or two where there are no more."""
    if _masked(data, framing.marks) != framing.sync:
        return False
    at = 0
    for number in range(3):
        header = data[at : at + _HEADER]
        if len(header) < _HEADER:
            return number > 1
        length = framing.length(header)
        if not length or _masked(header, framing.same) != _masked(data, framing.same):
            return False
        at += length
    return True


def _masked(data: bytes, mask: bytes) -> bytes:
    return bytes(byte & bits for byte, bits in zip(data, mask, strict=False))


_MPEG1, _LAYER_2, _LAYER_3 = 3, 2, 1
_LOW_BITRATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BITRATES = {
    (True, _LAYER_2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, _LAYER_3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, _LAYER_2): _LOW_BITRATES,
    (False, _LAYER_3): _LOW_BITRATES,
}
"""Kilobits a second, of MPEG 1 and of MPEG 2 and 2.5."""
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _mpeg_length(header: bytes) -> int:
    """Of layers II and III (ISO 11172-3, 2.4.1.3)."""
    version, layer, bitrate, rate = header[1] >> 3 & 3, header[1] >> 1 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer not in (_LAYER_2, _LAYER_3) or bitrate in (0, 15) or rate == 3:
        return 0
    half = version != _MPEG1 and layer == _LAYER_3  # samples a frame
    bytes_a_kilobit = 72_000 if half else 144_000
    kilobits = _BITRATES[version == _MPEG1, layer][bitrate - 1]
    return bytes_a_kilobit * kilobits // _RATES[version][rate] + (header[2] >> 1 & 1)


_AC3_BITRATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)


def _ac3_length(header: bytes) -> int:
    """Of AC-3 (ETSI TS 102 366, 4.4.1) and, from its version 11 on, of E-AC-3 (there, E.1.3.1)."""
    rate, size, version = header[4] >> 6, header[4] & 63, header[5] >> 3
    if 10 < version <= 16:
        return 2 * ((header[2] & 7) << 8 | header[3]) + 2
    if version > 16 or rate == 3 or size >> 1 >= len(_AC3_BITRATES):
        return 0
    kilobits = _AC3_BITRATES[size >> 1]
    return (4 * kilobits, 2 * (kilobits * 320 // 147 + (size & 1)), 6 * kilobits)[rate]


def _adts_length(header: bytes) -> int:
    """Of AAC (ISO 14496-3, 1.A.3.2), its own header included."""
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length >= _HEADER else 0


def _latm_length(header: bytes) -> int:
    """Of AAC in LOAS (ISO 14496-3, 1.7.2)."""
    return 3 + ((header[1] & 31) << 8 | header[2])


_FRAMINGS = (
    _Framing(b"\xff\xe0", b"\xff\xe0", b"\xff\xfe\x0c", _mpeg_length),
    _Framing(b"\x0b\x77", b"\xff\xff", b"\xff\xff\x00\x00\x00\xf8", _ac3_length),
    _Framing(b"\xff\xf0", b"\xff\xf6", b"\xff\xfe\xfc", _adts_length),
    _Framing(b"\x56\xe0", b"\xff\xe0", b"\xff\xe0", _latm_length),
)

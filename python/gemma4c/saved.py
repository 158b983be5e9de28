"""Sessions in files: the conversation, its media as they were decoded, and the engine's own state behind them.

    "gemma4c session 1\\n", the length of the head (8 bytes, little-endian), the head (JSON), the media's bytes, the state

The head has `messages`, in which {"gemma4c": i} stands for medium i, and `media`, each with its kind and sizes."""

from __future__ import annotations

import ctypes
import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from . import _convert, _mirror as c
from ._library import lib
from .errors import FileError, FormatError, check
from .media import Media, _from_rgb, _image_struct, video_of
from .session import Session

if TYPE_CHECKING:
    from .engine import Engine

_MAGIC = b"gemma4c session 1\n"
_MAX_HEAD = 1 << 30


# ---- Media ---------------------------------------------------------------------------------------------------------


def _image_bytes(image: Any) -> bytes:
    stride = image.stride or 3 * image.width
    if stride == 3 * image.width:
        return ctypes.string_at(image.pixels, stride * image.height)
    base = ctypes.addressof(image.pixels.contents)
    return b"".join(ctypes.string_at(base + y * stride, 3 * image.width) for y in range(image.height))


def _sound_bytes(audio: Any) -> bytes:
    return ctypes.string_at(audio.samples, 4 * audio.n_samples)


def _describe(medium: Media, blobs: list[bytes]) -> dict[str, Any]:
    """What stands in the head; the bytes go to blobs."""
    s = medium.struct
    if medium.kind == "image":
        blobs.append(_image_bytes(s))
        return {"kind": "image", "width": s.width, "height": s.height}
    if medium.kind == "audio":
        blobs.append(_sound_bytes(s))
        return {"kind": "audio", "samples": s.n_samples}
    frames = s.frames[: s.n_frames]
    blobs.extend(_image_bytes(f) for f in frames)
    out = {"kind": "video", "sizes": [[f.width, f.height, f.fitted] for f in frames], "seconds": s.seconds[: s.n_frames]}
    if s.sound:
        blobs.append(_sound_bytes(s.sound.contents))
        out["samples"] = s.sound.contents.n_samples
    return out


def _read_sound(f: BinaryIO, n: int) -> Media:
    data = _exactly(f, 4 * n)
    audio = c.g4_audio()
    audio.samples, audio.n_samples = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_float)), n
    return Media("audio", audio, keep=data)


def _read_medium(f: BinaryIO, head: Any) -> Media:
    if head["kind"] == "image":
        width, height = _size(head["width"]), _size(head["height"])
        return _from_rgb(_exactly(f, 3 * width * height), width, height)
    if head["kind"] == "audio":
        return _read_sound(f, _size(head["samples"]))
    frames, keep = [], []
    for width, height, fitted in head["sizes"]:
        keep.append(_exactly(f, 3 * _size(width) * _size(height)))
        frames.append(_image_struct(keep[-1], width, height))
        frames[-1].fitted = _convert.integer("fitted", fitted)
    seconds = [float(x) for x in head["seconds"]]
    if not frames or len(seconds) != len(frames):
        raise ValueError("a video's frames and times")
    return video_of(frames, seconds, keep, _read_sound(f, _size(head["samples"])) if "samples" in head else None)


def _size(value: Any) -> int:
    return _convert.integer("size", value, 1)


def _exactly(f: BinaryIO, n: int) -> bytes:
    data = f.read(n)
    if len(data) != n:
        raise ValueError(f"expected {n} bytes more, found {len(data)}")
    return data


# ---- Files ---------------------------------------------------------------------------------------------------------


def write_session(session: Session, path: Any) -> None:
    name = os.path.realpath(os.fsdecode(_convert.path("path", path)))  # a link stays one
    if os.path.exists(name) and not os.path.isfile(name):
        raise FileError(f"{name}: expected a file, found a folder, device or pipe")  # the new file would take its place
    blobs: list[bytes] = []
    media: list[dict[str, Any]] = []

    def place(value: Any) -> Any:
        if isinstance(value, Media):
            media.append(_describe(value, blobs))
            return {"gemma4c": len(media) - 1}
        return _convert.plain(value)

    head = json.dumps({"messages": session.messages, "media": media}, default=place)
    head = json.dumps({"messages": json.loads(head)["messages"], "media": media})  # all of them are known now

    def write_to(f: BinaryIO, pointer: Any) -> None:
        err, failed = c.g4_error(), list[BaseException]()

        def write(user: Any, data: Any, size: int) -> int:
            try:
                f.write(ctypes.string_at(data, size))
                return 0
            except BaseException as e:
                failed.append(e)
                return 1

        f.write(_MAGIC + len(head).to_bytes(8, "little") + head.encode("ascii"))
        f.writelines(blobs)
        status = lib.g4_session_save(pointer, c.g4_write_fn(write), None, ctypes.byref(err))
        if failed:
            raise failed[0]
        check(status, err)

    part = f"{name}.{os.getpid()}.part"
    try:
        with open(part, "wb") as f:
            session._call(lambda pointer: write_to(f, pointer))
        os.replace(part, name)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise


def _with_media(value: Any, media: list[Media]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"gemma4c"}:
            return media[value["gemma4c"]]
        return {k: _with_media(v, media) for k, v in value.items()}
    return [_with_media(v, media) for v in value] if isinstance(value, list) else value


def read_session(engine: Engine, path: Any) -> Session:
    name = os.fsdecode(_convert.path("path", path))
    with open(name, "rb") as f:
        try:
            if f.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("the beginning of a session file of gemma4c")
            size = int.from_bytes(_exactly(f, 8), "little")
            if size > _MAX_HEAD:
                raise ValueError(f"a head of {size} bytes")
            head = json.loads(_exactly(f, size))
            media = [_read_medium(f, m) for m in head["media"]]
            messages = _with_media(head["messages"], media)
            if not isinstance(messages, list):
                raise ValueError("messages")
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as e:
            raise FormatError(f"{name}: is no session file of gemma4c, or damaged: {e}") from None
        options, out, err = c.g4_session_options(), ctypes.c_void_p(), c.g4_error()

        def read(user: Any, data: Any, size: int) -> int:
            got = f.read(size)
            ctypes.memmove(data, got, len(got))
            return int(len(got) != size)

        with engine._handle as pointer:
            engine._call(lambda: check(lib.g4_session_load(ctypes.byref(out), pointer, ctypes.byref(options),
                                                           c.g4_read_fn(read), None, ctypes.byref(err)), err))
    return Session._like(engine, out, options, messages)

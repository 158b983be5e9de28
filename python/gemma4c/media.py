"""Pictures, sound and videos: from what Python programs have them in, to what the engine reads."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

from . import _convert, _mirror as c
from ._calls import interruptible
from ._library import lib
from .errors import ArgumentError, check

if TYPE_CHECKING:
    import numpy

__all__ = ["Box", "Media", "draw_boxes", "load_media"]

AUDIO_RATE = 16000  # samples a second


class Media:
    """A picture, a sound or a video, decoded. `kind` is "image", "audio" or "video"; `size` the width and height in
    pixels, of a video that of its first frame; `seconds` the length of a sound.

    Made by `load_media`, and wherever a message has one. It owns its memory: what it was made of may change or go."""

    def __init__(self, kind: str, struct: Any, keep: object = None, free: Any = None, options: Any = None):
        self.kind = kind
        self.struct = struct  # g4_image, g4_audio or g4_video
        self._keep = keep  # what the struct's pointers point into, when it is Python's memory
        self._free, self._options = free, options

    def __del__(self) -> None:
        free, self._free = getattr(self, "_free", None), None
        if free is not None:
            free(ctypes.byref(self.struct), ctypes.byref(self._options))

    def __repr__(self) -> str:
        if self.kind == "audio":
            return f"<Media audio, {self.seconds:.1f} s>"
        frames = f", {self.struct.n_frames} frames" if self.kind == "video" else ""
        return f"<Media {self.kind}, {self.size[0]} x {self.size[1]}{frames}>"

    def __copy__(self) -> Media:
        return self  # nothing changes it

    def __deepcopy__(self, memo: object) -> Media:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a decoded medium does not pickle: send its file, its bytes or an array")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height); (0, 0) of a sound."""
        if self.kind == "audio":
            return (0, 0)
        image = self.struct if self.kind == "image" else self.struct.frames[0]
        return (image.width, image.height)

    @property
    def seconds(self) -> float:
        """Of a sound; 0 of anything else."""
        return self.struct.n_samples / AUDIO_RATE if self.kind == "audio" else 0.0

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """A copy: (height, width, 3) uint8, (samples,) float32 at 16 kHz, or (frames, height, width, 3) uint8."""
        import numpy as np

        if self.kind == "audio":
            return np.ctypeslib.as_array(self.struct.samples, (self.struct.n_samples,)).copy()
        images = [self.struct] if self.kind == "image" else self.struct.frames[: self.struct.n_frames]
        arrays = [_pixels_of(image) for image in images]
        return arrays[0].copy() if self.kind == "image" else np.stack(arrays)


def _pixels_of(image: Any) -> numpy.ndarray[Any, Any]:
    """(height, width, 3), on the picture's own memory."""
    import numpy as np

    stride = image.stride or 3 * image.width
    rows = np.ctypeslib.as_array(image.pixels, (image.height, stride))
    return rows[:, : 3 * image.width].reshape(image.height, image.width, 3)


class MediaOptions(NamedTuple):
    """How files are decoded. `ffmpeg`: the program that reads what is not read here, "" for none; `frames`: how many of
    a video; `fps`: so many a second instead."""

    ffmpeg: str = "ffmpeg"
    frames: int = 32
    fps: float = 0.0
    want_sound: bool = True


def c_options(o: MediaOptions, cancel: c.g4_cancel | None = None) -> c.g4_media_options:
    """The engine's form of the options. What it points to lives as long as it does: ctypes keeps it."""
    out = c.g4_media_options()
    out.ffmpeg = _convert.word("ffmpeg", o.ffmpeg)
    out.n_frames = _convert.integer("frames", o.frames, 1, 1024)
    out.fps = _convert.number("fps", o.fps, 0, 1000)
    out.want_sound = _convert.flag("want_sound", o.want_sound)
    if cancel is not None:
        out.limits.cancel = ctypes.pointer(cancel)
    return out


_LOADERS: dict[int, tuple[str, Any, Any, Any, Any]] = {
    c.G4_MEDIA_IMAGE: ("image", c.g4_image, lib.g4_image_load, lib.g4_image_decode, lib.g4_image_free),
    c.G4_MEDIA_AUDIO: ("audio", c.g4_audio, lib.g4_audio_load, lib.g4_audio_decode, lib.g4_audio_free),
    c.G4_MEDIA_VIDEO: ("video", c.g4_video, lib.g4_video_load, lib.g4_video_decode, lib.g4_video_free),
}


def load_media(value: Any, options: MediaOptions = MediaOptions()) -> Media:
    """A medium from a path, the bytes of a file, a PIL image, or an array.

    Arrays: (height, width), (height, width, 3) or (height, width, 4) of uint8 are pictures, (frames, height, width, 3)
    a video of one frame a second, (samples,) of floats from -1 to 1 a sound at 16 kHz. They are copied once.

    >>> load_media(b"P6 2 1 255 \\xff\\x00\\x00\\x00\\x00\\xff")
    <Media image, 2 x 1>
    """
    if not isinstance(options, MediaOptions):
        raise _convert.type_error("options", "MediaOptions", options)
    flag = c.g4_cancel()
    return load_until(value, c_options(options, flag), flag)


def load_until(value: Any, options: c.g4_media_options, flag: c.g4_cancel) -> Media:
    """The same with the engine's form of the options, which end it when their flag is set."""
    def cancel() -> None:
        lib.g4_cancel_set(ctypes.byref(flag))

    if isinstance(value, Media):
        return value
    if isinstance(value, (str, os.PathLike)):
        path = _convert.path("path", value)
        return interruptible(lambda: _from_file(path, None, options), cancel)
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        return interruptible(lambda: _from_file(None, data, options), cancel)
    if hasattr(value, "__array_interface__") and not _is_pil(value) or hasattr(value, "__dlpack__"):
        return _from_array(value)
    if _is_pil(value):
        return _from_pil(value)
    if callable(getattr(value, "read", None)) and not isinstance(value, type):
        data = value.read()
        if not isinstance(data, bytes):
            raise _convert.type_error("medium", "a file that was opened for bytes", value)
        return load_until(data, options, flag)
    raise _convert.type_error("medium", "a path, bytes, a PIL image, or an array", value)


def _is_pil(value: Any) -> bool:
    return any(t.__module__.startswith("PIL.") for t in type(value).__mro__)


def _from_file(path: bytes | None, data: bytes | None, options: c.g4_media_options) -> Media:
    info, err = c.g4_media_info(), c.g4_error()
    how = (ctypes.byref(options), ctypes.byref(err))
    if path is not None:
        check(lib.g4_media_probe(ctypes.byref(info), path, *how), err)
    else:
        assert data is not None
        check(lib.g4_media_probe_data(ctypes.byref(info), data, len(data), *how), err)
    if info.kind not in _LOADERS:
        raise ArgumentError("is neither a picture nor sound nor a video")
    kind, struct_type, load, decode, free = _LOADERS[info.kind]
    struct = struct_type()
    status = load(ctypes.byref(struct), path, *how) if path is not None else \
        decode(ctypes.byref(struct), data, len(data or b""), *how)
    check(status, err)
    return Media(kind, struct, free=free, options=options)


def _image_struct(data: Any, width: int, height: int) -> c.g4_image:
    image = c.g4_image()
    image.pixels = ctypes.cast(data, ctypes.POINTER(ctypes.c_uint8))
    image.width, image.height = width, height
    return image


def _from_rgb(data: bytes, width: int, height: int) -> Media:
    """From 3 * width * height bytes."""
    if width < 1 or height < 1:
        raise ValueError(f"picture: expected at least one pixel, found {width} x {height}")
    return Media("image", _image_struct(data, width, height), keep=data)


def _from_pil(image: Any) -> Media:
    """As files are read: upright, on white where it is transparent."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise _convert.type_error("medium", "a PIL image", image)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    # 16 bits, which convert() itself would cut off at 255. Pillow's "I" may have them or not.
    if image.mode.startswith("I;16") or image.mode == "I" and image.getextrema()[1] > 255:
        image = image.convert("I").point(lambda v: v * (1 / 256)).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return _from_rgb(image.tobytes(), image.width, image.height)


def _from_array(value: Any) -> Media:
    import numpy as np

    try:
        array = np.asarray(value)
    except Exception as e:
        raise TypeError(f"medium: {e}") from None
    if array.dtype.kind == "f" and array.ndim == 1:
        return _from_samples(array)
    if array.dtype != np.uint8:
        raise TypeError(f"array: expected uint8 pixels or a row of float samples, found {array.dtype} {array.shape}")
    if array.ndim == 4 and array.shape[3] == 3:
        return _from_frames(array)
    if array.ndim not in (2, 3) or array.ndim == 3 and array.shape[2] not in (3, 4):
        raise ValueError(f"array: expected a shape (height, width), (height, width, 3) or (height, width, 4), found "
                         f"{array.shape}")
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    elif array.shape[2] == 4:  # on white, rounded as the engine does with files
        alpha = array[:, :, 3:].astype(np.uint32)
        array = ((array[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return _from_rgb(array.tobytes(), array.shape[1], array.shape[0])


def _from_samples(array: Any) -> Media:
    import numpy as np

    if array.size == 0:
        raise ValueError("sound: expected samples, found none")
    with np.errstate(over="ignore"):  # it is refused below
        samples = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(samples).all():
        raise ValueError("sound: expected finite samples")
    audio = c.g4_audio()
    audio.samples = samples.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    audio.n_samples = samples.size
    return Media("audio", audio, keep=samples)


def video_of(frames: Sequence[Any], seconds: Sequence[float], keep: object, sound: Media | None = None) -> Media:
    """From g4_image frames and the time of each."""
    video = c.g4_video()
    images = (c.g4_image * len(frames))(*frames)
    times = (ctypes.c_double * len(frames))(*seconds)
    video.frames, video.seconds, video.n_frames = images, times, len(frames)
    if sound is not None:
        video.sound = ctypes.pointer(sound.struct)
    return Media("video", video, keep=(images, times, keep, sound))


def _from_frames(array: Any) -> Media:
    import numpy as np

    n, height, width = array.shape[:3]
    if not 1 <= n <= 1024 or height < 1 or width < 1:
        raise ValueError(f"video: expected 1 to 1024 frames with pixels, found the shape {array.shape}")
    data = np.array(array, order="C")
    frames = [_image_struct(data[i].ctypes.data, width, height) for i in range(n)]
    return video_of(frames, [float(i) for i in range(n)], data)


# ---- Boxes ------------------------------------------------------------------------------------------------------


class Box(NamedTuple):
    """A thing in a picture, in its pixels: x0 <= x < x1, y0 <= y < y1. A point has x0 == x1 and y0 == y1."""

    label: str
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def is_point(self) -> bool:
        return self.x0 == self.x1 and self.y0 == self.y1


def read_boxes(text: str, width: int, height: int) -> list[Box]:
    """The boxes and points that an answer names, in pixels of a picture of that size."""
    data, err = text.encode("utf-8", "replace"), c.g4_error()
    found, n = ctypes.POINTER(c.g4_box)(), ctypes.c_int()
    check(lib.g4_boxes_read(ctypes.byref(found), ctypes.byref(n), data, len(data), width, height, None,
                            ctypes.byref(err)), err)
    boxes = [Box((b.label or b"").decode("utf-8", "replace"), b.x0, b.y0, b.x1, b.y1) for b in found[: n.value]]
    lib.g4_boxes_free(found, n.value, None)
    return boxes


_COLORS = ((230, 25, 75), (0, 130, 200), (60, 180, 75), (245, 130, 48), (145, 30, 180), (0, 128, 128))


def draw_boxes(picture: Any, boxes: Sequence[Box], path: Any = None) -> bytes:
    """The picture (anything that `load_media` takes) with the boxes drawn on it, as a PNG file's bytes; written to
    `path` too, if that is given.

    >>> draw_boxes(b"P6 2 1 255 \\xff\\x00\\x00\\x00\\x00\\xff", [Box("all", 0, 0, 2, 1)])[1:4]
    b'PNG'
    """
    medium = load_media(picture)
    if medium.kind != "image":
        raise TypeError(f"picture: expected an image, found {medium.kind}")
    source = medium.struct
    stride = source.stride or 3 * source.width
    pixels = ctypes.create_string_buffer(ctypes.string_at(source.pixels, stride * source.height), stride * source.height)
    for i, box in enumerate(boxes):
        if not isinstance(box, Box):
            raise _convert.type_error(f"boxes[{i}]", "a Box", box)
        place = [_convert.integer(f"boxes[{i}].{name}", getattr(box, name), -_convert.INT_MAX)
                 for name in ("x0", "y0", "x1", "y1")]
        if box.is_point:  # a small frame around it
            place = [place[0] - 3, place[1] - 3, place[0] + 3, place[1] + 3]
        lib.g4_draw_box(ctypes.cast(pixels, ctypes.POINTER(ctypes.c_uint8)), source.width, source.height, stride,
                        (ctypes.c_int * 4)(*place), _convert.word("label", box.label) or None,
                        (ctypes.c_uint8 * 3)(*_COLORS[i % len(_COLORS)]))
    image = _image_struct(pixels, source.width, source.height)
    image.stride = stride
    pieces: list[bytes] = []

    def write(user: Any, data: Any, size: int) -> int:
        pieces.append(ctypes.string_at(data, size))
        return 0

    err = c.g4_error()
    interruptible(lambda: check(lib.g4_png_write(ctypes.byref(image), c.g4_write_fn(write), None, None,
                                                 ctypes.byref(err)), err), lambda: None)
    png = b"".join(pieces)
    if path is not None:
        with open(_convert.path("path", path), "wb") as f:
            f.write(png)
    return png

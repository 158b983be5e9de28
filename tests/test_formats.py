#!/usr/bin/env python3
"""Sound and video in every usual container and coding that the installed ffmpeg writes, loaded by the library.

    python3 tests/test_formats.py [--library build/libgemma4.so]

Each file is made from a tone and a test picture, under a name without an extension, and must give the tone back (its
loudest frequency) or 32 frames of the right size whose mean colour is that of the test picture. A format that cannot be
written here is skipped. The last line is "N passed, N failed, N skipped".
"""

import argparse
import ctypes
import os
import subprocess
import tempfile

import numpy as np

SECONDS, TONE, WIDTH, HEIGHT = 2, 440, 160, 96
SOUND = {  # name: arguments of ffmpeg
    "mp3": "-f mp3", "mp3 without tags": "-f mp3 -write_id3v2 0 -write_xing 0", "mp2": "-c:a mp2 -f mp2",
    "mp3, 8 kHz": "-ar 8000 -f mp3", "AAC (ADTS)": "-f adts", "AAC with ID3": "-f adts -write_id3v2 1",
    "LATM": "-c:a aac -f latm", "M4A": "-c:a aac -f ipod", "M4A, index first": "-c:a aac -f ipod -movflags faststart",
    "ALAC": "-c:a alac -f ipod", "Vorbis": "-c:a libvorbis -f ogg", "Opus": "-c:a libopus -f ogg",
    "FLAC in Ogg": "-c:a flac -f ogg", "Speex": "-c:a libspeex -ar 16000 -f ogg", "FLAC": "-f flac",
    "WavPack": "-f wv", "TTA": "-f tta", "AIFF": "-f aiff", "AIFC": "-c:a pcm_mulaw -f aiff", "CAF": "-c:a pcm_s16be -f caf",
    "AU": "-f au", "AU, mu-law": "-c:a pcm_mulaw -f au", "WMA": "-c:a wmav2 -f asf", "AC-3": "-f ac3", "E-AC-3": "-f eac3",
    "AMR": "-c:a libopencore_amrnb -ar 8000 -ac 1 -f amr", "AMR-WB": "-c:a libvo_amrwbenc -ar 16000 -ac 1 -f amr",
    "DTS": "-c:a dca -strict -2 -f dts", "TrueHD": "-c:a truehd -strict -2 -ar 48000 -f truehd",
    "MLP": "-c:a mlp -strict -2 -ar 48000 -f mlp", "VOC": "-c:a pcm_u8 -ar 8000 -f voc", "RealAudio": "-c:a real_144 -ar 8000 -ac 1 -f rm",
    "Matroska": "-c:a libopus -f matroska", "WebM": "-c:a libvorbis -f webm", "MPEG-TS": "-c:a aac -f mpegts",
    "3GP": "-c:a aac -f 3gp", "NUT": "-c:a pcm_s16le -f nut", "W64": "-f w64", "RF64": "-f wav -rf64 always",
    "WAV": "-f wav", "WAV, 64-bit float": "-c:a pcm_f64le -f wav", "WAV, ADPCM": "-c:a adpcm_ms -f wav",
    "WAV, IMA ADPCM": "-c:a adpcm_ima_wav -f wav", "WAV, A-law": "-c:a pcm_alaw -f wav", "WAV, mu-law": "-c:a pcm_mulaw -f wav",
    "WAV, 24 bit": "-c:a pcm_s24le -f wav", "WAV, mp3": "-c:a libmp3lame -f wav",
    "WAV of another rate": "-ar 44101 -f wav", "FLAC of 96 kHz": "-ar 96000 -f flac",
}
VIDEO = {
    "MP4": "-c:v libx264 -c:a aac -f mp4", "MP4, index first": "-c:v libx264 -c:a aac -movflags faststart -f mp4",
    "MP4 in fragments": "-c:v libx264 -c:a aac -movflags frag_keyframe+empty_moov -f mp4", "HEVC": "-c:v libx265 -f mp4",
    "MPEG-4": "-c:v mpeg4 -f mp4", "MOV": "-c:v libx264 -c:a aac -f mov", "MOV, ProRes": "-c:v prores -f mov",
    "MOV, MJPEG": "-c:v mjpeg -pix_fmt yuvj420p -f mov", "3GP": "-c:v mpeg4 -c:a aac -f 3gp", "Matroska": "-c:v libx264 -c:a flac -f matroska",
    "WebM, VP8": "-c:v libvpx -c:a libvorbis -f webm", "WebM, VP9": "-c:v libvpx-vp9 -c:a libopus -f webm",
    "AV1": "-c:v libsvtav1 -f webm", "AVI": "-c:v mpeg4 -c:a mp3 -f avi", "MPEG-TS": "-c:v libx264 -c:a aac -f mpegts",
    "M2TS": "-c:v libx264 -mpegts_m2ts_mode 1 -f mpegts", "MPEG-PS": "-c:v mpeg2video -c:a mp2 -f vob", "MPEG-1": "-c:v mpeg1video -f mpeg1video",
    "MPEG-2": "-c:v mpeg2video -f mpeg2video", "H.264": "-c:v libx264 -f h264", "HEVC stream": "-c:v libx265 -f hevc",
    "FLV": "-c:v flv -ar 44100 -c:a mp3 -f flv", "WMV": "-c:v wmv2 -c:a wmav2 -f asf", "Ogg": "-c:v libtheora -c:a libvorbis -f ogg",
    "GIF": "-f gif", "APNG": "-f apng", "NUT": "-c:v ffv1 -f nut", "IVF": "-c:v libvpx -f ivf", "MXF": "-c:v mpeg2video -f mxf",
    "DV": "-s 720x480 -r 30000/1001 -pix_fmt yuv411p -c:v dvvideo -ac 2 -f dv", "RealVideo": "-c:v rv20 -s 352x288 -f rm",
    "y4m": "-pix_fmt yuv420p -f yuv4mpegpipe", "y4m of 10 bits": "-pix_fmt yuv420p10 -strict -1 -f yuv4mpegpipe",
    "Motion JPEG": "-pix_fmt yuvj420p -f mjpeg", "AVIF": "-c:v libaom-av1 -cpu-used 8 -f avif",
}


class Image(ctypes.Structure):
    _fields_ = [("pixels", ctypes.POINTER(ctypes.c_uint8)), ("width", ctypes.c_int), ("height", ctypes.c_int),
                ("stride", ctypes.c_size_t), ("max_tokens", ctypes.c_int), ("reserved", ctypes.c_uint64 * 2)]


class Audio(ctypes.Structure):
    _fields_ = [("samples", ctypes.POINTER(ctypes.c_float)), ("n_samples", ctypes.c_size_t), ("reserved", ctypes.c_uint64 * 2)]


class Video(ctypes.Structure):
    _fields_ = [("frames", ctypes.POINTER(Image)), ("seconds", ctypes.POINTER(ctypes.c_double)), ("n_frames", ctypes.c_int),
                ("sound", ctypes.c_void_p), ("reserved", ctypes.c_uint64 * 2)]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 256)]


def heard(library, path):
    """What is wrong with the sound of a file, or None."""
    audio, error = Audio(), Error()
    if library.g4_audio_load(ctypes.byref(audio), os.fsencode(path), None, ctypes.byref(error)):
        return error.message.decode("utf-8", "replace")
    x = np.ctypeslib.as_array(audio.samples, (audio.n_samples,)).copy()
    library.g4_audio_free(ctypes.byref(audio), None)
    if abs(len(x) / 16000 - SECONDS) > 0.2:
        return "%.2f s" % (len(x) / 16000)
    loudest = np.argmax(abs(np.fft.rfft(x * np.hanning(len(x))))) * 16000 / len(x)
    return None if abs(loudest - TONE) < 3 else "a tone of %.0f Hz" % loudest


def seen(library, path, mean):
    """What is wrong with the frames of a file, or None."""
    video, error = Video(), Error()
    if library.g4_video_load(ctypes.byref(video), os.fsencode(path), None, ctypes.byref(error)):
        return error.message.decode("utf-8", "replace")
    n, image = video.n_frames, video.frames[0]
    size = (image.width, image.height)
    found = np.ctypeslib.as_array(image.pixels, (image.height, image.width, 3)).mean((0, 1))
    last = video.seconds[n - 1]
    library.g4_video_free(ctypes.byref(video), None)
    if size not in ((WIDTH, HEIGHT), (720, 480), (352, 288)) or n < 32 or abs(last - SECONDS) > 0.3:
        return "%d frames of %d x %d, the last one at %.2f s" % (n, size[0], size[1], last)
    return None if abs(found - mean).max() < 16 else "mean colour %s, expected %s" % (found.round(), mean.round())


def make(path, arguments, sources):
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y"] + sources + ["-t", str(SECONDS)] + arguments.split() + [path]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", default="build/libgemma4.so")
    library = ctypes.CDLL(os.path.abspath(parser.parse_args().library))
    tone = ["-f", "lavfi", "-i", "sine=%d:r=48000" % TONE]
    picture = ["-f", "lavfi", "-i", "testsrc=s=%dx%d:r=25" % (WIDTH, HEIGHT)]
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        raw = subprocess.run(["ffmpeg", "-v", "error"] + picture + ["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
                             stdout=subprocess.PIPE, check=True).stdout
        mean = np.frombuffer(raw, np.uint8).reshape(-1, 3).mean(0)
        for kind, formats in (("sound", SOUND), ("video", VIDEO)):
            for name, arguments in formats.items():
                if not make(path, arguments, tone if kind == "sound" else picture + tone):
                    skipped += 1
                    print("%s, %s: cannot be written here" % (kind, name))
                    continue
                wrong = heard(library, path) if kind == "sound" else seen(library, path, mean)
                failed += wrong is not None
                passed += wrong is None
                if wrong:
                    print("%s, %s: %s" % (kind, name, wrong), flush=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return failed > 0


if __name__ == "__main__":
    raise SystemExit(main())

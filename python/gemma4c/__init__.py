"""gemma4c: Gemma 4 on a CPU, the engine of gemma4.c in Python.

    >>> from gemma4c import Engine
    >>> with Engine() as engine, engine.session() as session:
    ...     print(session.respond("What is the opposite of hot?", temperature=0))
    The opposite of hot is cold.

An Engine is an opened model; a Session is one conversation; `engine.batch` answers many prompts together. Without a path
the engine opens a tiny model that comes with the package: it shows how things work and is no assistant.
"""

from ._mirror import VERSION as __version__
from .answer import Answer, TokenLogprob, Usage
from .engine import Engine, EngineInfo, isas
from .errors import (
    ArgumentError, Canceled, ContextError, FileError, FormatError, Gemma4Error, MismatchError, OutOfMemory,
    UnsupportedError, VersionError,
)
from .media import Box, Media, MediaOptions, draw_boxes, load_media
from .schema import schema_of, value_of
from .session import AsyncStream, Piece, Session, Stream
from .tools import Call, Tool, ToolResult, tool_of

__all__ = [
    "Answer", "ArgumentError", "AsyncStream", "Box", "Call", "Canceled", "ContextError", "Engine", "EngineInfo",
    "FileError", "FormatError", "Gemma4Error", "Media", "MediaOptions", "MismatchError", "OutOfMemory", "Piece", "Session",
    "Stream", "TokenLogprob", "Tool", "ToolResult", "UnsupportedError", "Usage", "VersionError", "__version__",
    "draw_boxes", "isas", "load_media", "schema_of", "tool_of", "value_of",
]

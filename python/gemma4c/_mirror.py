"""gemma4.h in the words of ctypes. Made by tools/make_python_mirror.py from the header: do not edit."""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_ubyte,
    c_uint8, c_uint32, c_uint64, c_void_p,
)
from typing import Any, ClassVar

VERSION = "0.2.0"

# g4_status
G4_OK = 0
G4_ERR_ARGUMENT = -1
G4_ERR_MEMORY = -2
G4_ERR_IO = -3
G4_ERR_FORMAT = -4
G4_ERR_VERSION = -5
G4_ERR_UNSUPPORTED = -6
G4_ERR_CONTEXT = -7
G4_ERR_MISMATCH = -8
G4_ERR_CANCELED = -9

# g4_log_level
G4_LOG_WARNING = 1
G4_LOG_INFO = 2
G4_LOG_DEBUG = 3

# g4_token_kind
G4_TOKEN_UNUSED = 0
G4_TOKEN_TEXT = 1
G4_TOKEN_BYTE = 2
G4_TOKEN_CONTROL = 3
G4_TOKEN_MEDIA = 4

# g4_media_kind
G4_MEDIA_UNKNOWN = 0
G4_MEDIA_IMAGE = 1
G4_MEDIA_AUDIO = 2
G4_MEDIA_VIDEO = 3

# g4_kv_choice
G4_KV_DEFAULT = 0
G4_KV_USE_F16 = 1
G4_KV_USE_F32 = 2
G4_KV_USE_Q8_0 = 3

# g4_stop
G4_STOP_END = 0
G4_STOP_MAX_TOKENS = 1
G4_STOP_STRING = 2
G4_STOP_CALLBACK = 3
G4_STOP_CONTEXT = 4
G4_STOP_REPEAT = 5
G4_STOP_CONSTRAINT = 6
G4_STOP_CANCELED = 7

# g4_role
G4_ROLE_SYSTEM = 0
G4_ROLE_DEVELOPER = 1
G4_ROLE_USER = 2
G4_ROLE_MODEL = 3
G4_ROLE_TOOL = 4
G4_ROLE_OTHER = 5

# g4_part_kind
G4_PART_TEXT = 0
G4_PART_IMAGE = 1
G4_PART_AUDIO = 2
G4_PART_VIDEO = 3
G4_PART_THOUGHT = 4
G4_PART_TOOL_CALL = 5
G4_PART_TOOL_RESULT = 6

# g4_tool_choice
G4_TOOLS_AUTO = 0
G4_TOOLS_NONE = 1
G4_TOOLS_REQUIRED = 2
G4_TOOLS_NAMED = 3

# g4_dialect
G4_DIALECT_OPENAI = 0
G4_DIALECT_ANTHROPIC = 1
G4_DIALECT_RESPONSES = 2
G4_DIALECT_COMPLETIONS = 3
G4_DIALECT_TOKENS = 4

# g4_format
G4_FORMAT_TEXT = 0
G4_FORMAT_JSON = 1
G4_FORMAT_SCHEMA = 2


class g4_error(Structure):
    code: int
    message: bytes
    _fields_: ClassVar[Any] = [
        ("code", c_int), ("message", c_char * 256),
    ]


g4_log_fn = CFUNCTYPE(None, c_void_p, c_int, c_char_p)

g4_progress_fn = CFUNCTYPE(c_int, c_void_p, c_uint64, c_uint64)

g4_read_fn = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

g4_write_fn = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

g4_allocator_alloc_fn = CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_size_t)
g4_allocator_free_fn = CFUNCTYPE(None, c_void_p, c_void_p, c_size_t)

class g4_allocator(Structure):
    alloc_fn: Any
    free_fn: Any
    user: Any
    _fields_: ClassVar[Any] = [
        ("alloc_fn", g4_allocator_alloc_fn), ("free_fn", g4_allocator_free_fn), ("user", c_void_p),
    ]


class g4_cancel(Structure):
    is_set: int
    _fields_: ClassVar[Any] = [
        ("is_set", c_int),
    ]


class g4_limits(Structure):
    cancel: Any
    seconds: float
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("cancel", POINTER(g4_cancel)), ("seconds", c_double), ("reserved", c_uint64 * 2),
    ]


class g4_tap(Structure):
    name: bytes | None
    layer: int
    pos: int
    n_rows: int
    n_cols: int
    stride: int
    values: Any
    ids: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("name", c_char_p), ("layer", c_int), ("pos", c_int), ("n_rows", c_int), ("n_cols", c_int),
        ("stride", c_size_t), ("values", POINTER(c_float)), ("ids", POINTER(c_int32)), ("reserved", c_uint64 * 4),
    ]


g4_tap_fn = CFUNCTYPE(None, c_void_p, POINTER(g4_tap))


class g4_inputs(Structure):
    name: bytes | None
    matrix: int
    n_rows: int
    n_cols: int
    stride: int
    values: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("name", c_char_p), ("matrix", c_int), ("n_rows", c_int), ("n_cols", c_int), ("stride", c_size_t),
        ("values", POINTER(c_float)), ("reserved", c_uint64 * 4),
    ]


g4_inputs_fn = CFUNCTYPE(None, c_void_p, POINTER(g4_inputs))


class g4_taps(Structure):
    fn: Any
    user: Any
    inputs: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("fn", g4_tap_fn), ("user", c_void_p), ("inputs", g4_inputs_fn), ("reserved", c_uint64 * 1),
    ]


class g4_engine_options(Structure):
    model_path: bytes | None
    model_data: Any
    model_size: int
    n_threads: int
    isa: bytes | None
    lock_memory: int
    huge_pages: int
    allocator: Any
    log: Any
    user: Any
    limits: g4_limits
    taps: Any
    no_mmap: int
    static_activations: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("model_path", c_char_p), ("model_data", c_void_p), ("model_size", c_size_t), ("n_threads", c_int),
        ("isa", c_char_p), ("lock_memory", c_int), ("huge_pages", c_int), ("allocator", POINTER(g4_allocator)),
        ("log", g4_log_fn), ("user", c_void_p), ("limits", g4_limits), ("taps", POINTER(g4_taps)), ("no_mmap", c_int),
        ("static_activations", c_int), ("reserved", c_uint64 * 2),
    ]


class g4_engine_info(Structure):
    name: bytes | None
    isa: bytes | None
    n_layers: int
    hidden: int
    n_vocab: int
    n_threads: int
    max_ctx: int
    is_chat: int
    has_image: int
    has_audio: int
    n_params: int
    file_bytes: int
    lookup_bytes: int
    decode_bytes: int
    decode_products: int
    prompt_products: int
    bos: int
    eos: int
    pad: int
    n_heads: int
    window: int
    ple_dim: int
    n_experts: int
    n_experts_used: int
    expert_dim: int
    has_own_head: int
    softcap: float
    vision_layers: int
    vision_hidden: int
    vision_tokens: int
    audio_layers: int
    audio_hidden: int
    source: bytes | None
    source_sha256: bytes | None
    vision_side: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("name", c_char_p), ("isa", c_char_p), ("n_layers", c_int), ("hidden", c_int), ("n_vocab", c_int),
        ("n_threads", c_int), ("max_ctx", c_int), ("is_chat", c_int), ("has_image", c_int), ("has_audio", c_int),
        ("n_params", c_uint64), ("file_bytes", c_uint64), ("lookup_bytes", c_uint64), ("decode_bytes", c_uint64),
        ("decode_products", c_uint64), ("prompt_products", c_uint64), ("bos", c_int32), ("eos", c_int32),
        ("pad", c_int32), ("n_heads", c_int), ("window", c_int), ("ple_dim", c_int), ("n_experts", c_int),
        ("n_experts_used", c_int), ("expert_dim", c_int), ("has_own_head", c_int), ("softcap", c_float),
        ("vision_layers", c_int), ("vision_hidden", c_int), ("vision_tokens", c_int), ("audio_layers", c_int),
        ("audio_hidden", c_int), ("source", c_char_p), ("source_sha256", c_char_p), ("vision_side", c_int),
        ("reserved", c_uint64 * 5),
    ]


class g4_tensor_info(Structure):
    name: bytes | None
    type: bytes | None
    layout: bytes | None
    n_dims: int
    dims: Any
    bytes: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("name", c_char_p), ("type", c_char_p), ("layout", c_char_p), ("n_dims", c_int), ("dims", c_uint64 * 3),
        ("bytes", c_uint64), ("reserved", c_uint64 * 4),
    ]


class g4_utf8(Structure):
    held: Any
    n_held: int
    _fields_: ClassVar[Any] = [
        ("held", c_ubyte * 4), ("n_held", c_int),
    ]


class g4_image(Structure):
    pixels: Any
    width: int
    height: int
    stride: int
    max_tokens: int
    fitted: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("pixels", POINTER(c_uint8)), ("width", c_int), ("height", c_int), ("stride", c_size_t), ("max_tokens", c_int),
        ("fitted", c_int64), ("reserved", c_uint64 * 1),
    ]


class g4_audio(Structure):
    samples: Any
    n_samples: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("samples", POINTER(c_float)), ("n_samples", c_size_t), ("reserved", c_uint64 * 2),
    ]


class g4_video(Structure):
    frames: Any
    seconds: Any
    n_frames: int
    sound: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("frames", POINTER(g4_image)), ("seconds", POINTER(c_double)), ("n_frames", c_int),
        ("sound", POINTER(g4_audio)), ("reserved", c_uint64 * 2),
    ]


class g4_media_options(Structure):
    allocator: Any
    ffmpeg: bytes | None
    max_pixels: int
    max_samples: int
    max_file_bytes: int
    max_frames: int
    n_frames: int
    fps: float
    want_sound: int
    limits: g4_limits
    max_scan_blocks: int
    max_pixels_per_byte: int
    max_program_bytes: int
    max_program_seconds: int
    frame_times: int
    frame_tokens: int
    frame_side: int
    max_video_megapixels: int
    reserved: int
    _fields_: ClassVar[Any] = [
        ("allocator", POINTER(g4_allocator)), ("ffmpeg", c_char_p), ("max_pixels", c_uint64),
        ("max_samples", c_uint64), ("max_file_bytes", c_uint64), ("max_frames", c_int), ("n_frames", c_int),
        ("fps", c_double), ("want_sound", c_int), ("limits", g4_limits), ("max_scan_blocks", c_uint64),
        ("max_pixels_per_byte", c_uint64), ("max_program_bytes", c_uint64), ("max_program_seconds", c_int),
        ("frame_times", c_int), ("frame_tokens", c_int), ("frame_side", c_int), ("max_video_megapixels", c_int),
        ("reserved", c_int),
    ]


class g4_media_info(Structure):
    kind: int
    format: bytes
    width: int
    height: int
    sample_rate: int
    channels: int
    seconds: float
    n_frames: int
    fps: float
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("kind", c_int), ("format", c_char * 32), ("width", c_int), ("height", c_int), ("sample_rate", c_int),
        ("channels", c_int), ("seconds", c_double), ("n_frames", c_int64), ("fps", c_double),
        ("reserved", c_uint64 * 4),
    ]


class g4_patches(Structure):
    n: int
    grid_w: int
    grid_h: int
    n_tokens: int
    pixels: Any
    pos: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("n", c_int), ("grid_w", c_int), ("grid_h", c_int), ("n_tokens", c_int), ("pixels", POINTER(c_float)),
        ("pos", POINTER(c_int32)), ("reserved", c_uint64 * 2),
    ]


class g4_medium(Structure):
    pos: int
    soft: Any
    _fields_: ClassVar[Any] = [
        ("pos", c_int), ("soft", c_void_p),
    ]


class g4_prompt(Structure):
    tokens: Any
    n: int
    media: Any
    n_media: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("tokens", POINTER(c_int32)), ("n", c_int), ("media", POINTER(g4_medium)), ("n_media", c_int),
        ("reserved", c_uint64 * 2),
    ]


class g4_session_options(Structure):
    n_ctx: int
    kv: int
    chunk: int
    snapshot_bytes: int
    progress: Any
    user: Any
    limits: g4_limits
    taps: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("n_ctx", c_int), ("kv", c_int), ("chunk", c_int), ("snapshot_bytes", c_uint64), ("progress", g4_progress_fn),
        ("user", c_void_p), ("limits", g4_limits), ("taps", POINTER(g4_taps)), ("reserved", c_uint64 * 3),
    ]


class g4_memory_plan(Structure):
    weights: int
    lookup: int
    kv: int
    work: int
    available: int
    shared: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("weights", c_uint64), ("lookup", c_uint64), ("kv", c_uint64), ("work", c_uint64), ("available", c_uint64),
        ("shared", c_uint64), ("reserved", c_uint64 * 3),
    ]


g4_logits_row_fn = CFUNCTYPE(c_int, c_void_p, c_int, POINTER(c_float))


class g4_logit_bias(Structure):
    token: int
    bias: float
    _fields_: ClassVar[Any] = [
        ("token", c_int32), ("bias", c_float),
    ]


class g4_sampling(Structure):
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    bias: Any
    n_bias: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("temperature", c_float), ("top_k", c_int), ("top_p", c_float), ("min_p", c_float),
        ("repeat_penalty", c_float), ("presence_penalty", c_float), ("frequency_penalty", c_float), ("seed", c_uint64),
        ("bias", POINTER(g4_logit_bias)), ("n_bias", c_int), ("reserved", c_uint64 * 4),
    ]


class g4_candidate(Structure):
    token: int
    logprob: float
    _fields_: ClassVar[Any] = [
        ("token", c_int32), ("logprob", c_float),
    ]


class g4_output(Structure):
    token: int
    text: bytes | None
    text_len: int
    is_special: int
    logprob: float
    top: Any
    n_top: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("token", c_int32), ("text", c_char_p), ("text_len", c_size_t), ("is_special", c_int), ("logprob", c_float),
        ("top", POINTER(g4_candidate)), ("n_top", c_int), ("reserved", c_uint64 * 4),
    ]


g4_output_fn = CFUNCTYPE(c_int, c_void_p, POINTER(g4_output))

g4_constraint_mask = CFUNCTYPE(c_int, c_void_p, POINTER(c_uint32), c_int)
g4_constraint_accept = CFUNCTYPE(None, c_void_p, c_int32)

class g4_constraint(Structure):
    mask: Any
    accept: Any
    user: Any
    own: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("mask", g4_constraint_mask), ("accept", g4_constraint_accept), ("user", c_void_p), ("own", c_void_p),
        ("reserved", c_uint64 * 1),
    ]


class g4_generate_options(Structure):
    sampling: Any
    max_tokens: int
    stop: Any
    n_stop: int
    no_guard: int
    ignore_stop_ids: int
    want_logprobs: int
    n_top: int
    constraint: Any
    output: Any
    user: Any
    no_lookup: int
    limits: g4_limits
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("sampling", POINTER(g4_sampling)), ("max_tokens", c_int), ("stop", POINTER(c_char_p)), ("n_stop", c_int),
        ("no_guard", c_int), ("ignore_stop_ids", c_int), ("want_logprobs", c_int), ("n_top", c_int),
        ("constraint", POINTER(g4_constraint)), ("output", g4_output_fn), ("user", c_void_p), ("no_lookup", c_int),
        ("limits", g4_limits), ("reserved", c_uint64 * 8),
    ]


class g4_result(Structure):
    stop: int
    stop_token: int
    n_tokens: int
    n_reused: int
    seconds: float
    stop_string: bytes | None
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("stop", c_int), ("stop_token", c_int32), ("n_tokens", c_int), ("n_reused", c_int), ("seconds", c_double),
        ("stop_string", c_char_p), ("reserved", c_uint64 * 3),
    ]


class g4_choose_options(Structure):
    sampling: Any
    constraint: Any
    reply_start: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("sampling", POINTER(g4_sampling)), ("constraint", POINTER(g4_constraint)), ("reply_start", c_int),
        ("reserved", c_uint64 * 4),
    ]


class g4_batch_options(Structure):
    n_rows: int
    prompt_rows: int
    limits: g4_limits
    encode_seconds: float
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("n_rows", c_int), ("prompt_rows", c_int), ("limits", g4_limits), ("encode_seconds", c_double),
        ("reserved", c_uint64 * 3),
    ]


g4_batch_request_done = CFUNCTYPE(None, c_void_p, c_void_p, c_int, POINTER(g4_result), POINTER(g4_error))

class g4_batch_request(Structure):
    prompt: Any
    generate: Any
    done: Any
    user: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("prompt", POINTER(g4_prompt)), ("generate", POINTER(g4_generate_options)), ("done", g4_batch_request_done),
        ("user", c_void_p), ("reserved", c_uint64 * 4),
    ]


class g4_part(Structure):
    kind: int
    text: bytes | None
    text_len: int
    name: bytes | None
    id: bytes | None
    image: Any
    audio: Any
    video: Any
    raw: bytes | None
    raw_len: int
    incomplete: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("kind", c_int), ("text", c_char_p), ("text_len", c_size_t), ("name", c_char_p), ("id", c_char_p),
        ("image", POINTER(g4_image)), ("audio", POINTER(g4_audio)), ("video", POINTER(g4_video)), ("raw", c_char_p),
        ("raw_len", c_size_t), ("incomplete", c_int), ("reserved", c_uint64 * 3),
    ]


class g4_message(Structure):
    role: int
    parts: Any
    n_parts: int
    role_name: bytes | None
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("role", c_int), ("parts", POINTER(g4_part)), ("n_parts", c_int), ("role_name", c_char_p),
        ("reserved", c_uint64 * 2),
    ]


class g4_chat_options(Structure):
    tools: bytes | None
    tools_len: int
    thinking: int
    preserve_thinking: int
    no_generation_prompt: int
    template_name: bytes | None
    openai: int
    limits: g4_limits
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("tools", c_char_p), ("tools_len", c_size_t), ("thinking", c_int), ("preserve_thinking", c_int),
        ("no_generation_prompt", c_int), ("template_name", c_char_p), ("openai", c_int), ("limits", g4_limits),
        ("reserved", c_uint64 * 4),
    ]


class g4_chat_medium(Structure):
    kind: int
    message: int
    source: bytes | None
    data: Any
    size: int
    is_set: int
    image: Any
    audio: Any
    video: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("kind", c_int), ("message", c_int), ("source", c_char_p), ("data", POINTER(c_uint8)), ("size", c_size_t),
        ("is_set", c_int), ("image", POINTER(g4_image)), ("audio", POINTER(g4_audio)), ("video", POINTER(g4_video)),
        ("reserved", c_uint64 * 1),
    ]


g4_media_path_fn = CFUNCTYPE(c_int, c_void_p, POINTER(g4_chat_medium), c_char_p, c_size_t, POINTER(g4_error))


class g4_chat_load_options(Structure):
    root: bytes | None
    path: Any
    user: Any
    media: Any
    image_tokens: int
    frame_tokens: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("root", c_char_p), ("path", g4_media_path_fn), ("user", c_void_p), ("media", POINTER(g4_media_options)),
        ("image_tokens", c_int), ("frame_tokens", c_int), ("reserved", c_uint64 * 6),
    ]


class g4_sync_counts(Structure):
    prompt: int
    reused: int
    evaluated: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("prompt", c_int), ("reused", c_int), ("evaluated", c_int), ("reserved", c_uint64 * 4),
    ]


g4_part_fn = CFUNCTYPE(c_int, c_void_p, c_int, POINTER(g4_part))

g4_schema_options_warn = CFUNCTYPE(None, c_void_p, c_char_p)

class g4_schema_options(Structure):
    strict: int
    closed: int
    warn: Any
    user: Any
    limits: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("strict", c_int), ("closed", c_int), ("warn", g4_schema_options_warn), ("user", c_void_p),
        ("limits", POINTER(g4_limits)), ("reserved", c_uint64 * 3),
    ]


class g4_guide_options(Structure):
    grammar: Any
    tool_choice: int
    tool_name: bytes | None
    loose_tools: int
    tools: Any
    think_budget: int
    schema: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("grammar", c_void_p), ("tool_choice", c_int), ("tool_name", c_char_p), ("loose_tools", c_int),
        ("tools", c_void_p), ("think_budget", c_int), ("schema", POINTER(g4_schema_options)),
        ("reserved", c_uint64 * 7),
    ]


class g4_respond_options(Structure):
    generate: Any
    guide: g4_guide_options
    part: Any
    user: Any
    call_deltas: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("generate", POINTER(g4_generate_options)), ("guide", g4_guide_options), ("part", g4_part_fn),
        ("user", c_void_p), ("call_deltas", c_int), ("reserved", c_uint64 * 7),
    ]


g4_batch_respond_request_done = CFUNCTYPE(None, c_void_p, c_void_p, c_int, c_void_p, POINTER(g4_result), POINTER(g4_error))

class g4_batch_respond_request(Structure):
    respond: Any
    done: Any
    user: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("respond", POINTER(g4_respond_options)), ("done", g4_batch_respond_request_done), ("user", c_void_p),
        ("reserved", c_uint64 * 4),
    ]


class g4_fault(Structure):
    param: bytes
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("param", c_char * 128), ("reserved", c_uint64 * 2),
    ]


class g4_request_prompt(Structure):
    text: bytes | None
    len: int
    tokens: Any
    n_tokens: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("text", c_char_p), ("len", c_size_t), ("tokens", POINTER(c_int32)), ("n_tokens", c_int),
        ("reserved", c_uint64 * 2),
    ]


class g4_request_info(Structure):
    model: bytes | None
    stream: int
    include_usage: int
    max_tokens: int
    temperature: float
    top_p: float
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    top_k: int
    has_seed: int
    seed: int
    stop: Any
    n_stop: int
    bias: Any
    n_bias: int
    want_logprobs: int
    n_top: int
    tools: bytes | None
    tools_len: int
    callable: bytes | None
    callable_len: int
    tool_choice: int
    tool_name: bytes | None
    one_call: int
    format: int
    schema: bytes | None
    schema_len: int
    schema_name: bytes | None
    is_strict: int
    thinking: int
    think_budget: int
    continue_final: int
    prompt: bytes | None
    prompt_len: int
    is_completion: int
    custom_id: bytes | None
    dialect: int
    repeats: bytes | None
    prompts: Any
    n_prompts: int
    echo: int
    add_special: int
    parse_special: int
    with_pieces: int
    with_strings: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("model", c_char_p), ("stream", c_int), ("include_usage", c_int), ("max_tokens", c_int),
        ("temperature", c_double), ("top_p", c_double), ("min_p", c_double), ("repeat_penalty", c_double),
        ("presence_penalty", c_double), ("frequency_penalty", c_double), ("top_k", c_int), ("has_seed", c_int),
        ("seed", c_uint64), ("stop", POINTER(c_char_p)), ("n_stop", c_int), ("bias", POINTER(g4_logit_bias)),
        ("n_bias", c_int), ("want_logprobs", c_int), ("n_top", c_int), ("tools", c_char_p), ("tools_len", c_size_t),
        ("callable", c_char_p), ("callable_len", c_size_t), ("tool_choice", c_int), ("tool_name", c_char_p),
        ("one_call", c_int), ("format", c_int), ("schema", c_char_p), ("schema_len", c_size_t),
        ("schema_name", c_char_p), ("is_strict", c_int), ("thinking", c_int), ("think_budget", c_int),
        ("continue_final", c_int), ("prompt", c_char_p), ("prompt_len", c_size_t), ("is_completion", c_int),
        ("custom_id", c_char_p), ("dialect", c_int), ("repeats", c_char_p), ("prompts", POINTER(g4_request_prompt)),
        ("n_prompts", c_int), ("echo", c_int), ("add_special", c_int), ("parse_special", c_int),
        ("with_pieces", c_int), ("with_strings", c_int), ("reserved", c_uint64 * 6),
    ]


class g4_batch_line(Structure):
    custom_id: bytes | None
    id: bytes | None
    is_answer: int
    has_succeeded: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("custom_id", c_char_p), ("id", c_char_p), ("is_answer", c_int), ("has_succeeded", c_int),
        ("reserved", c_uint64 * 1),
    ]


class g4_token_logprob(Structure):
    token: int
    logprob: float
    top: Any
    n_top: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("token", c_int32), ("logprob", c_float), ("top", POINTER(g4_candidate)), ("n_top", c_int),
        ("reserved", c_uint64 * 2),
    ]


class g4_answer(Structure):
    id: int
    created: int
    model: bytes | None
    fingerprint: bytes | None
    parts: Any
    n_parts: int
    result: g4_result
    prompt_tokens: int
    cached_tokens: int
    thought_tokens: int
    prompt_seconds: float
    engine: Any
    want_logprobs: int
    logprobs: Any
    n_logprobs: int
    is_completion: int
    dialect: int
    request: Any
    choice: int
    has_more: int
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("id", c_uint64), ("created", c_int64), ("model", c_char_p), ("fingerprint", c_char_p),
        ("parts", POINTER(g4_part)), ("n_parts", c_int), ("result", g4_result), ("prompt_tokens", c_int),
        ("cached_tokens", c_int), ("thought_tokens", c_int), ("prompt_seconds", c_double), ("engine", c_void_p),
        ("want_logprobs", c_int), ("logprobs", POINTER(g4_token_logprob)), ("n_logprobs", c_int),
        ("is_completion", c_int), ("dialect", c_int), ("request", POINTER(g4_request_info)), ("choice", c_int),
        ("has_more", c_int), ("reserved", c_uint64 * 5),
    ]


class g4_stream_options(Structure):
    answer: Any
    include_usage: int
    write: Any
    user: Any
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("answer", POINTER(g4_answer)), ("include_usage", c_int), ("write", g4_write_fn), ("user", c_void_p),
        ("reserved", c_uint64 * 4),
    ]


class g4_refusal(Structure):
    status: int
    http: int
    message: bytes | None
    param: bytes | None
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("status", c_int), ("http", c_int), ("message", c_char_p), ("param", c_char_p), ("reserved", c_uint64 * 3),
    ]


class g4_box(Structure):
    is_point: int
    x0: int
    y0: int
    x1: int
    y1: int
    label: bytes | None
    reserved: Any
    _fields_: ClassVar[Any] = [
        ("is_point", c_int), ("x0", c_int), ("y0", c_int), ("x1", c_int), ("y1", c_int), ("label", c_char_p),
        ("reserved", c_uint64 * 2),
    ]


# Of each function what it gives and what it takes.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "g4_version": (c_char_p, []),
    "g4_status_name": (c_char_p, [c_int]),
    "g4_cancel_set": (None, [POINTER(g4_cancel)]),
    "g4_cancel_clear": (None, [POINTER(g4_cancel)]),
    "g4_engine_open": (c_int, [POINTER(c_void_p), POINTER(g4_engine_options), POINTER(g4_error)]),
    "g4_engine_close": (None, [c_void_p]),
    "g4_engine_get_info": (None, [c_void_p, POINTER(g4_engine_info)]),
    "g4_engine_residence": (None, [c_void_p, POINTER(c_uint64), POINTER(c_uint64)]),
    "g4_engine_prefault": (c_int, [c_void_p, g4_progress_fn, c_void_p, POINTER(g4_error)]),
    "g4_isa_name": (c_char_p, [c_int]),
    "g4_engine_get_tensor": (c_int, [c_void_p, c_int, POINTER(g4_tensor_info)]),
    "g4_tokenize": (c_int, [
        c_void_p, c_char_p, c_size_t, c_int, POINTER(c_int32), c_size_t, POINTER(c_size_t), POINTER(g4_error),
    ]),
    "g4_token_bytes": (c_size_t, [c_void_p, c_int32, c_int, c_char_p]),
    "g4_token_get_kind": (c_int, [c_void_p, c_int32]),
    "g4_token_is_stop": (c_int, [c_void_p, c_int32]),
    "g4_utf8_push": (c_size_t, [POINTER(g4_utf8), c_char_p, c_size_t, c_char_p]),
    "g4_image_load": (c_int, [POINTER(g4_image), c_char_p, POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_image_decode": (c_int, [POINTER(g4_image), c_void_p, c_size_t, POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_image_free": (None, [POINTER(g4_image), POINTER(g4_media_options)]),
    "g4_audio_load": (c_int, [POINTER(g4_audio), c_char_p, POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_audio_decode": (c_int, [POINTER(g4_audio), c_void_p, c_size_t, POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_audio_free": (None, [POINTER(g4_audio), POINTER(g4_media_options)]),
    "g4_video_load": (c_int, [POINTER(g4_video), c_char_p, POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_video_decode": (c_int, [POINTER(g4_video), c_void_p, c_size_t, POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_video_free": (None, [POINTER(g4_video), POINTER(g4_media_options)]),
    "g4_media_probe": (c_int, [POINTER(g4_media_info), c_char_p, POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_media_probe_data": (c_int, [
        POINTER(g4_media_info), c_void_p, c_size_t, POINTER(g4_media_options), POINTER(g4_error),
    ]),
    "g4_media_max_bytes": (c_uint64, [POINTER(g4_media_options), c_int]),
    "g4_image_tokens": (c_int, [c_int, c_int, c_int, POINTER(c_int), POINTER(c_int)]),
    "g4_patches_make": (c_int, [POINTER(g4_patches), POINTER(g4_image), POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_patches_close": (None, [POINTER(g4_patches), POINTER(g4_media_options)]),
    "g4_png_write": (c_int, [POINTER(g4_image), g4_write_fn, c_void_p, POINTER(g4_media_options), POINTER(g4_error)]),
    "g4_draw_box": (None, [POINTER(c_uint8), c_int, c_int, c_size_t, POINTER(c_int), c_char_p, POINTER(c_uint8)]),
    "g4_image_encode": (c_int, [POINTER(c_void_p), c_void_p, POINTER(g4_image), POINTER(g4_error)]),
    "g4_frame_encode": (c_int, [POINTER(c_void_p), c_void_p, POINTER(g4_image), POINTER(g4_error)]),
    "g4_audio_encode": (c_int, [POINTER(c_void_p), c_void_p, POINTER(g4_audio), POINTER(g4_error)]),
    "g4_soft_close": (None, [c_void_p, c_void_p]),
    "g4_soft_n": (c_int, [c_void_p]),
    "g4_soft_token": (c_int32, [c_void_p]),
    "g4_soft_rows": (POINTER(c_float), [c_void_p]),
    "g4_audio_block": (c_size_t, [POINTER(g4_audio), c_size_t]),
    "g4_audio_mel": (c_int, [POINTER(g4_audio), POINTER(c_float)]),
    "g4_session_plan": (None, [c_void_p, POINTER(g4_session_options), POINTER(g4_memory_plan)]),
    "g4_session_plan_forks": (None, [c_void_p, POINTER(g4_session_options), c_int, c_int, POINTER(g4_memory_plan)]),
    "g4_session_bytes": (c_uint64, [c_void_p, POINTER(g4_session_options)]),
    "g4_session_open": (c_int, [POINTER(c_void_p), c_void_p, POINTER(g4_session_options), POINTER(g4_error)]),
    "g4_session_close": (None, [c_void_p]),
    "g4_session_cancel": (None, [c_void_p]),
    "g4_session_n": (c_int, [c_void_p]),
    "g4_session_n_ctx": (c_int, [c_void_p]),
    "g4_session_tokens": (POINTER(c_int32), [c_void_p]),
    "g4_session_n_evaluated": (c_uint64, [c_void_p]),
    "g4_session_eval": (c_int, [c_void_p, POINTER(c_int32), c_int, POINTER(g4_error)]),
    "g4_session_eval_prompt": (c_int, [c_void_p, POINTER(g4_prompt), POINTER(g4_error)]),
    "g4_session_eval_text": (c_int, [c_void_p, c_char_p, c_size_t, POINTER(g4_error)]),
    "g4_session_eval_all": (c_int, [c_void_p, POINTER(g4_prompt), g4_logits_row_fn, c_void_p, POINTER(g4_error)]),
    "g4_session_logits": (POINTER(c_float), [c_void_p]),
    "g4_session_sync": (c_int, [c_void_p, POINTER(g4_prompt), POINTER(c_int), POINTER(g4_error)]),
    "g4_session_rewind": (c_int, [c_void_p, c_int, POINTER(g4_error)]),
    "g4_session_mark": (c_int, [c_void_p, POINTER(g4_error)]),
    "g4_session_fork": (c_int, [POINTER(c_void_p), c_void_p, POINTER(g4_error)]),
    "g4_session_save": (c_int, [c_void_p, g4_write_fn, c_void_p, POINTER(g4_error)]),
    "g4_session_saved_bytes": (c_uint64, [c_void_p]),
    "g4_session_load": (c_int, [
        POINTER(c_void_p), c_void_p, POINTER(g4_session_options), g4_read_fn, c_void_p, POINTER(g4_error),
    ]),
    "g4_sampling_recommended": (None, [c_void_p, POINTER(g4_sampling)]),
    "g4_stop_name": (c_char_p, [c_int]),
    "g4_session_generate": (c_int, [c_void_p, POINTER(g4_generate_options), POINTER(g4_result), POINTER(g4_error)]),
    "g4_session_choose": (c_int, [c_void_p, POINTER(g4_choose_options), POINTER(c_int32), POINTER(g4_error)]),
    "g4_logits_argmax": (c_int32, [c_void_p, POINTER(c_float)]),
    "g4_logits_logprob": (c_float, [c_void_p, POINTER(c_float), c_int32]),
    "g4_logits_top": (c_int, [c_void_p, POINTER(c_float), c_int, POINTER(g4_candidate)]),
    "g4_batch_open": (c_int, [POINTER(c_void_p), c_void_p, POINTER(g4_batch_options), POINTER(g4_error)]),
    "g4_batch_close": (None, [c_void_p]),
    "g4_batch_add": (c_int, [c_void_p, c_void_p, POINTER(g4_batch_request), POINTER(g4_error)]),
    "g4_batch_remove": (None, [c_void_p, c_void_p]),
    "g4_batch_n": (c_int, [c_void_p]),
    "g4_batch_mark": (c_int, [c_void_p, c_void_p, c_int, POINTER(g4_error)]),
    "g4_batch_fork": (c_int, [c_void_p, POINTER(c_void_p), c_void_p, c_int, POINTER(g4_error)]),
    "g4_batch_step": (c_int, [c_void_p, POINTER(g4_error)]),
    "g4_batch_run": (c_int, [c_void_p, POINTER(g4_error)]),
    "g4_chat_open": (c_int, [
        POINTER(c_void_p), c_void_p, POINTER(g4_message), c_int, POINTER(g4_chat_options), POINTER(g4_error),
    ]),
    "g4_chat_parse": (c_int, [
        POINTER(c_void_p), c_void_p, c_char_p, c_size_t, POINTER(g4_chat_options), POINTER(g4_error),
    ]),
    "g4_chat_close": (None, [c_void_p]),
    "g4_chat_text": (c_char_p, [c_void_p, POINTER(c_size_t)]),
    "g4_chat_thinking": (c_int, [c_void_p]),
    "g4_chat_n_media": (c_int, [c_void_p]),
    "g4_chat_media": (c_int, [c_void_p, c_int, POINTER(g4_chat_medium), POINTER(g4_error)]),
    "g4_chat_set_image": (c_int, [c_void_p, c_int, POINTER(g4_image), POINTER(g4_error)]),
    "g4_chat_set_audio": (c_int, [c_void_p, c_int, POINTER(g4_audio), POINTER(g4_error)]),
    "g4_chat_set_video": (c_int, [c_void_p, c_int, POINTER(g4_video), POINTER(g4_error)]),
    "g4_media_below": (c_int, [c_char_p, c_char_p, c_char_p, c_size_t, POINTER(g4_error)]),
    "g4_chat_load_media": (c_int, [c_void_p, POINTER(g4_chat_load_options), POINTER(g4_error)]),
    "g4_chat_prompt": (c_int, [c_void_p, POINTER(g4_prompt), POINTER(g4_error)]),
    "g4_chat_beginning": (c_int, [c_void_p, POINTER(g4_prompt), POINTER(g4_error)]),
    "g4_session_sync_chat": (c_int, [c_void_p, c_void_p, POINTER(g4_sync_counts), POINTER(g4_error)]),
    "g4_response_open": (c_int, [POINTER(c_void_p), c_void_p, c_int, g4_part_fn, c_void_p, POINTER(g4_error)]),
    "g4_response_push": (c_int, [c_void_p, c_int32]),
    "g4_response_stream_calls": (None, [c_void_p]),
    "g4_response_stop_at": (c_int, [c_void_p, POINTER(c_char_p), c_int, POINTER(g4_error)]),
    "g4_response_stop_string": (c_char_p, [c_void_p]),
    "g4_response_finish": (c_int, [c_void_p, POINTER(g4_error)]),
    "g4_response_parts": (POINTER(g4_part), [c_void_p, POINTER(c_int)]),
    "g4_response_thought_tokens": (c_int, [c_void_p]),
    "g4_response_close": (None, [c_void_p]),
    "g4_grammar_from_schema": (c_int, [
        POINTER(c_void_p), c_void_p, c_char_p, c_size_t, POINTER(g4_schema_options), POINTER(g4_error),
    ]),
    "g4_grammar_from_rules": (c_int, [
        POINTER(c_void_p), c_void_p, c_char_p, c_size_t, POINTER(g4_limits), POINTER(g4_error),
    ]),
    "g4_grammar_from_tools": (c_int, [
        POINTER(c_void_p), c_void_p, c_char_p, c_size_t, c_char_p, POINTER(g4_schema_options), POINTER(g4_error),
    ]),
    "g4_grammar_close": (None, [c_void_p]),
    "g4_guide_open": (c_int, [POINTER(c_void_p), c_void_p, POINTER(g4_guide_options), POINTER(g4_error)]),
    "g4_guide_open_text": (c_int, [POINTER(c_void_p), c_void_p, c_void_p, POINTER(g4_error)]),
    "g4_guide_constraint": (POINTER(g4_constraint), [c_void_p]),
    "g4_guide_close": (None, [c_void_p]),
    "g4_chat_in_thought": (c_int, [c_void_p]),
    "g4_session_respond": (c_int, [
        c_void_p, c_void_p, POINTER(g4_respond_options), POINTER(c_void_p), POINTER(g4_result), POINTER(g4_error),
    ]),
    "g4_batch_respond": (c_int, [c_void_p, c_void_p, c_void_p, POINTER(g4_batch_respond_request), POINTER(g4_error)]),
    "g4_request_read": (c_int, [
        POINTER(c_void_p), c_char_p, c_size_t, POINTER(g4_allocator), POINTER(g4_fault), POINTER(g4_error),
    ]),
    "g4_request_read_as": (c_int, [
        POINTER(c_void_p), c_int, c_char_p, c_size_t, POINTER(g4_allocator), POINTER(g4_fault), POINTER(g4_error),
    ]),
    "g4_request_read_until": (c_int, [
        POINTER(c_void_p), c_int, c_char_p, c_size_t, POINTER(g4_limits), POINTER(g4_allocator), POINTER(g4_fault),
        POINTER(g4_error),
    ]),
    "g4_request_close": (None, [c_void_p]),
    "g4_request_get": (POINTER(g4_request_info), [c_void_p]),
    "g4_request_sampling": (None, [c_void_p, POINTER(g4_sampling)]),
    "g4_request_chat": (c_int, [
        POINTER(c_void_p), c_void_p, c_void_p, POINTER(g4_chat_options), POINTER(g4_fault), POINTER(g4_error),
    ]),
    "g4_batch_line_read": (c_int, [
        POINTER(g4_batch_line), c_char_p, c_size_t, POINTER(g4_limits), POINTER(g4_allocator), POINTER(g4_error),
    ]),
    "g4_batch_line_close": (None, [POINTER(g4_batch_line), POINTER(g4_allocator)]),
    "g4_answer_write": (c_int, [POINTER(g4_answer), g4_write_fn, c_void_p, POINTER(g4_allocator), POINTER(g4_error)]),
    "g4_stream_open": (c_int, [
        POINTER(c_void_p), POINTER(g4_stream_options), POINTER(g4_allocator), POINTER(g4_error),
    ]),
    "g4_stream_part": (c_int, [c_void_p, c_int, POINTER(g4_part)]),
    "g4_stream_token": (c_int, [c_void_p, POINTER(g4_output)]),
    "g4_stream_end": (c_int, [c_void_p, POINTER(g4_answer), POINTER(g4_error)]),
    "g4_stream_refuse": (c_int, [c_void_p, POINTER(g4_refusal), POINTER(g4_error)]),
    "g4_stream_close": (None, [c_void_p]),
    "g4_refusal_write": (c_int, [
        c_int, POINTER(g4_refusal), g4_write_fn, c_void_p, POINTER(g4_allocator), POINTER(g4_error),
    ]),
    "g4_boxes_read": (c_int, [
        POINTER(POINTER(g4_box)), POINTER(c_int), c_char_p, c_size_t, c_int, c_int, POINTER(g4_allocator),
        POINTER(g4_error),
    ]),
    "g4_boxes_free": (None, [POINTER(g4_box), c_int, POINTER(g4_allocator)]),
}

//! gemma4.h in Rust. Made by tools/make_rust_mirror.py from the header: do not edit.
#![allow(non_camel_case_types, missing_docs)]

use std::os::raw::{c_char, c_int, c_uchar, c_void};

pub type g4_token = i32;

pub type g4_status = c_int;
pub const G4_OK: g4_status = 0;
pub const G4_ERR_ARGUMENT: g4_status = -1;
pub const G4_ERR_MEMORY: g4_status = -2;
pub const G4_ERR_IO: g4_status = -3;
pub const G4_ERR_FORMAT: g4_status = -4;
pub const G4_ERR_VERSION: g4_status = -5;
pub const G4_ERR_UNSUPPORTED: g4_status = -6;
pub const G4_ERR_CONTEXT: g4_status = -7;
pub const G4_ERR_MISMATCH: g4_status = -8;
pub const G4_ERR_CANCELED: g4_status = -9;

pub type g4_log_level = c_int;
pub const G4_LOG_WARNING: g4_log_level = 1;
pub const G4_LOG_INFO: g4_log_level = 2;
pub const G4_LOG_DEBUG: g4_log_level = 3;

pub type g4_token_kind = c_int;
pub const G4_TOKEN_UNUSED: g4_token_kind = 0;
pub const G4_TOKEN_TEXT: g4_token_kind = 1;
pub const G4_TOKEN_BYTE: g4_token_kind = 2;
pub const G4_TOKEN_CONTROL: g4_token_kind = 3;
pub const G4_TOKEN_MEDIA: g4_token_kind = 4;

pub type g4_media_kind = c_int;
pub const G4_MEDIA_UNKNOWN: g4_media_kind = 0;
pub const G4_MEDIA_IMAGE: g4_media_kind = 1;
pub const G4_MEDIA_AUDIO: g4_media_kind = 2;
pub const G4_MEDIA_VIDEO: g4_media_kind = 3;

pub type g4_kv_choice = c_int;
pub const G4_KV_DEFAULT: g4_kv_choice = 0;
pub const G4_KV_USE_F16: g4_kv_choice = 1;
pub const G4_KV_USE_F32: g4_kv_choice = 2;
pub const G4_KV_USE_Q8_0: g4_kv_choice = 3;

pub type g4_stop = c_int;
pub const G4_STOP_END: g4_stop = 0;
pub const G4_STOP_MAX_TOKENS: g4_stop = 1;
pub const G4_STOP_STRING: g4_stop = 2;
pub const G4_STOP_CALLBACK: g4_stop = 3;
pub const G4_STOP_CONTEXT: g4_stop = 4;
pub const G4_STOP_REPEAT: g4_stop = 5;
pub const G4_STOP_CONSTRAINT: g4_stop = 6;
pub const G4_STOP_CANCELED: g4_stop = 7;

pub type g4_role = c_int;
pub const G4_ROLE_SYSTEM: g4_role = 0;
pub const G4_ROLE_DEVELOPER: g4_role = 1;
pub const G4_ROLE_USER: g4_role = 2;
pub const G4_ROLE_MODEL: g4_role = 3;
pub const G4_ROLE_TOOL: g4_role = 4;
pub const G4_ROLE_OTHER: g4_role = 5;

pub type g4_part_kind = c_int;
pub const G4_PART_TEXT: g4_part_kind = 0;
pub const G4_PART_IMAGE: g4_part_kind = 1;
pub const G4_PART_AUDIO: g4_part_kind = 2;
pub const G4_PART_VIDEO: g4_part_kind = 3;
pub const G4_PART_THOUGHT: g4_part_kind = 4;
pub const G4_PART_TOOL_CALL: g4_part_kind = 5;
pub const G4_PART_TOOL_RESULT: g4_part_kind = 6;

pub type g4_tool_choice = c_int;
pub const G4_TOOLS_AUTO: g4_tool_choice = 0;
pub const G4_TOOLS_NONE: g4_tool_choice = 1;
pub const G4_TOOLS_REQUIRED: g4_tool_choice = 2;
pub const G4_TOOLS_NAMED: g4_tool_choice = 3;

pub type g4_dialect = c_int;
pub const G4_DIALECT_OPENAI: g4_dialect = 0;
pub const G4_DIALECT_ANTHROPIC: g4_dialect = 1;
pub const G4_DIALECT_RESPONSES: g4_dialect = 2;
pub const G4_DIALECT_COMPLETIONS: g4_dialect = 3;
pub const G4_DIALECT_TOKENS: g4_dialect = 4;

pub type g4_format = c_int;
pub const G4_FORMAT_TEXT: g4_format = 0;
pub const G4_FORMAT_JSON: g4_format = 1;
pub const G4_FORMAT_SCHEMA: g4_format = 2;

#[repr(C)]
pub struct g4_engine {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_soft {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_session {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_batch {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_chat {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_response {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_grammar {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_guide {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_request {
    _private: [u8; 0],
}

#[repr(C)]
pub struct g4_stream {
    _private: [u8; 0],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_error {
    pub code: c_int,
    pub message: [c_char; 256],
}

pub type g4_log_fn = unsafe extern "C" fn(user: *mut c_void, level: c_int, message: *const c_char);

pub type g4_progress_fn = unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64) -> c_int;

pub type g4_read_fn = unsafe extern "C" fn(user: *mut c_void, data: *mut c_void, size: usize) -> c_int;

pub type g4_write_fn = unsafe extern "C" fn(user: *mut c_void, data: *const c_void, size: usize) -> c_int;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_allocator {
    pub alloc_fn: Option<unsafe extern "C" fn(user: *mut c_void, size: usize, align: usize) -> *mut c_void>,
    pub free_fn: Option<unsafe extern "C" fn(user: *mut c_void, ptr: *mut c_void, size: usize)>,
    pub user: *mut c_void,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_cancel {
    pub is_set: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_limits {
    pub cancel: *const g4_cancel,
    pub seconds: f64,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_tap {
    pub name: *const c_char,
    pub layer: c_int,
    pub pos: c_int,
    pub n_rows: c_int,
    pub n_cols: c_int,
    pub stride: usize,
    pub values: *const f32,
    pub ids: *const i32,
    pub reserved: [u64; 4],
}

pub type g4_tap_fn = unsafe extern "C" fn(user: *mut c_void, tap: *const g4_tap);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_inputs {
    pub name: *const c_char,
    pub matrix: c_int,
    pub n_rows: c_int,
    pub n_cols: c_int,
    pub stride: usize,
    pub values: *const f32,
    pub reserved: [u64; 4],
}

pub type g4_inputs_fn = unsafe extern "C" fn(user: *mut c_void, r#in: *const g4_inputs);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_taps {
    pub r#fn: Option<g4_tap_fn>,
    pub user: *mut c_void,
    pub inputs: Option<g4_inputs_fn>,
    pub reserved: [u64; 1],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_engine_options {
    pub model_path: *const c_char,
    pub model_data: *const c_void,
    pub model_size: usize,
    pub n_threads: c_int,
    pub isa: *const c_char,
    pub lock_memory: c_int,
    pub huge_pages: c_int,
    pub allocator: *const g4_allocator,
    pub log: Option<g4_log_fn>,
    pub user: *mut c_void,
    pub limits: g4_limits,
    pub taps: *const g4_taps,
    pub no_mmap: c_int,
    pub static_activations: c_int,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_engine_info {
    pub name: *const c_char,
    pub isa: *const c_char,
    pub n_layers: c_int,
    pub hidden: c_int,
    pub n_vocab: c_int,
    pub n_threads: c_int,
    pub max_ctx: c_int,
    pub is_chat: c_int,
    pub has_image: c_int,
    pub has_audio: c_int,
    pub n_params: u64,
    pub file_bytes: u64,
    pub lookup_bytes: u64,
    pub decode_bytes: u64,
    pub decode_products: u64,
    pub prompt_products: u64,
    pub bos: g4_token,
    pub eos: g4_token,
    pub pad: g4_token,
    pub n_heads: c_int,
    pub window: c_int,
    pub ple_dim: c_int,
    pub n_experts: c_int,
    pub n_experts_used: c_int,
    pub expert_dim: c_int,
    pub has_own_head: c_int,
    pub softcap: f32,
    pub vision_layers: c_int,
    pub vision_hidden: c_int,
    pub vision_tokens: c_int,
    pub audio_layers: c_int,
    pub audio_hidden: c_int,
    pub source: *const c_char,
    pub source_sha256: *const c_char,
    pub vision_side: c_int,
    pub reserved: [u64; 5],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_tensor_info {
    pub name: *const c_char,
    pub r#type: *const c_char,
    pub layout: *const c_char,
    pub n_dims: c_int,
    pub dims: [u64; 3],
    pub bytes: u64,
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_utf8 {
    pub held: [c_uchar; 4],
    pub n_held: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_image {
    pub pixels: *const u8,
    pub width: c_int,
    pub height: c_int,
    pub stride: usize,
    pub max_tokens: c_int,
    pub fitted: i64,
    pub reserved: [u64; 1],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_audio {
    pub samples: *const f32,
    pub n_samples: usize,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_video {
    pub frames: *const g4_image,
    pub seconds: *const f64,
    pub n_frames: c_int,
    pub sound: *const g4_audio,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_media_options {
    pub allocator: *const g4_allocator,
    pub ffmpeg: *const c_char,
    pub max_pixels: u64,
    pub max_samples: u64,
    pub max_file_bytes: u64,
    pub max_frames: c_int,
    pub n_frames: c_int,
    pub fps: f64,
    pub want_sound: c_int,
    pub limits: g4_limits,
    pub max_scan_blocks: u64,
    pub max_pixels_per_byte: u64,
    pub max_program_bytes: u64,
    pub max_program_seconds: c_int,
    pub frame_times: c_int,
    pub frame_tokens: c_int,
    pub frame_side: c_int,
    pub max_video_megapixels: c_int,
    pub reserved: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_media_info {
    pub kind: c_int,
    pub format: [c_char; 32],
    pub width: c_int,
    pub height: c_int,
    pub sample_rate: c_int,
    pub channels: c_int,
    pub seconds: f64,
    pub n_frames: i64,
    pub fps: f64,
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_patches {
    pub n: c_int,
    pub grid_w: c_int,
    pub grid_h: c_int,
    pub n_tokens: c_int,
    pub pixels: *mut f32,
    pub pos: *mut i32,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_medium {
    pub pos: c_int,
    pub soft: *mut g4_soft,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_prompt {
    pub tokens: *const g4_token,
    pub n: c_int,
    pub media: *const g4_medium,
    pub n_media: c_int,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_session_options {
    pub n_ctx: c_int,
    pub kv: c_int,
    pub chunk: c_int,
    pub snapshot_bytes: u64,
    pub progress: Option<g4_progress_fn>,
    pub user: *mut c_void,
    pub limits: g4_limits,
    pub taps: *const g4_taps,
    pub reserved: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_memory_plan {
    pub weights: u64,
    pub lookup: u64,
    pub kv: u64,
    pub work: u64,
    pub available: u64,
    pub shared: u64,
    pub reserved: [u64; 3],
}

pub type g4_logits_row_fn = unsafe extern "C" fn(user: *mut c_void, index: c_int, logits: *const f32) -> c_int;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_logit_bias {
    pub token: g4_token,
    pub bias: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_sampling {
    pub temperature: f32,
    pub top_k: c_int,
    pub top_p: f32,
    pub min_p: f32,
    pub repeat_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub seed: u64,
    pub bias: *const g4_logit_bias,
    pub n_bias: c_int,
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_candidate {
    pub token: g4_token,
    pub logprob: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_output {
    pub token: g4_token,
    pub text: *const c_char,
    pub text_len: usize,
    pub is_special: c_int,
    pub logprob: f32,
    pub top: *const g4_candidate,
    pub n_top: c_int,
    pub reserved: [u64; 4],
}

pub type g4_output_fn = unsafe extern "C" fn(user: *mut c_void, out: *const g4_output) -> c_int;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_constraint {
    pub mask: Option<unsafe extern "C" fn(user: *mut c_void, mask: *mut u32, n_vocab: c_int) -> c_int>,
    pub accept: Option<unsafe extern "C" fn(user: *mut c_void, token: g4_token)>,
    pub user: *mut c_void,
    pub own: *const c_void,
    pub reserved: [u64; 1],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_generate_options {
    pub sampling: *const g4_sampling,
    pub max_tokens: c_int,
    pub stop: *const *const c_char,
    pub n_stop: c_int,
    pub no_guard: c_int,
    pub ignore_stop_ids: c_int,
    pub want_logprobs: c_int,
    pub n_top: c_int,
    pub constraint: *const g4_constraint,
    pub output: Option<g4_output_fn>,
    pub user: *mut c_void,
    pub no_lookup: c_int,
    pub limits: g4_limits,
    pub reserved: [u64; 8],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_result {
    pub stop: c_int,
    pub stop_token: g4_token,
    pub n_tokens: c_int,
    pub n_reused: c_int,
    pub seconds: f64,
    pub stop_string: *const c_char,
    pub reserved: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_choose_options {
    pub sampling: *const g4_sampling,
    pub constraint: *const g4_constraint,
    pub reply_start: c_int,
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_batch_options {
    pub n_rows: c_int,
    pub prompt_rows: c_int,
    pub limits: g4_limits,
    pub encode_seconds: f64,
    pub reserved: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_batch_request {
    pub prompt: *const g4_prompt,
    pub generate: *const g4_generate_options,
    pub done: Option<unsafe extern "C" fn(user: *mut c_void, s: *mut g4_session, status: c_int, result: *const g4_result, err: *const g4_error)>,
    pub user: *mut c_void,
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_part {
    pub kind: c_int,
    pub text: *const c_char,
    pub text_len: usize,
    pub name: *const c_char,
    pub id: *const c_char,
    pub image: *const g4_image,
    pub audio: *const g4_audio,
    pub video: *const g4_video,
    pub raw: *const c_char,
    pub raw_len: usize,
    pub incomplete: c_int,
    pub reserved: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_message {
    pub role: c_int,
    pub parts: *const g4_part,
    pub n_parts: c_int,
    pub role_name: *const c_char,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_chat_options {
    pub tools: *const c_char,
    pub tools_len: usize,
    pub thinking: c_int,
    pub preserve_thinking: c_int,
    pub no_generation_prompt: c_int,
    pub template_name: *const c_char,
    pub openai: c_int,
    pub limits: g4_limits,
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_chat_medium {
    pub kind: c_int,
    pub message: c_int,
    pub source: *const c_char,
    pub data: *const u8,
    pub size: usize,
    pub is_set: c_int,
    pub image: *const g4_image,
    pub audio: *const g4_audio,
    pub video: *const g4_video,
    pub reserved: [u64; 1],
}

pub type g4_media_path_fn = unsafe extern "C" fn(user: *mut c_void, medium: *const g4_chat_medium, path: *mut c_char, size: usize, err: *mut g4_error) -> c_int;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_chat_load_options {
    pub root: *const c_char,
    pub path: Option<g4_media_path_fn>,
    pub user: *mut c_void,
    pub media: *const g4_media_options,
    pub image_tokens: c_int,
    pub frame_tokens: c_int,
    pub reserved: [u64; 6],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_sync_counts {
    pub prompt: c_int,
    pub reused: c_int,
    pub evaluated: c_int,
    pub reserved: [u64; 4],
}

pub type g4_part_fn = unsafe extern "C" fn(user: *mut c_void, index: c_int, delta: *const g4_part) -> c_int;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_schema_options {
    pub strict: c_int,
    pub closed: c_int,
    pub warn: Option<unsafe extern "C" fn(user: *mut c_void, message: *const c_char)>,
    pub user: *mut c_void,
    pub limits: *const g4_limits,
    pub reserved: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_guide_options {
    pub grammar: *mut g4_grammar,
    pub tool_choice: c_int,
    pub tool_name: *const c_char,
    pub loose_tools: c_int,
    pub tools: *mut g4_grammar,
    pub think_budget: c_int,
    pub schema: *const g4_schema_options,
    pub reserved: [u64; 7],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_respond_options {
    pub generate: *const g4_generate_options,
    pub guide: g4_guide_options,
    pub part: Option<g4_part_fn>,
    pub user: *mut c_void,
    pub call_deltas: c_int,
    pub reserved: [u64; 7],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_batch_respond_request {
    pub respond: *const g4_respond_options,
    pub done: Option<unsafe extern "C" fn(user: *mut c_void, s: *mut g4_session, status: c_int, response: *mut g4_response, result: *const g4_result, err: *const g4_error)>,
    pub user: *mut c_void,
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_fault {
    pub param: [c_char; 128],
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_request_prompt {
    pub text: *const c_char,
    pub len: usize,
    pub tokens: *const g4_token,
    pub n_tokens: c_int,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_request_info {
    pub model: *const c_char,
    pub stream: c_int,
    pub include_usage: c_int,
    pub max_tokens: c_int,
    pub temperature: f64,
    pub top_p: f64,
    pub min_p: f64,
    pub repeat_penalty: f64,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    pub top_k: c_int,
    pub has_seed: c_int,
    pub seed: u64,
    pub stop: *const *const c_char,
    pub n_stop: c_int,
    pub bias: *const g4_logit_bias,
    pub n_bias: c_int,
    pub want_logprobs: c_int,
    pub n_top: c_int,
    pub tools: *const c_char,
    pub tools_len: usize,
    pub callable: *const c_char,
    pub callable_len: usize,
    pub tool_choice: c_int,
    pub tool_name: *const c_char,
    pub one_call: c_int,
    pub format: c_int,
    pub schema: *const c_char,
    pub schema_len: usize,
    pub schema_name: *const c_char,
    pub is_strict: c_int,
    pub thinking: c_int,
    pub think_budget: c_int,
    pub continue_final: c_int,
    pub prompt: *const c_char,
    pub prompt_len: usize,
    pub is_completion: c_int,
    pub custom_id: *const c_char,
    pub dialect: c_int,
    pub repeats: *const c_char,
    pub prompts: *const g4_request_prompt,
    pub n_prompts: c_int,
    pub echo: c_int,
    pub add_special: c_int,
    pub parse_special: c_int,
    pub with_pieces: c_int,
    pub with_strings: c_int,
    pub reserved: [u64; 6],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_batch_line {
    pub custom_id: *mut c_char,
    pub id: *mut c_char,
    pub is_answer: c_int,
    pub has_succeeded: c_int,
    pub reserved: [u64; 1],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_token_logprob {
    pub token: g4_token,
    pub logprob: f32,
    pub top: *const g4_candidate,
    pub n_top: c_int,
    pub reserved: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_answer {
    pub id: u64,
    pub created: i64,
    pub model: *const c_char,
    pub fingerprint: *const c_char,
    pub parts: *const g4_part,
    pub n_parts: c_int,
    pub result: g4_result,
    pub prompt_tokens: c_int,
    pub cached_tokens: c_int,
    pub thought_tokens: c_int,
    pub prompt_seconds: f64,
    pub engine: *const g4_engine,
    pub want_logprobs: c_int,
    pub logprobs: *const g4_token_logprob,
    pub n_logprobs: c_int,
    pub is_completion: c_int,
    pub dialect: c_int,
    pub request: *const g4_request_info,
    pub choice: c_int,
    pub has_more: c_int,
    pub reserved: [u64; 5],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_stream_options {
    pub answer: *const g4_answer,
    pub include_usage: c_int,
    pub write: Option<g4_write_fn>,
    pub user: *mut c_void,
    pub reserved: [u64; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_refusal {
    pub status: c_int,
    pub http: c_int,
    pub message: *const c_char,
    pub param: *const c_char,
    pub reserved: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct g4_box {
    pub is_point: c_int,
    pub x0: c_int,
    pub y0: c_int,
    pub x1: c_int,
    pub y1: c_int,
    pub label: *mut c_char,
    pub reserved: [u64; 2],
}

extern "C" {
    pub fn g4_version() -> *const c_char;
    pub fn g4_status_name(code: c_int) -> *const c_char;
    pub fn g4_cancel_set(c: *mut g4_cancel);
    pub fn g4_cancel_clear(c: *mut g4_cancel);
    pub fn g4_engine_open(out: *mut *mut g4_engine, opt: *const g4_engine_options, err: *mut g4_error) -> c_int;
    pub fn g4_engine_close(e: *mut g4_engine);
    pub fn g4_engine_get_info(e: *const g4_engine, out: *mut g4_engine_info);
    pub fn g4_engine_residence(e: *const g4_engine, resident: *mut u64, total: *mut u64);
    pub fn g4_engine_prefault(e: *const g4_engine, progress: Option<g4_progress_fn>, user: *mut c_void, err: *mut g4_error) -> c_int;
    pub fn g4_isa_name(i: c_int) -> *const c_char;
    pub fn g4_engine_get_tensor(e: *const g4_engine, i: c_int, out: *mut g4_tensor_info) -> c_int;
    pub fn g4_tokenize(e: *const g4_engine, text: *const c_char, len: usize, specials: c_int, out: *mut g4_token, cap: usize, n: *mut usize, err: *mut g4_error) -> c_int;
    pub fn g4_token_bytes(e: *const g4_engine, id: g4_token, skip_special: c_int, out: *mut c_char) -> usize;
    pub fn g4_token_get_kind(e: *const g4_engine, id: g4_token) -> c_int;
    pub fn g4_token_is_stop(e: *const g4_engine, id: g4_token) -> c_int;
    pub fn g4_utf8_push(u: *mut g4_utf8, data: *const c_char, n: usize, out: *mut c_char) -> usize;
    pub fn g4_image_load(out: *mut g4_image, path: *const c_char, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_image_decode(out: *mut g4_image, data: *const c_void, size: usize, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_image_free(image: *mut g4_image, opt: *const g4_media_options);
    pub fn g4_audio_load(out: *mut g4_audio, path: *const c_char, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_audio_decode(out: *mut g4_audio, data: *const c_void, size: usize, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_audio_free(audio: *mut g4_audio, opt: *const g4_media_options);
    pub fn g4_video_load(out: *mut g4_video, path: *const c_char, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_video_decode(out: *mut g4_video, data: *const c_void, size: usize, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_video_free(video: *mut g4_video, opt: *const g4_media_options);
    pub fn g4_media_probe(out: *mut g4_media_info, path: *const c_char, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_media_probe_data(out: *mut g4_media_info, data: *const c_void, size: usize, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_media_max_bytes(opt: *const g4_media_options, is_picture: c_int) -> u64;
    pub fn g4_image_tokens(width: c_int, height: c_int, max_tokens: c_int, target_width: *mut c_int, target_height: *mut c_int) -> c_int;
    pub fn g4_patches_make(out: *mut g4_patches, image: *const g4_image, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_patches_close(p: *mut g4_patches, opt: *const g4_media_options);
    pub fn g4_png_write(image: *const g4_image, write: Option<g4_write_fn>, user: *mut c_void, opt: *const g4_media_options, err: *mut g4_error) -> c_int;
    pub fn g4_draw_box(pixels: *mut u8, width: c_int, height: c_int, stride: usize, r#box: *const c_int, label: *const c_char, rgb: *const u8);
    pub fn g4_image_encode(out: *mut *mut g4_soft, e: *mut g4_engine, image: *const g4_image, err: *mut g4_error) -> c_int;
    pub fn g4_frame_encode(out: *mut *mut g4_soft, e: *mut g4_engine, frame: *const g4_image, err: *mut g4_error) -> c_int;
    pub fn g4_audio_encode(out: *mut *mut g4_soft, e: *mut g4_engine, block: *const g4_audio, err: *mut g4_error) -> c_int;
    pub fn g4_soft_close(e: *mut g4_engine, soft: *mut g4_soft);
    pub fn g4_soft_n(soft: *const g4_soft) -> c_int;
    pub fn g4_soft_token(soft: *const g4_soft) -> g4_token;
    pub fn g4_soft_rows(soft: *const g4_soft) -> *const f32;
    pub fn g4_audio_block(audio: *const g4_audio, from: usize) -> usize;
    pub fn g4_audio_mel(block: *const g4_audio, out: *mut f32) -> c_int;
    pub fn g4_session_plan(e: *const g4_engine, opt: *const g4_session_options, out: *mut g4_memory_plan);
    pub fn g4_session_plan_forks(e: *const g4_engine, opt: *const g4_session_options, n: c_int, n_before: c_int, out: *mut g4_memory_plan);
    pub fn g4_session_bytes(e: *const g4_engine, opt: *const g4_session_options) -> u64;
    pub fn g4_session_open(out: *mut *mut g4_session, e: *mut g4_engine, opt: *const g4_session_options, err: *mut g4_error) -> c_int;
    pub fn g4_session_close(s: *mut g4_session);
    pub fn g4_session_cancel(s: *mut g4_session);
    pub fn g4_session_n(s: *const g4_session) -> c_int;
    pub fn g4_session_n_ctx(s: *const g4_session) -> c_int;
    pub fn g4_session_tokens(s: *const g4_session) -> *const g4_token;
    pub fn g4_session_n_evaluated(s: *const g4_session) -> u64;
    pub fn g4_session_eval(s: *mut g4_session, tokens: *const g4_token, n: c_int, err: *mut g4_error) -> c_int;
    pub fn g4_session_eval_prompt(s: *mut g4_session, prompt: *const g4_prompt, err: *mut g4_error) -> c_int;
    pub fn g4_session_eval_text(s: *mut g4_session, text: *const c_char, len: usize, err: *mut g4_error) -> c_int;
    pub fn g4_session_eval_all(s: *mut g4_session, prompt: *const g4_prompt, row: Option<g4_logits_row_fn>, user: *mut c_void, err: *mut g4_error) -> c_int;
    pub fn g4_session_logits(s: *mut g4_session) -> *const f32;
    pub fn g4_session_sync(s: *mut g4_session, prompt: *const g4_prompt, reused: *mut c_int, err: *mut g4_error) -> c_int;
    pub fn g4_session_rewind(s: *mut g4_session, n: c_int, err: *mut g4_error) -> c_int;
    pub fn g4_session_mark(s: *mut g4_session, err: *mut g4_error) -> c_int;
    pub fn g4_session_fork(out: *mut *mut g4_session, s: *const g4_session, err: *mut g4_error) -> c_int;
    pub fn g4_session_save(s: *const g4_session, write: Option<g4_write_fn>, user: *mut c_void, err: *mut g4_error) -> c_int;
    pub fn g4_session_saved_bytes(s: *const g4_session) -> u64;
    pub fn g4_session_load(out: *mut *mut g4_session, e: *mut g4_engine, opt: *const g4_session_options, read: Option<g4_read_fn>, user: *mut c_void, err: *mut g4_error) -> c_int;
    pub fn g4_sampling_recommended(e: *const g4_engine, out: *mut g4_sampling);
    pub fn g4_stop_name(stop: c_int) -> *const c_char;
    pub fn g4_session_generate(s: *mut g4_session, opt: *const g4_generate_options, out: *mut g4_result, err: *mut g4_error) -> c_int;
    pub fn g4_session_choose(s: *mut g4_session, opt: *const g4_choose_options, out: *mut g4_token, err: *mut g4_error) -> c_int;
    pub fn g4_logits_argmax(e: *const g4_engine, logits: *const f32) -> g4_token;
    pub fn g4_logits_logprob(e: *const g4_engine, logits: *const f32, id: g4_token) -> f32;
    pub fn g4_logits_top(e: *const g4_engine, logits: *const f32, n: c_int, out: *mut g4_candidate) -> c_int;
    pub fn g4_batch_open(out: *mut *mut g4_batch, e: *mut g4_engine, opt: *const g4_batch_options, err: *mut g4_error) -> c_int;
    pub fn g4_batch_close(b: *mut g4_batch);
    pub fn g4_batch_add(b: *mut g4_batch, s: *mut g4_session, r: *const g4_batch_request, err: *mut g4_error) -> c_int;
    pub fn g4_batch_remove(b: *mut g4_batch, s: *mut g4_session);
    pub fn g4_batch_n(b: *const g4_batch) -> c_int;
    pub fn g4_batch_mark(b: *mut g4_batch, s: *const g4_session, n: c_int, err: *mut g4_error) -> c_int;
    pub fn g4_batch_fork(b: *mut g4_batch, out: *mut *mut g4_session, s: *const g4_session, n: c_int, err: *mut g4_error) -> c_int;
    pub fn g4_batch_step(b: *mut g4_batch, err: *mut g4_error) -> c_int;
    pub fn g4_batch_run(b: *mut g4_batch, err: *mut g4_error) -> c_int;
    pub fn g4_chat_open(out: *mut *mut g4_chat, e: *mut g4_engine, messages: *const g4_message, n: c_int, opt: *const g4_chat_options, err: *mut g4_error) -> c_int;
    pub fn g4_chat_parse(out: *mut *mut g4_chat, e: *mut g4_engine, json: *const c_char, len: usize, opt: *const g4_chat_options, err: *mut g4_error) -> c_int;
    pub fn g4_chat_close(c: *mut g4_chat);
    pub fn g4_chat_text(c: *const g4_chat, len: *mut usize) -> *const c_char;
    pub fn g4_chat_thinking(c: *const g4_chat) -> c_int;
    pub fn g4_chat_n_media(c: *const g4_chat) -> c_int;
    pub fn g4_chat_media(c: *mut g4_chat, i: c_int, out: *mut g4_chat_medium, err: *mut g4_error) -> c_int;
    pub fn g4_chat_set_image(c: *mut g4_chat, i: c_int, image: *const g4_image, err: *mut g4_error) -> c_int;
    pub fn g4_chat_set_audio(c: *mut g4_chat, i: c_int, audio: *const g4_audio, err: *mut g4_error) -> c_int;
    pub fn g4_chat_set_video(c: *mut g4_chat, i: c_int, video: *const g4_video, err: *mut g4_error) -> c_int;
    pub fn g4_media_below(root: *const c_char, source: *const c_char, path: *mut c_char, size: usize, err: *mut g4_error) -> c_int;
    pub fn g4_chat_load_media(c: *mut g4_chat, opt: *const g4_chat_load_options, err: *mut g4_error) -> c_int;
    pub fn g4_chat_prompt(c: *mut g4_chat, out: *mut g4_prompt, err: *mut g4_error) -> c_int;
    pub fn g4_chat_beginning(c: *mut g4_chat, out: *mut g4_prompt, err: *mut g4_error) -> c_int;
    pub fn g4_session_sync_chat(s: *mut g4_session, c: *mut g4_chat, counts: *mut g4_sync_counts, err: *mut g4_error) -> c_int;
    pub fn g4_response_open(out: *mut *mut g4_response, e: *const g4_engine, in_thought: c_int, part: Option<g4_part_fn>, user: *mut c_void, err: *mut g4_error) -> c_int;
    pub fn g4_response_push(r: *mut g4_response, token: g4_token) -> c_int;
    pub fn g4_response_stream_calls(r: *mut g4_response);
    pub fn g4_response_stop_at(r: *mut g4_response, stop: *const *const c_char, n: c_int, err: *mut g4_error) -> c_int;
    pub fn g4_response_stop_string(r: *const g4_response) -> *const c_char;
    pub fn g4_response_finish(r: *mut g4_response, err: *mut g4_error) -> c_int;
    pub fn g4_response_parts(r: *const g4_response, n: *mut c_int) -> *const g4_part;
    pub fn g4_response_thought_tokens(r: *const g4_response) -> c_int;
    pub fn g4_response_close(r: *mut g4_response);
    pub fn g4_grammar_from_schema(out: *mut *mut g4_grammar, e: *const g4_engine, schema: *const c_char, len: usize, opt: *const g4_schema_options, err: *mut g4_error) -> c_int;
    pub fn g4_grammar_from_rules(out: *mut *mut g4_grammar, e: *const g4_engine, rules: *const c_char, len: usize, limits: *const g4_limits, err: *mut g4_error) -> c_int;
    pub fn g4_grammar_from_tools(out: *mut *mut g4_grammar, e: *const g4_engine, tools: *const c_char, len: usize, only: *const c_char, opt: *const g4_schema_options, err: *mut g4_error) -> c_int;
    pub fn g4_grammar_close(g: *mut g4_grammar);
    pub fn g4_guide_open(out: *mut *mut g4_guide, c: *const g4_chat, opt: *const g4_guide_options, err: *mut g4_error) -> c_int;
    pub fn g4_guide_open_text(out: *mut *mut g4_guide, e: *const g4_engine, grammar: *mut g4_grammar, err: *mut g4_error) -> c_int;
    pub fn g4_guide_constraint(g: *mut g4_guide) -> *const g4_constraint;
    pub fn g4_guide_close(g: *mut g4_guide);
    pub fn g4_chat_in_thought(c: *const g4_chat) -> c_int;
    pub fn g4_session_respond(s: *mut g4_session, c: *const g4_chat, opt: *const g4_respond_options, out: *mut *mut g4_response, result: *mut g4_result, err: *mut g4_error) -> c_int;
    pub fn g4_batch_respond(b: *mut g4_batch, s: *mut g4_session, c: *mut g4_chat, r: *const g4_batch_respond_request, err: *mut g4_error) -> c_int;
    pub fn g4_request_read(out: *mut *mut g4_request, json: *const c_char, len: usize, a: *const g4_allocator, fault: *mut g4_fault, err: *mut g4_error) -> c_int;
    pub fn g4_request_read_as(out: *mut *mut g4_request, dialect: c_int, json: *const c_char, len: usize, a: *const g4_allocator, fault: *mut g4_fault, err: *mut g4_error) -> c_int;
    pub fn g4_request_read_until(out: *mut *mut g4_request, dialect: c_int, json: *const c_char, len: usize, limits: *const g4_limits, a: *const g4_allocator, fault: *mut g4_fault, err: *mut g4_error) -> c_int;
    pub fn g4_request_close(r: *mut g4_request);
    pub fn g4_request_get(r: *const g4_request) -> *const g4_request_info;
    pub fn g4_request_sampling(r: *const g4_request, sampling: *mut g4_sampling);
    pub fn g4_request_chat(out: *mut *mut g4_chat, e: *mut g4_engine, r: *const g4_request, opt: *const g4_chat_options, fault: *mut g4_fault, err: *mut g4_error) -> c_int;
    pub fn g4_batch_line_read(out: *mut g4_batch_line, json: *const c_char, len: usize, limits: *const g4_limits, a: *const g4_allocator, err: *mut g4_error) -> c_int;
    pub fn g4_batch_line_close(line: *mut g4_batch_line, a: *const g4_allocator);
    pub fn g4_answer_write(answer: *const g4_answer, write: Option<g4_write_fn>, user: *mut c_void, a: *const g4_allocator, err: *mut g4_error) -> c_int;
    pub fn g4_stream_open(out: *mut *mut g4_stream, opt: *const g4_stream_options, a: *const g4_allocator, err: *mut g4_error) -> c_int;
    pub fn g4_stream_part(stream: *mut c_void, index: c_int, delta: *const g4_part) -> c_int;
    pub fn g4_stream_token(stream: *mut c_void, o: *const g4_output) -> c_int;
    pub fn g4_stream_end(s: *mut g4_stream, answer: *const g4_answer, err: *mut g4_error) -> c_int;
    pub fn g4_stream_refuse(s: *mut g4_stream, why: *const g4_refusal, err: *mut g4_error) -> c_int;
    pub fn g4_stream_close(s: *mut g4_stream);
    pub fn g4_refusal_write(dialect: c_int, why: *const g4_refusal, write: Option<g4_write_fn>, user: *mut c_void, a: *const g4_allocator, err: *mut g4_error) -> c_int;
    pub fn g4_boxes_read(out: *mut *mut g4_box, n: *mut c_int, text: *const c_char, len: usize, width: c_int, height: c_int, a: *const g4_allocator, err: *mut g4_error) -> c_int;
    pub fn g4_boxes_free(boxes: *mut g4_box, n: c_int, a: *const g4_allocator);
}

//! Is src/sys.rs what a C compiler makes of gemma4.h? Made by tools/make_rust_mirror.py: do not edit.
#![allow(clippy::useless_vec)]
use std::collections::BTreeMap;
use std::mem::{size_of, MaybeUninit};

use gemma4c::sys;

macro_rules! of_struct {
    ($found:ident, $name:ident { $($field:ident),* }) => {{
        $found.insert(concat!("struct ", stringify!($name)).into(), vec![size_of::<sys::$name>() as i64]);
        let room = MaybeUninit::<sys::$name>::zeroed();
        // SAFETY: all zeros are a value of every struct of the interface.
        let it = unsafe { room.assume_init_ref() };
        $(
            let name = concat!("field ", stringify!($name), ".", stringify!($field)).replace("r#", "");
            let offset = std::ptr::addr_of!(it.$field) as usize - it as *const _ as usize;
            $found.insert(name, vec![offset as i64, std::mem::size_of_val(&it.$field) as i64]);
        )*
    }};
}

#[test]
fn is_what_a_c_compiler_makes_of_it() {
    let proof = match std::env::var("G4_PROOF") {
        Ok(path) => std::fs::read_to_string(path).unwrap(),
        Err(_) => return println!("skipped: G4_PROOF names no file"),
    };
    let mut expected = BTreeMap::new();
    for line in proof.lines().filter(|line| !line.starts_with("function ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let numbers: Vec<i64> = words[2..].iter().map(|n| n.parse().unwrap()).collect();
        expected.insert(words[..2].join(" "), numbers);
    }
    assert!(expected.len() > 400, "{}", expected.len());
    assert_eq!(found(), expected);
}

#[rustfmt::skip]
fn found() -> BTreeMap<String, Vec<i64>> {
    let mut found = BTreeMap::new();
    of_struct!(found, g4_error { code, message });
    of_struct!(found, g4_allocator { alloc_fn, free_fn, user });
    of_struct!(found, g4_cancel { is_set });
    of_struct!(found, g4_limits { cancel, seconds, reserved });
    of_struct!(found, g4_tap { name, layer, pos, n_rows, n_cols, stride, values, ids, reserved });
    of_struct!(found, g4_inputs { name, matrix, n_rows, n_cols, stride, values, reserved });
    of_struct!(found, g4_taps { r#fn, user, inputs, reserved });
    of_struct!(found, g4_engine_options { model_path, model_data, model_size, n_threads, isa, lock_memory, huge_pages, allocator, log, user, limits, taps, no_mmap, static_activations, reserved });
    of_struct!(found, g4_engine_info { name, isa, n_layers, hidden, n_vocab, n_threads, max_ctx, is_chat, has_image, has_audio, n_params, file_bytes, lookup_bytes, decode_bytes, decode_products, prompt_products, bos, eos, pad, n_heads, window, ple_dim, n_experts, n_experts_used, expert_dim, has_own_head, softcap, vision_layers, vision_hidden, vision_tokens, audio_layers, audio_hidden, source, source_sha256, vision_side, reserved });
    of_struct!(found, g4_tensor_info { name, r#type, layout, n_dims, dims, bytes, reserved });
    of_struct!(found, g4_utf8 { held, n_held });
    of_struct!(found, g4_image { pixels, width, height, stride, max_tokens, fitted, reserved });
    of_struct!(found, g4_audio { samples, n_samples, reserved });
    of_struct!(found, g4_video { frames, seconds, n_frames, sound, reserved });
    of_struct!(found, g4_media_options { allocator, ffmpeg, max_pixels, max_samples, max_file_bytes, max_frames, n_frames, fps, want_sound, limits, max_scan_blocks, max_pixels_per_byte, max_program_bytes, max_program_seconds, frame_times, frame_tokens, frame_side, max_video_megapixels, reserved });
    of_struct!(found, g4_media_info { kind, format, width, height, sample_rate, channels, seconds, n_frames, fps, reserved });
    of_struct!(found, g4_patches { n, grid_w, grid_h, n_tokens, pixels, pos, reserved });
    of_struct!(found, g4_medium { pos, soft });
    of_struct!(found, g4_prompt { tokens, n, media, n_media, reserved });
    of_struct!(found, g4_session_options { n_ctx, kv, chunk, snapshot_bytes, progress, user, limits, taps, reserved });
    of_struct!(found, g4_memory_plan { weights, lookup, kv, work, available, shared, reserved });
    of_struct!(found, g4_logit_bias { token, bias });
    of_struct!(found, g4_sampling { temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, seed, bias, n_bias, reserved });
    of_struct!(found, g4_candidate { token, logprob });
    of_struct!(found, g4_output { token, text, text_len, is_special, logprob, top, n_top, reserved });
    of_struct!(found, g4_constraint { mask, accept, user, own, reserved });
    of_struct!(found, g4_generate_options { sampling, max_tokens, stop, n_stop, no_guard, ignore_stop_ids, want_logprobs, n_top, constraint, output, user, no_lookup, limits, reserved });
    of_struct!(found, g4_result { stop, stop_token, n_tokens, n_reused, seconds, stop_string, reserved });
    of_struct!(found, g4_choose_options { sampling, constraint, reply_start, reserved });
    of_struct!(found, g4_batch_options { n_rows, prompt_rows, limits, encode_seconds, reserved });
    of_struct!(found, g4_batch_request { prompt, generate, done, user, reserved });
    of_struct!(found, g4_part { kind, text, text_len, name, id, image, audio, video, raw, raw_len, incomplete, reserved });
    of_struct!(found, g4_message { role, parts, n_parts, role_name, reserved });
    of_struct!(found, g4_chat_options { tools, tools_len, thinking, preserve_thinking, no_generation_prompt, template_name, openai, limits, reserved });
    of_struct!(found, g4_chat_medium { kind, message, source, data, size, is_set, image, audio, video, reserved });
    of_struct!(found, g4_chat_load_options { root, path, user, media, image_tokens, frame_tokens, reserved });
    of_struct!(found, g4_sync_counts { prompt, reused, evaluated, reserved });
    of_struct!(found, g4_schema_options { strict, closed, warn, user, limits, reserved });
    of_struct!(found, g4_guide_options { grammar, tool_choice, tool_name, loose_tools, tools, think_budget, schema, reserved });
    of_struct!(found, g4_respond_options { generate, guide, part, user, call_deltas, reserved });
    of_struct!(found, g4_batch_respond_request { respond, done, user, reserved });
    of_struct!(found, g4_fault { param, reserved });
    of_struct!(found, g4_request_prompt { text, len, tokens, n_tokens, reserved });
    of_struct!(found, g4_request_info { model, stream, include_usage, max_tokens, temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, top_k, has_seed, seed, stop, n_stop, bias, n_bias, want_logprobs, n_top, tools, tools_len, callable, callable_len, tool_choice, tool_name, one_call, format, schema, schema_len, schema_name, is_strict, thinking, think_budget, continue_final, prompt, prompt_len, is_completion, custom_id, dialect, repeats, prompts, n_prompts, echo, add_special, parse_special, with_pieces, with_strings, reserved });
    of_struct!(found, g4_batch_line { custom_id, id, is_answer, has_succeeded, reserved });
    of_struct!(found, g4_token_logprob { token, logprob, top, n_top, reserved });
    of_struct!(found, g4_answer { id, created, model, fingerprint, parts, n_parts, result, prompt_tokens, cached_tokens, thought_tokens, prompt_seconds, engine, want_logprobs, logprobs, n_logprobs, is_completion, dialect, request, choice, has_more, reserved });
    of_struct!(found, g4_stream_options { answer, include_usage, write, user, reserved });
    of_struct!(found, g4_refusal { status, http, message, param, reserved });
    of_struct!(found, g4_box { is_point, x0, y0, x1, y1, label, reserved });
    found.insert("value G4_OK".into(), vec![sys::G4_OK as i64]);
    found.insert("value G4_ERR_ARGUMENT".into(), vec![sys::G4_ERR_ARGUMENT as i64]);
    found.insert("value G4_ERR_MEMORY".into(), vec![sys::G4_ERR_MEMORY as i64]);
    found.insert("value G4_ERR_IO".into(), vec![sys::G4_ERR_IO as i64]);
    found.insert("value G4_ERR_FORMAT".into(), vec![sys::G4_ERR_FORMAT as i64]);
    found.insert("value G4_ERR_VERSION".into(), vec![sys::G4_ERR_VERSION as i64]);
    found.insert("value G4_ERR_UNSUPPORTED".into(), vec![sys::G4_ERR_UNSUPPORTED as i64]);
    found.insert("value G4_ERR_CONTEXT".into(), vec![sys::G4_ERR_CONTEXT as i64]);
    found.insert("value G4_ERR_MISMATCH".into(), vec![sys::G4_ERR_MISMATCH as i64]);
    found.insert("value G4_ERR_CANCELED".into(), vec![sys::G4_ERR_CANCELED as i64]);
    found.insert("value G4_LOG_WARNING".into(), vec![sys::G4_LOG_WARNING as i64]);
    found.insert("value G4_LOG_INFO".into(), vec![sys::G4_LOG_INFO as i64]);
    found.insert("value G4_LOG_DEBUG".into(), vec![sys::G4_LOG_DEBUG as i64]);
    found.insert("value G4_TOKEN_UNUSED".into(), vec![sys::G4_TOKEN_UNUSED as i64]);
    found.insert("value G4_TOKEN_TEXT".into(), vec![sys::G4_TOKEN_TEXT as i64]);
    found.insert("value G4_TOKEN_BYTE".into(), vec![sys::G4_TOKEN_BYTE as i64]);
    found.insert("value G4_TOKEN_CONTROL".into(), vec![sys::G4_TOKEN_CONTROL as i64]);
    found.insert("value G4_TOKEN_MEDIA".into(), vec![sys::G4_TOKEN_MEDIA as i64]);
    found.insert("value G4_MEDIA_UNKNOWN".into(), vec![sys::G4_MEDIA_UNKNOWN as i64]);
    found.insert("value G4_MEDIA_IMAGE".into(), vec![sys::G4_MEDIA_IMAGE as i64]);
    found.insert("value G4_MEDIA_AUDIO".into(), vec![sys::G4_MEDIA_AUDIO as i64]);
    found.insert("value G4_MEDIA_VIDEO".into(), vec![sys::G4_MEDIA_VIDEO as i64]);
    found.insert("value G4_KV_DEFAULT".into(), vec![sys::G4_KV_DEFAULT as i64]);
    found.insert("value G4_KV_USE_F16".into(), vec![sys::G4_KV_USE_F16 as i64]);
    found.insert("value G4_KV_USE_F32".into(), vec![sys::G4_KV_USE_F32 as i64]);
    found.insert("value G4_KV_USE_Q8_0".into(), vec![sys::G4_KV_USE_Q8_0 as i64]);
    found.insert("value G4_STOP_END".into(), vec![sys::G4_STOP_END as i64]);
    found.insert("value G4_STOP_MAX_TOKENS".into(), vec![sys::G4_STOP_MAX_TOKENS as i64]);
    found.insert("value G4_STOP_STRING".into(), vec![sys::G4_STOP_STRING as i64]);
    found.insert("value G4_STOP_CALLBACK".into(), vec![sys::G4_STOP_CALLBACK as i64]);
    found.insert("value G4_STOP_CONTEXT".into(), vec![sys::G4_STOP_CONTEXT as i64]);
    found.insert("value G4_STOP_REPEAT".into(), vec![sys::G4_STOP_REPEAT as i64]);
    found.insert("value G4_STOP_CONSTRAINT".into(), vec![sys::G4_STOP_CONSTRAINT as i64]);
    found.insert("value G4_STOP_CANCELED".into(), vec![sys::G4_STOP_CANCELED as i64]);
    found.insert("value G4_ROLE_SYSTEM".into(), vec![sys::G4_ROLE_SYSTEM as i64]);
    found.insert("value G4_ROLE_DEVELOPER".into(), vec![sys::G4_ROLE_DEVELOPER as i64]);
    found.insert("value G4_ROLE_USER".into(), vec![sys::G4_ROLE_USER as i64]);
    found.insert("value G4_ROLE_MODEL".into(), vec![sys::G4_ROLE_MODEL as i64]);
    found.insert("value G4_ROLE_TOOL".into(), vec![sys::G4_ROLE_TOOL as i64]);
    found.insert("value G4_ROLE_OTHER".into(), vec![sys::G4_ROLE_OTHER as i64]);
    found.insert("value G4_PART_TEXT".into(), vec![sys::G4_PART_TEXT as i64]);
    found.insert("value G4_PART_IMAGE".into(), vec![sys::G4_PART_IMAGE as i64]);
    found.insert("value G4_PART_AUDIO".into(), vec![sys::G4_PART_AUDIO as i64]);
    found.insert("value G4_PART_VIDEO".into(), vec![sys::G4_PART_VIDEO as i64]);
    found.insert("value G4_PART_THOUGHT".into(), vec![sys::G4_PART_THOUGHT as i64]);
    found.insert("value G4_PART_TOOL_CALL".into(), vec![sys::G4_PART_TOOL_CALL as i64]);
    found.insert("value G4_PART_TOOL_RESULT".into(), vec![sys::G4_PART_TOOL_RESULT as i64]);
    found.insert("value G4_TOOLS_AUTO".into(), vec![sys::G4_TOOLS_AUTO as i64]);
    found.insert("value G4_TOOLS_NONE".into(), vec![sys::G4_TOOLS_NONE as i64]);
    found.insert("value G4_TOOLS_REQUIRED".into(), vec![sys::G4_TOOLS_REQUIRED as i64]);
    found.insert("value G4_TOOLS_NAMED".into(), vec![sys::G4_TOOLS_NAMED as i64]);
    found.insert("value G4_DIALECT_OPENAI".into(), vec![sys::G4_DIALECT_OPENAI as i64]);
    found.insert("value G4_DIALECT_ANTHROPIC".into(), vec![sys::G4_DIALECT_ANTHROPIC as i64]);
    found.insert("value G4_DIALECT_RESPONSES".into(), vec![sys::G4_DIALECT_RESPONSES as i64]);
    found.insert("value G4_DIALECT_COMPLETIONS".into(), vec![sys::G4_DIALECT_COMPLETIONS as i64]);
    found.insert("value G4_DIALECT_TOKENS".into(), vec![sys::G4_DIALECT_TOKENS as i64]);
    found.insert("value G4_FORMAT_TEXT".into(), vec![sys::G4_FORMAT_TEXT as i64]);
    found.insert("value G4_FORMAT_JSON".into(), vec![sys::G4_FORMAT_JSON as i64]);
    found.insert("value G4_FORMAT_SCHEMA".into(), vec![sys::G4_FORMAT_SCHEMA as i64]);
    found
}

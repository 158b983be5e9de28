use std::cell::UnsafeCell;
use std::ffi::CString;
use std::os::raw::c_char;
use std::ptr;
use std::time::Duration;

use crate::engine::{Engine, Grammar};
use crate::error::{Error, Result};
use crate::sys;

/// A flag that ends the calls it was given to, from any thread.
pub struct Cancel {
    flag: UnsafeCell<sys::g4_cancel>,
}

// SAFETY: the library reads and writes the flag as an atomic.
unsafe impl Send for Cancel {}
unsafe impl Sync for Cancel {}

impl Default for Cancel {
    fn default() -> Self {
        Cancel { flag: UnsafeCell::new(sys::g4_cancel { is_set: 0 }) }
    }
}

impl Cancel {
    /// One that is not set.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// End the calls that look at it: they return [`crate::Code::Canceled`] within one piece of work.
    pub fn set(&self) {
        // SAFETY: the library's own function.
        unsafe { sys::g4_cancel_set(self.flag.get()) }
    }

    /// Let later calls go on.
    pub fn clear(&self) {
        // SAFETY: as above.
        unsafe { sys::g4_cancel_clear(self.flag.get()) }
    }
}

/// How tokens are chosen. Zeros are "off"; a temperature of 0 takes the likeliest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Only so many of the likeliest; 0: all.
    pub top_k: u32,
    /// Only the likeliest that make up this probability; 0 or 1: all.
    pub top_p: f32,
    /// Only those at least this share of the likeliest's probability; 0: all.
    pub min_p: f32,
    /// Above 1, makes tokens that occurred less likely; 0 or 1: off.
    pub repeat_penalty: f32,
    /// Subtracted from logits of tokens that the answer has.
    pub presence_penalty: f32,
    /// Subtracted once for each time.
    pub frequency_penalty: f32,
    /// The same seed gives the same answer.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 0.0,
            min_p: 0.0,
            repeat_penalty: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }

    pub(crate) fn of(raw: &sys::g4_sampling) -> Sampling {
        Sampling {
            temperature: raw.temperature,
            top_k: raw.top_k.max(0) as u32,
            top_p: raw.top_p,
            min_p: raw.min_p,
            repeat_penalty: raw.repeat_penalty,
            presence_penalty: raw.presence_penalty,
            frequency_penalty: raw.frequency_penalty,
            seed: raw.seed,
        }
    }

    fn raw(&self) -> sys::g4_sampling {
        // SAFETY: zeros are the defaults.
        let mut raw: sys::g4_sampling = unsafe { std::mem::zeroed() };
        raw.temperature = self.temperature;
        raw.top_k = i32::try_from(self.top_k).unwrap_or(i32::MAX);
        raw.top_p = self.top_p;
        raw.min_p = self.min_p;
        raw.repeat_penalty = self.repeat_penalty;
        raw.presence_penalty = self.presence_penalty;
        raw.frequency_penalty = self.frequency_penalty;
        raw.seed = self.seed;
        raw
    }
}

/// Whether the model calls a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// It does not.
    None,
    /// It does, at least once, and says nothing else.
    Required,
    /// It calls this one, once.
    Named(String),
}

/// What is asked of an answer. The default: as the model file recommends, until the model ends it.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// At most so many tokens.
    pub max_tokens: Option<u32>,
    /// None: as the model file recommends ([`Engine::recommended_sampling`]).
    pub sampling: Option<Sampling>,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Let the model think before it answers.
    pub thinking: bool,
    /// With `thinking`: a thought is closed after so many tokens.
    pub think_budget: Option<u32>,
    /// Functions that it may call: a JSON list of declarations, as OpenAI has them.
    pub tools: Option<String>,
    /// Whether it must.
    pub tool_choice: ToolChoice,
    /// What its text must be.
    pub grammar: Option<&'a Grammar<'a>>,
    /// Ends it early; while its prompt is read, [`crate::SessionOptions::cancel`] does.
    pub cancel: Option<&'a Cancel>,
    /// The time that writing it may take, its prompt not counted; in a batch counted.
    pub time: Option<Duration>,
    /// Give [`crate::Piece::logprob`].
    pub logprobs: bool,
}

/// When a call must end, as C has it: there 0 s are no limit.
pub(crate) fn limits(cancel: Option<&Cancel>, time: Option<Duration>) -> sys::g4_limits {
    sys::g4_limits {
        cancel: cancel.map_or(ptr::null(), |c| c.flag.get() as *const _),
        seconds: time.map_or(0.0, |t| t.as_secs_f64().max(1e-9)),
        reserved: [0; 2],
    }
}

/// Options as C reads them, with all that they point to. Boxed, so that the addresses stay.
pub(crate) struct Prepared {
    pub(crate) generate: sys::g4_generate_options,
    pub(crate) respond: sys::g4_respond_options,
    pub(crate) limits: sys::g4_limits,
    sampling: sys::g4_sampling,
    stop: Vec<CString>,
    stop_pointers: Vec<*const c_char>,
    tool_name: CString,
}

fn text(what: &str, s: &str) -> Result<CString> {
    CString::new(s).map_err(|_| Error::argument(format!("{what} cannot contain a NUL character")))
}

/// As C counts, where 0 is no limit.
fn count(what: &str, n: Option<u32>) -> Result<i32> {
    match n {
        Some(0) => Err(Error::argument(format!("{what}: expected at least 1, or None for no limit"))),
        n => Ok(i32::try_from(n.unwrap_or(0)).unwrap_or(i32::MAX)),
    }
}

impl Prepared {
    pub(crate) fn new(engine: &Engine, options: &Options<'_>) -> Result<Box<Prepared>> {
        let (choice, name) = match &options.tool_choice {
            ToolChoice::Auto => (sys::G4_TOOLS_AUTO, ""),
            ToolChoice::None => (sys::G4_TOOLS_NONE, ""),
            ToolChoice::Required => (sys::G4_TOOLS_REQUIRED, ""),
            ToolChoice::Named(name) => (sys::G4_TOOLS_NAMED, name.as_str()),
        };
        // SAFETY: zeros are the defaults of all of them.
        let mut p = Box::new(unsafe {
            Prepared {
                generate: std::mem::zeroed(),
                respond: std::mem::zeroed(),
                limits: std::mem::zeroed(),
                sampling: options.sampling.unwrap_or_else(|| engine.recommended_sampling()).raw(),
                stop: options.stop.iter().map(|s| text("a stop string", s)).collect::<Result<_>>()?,
                stop_pointers: Vec::new(),
                tool_name: text("a tool's name", name)?,
            }
        });
        p.limits = limits(options.cancel, options.time);
        p.stop_pointers = p.stop.iter().map(|s| s.as_ptr()).collect();
        p.generate.sampling = &p.sampling;
        p.generate.max_tokens = count("max_tokens", options.max_tokens)?;
        p.generate.stop = p.stop_pointers.as_ptr();
        p.generate.n_stop = p.stop.len() as i32;
        p.generate.want_logprobs = i32::from(options.logprobs);
        p.generate.limits = p.limits;
        p.respond.generate = &p.generate;
        p.respond.guide.grammar = options.grammar.map_or(ptr::null_mut(), |g| g.raw.as_ptr());
        p.respond.guide.tool_choice = choice;
        p.respond.guide.tool_name = if name.is_empty() { ptr::null() } else { p.tool_name.as_ptr() };
        p.respond.guide.think_budget = count("think_budget", options.think_budget)?;
        Ok(p)
    }
}

use std::ffi::CStr;
use std::os::raw::c_char;

use crate::sys;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// The model ended it.
    End,
    /// It has as many tokens as [`crate::Options::max_tokens`] allows.
    MaxTokens,
    /// One of [`crate::Options::stop`].
    StopString,
    /// The closure asked for it.
    Callback,
    /// The context is full.
    Context,
    /// The model repeated itself.
    Repetition,
    /// The grammar allows nothing more.
    Constraint,
    /// It was cancelled, or its time was over.
    Canceled,
}

impl Stop {
    pub(crate) fn of(stop: sys::g4_stop) -> Stop {
        match stop {
            sys::G4_STOP_MAX_TOKENS => Stop::MaxTokens,
            sys::G4_STOP_STRING => Stop::StopString,
            sys::G4_STOP_CALLBACK => Stop::Callback,
            sys::G4_STOP_CONTEXT => Stop::Context,
            sys::G4_STOP_REPEAT => Stop::Repetition,
            sys::G4_STOP_CONSTRAINT => Stop::Constraint,
            sys::G4_STOP_CANCELED => Stop::Canceled,
            _ => Stop::End,
        }
    }
}

/// A function that the model wants called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Of the function.
    pub name: String,
    /// One JSON object.
    pub arguments: String,
    /// False where the answer was cut off inside: its arguments may be anything, and it must not be carried out.
    pub is_complete: bool,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// What is said to the user.
    Text(String),
    /// What the model told itself before.
    Thought(String),
    /// A call.
    Call(Call),
}

/// A piece of an answer as it comes: text in whole characters, a call at once.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delta<'a> {
    /// More text.
    Text(&'a str),
    /// More of a thought.
    Thought(&'a str),
    /// A call.
    Call(Call),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// In the order in which the model wrote them.
    pub parts: Vec<Part>,
    /// Why it ended.
    pub stop: Stop,
    /// Tokens that were written.
    pub tokens: usize,
    /// Tokens of the prompt that the session held already.
    pub reused: usize,
    /// From the first forward pass of the answer to its end; of the answer, not of its prompt.
    pub seconds: f64,
}

impl Answer {
    /// All its text.
    pub fn text(&self) -> String {
        self.parts.iter().filter_map(|p| if let Part::Text(t) = p { Some(t.as_str()) } else { None }).collect()
    }

    /// All its thoughts.
    pub fn thought(&self) -> String {
        self.parts.iter().filter_map(|p| if let Part::Thought(t) = p { Some(t.as_str()) } else { None }).collect()
    }

    /// Its calls.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.parts.iter().filter_map(|p| if let Part::Call(c) = p { Some(c) } else { None })
    }

    /// Text that was continued.
    pub(crate) fn of_text(text: String, result: &sys::g4_result) -> Answer {
        let (stop, tokens) = (Stop::of(result.stop), result.n_tokens as usize);
        Answer { parts: vec![Part::Text(text)], stop, tokens, reused: 0, seconds: result.seconds }
    }

    /// Of a finished response, which is closed.
    ///
    /// # Safety
    /// `response` is one that the library gave out, or NULL.
    pub(crate) unsafe fn take(response: *mut sys::g4_response, result: &sys::g4_result, reused: usize) -> Answer {
        let mut n = 0;
        let parts = sys::g4_response_parts(response, &mut n);
        let parts = (0..n as usize).filter_map(|i| part(&*parts.add(i))).collect();
        sys::g4_response_close(response);
        Answer { parts, stop: Stop::of(result.stop), tokens: result.n_tokens as usize, reused, seconds: result.seconds }
    }
}

/// The bytes of a part's text, which a model may have cut inside a character.
///
/// # Safety
/// `part` is one that the library shows at this moment.
unsafe fn text_of(part: &sys::g4_part) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes(part.text, part.text_len))
}

/// # Safety
/// `data` is NULL or has `len` bytes.
pub(crate) unsafe fn bytes<'a>(data: *const c_char, len: usize) -> &'a [u8] {
    if data.is_null() {
        &[]
    } else {
        std::slice::from_raw_parts(data.cast(), len)
    }
}

/// # Safety
/// As for `text_of`.
unsafe fn call(part: &sys::g4_part) -> Call {
    let name =
        if part.name.is_null() { String::new() } else { CStr::from_ptr(part.name).to_string_lossy().into_owned() };
    Call { name, arguments: text_of(part).into_owned(), is_complete: part.incomplete == 0 }
}

/// # Safety
/// As for `text_of`.
unsafe fn part(raw: &sys::g4_part) -> Option<Part> {
    match raw.kind {
        sys::G4_PART_TEXT => Some(Part::Text(text_of(raw).into_owned())),
        sys::G4_PART_THOUGHT => Some(Part::Thought(text_of(raw).into_owned())),
        sys::G4_PART_TOOL_CALL => Some(Part::Call(call(raw))),
        _ => None,
    }
}

/// Show a delta to `tell`; what has no text, as the end of a part that was cut, is not told.
///
/// # Safety
/// `raw` is the delta of a part callback.
pub(crate) unsafe fn show<R>(raw: &sys::g4_part, tell: impl FnOnce(Delta<'_>) -> R) -> Option<R> {
    match raw.kind {
        sys::G4_PART_TOOL_CALL => Some(tell(Delta::Call(call(raw)))),
        _ if raw.text_len == 0 => None,
        sys::G4_PART_THOUGHT => Some(tell(Delta::Thought(&text_of(raw)))),
        sys::G4_PART_TEXT => Some(tell(Delta::Text(&text_of(raw)))),
        _ => None,
    }
}

use std::ffi::CString;
use std::os::raw::c_char;
use std::ptr;

use crate::engine::Engine;
use crate::error::{check, Error, Result};
use crate::media::{Audio, Image, Video};
use crate::options::Options;
use crate::sys;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions; the first message only.
    System,
    /// The user.
    User,
    /// The model: what it answered before.
    Model,
    /// What functions gave that the message before called.
    Tool,
}

/// A part of a message.
#[derive(Clone)]
#[non_exhaustive]
pub enum Content<'m> {
    /// Text. Never read as a control token, whatever it says.
    Text(String),
    /// A picture.
    Image(&'m Image),
    /// Sound.
    Audio(&'m Audio),
    /// A video.
    Video(&'m Video),
    /// What the model thought before it called functions.
    Thought(String),
    /// A call that the model made: a function's name and one JSON object.
    Call(String, String),
    /// What a function gave, by its name.
    ToolResult(String, String),
}

/// A message of a conversation.
///
/// ```
/// use gemma4c::Message;
/// let message = Message::user("What is 3 times 4?");
/// assert_eq!(message.content.len(), 1);
/// ```
#[derive(Clone)]
pub struct Message<'m> {
    /// Who says it.
    pub role: Role,
    /// Its parts, in order.
    pub content: Vec<Content<'m>>,
}

impl<'m> Message<'m> {
    /// A message of one text.
    pub fn new(role: Role, text: impl Into<String>) -> Message<'m> {
        Message { role, content: vec![Content::Text(text.into())] }
    }

    /// What the user says.
    pub fn user(text: impl Into<String>) -> Message<'m> {
        Message::new(Role::User, text)
    }

    /// Instructions.
    pub fn system(text: impl Into<String>) -> Message<'m> {
        Message::new(Role::System, text)
    }

    /// What the model said before.
    pub fn model(text: impl Into<String>) -> Message<'m> {
        Message::new(Role::Model, text)
    }

    /// An answer, to go on behind it: calls that are not complete are left out.
    pub fn answer(answer: &crate::Answer) -> Message<'m> {
        let content = answer.parts.iter().filter_map(|part| match part {
            crate::Part::Text(text) => Some(Content::Text(text.clone())),
            crate::Part::Thought(text) => Some(Content::Thought(text.clone())),
            crate::Part::Call(c) if c.is_complete => Some(Content::Call(c.name.clone(), c.arguments.clone())),
            crate::Part::Call(_) => None,
        });
        Message { role: Role::Model, content: content.collect() }
    }

    /// What functions gave: (name, result) in the order of the calls.
    pub fn tool_results<S: Into<String>>(results: impl IntoIterator<Item = (S, S)>) -> Message<'m> {
        let content = results.into_iter().map(|(name, text)| Content::ToolResult(name.into(), text.into()));
        Message { role: Role::Tool, content: content.collect() }
    }

    /// The same message with one part more.
    #[must_use]
    pub fn with(mut self, part: Content<'m>) -> Message<'m> {
        self.content.push(part);
        self
    }

    /// The same message with a picture.
    #[must_use]
    pub fn with_image(self, image: &'m Image) -> Message<'m> {
        self.with(Content::Image(image))
    }

    /// The same message with sound.
    #[must_use]
    pub fn with_audio(self, audio: &'m Audio) -> Message<'m> {
        self.with(Content::Audio(audio))
    }
}

/// Borrowed text as C has it. A length of 0 may mean "up to the NUL", so an empty text ends where it begins.
pub(crate) fn data(text: &str) -> *const c_char {
    if text.is_empty() {
        b"\0".as_ptr().cast()
    } else {
        text.as_ptr().cast()
    }
}

fn set_text(part: &mut sys::g4_part, text: &str) {
    part.text = data(text);
    part.text_len = text.len();
}

/// A rendered conversation.
pub(crate) struct Chat {
    pub(crate) raw: *mut sys::g4_chat,
}

impl Drop for Chat {
    fn drop(&mut self) {
        // SAFETY: it was opened.
        unsafe { sys::g4_chat_close(self.raw) }
    }
}

impl Chat {
    /// The messages' media must outlive it: it does not leave the calls that borrow them.
    pub(crate) fn open(
        engine: &Engine,
        messages: &[Message<'_>],
        options: &Options<'_>,
        limits: sys::g4_limits,
    ) -> Result<Chat> {
        let mut names: Vec<CString> = Vec::new(); // their bytes do not move
        let mut parts: Vec<Vec<sys::g4_part>> = Vec::new();
        for message in messages {
            let made = message.content.iter().map(|c| part_of(c, &mut names)).collect::<Result<Vec<_>>>()?;
            parts.push(made);
        }
        let raw: Vec<sys::g4_message> = messages.iter().zip(&parts).map(|(m, p)| message_of(m.role, p)).collect();
        // SAFETY: zeros are the defaults.
        let mut opt: sys::g4_chat_options = unsafe { std::mem::zeroed() };
        let tools = options.tools.as_deref().unwrap_or("");
        if !tools.is_empty() {
            opt.tools = tools.as_ptr().cast();
            opt.tools_len = tools.len();
        }
        opt.thinking = i32::from(options.thinking);
        opt.limits = limits;
        let n = i32::try_from(raw.len()).map_err(|_| Error::argument("too many messages"))?;
        let mut out = ptr::null_mut();
        // SAFETY: everything that `raw` and `opt` point to lives until the end of the call.
        check(|err| unsafe { sys::g4_chat_open(&mut out, engine.raw.as_ptr(), raw.as_ptr(), n, &opt, err) })?;
        Ok(Chat { raw: out })
    }

    pub(crate) fn text(&self) -> String {
        let mut len = 0;
        // SAFETY: the text has len bytes and stays until the chat is closed.
        unsafe {
            let text = sys::g4_chat_text(self.raw, &mut len);
            String::from_utf8_lossy(crate::answer::bytes(text, len)).into_owned()
        }
    }
}

fn message_of(role: Role, parts: &[sys::g4_part]) -> sys::g4_message {
    // SAFETY: zeros are the defaults.
    let mut m: sys::g4_message = unsafe { std::mem::zeroed() };
    m.role = match role {
        Role::System => sys::G4_ROLE_SYSTEM,
        Role::User => sys::G4_ROLE_USER,
        Role::Model => sys::G4_ROLE_MODEL,
        Role::Tool => sys::G4_ROLE_TOOL,
    };
    m.parts = parts.as_ptr();
    m.n_parts = parts.len() as i32;
    m
}

fn part_of(content: &Content<'_>, names: &mut Vec<CString>) -> Result<sys::g4_part> {
    // SAFETY: zeros are the defaults.
    let mut part: sys::g4_part = unsafe { std::mem::zeroed() };
    let mut named = |name: &str| -> Result<*const c_char> {
        let name =
            CString::new(name).map_err(|_| Error::argument("a function's name cannot contain a NUL character"))?;
        let address = name.as_ptr();
        names.push(name);
        Ok(address)
    };
    match content {
        Content::Text(text) => {
            part.kind = sys::G4_PART_TEXT;
            set_text(&mut part, text);
        }
        Content::Thought(text) => {
            part.kind = sys::G4_PART_THOUGHT;
            set_text(&mut part, text);
        }
        Content::Call(name, arguments) => {
            part.kind = sys::G4_PART_TOOL_CALL;
            part.name = named(name)?;
            set_text(&mut part, arguments);
        }
        Content::ToolResult(name, text) => {
            part.kind = sys::G4_PART_TOOL_RESULT;
            part.name = named(name)?;
            set_text(&mut part, text);
        }
        Content::Image(image) => {
            part.kind = sys::G4_PART_IMAGE;
            part.image = &image.raw;
        }
        Content::Audio(audio) => {
            part.kind = sys::G4_PART_AUDIO;
            part.audio = &audio.raw;
        }
        Content::Video(video) => {
            part.kind = sys::G4_PART_VIDEO;
            part.video = &video.raw;
        }
    }
    Ok(part)
}

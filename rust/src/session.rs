use std::any::Any;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::os::raw::{c_int, c_void};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use crate::answer::{Answer, Delta, Stop};
use crate::engine::Engine;
use crate::error::{check, Error, Result};
use crate::message::{data, Chat, Message};
use crate::options::{Cancel, Options, Prepared};
use crate::sink::{on_output, on_part, Sink};
use crate::sys;
use crate::Token;

/// How a session is opened. The default: 8,192 positions, without limits.
#[derive(Clone, Default)]
pub struct SessionOptions<'a> {
    /// Positions of the timeline at most; 0: 8,192, or as many as the model has. Memory is taken as it fills.
    pub context: u32,
    /// Ends each call of the session.
    pub cancel: Option<&'a Cancel>,
    /// The time that a call may take.
    pub time: Option<Duration>,
}

impl SessionOptions<'_> {
    fn raw(&self) -> sys::g4_session_options {
        // SAFETY: zeros are the defaults.
        let mut raw: sys::g4_session_options = unsafe { std::mem::zeroed() };
        raw.n_ctx = c_int::try_from(self.context).unwrap_or(c_int::MAX);
        raw.limits = crate::options::limits(self.cancel, self.time);
        raw
    }
}

/// A token of a text that is continued, and what became whole characters with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece<'a> {
    /// None: text that was held back, because a stop string might have begun with it.
    pub token: Option<Token>,
    /// May be empty.
    pub text: &'a str,
    /// Natural logarithm of its probability, if [`Options::logprobs`] asked for it.
    pub logprob: f32,
}

/// A timeline of tokens with their keys and values. It belongs to one thread at a time.
///
/// ```
/// use std::ops::ControlFlow;
/// use gemma4c::{Engine, Message, Options, Sampling};
/// let engine = Engine::open("../models/tiny.g4")?;
/// let mut session = engine.session()?;
/// let options = Options { max_tokens: Some(40), sampling: Some(Sampling::greedy()), ..Options::default() };
/// let answer = session.respond(&[Message::user("What is the opposite of hard?")], &options, |_| ControlFlow::Continue(()))?;
/// assert!(answer.text().contains("soft"), "{}", answer.text());
/// # Ok::<(), gemma4c::Error>(())
/// ```
pub struct Session<'e> {
    pub(crate) raw: NonNull<sys::g4_session>,
    pub(crate) engine: &'e Engine,
    limits: PhantomData<&'e Cancel>,
}

// SAFETY: a session may be used by any thread, by one at a time: the calls that compute take &mut self.
unsafe impl Send for Session<'_> {}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: a batch that used it has given it back.
        unsafe { sys::g4_session_close(self.raw.as_ptr()) }
    }
}

impl<'e> Session<'e> {
    fn own(raw: *mut sys::g4_session, engine: &'e Engine) -> Session<'e> {
        Session { raw: NonNull::new(raw).expect("a session that was opened"), engine, limits: PhantomData }
    }

    pub(crate) fn open(engine: &'e Engine, options: &SessionOptions<'e>) -> Result<Session<'e>> {
        let (opt, mut out) = (options.raw(), ptr::null_mut());
        // SAFETY: the flag outlives the session, by its lifetime.
        check(|err| unsafe { sys::g4_session_open(&mut out, engine.raw.as_ptr(), &opt, err) })?;
        Ok(Session::own(out, engine))
    }

    /// The engine it was opened with.
    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// Tokens in the timeline.
    pub fn tokens(&self) -> &[Token] {
        // SAFETY: there are n of them until the next call, which needs &mut self.
        unsafe {
            let n = sys::g4_session_n(self.raw.as_ptr()) as usize;
            let tokens = sys::g4_session_tokens(self.raw.as_ptr());
            if n == 0 {
                &[]
            } else {
                slice::from_raw_parts(tokens, n)
            }
        }
    }

    /// Positions that it can have.
    pub fn context(&self) -> usize {
        // SAFETY: a session.
        unsafe { sys::g4_session_n_ctx(self.raw.as_ptr()) as usize }
    }

    /// Append text and evaluate it, with BOS in front of the first.
    pub fn eval_text(&mut self, text: &str) -> Result<()> {
        check(|err| unsafe { sys::g4_session_eval_text(self.raw.as_ptr(), data(text), text.len(), err) })
    }

    /// Append tokens and evaluate them.
    pub fn eval(&mut self, tokens: &[Token]) -> Result<()> {
        let n = c_int::try_from(tokens.len()).map_err(|_| Error::argument("too many tokens"))?;
        // SAFETY: there are n of them; ids outside the vocabulary are an error.
        check(|err| unsafe { sys::g4_session_eval(self.raw.as_ptr(), tokens.as_ptr(), n, err) })
    }

    /// Logits of what may follow, one a token of the vocabulary; None: the timeline is empty.
    pub fn logits(&mut self) -> Option<&[f32]> {
        let n = self.engine.vocabulary;
        // SAFETY: n of them stay until the next call, which needs &mut self.
        unsafe {
            let logits = sys::g4_session_logits(self.raw.as_ptr());
            if logits.is_null() {
                None
            } else {
                Some(slice::from_raw_parts(logits, n))
            }
        }
    }

    /// Go back to the first n tokens.
    pub fn rewind(&mut self, n: usize) -> Result<()> {
        let n = c_int::try_from(n).unwrap_or(c_int::MAX);
        check(|err| unsafe { sys::g4_session_rewind(self.raw.as_ptr(), n, err) })
    }

    /// A second session in the same state, which shares its memory until they differ.
    pub fn fork(&self) -> Result<Session<'e>> {
        let mut out = ptr::null_mut();
        // SAFETY: it has the options of this one, whose flag lives as long.
        check(|err| unsafe { sys::g4_session_fork(&mut out, self.raw.as_ptr(), err) })?;
        Ok(Session::own(out, self.engine))
    }

    /// Write the timeline with its keys and values.
    pub fn save(&self, mut to: impl Write) -> Result<()> {
        let mut transfer = Transfer::new(Stream::To(&mut to));
        let user = (&mut transfer as *mut Transfer<'_>).cast();
        // SAFETY: the callback is called during the call only.
        let done = check(|err| unsafe { sys::g4_session_save(self.raw.as_ptr(), Some(on_write), user, err) });
        transfer.finish(done)
    }

    /// Read what [`Session::save`] wrote, with the same model.
    pub fn load(engine: &'e Engine, options: &SessionOptions<'e>, mut from: impl Read) -> Result<Session<'e>> {
        let (opt, mut out) = (options.raw(), ptr::null_mut());
        let mut transfer = Transfer::new(Stream::From(&mut from));
        let user = (&mut transfer as *mut Transfer<'_>).cast();
        // SAFETY: as above.
        let done =
            check(|err| unsafe { sys::g4_session_load(&mut out, engine.raw.as_ptr(), &opt, Some(on_read), user, err) });
        transfer.finish(done)?;
        Ok(Session::own(out, engine))
    }

    /// Continue the timeline, as a base model does; each token goes to `tell`, whose Break ends it.
    ///
    /// Grammars, tools and thoughts are for [`Session::respond`].
    pub fn generate<F>(&mut self, options: &Options<'_>, tell: F) -> Result<Answer>
    where
        F: FnMut(Piece<'_>) -> ControlFlow<()>,
    {
        let mut text = String::new();
        let mut tell = tell;
        let mut sink = Sink::new(|piece: Piece<'_>| {
            text.push_str(piece.text);
            tell(piece)
        });
        let mut prepared = Prepared::new(self.engine, options)?;
        let result = self.generate_into(&mut prepared.generate, &mut sink);
        sink.rethrow();
        let result = result?;
        drop(sink);
        Ok(Answer::of_text(text, &result))
    }

    fn generate_into<F>(&mut self, options: &mut sys::g4_generate_options, sink: &mut Sink<F>) -> Result<sys::g4_result>
    where
        F: FnMut(Piece<'_>) -> ControlFlow<()>,
    {
        options.output = Some(on_output::<F>);
        options.user = (sink as *mut Sink<F>).cast();
        // SAFETY: the call fills the result.
        let mut result: sys::g4_result = unsafe { std::mem::zeroed() };
        check(|err| unsafe { sys::g4_session_generate(self.raw.as_ptr(), options, &mut result, err) })?;
        Ok(result)
    }

    /// The model's answer to a conversation, whose beginning the session may hold already. Pieces go to `tell` as they
    /// come; its Break ends the answer.
    ///
    /// What the session evaluated stays; a call that fails leaves it usable.
    pub fn respond<F>(&mut self, messages: &[Message<'_>], options: &Options<'_>, tell: F) -> Result<Answer>
    where
        F: FnMut(Delta<'_>) -> ControlFlow<()>,
    {
        let mut prepared = Prepared::new(self.engine, options)?;
        let chat = Chat::open(self.engine, messages, options, prepared.limits)?;
        let mut sink = Sink::new(tell);
        prepared.respond.part = Some(on_part::<F>);
        prepared.respond.user = (&mut sink as *mut Sink<F>).cast();
        // SAFETY: the calls fill them; what the options point to lives until the end of this function.
        let (mut counts, mut result): (sys::g4_sync_counts, sys::g4_result) = unsafe { std::mem::zeroed() };
        check(|err| unsafe { sys::g4_session_sync_chat(self.raw.as_ptr(), chat.raw, &mut counts, err) })?;
        let mut response = ptr::null_mut();
        let done = check(|err| unsafe {
            sys::g4_session_respond(self.raw.as_ptr(), chat.raw, &prepared.respond, &mut response, &mut result, err)
        });
        // SAFETY: a response that was given out is finished, also of an answer that was cancelled.
        let answer = unsafe { Answer::take(response, &result, counts.reused as usize) };
        sink.rethrow();
        match done {
            Err(e) if e.code != crate::Code::Canceled || answer.stop != Stop::Canceled => Err(e),
            _ => Ok(answer),
        }
    }
}

/// Where a timeline is written, or read from, by callbacks: what fails there is told where the call returns.
struct Transfer<'t> {
    stream: Stream<'t>,
    failed: Option<Error>,
    panic: Option<Box<dyn Any + Send>>,
}

enum Stream<'t> {
    To(&'t mut dyn Write),
    From(&'t mut dyn Read),
}

impl<'t> Transfer<'t> {
    fn new(stream: Stream<'t>) -> Transfer<'t> {
        Transfer { stream, failed: None, panic: None }
    }

    fn run(&mut self, call: impl FnOnce(&mut Stream<'t>) -> io::Result<()>) -> c_int {
        match catch_unwind(AssertUnwindSafe(|| call(&mut self.stream))) {
            Ok(Ok(())) => return 0,
            Ok(Err(e)) => self.failed = Some(Error { code: crate::Code::Io, message: e.to_string() }),
            Err(payload) => self.panic = Some(payload),
        }
        1
    }

    fn finish(self, done: Result<()>) -> Result<()> {
        if let Some(payload) = self.panic {
            resume_unwind(payload);
        }
        self.failed.map_or(done, Err)
    }
}

unsafe extern "C" fn on_write(user: *mut c_void, data: *const c_void, size: usize) -> c_int {
    let bytes = crate::answer::bytes(data.cast(), size);
    (*user.cast::<Transfer<'_>>()).run(|stream| match stream {
        Stream::To(to) => to.write_all(bytes),
        Stream::From(_) => Ok(()),
    })
}

unsafe extern "C" fn on_read(user: *mut c_void, data: *mut c_void, size: usize) -> c_int {
    if size == 0 {
        return 0;
    }
    let bytes = slice::from_raw_parts_mut(data.cast::<u8>(), size);
    bytes.fill(0); // a reader may look at what it is given
    (*user.cast::<Transfer<'_>>()).run(|stream| match stream {
        Stream::From(from) => from.read_exact(bytes),
        Stream::To(_) => Ok(()),
    })
}

use std::any::Any;
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::os::raw::{c_int, c_void};
use std::panic::resume_unwind;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use crate::answer::{Answer, Delta, Stop};
use crate::engine::Engine;
use crate::error::{check, message, Error, Result};
use crate::message::{Chat, Message};
use crate::options::{Options, Prepared};
use crate::session::Session;
use crate::sink::{on_part, Sink};
use crate::sys;

/// How a batch is opened. The default serves.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchOptions {
    /// Tokens in a forward pass at most; 0: as many as the engine can.
    pub rows: u32,
    /// Tokens of prompts in a pass that also answers; 0: as many as make it about 2.5 times as long.
    pub prompt_rows: u32,
}

/// An answer of a batch, and the session back.
pub struct Finished<'e> {
    /// What [`Batch::add`] gave.
    pub ticket: u64,
    /// It holds the conversation and the answer.
    pub session: Session<'e>,
    /// What became of it.
    pub answer: Result<Answer>,
}

/// A request that a batch did not take, and the session back.
pub struct Rejected<'e> {
    /// As it was.
    pub session: Session<'e>,
    /// Why.
    pub error: Error,
}

impl std::fmt::Debug for Rejected<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

type Tell<'e> = Box<dyn FnMut(Delta<'_>) -> ControlFlow<()> + 'e>;

/// What callbacks leave for the call that they were made from.
#[derive(Default)]
struct Left<'e> {
    finished: Vec<Finished<'e>>,
    panic: Option<Box<dyn Any + Send>>,
}
type Queue<'e> = Rc<RefCell<Left<'e>>>;

/// A request that is being answered: the library holds its address.
struct Pending<'e> {
    ticket: u64,
    session: Session<'e>,
    sink: Sink<Tell<'e>>,
    prepared: Box<Prepared>,
    queue: Queue<'e>,
}

/// Several answers in one read of the weights, each with the bits it would have alone.
///
/// ```
/// use gemma4c::{Engine, Message, Options};
/// let engine = Engine::open("../models/tiny.g4")?;
/// let mut batch = engine.batch()?;
/// let options = Options { max_tokens: Some(20), ..Options::default() };
/// for question in ["What is the opposite of hard?", "What is 39 - 1?"] {
///     batch.add(engine.session()?, &[Message::user(question)], &options, |_| std::ops::ControlFlow::Continue(())).unwrap();
/// }
/// let answers = batch.run()?;
/// assert_eq!(answers.len(), 2);
/// # Ok::<(), gemma4c::Error>(())
/// ```
pub struct Batch<'e> {
    raw: NonNull<sys::g4_batch>,
    engine: &'e Engine,
    queue: Queue<'e>,
    next: u64,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // SAFETY: it cancels what is left, which hands each session to the queue.
        unsafe { sys::g4_batch_close(self.raw.as_ptr()) }
    }
}

impl<'e> Batch<'e> {
    pub(crate) fn open(engine: &'e Engine, options: &BatchOptions) -> Result<Batch<'e>> {
        // SAFETY: zeros are the defaults.
        let mut opt: sys::g4_batch_options = unsafe { std::mem::zeroed() };
        opt.n_rows = c_int::try_from(options.rows).unwrap_or(c_int::MAX);
        opt.prompt_rows = c_int::try_from(options.prompt_rows).unwrap_or(c_int::MAX);
        let mut out = ptr::null_mut();
        check(|err| unsafe { sys::g4_batch_open(&mut out, engine.raw.as_ptr(), &opt, err) })?;
        let raw = NonNull::new(out).expect("a batch that was opened");
        Ok(Batch { raw, engine, queue: Queue::default(), next: 0 })
    }

    /// Requests that are being answered.
    pub fn len(&self) -> usize {
        // SAFETY: a batch.
        unsafe { sys::g4_batch_n(self.raw.as_ptr()) as usize }
    }

    /// Nobody is being answered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Let the session answer a conversation among the others. Gives a number by which [`Finished`] names it. Pieces go
    /// to `tell` as they come; its Break ends the answer. Media are encoded here.
    pub fn add<F>(
        &mut self,
        session: Session<'e>,
        messages: &[Message<'_>],
        options: &Options<'e>,
        tell: F,
    ) -> std::result::Result<u64, Rejected<'e>>
    where
        F: FnMut(Delta<'_>) -> ControlFlow<()> + 'e,
    {
        let made = Prepared::new(self.engine, options)
            .and_then(|prepared| Ok((Chat::open(self.engine, messages, options, prepared.limits)?, prepared)));
        let (chat, prepared) = match made {
            Ok(made) => made,
            Err(error) => return Err(Rejected { session, error }),
        };
        let raw = session.raw.as_ptr();
        let sink: Sink<Tell<'e>> = Sink::new(Box::new(tell));
        let pending = Pending { ticket: self.next, session, sink, prepared, queue: Rc::clone(&self.queue) };
        let pending = Box::into_raw(Box::new(pending));
        // SAFETY: `pending` stays where it is until `on_done` takes it back, or this function, where it was refused.
        unsafe {
            let respond = &mut (*pending).prepared.respond;
            respond.part = Some(on_part::<Tell<'e>>);
            respond.user = ptr::addr_of_mut!((*pending).sink).cast();
            let mut request: sys::g4_batch_respond_request = std::mem::zeroed();
            request.respond = &*respond;
            request.done = Some(on_done);
            request.user = pending.cast();
            match check(|err| sys::g4_batch_respond(self.raw.as_ptr(), raw, chat.raw, &request, err)) {
                Ok(()) => {
                    self.next += 1;
                    Ok(self.next - 1)
                }
                Err(error) => Err(Rejected { session: Box::from_raw(pending).session, error }),
            }
        }
    }

    /// One forward pass: a token or more of each that answers, and pieces of the prompts of the others. Gives those that
    /// are finished.
    pub fn step(&mut self) -> Result<Vec<Finished<'e>>> {
        let done = check(|err| unsafe { sys::g4_batch_step(self.raw.as_ptr(), err) });
        let left = std::mem::take(&mut *self.queue.borrow_mut());
        if let Some(payload) = left.panic {
            resume_unwind(payload);
        }
        done.map(|()| left.finished)
    }

    /// Steps until all are finished; gives them in the order in which they ended.
    pub fn run(&mut self) -> Result<Vec<Finished<'e>>> {
        let mut all = std::mem::take(&mut self.queue.borrow_mut().finished);
        while !self.is_empty() {
            all.append(&mut self.step()?);
        }
        Ok(all)
    }
}

unsafe extern "C" fn on_done(
    user: *mut c_void,
    _session: *mut sys::g4_session,
    status: c_int,
    response: *mut sys::g4_response,
    result: *const sys::g4_result,
    err: *const sys::g4_error,
) {
    // The lifetime is that of the batch whose step, close or add calls this.
    let mut pending = Box::from_raw(user.cast::<Pending<'_>>());
    let none: sys::g4_result = std::mem::zeroed();
    let result = if result.is_null() { &none } else { &*result };
    let answer = Answer::take(response, result, result.n_reused as usize);
    let answer = match status {
        sys::G4_OK => Ok(answer),
        sys::G4_ERR_CANCELED if answer.stop == Stop::Canceled => Ok(answer),
        _ => Err(Error::of(status, if err.is_null() { String::new() } else { message(&*err) })),
    };
    let panic = pending.sink.take_panic();
    let Pending { ticket, session, queue, .. } = *pending;
    let mut left = queue.borrow_mut();
    left.panic = left.panic.take().or(panic);
    left.finished.push(Finished { ticket, session, answer });
}

//! Closures behind C callbacks. A panic must not cross C: it ends the answer and goes on where the call returns.
use std::any::Any;
use std::ops::ControlFlow;
use std::os::raw::{c_int, c_void};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use crate::answer::{bytes, show, Delta};
use crate::session::Piece;
use crate::sys;

pub(crate) struct Sink<F> {
    tell: F,
    panic: Option<Box<dyn Any + Send>>,
}

impl<F> Sink<F> {
    pub(crate) fn new(tell: F) -> Sink<F> {
        Sink { tell, panic: None }
    }

    /// Run the closure; nonzero ends the answer.
    fn guard(&mut self, call: impl FnOnce(&mut F) -> ControlFlow<()>) -> c_int {
        if self.panic.is_some() {
            return 1;
        }
        match catch_unwind(AssertUnwindSafe(|| call(&mut self.tell))) {
            Ok(ControlFlow::Continue(())) => 0,
            Ok(ControlFlow::Break(())) => 1,
            Err(payload) => {
                self.panic = Some(payload);
                1
            }
        }
    }

    /// The panic of a closure, if one had any.
    pub(crate) fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        self.panic.take()
    }

    /// Go on with it.
    pub(crate) fn rethrow(&mut self) {
        if let Some(payload) = self.take_panic() {
            resume_unwind(payload);
        }
    }
}

/// A g4_part_fn whose user is a Sink<F>.
pub(crate) unsafe extern "C" fn on_part<F>(user: *mut c_void, _index: c_int, delta: *const sys::g4_part) -> c_int
where
    F: FnMut(Delta<'_>) -> ControlFlow<()>,
{
    let sink = &mut *user.cast::<Sink<F>>();
    sink.guard(|tell| show(&*delta, tell).unwrap_or(ControlFlow::Continue(())))
}

/// A g4_output_fn likewise, of text that is continued.
pub(crate) unsafe extern "C" fn on_output<F>(user: *mut c_void, output: *const sys::g4_output) -> c_int
where
    F: FnMut(Piece<'_>) -> ControlFlow<()>,
{
    let (sink, o) = (&mut *user.cast::<Sink<F>>(), &*output);
    let text = String::from_utf8_lossy(bytes(o.text, o.text_len));
    let token = if o.token < 0 { None } else { Some(o.token) };
    sink.guard(|tell| tell(Piece { token, text: &text, logprob: o.logprob }))
}

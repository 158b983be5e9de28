//! Google's Gemma 4 on a CPU: the C library gemma4.c, compiled into this crate, in safe Rust.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use gemma4c::{Delta, Engine, Message, Options};
//!
//! fn main() -> gemma4c::Result<()> {
//!     let engine = Engine::open("model.g4")?;
//!     let mut session = engine.session()?;
//!     let question = [Message::user("Why is the sky blue?")];
//!     let answer = session.respond(&question, &Options::default(), |delta| {
//!         if let Delta::Text(text) = delta {
//!             print!("{text}");
//!         }
//!         ControlFlow::Continue(())
//!     })?;
//!     println!("\n{} tokens", answer.tokens);
//!     Ok(())
//! }
//! ```
//!
//! An [`Engine`] is the weights, mapped from a file that export.py wrote; any number of [`Session`]s share it, on any
//! threads. A session is one timeline of tokens and answers one conversation at a time. A [`Batch`] lets several answer
//! at once, in one read of the weights, each with the bits it would have alone. Lifetimes tie them together: nothing can
//! be used after what it stands on was dropped. None of these compile:
//!
//! ```compile_fail,E0505
//! let engine = gemma4c::Engine::open("model.g4").unwrap();
//! let mut session = engine.session().unwrap();
//! drop(engine);
//! session.eval_text("a").unwrap();
//! ```
//!
//! ```compile_fail,E0505
//! let engine = gemma4c::Engine::open("model.g4").unwrap();
//! let grammar = engine.grammar_from_rules("root ::= \"a\"").unwrap();
//! let mut batch = engine.batch().unwrap();
//! let options = gemma4c::Options { grammar: Some(&grammar), ..Default::default() };
//! let _ = batch.add(engine.session().unwrap(), &[], &options, |_| std::ops::ControlFlow::Continue(()));
//! drop(grammar);
//! batch.run().unwrap();
//! ```
//!
//! ```compile_fail,E0382
//! let engine = gemma4c::Engine::open("model.g4").unwrap();
//! let (mut batch, mut session) = (engine.batch().unwrap(), engine.session().unwrap());
//! let _ = batch.add(session, &[], &Default::default(), |_| std::ops::ControlFlow::Continue(()));
//! session.eval_text("a").unwrap(); // the batch has it
//! ```
//!
//! ```compile_fail,E0277
//! let engine = gemma4c::Engine::open("model.g4").unwrap();
//! let grammar = engine.grammar_from_rules("root ::= \"a\"").unwrap();
//! std::thread::scope(|s| { s.spawn(|| { let shared = &grammar; drop(shared) }); }); // it serves one thread
//! ```
//!
//! Closures are told of every piece of an answer as it comes and end it with [`std::ops::ControlFlow::Break`].
#![warn(missing_docs)]

mod answer;
mod batch;
mod engine;
mod error;
mod media;
mod message;
mod options;
mod session;
mod sink;
#[doc(hidden)]
#[rustfmt::skip]
pub mod sys;

pub use answer::{Answer, Call, Delta, Part, Stop};
pub use batch::{Batch, BatchOptions, Finished, Rejected};
pub use engine::{Engine, EngineOptions, Grammar, Info};
pub use error::{Code, Error, Result};
pub use media::{Audio, Image, Video};
pub use message::{Content, Message, Role};
pub use options::{Cancel, Options, Sampling, ToolChoice};
pub use session::{Piece, Session, SessionOptions};

/// The number of a token in the vocabulary.
pub type Token = i32;

/// The version of the engine.
pub fn version() -> &'static str {
    // SAFETY: a constant text of the library.
    unsafe { std::ffi::CStr::from_ptr(sys::g4_version()) }.to_str().unwrap_or("")
}

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::os::raw::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};

use crate::batch::{Batch, BatchOptions};
use crate::error::{check, Error, Result};
use crate::media::path_of;
use crate::message::{data, Chat, Message};
use crate::options::{Options, Sampling};
use crate::session::{Session, SessionOptions};
use crate::sys;
use crate::Token;

/// How an engine is opened. The default serves.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// 0: as many as there are cores to be used.
    pub threads: u32,
    /// A table of kernels, as `gemma4 info` lists them; None: the best that this CPU has.
    pub isa: Option<String>,
    /// Copy what every token reads into huge pages: slower to open, faster to answer.
    pub huge_pages: bool,
    /// Read the file instead of mapping it, so that nobody who truncates it can end the program.
    pub no_mmap: bool,
}

/// What a model is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// Of the model.
    pub name: String,
    /// The kernels that run.
    pub isa: String,
    /// Layers of the decoder.
    pub layers: u32,
    /// Width of the stream.
    pub hidden: u32,
    /// Tokens of the vocabulary: logits of a position.
    pub vocabulary: u32,
    /// Threads that compute.
    pub threads: u32,
    /// Positions of a timeline at most.
    pub max_context: u32,
    /// Instruction tuned: it has a chat template.
    pub is_chat: bool,
    /// It sees pictures and video.
    pub has_image: bool,
    /// It hears.
    pub has_audio: bool,
    /// Weights.
    pub parameters: u64,
    /// Bytes of weights that a token reads.
    pub decode_bytes: u64,
}

/// The weights: read-only, shared by any number of sessions on any threads.
///
/// ```
/// use gemma4c::Engine;
/// let engine = Engine::open("../models/tiny.g4")?;
/// let ids = engine.tokenize("Hello")?;
/// assert_eq!(engine.detokenize(&ids), b"Hello");
/// # Ok::<(), gemma4c::Error>(())
/// ```
pub struct Engine {
    pub(crate) raw: NonNull<sys::g4_engine>,
    pub(crate) vocabulary: usize, // logits of a position
}

// SAFETY: an open engine is read-only, and its forward passes take turns on its workers.
unsafe impl Send for Engine {}
unsafe impl Sync for Engine {}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: sessions, grammars and batches borrow the engine, so they are gone.
        unsafe { sys::g4_engine_close(self.raw.as_ptr()) }
    }
}

fn text_of(text: *const c_char) -> String {
    // SAFETY: texts of the library end with a NUL; none is NULL here.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Engine {
    /// Map a model file that export.py wrote.
    pub fn open(path: impl AsRef<Path>) -> Result<Engine> {
        Engine::open_with(path, &EngineOptions::default())
    }

    /// The same with options.
    pub fn open_with(path: impl AsRef<Path>, options: &EngineOptions) -> Result<Engine> {
        let path = path_of(path.as_ref())?;
        let isa = options.isa.as_deref().map(CString::new).transpose();
        let isa = isa.map_err(|_| Error::argument("isa cannot contain a NUL character"))?;
        // SAFETY: zeros are the defaults.
        let mut opt: sys::g4_engine_options = unsafe { std::mem::zeroed() };
        opt.model_path = path.as_ptr();
        opt.n_threads = c_int::try_from(options.threads).unwrap_or(c_int::MAX);
        opt.isa = isa.as_ref().map_or(ptr::null(), |s| s.as_ptr());
        opt.huge_pages = c_int::from(options.huge_pages);
        opt.no_mmap = c_int::from(options.no_mmap);
        let mut out = ptr::null_mut();
        // SAFETY: what the options point to lives until the end of the call.
        check(|err| unsafe { sys::g4_engine_open(&mut out, &opt, err) })?;
        let mut engine = Engine { raw: NonNull::new(out).expect("an engine that was opened"), vocabulary: 0 };
        engine.vocabulary = engine.raw_info().n_vocab as usize;
        Ok(engine)
    }

    fn raw_info(&self) -> sys::g4_engine_info {
        // SAFETY: the call fills it.
        unsafe {
            let mut info: sys::g4_engine_info = std::mem::zeroed();
            sys::g4_engine_get_info(self.raw.as_ptr(), &mut info);
            info
        }
    }

    /// What the model is.
    pub fn info(&self) -> Info {
        let i = self.raw_info();
        Info {
            name: text_of(i.name),
            isa: text_of(i.isa),
            layers: i.n_layers as u32,
            hidden: i.hidden as u32,
            vocabulary: i.n_vocab as u32,
            threads: i.n_threads as u32,
            max_context: i.max_ctx as u32,
            is_chat: i.is_chat != 0,
            has_image: i.has_image != 0,
            has_audio: i.has_audio != 0,
            parameters: i.n_params,
            decode_bytes: i.decode_bytes,
        }
    }

    /// The sampling that the model file recommends.
    pub fn recommended_sampling(&self) -> Sampling {
        // SAFETY: the call fills it.
        unsafe {
            let mut raw: sys::g4_sampling = std::mem::zeroed();
            sys::g4_sampling_recommended(self.raw.as_ptr(), &mut raw);
            Sampling::of(&raw)
        }
    }

    fn ids(&self, text: &str, specials: bool) -> Result<Vec<Token>> {
        let (e, mut n) = (self.raw.as_ptr(), 0);
        let mut ids: Vec<Token> = vec![0; text.len() + 1]; // a token has a byte at least
                                                           // SAFETY: the call writes at most ids.len() of them.
        check(|err| unsafe {
            sys::g4_tokenize(e, data(text), text.len(), c_int::from(specials), ids.as_mut_ptr(), ids.len(), &mut n, err)
        })?;
        ids.truncate(n);
        Ok(ids)
    }

    /// Token ids of text, without BOS. Nothing in it becomes a control token.
    pub fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        self.ids(text, false)
    }

    /// The same, where markers such as `<|turn>` become control tokens: for text that is trusted.
    pub fn tokenize_trusted(&self, text: &str) -> Result<Vec<Token>> {
        self.ids(text, true)
    }

    /// The bytes of tokens; control tokens give their names. A character may be spread over several.
    pub fn detokenize(&self, tokens: &[Token]) -> Vec<u8> {
        let (mut out, mut piece) = (Vec::new(), [0u8; 256]);
        for &token in tokens {
            // SAFETY: a token has at most 256 bytes.
            let n = unsafe { sys::g4_token_bytes(self.raw.as_ptr(), token, 0, piece.as_mut_ptr().cast()) };
            out.extend_from_slice(&piece[..n]);
        }
        out
    }

    /// A conversation as the model's chat template writes it.
    pub fn render(&self, messages: &[Message<'_>], options: &Options<'_>) -> Result<String> {
        // SAFETY: zeros are no limits.
        Ok(Chat::open(self, messages, options, unsafe { std::mem::zeroed() })?.text())
    }

    /// An empty timeline of up to 8,192 tokens.
    pub fn session(&self) -> Result<Session<'_>> {
        self.session_with(&SessionOptions::default())
    }

    /// The same with options.
    pub fn session_with<'e>(&'e self, options: &SessionOptions<'e>) -> Result<Session<'e>> {
        Session::open(self, options)
    }

    /// Room for several answers at a time.
    pub fn batch(&self) -> Result<Batch<'_>> {
        Batch::open(self, &BatchOptions::default())
    }

    /// The same with options.
    pub fn batch_with(&self, options: &BatchOptions) -> Result<Batch<'_>> {
        Batch::open(self, options)
    }

    /// Texts that are values of a JSON Schema. What cannot be held exactly is looser than the schema says, and told to
    /// `warn`, a line each.
    pub fn grammar_from_schema<F: FnMut(&str)>(&self, schema: &str, warn: F) -> Result<Grammar<'_>> {
        unsafe extern "C" fn on_warning<F: FnMut(&str)>(user: *mut c_void, message: *const c_char) {
            let warn = &mut *user.cast::<F>();
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| warn(&text_of(message))));
        }
        let mut warn = warn;
        // SAFETY: zeros are the defaults; the closure lives until the end of the call.
        let mut opt: sys::g4_schema_options = unsafe { std::mem::zeroed() };
        opt.warn = Some(on_warning::<F>);
        opt.user = (&mut warn as *mut F).cast();
        let (e, mut out) = (self.raw.as_ptr(), ptr::null_mut());
        check(|err| unsafe { sys::g4_grammar_from_schema(&mut out, e, data(schema), schema.len(), &opt, err) })?;
        Ok(Grammar::own(out))
    }

    /// Texts that rules `name ::= expression` describe, from the first on, or the one called root.
    pub fn grammar_from_rules(&self, rules: &str) -> Result<Grammar<'_>> {
        let (e, mut out) = (self.raw.as_ptr(), ptr::null_mut());
        // SAFETY: the rules are borrowed for the call.
        check(|err| unsafe { sys::g4_grammar_from_rules(&mut out, e, data(rules), rules.len(), ptr::null(), err) })?;
        Ok(Grammar::own(out))
    }
}

/// What an answer's text must be. It serves any number of answers, on one thread.
pub struct Grammar<'e> {
    pub(crate) raw: NonNull<sys::g4_grammar>,
    engine: PhantomData<&'e Engine>,
}

// SAFETY: it may move to another thread; it is not Sync.
unsafe impl Send for Grammar<'_> {}

impl Grammar<'_> {
    fn own(raw: *mut sys::g4_grammar) -> Self {
        Grammar { raw: NonNull::new(raw).expect("a grammar that was made"), engine: PhantomData }
    }
}

impl Drop for Grammar<'_> {
    fn drop(&mut self) {
        // SAFETY: answers that use it borrow it.
        unsafe { sys::g4_grammar_close(self.raw.as_ptr()) }
    }
}

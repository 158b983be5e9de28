use std::ffi::CStr;
use std::fmt;
use std::os::raw::c_int;

use crate::sys;

/// Of what kind an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// An argument is out of range, or not what the call can take.
    Argument,
    /// An allocation failed, or a plan does not fit.
    Memory,
    /// A file could not be opened, mapped, read or written.
    Io,
    /// A file is not what it should be, cut off, or at odds with itself.
    Format,
    /// A sound file of a version that this library cannot read.
    Version,
    /// What the model cannot do: sound, for one without an audio tower.
    Unsupported,
    /// The input does not fit in the context.
    Context,
    /// Saved state of another model.
    Mismatch,
    /// The call was cancelled, or its time was over.
    Canceled,
}

/// What failed, in one line that names the file, the tensor or the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its kind.
    pub code: Code,
    /// What, where, expected and found.
    pub message: String,
}

/// What calls of this crate give.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(crate) fn argument(message: impl Into<String>) -> Error {
        Error { code: Code::Argument, message: message.into() }
    }

    pub(crate) fn of(status: c_int, message: String) -> Error {
        let code = match status {
            sys::G4_ERR_MEMORY => Code::Memory,
            sys::G4_ERR_IO => Code::Io,
            sys::G4_ERR_FORMAT => Code::Format,
            sys::G4_ERR_VERSION => Code::Version,
            sys::G4_ERR_UNSUPPORTED => Code::Unsupported,
            sys::G4_ERR_CONTEXT => Code::Context,
            sys::G4_ERR_MISMATCH => Code::Mismatch,
            sys::G4_ERR_CANCELED => Code::Canceled,
            _ => Code::Argument,
        };
        Error { code, message }
    }
}

/// The words of a C error.
pub(crate) fn message(err: &sys::g4_error) -> String {
    // SAFETY: the library ends its messages with a NUL.
    unsafe { CStr::from_ptr(err.message.as_ptr()) }.to_string_lossy().into_owned()
}

/// Run a call that returns a status and takes an error last.
pub(crate) fn check(call: impl FnOnce(*mut sys::g4_error) -> c_int) -> Result<()> {
    // SAFETY: all zeros is an error that says nothing.
    let mut err: sys::g4_error = unsafe { std::mem::zeroed() };
    match call(&mut err) {
        sys::G4_OK => Ok(()),
        status => Err(Error::of(status, message(&err))),
    }
}

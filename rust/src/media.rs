use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use crate::error::{check, Error, Result};
use crate::sys;

/// A path as C has it.
pub(crate) fn path_of(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::argument("a path cannot contain a NUL byte"))
}

macro_rules! medium {
    ($(#[$doc:meta])* $name:ident, $raw:ident, $load:ident, $decode:ident, $free:ident) => {
        $(#[$doc])*
        pub struct $name {
            pub(crate) raw: sys::$raw,
            own: bool, // the library made it and frees it
            #[allow(dead_code)] // holds what `raw` points to otherwise
            data: Data,
        }

        // SAFETY: plain memory that nobody changes.
        unsafe impl Send for $name {}
        unsafe impl Sync for $name {}

        impl $name {
            /// Read a file of any usual format. What is not read here itself is read by the program ffmpeg.
            pub fn load(path: impl AsRef<Path>) -> Result<$name> {
                let path = path_of(path.as_ref())?;
                // SAFETY: zeros are an empty medium, which the call fills.
                let mut raw: sys::$raw = unsafe { std::mem::zeroed() };
                check(|err| unsafe { sys::$load(&mut raw, path.as_ptr(), ptr::null(), err) })?;
                Ok($name { raw, own: true, data: Data::None })
            }

            /// The same of a file's bytes.
            pub fn decode(bytes: &[u8]) -> Result<$name> {
                // SAFETY: as above.
                let mut raw: sys::$raw = unsafe { std::mem::zeroed() };
                check(|err| unsafe { sys::$decode(&mut raw, bytes.as_ptr().cast(), bytes.len(), ptr::null(), err) })?;
                Ok($name { raw, own: true, data: Data::None })
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                if self.own {
                    // SAFETY: load or decode made it with the same options.
                    unsafe { sys::$free(&mut self.raw, ptr::null()) }
                }
            }
        }
    };
}

enum Data {
    None,
    #[allow(dead_code)]
    Pixels(Vec<u8>),
    #[allow(dead_code)]
    Samples(Vec<f32>),
}

medium!(
    /// A picture, 8-bit RGB.
    Image, g4_image, g4_image_load, g4_image_decode, g4_image_free
);
medium!(
    /// Sound, mono at 16 kHz.
    Audio, g4_audio, g4_audio_load, g4_audio_decode, g4_audio_free
);
medium!(
    /// Frames of a video, with their times.
    Video, g4_video, g4_video_load, g4_video_decode, g4_video_free
);

impl Image {
    /// A picture of `width * height` pixels, three bytes each, row by row.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<Image> {
        let expected = u64::from(width) * u64::from(height) * 3;
        if width > i32::MAX as u32 / 3 || height > i32::MAX as u32 || expected != pixels.len() as u64 {
            let found = pixels.len();
            return Err(Error::argument(format!("a picture of {width} x {height} has {expected} bytes, not {found}")));
        }
        // SAFETY: zeros are the defaults of all other fields.
        let mut raw: sys::g4_image = unsafe { std::mem::zeroed() };
        raw.pixels = pixels.as_ptr();
        raw.width = width as i32;
        raw.height = height as i32;
        Ok(Image { raw, own: false, data: Data::Pixels(pixels) })
    }

    /// Soft tokens that it becomes at most: 70, 140, 280 (as without this call), 560 or 1120.
    #[must_use]
    pub fn max_tokens(mut self, n: u32) -> Image {
        self.raw.max_tokens = i32::try_from(n).unwrap_or(i32::MAX);
        self
    }

    /// Pixels of a row.
    pub fn width(&self) -> u32 {
        self.raw.width as u32
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.raw.height as u32
    }
}

impl Audio {
    /// Samples from -1 to 1, mono at 16 kHz.
    pub fn from_samples(samples: Vec<f32>) -> Audio {
        // SAFETY: zeros are the defaults of all other fields.
        let mut raw: sys::g4_audio = unsafe { std::mem::zeroed() };
        raw.samples = samples.as_ptr();
        raw.n_samples = samples.len();
        Audio { raw, own: false, data: Data::Samples(samples) }
    }

    /// How long it is.
    pub fn seconds(&self) -> f64 {
        self.raw.n_samples as f64 / 16000.0
    }
}

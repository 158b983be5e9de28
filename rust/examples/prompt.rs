//! cargo run --release --example prompt -- MODEL.g4 "What is the opposite of hard?" [PICTURE]
//!
//! Prints an answer while it is written.
use std::io::Write;
use std::ops::ControlFlow;

use gemma4c::{Delta, Engine, Image, Message, Options, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "../models/tiny.g4".into());
    let question = arguments.next().unwrap_or_else(|| "What is the opposite of hard?".into());
    let picture = arguments.next().map(Image::load).transpose()?;

    let engine = Engine::open(model)?;
    let mut session = engine.session()?;
    let mut message = Message::user(question);
    if let Some(picture) = &picture {
        message = message.with_image(picture);
    }
    let answer = session.respond(&[message], &Options::default(), |delta| {
        if let Delta::Text(text) = delta {
            print!("{text}");
            let _ = std::io::stdout().flush();
        }
        ControlFlow::Continue(())
    })?;
    println!();
    eprintln!("{} tokens, {:.0} a second", answer.tokens, answer.tokens as f64 / answer.seconds.max(1e-9));
    Ok(())
}

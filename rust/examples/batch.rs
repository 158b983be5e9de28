//! cargo run --release --example batch -- MODEL.g4
//!
//! Several questions answered at a time, in one read of the weights.
use std::ops::ControlFlow;

use gemma4c::{Engine, Message, Options, Result};

fn main() -> Result<()> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "../models/tiny.g4".into());
    let questions = ["What is the opposite of hard?", "What is 39 - 1?", "Name three rivers."];
    let engine = Engine::open(model)?;
    let mut batch = engine.batch()?;
    let options = Options { max_tokens: Some(60), ..Options::default() };
    for question in questions {
        let conversation = [Message::system("Be kind and short."), Message::user(question)];
        if let Err(rejected) = batch.add(engine.session()?, &conversation, &options, |_| ControlFlow::Continue(())) {
            return Err(rejected.error);
        }
    }
    while !batch.is_empty() {
        for finished in batch.step()? {
            println!("{}\n  {}", questions[finished.ticket as usize], finished.answer?.text());
        }
    }
    Ok(())
}

//! cargo run --release --example extract -- MODEL.g4 PICTURE
//!
//! What a picture shows, as JSON that follows a schema.
use std::ops::ControlFlow;

use gemma4c::{Engine, Image, Message, Options, Result};

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {"title": {"type": "string", "maxLength": 60}, "numbers": {"type": "array", "items": {"type": "integer"}, "maxItems": 5}},
    "required": ["title", "numbers"],
    "additionalProperties": false
}"#;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "../models/tiny.g4".into());
    let picture = Image::load(arguments.next().unwrap_or_else(|| "../examples/number.png".into()))?;
    let engine = Engine::open(model)?;
    let grammar = engine.grammar_from_schema(SCHEMA, |warning| eprintln!("{warning}"))?;
    let options = Options { grammar: Some(&grammar), max_tokens: Some(200), ..Options::default() };
    let question = [Message::user("What does this show?").with_image(&picture)];
    let answer = engine.session()?.respond(&question, &options, |_| ControlFlow::Continue(()))?;
    println!("{}", answer.text());
    Ok(())
}

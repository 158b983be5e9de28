//! The whole of the crate on the bundled model.
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use gemma4c::{
    Audio, Cancel, Code, Delta, Engine, EngineOptions, Image, Message, Options, Part, Sampling, Session,
    SessionOptions, Stop, ToolChoice,
};

const MODEL: &str = "../models/tiny.g4";
const TOOLS: &str = r#"[{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]"#;

fn engine() -> Engine {
    Engine::open(MODEL).unwrap()
}

fn greedy(n: u32) -> Options<'static> {
    Options { max_tokens: Some(n), sampling: Some(Sampling::greedy()), ..Options::default() }
}

fn go_on(_: Delta<'_>) -> ControlFlow<()> {
    Continue(())
}

#[test]
fn what_is_refused_says_why() {
    let error = Engine::open("no such file.g4").err().unwrap();
    assert_eq!(error.code, Code::Io);
    assert!(error.to_string().contains("no such file.g4"), "{error}");
    let options = EngineOptions { isa: Some("abacus".into()), ..EngineOptions::default() };
    assert_eq!(Engine::open_with(MODEL, &options).err().unwrap().code, Code::Argument);
    assert_eq!(Engine::open("nul\0.g4").err().unwrap().code, Code::Argument);

    let e = engine();
    let mut s = e.session().unwrap();
    let none = Options { max_tokens: Some(0), ..Options::default() };
    assert_eq!(s.respond(&[Message::user("hi")], &none, go_on).unwrap_err().code, Code::Argument);
    assert_eq!(s.eval(&[-1]).unwrap_err().code, Code::Argument);
    assert_eq!(s.eval(&[i32::MAX]).unwrap_err().code, Code::Argument);
    assert_eq!(s.rewind(1_000_000).unwrap_err().code, Code::Argument);
    assert_eq!(e.grammar_from_rules("root ::= (").err().unwrap().code, Code::Format);
    assert!(e.grammar_from_schema("", |_| ()).is_err());
    assert!(Image::from_rgb(2, 2, vec![0; 11]).is_err());
    assert!(Image::decode(b"not a picture").is_err());
}

#[test]
fn tokens_are_text() {
    let e = engine();
    for text in ["", "Hello, world", "Grüße, 世界 🙂", "<|turn>user\n"] {
        let ids = e.tokenize(text).unwrap();
        assert_eq!(String::from_utf8(e.detokenize(&ids)).unwrap(), text);
        assert!(e.tokenize_trusted(text).unwrap().len() <= ids.len());
    }
    assert_eq!(e.detokenize(&[-5, i32::MAX]), b"");
    let info = e.info();
    assert!(info.is_chat && info.vocabulary > 1000 && info.layers > 0, "{info:?}");
}

#[test]
fn pieces_are_the_answer() {
    let e = engine();
    let mut s = e.session().unwrap();
    let mut told = String::new();
    let answer = s
        .respond(&[Message::user("What is the opposite of hard?")], &greedy(40), |delta| {
            if let Delta::Text(text) = delta {
                told.push_str(text);
            }
            Continue(())
        })
        .unwrap();
    assert_eq!(told, answer.text());
    assert!(told.contains("soft"), "{told}");
    assert_eq!(answer.stop, Stop::End);
    // The next turn evaluates only what is new.
    let first = "What is the opposite of hard?";
    let turns = [Message::user(first), Message::answer(&answer), Message::user("What is 39 - 1?")];
    let second = s.respond(&turns, &greedy(40), go_on).unwrap();
    assert!(second.reused > 10, "{second:?}");
    assert!(second.text().contains("38"), "{}", second.text());
}

#[test]
fn break_and_panic_end_an_answer_and_the_session_goes_on() {
    let e = engine();
    let mut s = e.session().unwrap();
    let question = [Message::user("Name three rivers.")];
    let mut n = 0;
    let answer = s
        .respond(&question, &greedy(40), |_| {
            n += 1;
            if n == 2 {
                Break(())
            } else {
                Continue(())
            }
        })
        .unwrap();
    assert_eq!((n, answer.stop), (2, Stop::Callback));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = s.respond(&question, &greedy(40), |_| -> ControlFlow<()> { panic!("in a closure") });
    }));
    assert_eq!(*caught.unwrap_err().downcast_ref::<&str>().unwrap(), "in a closure");
    let again = s.respond(&question, &greedy(40), go_on).unwrap();
    assert_eq!(again.text(), e.session().unwrap().respond(&question, &greedy(40), go_on).unwrap().text());
}

#[test]
fn cancelled_from_another_thread() {
    let e = engine();
    let cancel = Arc::new(Cancel::new());
    let mut s = e.session().unwrap();
    cancel.set();
    let options = Options { cancel: Some(&cancel), ..greedy(40) };
    let done = s.respond(&[Message::user("Name three rivers.")], &options, go_on);
    assert!(matches!(&done, Err(e) if e.code == Code::Canceled) || done.unwrap().stop == Stop::Canceled);
    cancel.clear();
    assert!(!s.respond(&[Message::user("Name three rivers.")], &options, go_on).unwrap().text().is_empty());

    let flag = Arc::clone(&cancel);
    let setter = std::thread::spawn(move || flag.set());
    let limited = SessionOptions { cancel: Some(&cancel), ..SessionOptions::default() };
    let mut s = e.session_with(&limited).unwrap();
    setter.join().unwrap();
    assert_eq!(s.eval_text("a b c").unwrap_err().code, Code::Canceled);
}

#[test]
fn sessions_of_one_engine_on_threads() {
    let e = engine();
    let question = [Message::user("What is 39 - 1?")];
    let alone = e.session().unwrap().respond(&question, &greedy(30), go_on).unwrap().text();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut s = e.session().unwrap();
                assert_eq!(s.respond(&question, &greedy(30), go_on).unwrap().text(), alone);
            });
        }
    });
}

#[test]
fn timelines_fork_go_back_and_are_saved() {
    let e = engine();
    let mut s = e.session().unwrap();
    assert!(s.logits().is_none() && s.tokens().is_empty());
    s.eval_text("The capital of France is").unwrap();
    let (n, logits) = (s.tokens().len(), s.logits().unwrap().to_vec());
    let mut fork = s.fork().unwrap();
    fork.eval(&e.tokenize(" a city").unwrap()).unwrap();
    assert_ne!(fork.logits().unwrap(), &logits[..]);
    fork.rewind(n).unwrap();
    assert_eq!(fork.logits().unwrap(), &logits[..]);

    let mut saved = Vec::new();
    s.save(&mut saved).unwrap();
    let mut loaded = Session::load(&e, &SessionOptions::default(), &saved[..]).unwrap();
    assert_eq!(loaded.tokens(), s.tokens());
    assert_eq!(loaded.logits().unwrap(), &logits[..]);
    let cut = Session::load(&e, &SessionOptions::default(), &saved[..saved.len() / 2]);
    assert!(matches!(cut.err().unwrap().code, Code::Io | Code::Format));

    let mut text = String::new();
    let more = s.generate(&Options { logprobs: true, ..greedy(8) }, |piece| {
        text.push_str(piece.text);
        assert!(piece.token.is_none() || piece.logprob <= 0.0);
        Continue(())
    });
    assert_eq!(more.unwrap().text(), text);
}

#[test]
fn a_grammar_holds() {
    let e = engine();
    let mut warned = 0;
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}"#;
    let grammar = e.grammar_from_schema(schema, |_| warned += 1).unwrap();
    assert_eq!(warned, 0);
    for question in ["How many?", "And now?"] {
        let options = Options { grammar: Some(&grammar), ..greedy(40) };
        let answer = e.session().unwrap().respond(&[Message::user(question)], &options, go_on).unwrap();
        let text = answer.text().split_whitespace().collect::<String>();
        assert!(text.starts_with("{\"n\":") && (text.ends_with('}') || answer.stop == Stop::MaxTokens), "{text}");
    }
}

#[test]
fn functions_are_called() {
    let e = engine();
    let mut s = e.session().unwrap();
    let question = Message::user("What is the weather in Paris?");
    let options =
        Options { tools: Some(TOOLS.into()), tool_choice: ToolChoice::Named("get_weather".into()), ..greedy(60) };
    let answer = s.respond(std::slice::from_ref(&question), &options, go_on).unwrap();
    let call = answer.calls().next().unwrap();
    assert_eq!((call.name.as_str(), call.is_complete), ("get_weather", true));
    assert!(call.arguments.contains("city"), "{}", call.arguments);
    let result = Message::tool_results([("get_weather", r#"{"degrees": 21}"#)]);
    let options = Options { tools: Some(TOOLS.into()), ..greedy(40) };
    let then = s.respond(&[question, Message::answer(&answer), result], &options, go_on).unwrap();
    assert!(then.reused > 0 && !then.parts.is_empty(), "{then:?}");
}

#[test]
fn pictures_and_sound_are_read() {
    let e = engine();
    let picture = Image::load("../examples/number.png").unwrap();
    let bytes = std::fs::read("../examples/number.png").unwrap();
    assert_eq!(Image::decode(&bytes).unwrap().width(), picture.width());
    let question = [Message::user("Which number is this?").with_image(&picture)];
    let seen = e.session().unwrap().respond(&question, &greedy(20), go_on).unwrap();
    assert!(!seen.text().is_empty());
    let sound = Audio::load("../examples/speech.wav").unwrap();
    assert!(sound.seconds() > 0.5);
    let heard = e.session().unwrap().respond(&[Message::user("Transcribe.").with_audio(&sound)], &greedy(20), go_on);
    assert!(!heard.unwrap().text().is_empty());
    let flat = Image::from_rgb(64, 48, vec![128; 64 * 48 * 3]).unwrap().max_tokens(70);
    assert!(e.session().unwrap().respond(&[Message::user("?").with_image(&flat)], &greedy(4), go_on).is_ok());
}

#[test]
fn a_batch_gives_what_each_would_alone() {
    let e = engine();
    let questions =
        ["What is the opposite of hard?", "What is 39 - 1?", "Name three rivers.", "My favorite color is purple."];
    let mut pieces = vec![String::new(); questions.len()];
    {
        let mut batch = e.batch().unwrap();
        for (question, told) in questions.iter().zip(&mut pieces) {
            let tell = |delta: Delta<'_>| {
                if let Delta::Text(text) = delta {
                    told.push_str(text);
                }
                Continue(())
            };
            batch.add(e.session().unwrap(), &[Message::user(*question)], &greedy(40), tell).unwrap();
        }
        assert_eq!(batch.len(), 4);
        let mut answers = batch.run().unwrap();
        answers.sort_by_key(|a| a.ticket);
        for (finished, question) in answers.into_iter().zip(questions) {
            let answer = finished.answer.unwrap();
            let alone = e.session().unwrap().respond(&[Message::user(question)], &greedy(40), go_on).unwrap();
            assert_eq!((answer.text(), answer.tokens), (alone.text(), alone.tokens));
            let mut session = finished.session;
            assert!(session.respond(&[Message::user(question)], &greedy(2), go_on).unwrap().reused > 0);
        }
    }
    assert!(pieces.iter().all(|p| !p.is_empty()));
}

#[test]
fn a_batch_refuses_breaks_panics_and_is_dropped() {
    let e = engine();
    let mut batch = e.batch().unwrap();
    let small = SessionOptions { context: 8, ..SessionOptions::default() };
    let long = "word ".repeat(50);
    let question = [Message::user(long.as_str())];
    match batch.add(e.session_with(&small).unwrap(), &question, &greedy(4), go_on) {
        Err(rejected) => assert_eq!(rejected.error.code, Code::Context),
        Ok(_) => assert_eq!(batch.run().unwrap()[0].answer.as_ref().unwrap_err().code, Code::Context),
    }
    let hi = [Message::user("hi")];
    batch.add(e.session().unwrap(), &hi, &greedy(40), |_| Break(())).unwrap();
    let answers = batch.run().unwrap();
    assert_eq!(answers[0].answer.as_ref().unwrap().stop, Stop::Callback);
    batch.add(e.session().unwrap(), &hi, &greedy(40), |_| panic!("in a batch")).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| batch.run().map(|_| ())));
    assert_eq!(*caught.unwrap_err().downcast_ref::<&str>().unwrap(), "in a batch");
    batch.add(e.session().unwrap(), &hi, &greedy(40), go_on).unwrap();
    batch.step().unwrap();
    drop(batch); // with a session in it
}

#[test]
fn thoughts_are_apart() {
    let e = engine();
    let options = Options { thinking: true, think_budget: Some(16), ..greedy(60) };
    let answer = e.session().unwrap().respond(&[Message::user("What is 39 - 1?")], &options, go_on).unwrap();
    assert!(answer.parts.iter().all(|p| matches!(p, Part::Text(_) | Part::Thought(_))), "{answer:?}");
    assert!(!e.render(&[Message::user("hi")], &options).unwrap().is_empty());
}

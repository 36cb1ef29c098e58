//! The C functions of `../llguidance_abi.h` over llguidance: grammars are compiled to matchers, which give masks, take
//! tokens and take them back. No panic leaves a function: each catches them and answers with a failure.
//!
//! Threading: a factory is immutable and shared; a matcher is used by one thread at a time.

mod lark;
mod schema;

use std::ffi::c_char;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub struct DsmGrammarFactory {
    parsers: ParserFactory,
    vocab_size: u32,
    eos: Vec<u32>,
}

/// Tokens that end the text never reach llguidance's matcher: `ended` says that one was taken. So a rollback behind
/// the end is the same as everywhere else.
pub struct DsmGrammarMatcher {
    matcher: Matcher,
    vocab_size: u32,
    eos: Vec<u32>,
    taken: usize,
    ended: bool,
}

/// Compiling recurses as deep as the grammar's text is nested or its rules are chained, at worst some kilobytes of
/// stack for every few bytes of text. A thread of its own gets the room, which is only reserved, not touched, when
/// grammars are ordinary.
const COMPILE_STACK: usize = 128 << 20;

/// Lower than llguidance's own where a single sequence could otherwise hold hundreds of megabytes.
const MAX_LEXER_STATES: usize = 50_000;
const MAX_GRAMMAR_SIZE: usize = 250_000;

/// Runs `f`; a panic becomes an error that says so. llguidance's own guard keeps the panic off standard error, but
/// panics itself on a thread whose thread-locals are gone already.
fn guard<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut result = None;
    let caught = bare_guard(|| {
        llguidance::panic_utils::catch_unwind(AssertUnwindSafe(|| {
            result = Some(f());
            Ok(())
        }))
    });
    match (caught, result) {
        (Some(Ok(())), Some(result)) => result,
        (Some(Err(panic)), _) => Err(panic.into()),
        _ => Err("the thread is ending".into()),
    }
}

/// For what may run when a thread or the program ends: no thread-locals, no answer.
fn bare_guard<T>(f: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(f)).ok()
}

/// One sentence of an error: without backtraces and the state of the parser.
fn sentence(error: &Failure) -> String {
    let mut text = error.to_string();
    for mark in ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"] {
        if let Some(at) = text.find(mark) {
            text.truncate(at);
        }
    }
    if text == "NoExtensionBias" {
        text = "no text matches it".to_string();
    } else if text.starts_with("panic: ") {
        text.insert_str(0, "the grammar compiler failed: ");
    }
    text
}

/// Writes `error` to the caller's buffer as a C string, cut at a character.
fn report(error: &Failure, out: *mut c_char, room: usize) {
    if out.is_null() || room == 0 {
        return;
    }
    let text = sentence(error).replace('\0', "\\0");
    let mut end = text.len().min(room - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // SAFETY: the caller says that `out` has `room` bytes, and end < room.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), out.cast::<u8>(), end);
        *out.add(end) = 0;
    }
}

/// # Safety
/// `len` elements can be read at `data`, or `len` is 0.
unsafe fn slice<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, len)
    }
}

fn new_factory(tokens: &[Vec<u8>], eos: &[u32]) -> Result<DsmGrammarFactory, Failure> {
    let first = *eos.first().ok_or("no token ends a text")?;
    let vocab_size = u32::try_from(tokens.len())?;
    let trie = TokTrie::from(&TokRxInfo::new(vocab_size, first), tokens).with_eos_tokens(eos);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut parsers = ParserFactory::new(
        &env,
        InferenceCapabilities::default(),
        &SlicedBiasComputer::general_slices(),
    )?;
    parsers.quiet();
    let limits = parsers.limits_mut();
    limits.verbose_errors = false;
    limits.max_lexer_states = MAX_LEXER_STATES;
    limits.max_grammar_size = MAX_GRAMMAR_SIZE;
    Ok(DsmGrammarFactory {
        parsers,
        vocab_size,
        eos: eos.to_vec(),
    })
}

/// The kinds of `DsmGrammarKind`.
fn grammar_of(kind: i32, text: &str) -> Result<TopLevelGrammar, Failure> {
    let grammar = match kind {
        0 => GrammarWithLexer::from_json_schema(schema::prepare(serde_json::from_str(text)?)?),
        1 => GrammarWithLexer::from_regex(text),
        2 => GrammarWithLexer::from_lark(lark::prepare(text)?),
        _ => return Err(format!("there is no kind {kind} of grammars").into()),
    };
    Ok(TopLevelGrammar::from_grammar(grammar))
}

fn compile(factory: &DsmGrammarFactory, kind: i32, text: &str) -> Result<Matcher, Failure> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("grammar".to_string())
            .stack_size(COMPILE_STACK)
            .spawn_scoped(scope, || {
                guard(|| {
                    let parser = factory.parsers.create_parser(grammar_of(kind, text)?)?;
                    let mut matcher = Matcher::new(Ok(parser));
                    // The first mask shows grammars that nothing can match, and takes its cost here, not in the engine.
                    matcher.compute_mask_or_eos()?;
                    Ok(matcher)
                })
            })?;
        thread
            .join()
            .map_err(|_| "the thread that compiles grammars ended early")?
    })
}

/// # Safety
/// `lengths` has `vocab_size` elements, `bytes` as many as their sum, `eos` has `eos_count`, `error` has `error_room`.
#[no_mangle]
pub unsafe extern "C" fn dsm_grammar_factory_new(
    bytes: *const u8,
    lengths: *const u32,
    vocab_size: u32,
    eos: *const u32,
    eos_count: usize,
    error: *mut c_char,
    error_room: usize,
) -> *mut DsmGrammarFactory {
    let made = guard(|| {
        let lengths = slice(lengths, vocab_size as usize);
        let mut rest = slice(bytes, lengths.iter().map(|n| *n as usize).sum());
        let mut tokens = Vec::with_capacity(lengths.len());
        for length in lengths {
            let (token, behind) = rest.split_at(*length as usize);
            tokens.push(token.to_vec());
            rest = behind;
        }
        new_factory(&tokens, slice(eos, eos_count))
    });
    match made {
        Ok(factory) => Box::into_raw(Box::new(factory)),
        Err(e) => {
            report(&e, error, error_room);
            std::ptr::null_mut()
        }
    }
}

/// # Safety
/// `factory` is from `dsm_grammar_factory_new` and not used again.
#[no_mangle]
pub unsafe extern "C" fn dsm_grammar_factory_free(factory: *mut DsmGrammarFactory) {
    bare_guard(|| drop(Box::from_raw(factory)));
}

/// # Safety
/// `factory` lives, `text` has `text_len` bytes, `error` has `error_room`.
#[no_mangle]
pub unsafe extern "C" fn dsm_grammar_compile(
    factory: *const DsmGrammarFactory,
    kind: i32,
    text: *const u8,
    text_len: usize,
    error: *mut c_char,
    error_room: usize,
) -> *mut DsmGrammarMatcher {
    let factory = &*factory;
    let compiled = guard(|| {
        let text = std::str::from_utf8(slice(text, text_len)).map_err(|_| "the grammar is not valid UTF-8")?;
        compile(factory, kind, text)
    });
    match compiled {
        Ok(matcher) => Box::into_raw(Box::new(DsmGrammarMatcher {
            matcher,
            vocab_size: factory.vocab_size,
            eos: factory.eos.clone(),
            taken: 0,
            ended: false,
        })),
        Err(e) => {
            report(&e, error, error_room);
            std::ptr::null_mut()
        }
    }
}

/// # Safety
/// `matcher` lives and is used by nobody else now.
#[no_mangle]
pub unsafe extern "C" fn dsm_grammar_copy(matcher: *const DsmGrammarMatcher) -> *mut DsmGrammarMatcher {
    let matcher = &*matcher;
    let copied = guard(|| {
        Ok(DsmGrammarMatcher {
            matcher: matcher.matcher.deep_clone(),
            vocab_size: matcher.vocab_size,
            eos: matcher.eos.clone(),
            taken: matcher.taken,
            ended: matcher.ended,
        })
    });
    copied.map_or(std::ptr::null_mut(), |copy| Box::into_raw(Box::new(copy)))
}

/// # Safety
/// `matcher` is from `dsm_grammar_compile` or `dsm_grammar_copy` and not used again.
#[no_mangle]
pub unsafe extern "C" fn dsm_grammar_free(matcher: *mut DsmGrammarMatcher) {
    bare_guard(|| drop(Box::from_raw(matcher)));
}

impl DsmGrammarMatcher {
    fn fill_mask(&mut self, mask: &mut [u32]) -> Result<(), Failure> {
        if self.ended {
            for token in &self.eos {
                mask[*token as usize / 32] |= 1 << (*token % 32);
            }
            return Ok(());
        }
        let allowed = self.matcher.compute_mask_or_eos()?;
        for (word, bits) in mask.iter_mut().zip(allowed.as_slice()) {
            *word = *bits;
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<bool, Failure> {
        if self.ended || token >= self.vocab_size {
            return Ok(false);
        }
        if self.eos.contains(&token) {
            self.ended = self.matcher.compute_mask_or_eos()?.is_allowed(token);
            return Ok(self.ended);
        }
        if self.matcher.validate_tokens(&[token])? == 0 {
            return Ok(false);
        }
        self.matcher.consume_token(token)?;
        self.taken += 1;
        Ok(true)
    }

    fn rollback(&mut self, mut tokens: usize) -> Result<(), Failure> {
        if tokens > self.taken + usize::from(self.ended) {
            return Err("fewer tokens were taken".into());
        }
        if tokens > 0 && self.ended {
            self.ended = false;
            tokens -= 1;
        }
        self.matcher.rollback(tokens)?;
        self.taken -= tokens;
        Ok(())
    }
}

/// # Safety
/// `matcher` lives and is used by nobody else now; `mask` has `words` elements.
#[no_mangle]
pub unsafe extern "C" fn dsm_grammar_fill_mask(matcher: *mut DsmGrammarMatcher, mask: *mut u32, words: usize) -> bool {
    let mask = std::slice::from_raw_parts_mut(mask, words);
    mask.fill(0);
    let done = guard(|| (*matcher).fill_mask(mask)).is_ok();
    if !done {
        mask.fill(0);
    }
    done
}

/// # Safety
/// `matcher` lives and is used by nobody else now.
#[no_mangle]
pub unsafe extern "C" fn dsm_grammar_accept(matcher: *mut DsmGrammarMatcher, token: u32) -> bool {
    guard(|| (*matcher).accept(token)).unwrap_or(false)
}

/// # Safety
/// `matcher` lives and is used by nobody else now.
#[no_mangle]
pub unsafe extern "C" fn dsm_grammar_rollback(matcher: *mut DsmGrammarMatcher, tokens: usize) -> bool {
    guard(|| (*matcher).rollback(tokens)).is_ok()
}

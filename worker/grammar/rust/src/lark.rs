//! What is done to a Lark grammar before llguidance gets it: the JSON Schemas in it are checked as any other schema,
//! and what would take too long is refused.

use serde_json::Value;

use crate::{schema, Failure};

const MAX_DEPTH: usize = 200;

/// Bytes beside the schemas. A terminal of this size with nothing but optional parts takes tens of milliseconds in
/// each mask.
const MAX_TEXT: usize = 16 << 10;

/// The grammar with each schema behind `%json` prepared.
pub fn prepare(text: &str) -> Result<String, Failure> {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0usize;
    let mut size = 0usize;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let n = match c {
            '"' => quoted(rest, '"'),
            '/' if rest.starts_with("//") => line(rest),
            '/' => quoted(rest, '/'),
            '#' => line(rest),
            '%' if rest.starts_with("%json") => {
                rest = json(&rest["%json".len()..], &mut out)?;
                continue;
            }
            '(' | '[' | '{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(format!("more than {MAX_DEPTH} brackets are nested").into());
                }
                1
            }
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                1
            }
            _ => c.len_utf8(),
        };
        size += n;
        if size > MAX_TEXT {
            return Err(format!("more than {MAX_TEXT} bytes beside its schemas").into());
        }
        let (done, behind) = rest.split_at(n);
        out.push_str(done);
        rest = behind;
    }
    Ok(out)
}

/// Copies `%json` and the prepared form of the schema that follows; what is behind it is the answer. `%json` without
/// a value stays as it is, for llguidance to say what is wrong.
fn json<'a>(text: &'a str, out: &mut String) -> Result<&'a str, Failure> {
    out.push_str("%json");
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => {
            out.push(' ');
            out.push_str(&schema::prepare(value)?.to_string());
            Ok(&text[values.byte_offset()..])
        }
        Some(Err(e)) => Err(format!("%json: {e}").into()),
        None => Ok(text),
    }
}

/// The length of a text or an expression with its quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        } else if c == '\n' && quote == '"' {
            return at;
        }
    }
    text.len()
}

fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

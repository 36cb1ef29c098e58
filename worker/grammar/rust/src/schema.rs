//! What is done to a JSON Schema before llguidance gets it. llguidance passes over keywords that it has never heard of,
//! and takes options from the schema itself; here both are errors, so that a schema is honoured or refused.

use serde_json::{json, Value};

use crate::Failure;

/// Keywords that llguidance honours, by what their value is.
const VALUES: [&str; 18] = [
    "$ref",
    "const",
    "enum",
    "type",
    "minItems",
    "maxItems",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
const SCHEMAS: [&str; 7] = [
    "anyOf",
    "oneOf",
    "allOf",
    "items",
    "additionalItems",
    "prefixItems",
    "additionalProperties",
];
const NAMED_SCHEMAS: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
/// Keywords that say nothing about what is valid. `$anchor` only names a place; a `$ref` to it is refused.
const ANNOTATIONS: [&str; 11] = [
    "$anchor",
    "$comment",
    "title",
    "description",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "examples",
    "contentMediaType",
    "contentEncoding",
];

/// llguidance's time grows with the square of the number of properties: 2000 take it a quarter of a second.
const MAX_SCHEMAS: usize = 2000;

/// White space between the parts of a document: enough for any usual layout, and an end to a model that would repeat
/// it for ever.
const WHITE_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,64}";

/// A checked schema with our options in it.
pub fn prepare(mut schema: Value) -> Result<Value, Failure> {
    check(&mut schema, "#", &mut 0)?;
    if let Value::Bool(all) = schema {
        schema = if all {
            json!({})
        } else {
            return Err("the schema `false` allows nothing".into());
        };
    }
    schema["x-guidance"] = json!({"whitespace_pattern": WHITE_SPACE});
    Ok(schema)
}

/// `count` is of the schemas seen so far, this and those in it.
fn check(schema: &mut Value, path: &str, count: &mut usize) -> Result<(), Failure> {
    *count += 1;
    if *count > MAX_SCHEMAS {
        return Err(format!("it has more than {MAX_SCHEMAS} schemas in it").into());
    }
    let object = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(object) => object,
        _ => return Err(format!("{path}: a schema is an object or a boolean").into()),
    };
    // Every keyword means what it means in draft 2020-12, whatever the schema says that it follows: under an older
    // one llguidance would pass over some that it honours.
    object.shift_remove("$schema");
    if path == "#" {
        object.shift_remove("$id");
        object.shift_remove("id");
    }
    for (keyword, value) in object.iter_mut() {
        let keyword = keyword.as_str();
        if VALUES.contains(&keyword) || ANNOTATIONS.contains(&keyword) {
            continue;
        }
        let below = format!("{path}/{keyword}");
        if SCHEMAS.contains(&keyword) {
            match value {
                Value::Array(list) => {
                    for (i, one) in list.iter_mut().enumerate() {
                        check(one, &format!("{below}/{i}"), count)?;
                    }
                }
                one => check(one, &below, count)?,
            }
        } else if NAMED_SCHEMAS.contains(&keyword) {
            let named = value
                .as_object_mut()
                .ok_or_else(|| format!("{below}: must be an object"))?;
            for (name, one) in named.iter_mut() {
                check(one, &format!("{below}/{name}"), count)?;
            }
        } else if !keyword.starts_with("x-") || keyword == "x-guidance" {
            return Err(format!("{path}: the keyword \"{keyword}\" is not supported; remove it").into());
        }
    }
    Ok(())
}

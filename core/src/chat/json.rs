//! The filter `tojson` as transformers defines it: Python's `json.dumps`, not Jinja's own, which escapes for HTML.
//!
//! `", "` and `": "` between items, keys in their order, text as UTF-8; `indent`, `ensure_ascii`, `separators` and `sort_keys` as
//! in Python.

use std::io;

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// `value | tojson(indent=None, ensure_ascii=False, separators=None, sort_keys=False)`.
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;

    let mut json = serde_json::to_value(value).map_err(not_json)?;
    if sort.unwrap_or(false) {
        json.sort_all_objects();
    }
    let text = match (indent, separators) {
        (Some(width), _) => write(&json, PrettyFormatter::with_indent(&b" ".repeat(width.min(MAX_INDENT))))?,
        (None, Some(separators)) => match separators.as_slice() {
            [item, key] => write(&json, Separators { item, key })?,
            _ => return Err(Error::new(ErrorKind::InvalidOperation, "separators must be a pair")),
        },
        (None, None) => write(&json, Separators { item: ", ", key: ": " })?,
    };
    Ok(Value::from(if ascii.unwrap_or(false) { escape_non_ascii(&text) } else { text }))
}

/// More would only serve to fill memory.
const MAX_INDENT: usize = 16;

fn write(json: &serde_json::Value, formatter: impl Formatter) -> Result<String, Error> {
    let mut out = Vec::new();
    json.serialize(&mut Serializer::with_formatter(&mut out, formatter)).map_err(not_json)?;
    String::from_utf8(out).map_err(not_json)
}

fn not_json(error: impl std::error::Error) -> Error {
    Error::new(ErrorKind::BadSerialization, format!("tojson: {error}"))
}

/// One line, with the given separators.
struct Separators<'a> {
    item: &'a str,
    key: &'a str,
}

impl Formatter for Separators<'_> {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(self.item.as_bytes()) }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(self.item.as_bytes()) }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }
}

/// `\uXXXX` for everything beyond ASCII, which stands inside of strings only.
fn escape_non_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    fn render(template: &str) -> String {
        let mut environment = Environment::new();
        environment.add_filter("tojson", super::to_json);
        environment.render_str(template, ()).unwrap()
    }

    /// Expected texts are what Python's `json.dumps(..., ensure_ascii=False)` prints.
    #[test]
    fn prints_as_python_does() {
        let value = r#"{"z": [1, 2.5, true, none], "a": "<é> 'q' \"d\"", "e": {}, "l": []}"#;
        assert_eq!(
            render(&format!("{{{{ {value} | tojson }}}}")),
            r#"{"z": [1, 2.5, true, null], "a": "<é> 'q' \"d\"", "e": {}, "l": []}"#
        );
        assert_eq!(
            render(&format!("{{{{ {value} | tojson(indent=2) }}}}")),
            "{\n  \"z\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"a\": \"<é> 'q' \\\"d\\\"\",\n  \"e\": {},\n  \"l\": []\n}"
        );
        assert_eq!(
            render("{{ {'b': '😀é', 'a': 1} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}"),
            r#"{"a":1,"b":"\ud83d\ude00\u00e9"}"#
        );
    }

    #[test]
    fn unknown_options_are_errors() {
        let mut environment = Environment::new();
        environment.add_filter("tojson", super::to_json);
        assert!(environment.render_str("{{ 1 | tojson(colour=2) }}", ()).is_err());
    }
}

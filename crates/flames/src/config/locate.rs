//! Where in a TOML text a key stands.

use toml_edit::{Document, Item, Table};

/// The line, from 1, that a byte is on.
pub(super) fn line_of(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// The line of the key at `path`, or of the nearest table above it; 0 when not even that has a place.
pub(super) fn line_of_key(text: &str, document: &Document<&str>, path: &[&str]) -> usize {
    let mut table: &Table = document.as_table();
    let mut line = 0;
    for name in path {
        let Some((key, item)) = table.get_key_value(name) else { return line };
        if let Some(span) = key.span().or_else(|| item.span()) {
            line = line_of(text, span.start);
        }
        match item {
            Item::Table(inner) => table = inner,
            _ => return line,
        }
    }
    line
}

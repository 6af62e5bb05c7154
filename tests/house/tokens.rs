//! Rust source as tokens with their lines: no comments, no strings, and nothing that only tests compile.

use std::collections::BTreeSet;

/// An identifier, `::`, or one other character.
#[derive(Debug)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

impl Token {
    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// What a file consists of.
#[derive(Debug, Default)]
pub struct Tokens {
    pub list: Vec<Token>,
    /// The lines that have a comment `// circle: why`.
    pub excused: BTreeSet<usize>,
    /// Modules that the file declares for tests or fuzzing only.
    pub test_modules: Vec<String>,
}

pub fn read(source: &str) -> Tokens {
    let mut tokens = Tokens::default();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => {
                let comment = rest.lines().next().unwrap_or(rest);
                if comment.strip_prefix("// circle: ").is_some_and(|why| !why.trim().is_empty()) {
                    tokens.excused.insert(line);
                }
                comment.len()
            }
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            'r' | 'b' | 'c' if string_start(rest).is_some() => string_start(rest).unwrap(),
            '\'' => character(rest),
            _ if first.is_alphanumeric() || first == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let text = &rest[..length];
        if text == "::"
            || text == first.to_string() && !first.is_whitespace()
            || first.is_alphanumeric()
            || first == '_'
        {
            tokens.list.push(Token { text: text.to_owned(), line });
        }
        line += text.matches('\n').count();
        rest = &rest[length..];
    }
    drop_test_items(&mut tokens);
    tokens
}

/// The length of the string at the start of `text`.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// The length of a string with a prefix (`r#"..."#`, `b"..."`), if `text` starts with one.
fn string_start(text: &str) -> Option<usize> {
    let prefix = text.find(|c: char| !matches!(c, 'r' | 'b' | 'c'))?;
    let hashes = text[prefix..].find(|c| c != '#')?;
    let open = prefix + hashes;
    if prefix > 2 || !text[open..].starts_with('"') {
        return None;
    }
    if !text[..prefix].contains('r') {
        return (hashes == 0).then(|| open + quoted(&text[open..]));
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(text[open + 1..].find(&close).map_or(text.len(), |end| open + 1 + end + close.len()))
}

/// The length of a character, or of the quote that starts a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(text.len(), |end| end + 4),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

/// Removes the items below `#[cfg(test)]` and `#[cfg(any(test, ...))]`.
fn drop_test_items(tokens: &mut Tokens) {
    let list = std::mem::take(&mut tokens.list);
    let starts = |at: usize, what: &[&str]| {
        what.iter().enumerate().all(|(step, text)| list.get(at + step).is_some_and(|token| token.text == *text))
    };
    let mut dropped = vec![false; list.len()];
    let mut at = 0;
    while at < list.len() {
        if !starts(at, &["#", "[", "cfg", "(", "test"]) && !starts(at, &["#", "[", "cfg", "(", "any", "(", "test"]) {
            at += 1;
            continue;
        }
        let mut item = at;
        while starts(item, &["#", "["]) {
            item = closing(&list, item + 1);
        }
        let is_use = list[item..].iter().take(6).any(|token| token.text == "use");
        let mut end = item;
        while end < list.len() && list[end].text != ";" {
            let open = matches!(list[end].text.as_str(), "{" | "(" | "[");
            let is_body = list[end].text == "{" && !is_use;
            end = if open { closing(&list, end) } else { end + 1 };
            if is_body {
                end -= 1;
                break;
            }
        }
        let end = (end + 1).min(list.len());
        if let Some(name) = (item..end).find(|at| list[*at].text == "mod").and_then(|at| list.get(at + 1)) {
            tokens.test_modules.push(name.text.clone());
        }
        dropped[at..end].fill(true);
        at = end;
    }
    tokens.list = list.into_iter().zip(dropped).filter(|(_, dropped)| !dropped).map(|(token, _)| token).collect();
}

/// The position after the bracket that closes the one at `open`.
fn closing(list: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in list.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    list.len()
}

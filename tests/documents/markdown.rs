//! As much of Markdown as the pages use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A page, taken apart.
pub struct Page {
    pub path: PathBuf,
    /// What headings are linked by.
    pub anchors: Vec<String>,
    /// Line numbers and targets of links and pictures.
    pub links: Vec<(usize, String)>,
    /// Line numbers and lines of code blocks, fenced ones and indented ones, without their indentation.
    pub code: Vec<(usize, String)>,
    /// Line numbers and texts of code within sentences.
    pub inline_code: Vec<(usize, String)>,
}

impl Page {
    pub fn new(path: &Path, text: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            anchors: Vec::new(),
            links: Vec::new(),
            code: Vec::new(),
            inline_code: Vec::new(),
        };
        let mut is_fenced = false;
        let mut seen = HashMap::<String, usize>::new();
        // An indented block begins behind an empty line; what is indented behind text is that text's next line.
        let mut may_begin_code = true;
        for (number, line) in (1..).zip(text.lines()) {
            let is_fence = line.trim_start().starts_with("```");
            if is_fence {
                is_fenced = !is_fenced;
            } else if is_fenced {
                page.code.push((number, line.to_owned()));
            } else if line.starts_with("    ") && may_begin_code {
                page.code.push((number, line[4..].to_owned()));
            } else {
                if line.starts_with('#') {
                    let slug = slug(line.trim_start_matches('#').trim());
                    let before = seen.entry(slug.clone()).or_default();
                    page.anchors.push(if *before == 0 { slug } else { format!("{slug}-{before}") });
                    *before += 1;
                }
                page.read_text(number, line);
                may_begin_code = line.is_empty();
            }
        }
        page
    }

    /// Code and links of a line of text; links within code are none.
    fn read_text(&mut self, number: usize, line: &str) {
        for (index, part) in line.split('`').enumerate() {
            if index % 2 == 1 {
                self.inline_code.push((number, part.to_owned()));
            }
        }
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (at, _) in text.match_indices("](") {
            if let Some(target) = text[at + 2..].split(')').next() {
                self.links.push((number, target.to_owned()));
            }
        }
    }

    /// Where something stands, for a message.
    pub fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// As forges and mdBook make anchors of headings.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

//! Flame graphs out of what `perf script` prints.

use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 16.0;
/// Frames narrower than this many pixels are left out, and so is what stands on them.
const NARROWEST: f64 = 0.3;
/// Pixels that a letter takes.
const LETTER: f64 = 6.6;

/// A function as it was called by what is below it: its samples, and what it called.
#[derive(Default)]
pub struct Frame {
    samples: u64,
    calls: BTreeMap<String, Frame>,
}

impl Frame {
    /// Adds up the stacks of all samples. A sample is a line of its process, then one line a frame, the innermost
    /// first (`ffff8 name+0x12 (file)`), then an empty line.
    pub fn read(script: &str) -> Self {
        let mut root = Self::default();
        for sample in script.split("\n\n") {
            let frames: Vec<String> = sample
                .lines()
                .filter(|line| line.starts_with(char::is_whitespace))
                .map(name)
                .filter(|name| !name.ends_with("[unknown]"))
                .collect();
            if !frames.is_empty() {
                root.add(frames.iter().rev());
            }
        }
        root
    }

    pub fn samples(&self) -> u64 {
        self.samples
    }

    fn add<'a>(&mut self, stack: impl Iterator<Item = &'a String>) {
        self.samples += 1;
        let mut frame = self;
        for name in stack {
            frame = frame.calls.entry(name.clone()).or_default();
            frame.samples += 1;
        }
    }

    fn depth(&self) -> usize {
        1 + self.calls.values().map(Self::depth).max().unwrap_or(0)
    }

    /// An SVG picture. The full names and shares are shown by browsers when the mouse rests on a frame.
    pub fn picture(&self, title: &str) -> String {
        let height = self.depth() as f64 * ROW + 2.0 * ROW;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"monospace\" font-size=\"11\">\n\
             <text x=\"4\" y=\"14\">{}, {} samples</text>\n",
            escaped(title),
            self.samples
        );
        self.draw(&mut svg, title, 0.0, height - ROW, WIDTH / self.samples.max(1) as f64);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw(&self, svg: &mut String, name: &str, x: f64, y: f64, scale: f64) {
        let width = self.samples as f64 * scale;
        if width < NARROWEST {
            return;
        }
        let share = width / WIDTH * 100.0;
        let shown: String = name.chars().take(((width - 4.0) / LETTER).max(0.0) as usize).collect();
        let (name, shown, colour) = (escaped(name), escaped(&shown), colour(name));
        let _ = writeln!(
            svg,
            "<g><title>{name} ({share:.2} %)</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" \
             fill=\"{colour}\" stroke=\"white\" stroke-width=\"0.5\"/><text x=\"{:.1}\" y=\"{}\">{shown}</text></g>",
            ROW - 1.0,
            x + 2.0,
            y + 11.0
        );
        let mut x = x;
        for (name, frame) in &self.calls {
            frame.draw(svg, name, x, y - ROW, scale);
            x += frame.samples as f64 * scale;
        }
    }
}

/// The function's name in a line of a stack, with `[k]` before it if it is the kernel's.
fn name(line: &str) -> String {
    let line = line.trim_start();
    let (address, rest) = line.split_once(' ').unwrap_or(("", line));
    let symbol = rest.rsplit_once(" (").map_or(rest, |(symbol, _)| symbol);
    let symbol = symbol.rsplit_once("+0x").map_or(symbol, |(symbol, _)| symbol);
    if address.starts_with("ffffffff") { format!("[k] {symbol}") } else { symbol.to_string() }
}

/// The kernel is blue; the rest is warm, each name always in the same shade.
fn colour(name: &str) -> String {
    let shade = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 50;
    if name.starts_with("[k]") {
        format!("rgb({},{},240)", 140 + shade, 170 + shade)
    } else {
        format!("rgb(245,{},{})", 120 + 2 * shade, 60 + shade)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

//! Bars, as SVG that is plain text.

use std::fmt::Write;

use crate::figure::thousands;

const WIDTH: usize = 860;
/// Where the bars begin, and how long the longest may be; right of it stands its figure.
const LEFT: usize = 280;
const LONGEST: f64 = 490.0;
/// From one bar to the next, and how thick it is.
const STEP: usize = 26;
const THICK: usize = 18;
const TITLE: usize = 34;
const LEGEND: usize = 24;
const GAP: usize = 22;

/// Bars that share a scale.
pub struct Panel<'a> {
    pub title: String,
    /// What the colors mean, if there are several.
    pub legend: &'a [(&'a str, &'a str)],
    pub bars: Vec<Bar>,
}

/// One bar, made of parts with their colors.
pub struct Bar {
    pub name: String,
    pub parts: Vec<(f64, &'static str)>,
}

impl Bar {
    fn sum(&self) -> f64 {
        self.parts.iter().map(|(value, _)| value).sum()
    }
}

/// The panels, one below the other. Names are not escaped: they are our own.
pub fn draw(panels: &[Panel<'_>]) -> String {
    let mut body = String::new();
    let mut y = 0;
    for panel in panels {
        let _ =
            writeln!(body, r#"<text x="20" y="{}" font-size="15" font-weight="bold">{}</text>"#, y + 26, panel.title);
        y += TITLE;
        if !panel.legend.is_empty() {
            legend(&mut body, y, panel.legend);
            y += LEGEND;
        }
        let longest = panel.bars.iter().map(Bar::sum).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &panel.bars {
            draw_bar(&mut body, y, bar, LONGEST / longest);
            y += STEP;
        }
        y += GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222222\">\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn legend(body: &mut String, y: usize, entries: &[(&str, &str)]) {
    let mut x = LEFT;
    for (name, color) in entries {
        let _ = writeln!(body, r#"<rect x="{x}" y="{}" width="12" height="12" fill="{color}"/>"#, y + 2);
        let _ = writeln!(body, r#"<text x="{}" y="{}">{name}</text>"#, x + 17, y + 13);
        // About as wide as the letters are.
        x += 17 + 7 * name.len() + 22;
    }
}

fn draw_bar(body: &mut String, y: usize, bar: &Bar, scale: f64) {
    let middle = y + THICK / 2 + 5;
    let _ = writeln!(body, r#"<text x="{}" y="{middle}" text-anchor="end">{}</text>"#, LEFT - 10, bar.name);
    let mut x = LEFT as f64;
    for (value, color) in bar.parts.iter().filter(|(value, _)| *value > 0.0) {
        let width = value * scale;
        let _ = writeln!(body, r#"<rect x="{x:.1}" y="{y}" width="{width:.1}" height="{THICK}" fill="{color}"/>"#);
        x += width;
    }
    let _ = writeln!(body, r#"<text x="{:.1}" y="{middle}">{}</text>"#, x + 7.0, thousands(bar.sum()));
}

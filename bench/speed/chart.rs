//! The figures as a picture.

use std::path::Path;

use plotters::{
    prelude::{IntoDrawingArea, Rectangle, SVGBackend, Text},
    style::{Color, IntoFont, RGBColor, WHITE},
};

use crate::{Result, compare::Figures};

const WIDTH: u32 = 800;
const ROW: i32 = 44;
const MARGIN: i32 = 16;
/// Where the bars begin, right of the names, and how long the longest is.
const BARS: i32 = 320;
const LONGEST: f64 = 290.0;

const INK: RGBColor = RGBColor(0x17, 0x21, 0x1f);
const OURS: RGBColor = RGBColor(0x0f, 0x76, 0x6e);
const OTHERS: RGBColor = RGBColor(0xa3, 0xb3, 0xae);

/// Writes a bar for the requests per second of each.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write(path: &Path, all: &[Figures]) -> Result<()> {
    let height = 2 * MARGIN + ROW * (all.len() as i32 + 1);
    let area = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(
        "Requests per second: GET /api/hello, 64 connections, 2 replicas",
        (MARGIN, MARGIN),
        text(18),
    ))?;
    let most = all.iter().map(|figures| figures.rate).fold(0.0, f64::max);
    for (row, figures) in (1..).zip(all) {
        let top = MARGIN + row * ROW;
        let end = BARS + (LONGEST * figures.rate / most) as i32;
        let color = if row == 1 { OURS } else { OTHERS };
        area.draw(&Text::new(figures.name, (MARGIN, top + 5), text(15)))?;
        area.draw(&Rectangle::new(
            [(BARS, top), (end, top + ROW / 2)],
            color.filled(),
        ))?;
        let label = format!("{:.0}, p99 {:.1} ms", figures.rate, figures.p99_ms);
        area.draw(&Text::new(label, (end + 8, top + 5), text(15)))?;
    }
    area.present()?;
    Ok(())
}

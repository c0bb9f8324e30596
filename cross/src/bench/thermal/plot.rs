//! The afternoon as a picture: four panels over one time axis, as SVG. The background is light, so that it can be
//! read on dark pages too.

use std::fmt::Write as _;

use edge_hal::Board;
use edge_hal::sim::Loads;
use edge_hal::sim::trial::Sample;

/// Seconds of a point: two to a pixel's width.
const STRETCH: usize = 60;
const WIDTH: f64 = 960.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 940.0;

const INK: &str = "#0f172a";
const FAINT: &str = "#64748b";
const GRID: &str = "#e2e8f0";
const CPU: &str = "#2563eb";
const GPU: &str = "#9333ea";
const AIR: &str = "#0d9488";
const TARGET: &str = "#d97706";
const CRITICAL: &str = "#dc2626";
const FAN: &str = "#0369a1";
const WANTED: &str = "#cbd5e1";

/// A panel: where it lies, and what its axis says.
struct Panel {
    top: f64,
    bottom: f64,
    from: f64,
    to: f64,
    seconds: f64,
}

impl Panel {
    fn x(&self, second: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * second / self.seconds
    }

    fn y(&self, value: f64) -> f64 {
        let share = ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        self.bottom - (self.bottom - self.top) * share
    }

    /// Grid, axis and title; numbers stand at every `step`.
    fn frame(&self, title: &str, unit: &str, step: f64, hours: u32) -> String {
        let mut svg = String::new();
        let mut value = self.from;
        while value <= self.to + 1e-9 {
            let y = self.y(value);
            line(&mut svg, (LEFT, y), (RIGHT, y), GRID, "");
            text(
                &mut svg,
                LEFT - 8.0,
                y + 4.0,
                "end",
                FAINT,
                &format!("{value:.0}"),
            );
            value += step;
        }
        for hour in 0..=hours {
            let x = self.x(f64::from(hour) * 3_600.0);
            line(&mut svg, (x, self.top), (x, self.bottom), GRID, "");
        }
        let middle = f64::midpoint(self.top, self.bottom);
        let _written = writeln!(
            svg,
            r#"<text transform="translate(22 {middle:.0}) rotate(-90)" text-anchor="middle" fill="{FAINT}">{unit}</text>"#
        );
        let _written = writeln!(
            svg,
            r#"<text x="{LEFT}" y="{:.0}" fill="{INK}" font-weight="600">{title}</text>"#,
            self.top - 10.0
        );
        svg
    }

    fn points(&self, values: &[f64]) -> String {
        let mut points = String::new();
        let mut second = 0.0;
        for value in values {
            let _written = write!(points, "{:.1},{:.1} ", self.x(second), self.y(*value));
            second += f64::from(u16::try_from(STRETCH).unwrap_or(u16::MAX));
        }
        points
    }

    fn curve(&self, svg: &mut String, values: &[f64], colour: &str, dash: &str) {
        let _written = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round" {dash}/>"#,
            self.points(values)
        );
    }

    fn area(&self, svg: &mut String, values: &[f64], colour: &str) {
        let _written = writeln!(
            svg,
            r#"<polygon points="{LEFT},{bottom} {} {RIGHT},{bottom}" fill="{colour}" opacity="0.55"/>"#,
            self.points(values),
            bottom = self.bottom
        );
    }

    fn level(&self, svg: &mut String, value: f64, colour: &str, label: &str) {
        let y = self.y(value);
        line(
            svg,
            (LEFT, y),
            (RIGHT, y),
            colour,
            r#"stroke-dasharray="6 4""#,
        );
        text(svg, RIGHT - 6.0, y - 5.0, "end", colour, label);
    }
}

/// Draws what `samples` went through.
pub(super) fn draw(
    board: &Board,
    samples: &[Sample],
    oracle: &[Loads],
    concurrency: u16,
) -> String {
    let hours = u32::try_from(samples.len() / 3_600).unwrap_or(u32::MAX);
    let seconds = f64::from(hours) * 3_600.0;
    let panel = |top, bottom, from, to| Panel {
        top,
        bottom,
        from,
        to,
        seconds,
    };
    let most = f64::from(concurrency);
    let mean = |of: &dyn Fn(&Sample) -> f64| means(samples, of);
    let heat = panel(92.0, 352.0, 20.0, 120.0);
    let inference = panel(412.0, 532.0, 0.0, most);
    let rendering = panel(592.0, 672.0, 0.0, 100.0);
    let fan = panel(732.0, 812.0, 0.0, 100.0);

    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 866" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="13" role="img" aria-label="A simulated hot afternoon: the processor's and the GPU's temperature stay at the target or below while air warms to 41 degrees and the fan fails for half an hour; concurrency follows what the oracle could do.">
<rect width="{WIDTH}" height="866" rx="10" fill="#ffffff"/>
<text x="{LEFT}" y="34" font-size="18" font-weight="600" fill="{INK}">A hot afternoon under the governor</text>
<text x="{LEFT}" y="54" fill="{FAINT}">{}, simulated; means of a minute</text>
"##,
        board.name
    );
    // Behind everything: when the fan did not turn.
    let stuck = |sample: &&Sample| sample.decision.is_fan_stuck;
    if let (Some(first), Some(last)) =
        (samples.iter().find(stuck), samples.iter().rev().find(stuck))
    {
        let (from, to) = (
            heat.x(f64::from(first.second)),
            heat.x(f64::from(last.second)),
        );
        for panel in [&heat, &inference, &rendering, &fan] {
            let _written = writeln!(
                svg,
                r##"<rect x="{from:.1}" y="{}" width="{:.1}" height="{}" fill="#fee2e2"/>"##,
                panel.top,
                to - from,
                panel.bottom - panel.top
            );
        }
        let middle = f64::midpoint(from, to);
        text(
            &mut svg,
            middle,
            heat.bottom - 8.0,
            "middle",
            CRITICAL,
            "fan fails",
        );
    }

    svg += &heat.frame("Temperature", "°C", 20.0, hours);
    let zone = |index: usize| {
        move |sample: &Sample| sample.celsius.get(index).copied().unwrap_or(f64::NAN)
    };
    heat.curve(&mut svg, &mean(&|sample| sample.air_celsius), AIR, "");
    heat.curve(&mut svg, &mean(&zone(1)), GPU, "");
    heat.curve(&mut svg, &mean(&zone(0)), CPU, "");
    if let Some(zone) = board.thermal_zones.first() {
        let degrees = |millicelsius: i32| f64::from(millicelsius) / 1_000.0;
        if let Some(target) = zone.target_millicelsius.map(degrees) {
            heat.level(&mut svg, target, TARGET, &format!("target {target:.0} °C"));
        }
        if let Some(critical) = zone.critical_millicelsius().map(degrees) {
            let label = format!("critical {critical:.0} °C");
            heat.level(&mut svg, critical, CRITICAL, &label);
        }
    }
    legend(
        &mut svg,
        heat.top,
        &[(CPU, "processor"), (GPU, "GPU"), (AIR, "air")],
    );

    svg += &inference.frame("Inference: requests at a time", "requests", 2.0, hours);
    let wanted = mean(&|sample| sample.demand.cpu_share * most);
    inference.area(&mut svg, &wanted, WANTED);
    let could = oracle_means(oracle, |loads| loads.cpu_share * most);
    inference.curve(&mut svg, &could, TARGET, r#"stroke-dasharray="3 3""#);
    inference.curve(&mut svg, &mean(&|s| s.done.cpu_share * most), CPU, "");
    let shares = [(WANTED, "wanted"), (TARGET, "oracle"), (CPU, "governor")];
    legend(&mut svg, inference.top, &shares);

    svg += &rendering.frame("Rendering: share of the GPU's time", "%", 50.0, hours);
    let wanted = mean(&|sample| sample.demand.gpu_share * 100.0);
    rendering.area(&mut svg, &wanted, WANTED);
    let could = oracle_means(oracle, |loads| loads.gpu_share * 100.0);
    rendering.curve(&mut svg, &could, TARGET, r#"stroke-dasharray="3 3""#);
    rendering.curve(&mut svg, &mean(&|s| s.done.gpu_share * 100.0), GPU, "");
    let shares = [(WANTED, "wanted"), (TARGET, "oracle"), (GPU, "governor")];
    legend(&mut svg, rendering.top, &shares);

    svg += &fan.frame("Fan: speed that it is told", "%", 50.0, hours);
    fan.curve(
        &mut svg,
        &mean(&|s| f64::from(s.decision.fan_percent)),
        FAN,
        "",
    );
    for hour in 0..=hours {
        let x = fan.x(f64::from(hour) * 3_600.0);
        text(
            &mut svg,
            x,
            fan.bottom + 18.0,
            "middle",
            FAINT,
            &hour.to_string(),
        );
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    text(
        &mut svg,
        middle,
        fan.bottom + 38.0,
        "middle",
        FAINT,
        "hours",
    );
    svg += "</svg>\n";
    svg
}

fn legend(svg: &mut String, top: f64, entries: &[(&str, &str)]) {
    let mut x = RIGHT - 105.0 * f64::from(u8::try_from(entries.len()).unwrap_or(u8::MAX));
    for (colour, label) in entries {
        let y = top - 14.0;
        let _written = writeln!(
            svg,
            r#"<rect x="{x:.0}" y="{:.0}" width="18" height="4" rx="2" fill="{colour}"/>"#,
            y - 2.0
        );
        text(svg, x + 24.0, y + 4.0, "start", INK, label);
        x += 105.0;
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, dash: &str) {
    let _written = writeln!(
        svg,
        r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}" {dash}/>"#,
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, words: &str) {
    let _written = writeln!(
        svg,
        r#"<text x="{x:.0}" y="{y:.0}" text-anchor="{anchor}" fill="{colour}">{words}</text>"#
    );
}

/// Means of each stretch.
fn means(samples: &[Sample], of: &dyn Fn(&Sample) -> f64) -> Vec<f64> {
    samples
        .chunks(STRETCH)
        .map(|stretch| average(stretch.iter().map(of)))
        .collect()
}

fn oracle_means(oracle: &[Loads], of: impl Fn(&Loads) -> f64) -> Vec<f64> {
    oracle
        .chunks(STRETCH)
        .map(|stretch| average(stretch.iter().map(&of)))
        .collect()
}

fn average(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f64::max(count, 1.0)
}

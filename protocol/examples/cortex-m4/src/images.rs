//! What the sensor "sees": the first images of the digits model's held-out set, read from flash.

/// Pixels of an image.
pub const PIXELS: usize = 64;

const HELD_OUT: &str = include_str!(concat!(env!("OUT_DIR"), "/images.csv"));

/// The images, with the digit that each shows.
pub fn all() -> impl Iterator<Item = (i64, [u8; 4 * PIXELS])> {
    HELD_OUT.lines().filter_map(|line| {
        let (label, values) = line.split_once(',')?;
        let mut pixels = [0; 4 * PIXELS];
        for (place, value) in pixels.chunks_exact_mut(4).zip(values.split(',')) {
            let value: u8 = value.parse().ok()?;
            place.copy_from_slice(&f32::from(value).to_le_bytes());
        }
        Some((label.parse().ok()?, pixels))
    })
}

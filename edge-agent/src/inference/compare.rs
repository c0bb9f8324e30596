//! How far two answers of a model to one request lie apart. Pure.

use edge_protocol::{Datatype, oip::Tensor};

/// The largest difference between two outputs, relative to the largest value of the first; none where they differ in
/// more than rounding: in shape or datatype, in whole numbers or texts, or in where there is no finite number.
pub(super) fn difference(a: &Tensor, b: &Tensor) -> Option<f64> {
    if a.shape != b.shape || a.datatype != b.datatype {
        return None;
    }
    let (Some(a_values), Some(b_values)) = (fractions(a), fractions(b)) else {
        return (a.data == b.data).then_some(0.0);
    };
    let largest = a_values
        .iter()
        .filter(|value| value.is_finite())
        .fold(1e-6, |largest: f64, value| largest.max(value.abs()));
    a_values
        .iter()
        .zip(&b_values)
        .try_fold(0.0, |worst: f64, (a, b)| {
            if (a.is_nan() && b.is_nan()) || a == b {
                return Some(worst);
            }
            let apart = (a - b).abs() / largest;
            apart.is_finite().then(|| worst.max(apart))
        })
}

/// The elements, where they are fractions.
fn fractions(tensor: &Tensor) -> Option<Vec<f64>> {
    fn each<const N: usize>(data: &[u8], read: fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>()
            .0
            .iter()
            .map(|bytes| read(*bytes))
            .collect()
    }
    let data = &tensor.data;
    Some(match tensor.datatype {
        Datatype::Fp16 => each(data, |b| half::f16::from_le_bytes(b).to_f64()),
        Datatype::Bf16 => each(data, |b| half::bf16::from_le_bytes(b).to_f64()),
        Datatype::Fp32 => each(data, |b| f32::from_le_bytes(b).into()),
        Datatype::Fp64 => each(data, f64::from_le_bytes),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_f32("y", vec![values.len() as u64], values).unwrap()
    }

    #[test]
    fn rounding_has_a_size_and_what_is_no_rounding_has_none() {
        let of = |a: &[f32], b: &[f32]| difference(&tensor(a), &tensor(b));
        assert_eq!(of(&[1.0, f32::NAN], &[1.0, f32::NAN]), Some(0.0));
        assert_eq!(of(&[f32::INFINITY, 4.0], &[f32::INFINITY, 3.0]), Some(0.25));
        assert_eq!(of(&[0.0, -4.0], &[1.0, -4.0]), Some(0.25));
        assert_eq!(of(&[1.0], &[f32::NAN]), None);
        assert_eq!(of(&[1.0], &[f32::INFINITY]), None);
        assert_eq!(of(&[1.0], &[1.0, 1.0]), None);
    }

    #[test]
    fn whole_numbers_are_the_same_or_not() {
        let of = |value: i64| {
            let data = value.to_le_bytes().to_vec();
            Tensor::new("y".into(), Datatype::Int64, vec![1], data.into()).unwrap()
        };
        assert_eq!(difference(&of(7), &of(7)), Some(0.0));
        assert_eq!(difference(&of(7), &of(8)), None);
    }
}

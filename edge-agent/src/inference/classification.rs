//! Triton's classification extension: instead of an output, its highest elements as texts `VALUE:INDEX:LABEL`. Pure.

use std::cmp::Ordering;

use edge_protocol::{
    Datatype,
    oip::{Request, Tensor},
};

/// Puts the highest elements in the place of each output that the request wants classified. An output of two or more
/// dimensions has one row for each length of its first; an output of one or none is one row.
///
/// # Errors
/// What is wrong with the request.
pub(super) fn classify(
    outputs: Vec<Tensor>,
    request: &Request,
    labels: &[String],
) -> Result<Vec<Tensor>, String> {
    let count = |output: &Tensor| {
        let wanted = request
            .outputs
            .iter()
            .find(|wanted| wanted.name == output.name);
        wanted.and_then(|wanted| wanted.classification)
    };
    let classify = |output: Tensor| match count(&output) {
        Some(count) => highest(&output, count, labels),
        None => Ok(output),
    };
    outputs.into_iter().map(classify).collect()
}

fn highest(output: &Tensor, count: u64, labels: &[String]) -> Result<Tensor, String> {
    let error = |why: &str| format!("output {:?} cannot be classified: {why}", output.name);
    let values = Values::of(output).ok_or_else(|| error("it has no numbers"))?;
    let rows = match output.shape.as_slice() {
        [rows, _, ..] => *rows,
        _ => 1,
    };
    let classes = (values.len() as u64).checked_div(rows).unwrap_or(0);
    let count = count.min(classes);
    let row = usize::try_from(classes).map_err(|_| error("it is too large"))?;
    let kept = usize::try_from(count).map_err(|_| error("it is too large"))?;
    let mut data = Vec::new();
    for start in (0..values.len()).step_by(row.max(1)) {
        let mut indices: Vec<usize> = (0..row).collect();
        indices.sort_by(|a, b| values.compare(start + b, start + a).then(a.cmp(b)));
        for index in indices.into_iter().take(kept) {
            let mut text = format!("{}:{index}", values.text(start + index));
            if let Some(label) = labels.get(index) {
                text.push(':');
                text.push_str(label);
            }
            let length = u32::try_from(text.len()).map_err(|_| error("a label is too long"))?;
            data.extend(length.to_le_bytes());
            data.extend(text.into_bytes());
        }
    }
    let shape = match output.shape.as_slice() {
        [rows, _, ..] => vec![*rows, count],
        _ => vec![count],
    };
    Tensor::new(output.name.clone(), Datatype::Bytes, shape, data.into())
        .map_err(|why| error(&why.to_string()))
}

/// Numbers that are compared.
enum Values {
    Integers(Vec<i128>),
    Floats(Vec<f64>),
}

impl Values {
    fn of(tensor: &Tensor) -> Option<Self> {
        fn each<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
            data.as_chunks::<N>()
                .0
                .iter()
                .map(|chunk| read(*chunk))
                .collect()
        }
        let data = &tensor.data;
        Some(match tensor.datatype {
            Datatype::Bytes => return None,
            Datatype::Bool | Datatype::Uint8 => {
                Self::Integers(each(data, |b: [u8; 1]| u8::from_le_bytes(b).into()))
            }
            Datatype::Uint16 => Self::Integers(each(data, |b| u16::from_le_bytes(b).into())),
            Datatype::Uint32 => Self::Integers(each(data, |b| u32::from_le_bytes(b).into())),
            Datatype::Uint64 => Self::Integers(each(data, |b| u64::from_le_bytes(b).into())),
            Datatype::Int8 => Self::Integers(each(data, |b: [u8; 1]| i8::from_le_bytes(b).into())),
            Datatype::Int16 => Self::Integers(each(data, |b| i16::from_le_bytes(b).into())),
            Datatype::Int32 => Self::Integers(each(data, |b| i32::from_le_bytes(b).into())),
            Datatype::Int64 => Self::Integers(each(data, |b| i64::from_le_bytes(b).into())),
            Datatype::Fp16 => Self::Floats(each(data, |b| half::f16::from_le_bytes(b).into())),
            Datatype::Bf16 => Self::Floats(each(data, |b| half::bf16::from_le_bytes(b).into())),
            Datatype::Fp32 => Self::Floats(each(data, |b| f32::from_le_bytes(b).into())),
            Datatype::Fp64 => Self::Floats(each(data, f64::from_le_bytes)),
        })
    }

    const fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// NaN is below every number.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Self::Integers(values) => values.get(a).cmp(&values.get(b)),
            Self::Floats(values) => {
                let value = |index| values.get(index).copied().unwrap_or(f64::NAN);
                let (a, b) = (value(a), value(b));
                a.partial_cmp(&b)
                    .unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
            }
        }
    }

    /// As Triton writes them: C's `%f` and `%d`.
    fn text(&self, index: usize) -> String {
        match self {
            Self::Integers(values) => values.get(index).map(ToString::to_string),
            Self::Floats(values) => values.get(index).map(|value| format!("{value:.6}")),
        }
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use edge_protocol::oip::WantedOutput;
    use proptest::prelude::*;

    use super::*;

    fn texts(tensor: &Tensor) -> Vec<String> {
        tensor
            .elements()
            .map(|text| String::from_utf8(text.to_vec()).unwrap())
            .collect()
    }

    fn labels(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    fn request(classification: Option<u64>) -> Request {
        Request {
            outputs: vec![WantedOutput {
                name: "y".into(),
                binary: None,
                classification,
            }],
            ..Request::default()
        }
    }

    fn one(shape: &[u64], values: &[f32], count: u64, names: &[&str]) -> Tensor {
        let output = Tensor::from_f32("y", shape.to_vec(), values).unwrap();
        classify(vec![output], &request(Some(count)), &labels(names))
            .unwrap()
            .remove(0)
    }

    #[test]
    fn the_highest_of_each_row_come_first_with_their_labels() {
        let values = [0.1, 0.7, 0.2, 0.5, 0.5, f32::NAN];
        let output = one(&[2, 3], &values, 2, &["cat", "dog"]);
        assert_eq!(output.shape, [2, 2]);
        assert_eq!(
            texts(&output),
            [
                "0.700000:1:dog",
                "0.200000:2",
                "0.500000:0:cat",
                "0.500000:1:dog"
            ]
        );
    }

    #[test]
    fn one_row_has_one_dimension_and_no_more_classes_than_there_are() {
        let output = one(&[3], &[1.0, 3.0, 2.0], 9, &[]);
        assert_eq!(output.shape, [3]);
        assert_eq!(texts(&output), ["3.000000:1", "2.000000:2", "1.000000:0"]);
        assert_eq!(one(&[], &[4.0], 1, &["it"]).shape, [1]);
        assert_eq!(one(&[0, 3], &[], 2, &[]).shape, [0, 0]);
    }

    #[test]
    fn integers_keep_all_their_digits_and_texts_are_refused() {
        let data = [u64::MAX, u64::MAX - 1].map(u64::to_le_bytes).concat();
        let output = Tensor::new("y".into(), Datatype::Uint64, vec![2], data.into()).unwrap();
        let output = highest(&output, 1, &[]).unwrap();
        assert_eq!(texts(&output), ["18446744073709551615:0"]);
        let error = highest(&output, 1, &[]).unwrap_err();
        assert!(error.contains("no numbers"), "{error}");
    }

    #[test]
    fn what_is_not_to_be_classified_stays_as_it_is() {
        let output = Tensor::from_f32("y", vec![1], &[1.0]).unwrap();
        let same = classify(vec![output.clone()], &request(None), &[]).unwrap();
        assert_eq!(same, [output]);
    }

    proptest! {
        #[test]
        fn every_shape_gives_as_many_texts_as_it_says(
            shape in prop::collection::vec(0..4_u64, 0..4),
            count in 1..9_u64,
        ) {
            let elements = usize::try_from(shape.iter().product::<u64>()).unwrap();
            let output = one(&shape, &vec![0.5; elements], count, &[]);
            prop_assert_eq!(output.shape.len(), shape.len().clamp(1, 2));
        }
    }
}
